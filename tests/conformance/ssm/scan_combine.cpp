#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/reference/ssm/scan_combine.hpp>
#include <deft/ssm/scan_combine.hpp>

namespace deft::testing {

struct scan_combine {
    template <class T>
    static void bind(call<T>& c) {
        const bool minus_one = c.number("a_minus_one", 0) != 0;
        const scan_combine_options options{.decay = minus_one ? scan_decay::a_minus_one : scan_decay::a};
        const tolerance bound = by_type<T>({.of_largest = 5e-6, .floor = 0.01}, {.of_largest = 1e-12, .floor = 0.01});
        const extents& shape = c.shape("in.a");
        const extents row{shape.at(1)};

        const auto a = c.input(rank<2>, "in.a"), b = c.input(rank<2>, "in.b");
        const auto a_total = c.output(rank<1>, "out.a", row, {.bound = bound});
        const auto b_total = c.output(rank<1>, "out.b", row, {.bound = bound});
        const auto prefix_a = c.output(rank<2>, "out.prefix_a", shape, {.bound = bound, .in_place = "in.a"});
        const auto prefix_b = c.output(rank<2>, "out.prefix_b", shape, {.bound = bound, .in_place = "in.b"});
        c.forward("direct",
                  [=](any_executor& e) { deft::scan_combine(a, b, a_total, b_total, prefix_a, prefix_b, options, e); });
        c.reference([=] { reference::scan_combine<T>(a, b, a_total, b_total, prefix_a, prefix_b, minus_one); });

        if (!c.has("grad_out.a"))
            return;
        const auto grad_a_total = c.input(rank<1>, "grad_out.a"), grad_b_total = c.input(rank<1>, "grad_out.b");
        const auto grad_a = c.output(rank<2>, "grad_in.a", shape, {.bound = bound});
        const auto grad_b = c.output(rank<2>, "grad_in.b", shape, {.bound = bound});
        c.backward("direct", [=](any_executor& e) {
            deft::scan_combine_backward(a, b, grad_a_total, grad_b_total, grad_a, grad_b, options, e);
        });
        c.reference_backward(
            [=] { reference::scan_combine_backward<T>(a, b, grad_a_total, grad_b_total, grad_a, grad_b, minus_one); });
    }

    static std::vector<test_case> cases() {
        random_values random(52);
        std::vector<test_case> cases;
        const auto add = [&](const extents& shape) {
            for (const double minus_one : {0.0, 1.0})
                cases.push_back({"scan_combine",
                                 "generated",
                                 {{"a_minus_one", minus_one}},
                                 {{"in.a", random.uniform(shape, -1 - minus_one, 1 - minus_one)},
                                  {"in.b", random.normal(shape)},
                                  {"grad_out.a", random.normal({shape[1]})},
                                  {"grad_out.b", random.normal({shape[1]})}},
                                 {}});
        };
        for (const index columns : length_sweep())
            add({3, columns});
        for (const index spans : {1, 2, 4, 9, 33})
            add({spans, 5});
        return cases;
    }
};
DEFT_ADAPTER(scan_combine)

} // namespace deft::testing

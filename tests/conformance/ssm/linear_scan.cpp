#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/reference/ssm/linear_scan.hpp>
#include <deft/ssm/linear_scan.hpp>

namespace deft::testing {

struct linear_scan {
    template <class T>
    static void bind(call<T>& c) {
        const bool reverse = c.number("reverse", 0) != 0, minus_one = c.number("a_minus_one", 0) != 0;
        const linear_scan_options whole{.decay = minus_one ? scan_decay::a_minus_one : scan_decay::a,
                                        .order = reverse ? scan_order::reverse : scan_order::forward};
        linear_scan_options cut = whole;
        cut.chunk = c.integer("chunk", 0);
        const tolerance bound = by_type<T>({.of_largest = 5e-6, .floor = 0.01}, {.of_largest = 1e-12, .floor = 0.01});
        const extents& shape = c.shape("in.a");
        const extents row{shape.at(1)};

        const auto a = c.input(rank<2>, "in.a"), b = c.input(rank<2>, "in.b");
        const auto h0 = c.optional_input(rank<1>, "in.h0");
        const auto h = c.output(rank<2>, "out.h", shape, {.bound = bound, .in_place = "in.b"});
        const auto a_total = c.output(rank<1>, "out.a_total", row, {.bound = bound});
        const auto b_total = c.output(rank<1>, "out.b_total", row, {.bound = bound});
        const auto forward = [=](const linear_scan_options& options) {
            return [=](any_executor& e) { deft::linear_scan(a, b, h0, h, a_total, b_total, options, e); };
        };
        c.forward("whole", forward(whole));
        if (cut.chunk > 0)
            c.forward("spans", forward(cut));
        c.reference([=] { reference::linear_scan<T>(a, b, h0, h, a_total, b_total, minus_one, reverse); });

        if (!c.has("grad_out.h"))
            return;
        const auto grad_h = c.input(rank<2>, "grad_out.h");
        const auto grad_a = c.output(rank<2>, "grad_in.a", shape, {.bound = bound});
        const auto grad_b = c.output(rank<2>, "grad_in.b", shape, {.bound = bound});
        view<T, 1> grad_h0;
        if (c.has("in.h0"))
            grad_h0 = c.output(rank<1>, "grad_in.h0", row, {.bound = bound});
        const auto backward = [=](const linear_scan_options& options) {
            return [=](any_executor& e) {
                deft::linear_scan_backward(a, b, h0, grad_h, grad_a, grad_b, grad_h0, options, e);
            };
        };
        c.backward("whole", backward(whole));
        if (cut.chunk > 0)
            c.backward("spans", backward(cut));
        c.reference_backward(
            [=] { reference::linear_scan_backward<T>(a, b, h0, grad_h, grad_a, grad_b, grad_h0, minus_one, reverse); });
    }

    static std::vector<test_case> cases() {
        random_values random(51);
        std::vector<test_case> cases;
        int turn = 0;
        const auto add = [&](const extents& shape, index chunk, double low = -1, double high = 1) {
            const bool minus_one = turn % 4 >= 2, with_h0 = turn % 3 != 0;
            cases.push_back(
                {"linear_scan",
                 "generated",
                 {{"reverse", double(turn % 2)}, {"a_minus_one", double(minus_one)}, {"chunk", double(chunk)}},
                 {{"in.a", random.uniform(shape, minus_one ? low - 1 : low, minus_one ? high - 1 : high)},
                  {"in.b", random.normal(shape)},
                  {"grad_out.h", random.normal(shape)}},
                 {}});
            if (with_h0)
                cases.back().given["in.h0"] = random.normal({shape[1]});
            ++turn;
        };
        for (const index columns : length_sweep())
            for (const index chunk : {0, 3})
                add({7, columns}, chunk);
        for (const index rows : {0, 1, 2, 3, 5, 8, 100})
            for (const index chunk : {0, 1, 4, 200})
                add({rows, 5}, chunk);
        add({300, 3}, 2); // more spans than are taken at a time
        add({40, 600}, 0);
        add({40, 200}, 9);
        add({500, 2}, 50, 0.999, 1);
        return cases;
    }
};
DEFT_ADAPTER(linear_scan)

} // namespace deft::testing

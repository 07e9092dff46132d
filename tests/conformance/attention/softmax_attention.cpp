#include "linear_attention_case.hpp"
#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/attention/softmax_attention.hpp>
#include <deft/reference/attention/softmax_attention.hpp>

#include <cmath>
#include <cstdint>

namespace deft::testing {

struct softmax_attention {
    template <class T>
    static void bind(call<T>& c) {
        const softmax_attention_options options{
            .mask = c.number("causal", 1) != 0 ? attention_mask::causal : attention_mask::full,
            .scale = c.has_param("scale") ? std::optional<double>(c.number("scale")) : std::nullopt};
        const tolerance bound = by_type<T>({.of_largest = 2e-5}, {.of_largest = 1e-12});
        const tolerance of_lse = by_type<T>({.absolute = 2e-5, .relative = 1e-6}, {.of_largest = 1e-12});
        const auto q = c.input(rank<4>, "in.q"), k = c.input(rank<4>, "in.k"), v = c.input(rank<4>, "in.v");
        const auto mask = c.optional_input(rank<2, std::uint8_t>, "in.key_mask");
        const auto o =
            c.output(rank<4>, "out.o", {q.extent(0), q.extent(1), q.extent(2), v.extent(3)}, {.bound = bound});
        const auto lse = c.output(rank<3>, "out.lse", {q.extent(0), q.extent(1), q.extent(2)}, {.bound = of_lse});
        c.forward("blocks", [=](any_executor& e) { deft::softmax_attention(q, k, v, mask, o, lse, options, e); });
        const reference::softmax_attention_inputs<T> x{q,
                                                       k,
                                                       v,
                                                       mask,
                                                       T(options.scale.value_or(1 / std::sqrt(double(q.extent(3))))),
                                                       options.mask == attention_mask::causal};
        c.reference([=] { reference::softmax_attention<T>(x, o, lse); });
        if (!c.has("grad_out.o"))
            return;
        const auto grad_o = c.input(rank<4>, "grad_out.o");
        const auto grad_q = c.output(rank<4>, "grad_in.q", c.shape("in.q"), {.bound = bound});
        const auto grad_k = c.output(rank<4>, "grad_in.k", c.shape("in.k"), {.bound = bound});
        const auto grad_v = c.output(rank<4>, "grad_in.v", c.shape("in.v"), {.bound = bound});
        c.backward("blocks", [=](any_executor& e) {
            deft::softmax_attention_backward(q, k, v, mask, grad_o, grad_q, grad_k, grad_v, options, e);
        });
        c.reference_backward([=] { reference::softmax_attention_backward<T>(x, grad_o, grad_q, grad_k, grad_v); });
    }

    static std::vector<test_case> cases() {
        random_values random(65);
        std::vector<test_case> cases;
        const auto add = [&](index heads, index groups, index queries, index n, index d, index e, bool causal,
                             bool masked) {
            test_case made{"softmax_attention",
                           "generated",
                           {{"causal", double(causal)}},
                           {{"in.q", random.normal({2, heads, queries, d})},
                            {"in.k", random.normal({2, groups, n, d})},
                            {"in.v", random.normal({2, groups, n, e})},
                            {"grad_out.o", random.normal({2, heads, queries, e})}},
                           {}};
            if (masked)
                made.given["in.key_mask"] = random.integers({2, n}, 0, 1);
            cases.push_back(std::move(made));
        };
        for (index length = 1; length <= 20; ++length) {
            add(2, 1, 3, 4, length, 3, length % 2 == 0, length % 3 == 0);
            add(2, 2, 2, 3, 4, length, length % 2 == 1, false);
            add(1, 1, length, 5, 3, 2, true, length % 4 == 0);
            add(1, 1, 3, length, 3, 2, length % 3 != 0, false);
        }
        add(2, 1, 70, 70, 17, 9, true, false);
        add(1, 1, 130, 67, 9, 5, true, true);
        add(1, 1, 65, 130, 5, 70, false, true);
        add(2, 1, 9, 13, 300, 5, true, false);
        add(1, 1, 5, 9, 4, 270, true, false);
        add(2, 2, 0, 3, 4, 5, true, false); // no queries

        // A key that is NaN spoils the queries that see it and no other.
        add(1, 1, 9, 9, 4, 3, true, false);
        cases.back().given.erase("grad_out.o");
        cases.back().given["in.k"].values[6 * 4 + 2] = NAN;
        return cases;
    }
};
DEFT_ADAPTER(softmax_attention)

} // namespace deft::testing

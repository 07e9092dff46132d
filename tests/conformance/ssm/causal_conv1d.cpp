#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/reference/ssm/causal_conv1d.hpp>
#include <deft/ssm/causal_conv1d.hpp>

#include <algorithm>

namespace deft::testing {

struct causal_conv1d {
    template <class T>
    static void bind(call<T>& c) {
        const names<activation> bases{{"silu", activation::silu}, {"identity", activation::identity}};
        const causal_conv1d_options options{.base = c.choice("activation", bases, "silu")};
        const tolerance bound = by_type<T>({.of_largest = 3e-6, .floor = 0.01}, {.of_largest = 1e-12, .floor = 0.01});
        const extents& shape = c.shape("in.x");
        const index taps = c.shape("in.weight").at(1);
        const extents kept{shape.at(0), taps - 1, shape.at(2)};
        const bool has_state = c.has("in.state");

        const auto x = c.input(rank<3>, "in.x");
        const auto weight = c.input(rank<2>, "in.weight");
        const auto bias = c.optional_input(rank<1>, "in.bias");
        const auto y = c.output(rank<3>, "out.y", shape, {.bound = bound, .in_place = "in.x"});
        view<T, 3> state;
        if (taps > 1)
            state = c.output(rank<3>, "out.state", kept, {.bound = bound, .initial = has_state ? "in.state" : ""});
        const auto start = [=] {
            for (index i = 0; !has_state && i < state.size(); ++i)
                state(i / kept[2] / kept[1], i / kept[2] % kept[1], i % kept[2]) = T(0);
        };
        c.forward("whole", [=](any_executor& e) {
            start();
            deft::causal_conv1d(x, weight, bias, y, state, options, e);
        });
        c.forward("streaming", [=](any_executor& e) {
            start();
            index count = 1; // 1, 2, 3, ... tokens per call
            for (index t = 0; t < shape[1]; t += count++) {
                const index n = std::min(count, shape[1] - t);
                deft::causal_conv1d<T>(tokens(x, t, n), weight, bias, tokens(y, t, n), state, options, e);
            }
        });
        c.reference([=] {
            start();
            reference::causal_conv1d<T>(x, weight, bias, y, state, options.base);
        });

        if (!c.has("grad_out.y"))
            return;
        const auto before = c.optional_input(rank<3>, "in.state");
        const auto grad_y = c.input(rank<3>, "grad_out.y");
        const auto grad_last = c.optional_input(rank<3>, "grad_out.state");
        const auto grad_x = c.output(rank<3>, "grad_in.x", shape, {.bound = bound});
        const auto grad_weight = c.output(rank<2>, "grad_in.weight", c.shape("in.weight"), {.bound = bound});
        view<T, 1> grad_bias;
        view<T, 3> grad_state;
        if (c.has("in.bias"))
            grad_bias = c.output(rank<1>, "grad_in.bias", c.shape("in.bias"), {.bound = bound});
        if (has_state)
            grad_state = c.output(rank<3>, "grad_in.state", kept, {.bound = bound});
        c.backward("direct", [=](any_executor& e) {
            deft::causal_conv1d_backward(x, weight, bias, before, grad_y, grad_last, grad_x, grad_weight, grad_bias,
                                         grad_state, options, e);
        });
        c.reference_backward([=] {
            reference::causal_conv1d_backward<T>(x, weight, bias, before, grad_y, grad_last, grad_x, grad_weight,
                                                 grad_bias, grad_state, options.base);
        });
    }

    static std::vector<test_case> cases();

private:
    template <class E>
    static view<E, 3> tokens(view<E, 3> v, index first, index count) {
        return {
            v.data() + first * v.stride(1), {v.extent(0), count, v.extent(2)}, {v.stride(0), v.stride(1), index{1}}};
    }
};

std::vector<test_case> causal_conv1d::cases() {
    random_values random(50);
    std::vector<test_case> cases;
    const auto add = [&](const extents& shape, index taps, const char* base, bool with_bias, bool with_state) {
        const extents kept{shape[0], taps - 1, shape[2]};
        test_case made{"causal_conv1d",
                       "generated",
                       {{"activation", base}},
                       {{"in.x", random.normal(shape, 2)},
                        {"in.weight", random.normal({shape[2], taps})},
                        {"grad_out.y", random.normal(shape)}},
                       {}};
        if (with_bias)
            made.given["in.bias"] = random.normal({shape[2]});
        if (taps > 1)
            made.given["grad_out.state"] = random.normal(kept);
        if (with_state && taps > 1)
            made.given["in.state"] = random.normal(kept, 2);
        cases.push_back(made);
    };
    for (const index channels : length_sweep())
        add({1 + channels % 2, 7, channels}, 4, channels % 3 == 0 ? "identity" : "silu", channels % 4 != 1,
            channels % 2 == 0);
    for (index taps = 1; taps <= 9; ++taps)
        for (const index count : {1, 2, 5, 13})
            add({2, count, 9}, taps, "silu", taps % 2 == 0, count % 2 == 1);
    add({1, 0, 5}, 3, "silu", true, true);
    add({0, 4, 5}, 3, "silu", true, true);
    add({1, 300, 3}, 40, "silu", true, true);
    add({1, 9, 2}, 256, "identity", true, true);
    add({2, 5, 700}, 4, "silu", true, true);

    test_case spoilt = cases.at(8);
    spoilt.given.erase("grad_out.y");
    spoilt.given.erase("grad_out.state");
    spoilt.given["in.x"].values[3] = NAN;
    cases.push_back(spoilt);
    return cases;
}
DEFT_ADAPTER(causal_conv1d)

} // namespace deft::testing

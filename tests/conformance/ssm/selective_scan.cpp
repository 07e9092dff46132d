#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/reference/ssm/selective_scan.hpp>
#include <deft/ssm/selective_scan_backward.hpp>

#include <algorithm>
#include <cmath>
#include <memory>

namespace deft::testing {

struct selective_scan {
    template <class T>
    static void bind(call<T>& c) {
        const names<discretisation> rules{{"euler", discretisation::euler}, {"zoh", discretisation::zoh}};
        const bool has_softplus = c.number("delta_softplus", 0) != 0;
        const selective_scan_options whole{.step = has_softplus ? step_size::softplus : step_size::identity,
                                           .discretisation = c.choice("discretisation", rules, "euler")};
        selective_scan_options cut = whole;
        cut.chunk = c.integer("chunk", 0);
        const tolerance bound = by_type<T>({.of_largest = 5e-6, .floor = 0.01}, {.of_largest = 1e-12, .floor = 0.01});
        const tolerance grad_bound =
            by_type<T>({.of_largest = 1e-5, .floor = 0.01}, {.of_largest = 1e-12, .floor = 0.01});
        const extents& shape = c.shape("in.u");
        const extents kept{shape.at(0), shape.at(2), c.shape("in.A").at(1)};
        const bool has_state = c.has("in.state");

        const selective_scan_inputs<T> in{.u = c.input(rank<3>, "in.u"),
                                          .delta = c.input(rank<3>, "in.delta"),
                                          .A = c.input(rank<2>, "in.A"),
                                          .B = c.input(rank<4>, "in.B"),
                                          .C = c.input(rank<4>, "in.C"),
                                          .D = c.optional_input(rank<1>, "in.D"),
                                          .z = c.optional_input(rank<3>, "in.z"),
                                          .delta_bias = c.optional_input(rank<1>, "in.delta_bias")};
        const reference::scan_tensors<T> naive{
            in.u, in.delta, in.A,          in.B,         in.C,
            in.D, in.z,     in.delta_bias, has_softplus, whole.discretisation == discretisation::zoh};
        const auto y = c.output(rank<3>, "out.y", shape, {.bound = bound, .in_place = "in.u"});
        const auto state =
            c.output(rank<3>, "out.state", kept, {.bound = bound, .initial = has_state ? "in.state" : ""});
        const auto start = [=] {
            for (index i = 0; !has_state && i < state.size(); ++i)
                state(i / kept[2] / kept[1], i / kept[2] % kept[1], i % kept[2]) = T(0);
        };
        const auto forward = [=](const selective_scan_options& options) {
            return [=](any_executor& e) {
                start();
                deft::selective_scan<T>(in, y, state, options, e);
            };
        };
        c.forward("whole", forward(whole));
        if (cut.chunk > 0)
            c.forward("spans", forward(cut));
        const auto by_calls = [=](index first, index more) { // of first, first + more, .. tokens
            return [=](any_executor& e) {
                start();
                index count = first;
                for (index t = 0; t < shape[1]; t += count, count += more) {
                    const index n = std::min(count, shape[1] - t);
                    selective_scan_inputs<T> part = in;
                    part.u = tokens(in.u, t, n);
                    part.delta = tokens(in.delta, t, n);
                    part.z = in.z.is_given() ? tokens(in.z, t, n) : in.z;
                    part.B = tokens(in.B, t, n);
                    part.C = tokens(in.C, t, n);
                    deft::selective_scan<T>(part, tokens(y, t, n), state, whole, e);
                }
            };
        };
        c.forward("streaming", by_calls(1, 1));
        c.forward("decoding", by_calls(1, 0));
        c.reference([=] {
            start();
            reference::selective_scan<T>(naive, y, state);
        });
        if (c.has("grad_out.y"))
            bind_backward(c, in, naive, whole, grad_bound);
    }

    static std::vector<test_case> cases();

private:
    template <class T>
    static void bind_backward(call<T>& c, const selective_scan_inputs<T>& in, const reference::scan_tensors<T>& naive,
                              const selective_scan_options& options, const tolerance& bound) {
        const auto gradient = [&](auto r, const char* name) {
            const std::string input = std::string("in.") + name;
            return c.has(input) ? c.output(r, "grad_" + input, c.shape(input), {.bound = bound})
                                : decltype(c.output(r, "", {}))();
        };
        const auto before = c.optional_input(rank<3>, "in.state");
        const auto grad_y = c.input(rank<3>, "grad_out.y");
        const auto grad_last = c.optional_input(rank<3>, "grad_out.state");
        selective_scan_gradients<T> grad{.u = gradient(rank<3>, "u"),
                                         .delta = gradient(rank<3>, "delta"),
                                         .A = gradient(rank<2>, "A"),
                                         .B = gradient(rank<4>, "B"),
                                         .C = gradient(rank<4>, "C"),
                                         .D = gradient(rank<1>, "D"),
                                         .z = gradient(rank<3>, "z"),
                                         .delta_bias = gradient(rank<1>, "delta_bias"),
                                         .state = gradient(rank<3>, "state")};
        // Without a state its gradient is nobody's, but the operator wants the memory.
        const auto scratch = std::make_shared<std::vector<T>>(std::size_t(in.u.extent(0) * in.A.size()));
        if (!c.has("in.state"))
            grad.state = {scratch->data(), {in.u.extent(0), in.A.extent(0), in.A.extent(1)}};
        c.backward("tiles", [=, keep = scratch](any_executor& e) {
            deft::selective_scan_backward<T>(in, before, grad_y, grad_last, grad, options, e);
        });
        c.reference_backward([=, keep = scratch] {
            reference::selective_scan_backward<T>(
                naive, before, grad_y, grad_last,
                {grad.u, grad.delta, grad.A, grad.B, grad.C, grad.D, grad.z, grad.delta_bias, grad.state});
        });
    }

    template <class E>
    static view<E, 3> tokens(const view<E, 3>& v, index first, index count) {
        return {
            v.data() + first * v.stride(1), {v.extent(0), count, v.extent(2)}, {v.stride(0), v.stride(1), index{1}}};
    }
    template <class E>
    static view<E, 4> tokens(const view<E, 4>& v, index first, index count) {
        return {v.data() + first * v.stride(1),
                {v.extent(0), count, v.extent(2), v.extent(3)},
                {v.stride(0), v.stride(1), v.stride(2), index{1}}};
    }
};

std::vector<test_case> selective_scan::cases() {
    random_values random(53);
    std::vector<test_case> cases;
    int turn = 0;
    const auto add = [&](index batch, index count, index channels, index states, index groups, bool gradient = true) {
        const bool softplus = turn % 3 != 0, zoh = turn % 2 == 1;
        const extents shape{batch, count, channels}, of_groups{batch, count, groups, states};
        test_case made{"selective_scan",
                       "generated",
                       {{"delta_softplus", double(softplus)},
                        {"discretisation", zoh ? "zoh" : "euler"},
                        {"chunk", double(turn % 4 == 2 ? 5 : 0)}},
                       {{"in.u", random.normal(shape)},
                        {"in.delta", softplus ? random.normal(shape) : random.uniform(shape, 0, 0.5)},
                        {"in.A", random.uniform({channels, states}, -2, count < 10 ? 0.25 : 0)},
                        {"in.B", random.normal(of_groups)},
                        {"in.C", random.normal(of_groups)}},
                       {}};
        if (turn % 5 != 0)
            made.given["in.D"] = random.normal({channels});
        if (turn % 5 != 1)
            made.given["in.z"] = random.normal(shape, 2);
        if (turn % 5 != 2)
            made.given["in.delta_bias"] = random.uniform({channels}, 0, 0.5);
        if (turn % 5 != 3)
            made.given["in.state"] = random.normal({batch, channels, states});
        if (gradient) {
            made.given["grad_out.y"] = random.normal(shape);
            made.given["grad_out.state"] = random.normal({batch, channels, states});
        }
        cases.push_back(made);
        ++turn;
    };
    for (const index channels : length_sweep())
        add(1, 5, channels, 3, 1);
    for (const index states : {1, 2, 4, 5, 8, 9, 16, 17, 40})
        for (const index groups : {1, 3})
            add(2, 6, 6, states, groups);
    for (const index count : {0, 1, 2, 31, 32, 33, 65, 100})
        for (int i = 0; i < 2; ++i)
            add(1 + i, count, 9, 4 + i, 1);
    add(0, 4, 5, 3, 1);
    add(1, 40, 200, 4, 2); // several blocks
    add(1, 80, 3, 70, 1);  // longer tiles
    add(1, 270, 2, 512, 1);
    add(1, 33, 1100, 2, 1); // segments

    // NaN and infinity in one channel stay there.
    add(1, 7, 12, 4, 1, false);
    cases.back().given["in.u"].values[4] = NAN;
    cases.back().given["in.delta"].values[5] = NAN;
    cases.back().given["in.z"] = random.normal({1, 7, 12});
    cases.back().given["in.z"].values[30] = NAN;
    return cases;
}
DEFT_ADAPTER(selective_scan)

} // namespace deft::testing

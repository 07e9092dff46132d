#include "support/allocations.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/attention/dijiang_layer.hpp>
#include <deft/attention/dijiang_layer_backward.hpp>

#include <cmath>
#include <vector>

namespace deft::testing {

namespace {

/// Tensors of a layer of width e with one vector of zeros to ones for each, and views of them.
struct layer {
    index e, heads;
    std::vector<double> w_qkv, b_qkv, t, w_gate, gn_weight, gn_bias, w_out, b_out, decay;

    layer(index width, index h, unsigned seed) : e(width), heads(h) {
        random_values random(seed);
        const double scale = 1 / std::sqrt(double(e));
        w_qkv = random.normal({3 * e, e}, scale).values;
        b_qkv = random.normal({3 * e}, 0.1).values;
        t = random.normal({e / heads}).values;
        w_gate = random.normal({e, e}, scale).values;
        gn_weight = random.uniform({e}, 0.5, 1.5).values;
        gn_bias = random.normal({e}, 0.1).values;
        w_out = random.normal({e, e}, scale).values;
        b_out = random.normal({e}, 0.1).values;
        decay = random.uniform({heads}, 0.5, 1).values;
    }
    dijiang_weights<const double> weights() const {
        return {.w_qkv = {w_qkv.data(), {3 * e, e}},
                .b_qkv = b_qkv,
                .t = t,
                .w_gate = {w_gate.data(), {e, e}},
                .gn_weight = gn_weight,
                .gn_bias = gn_bias,
                .w_out = {w_out.data(), {e, e}},
                .b_out = b_out,
                .decay = decay,
                .q_scale = absent};
    }
};

} // namespace

TEST_CASE("positions turn queries and keys alike: only their distance counts", "[dijiang_layer]") {
    const index n = 9, e = 24;
    const layer l(e, 3, 1);
    random_values random(2);
    const std::vector<double> x = random.normal({1, n, e}).values;
    dijiang_plan<double> plan(e, {.heads = 3, .rotary = 8, .groups = 3});
    // The features see the turned vectors, so that y does depend on the position; one token at 0 and at 0 is the same.
    std::vector<double> y(x.size()), again(x.size()), far(x.size()), state(3 * 64);
    const auto run = [&](std::vector<double>& to, index position) {
        std::fill(state.begin(), state.end(), 0.0);
        deft::dijiang_layer<double>({x.data(), {1, n, e}}, l.weights(), view<double, 3>(to.data(), {1, n, e}),
                                    {state.data(), {1, 3, 8, 8}}, position, plan);
    };
    run(y, 0);
    run(again, 0);
    run(far, 5);
    CHECK(y == again);
    CHECK(y != far);
    plan = dijiang_plan<double>(e, {.heads = 3, .rotary = 0, .groups = 3});
    run(y, 0);
    run(far, 5);
    CHECK(y == far);
}

TEST_CASE("with one head and a channel per group, only biases are left", "[dijiang_layer]") {
    const index e = 8;
    const layer l(e, 1, 3);
    random_values random(4);
    const std::vector<double> x = random.normal({1, 4, e}).values, other = random.normal({1, 4, e}).values;
    dijiang_plan<double> plan(e, {.heads = 1, .groups = e});
    std::vector<double> y(x.size()), state(64);
    dijiang_weights<const double> w = l.weights();
    deft::dijiang_layer<double>({x.data(), {1, 4, e}}, w, view<double, 3>(y.data(), {1, 4, e}),
                                {state.data(), {1, 1, 8, 8}}, 0, plan);
    for (index i = 0; i < 4; ++i)
        for (index o = 0; o < e; ++o) {
            double sum = l.b_out[std::size_t(o)];
            for (index c = 0; c < e; ++c) {
                double z = 0;
                for (index j = 0; j < e; ++j)
                    z += x[std::size_t(i * e + j)] * l.w_gate[std::size_t(j * e + c)];
                sum += z / (1 + std::exp(-z)) * l.gn_bias[std::size_t(c)] * l.w_out[std::size_t(o * e + c)];
            }
            CHECK(std::abs(y[std::size_t(i * e + o)] - sum) <= 1e-12);
        }
}

TEST_CASE("a step of decoding does not allocate", "[dijiang_layer]") {
    const index e = 32;
    const layer l(e, 4, 5);
    std::vector<double> x(std::size_t(2 * e), 0.5), y(x.size()), state(2 * 4 * 64);
    dijiang_plan<double> plan(e, {.heads = 4, .rotary = 4, .groups = 4});
    const auto step = [&](index position) {
        deft::dijiang_layer<double>({x.data(), {2, 1, e}}, l.weights(), view<double, 3>(y.data(), {2, 1, e}),
                                    {state.data(), {2, 4, 8, 8}}, position, plan);
    };
    step(0);
    const long before = allocations();
    step(1);
    CHECK(allocations() == before);
}

TEST_CASE("dijiang_layer rejects bad input", "[dijiang_layer]") {
    const index e = 8;
    const layer l(e, 2, 6);
    const std::vector<double> data(256, 1.0);
    const double* const p = data.data();
    dijiang_plan<double> plan(e, {.heads = 2, .rotary = 2, .groups = 2});
    bad_input bad("dijiang_layer"), bad_backward("dijiang_layer_backward"), bad_plan("dijiang_plan");
    double* const y = bad.output<double>(64);
    double* const state = bad.output<double>(64);
    const auto call = [&](shape<3> x, shape<3> out, shape<4> s, auto&& change) {
        dijiang_weights<const double> w = l.weights();
        change(w);
        return [=, &plan] { deft::dijiang_layer<double>({p, x}, w, view<double, 3>(y, out), {state, s}, 0, plan); };
    };
    const auto with = [&](auto&& change) { return call({1, 3, 8}, {1, 3, 8}, {1, 2, 4, 4}, change); };
    const auto same = [](auto&) {};
    CHECK(bad.rejects("x", call({1, 3, 7}, {1, 3, 7}, {1, 2, 4, 4}, same)));
    CHECK(bad.rejects("y", call({1, 3, 8}, {1, 2, 8}, {1, 2, 4, 4}, same)));
    CHECK(bad.rejects("state", call({1, 3, 8}, {1, 3, 8}, {1, 2, 4, 2}, same)));
    CHECK(bad.rejects("state", call({1, 3, 8}, {1, 3, 8}, {2, 2, 4, 4}, same)));
    CHECK(bad.rejects("w_qkv", with([&](auto& w) { w.w_qkv = {p, {23, 8}}; })));
    CHECK(bad.rejects("b_qkv", with([&](auto& w) { w.b_qkv = {p, {8}}; })));
    CHECK(bad.rejects("t", with([&](auto& w) { w.t = {p, {8}}; })));
    CHECK(bad.rejects("w_gate", with([&](auto& w) { w.w_gate = {p, {8, 7}}; })));
    CHECK(bad.rejects("gn_weight", with([&](auto& w) { w.gn_weight = {p, {4}}; })));
    CHECK(bad.rejects("gn_bias", with([&](auto& w) { w.gn_bias = {p, {4}}; })));
    CHECK(bad.rejects("w_out", with([&](auto& w) { w.w_out = {p, {4, 8}}; })));
    CHECK(bad.rejects("b_out", with([&](auto& w) { w.b_out = {p, {4}}; })));
    CHECK(bad.rejects("decay", with([&](auto& w) { w.decay = {p, {3}}; })));
    CHECK(bad.rejects("decay", with([&](auto& w) { w.decay = {p, {1, 2, 4}}; })));
    CHECK(bad.rejects("q_scale", with([&](auto& w) { w.q_scale = {p, {2, 4}}; })));

    double* const grads = bad_backward.output<double>(1024);
    const auto backward = [&](shape<3> grad_y, shape<3> grad_x, shape<4> grad_state, auto&& change) {
        dijiang_weights<double> grad{.w_qkv = {grads, {24, 8}},
                                     .b_qkv = {grads, {24}},
                                     .t = {grads, {4}},
                                     .w_gate = {grads, {8, 8}},
                                     .gn_weight = {grads, {8}},
                                     .gn_bias = {grads, {8}},
                                     .w_out = {grads, {8, 8}},
                                     .b_out = {grads, {8}},
                                     .decay = {grads, {2}},
                                     .q_scale = absent};
        change(grad);
        return [=, &plan, w = l.weights()] {
            deft::dijiang_layer_backward<double>({p, {1, 3, 8}}, w, absent, {p, grad_y}, view<double, 3>(grads, grad_x),
                                                 grad, {grads, grad_state}, 0, plan);
        };
    };
    CHECK(bad_backward.rejects("grad_y", backward({1, 2, 8}, {1, 3, 8}, {1, 2, 4, 4}, same)));
    CHECK(bad_backward.rejects("grad_x", backward({1, 3, 8}, {1, 3, 4}, {1, 2, 4, 4}, same)));
    CHECK(bad_backward.rejects("grad_state", backward({1, 3, 8}, {1, 3, 8}, {1, 2, 4, 3}, same)));
    CHECK(bad_backward.rejects("w_out", backward({1, 3, 8}, {1, 3, 8}, {1, 2, 4, 4}, [&](auto& g) {
                                   g.w_out = {grads, {8, 4}};
                               })));
    CHECK(bad_backward.rejects("grad_decay", backward({1, 3, 8}, {1, 3, 8}, {1, 2, 4, 4}, [&](auto& g) {
                                   g.decay = {grads, {3}};
                               })));
    CHECK(bad_backward.rejects("q_scale", backward({1, 3, 8}, {1, 3, 8}, {1, 2, 4, 4}, [&](auto& g) {
                                   g.q_scale = {grads, {2, 3}};
                               })));

    const auto make = [](index width, const dijiang_layer_options& options) {
        return [=] { dijiang_plan<double>(width, options); };
    };
    CHECK(bad_plan.rejects("embedding", make(0, {})));
    CHECK(bad_plan.rejects("heads", make(8, {.heads = 3})));
    CHECK(bad_plan.rejects("heads", make(8, {.heads = 0})));
    CHECK(bad_plan.rejects("groups", make(8, {.groups = 5})));
    CHECK(bad_plan.rejects("rotary", make(8, {.rotary = 3})));
    CHECK(bad_plan.rejects("rotary", make(8, {.heads = 2, .rotary = 6})));
    CHECK(bad_plan.rejects("rope_base", make(8, {.rope_base = 0})));
    CHECK(bad_plan.rejects("norm_eps", make(8, {.norm_eps = -1})));
}

} // namespace deft::testing

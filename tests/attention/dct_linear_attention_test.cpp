#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/attention/dct_linear_attention.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

TEST_CASE("with t = 0 attention is a running mean", "[dct_linear_attention]") {
    random_values random(1);
    const index n = 11, d = 6, e = 4;
    const std::vector<double> q = random.normal({1, 2, n, d}).values, k = random.normal({1, 1, n, d}).values,
                              v = random.normal({1, 1, n, e}).values, t(std::size_t(d), 0.0);
    for (const feature_activation activation : {feature_activation::softmax, feature_activation::exp}) {
        const bool stable = activation == feature_activation::exp;
        dct_linear_attention_plan<double> plan(
            d, d,
            {.features = {.activation = activation,
                          .stabilizer = stable ? feature_stabilizer::max : feature_stabilizer::none},
             .normalize = attention_normalize::sum});
        std::vector<double> o(std::size_t(2 * n * e)), state(std::size_t(d * e)), norm(static_cast<std::size_t>(d)),
            scale(static_cast<std::size_t>(d), -std::numeric_limits<double>::infinity());
        deft::dct_linear_attention<double>(
            {q.data(), {1, 2, n, d}}, {k.data(), {1, 1, n, d}}, {v.data(), {1, 1, n, e}}, t, absent, absent,
            view<double, 4>(o.data(), {1, 2, n, e}),
            {{state.data(), {1, 1, d, e}}, {norm.data(), {1, 1, d}}, {scale.data(), {1, 1, d}}}, plan);
        for (index h = 0; h < 2; ++h)
            for (index c = 0; c < e; ++c) {
                double sum = 0;
                for (index i = 0; i < n; ++i) {
                    sum += v[std::size_t(i * e + c)];
                    CHECK(std::abs(o[std::size_t((h * n + i) * e + c)] - sum / double(i + 1)) <= 1e-14);
                }
            }
    }
}

TEST_CASE("the stable form survives the largest inputs in float", "[dct_linear_attention]") {
    const index n = 9, d = 8;
    std::vector<float> q(std::size_t(n * d)), v(q.size()), o(q.size()), state(64), norm(8), scale(8);
    for (std::size_t i = 0; i < q.size(); ++i) {
        q[i] = float(int(i * 37 % 101) - 50) * 1e20f;
        v[i] = float(i % 7);
    }
    const std::vector<float> t(8, 1.0f);
    dct_linear_attention_plan<float> plan(
        d, d,
        {.features = {.activation = feature_activation::exp, .stabilizer = feature_stabilizer::max},
         .normalize = attention_normalize::sum});
    std::fill(scale.begin(), scale.end(), -std::numeric_limits<float>::infinity());
    const view<const float, 4> keys(q.data(), {1, 1, n, d});
    deft::dct_linear_attention<float>(
        keys, keys, {v.data(), {1, 1, n, d}}, t, absent, absent, view<float, 4>(o.data(), {1, 1, n, d}),
        {{state.data(), {1, 1, d, d}}, {norm.data(), {1, 1, d}}, {scale.data(), {1, 1, d}}}, plan);
    for (const float x : o)
        CHECK((x >= 0 && x <= 6));
}

TEST_CASE("dct_linear_attention rejects bad input", "[dct_linear_attention]") {
    const std::vector<float> data(512, 1.0f);
    const float* const p = data.data();
    dct_linear_attention_plan<float> plan(4, 8, {.normalize = attention_normalize::sum});
    bad_input bad("dct_linear_attention"), bad_backward("dct_linear_attention_backward"),
        bad_plan("dct_linear_attention_plan");
    float* const o = bad.output<float>(512);
    float* const s = bad.output<float>(512);
    const auto call = [&](shape<4> q, shape<4> k, shape<4> v, index t, index weight, shape<4> out, shape<4> state,
                          shape<3> norm) {
        return [=, &plan] {
            deft::dct_linear_attention<float>({p, q}, {p, k}, {p, v}, {p, {t}}, {p, {weight}}, absent,
                                              view<float, 4>(o, out), {{s, state}, {s, norm}, {}}, plan);
        };
    };
    CHECK(
        bad.rejects("q", call({1, 2, 3, 5}, {1, 1, 3, 5}, {1, 1, 3, 6}, 8, 8, {1, 2, 3, 6}, {1, 1, 8, 6}, {1, 1, 8})));
    CHECK(
        bad.rejects("k", call({1, 2, 3, 4}, {1, 1, 3, 5}, {1, 1, 3, 6}, 8, 8, {1, 2, 3, 6}, {1, 1, 8, 6}, {1, 1, 8})));
    CHECK(
        bad.rejects("v", call({1, 2, 3, 4}, {1, 1, 3, 4}, {1, 1, 2, 6}, 8, 8, {1, 2, 3, 6}, {1, 1, 8, 6}, {1, 1, 8})));
    CHECK(
        bad.rejects("t", call({1, 2, 3, 4}, {1, 1, 3, 4}, {1, 1, 3, 6}, 4, 8, {1, 2, 3, 6}, {1, 1, 8, 6}, {1, 1, 8})));
    CHECK(bad.rejects("weight",
                      call({1, 2, 3, 4}, {1, 1, 3, 4}, {1, 1, 3, 6}, 8, 4, {1, 2, 3, 6}, {1, 1, 8, 6}, {1, 1, 8})));
    CHECK(
        bad.rejects("o", call({1, 2, 3, 4}, {1, 1, 3, 4}, {1, 1, 3, 6}, 8, 8, {1, 2, 3, 5}, {1, 1, 8, 6}, {1, 1, 8})));
    CHECK(bad.rejects("state",
                      call({1, 2, 3, 4}, {1, 1, 3, 4}, {1, 1, 3, 6}, 8, 8, {1, 2, 3, 6}, {1, 1, 4, 6}, {1, 1, 8})));
    CHECK(bad.rejects("norm",
                      call({1, 2, 3, 4}, {1, 1, 3, 4}, {1, 1, 3, 6}, 8, 8, {1, 2, 3, 6}, {1, 1, 8, 6}, {1, 1, 4})));

    float* const grads = bad_backward.output<float>(1024);
    const auto backward = [&](shape<4> grad_o, shape<4> gq, shape<4> gk, shape<4> gv, index gt, index gw) {
        return [=, &plan] {
            deft::dct_linear_attention_backward<float>(
                {p, {1, 2, 3, 4}}, {p, {1, 1, 3, 4}}, {p, {1, 1, 3, 6}}, {p, {8}}, {p, {8}}, absent, {p, grad_o},
                view<float, 4>(grads, gq), {grads, gk}, {grads, gv}, {grads, {gt}}, {grads, {gw}}, absent, plan);
        };
    };
    const shape<4> q{1, 2, 3, 4}, k{1, 1, 3, 4}, v{1, 1, 3, 6}, g{1, 2, 3, 6};
    CHECK(bad_backward.rejects("grad_o", backward(q, q, k, v, 8, 8)));
    CHECK(bad_backward.rejects("grad_q", backward(g, k, k, v, 8, 8)));
    CHECK(bad_backward.rejects("grad_k", backward(g, q, v, v, 8, 8)));
    CHECK(bad_backward.rejects("grad_v", backward(g, q, k, k, 8, 8)));
    CHECK(bad_backward.rejects("grad_t", backward(g, q, k, v, 4, 8)));
    CHECK(bad_backward.rejects("grad_weight", backward(g, q, k, v, 8, 4)));

    const auto make = [](const dct_linear_attention_options& options) {
        return [=] { dct_linear_attention_plan<float>(4, 8, options); };
    };
    const dct_feature_options stable{.activation = feature_activation::exp, .stabilizer = feature_stabilizer::max};
    CHECK(bad_plan.rejects("activation", make({.features = {.activation = feature_activation::log}})));
    CHECK(bad_plan.rejects("eps", make({.eps = -1})));
    CHECK(bad_plan.rejects("normalize", make({.features = stable})));
    CHECK(bad_plan.rejects("eps", make({.features = stable, .normalize = attention_normalize::sum, .eps = 1})));
}

} // namespace deft::testing

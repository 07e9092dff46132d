#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/attention/linear_attention.hpp>
#include <deft/attention/linear_attention_scaled.hpp>

#include <cmath>
#include <vector>

namespace deft::testing {

TEST_CASE("scales in range give what scaled keys give, and a common scale changes nothing",
          "[linear_attention_scaled]") {
    const index n = 150, m = 9, e = 5;
    random_values random(3);
    const std::vector<double> q = random.uniform({n, m}, 0.01, 1).values, v = random.normal({n, e}).values;
    const std::vector<double> k = random.uniform({n, m}, 0.01, 1).values, s = random.normal({n}, 8).values;
    const std::vector<double> decay{0.7};
    std::vector<double> scaled_k = k, expected(std::size_t(n * e)), o(std::size_t(n * e));
    for (std::size_t i = 0; i < k.size(); ++i)
        scaled_k[i] *= std::exp(s[i / std::size_t(m)]);
    linear_attention_state<double> plain({.features = m, .width = e});
    deft::linear_attention<double>({q.data(), {1, 1, n, m}}, {scaled_k.data(), {1, 1, n, m}}, {v.data(), {1, 1, n, e}},
                                   decay, view<double, 4>(expected.data(), {1, 1, n, e}), plain,
                                   {.normalize = attention_normalize::sum});
    for (const double common : {0.0, 1e4, -1e4}) {
        std::vector<double> log_scale = s;
        for (double& x : log_scale)
            x += common;
        linear_attention_scaled_state<double> state({.features = m, .width = e});
        deft::linear_attention_scaled<double>({q.data(), {1, 1, n, m}}, {k.data(), {1, 1, n, m}},
                                              {v.data(), {1, 1, n, e}}, {log_scale.data(), {1, 1, n}}, decay,
                                              view<double, 4>(o.data(), {1, 1, n, e}), state);
        for (std::size_t i = 0; i < o.size(); ++i)
            CHECK_THAT(o[i], Catch::Matchers::WithinAbs(expected[i], common == 0.0 ? 1e-12 : 1e-10));
        if (common == 0.0)
            CHECK_THAT(state.view().state(0, 0, 1, 1) * std::exp(state.log_scale()(0, 0)),
                       Catch::Matchers::WithinRel(plain.state()(0, 0, 1, 1), 1e-11));
    }
}

TEST_CASE("linear_attention_scaled rejects what does not fit", "[linear_attention_scaled]") {
    bad_input bad("linear_attention_scaled");
    const std::vector<float> x(200, 1.0f);
    float* const o = bad.output<float>(200);
    const shape<4> q{1, 2, 3, 4}, v{1, 2, 3, 5};
    const auto call = [&](shape<4> k, shape<3> scale, shape<4> state, shape<2> state_scale) {
        deft::linear_attention_scaled<float>({x.data(), q}, {x.data(), k}, {x.data(), v}, {x.data(), scale}, absent,
                                             view<float, 4>(o, v), {{o, state}, {o, {1, 2, 4}}, {o, state_scale}});
    };
    CHECK(bad.rejects("k", [&] { call(v, {1, 2, 3}, {1, 2, 4, 5}, {1, 2}); }));
    CHECK(bad.rejects("k_log_scale", [&] { call(q, {1, 2, 4}, {1, 2, 4, 5}, {1, 2}); }));
    CHECK(bad.rejects("state", [&] { call(q, {1, 2, 3}, {1, 2, 5, 4}, {1, 2}); }));
    CHECK(bad.rejects("log_scale", [&] { call(q, {1, 2, 3}, {1, 2, 4, 5}, {1, 3}); }));
}

} // namespace deft::testing

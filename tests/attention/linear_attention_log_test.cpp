#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/attention/linear_attention_log.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

TEST_CASE("logarithms of any size give what softmax attention gives", "[linear_attention_log]") {
    const index n = 40, m = 5, e = 3;
    random_values random(3);
    for (const double spread : {1.0, 30.0, 1000.0}) {
        const std::vector<double> q = random.normal({n, m}, spread).values, k = random.normal({n, m}, spread).values;
        const std::vector<double> v = random.normal({n, e}).values;
        std::vector<double> o(std::size_t(n * e));
        linear_attention_log_state<double> state({.features = m, .width = e});
        deft::linear_attention_log<double>({q.data(), {1, 1, n, m}}, {k.data(), {1, 1, n, m}}, {v.data(), {1, 1, n, e}},
                                           absent, view<double, 4>(o.data(), {1, 1, n, e}), state);
        for (index i = 0; i < n; ++i) {
            std::vector<double> score(std::size_t(i + 1), -INFINITY);
            double largest = -INFINITY, sum = 0, expected = 0;
            for (index j = 0; j <= i; ++j) {
                double top = -INFINITY, shares = 0;
                for (index f = 0; f < m; ++f)
                    top = std::max(top, q[std::size_t(i * m + f)] + k[std::size_t(j * m + f)]);
                for (index f = 0; f < m; ++f)
                    shares += std::exp(q[std::size_t(i * m + f)] + k[std::size_t(j * m + f)] - top);
                score[std::size_t(j)] = top + std::log(shares);
                largest = std::max(largest, score[std::size_t(j)]);
            }
            for (index j = 0; j <= i; ++j) {
                const double p = std::exp(score[std::size_t(j)] - largest);
                sum += p;
                expected += p * v[std::size_t(j * e)];
            }
            CHECK_THAT(o[std::size_t(i * e)], Catch::Matchers::WithinAbs(expected / sum, 1e-11));
        }
    }
}

TEST_CASE("a query that meets no feature gives 0", "[linear_attention_log]") {
    const float none = -std::numeric_limits<float>::infinity();
    const std::vector<float> q{0, none, none, 0}, k{0, none, 0, none}, v{3, 5};
    std::vector<float> o(2);
    linear_attention_log_state<float> state({.features = 2, .width = 1});
    deft::linear_attention_log<float>({q.data(), {1, 1, 2, 2}}, {k.data(), {1, 1, 2, 2}}, {v.data(), {1, 1, 2, 1}},
                                      absent, view<float, 4>(o.data(), {1, 1, 2, 1}), state);
    CHECK(o == std::vector<float>{3, 0});
    CHECK(state.log_scale()(0, 0, 1) == none);
    const std::vector<float> grad_o{1, 1};
    std::vector<float> gq(4), gk(4), gv(2);
    deft::linear_attention_log_backward<float>({q.data(), {1, 1, 2, 2}}, {k.data(), {1, 1, 2, 2}},
                                               {v.data(), {1, 1, 2, 1}}, absent, {o.data(), {1, 1, 2, 1}},
                                               {grad_o.data(), {1, 1, 2, 1}}, view<float, 4>(gq.data(), {1, 1, 2, 2}),
                                               {gk.data(), {1, 1, 2, 2}}, {gv.data(), {1, 1, 2, 1}}, absent);
    CHECK(gq == std::vector<float>(4, 0.0f));
    CHECK(gv == std::vector<float>{1, 0});
}

TEST_CASE("linear_attention_log rejects what does not fit", "[linear_attention_log]") {
    bad_input bad("linear_attention_log");
    const std::vector<float> x(200, 1.0f);
    float* const o = bad.output<float>(200);
    const shape<4> q{1, 2, 3, 4}, v{1, 2, 3, 5};
    const auto call = [&](shape<4> log_k, shape<4> to, shape<4> state, shape<3> norm, shape<3> scale) {
        deft::linear_attention_log<float>({x.data(), q}, {x.data(), log_k}, {x.data(), v}, absent,
                                          view<float, 4>(o, to), {{o, state}, {o, norm}, {o, scale}});
    };
    CHECK(bad.rejects("k", [&] { call(v, v, {1, 2, 4, 5}, {1, 2, 4}, {1, 2, 4}); }));
    CHECK(bad.rejects("o", [&] { call(q, q, {1, 2, 4, 5}, {1, 2, 4}, {1, 2, 4}); }));
    CHECK(bad.rejects("state", [&] { call(q, v, {1, 2, 5, 4}, {1, 2, 4}, {1, 2, 4}); }));
    CHECK(bad.rejects("norm", [&] { call(q, v, {1, 2, 4, 5}, {1, 2, 5}, {1, 2, 4}); }));
    CHECK(bad.rejects("log_scale", [&] { call(q, v, {1, 2, 4, 5}, {1, 2, 4}, {1, 1, 4}); }));
}

} // namespace deft::testing

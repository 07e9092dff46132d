#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/reference/ssm/causal_conv1d.hpp>
#include <deft/ssm/causal_conv1d.hpp>

#include <Eigen/Core>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

TEST_CASE("causal_conv1d by hand: the last tap meets the current token", "[causal_conv1d]") {
    const std::vector<double> x{1, 10, 100}, weight{2, 3, 5}, bias{7};
    std::vector<double> y(3), state{1000, 10000};
    deft::causal_conv1d<double>({x.data(), {1, 3, 1}}, {weight.data(), {1, 3}}, bias, {y.data(), {1, 3, 1}},
                                {state.data(), {1, 2, 1}}, {.base = activation::identity});
    CHECK(y == std::vector<double>{2000 + 30000 + 5 + 7, 20000 + 3 + 50 + 7, 2 + 30 + 500 + 7});
    CHECK(state == std::vector<double>{10, 100});

    // One token, fewer than the state holds: the newest old entry stays.
    const std::vector<double> next{4};
    deft::causal_conv1d<double>({next.data(), {1, 1, 1}}, {weight.data(), {1, 3}}, absent, {y.data(), {1, 1, 1}},
                                {state.data(), {1, 2, 1}}, {.base = activation::identity});
    CHECK(y[0] == 20 + 300 + 20);
    CHECK(state == std::vector<double>{100, 4});
}

TEST_CASE("an absent state is one of zeros, and no tokens leave a state alone", "[causal_conv1d]") {
    random_values random(1);
    const std::vector<double> x = random.normal({2, 5, 3}).values, weight = random.normal({3, 4}).values;
    std::vector<double> with(x.size()), without(x.size()), state(2 * 3 * 3, 0.0);
    deft::causal_conv1d<double>({x.data(), {2, 5, 3}}, {weight.data(), {3, 4}}, absent, {with.data(), {2, 5, 3}},
                                {state.data(), {2, 3, 3}});
    deft::causal_conv1d<double>({x.data(), {2, 5, 3}}, {weight.data(), {3, 4}}, absent, {without.data(), {2, 5, 3}},
                                absent);
    CHECK(with == without);
    const std::vector<double> before = state;
    deft::causal_conv1d<double>({nullptr, {2, 0, 3}}, {weight.data(), {3, 4}}, absent, {nullptr, {2, 0, 3}},
                                {state.data(), {2, 3, 3}});
    CHECK(state == before);
}

TEST_CASE("however a sequence is cut, causal_conv1d gives the same bits", "[causal_conv1d]") {
    constexpr index tokens = 37, channels = 19;
    random_values random(2);
    for (const index taps : {2, 3, 4, 6}) {
        const std::vector<double> values = random.normal({tokens, channels}).values;
        const std::vector<double> weights = random.normal({channels, taps}).values;
        const std::vector<float> x(values.begin(), values.end()), weight(weights.begin(), weights.end());
        std::vector<float> whole(x.size()), state(std::size_t((taps - 1) * channels));
        deft::causal_conv1d<float>({x.data(), {1, tokens, channels}}, {weight.data(), {channels, taps}}, absent,
                                   {whole.data(), {1, tokens, channels}}, {state.data(), {1, taps - 1, channels}});
        for (int turn = 0; turn < 20; ++turn) {
            std::vector<float> y = x, kept(state.size()); // in place
            for (index t = 0; t < tokens;) {
                const index n = std::min<index>(random.integer(0, 9), tokens - t);
                float* const at = y.data() + t * channels;
                deft::causal_conv1d<float>({at, {1, n, channels}}, {weight.data(), {channels, taps}}, absent,
                                           {at, {1, n, channels}}, {kept.data(), {1, taps - 1, channels}});
                t += n;
            }
            CHECK(y == whole);
            CHECK(kept == state);
        }
    }
}

TEMPLATE_TEST_CASE("causal_conv1d takes 16-bit storage types", "[causal_conv1d]", Eigen::half, Eigen::bfloat16) {
    using storage = TestType;
    const double roundoff = std::ldexp(1.0, -std::numeric_limits<storage>::digits);
    constexpr index tokens = 9, channels = 21, taps = 4;
    random_values random(3);
    const std::vector<double> values = random.normal({tokens, channels}).values;
    const std::vector<double> weight64 = random.normal({channels, taps}).values;
    const std::vector<float> weight(weight64.begin(), weight64.end());
    std::vector<storage> x, y(values.size()), state(std::size_t((taps - 1) * channels), storage(0.0f));
    std::vector<double> stored, expected(values.size()), state64(state.size(), 0.0);
    for (const double v : values)
        stored.push_back(double(float(x.emplace_back(float(v)))));
    deft::causal_conv1d<storage>({x.data(), {1, tokens, channels}}, {weight.data(), {channels, taps}}, absent,
                                 {y.data(), {1, tokens, channels}}, {state.data(), {1, taps - 1, channels}});
    deft::reference::causal_conv1d<double>({stored.data(), {1, tokens, channels}}, {weight64.data(), {channels, taps}},
                                           absent, view<double, 3>(expected.data(), {1, tokens, channels}),
                                           {state64.data(), {1, taps - 1, channels}}, activation::silu);
    for (std::size_t i = 0; i < y.size(); ++i)
        CHECK(std::abs(double(float(y[i])) - expected[i]) <= 1e-6 + 1.01 * roundoff * std::abs(expected[i]));
    for (std::size_t i = 0; i < state.size(); ++i)
        CHECK(double(float(state[i])) == state64[i]);
}

TEST_CASE("causal_conv1d rejects bad input", "[causal_conv1d]") {
    const std::vector<float> data(512, 1.0f);
    const float* const p = data.data();
    const in<float, 3> x(p, {2, 5, 3});
    const in<float, 2> weight(p, {3, 4});

    bad_input bad("causal_conv1d");
    float* const y = bad.output<float>(64);
    float* const state = bad.output<float>(64);
    const auto call = [&](in<float, 2> w, in<float, 1> b, shape<3> y_shape, view<float, 3> s,
                          activation base = activation::silu) {
        return [=] { deft::causal_conv1d<float>(x, w, b, {y, y_shape}, s, {.base = base}); };
    };
    CHECK(bad.rejects("weight", call({p, {2, 4}}, absent, {2, 5, 3}, absent)));
    CHECK(bad.rejects("weight", call({p, {3, 0}}, absent, {2, 5, 3}, absent)));
    CHECK(bad.rejects("weight", call({p, {3, 257}}, absent, {2, 5, 3}, absent)));
    CHECK(bad.rejects("bias", call(weight, {p, {4}}, {2, 5, 3}, absent)));
    CHECK(bad.rejects("y", call(weight, absent, {2, 5, 4}, absent)));
    CHECK(bad.rejects("y", call(weight, absent, {2, 4, 3}, absent)));
    CHECK(bad.rejects("y", call(weight, absent, {1, 5, 3}, absent)));
    CHECK(bad.rejects("state", call(weight, absent, {2, 5, 3}, {state, {1, 3, 3}})));
    CHECK(bad.rejects("state", call(weight, absent, {2, 5, 3}, {state, {2, 4, 3}})));
    CHECK(bad.rejects("state", call(weight, absent, {2, 5, 3}, {state, {2, 3, 2}})));
    CHECK(bad.rejects("base", call(weight, absent, {2, 5, 3}, absent, activation::relu)));

    bad_input bad_backward("causal_conv1d_backward");
    float* const g = bad_backward.output<float>(128);
    const auto backward = [&](in<float, 3> grad_y, in<float, 3> last, shape<3> gx, shape<2> gw, shape<1> gb,
                              shape<3> gs) {
        return [=] {
            deft::causal_conv1d_backward<float>(x, weight, {p, {3}}, absent, grad_y, last, {g, gx}, {g, gw}, {g, gb},
                                                {g, gs});
        };
    };
    const shape<3> xs{2, 5, 3}, ss{2, 3, 3};
    CHECK(bad_backward.rejects("grad_y", backward({p, {2, 4, 3}}, absent, xs, {3, 4}, {3}, ss)));
    CHECK(bad_backward.rejects("grad_last", backward({p, xs}, {p, {2, 4, 3}}, xs, {3, 4}, {3}, ss)));
    CHECK(bad_backward.rejects("grad_x", backward({p, xs}, absent, {2, 5, 2}, {3, 4}, {3}, ss)));
    CHECK(bad_backward.rejects("grad_weight", backward({p, xs}, absent, xs, {3, 3}, {3}, ss)));
    CHECK(bad_backward.rejects("grad_bias", backward({p, xs}, absent, xs, {3, 4}, {4}, ss)));
    CHECK(bad_backward.rejects("grad_state", backward({p, xs}, absent, xs, {3, 4}, {3}, {2, 2, 3})));
}

} // namespace deft::testing

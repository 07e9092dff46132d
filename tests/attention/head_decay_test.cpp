#include "support/bad_input.hpp"
#include "support/catch.hpp"

#include <deft/attention/head_decay.hpp>

#include <cmath>
#include <vector>

namespace deft::testing {

TEST_CASE("head_decay of known heads", "[head_decay]") {
    std::vector<double> decay(3);
    head_decay(decay, head_decay_kind::linspace);
    CHECK(std::abs(decay[0] - 31.0 / 32) <= 1e-15);
    CHECK(std::abs(decay[1] - 127.0 / 128) <= 1e-15);
    CHECK(std::abs(decay[2] - 511.0 / 512) <= 1e-15);
    head_decay(decay, head_decay_kind::retnet);
    CHECK(decay == std::vector<double>{31.0 / 32, 63.0 / 64, 127.0 / 128});
    std::vector<float> one(1);
    head_decay(one, head_decay_kind::linspace);
    CHECK(one[0] == 31.0f / 32);
}

TEST_CASE("position weights give the scores they stand for", "[decay_from_position_weights]") {
    const std::vector<double> d1{1, 0.9, 0.7, -0.5}, d2{1, 1.25, -1.5, 2};
    std::vector<double> q_scale(4), decay(4);
    const auto table = [](const std::vector<double>& v) { return view<const double, 2>(v.data(), {1, 4}); };
    deft::decay_from_position_weights<double>(table(d1), table(d2), absent, view<double, 2>(q_scale.data(), {1, 4}),
                                              view<double, 2>(decay.data(), {1, 4}));
    CHECK(decay[0] == 1);
    for (std::size_t i = 0; i < 4; ++i) {
        double weight = q_scale[i];
        for (std::size_t j = i;; --j) {
            CHECK(std::abs(weight - d1[i] * d2[j]) <= 1e-15);
            if (j == 0)
                break;
            weight *= decay[j];
        }
    }
}

TEST_CASE("position weights at their start values, and behind the last position", "[decay_from_position_weights]") {
    const index trained = 40, n = 60;
    std::vector<double> gamma(2), d1, d2, q_scale(std::size_t(2 * n)), decay(q_scale.size());
    head_decay(gamma, head_decay_kind::linspace);
    for (const double g : gamma)
        for (index i = 0; i < trained; ++i) {
            d1.push_back(std::pow(g, double(i)));
            d2.push_back(std::pow(g, -double(i)));
        }
    deft::decay_from_position_weights<double>({d1.data(), {2, trained}}, {d2.data(), {2, trained}}, gamma,
                                              view<double, 2>(q_scale.data(), {2, n}), {decay.data(), {2, n}});
    for (index h = 0; h < 2; ++h)
        for (index i = 0; i < n; ++i) {
            CHECK(std::abs(q_scale[std::size_t(h * n + i)] - 1) <= 1e-14);
            CHECK(std::abs(decay[std::size_t(h * n + i)] - (i == 0 ? 1 : gamma[std::size_t(h)])) <= 1e-14);
        }
}

TEST_CASE("decays reject bad input", "[head_decay]") {
    std::vector<float> data(24, 1.0f);
    const float* const p = data.data();
    bad_input bad("decay_from_position_weights"), bad_backward("decay_from_position_weights_backward");
    float* const q = bad.output<float>(32);
    float* const a = bad.output<float>(32);
    const auto call = [&](shape<2> d2, index gamma, shape<2> out, shape<2> decay) {
        return [=] {
            deft::decay_from_position_weights<float>(
                {p, {2, 3}}, {p, d2}, gamma == 0 ? view<const float, 1>() : view<const float, 1>(p, {gamma}),
                view<float, 2>(q, out), {a, decay});
        };
    };
    CHECK(bad.rejects("d2", call({2, 4}, 2, {2, 3}, {2, 3})));
    CHECK(bad.rejects("q_scale", call({2, 3}, 2, {3, 3}, {3, 3})));
    CHECK(bad.rejects("q_scale", call({2, 3}, 2, {2, 2}, {2, 2})));
    CHECK(bad.rejects("q_scale", call({2, 3}, 0, {2, 4}, {2, 4}))); // longer, and no gamma
    CHECK(bad.rejects("decay", call({2, 3}, 2, {2, 3}, {2, 4})));
    CHECK(bad.rejects("gamma", call({2, 3}, 3, {2, 4}, {2, 4})));
    CHECK(bad.rejects("d1", [&] { // nothing to be continued
        deft::decay_from_position_weights<float>({p, {2, 0}}, {p, {2, 0}}, {p, {2}}, view<float, 2>(q, {2, 4}),
                                                 {a, {2, 4}});
    }));
    float* const g1 = bad_backward.output<float>(32);
    float* const g2 = bad_backward.output<float>(32);
    const auto backward = [&](shape<2> gq, shape<2> ga, shape<2> o1, shape<2> o2) {
        return [=] {
            deft::decay_from_position_weights_backward<float>({p, {2, 3}}, {p, {2, 3}}, {p, gq}, {p, ga},
                                                              view<float, 2>(g1, o1), {g2, o2});
        };
    };
    CHECK(bad_backward.rejects("grad_q_scale", backward({2, 4}, {2, 3}, {2, 3}, {2, 3})));
    CHECK(bad_backward.rejects("grad_decay", backward({2, 3}, {3, 3}, {2, 3}, {2, 3})));
    CHECK(bad_backward.rejects("grad_d1", backward({2, 3}, {2, 3}, {2, 2}, {2, 3})));
    CHECK(bad_backward.rejects("grad_d2", backward({2, 3}, {2, 3}, {2, 3}, {1, 3})));
    CHECK(bad_input("head_decay").rejects("kind", [&] { head_decay(data, head_decay_kind(2)); }));
    data[4] = 0;
    CHECK(bad.rejects("d2", call({2, 3}, 2, {2, 3}, {2, 3})));
    CHECK(bad_backward.rejects("d2", backward({2, 3}, {2, 3}, {2, 3}, {2, 3})));
}

} // namespace deft::testing

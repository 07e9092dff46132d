#include "support/bad_input.hpp"
#include "support/catch.hpp"

#include <deft/quantization/rounding_loss.hpp>

#include <cmath>
#include <vector>

namespace deft::testing {

TEST_CASE("rounding_loss by hand", "[rounding_loss]") {
    // One factor: V = a1 a2. h(0) = 1/2 costs 1; saturated ones cost nothing, exactly.
    const std::vector<float> a1{1, -1}, a2{0, 2.5f, 1e6f, -1e30f};
    CHECK(deft::rounding_loss<float>({a1.data(), {2, 1}}, {a2.data(), {1, 4}}, absent) == 2.0);
    std::vector<float> g1(2, 7.0f), g2(4, 7.0f);
    deft::rounding_loss_backward<float>({a1.data(), {2, 1}}, {a2.data(), {1, 4}}, absent, 1, {g1.data(), {2, 1}},
                                        {g2.data(), {1, 4}});
    CHECK(g1 == std::vector<float>{0, 0});
    CHECK(g2 == std::vector<float>{0, 0, 0, 0});

    const double v = 0.75, h = 1.2 / (1 + std::exp(-v)) - 0.1;
    const std::vector<double> one{v}, unit{1};
    for (const double beta : {1.0, 2.0, 20.0})
        CHECK_THAT(deft::rounding_loss<double>({one.data(), {1, 1}}, {unit.data(), {1, 1}}, absent, {.beta = beta}),
                   Catch::Matchers::WithinRel(1 - std::pow(2 * h - 1, beta), 1e-14));
}

TEST_CASE("with beta = 1 the slope jumps at 1/2 and is 0 there", "[rounding_loss]") {
    // In float h is exactly 1/2 at V = 0; in double 1.1 and -0.1 leave it 2^-53 above.
    const float up = 1;
    for (const float v : {-0.5f, 0.0f, 0.5f}) {
        float g1 = 7, g2 = 7;
        deft::rounding_loss_backward<float>({&v, {1, 1}}, {&up, {1, 1}}, absent, 1, {&g1, {1, 1}}, {&g2, {1, 1}},
                                            {.beta = 1});
        const double s = 1 / (1 + std::exp(-double(v))), slope = 1.2 * s * (1 - s);
        const double expected = v == 0 ? 0 : v > 0 ? -2 * slope : 2 * slope;
        CHECK_THAT(double(g1), Catch::Matchers::WithinAbs(expected, v == 0 ? 0 : 1e-6));
        CHECK(g2 == g1 * v);
    }
}

TEST_CASE("beta_schedule by hand", "[beta_schedule]") {
    const beta_schedule_options line{.t_max = 100};
    CHECK(deft::beta_schedule(19, line).beta == 20);
    CHECK_FALSE(deft::beta_schedule(19, line).is_active);
    CHECK(deft::beta_schedule(20, line).beta == 20);
    CHECK(deft::beta_schedule(20, line).is_active);
    CHECK(deft::beta_schedule(60, line).beta == 11);
    CHECK(deft::beta_schedule(100, line).beta == 2);
    CHECK(deft::beta_schedule(500, line).beta == 2);
    const beta_schedule_options cosine{.t_max = 100, .decay = beta_decay::cosine};
    CHECK_THAT(deft::beta_schedule(60, cosine).beta, Catch::Matchers::WithinAbs(11, 1e-12));
    CHECK_THAT(deft::beta_schedule(40, cosine).beta, Catch::Matchers::WithinAbs(2 + 9 * (1 + std::sqrt(0.5)), 1e-12));
    CHECK(deft::beta_schedule(5, {.t_max = 5, .warmup = 1}).beta == 2); // nothing is left to decay over
}

TEST_CASE("rounding_loss rejects bad input", "[rounding_loss]") {
    const std::vector<float> data(64, 1.0f);
    const float* const p = data.data();
    bad_input bad("rounding_loss_backward");
    float* const o = bad.output<float>(64);
    const auto call = [&](shape<2> a1, shape<2> a2, in<float, 2> v0, shape<2> g1, shape<2> g2,
                          rounding_loss_options options = {}) {
        return [=] { deft::rounding_loss_backward<float>({p, a1}, {p, a2}, v0, 1, {o, g1}, {o, g2}, options); };
    };
    const shape<2> left{4, 2}, right{2, 5};
    CHECK(bad.rejects("a1", call({4, 0}, {0, 5}, absent, {4, 0}, {0, 5})));
    CHECK(bad.rejects("a2", call(left, {3, 5}, absent, left, right)));
    CHECK(bad.rejects("v0", call(left, right, {p, {4, 4}}, left, right)));
    CHECK(bad.rejects("v0", call(left, right, {p, {3, 5}}, left, right)));
    CHECK(bad.rejects("grad_a1", call(left, right, absent, {4, 1}, right)));
    CHECK(bad.rejects("grad_a2", call(left, right, absent, left, {2, 6})));
    CHECK(bad.rejects("beta", call(left, right, absent, left, right, {.beta = 0.5})));
    CHECK(bad.rejects("zeta", call(left, right, absent, left, right, {.stretch = {.zeta = 1}})));
    CHECK(bad.rejects("gamma", call(left, right, absent, left, right, {.stretch = {.gamma = 0}})));

    bad_input schedule("beta_schedule");
    CHECK(schedule.rejects("t_max", [] { deft::beta_schedule(1, {.t_max = 0}); }));
}

} // namespace deft::testing

#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/ssm/retention_rotary.hpp>

#include <Eigen/Core>

#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

namespace deft::testing {

TEST_CASE("retention_rotary by hand", "[retention_rotary]") {
    // Two pairs, base pi: angles p and p / pi with linspace, p and p / sqrt(pi) with rope.
    const std::vector<double> x{1, 0, 0, 2};
    std::vector<double> y(4);
    deft::retention_rotary<double>({x.data(), {1, 1, 1, 4}}, {y.data(), {1, 1, 1, 4}},
                                   {.offset = 3, .base = std::numbers::pi});
    const double third = 3 / std::numbers::pi;
    CHECK_THAT(y[0], Catch::Matchers::WithinAbs(std::cos(3.0), 1e-15));
    CHECK_THAT(y[1], Catch::Matchers::WithinAbs(std::sin(3.0), 1e-15));
    CHECK_THAT(y[2], Catch::Matchers::WithinAbs(-2 * std::sin(third), 1e-15));
    CHECK_THAT(y[3], Catch::Matchers::WithinAbs(2 * std::cos(third), 1e-15));
    deft::retention_rotary<double>({x.data(), {1, 1, 1, 4}}, {y.data(), {1, 1, 1, 4}},
                                   {.offset = 3, .base = std::numbers::pi, .spacing = rotary_spacing::rope});
    CHECK_THAT(y[3], Catch::Matchers::WithinAbs(2 * std::cos(3 / std::sqrt(std::numbers::pi)), 1e-15));
    deft::retention_rotary<double>({x.data(), {1, 1, 1, 4}}, {y.data(), {1, 1, 1, 4}});
    CHECK(y == x); // position 0
}

TEST_CASE("products of rotated queries and keys depend on the distance only", "[retention_rotary]") {
    constexpr index width = 64;
    random_values random(1);
    const std::vector<double> q64 = random.normal({width}).values, k64 = random.normal({width}).values;
    const std::vector<float> q(q64.begin(), q64.end()), k(k64.begin(), k64.end());
    const auto product = [&](index n, index m, double center) {
        std::vector<float> a(q), b(k);
        deft::retention_rotary<float>({a.data(), {1, 1, 1, width}}, {a.data(), {1, 1, 1, width}},
                                      {.offset = n, .xpos_scale_base = 512, .xpos_center = center});
        deft::retention_rotary<float>({b.data(), {1, 1, 1, width}}, {b.data(), {1, 1, 1, width}},
                                      {.offset = m, .xpos_scale_base = 512, .xpos_sign = -1, .xpos_center = center});
        double sum = 0;
        for (std::size_t i = 0; i < a.size(); ++i)
            sum += double(a[i]) * double(b[i]);
        return sum;
    };
    const double expected = product(5, 2, 0);
    CHECK_THAT(product(3, 0, 0), Catch::Matchers::WithinAbs(expected, 2e-6));
    CHECK_THAT(product(-4, -7, 0), Catch::Matchers::WithinAbs(expected, 2e-6));
    CHECK_THAT(product(1000006, 1000003, 1000000), Catch::Matchers::WithinAbs(expected, 2e-6));
}

TEMPLATE_TEST_CASE("retention_rotary takes 16-bit storage types", "[retention_rotary]", Eigen::half, Eigen::bfloat16) {
    using storage = TestType;
    constexpr index width = 22;
    random_values random(2);
    std::vector<storage> x, y(std::size_t(3 * width));
    std::vector<float> wide;
    for (const double v : random.normal({3, width}).values)
        wide.push_back(float(x.emplace_back(float(v))));
    deft::retention_rotary<storage>({x.data(), {1, 1, 3, width}}, {y.data(), {1, 1, 3, width}}, {.offset = 7});
    deft::retention_rotary<float>({wide.data(), {1, 1, 3, width}}, {wide.data(), {1, 1, 3, width}}, {.offset = 7});
    for (std::size_t i = 0; i < y.size(); ++i)
        CHECK(float(y[i]) == float(storage(wide[i])));
}

TEST_CASE("retention_rotary rejects bad input", "[retention_rotary]") {
    const std::vector<float> data(64, 1.0f);
    const float* const p = data.data();
    const shape<4> good{1, 2, 3, 4};
    bad_input bad("retention_rotary"), bad_backward("retention_rotary_backward");
    float* const o = bad.output<float>(64);
    float* const g = bad_backward.output<float>(64);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const auto both = [&](const char* argument, const retention_rotary_options& options) {
        CHECK(bad.rejects(argument, [=] { deft::retention_rotary<float>({p, good}, {o, good}, options); }));
        CHECK(bad_backward.rejects(argument, [=] {
            deft::retention_rotary_backward<float>({p, good}, {g, good}, options);
        }));
    };
    both("base", {.base = 0});
    both("base", {.base = -3});
    both("base", {.base = nan});
    both("xpos_scale_base", {.xpos_scale_base = -1});
    both("xpos_scale_base", {.xpos_scale_base = nan});
    both("xpos_sign", {.xpos_sign = 0});
    both("xpos_sign", {.xpos_sign = 2});
    for (const shape<4>& odd : {shape<4>{1, 2, 3, 5}, shape<4>{1, 2, 3, 0}}) {
        CHECK(bad.rejects("x", [=] { deft::retention_rotary<float>({p, odd}, {o, odd}); }));
        CHECK(bad_backward.rejects("grad_y", [=] { deft::retention_rotary_backward<float>({p, odd}, {g, odd}); }));
    }
    for (const shape<4>& other :
         {shape<4>{2, 2, 3, 4}, shape<4>{1, 1, 3, 4}, shape<4>{1, 2, 2, 4}, shape<4>{1, 2, 3, 6}}) {
        CHECK(bad.rejects("y", [=] { deft::retention_rotary<float>({p, good}, {o, other}); }));
        CHECK(bad_backward.rejects("grad_x", [=] { deft::retention_rotary_backward<float>({p, good}, {g, other}); }));
    }
}

} // namespace deft::testing

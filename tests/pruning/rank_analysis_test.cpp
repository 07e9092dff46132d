#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/pruning/rank_analysis.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

TEMPLATE_TEST_CASE("rank_analysis of a known spectrum", "[rank_analysis]", float, double) {
    const double eps = 10 * double(std::numeric_limits<TestType>::epsilon());
    const std::vector<TestType> delta{0, -4, 0, 0, /**/ 3, 0, 0, 0, /**/ 0, 0, 0, 0};
    std::vector<TestType> s(3), cumulative(3), relative(4), up(6), down(8);
    const std::vector<double> energies{0, 0.5, 0.63, 0.65, 1};
    std::vector<index> ranks(5);
    deft::rank_analysis<TestType>({delta.data(), {3, 4}}, energies, s, cumulative, relative, ranks, {up.data(), {3, 2}},
                                  {down.data(), {2, 4}});
    const double expected[] = {1, 0.6, 0, 0};
    for (std::size_t i = 0; i < 4; ++i)
        CHECK_THAT(double(relative[i]), Catch::Matchers::WithinAbs(expected[i], eps));
    CHECK_THAT(double(cumulative[0]), Catch::Matchers::WithinAbs(0.64, eps));
    CHECK_THAT(double(cumulative[1]), Catch::Matchers::WithinAbs(1, eps));
    CHECK(ranks[0] == 0);
    CHECK(ranks[1] == 1);
    CHECK(ranks[2] == 1);
    CHECK(ranks[3] == 2);
    // Balanced, and up is positive where it is largest.
    const std::vector<double> expected_up{2, 0, 0, std::sqrt(3.0), 0, 0},
        expected_down{0, -2, 0, 0, std::sqrt(3.0), 0, 0, 0};
    for (std::size_t i = 0; i < 6; ++i)
        CHECK_THAT(double(up[i]), Catch::Matchers::WithinAbs(expected_up[i], eps));
    for (std::size_t i = 0; i < 8; ++i)
        CHECK_THAT(double(down[i]), Catch::Matchers::WithinAbs(expected_down[i], eps));
}

TEST_CASE("rank_analysis rejects bad input", "[rank_analysis]") {
    std::vector<float> data(12, 1.0f), with_nan = data;
    with_nan[4] = std::numeric_limits<float>::quiet_NaN();
    bad_input bad("rank_analysis");
    float* const out = bad.output<float>(64);
    struct arguments {
        const float* delta;
        index s = 3, cumulative = 3, relative = 4;
        std::size_t ranks = 1;
        shape<2> up{3, 2}, down{2, 4};
        double energy = 0.5;
    };
    const auto call = [&](const arguments& a) {
        return [=] {
            std::vector<index> ranks(a.ranks);
            const std::vector<double> energies{a.energy};
            deft::rank_analysis<float>({a.delta, {3, 4}}, energies, {out, {a.s}}, {out, {a.cumulative}},
                                       {out, {a.relative}}, ranks, {out, a.up}, {out, a.down});
        };
    };
    const float* const p = data.data();
    CHECK(bad.rejects("delta", call({.delta = with_nan.data()})));
    CHECK(bad.rejects("energies", call({.delta = p, .energy = 1.5})));
    CHECK(bad.rejects("ranks", call({.delta = p, .ranks = 2})));
    CHECK(bad.rejects("singular_values", call({.delta = p, .s = 4})));
    CHECK(bad.rejects("cumulative_energy", call({.delta = p, .cumulative = 4})));
    CHECK(bad.rejects("relative_error", call({.delta = p, .relative = 3})));
    CHECK(bad.rejects("up", call({.delta = p, .up = {4, 2}})));
    CHECK(bad.rejects("up", call({.delta = p, .up = {3, 4}, .down = {4, 4}})));
    CHECK(bad.rejects("down", call({.delta = p, .down = {3, 4}})));
    CHECK(bad.rejects("down", call({.delta = p, .down = {2, 3}})));
}

} // namespace deft::testing

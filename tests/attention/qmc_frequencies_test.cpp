#include "support/bad_input.hpp"
#include "support/catch.hpp"

#include <deft/attention/qmc_frequencies.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

TEST_CASE("sequences begin as they should", "[qmc_frequencies]") {
    std::vector<double> u(4);
    qmc_points(u, qmc_sequence::midpoint);
    CHECK(u == std::vector<double>{0.125, 0.375, 0.625, 0.875});
    qmc_points(u, qmc_sequence::van_der_corput);
    CHECK(u == std::vector<double>{0.5, 0.25, 0.75, 0.125});
    qmc_points(u, qmc_sequence::golden);
    CHECK(std::abs(u[0] - 0.1180339887498949) <= 1e-15);
    CHECK(std::abs(u[3] - 0.9721359549995796) <= 1e-15);
}

TEST_CASE("known quantiles", "[qmc_frequencies]") {
    // Tables of the normal distribution; for d = 2 the radius is sqrt(-2 log(1 - u)).
    const std::vector<double> u{0.975, 0.5, 1e-9, 0, 1};
    std::vector<double> t(5);
    qmc_frequencies(u, t);
    CHECK(std::abs(t[0] - 1.959963984540054) <= 1e-14);
    CHECK(t[1] == 0);
    CHECK(std::abs(t[2] + 5.997807015007687) <= 1e-13);
    CHECK(t[3] == 0);
    CHECK(t[4] == 0);
    qmc_frequencies(u, t, {.distribution = radial_distribution::chi, .dimension = 2});
    for (std::size_t i = 0; i < 3; ++i)
        CHECK(std::abs(t[i] / std::sqrt(-2 * std::log1p(-u[i])) - 1) <= 1e-14);
    CHECK(t[3] == 0);
    CHECK(t[4] == 0);
}

TEST_CASE("quantiles: symmetry, order, and the half-normal law", "[qmc_frequencies]") {
    std::vector<double> u(999), t(999), mirrored(999), half(999);
    for (std::size_t i = 0; i < 999; ++i)
        u[i] = double(i + 1) / 1024;
    qmc_frequencies(u, t);
    std::vector<double> v(u);
    for (double& x : v)
        x = 1 - x; // exact
    qmc_frequencies(v, mirrored);
    for (std::size_t i = 0; i < 999; ++i)
        CHECK(t[i] == -mirrored[i]);
    for (std::size_t i = 1; i < 999; ++i)
        CHECK(t[i] > t[i - 1]);
    qmc_frequencies(u, half, {.distribution = radial_distribution::chi, .dimension = 1});
    for (double& x : v)
        x = 1 - x / 2; // P(|w| < r) = u at F(r) = (1 + u) / 2
    qmc_frequencies(v, mirrored);
    for (std::size_t i = 0; i < 999; ++i)
        CHECK(std::abs(half[i] / mirrored[i] - 1) <= 2e-14);
}

TEST_CASE("radii may be float, and may take the place of u", "[qmc_frequencies]") {
    const std::vector<double> u{0.1, 0.9};
    std::vector<float> t(2);
    qmc_frequencies(u, t);
    CHECK(t[1] == 1.2815515655446004f);
    std::vector<double> in_place(u);
    qmc_frequencies(in_place, in_place);
    CHECK(float(in_place[0]) == t[0]);
}

TEST_CASE("qmc_frequencies rejects bad input", "[qmc_frequencies]") {
    bad_input bad("qmc_frequencies");
    double* const t = bad.output<double>(3);
    const auto call = [&](double u, index m, const qmc_frequencies_options& options) {
        return [=] {
            const std::vector<double> points{0.5, 0.25, u};
            qmc_frequencies(points, view<double, 1>(t, {m}), options);
        };
    };
    const double nan = std::numeric_limits<double>::quiet_NaN();
    CHECK(bad.rejects("u", call(-1e-300, 3, {})));
    CHECK(bad.rejects("u", call(1 + 1e-15, 3, {})));
    CHECK(bad.rejects("u", call(nan, 3, {})));
    CHECK(bad.rejects("t", call(0.5, 2, {})));
    CHECK(bad.rejects("dimension", call(0.5, 3, {.distribution = radial_distribution::chi})));
    CHECK(bad.rejects("distribution", call(0.5, 3, {.distribution = radial_distribution(2)})));
    CHECK(bad_input("qmc_points").rejects("sequence", [&] { qmc_points({t, {3}}, qmc_sequence(3)); }));
}

} // namespace deft::testing

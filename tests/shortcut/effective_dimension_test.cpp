#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/shortcut/effective_dimension.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

TEST_CASE("effective_dimension of known spectra", "[effective_dimension]") {
    // Deviations along the axes with squares 32, 8, 2 (twice the square of each entry pair +-4, +-2, +-1).
    const std::vector<double> h{4, 0, 0, -4, 0, 0, 0, 2, 0, 0, -2, 0, 0, 0, 1, 0, 0, -1};
    std::vector<double> share(3);
    const auto dimension = [&](double epsilon) {
        return deft::effective_dimension<double>({h.data(), {6, 3}}, share, {.epsilon = epsilon});
    };
    CHECK(dimension(0.7) == 1); // 32 / 42 = 0.762
    CHECK_THAT(share[0], Catch::Matchers::WithinAbs(32.0 / 42, 1e-14));
    CHECK_THAT(share[1], Catch::Matchers::WithinAbs(40.0 / 42, 1e-14));
    CHECK_THAT(share[2], Catch::Matchers::WithinAbs(1.0, 1e-14));
    CHECK(dimension(0.8) == 2);
    CHECK(dimension(0.96) == 3);
    CHECK(dimension(1.0) == 3);
}

TEMPLATE_TEST_CASE("equal rows span nothing", "[effective_dimension]", float, double) {
    const std::vector<TestType> h(std::size_t(7 * 4), TestType(0.1)), one{1, 2, 3};
    std::vector<TestType> share(4, TestType(5)), first(1, TestType(5)), none;
    CHECK(deft::effective_dimension<TestType>({h.data(), {7, 4}}, share) == 0);
    CHECK(share == std::vector<TestType>(4, TestType(0)));
    CHECK(deft::effective_dimension<TestType>({one.data(), {1, 3}}, first) == 0);
    CHECK(first[0] == 0);
    CHECK(deft::effective_dimension<TestType>({one.data(), {3, 0}}, none) == 0);
}

TEST_CASE("effective_dimension does not depend on scale, order or orientation", "[effective_dimension]") {
    random_values random(1);
    const tensor h = random.normal({30, 8});
    std::vector<float> share(8), other(8);
    std::vector<float> x(h.values.begin(), h.values.end());
    const index expected = deft::effective_dimension<float>({x.data(), {30, 8}}, share, {.epsilon = 0.75});
    for (const float scale : {1e25f, 1e-25f, -3.0f}) {
        std::vector<float> y(x);
        for (float& v : y)
            v *= scale;
        CHECK(deft::effective_dimension<float>({y.data(), {30, 8}}, other, {.epsilon = 0.75}) == expected);
        for (std::size_t k = 0; k < 8; ++k)
            CHECK_THAT(double(other[k]), Catch::Matchers::WithinAbs(double(share[k]), 1e-5));
    }
}

TEST_CASE("entries that are not finite make every share NaN", "[effective_dimension]") {
    for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        std::vector<float> h(std::size_t(5 * 3), 1.0f), share(3);
        h[0] = 2;
        h[4] = value;
        CHECK(deft::effective_dimension<float>({h.data(), {5, 3}}, share) == 3);
        for (const float s : share)
            CHECK(std::isnan(s));
    }
}

TEST_CASE("effective_dimension rejects bad input", "[effective_dimension]") {
    const std::vector<float> data(64, 1.0f);
    bad_input bad("effective_dimension");
    float* const share = bad.output<float>(8);
    const auto call = [&](index rows, index shares, double epsilon) {
        return [=, p = data.data()] {
            static_cast<void>(
                deft::effective_dimension<float>({p, {rows, 4}}, {share, {shares}}, {.epsilon = epsilon}));
        };
    };
    CHECK(bad.rejects("h", call(0, 0, 0.8)));
    CHECK(bad.rejects("share", call(6, 3, 0.8)));
    CHECK(bad.rejects("share", call(6, 6, 0.8)));
    CHECK(bad.rejects("epsilon", call(6, 4, 0.0)));
    CHECK(bad.rejects("epsilon", call(6, 4, 1.0001)));
    CHECK(bad.rejects("epsilon", call(6, 4, std::numeric_limits<double>::quiet_NaN())));
}

} // namespace deft::testing

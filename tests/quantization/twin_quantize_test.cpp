#include "support/bad_input.hpp"
#include "support/catch.hpp"

#include <deft/quantization/twin_quantize.hpp>

#include <cmath>
#include <vector>

namespace deft::testing {

TEST_CASE("two ranges after softmax", "[twin_quantize_softmax]") {
    // 3 bits: Q = 4, codes 0 .. 3. Split 1/4, fine step 1/12, coarse step 1/3.
    const std::vector<double> x{0, 0.04, 0.05, 0.2, 0.25, 0.4, 0.55, 0.9, 1, 2, -1, NAN};
    std::vector<double> y(x.size());
    const twin_quantize_softmax_options options{.bits = 3, .split = 0.25, .step_low = 1.0 / 12};
    deft::twin_quantize_softmax<double>(x, y, options);
    const std::vector<double> expected{0, 0, 1.0 / 12, 2.0 / 12, 1.0 / 3, 1.0 / 3, 2.0 / 3, 1, 1, 1, 0};
    for (std::size_t i = 0; i < expected.size(); ++i)
        CHECK_THAT(y[i], Catch::Matchers::WithinAbs(expected[i], 1e-15));
    CHECK(std::isnan(y.back()));
    // The released sum: the upper value never falls below that of the split, the lower one never exceeds its end.
    twin_quantize_softmax_options sum = options;
    sum.mode = twin_mode::sum;
    deft::twin_quantize_softmax<double>(x, y, sum);
    CHECK_THAT(y[0], Catch::Matchers::WithinAbs(1.0 / 3, 1e-15));
    CHECK_THAT(y[7], Catch::Matchers::WithinAbs(1.25, 1e-15));
}

TEST_CASE("two signs after GELU", "[twin_quantize_gelu]") {
    const std::vector<float> x{0, 0.24f, 0.26f, 9, -0.06f, -0.17f, -5, NAN};
    std::vector<float> y(x.size());
    deft::twin_quantize_gelu<float>(x, y, {.bits = 3, .step_pos = 0.5, .step_neg = 0.0625});
    const std::vector<float> expected{0, 0, 0.5f, 1.5f, -0.0625f, -0.1875f, -0.25f};
    for (std::size_t i = 0; i < expected.size(); ++i)
        CHECK(y[i] == expected[i]);
    CHECK(std::isnan(y.back()));
}

TEST_CASE("twin_quantize rejects bad input", "[twin_quantize_softmax][twin_quantize_gelu]") {
    const std::vector<float> data(12, 0.5f);
    const float* const p = data.data();
    bad_input bad("twin_quantize_softmax");
    float* const o = bad.output<float>(12);
    const auto softmax = [&](shape<2> y, twin_quantize_softmax_options options) {
        return [=] {
            deft::twin_quantize_softmax<float>(view<const float, 2>(p, {3, 4}), view<float, 2>(o, y), options);
        };
    };
    CHECK(bad.rejects("y", softmax({4, 3}, {.bits = 4, .split = 0.5, .step_low = 0.1})));
    CHECK(bad.rejects("bits", softmax({3, 4}, {.bits = 1, .split = 0.5, .step_low = 0.1})));
    CHECK(bad.rejects("split", softmax({3, 4}, {.bits = 4, .split = 0.0, .step_low = 0.1})));
    CHECK(bad.rejects("split", softmax({3, 4}, {.bits = 4, .split = 1.5, .step_low = 0.1})));
    CHECK(bad.rejects("split", softmax({3, 4}, {.bits = 4, .split = double(NAN), .step_low = 0.1})));
    CHECK(bad.rejects("step_low", softmax({3, 4}, {.bits = 4, .split = 0.5, .step_low = 0.0})));

    bad_input lobes("twin_quantize_gelu");
    float* const g = lobes.output<float>(12);
    const auto gelu = [&](shape<2> y, twin_quantize_gelu_options options) {
        return [=] { deft::twin_quantize_gelu<float>(view<const float, 2>(p, {3, 4}), view<float, 2>(g, y), options); };
    };
    CHECK(lobes.rejects("y", gelu({3, 3}, {.bits = 4, .step_pos = 0.5, .step_neg = 0.1})));
    CHECK(lobes.rejects("bits", gelu({3, 4}, {.bits = 9, .step_pos = 0.5, .step_neg = 0.1})));
    CHECK(lobes.rejects("step_pos", gelu({3, 4}, {.bits = 4, .step_pos = -0.5, .step_neg = 0.1})));
    CHECK(lobes.rejects("step_neg", gelu({3, 4}, {.bits = 4, .step_pos = 0.5, .step_neg = double(INFINITY)})));
}

} // namespace deft::testing

#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/activation/fuse_conv_bn.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

namespace {

/// One output position of a convolution: sum over everything but the output channel.
std::vector<double> convolve(const std::vector<double>& weight, const std::vector<double>& bias,
                             const std::vector<double>& patch) {
    std::vector<double> y = bias;
    for (std::size_t o = 0; o < y.size(); ++o)
        for (std::size_t i = 0; i < patch.size(); ++i)
            y[o] += weight[o * patch.size() + i] * patch[i];
    return y;
}

} // namespace

TEST_CASE("a fused convolution is the convolution followed by the normalisation", "[fuse_conv_bn]") {
    random_values random(1);
    const std::vector<double> weight = random.normal({5, 3, 2, 2}).values, bias = random.normal({5}).values;
    const std::vector<double> gamma = random.normal({5}).values, beta = random.normal({5}).values;
    const std::vector<double> mean = random.normal({5}).values, var = random.uniform({5}, 0.1, 2).values;
    const std::vector<double> patch = random.normal({12}).values;

    std::vector<double> fused(weight.size()), fused_bias(5);
    deft::fuse_conv_bn<double>({weight.data(), {5, 3, 2, 2}}, bias, gamma, beta, mean, var,
                               {fused.data(), {5, 3, 2, 2}}, fused_bias, {.eps = 1e-3});
    const std::vector<double> z = convolve(weight, bias, patch), y = convolve(fused, fused_bias, patch);
    for (std::size_t o = 0; o < 5; ++o)
        CHECK_THAT(y[o],
                   Catch::Matchers::WithinAbs(gamma[o] * (z[o] - mean[o]) / std::sqrt(var[o] + 1e-3) + beta[o], 1e-13));
}

TEST_CASE("fuse_conv_bn takes zeros where they make sense", "[fuse_conv_bn]") {
    const std::vector<float> weight{1, 2}, gamma{0, 1}, beta{3, 4}, mean{5, 0}, var{1, 0};
    std::vector<float> fused(2), fused_bias(2);
    deft::fuse_conv_bn<float>({weight.data(), {2, 1, 1, 1}}, absent, gamma, beta, mean, var,
                              {fused.data(), {2, 1, 1, 1}}, fused_bias, {});
    CHECK(fused[0] == 0);
    CHECK(fused_bias[0] == 3);
    CHECK_THAT(double(fused[1]), Catch::Matchers::WithinRel(2000.0, 1e-6)); // var = 0, eps = 1e-6
    CHECK(fused_bias[1] == 4);

    std::vector<float> none;
    CHECK_NOTHROW(deft::fuse_conv_bn<float>({nullptr, {0, 3, 1, 1}}, none, none, none, none, none,
                                            {nullptr, {0, 3, 1, 1}}, none, {}));
}

TEST_CASE("the bias stays accurate where mean and bias nearly cancel", "[fuse_conv_bn]") {
    const std::vector<float> weight{1}, bias{1000.25f}, gamma{1}, beta{0.5f}, mean{1000}, var{0.0001f};
    std::vector<float> fused(1), fused_bias(1);
    deft::fuse_conv_bn<float>({weight.data(), {1, 1, 1, 1}}, bias, gamma, beta, mean, var, {fused.data(), {1, 1, 1, 1}},
                              fused_bias, {.eps = 0});
    CHECK_THAT(double(fused_bias[0]), Catch::Matchers::WithinRel(0.5 + 0.25 / std::sqrt(double(0.0001f)), 1e-7));
}

TEST_CASE("fuse_conv_bn rejects bad input", "[fuse_conv_bn]") {
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> w(8, 1.0f), two(2, 1.0f), three(3, 1.0f);
    bad_input bad("fuse_conv_bn");
    float* const weight = bad.output<float>(12);
    float* const bias = bad.output<float>(3);
    const auto call = [&](const std::vector<float>& b, const std::vector<float>& gamma, const std::vector<float>& beta,
                          const std::vector<float>& mean, const std::vector<float>& var, double eps = 1e-6,
                          index outputs = 2, index biases = 2) {
        return [&, eps, outputs, biases] {
            deft::fuse_conv_bn<float>({w.data(), {2, 4, 1, 1}}, b, gamma, beta, mean, var, {weight, {outputs, 4, 1, 1}},
                                      {bias, {biases}}, {.eps = eps});
        };
    };
    CHECK(bad.rejects("bias", call(three, two, two, two, two)));
    CHECK(bad.rejects("gamma", call(two, three, two, two, two)));
    CHECK(bad.rejects("beta", call(two, two, three, two, two)));
    CHECK(bad.rejects("mean", call(two, two, two, three, two)));
    CHECK(bad.rejects("var", call(two, two, two, two, three)));
    CHECK(bad.rejects("out_weight", call(two, two, two, two, two, 1e-6, 3)));
    CHECK(bad.rejects("out_bias", call(two, two, two, two, two, 1e-6, 2, 3)));
    CHECK(bad.rejects("eps", call(two, two, two, two, two, -1e-9)));
    CHECK(bad.rejects("eps", call(two, two, two, two, two, double(nan))));
    const std::vector<float> negative{1, -1e-3f}, not_a_number{1, nan}, zero{1, 0};
    CHECK(bad.rejects("var", call(two, two, two, two, negative)));
    CHECK(bad.rejects("var", call(two, two, two, two, not_a_number)));
    CHECK(bad.rejects("var", call(two, two, two, two, zero, 0.0)));
}

} // namespace deft::testing

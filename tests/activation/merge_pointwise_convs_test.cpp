#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/activation/merge_pointwise_convs.hpp>

#include <limits>
#include <vector>

namespace deft::testing {

namespace {

/// Images [C, H, W] and kernels [Co, Ci, K, K], in double.
struct image {
    index channels, size; // H = W
    std::vector<double> values;

    double operator()(index c, index i, index j) const {
        return values[std::size_t((c * size + i) * size + j)];
    }
};

/// No padding, stride 1.
image convolve(const image& x, const std::vector<double>& weight, const std::vector<double>& bias, index kernel) {
    image y{index(bias.size()), x.size - kernel + 1, {}};
    for (index o = 0; o < y.channels; ++o)
        for (index i = 0; i < y.size; ++i)
            for (index j = 0; j < y.size; ++j) {
                double sum = bias[std::size_t(o)];
                for (index c = 0; c < x.channels; ++c)
                    for (index p = 0; p < kernel; ++p)
                        for (index q = 0; q < kernel; ++q)
                            sum += weight[std::size_t(((o * x.channels + c) * kernel + p) * kernel + q)] *
                                   x(c, i + p, j + q);
                y.values.push_back(sum);
            }
    return y;
}

} // namespace

TEST_CASE("the merged convolution is the two in a row", "[merge_pointwise_convs]") {
    constexpr index ci = 3, cm = 4, co = 5;
    for (const merge_mode mode :
         {merge_mode::pointwise, merge_mode::kxk_then_pointwise, merge_mode::pointwise_then_kxk}) {
        const index k1 = mode == merge_mode::kxk_then_pointwise ? 3 : 1;
        const index k2 = mode == merge_mode::pointwise_then_kxk ? 3 : 1;
        const index k = k1 * k2;
        random_values random(1);
        const std::vector<double> w1 = random.normal({cm, ci, k1, k1}).values, b1 = random.normal({cm}).values;
        const std::vector<double> w2 = random.normal({co, cm, k2, k2}).values, b2 = random.normal({co}).values;
        std::vector<double> weight(std::size_t(co * ci * k * k)), bias(std::size_t{co});
        deft::merge_pointwise_convs<double>({w1.data(), {cm, ci, k1, k1}}, b1, {w2.data(), {co, cm, k2, k2}}, b2,
                                            {weight.data(), {co, ci, k, k}}, bias, {.mode = mode});

        const image x{ci, 6, random.normal({ci, 6, 6}).values};
        const image two = convolve(convolve(x, w1, b1, k1), w2, b2, k2), one = convolve(x, weight, bias, k);
        REQUIRE(one.values.size() == two.values.size());
        for (std::size_t i = 0; i < one.values.size(); ++i)
            CHECK_THAT(one.values[i], Catch::Matchers::WithinAbs(two.values[i], 1e-12));
    }
}

TEST_CASE("merge_pointwise_convs takes missing biases and nothing in the middle", "[merge_pointwise_convs]") {
    const std::vector<float> w1{1, 2}, w2{3, 4, 5, 6}, b2{7, 8};
    std::vector<float> weight(2), bias(2);
    // w1 [2, 1], w2 [2, 2]
    deft::merge_pointwise_convs<float>({w1.data(), {2, 1, 1, 1}}, absent, {w2.data(), {2, 2, 1, 1}}, absent,
                                       {weight.data(), {2, 1, 1, 1}}, bias, {.mode = merge_mode::pointwise});
    CHECK(weight == std::vector<float>{11, 17});
    CHECK(bias == std::vector<float>{0, 0});

    const std::vector<float> none;
    deft::merge_pointwise_convs<float>({w1.data(), {0, 1, 1, 1}}, none, {w2.data(), {2, 0, 1, 1}}, b2,
                                       {weight.data(), {2, 1, 1, 1}}, bias, {.mode = merge_mode::pointwise});
    CHECK(weight == std::vector<float>{0, 0});
    CHECK(bias == b2);
}

TEST_CASE("merge_pointwise_convs rejects bad input", "[merge_pointwise_convs]") {
    const std::vector<float> data(200, 1.0f), two(2, 1.0f), three(3, 1.0f), zeros(3, 0.0f);
    bad_input bad("merge_pointwise_convs");
    float* const weight = bad.output<float>(100);
    float* const bias = bad.output<float>(4);
    const float* const w = data.data();

    struct shapes {
        index cm1 = 3, ci = 2, k1 = 1, co = 2, cm2 = 3, k2 = 1, out_co = 2, out_ci = 2, out_k = 1, out_bias = 2;
    };
    const auto call = [&](const shapes& s, deft::merge_pointwise_convs_options options, const std::vector<float>& b1,
                          const std::vector<float>& b2) {
        return [&, s, options] {
            deft::merge_pointwise_convs<float>({w, {s.cm1, s.ci, s.k1, s.k1}}, b1, {w, {s.co, s.cm2, s.k2, s.k2}}, b2,
                                               {weight, {s.out_co, s.out_ci, s.out_k, s.out_k}}, {bias, {s.out_bias}},
                                               options);
        };
    };
    const deft::merge_pointwise_convs_options pointwise{.mode = merge_mode::pointwise};
    const deft::merge_pointwise_convs_options first{.mode = merge_mode::kxk_then_pointwise};
    const deft::merge_pointwise_convs_options second{.mode = merge_mode::pointwise_then_kxk};

    CHECK(bad.rejects("w2", call({.cm2 = 4}, pointwise, three, two)));
    CHECK(bad.rejects("b1", call({}, pointwise, two, two)));
    CHECK(bad.rejects("b2", call({}, pointwise, three, three)));
    CHECK(bad.rejects("weight", call({.out_co = 3}, pointwise, three, two)));
    CHECK(bad.rejects("weight", call({.out_ci = 3}, pointwise, three, two)));
    CHECK(bad.rejects("weight", call({.out_k = 2}, pointwise, three, two)));
    CHECK(bad.rejects("bias", call({.out_bias = 3}, pointwise, three, two)));
    CHECK(bad.rejects("w1", call({.k1 = 3, .out_k = 3}, pointwise, three, two)));
    CHECK(bad.rejects("w2", call({.k2 = 3, .out_k = 3}, pointwise, three, two)));
    CHECK(bad.rejects("w2", call({.k1 = 3, .k2 = 3, .out_k = 3}, first, three, two)));
    CHECK(bad.rejects("w1", call({.k1 = 3, .k2 = 3, .out_k = 3}, second, three, two)));

    deft::merge_pointwise_convs_options options = pointwise;
    options.groups = 2;
    CHECK(bad.rejects("groups", call({}, options, three, two)));
    for (const double lambda : {0.0, 0.5, 0.999999, std::numeric_limits<double>::quiet_NaN()}) {
        options = pointwise;
        options.lambda = lambda;
        CHECK(bad.rejects("lambda", call({}, options, three, two)));
    }
    options = second;
    options.padding = 1;
    CHECK(bad.rejects("padding", call({.k2 = 3, .out_k = 3}, options, three, two)));
    options.padding = -1;
    CHECK(bad.rejects("padding", call({.k2 = 3, .out_k = 3}, options, zeros, two)));
}

TEST_CASE("padding is accepted where the merge stays exact, or is said to be enough", "[merge_pointwise_convs]") {
    const std::vector<float> data(100, 1.0f), b1(3, 1.0f), zeros(3, 0.0f), b2(2, 1.0f);
    std::vector<float> weight(36), bias(2);
    const auto merge = [&](const deft::merge_pointwise_convs_options& options, index k1, index k2,
                           const std::vector<float>& first_bias) {
        deft::merge_pointwise_convs<float>({data.data(), {3, 2, k1, k1}}, first_bias, {data.data(), {2, 3, k2, k2}}, b2,
                                           {weight.data(), {2, 2, 3, 3}}, bias, options);
    };
    CHECK_NOTHROW(merge({.mode = merge_mode::kxk_then_pointwise, .padding = 1}, 3, 1, b1));
    CHECK_NOTHROW(merge({.mode = merge_mode::pointwise_then_kxk, .padding = 1}, 1, 3, zeros));
    CHECK_NOTHROW(
        merge({.mode = merge_mode::pointwise_then_kxk, .padding = 1, .borders = deft::merge_borders::interior_only}, 1,
              3, b1));
    CHECK(bias == std::vector<float>{28, 28}); // 1 + 3 * 9
}

} // namespace deft::testing

#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/activation/fuse_conv_bn.hpp>
#include <deft/activation/series_activation_2d.hpp>
#include <deft/reference/activation/series_activation_2d.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

namespace {

constexpr tensor_layout layouts[] = {tensor_layout::nchw, tensor_layout::nhwc};

} // namespace

TEST_CASE("outside of the map there is zero, not an activated zero", "[series_activation_2d]") {
    // One pixel under a 3x3 kernel: only the centre tap sees anything.
    const std::vector<double> x{0.5}, weight{1, 2, 3, 4, 5, 6, 7, 8, 9}, pre_bias{0.25}, bias{10};
    std::vector<double> y(1);
    for (const tensor_layout layout : layouts) {
        deft::series_activation_2d<double>({x.data(), {1, 1, 1, 1}}, {weight.data(), {1, 3, 3}}, pre_bias, bias,
                                           {y.data(), {1, 1, 1, 1}}, {.layout = layout, .base = activation::sigmoid});
        CHECK_THAT(y[0], Catch::Matchers::WithinAbs(10 + 5 / (1 + std::exp(-0.75)), 1e-14));
    }
}

TEST_CASE("the kernel is not flipped", "[series_activation_2d]") {
    // y[i, j] = sum_pq w[p, q] x[i + p - 1, j + q - 1]: the tap (0, 1) fetches the row above.
    const std::vector<float> x{1, 2, 3, 4, 5, 6}, weight{0, 1, 0, 0, 0, 0, 0, 0, 0};
    std::vector<float> y(6);
    deft::series_activation_2d<float>({x.data(), {1, 1, 2, 3}}, {weight.data(), {1, 3, 3}}, absent, absent,
                                      {y.data(), {1, 1, 2, 3}}, {.layout = tensor_layout::nchw});
    CHECK(y == std::vector<float>{0, 0, 0, 1, 2, 3});
}

TEST_CASE("a net may go from train over eval to deploy", "[series_activation_2d]") {
    constexpr index images = 3, channels = 4, height = 6, width = 5;
    random_values random(1);
    const auto values = [&](const extents& shape) { return random.normal(shape).values; };
    const std::vector<double> x = values({images, channels, height, width}), weight = values({channels, 3, 3});
    const std::vector<double> pre_bias = values({channels}), gamma = values({channels}), beta = values({channels});
    for (const tensor_layout layout : layouts) {
        const bool planar = layout == tensor_layout::nchw;
        const deft::shape<4> shape =
            planar ? deft::shape<4>(images, channels, height, width) : deft::shape<4>(images, height, width, channels);
        const deft::series_activation_2d_options options{.layout = layout, .base = activation::silu, .momentum = 1};

        // With momentum 1 the running statistics are those of the batch: eval differs in the unbiased variance only.
        std::vector<double> mean(channels), var(channels), trained(x.size()), evaluated(x.size()), deployed(x.size());
        deft::series_activation_2d_train<double>({x.data(), shape}, {weight.data(), {channels, 3, 3}}, pre_bias, gamma,
                                                 beta, mean, var, {trained.data(), shape}, options);
        const double count = double(images * height * width);
        std::vector<double> biased = var;
        for (double& v : biased)
            v *= (count - 1) / count;
        deft::series_activation_2d_eval<double>({x.data(), shape}, {weight.data(), {channels, 3, 3}}, pre_bias, gamma,
                                                beta, mean, biased, {evaluated.data(), shape}, options);

        std::vector<double> fused(weight.size()), fused_bias(channels);
        deft::fuse_conv_bn<double>({weight.data(), {channels, 1, 3, 3}}, absent, gamma, beta, mean, biased,
                                   {fused.data(), {channels, 1, 3, 3}}, fused_bias, {.eps = options.eps});
        deft::series_activation_2d<double>({x.data(), shape}, {fused.data(), {channels, 3, 3}}, pre_bias, fused_bias,
                                           {deployed.data(), shape}, options);
        for (std::size_t i = 0; i < x.size(); ++i) {
            CHECK_THAT(evaluated[i], Catch::Matchers::WithinAbs(trained[i], 1e-12));
            CHECK_THAT(deployed[i], Catch::Matchers::WithinAbs(evaluated[i], 1e-12));
        }
    }
}

TEST_CASE("batch statistics survive a mean that is much larger than the deviation", "[series_activation_2d]") {
    // K = 1, relu, weight 1: z = x. In float E[z^2] - E[z]^2 would be 0 or negative here.
    constexpr index count = 4096;
    std::vector<float> x(count), y(count), mean{0}, var{0};
    for (index i = 0; i < count; ++i)
        x[std::size_t(i)] = 3000.0f + (i % 2 == 0 ? 0.25f : -0.25f);
    const std::vector<float> one{1}, zero{0};
    for (const tensor_layout layout : layouts) {
        const deft::shape<4> shape =
            layout == tensor_layout::nchw ? deft::shape<4>(1, 1, 64, 64) : deft::shape<4>(1, 64, 64, 1);
        deft::series_activation_2d_train<float>({x.data(), shape}, {one.data(), {1, 1, 1}}, absent, one, zero, mean,
                                                var, {y.data(), shape}, {.layout = layout, .momentum = 1});
        CHECK(mean[0] == 3000);
        CHECK_THAT(double(var[0]), Catch::Matchers::WithinRel(0.0625 * count / (count - 1.0), 1e-6));
    }
}

TEST_CASE("a constant channel is trained to its shift", "[series_activation_2d]") {
    const std::vector<float> x(2 * 9, 1.5f), one{2}, gamma{3}, beta{0.125f};
    for (const tensor_layout layout : layouts) {
        const deft::shape<4> shape =
            layout == tensor_layout::nchw ? deft::shape<4>(2, 1, 3, 3) : deft::shape<4>(2, 3, 3, 1);
        std::vector<float> y(18), mean{0}, var{0};
        deft::series_activation_2d_train<float>({x.data(), shape}, {one.data(), {1, 1, 1}}, absent, gamma, beta, mean,
                                                var, {y.data(), shape}, {.layout = layout});
        for (const float value : y)
            CHECK_THAT(double(value), Catch::Matchers::WithinAbs(0.125, 1e-6));
    }
}

TEST_CASE("NaN spreads to the neighbours that see it and no further", "[series_activation_2d]") {
    for (const tensor_layout layout : layouts) {
        const deft::shape<4> shape =
            layout == tensor_layout::nchw ? deft::shape<4>(1, 1, 7, 9) : deft::shape<4>(1, 7, 9, 1);
        std::vector<float> x(63, 1.0f), y(63);
        const std::vector<float> weight(9, 1.0f);
        x[3 * 9 + 4] = std::numeric_limits<float>::quiet_NaN();
        deft::series_activation_2d<float>({x.data(), shape}, {weight.data(), {1, 3, 3}}, absent, absent,
                                          {y.data(), shape}, {.layout = layout});
        for (index i = 0; i < 7; ++i)
            for (index j = 0; j < 9; ++j)
                CHECK(std::isnan(y[std::size_t(i * 9 + j)]) == (std::abs(i - 3) <= 1 && std::abs(j - 4) <= 1));
    }
}

TEST_CASE("gradients of maps of any width and height are those of the reference", "[series_activation_2d]") {
    // Widths of whole vectors and not, of one tile and of several; heights of one band and of several.
    struct map {
        index images, height, width;
    };
    const map maps[] = {{2, 7, 7},   {1, 14, 14}, {1, 1, 17},  {2, 5, 18},  {1, 14, 31},
                        {1, 57, 56}, {2, 61, 64}, {1, 30, 65}, {1, 3, 129}, {1, 70, 200}};
    constexpr index channels = 3;
    random_values random(4);
    for (const index taps : {3, 5, 7})
        for (const map& m : maps) {
            const index pixels = m.images * m.height * m.width;
            const deft::shape<4> shape(m.images, channels, m.height, m.width);
            const deft::shape<3> weight_shape(channels, taps, taps);
            const auto x = random.normal({pixels * channels}), g = random.normal({pixels * channels}),
                       weight = random.normal({channels * taps * taps}), pre_bias = random.normal({channels});
            std::vector<double> grad_x(x.values.size()), grad_weight(weight.values.size()), grad_pre(channels),
                grad_bias(channels);
            reference::series_activation_2d_backward<double>(
                {x.values.data(), shape}, {weight.values.data(), weight_shape}, pre_bias.values,
                {g.values.data(), shape}, {grad_x.data(), shape}, {grad_weight.data(), weight_shape}, grad_pre,
                grad_bias, activation::silu);

            // Rows of x and g are farther apart than they are long.
            const index row = m.width + 3;
            const auto spread = [&](const std::vector<double>& from) {
                std::vector<float> to(std::size_t(m.images * channels * m.height * row),
                                      std::numeric_limits<float>::quiet_NaN());
                for (index i = 0; i < index(from.size()); ++i)
                    to[std::size_t(i / m.width * row + i % m.width)] = float(from[std::size_t(i)]);
                return to;
            };
            const auto narrow = [](const std::vector<double>& from) {
                return std::vector<float>(from.begin(), from.end());
            };
            const std::vector<float> x32 = spread(x.values), g32 = spread(g.values), weight32 = narrow(weight.values),
                                     pre_bias32 = narrow(pre_bias.values);
            std::vector<float> to(x32.size()), to_weight(grad_weight.size()), to_pre(channels), to_bias(channels);
            const deft::shape<4> strides(channels * m.height * row, m.height * row, row, 1);
            deft::series_activation_2d_backward<float>(
                {x32.data(), shape, strides}, {weight32.data(), weight_shape}, pre_bias32, {g32.data(), shape, strides},
                view<float, 4>{to.data(), shape, strides}, {to_weight.data(), weight_shape}, to_pre, to_bias,
                {.layout = tensor_layout::nchw, .base = activation::silu});
            CAPTURE(taps, m.images, m.height, m.width);
            const auto largest = [](const std::vector<double>& expected, auto&& value) {
                double worst = 0;
                for (std::size_t i = 0; i < expected.size(); ++i)
                    worst = std::max(worst, std::abs(double(value(index(i))) - expected[i]));
                return worst;
            };
            // The terms of a sum are of size 1; a pixel left out, or taken twice, makes a difference of that size.
            const double of_taps = 2e-6 * double(taps * taps),
                         of_pixels = 2e-6 * std::sqrt(double(pixels)) * double(taps);
            CHECK(largest(grad_x, [&](index i) { return to[std::size_t(i / m.width * row + i % m.width)]; }) < of_taps);
            CHECK(largest(grad_weight, [&](index i) { return to_weight[std::size_t(i)]; }) < of_pixels);
            CHECK(largest(grad_pre, [&](index i) { return to_pre[std::size_t(i)]; }) < of_pixels);
            CHECK(largest(grad_bias, [&](index i) { return to_bias[std::size_t(i)]; }) < of_pixels);
        }
}

TEST_CASE("gradients do not depend on the layout", "[series_activation_2d]") {
    // With running statistics, whose scale is in the gradients too; in double, to the rounding of the sums.
    constexpr index images = 2, channels = 5, height = 19, width = 37, pixels = height * width;
    random_values random(5);
    const std::vector<double> x = random.normal({images, channels, height, width}).values,
                              g = random.normal({images, channels, height, width}).values,
                              weight = random.normal({channels, 3, 3}).values,
                              pre_bias = random.normal({channels}).values, gamma = random.normal({channels}).values,
                              mean = random.normal({channels}).values, var(channels, 0.7);
    const auto transposed = [&](const std::vector<double>& from, bool back) {
        std::vector<double> to(from.size());
        for (index b = 0; b < images; ++b)
            for (index c = 0; c < channels; ++c)
                for (index i = 0; i < pixels; ++i) {
                    const auto planar = std::size_t((b * channels + c) * pixels + i),
                               last = std::size_t((b * pixels + i) * channels + c);
                    to[back ? planar : last] = from[back ? last : planar];
                }
        return to;
    };
    struct gradients {
        std::vector<double> x, weight, pre_bias, gamma, beta;
    };
    const auto compute = [&](tensor_layout layout, const std::vector<double>& from,
                             const std::vector<double>& cotangent) {
        const deft::shape<4> shape = layout == tensor_layout::nchw ? deft::shape<4>(images, channels, height, width)
                                                                   : deft::shape<4>(images, height, width, channels);
        gradients to{std::vector<double>(x.size()), std::vector<double>(weight.size()), std::vector<double>(channels),
                     std::vector<double>(channels), std::vector<double>(channels)};
        deft::series_activation_2d_eval_backward<double>(
            {from.data(), shape}, {weight.data(), {channels, 3, 3}}, pre_bias, gamma, mean, var,
            {cotangent.data(), shape}, view<double, 4>{to.x.data(), shape}, {to.weight.data(), {channels, 3, 3}},
            to.pre_bias, to.gamma, to.beta, {.layout = layout, .base = activation::gelu_erf});
        return to;
    };
    const gradients planar = compute(tensor_layout::nchw, x, g);
    gradients last = compute(tensor_layout::nhwc, transposed(x, false), transposed(g, false));
    last.x = transposed(last.x, true);
    const auto check = [](const std::vector<double>& a, const std::vector<double>& b) {
        for (std::size_t i = 0; i < a.size(); ++i)
            CHECK_THAT(a[i], Catch::Matchers::WithinAbs(b[i], 1e-11));
    };
    check(planar.x, last.x);
    check(planar.weight, last.weight);
    check(planar.pre_bias, last.pre_bias);
    check(planar.gamma, last.gamma);
    check(planar.beta, last.beta);
}

TEST_CASE("series_activation_2d rejects bad input", "[series_activation_2d]") {
    const std::vector<float> data(400, 1.0f), two(2, 1.0f), three(3, 1.0f), negative{1, -0.5f};
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const float* const p = data.data();
    using vector = deft::view<const float, 1>;

    for (const tensor_layout layout : layouts) {
        const deft::series_activation_2d_options options{.layout = layout};
        // Two channels on a map of 4x5.
        const deft::shape<4> shape =
            layout == tensor_layout::nchw ? deft::shape<4>(1, 2, 4, 5) : deft::shape<4>(1, 4, 5, 2);
        const deft::shape<4> other(1, 4, 5, 3);
        const deft::shape<4> single =
            layout == tensor_layout::nchw ? deft::shape<4>(1, 2, 1, 1) : deft::shape<4>(1, 1, 1, 2);

        bad_input bad("series_activation_2d");
        float* const y = bad.output<float>(100);
        const auto deploy = [&](deft::shape<3> weight, vector pre_bias, vector bias, deft::shape<4> out,
                                const deft::series_activation_2d_options& o) {
            return [=] { deft::series_activation_2d<float>({p, shape}, {p, weight}, pre_bias, bias, {y, out}, o); };
        };
        CHECK(bad.rejects("weight", deploy({2, 4, 4}, absent, absent, shape, options)));
        CHECK(bad.rejects("weight", deploy({2, 3, 5}, absent, absent, shape, options)));
        CHECK(bad.rejects("weight", deploy({3, 3, 3}, absent, absent, shape, options)));
        CHECK(bad.rejects("weight", deploy({2, 0, 0}, absent, absent, shape, options)));
        CHECK(bad.rejects("pre_bias", deploy({2, 3, 3}, three, absent, shape, options)));
        CHECK(bad.rejects("bias", deploy({2, 3, 3}, absent, three, shape, options)));
        CHECK(bad.rejects("y", deploy({2, 3, 3}, absent, absent, other, options)));
        CHECK(bad.rejects("negative_slope",
                          deploy({2, 3, 3}, absent, absent, shape,
                                 {.layout = layout, .base = activation::leaky_relu, .negative_slope = nan})));
        CHECK(bad.rejects("base",
                          deploy({2, 3, 3}, absent, absent, shape, {.layout = layout, .base = activation::identity})));

        bad_input bad_eval("series_activation_2d_eval");
        float* const y_eval = bad_eval.output<float>(100);
        const auto eval = [&](vector gamma, vector beta, vector mean, vector var,
                              const deft::series_activation_2d_options& o) {
            return [=] {
                deft::series_activation_2d_eval<float>({p, shape}, {p, {2, 3, 3}}, absent, gamma, beta, mean, var,
                                                       {y_eval, shape}, o);
            };
        };
        CHECK(bad_eval.rejects("gamma", eval(absent, two, two, two, options)));
        CHECK(bad_eval.rejects("beta", eval(two, absent, two, two, options)));
        CHECK(bad_eval.rejects("running_mean", eval(two, two, absent, two, options)));
        CHECK(bad_eval.rejects("running_var", eval(two, two, two, absent, options)));
        CHECK(bad_eval.rejects("gamma", eval(three, two, two, two, options)));
        CHECK(bad_eval.rejects("beta", eval(two, three, two, two, options)));
        CHECK(bad_eval.rejects("running_mean", eval(two, two, three, two, options)));
        CHECK(bad_eval.rejects("running_var", eval(two, two, two, three, options)));
        CHECK(bad_eval.rejects("running_var", eval(two, two, two, negative, options)));
        CHECK(bad_eval.rejects("eps", eval(two, two, two, two, {.layout = layout, .eps = -1e-9})));
        CHECK(bad_eval.rejects("eps", eval(two, two, two, two, {.layout = layout, .eps = nan})));

        bad_input bad_train("series_activation_2d_train");
        float* const y_train = bad_train.output<float>(100);
        float* const mean = bad_train.output<float>(3);
        float* const var = bad_train.output<float>(3);
        const auto train = [&](deft::shape<4> of_x, vector gamma, vector beta, index means, index vars,
                               const deft::series_activation_2d_options& o) {
            return [=] {
                deft::series_activation_2d_train<float>({p, of_x}, {p, {2, 3, 3}}, absent, gamma, beta, {mean, {means}},
                                                        {var, {vars}}, {y_train, of_x}, o);
            };
        };
        CHECK(bad_train.rejects("x", train(single, two, two, 2, 2, options)));
        CHECK(bad_train.rejects("gamma", train(shape, absent, two, 2, 2, options)));
        CHECK(bad_train.rejects("beta", train(shape, two, three, 2, 2, options)));
        CHECK(bad_train.rejects("running_mean", train(shape, two, two, 3, 2, options)));
        CHECK(bad_train.rejects("running_var", train(shape, two, two, 2, 3, options)));
        CHECK(bad_train.rejects("eps", train(shape, two, two, 2, 2, {.layout = layout, .eps = -1})));
    }
}

} // namespace deft::testing

#include "row_major.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"

#include <deft/shortcut/augmented_shortcut.hpp>
#include <deft/shortcut/augmented_shortcut_bottleneck.hpp>

#include <Eigen/Core>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

TEST_CASE("augmented_shortcut_bottleneck is the formula of the paper", "[augmented_shortcut_bottleneck]") {
    const std::vector<double> z{1, -2}, main{10, 20}, down{1, 3}, up{2, -1}, down_bias{0.5}, up_bias{0.25, -0.25};
    const auto gelu = [](double u) { return u / 2 * std::erfc(-u / std::sqrt(2.0)); };
    std::vector<double> y(2);
    const view<const double, 3> to_hidden(down.data(), {1, 2, 1}), from_hidden(up.data(), {1, 1, 2});

    deft::augmented_shortcut_bottleneck<double>(z, main, to_hidden, from_hidden, absent, absent, absent, y);
    CHECK_THAT(y[0], Catch::Matchers::WithinAbs(10 + 1 + 2 * gelu(-5), 1e-14));
    CHECK_THAT(y[1], Catch::Matchers::WithinAbs(20 - 2 - gelu(-5), 1e-14));

    deft::augmented_shortcut_bottleneck<double>(
        z, main, to_hidden, from_hidden, {down_bias.data(), {1, 1}}, {up_bias.data(), {1, 2}}, absent, y,
        {.base = activation::identity, .post = activation::relu, .residual = shortcut_residual::none, .scale = 2});
    CHECK(y == std::vector<double>{20, 2 * (20 + 4.5 - 0.25)}); // u = -4.5, v = (-8.75, 4.25)
}

TEST_CASE("paths whose second layer is zero leave the plain shortcut", "[augmented_shortcut_bottleneck]") {
    const row_major<float> z = row_major<float>::Random(5, 21), main = row_major<float>::Random(5, 21);
    const row_major<float> down = row_major<float>::Random(2 * 21, 4), up = row_major<float>::Zero(2 * 4, 21);
    row_major<float> y(5, 21);
    deft::augmented_shortcut_bottleneck(z, main, {down.data(), {2, 21, 4}}, {up.data(), {2, 4, 21}}, absent, absent,
                                        absent, y);
    CHECK(y == main + z);
}

TEMPLATE_TEST_CASE("an identity as second layer makes the dense form of the first", "[augmented_shortcut_bottleneck]",
                   float, double) {
    // k = d, up = 1: post aside, y is that of augmented_shortcut. Also across blocks of hidden units.
    using T = TestType;
    for (const index d : {3, 64, 150}) {
        const row_major<T> z = row_major<T>::Random(14, d), main = row_major<T>::Random(14, d);
        const row_major<T> down = row_major<T>::Random(d, d), up = row_major<T>::Identity(d, d);
        row_major<T> narrow(14, d), dense(14, d);
        for (const activation post : {activation::identity, activation::leaky_relu}) {
            deft::augmented_shortcut_bottleneck(z, main, {down.data(), {1, d, d}}, {up.data(), {1, d, d}}, absent,
                                                absent, absent, narrow,
                                                {.base = activation::relu, .post = post, .scale = 0.5});
            deft::augmented_shortcut(z, main, {down.data(), {1, d, d}}, absent, absent, dense,
                                     {.base = activation::relu, .scale = 0.5});
            CHECK(double((narrow - dense).cwiseAbs().maxCoeff()) <=
                  8 * double(std::numeric_limits<T>::epsilon()) * double(dense.cwiseAbs().maxCoeff()));
        }
    }
}

TEST_CASE("augmented_shortcut_bottleneck without rows has zero gradients of its weights",
          "[augmented_shortcut_bottleneck]") {
    const std::vector<float> weights(12, 1.0f), narrow(4, 1.0f), wide(6, 1.0f);
    for (const activation post : {activation::identity, activation::tanh})
        for (const weight_layout layout : {weight_layout::in_out, weight_layout::out_in}) {
            const bool in_out = layout == weight_layout::in_out;
            const shape<3> of_down = in_out ? shape<3>(2, 3, 2) : shape<3>(2, 2, 3);
            const shape<3> of_up = in_out ? shape<3>(2, 2, 3) : shape<3>(2, 3, 2);
            std::vector<float> grad_down(12, 7.0f), grad_up(12, 7.0f), grad_narrow(4, 7.0f), grad_wide(6, 7.0f);
            deft::augmented_shortcut_bottleneck_backward<float>(
                {nullptr, {0, 3}}, {weights.data(), of_down}, {weights.data(), of_up}, {narrow.data(), {2, 2}},
                {wide.data(), {2, 3}}, {nullptr, {0, 3}}, {nullptr, {0, 3}}, {nullptr, {0, 3}},
                {grad_down.data(), of_down}, {grad_up.data(), of_up}, {grad_narrow.data(), {2, 2}},
                {grad_wide.data(), {2, 3}}, absent, {.post = post, .weights = layout});
            CHECK(grad_down == std::vector<float>(12, 0.0f));
            CHECK(grad_up == std::vector<float>(12, 0.0f));
            CHECK(grad_narrow == std::vector<float>(4, 0.0f));
            CHECK(grad_wide == std::vector<float>(6, 0.0f));
        }
}

TEST_CASE("augmented_shortcut_bottleneck rejects bad input", "[augmented_shortcut_bottleneck]") {
    const std::vector<float> data(64, 1.0f);
    const float* const p = data.data();
    const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
    using tensor3 = view<const float, 3>;
    using tensor2 = view<const float, 2>;
    using options_type = deft::augmented_shortcut_bottleneck_options;
    const tensor3 down(p, {2, 3, 5}), up(p, {2, 5, 3});
    const tensor2 main(p, {4, 3});
    const options_type separate{.residual = shortcut_residual::separate};

    bad_input bad("augmented_shortcut_bottleneck");
    float* const y = bad.output<float>(64);
    struct arguments {
        tensor2 main;
        tensor3 down, up;
        tensor2 down_bias = absent, up_bias = absent, residual = absent;
        shape<2> y = {4, 3};
    };
    const auto call = [&](const arguments& a, const options_type& options = {}) {
        return [=] {
            deft::augmented_shortcut_bottleneck<float>({p, {4, 3}}, a.main, a.down, a.up, a.down_bias, a.up_bias,
                                                       a.residual, rows<float>(view<float, 2>(y, a.y)), options);
        };
    };
    CHECK(bad.rejects("main", call({{p, {3, 3}}, down, up})));
    CHECK(bad.rejects("down", call({main, {p, {2, 4, 5}}, up})));
    CHECK(bad.rejects("down", call({main, {p, {2, 3, 0}}, {p, {2, 0, 3}}})));
    CHECK(bad.rejects("down", call({main, down, up}, {.weights = weight_layout::out_in})));
    CHECK(bad.rejects("up", call({main, down, {p, {1, 5, 3}}})));
    CHECK(bad.rejects("up", call({main, down, {p, {2, 4, 3}}})));
    CHECK(bad.rejects("up", call({main, down, {p, {2, 5, 4}}})));
    CHECK(bad.rejects("down_bias", call({main, down, up, {p, {2, 3}}})));
    CHECK(bad.rejects("down_bias", call({main, down, up, {p, {1, 5}}})));
    CHECK(bad.rejects("up_bias", call({main, down, up, absent, {p, {2, 5}}})));
    CHECK(bad.rejects("residual", call({main, down, up, absent, absent, {p, {4, 3}}})));
    CHECK(bad.rejects("residual", call({main, down, up}, separate)));
    CHECK(bad.rejects("residual", call({main, down, up, absent, absent, {p, {4, 2}}}, separate)));
    CHECK(bad.rejects("y", call({main, down, up, absent, absent, absent, {4, 2}})));
    CHECK(bad.rejects("scale", call({main, down, up}, {.scale = infinity})));
    CHECK(bad.rejects("negative_slope", call({main, down, up}, {.negative_slope = nan})));

    bad_input bad_backward("augmented_shortcut_bottleneck_backward");
    float* const o = bad_backward.output<float>(64);
    struct gradients {
        shape<2> grad_y = {4, 3}, z = {4, 3}, main = {4, 3};
        shape<3> down = {2, 3, 5}, up = {2, 5, 3};
        index down_bias = 5, up_bias = 3;
        bool has_up_bias = true, has_residual = false;
    };
    const auto backward = [&](const gradients& g, const options_type& options = {}) {
        return [=] {
            const view<float, 2> grad_up_bias(o, {2, g.up_bias}), grad_residual(o, {4, 3});
            deft::augmented_shortcut_bottleneck_backward<float>(
                {p, {4, 3}}, down, up, {p, {2, 5}}, {p, {2, 3}}, view<const float, 2>(p, g.grad_y),
                rows<float>(view<float, 2>(o, g.z)), view<float, 2>(o, g.main), {o, g.down}, {o, g.up},
                {o, {2, g.down_bias}}, g.has_up_bias ? grad_up_bias : view<float, 2>(absent),
                g.has_residual ? grad_residual : view<float, 2>(absent), options);
        };
    };
    CHECK(bad_backward.rejects("grad_y", backward({.grad_y = {3, 3}})));
    CHECK(bad_backward.rejects("grad_z", backward({.z = {4, 2}})));
    CHECK(bad_backward.rejects("grad_main", backward({.main = {3, 3}})));
    CHECK(bad_backward.rejects("grad_down", backward({.down = {2, 5, 3}})));
    CHECK(bad_backward.rejects("grad_up", backward({.up = {2, 3, 5}})));
    CHECK(bad_backward.rejects("grad_down_bias", backward({.down_bias = 4})));
    CHECK(bad_backward.rejects("grad_up_bias", backward({.up_bias = 4})));
    CHECK(bad_backward.rejects("grad_up_bias", backward({.has_up_bias = false})));
    CHECK(bad_backward.rejects("grad_residual", backward({.has_residual = true})));
    CHECK(bad_backward.rejects("grad_residual", backward({}, separate)));
    CHECK(bad_backward.rejects("scale", backward({}, {.scale = nan})));
}

} // namespace deft::testing

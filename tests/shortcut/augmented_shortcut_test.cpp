#include "row_major.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/shortcut/augmented_shortcut.hpp>

#include <Eigen/Core>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

TEMPLATE_TEST_CASE("identity matrices without activation add z once per path", "[augmented_shortcut]", float, double) {
    using T = TestType;
    for (const index d : {1, 7, 16, 33})
        for (const index paths : {0, 1, 2, 5}) {
            const row_major<T> z = row_major<T>::Random(9, d), main = row_major<T>::Random(9, d);
            row_major<T> theta(paths * d, d), y(9, d);
            for (index i = 0; i < paths; ++i)
                theta.middleRows(i * d, d).setIdentity();
            deft::augmented_shortcut(z, main, {theta.data(), {paths, d, d}}, absent, absent, y,
                                     {.base = activation::identity});
            const double error = double((y - (main + T(1 + paths) * z)).cwiseAbs().maxCoeff());
            CHECK(error <= 8 * double(std::numeric_limits<T>::epsilon()));
        }
}

TEST_CASE("augmented_shortcut is the formula of the paper and of the released code", "[augmented_shortcut]") {
    const std::vector<double> z{1, -2}, main{10, 20}, residual{3, 5}, bias{0.5, -0.5};
    const std::vector<double> theta{1, 2, 3, 4}; // [in, out]: u = (1 - 6, 2 - 8)
    const auto gelu = [](double u) { return u / 2 * std::erfc(-u / std::sqrt(2.0)); };
    std::vector<double> y(2);

    deft::augmented_shortcut<double>(z, main, {theta.data(), {1, 2, 2}}, absent, absent, y);
    CHECK_THAT(y[0], Catch::Matchers::WithinAbs(10 + 1 + gelu(-5), 1e-14));
    CHECK_THAT(y[1], Catch::Matchers::WithinAbs(20 - 2 + gelu(-6), 1e-14));

    deft::augmented_shortcut<double>(z, main, {theta.data(), {1, 2, 2}}, {bias.data(), {1, 2}}, residual, y,
                                     {.base = activation::relu,
                                      .residual = shortcut_residual::separate,
                                      .scale = 0.75,
                                      .weights = weight_layout::out_in}); // u = (1 - 4, 3 - 8)
    CHECK(y == std::vector<double>{0.75 * 13, 0.75 * 25});
    deft::augmented_shortcut<double>(
        z, main, {theta.data(), {1, 2, 2}}, {bias.data(), {1, 2}}, absent, y,
        {.base = activation::identity, .residual = shortcut_residual::none, .weights = weight_layout::out_in});
    CHECK(y == std::vector<double>{10 - 3 + 0.5, 20 - 5 - 0.5});
}

TEST_CASE("rows do not depend on how many there are", "[augmented_shortcut]") {
    // Whatever kernel a number of rows is given to, a token alone gets what it gets among others, but for rounding.
    constexpr index d = 83, most = 230;
    const row_major<float> z = row_major<float>::Random(most, d), main = row_major<float>::Random(most, d);
    const row_major<float> theta = row_major<float>::Random(2 * d, d);
    row_major<float> all(most, d);
    deft::augmented_shortcut(z, main, {theta.data(), {2, d, d}}, absent, absent, all);
    for (const index count : {1, 2, 3, 4, 5, 7, 8, 9, 13, 100, 193, 201}) {
        row_major<float> some(count, d);
        deft::augmented_shortcut(z.topRows(count), main.topRows(count), {theta.data(), {2, d, d}}, absent, absent,
                                 some);
        const float largest = all.topRows(count).cwiseAbs().maxCoeff();
        CAPTURE(count);
        CHECK((some - all.topRows(count)).cwiseAbs().maxCoeff() <= 2e-6f * largest);
    }
}

TEMPLATE_TEST_CASE("augmented_shortcut of large input stays finite", "[augmented_shortcut]", float, double) {
    using T = TestType;
    const std::vector<T> z{T(1e15), T(-1e15), T(-1e15), T(1e15)}, main{1, 2, 3, 4}, theta{1, 2, 3, -4}, g{1, 1, 1, 1};
    for (const activation base : {activation::relu, activation::leaky_relu, activation::gelu_erf, activation::gelu_tanh,
                                  activation::silu, activation::tanh, activation::sigmoid, activation::identity}) {
        row_major<T> y(2, 2), grad_z(2, 2), grad_main(2, 2);
        std::vector<T> grad_theta(4);
        const deft::augmented_shortcut_options options{.base = base};
        deft::augmented_shortcut<T>({z.data(), {2, 2}}, {main.data(), {2, 2}}, {theta.data(), {1, 2, 2}}, absent,
                                    absent, y, options);
        deft::augmented_shortcut_backward<T>({z.data(), {2, 2}}, {theta.data(), {1, 2, 2}}, absent, {g.data(), {2, 2}},
                                             grad_z, grad_main, {grad_theta.data(), {1, 2, 2}}, absent, absent,
                                             options);
        CAPTURE(int(base));
        CHECK(y.allFinite());
        CHECK(grad_z.allFinite());
        for (const T value : grad_theta)
            CHECK(std::isfinite(value));
    }
}

TEST_CASE("augmented_shortcut without rows has zero gradients of its weights", "[augmented_shortcut]") {
    const std::vector<float> theta(18, 1.0f), bias(6, 1.0f);
    std::vector<float> grad_theta(18, 7.0f), grad_bias(6, 7.0f);
    deft::augmented_shortcut_backward<float>({nullptr, {0, 3}}, {theta.data(), {2, 3, 3}}, {bias.data(), {2, 3}},
                                             {nullptr, {0, 3}}, {nullptr, {0, 3}}, {nullptr, {0, 3}},
                                             {grad_theta.data(), {2, 3, 3}}, {grad_bias.data(), {2, 3}}, absent);
    CHECK(grad_theta == std::vector<float>(18, 0.0f));
    CHECK(grad_bias == std::vector<float>(6, 0.0f));
}

TEST_CASE("augmented_shortcut rejects bad input", "[augmented_shortcut]") {
    const std::vector<float> data(64, 1.0f);
    const float* const p = data.data();
    const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
    using tensor3 = view<const float, 3>;
    using tensor2 = view<const float, 2>;
    const tensor3 theta(p, {2, 3, 3});
    const deft::augmented_shortcut_options separate{.residual = shortcut_residual::separate};

    bad_input bad("augmented_shortcut");
    float* const y = bad.output<float>(64);
    const auto call = [&](tensor2 main, tensor3 weights, tensor2 bias, tensor2 residual,
                          const deft::augmented_shortcut_options& options = {}, shape<2> out = {4, 3}) {
        return [=] {
            deft::augmented_shortcut<float>({p, {4, 3}}, main, weights, bias, residual,
                                            {y, {out.extents[0], out.extents[1]}}, options);
        };
    };
    const tensor2 main(p, {4, 3});
    CHECK(bad.rejects("main", call({p, {5, 3}}, theta, absent, absent)));
    CHECK(bad.rejects("main", call({p, {4, 2}}, theta, absent, absent)));
    CHECK(bad.rejects("theta", call(main, {p, {2, 4, 3}}, absent, absent)));
    CHECK(bad.rejects("theta", call(main, {p, {2, 3, 4}}, absent, absent)));
    CHECK(bad.rejects("theta", call(main, {p, {0, 3, 2}}, absent, absent)));
    CHECK(bad.rejects("bias", call(main, theta, {p, {1, 3}}, absent)));
    CHECK(bad.rejects("bias", call(main, theta, {p, {2, 4}}, absent)));
    CHECK(bad.rejects("residual", call(main, theta, absent, {p, {4, 3}})));
    CHECK(bad.rejects("residual", call(main, theta, absent, {p, {4, 3}}, {.residual = shortcut_residual::none})));
    CHECK(bad.rejects("residual", call(main, theta, absent, absent, separate)));
    CHECK(bad.rejects("residual", call(main, theta, absent, {p, {3, 3}}, separate)));
    CHECK(bad.rejects("y", call(main, theta, absent, absent, {}, {4, 2})));
    CHECK(bad.rejects("y", call(main, theta, absent, absent, {}, {3, 3})));
    CHECK(bad.rejects("scale", call(main, theta, absent, absent, {.scale = infinity})));
    CHECK(bad.rejects("scale", call(main, theta, absent, absent, {.scale = nan})));
    CHECK(bad.rejects("negative_slope", call(main, theta, absent, absent, {.negative_slope = nan})));

    bad_input bad_backward("augmented_shortcut_backward");
    float* const out = bad_backward.output<float>(64);
    const auto backward = [&](tensor2 grad_y, shape<2> grad_z, shape<2> grad_main, shape<3> grad_theta,
                              view<float, 2> grad_bias, view<float, 2> grad_residual,
                              const deft::augmented_shortcut_options& options = {}) {
        return [=] {
            deft::augmented_shortcut_backward<float>(
                {p, {4, 3}}, theta, {p, {2, 3}}, grad_y, rows<float>(view<float, 2>(out, grad_z)),
                view<float, 2>(out, grad_main), {out, grad_theta}, grad_bias, grad_residual, options);
        };
    };
    const view<float, 2> grad_bias(out, {2, 3});
    CHECK(bad_backward.rejects("grad_y", backward({p, {4, 2}}, {4, 3}, {4, 3}, {2, 3, 3}, grad_bias, absent)));
    CHECK(bad_backward.rejects("grad_z", backward(main, {3, 3}, {4, 3}, {2, 3, 3}, grad_bias, absent)));
    CHECK(bad_backward.rejects("grad_main", backward(main, {4, 3}, {3, 3}, {2, 3, 3}, grad_bias, absent)));
    CHECK(bad_backward.rejects("grad_theta", backward(main, {4, 3}, {4, 3}, {1, 3, 3}, grad_bias, absent)));
    CHECK(bad_backward.rejects("grad_bias", backward(main, {4, 3}, {4, 3}, {2, 3, 3}, absent, absent)));
    CHECK(bad_backward.rejects("grad_bias", backward(main, {4, 3}, {4, 3}, {2, 3, 3}, {out, {2, 2}}, absent)));
    CHECK(bad_backward.rejects("grad_residual", backward(main, {4, 3}, {4, 3}, {2, 3, 3}, grad_bias, {out, {4, 3}})));
    CHECK(
        bad_backward.rejects("grad_residual", backward(main, {4, 3}, {4, 3}, {2, 3, 3}, grad_bias, absent, separate)));
    CHECK(bad_backward.rejects("scale", backward(main, {4, 3}, {4, 3}, {2, 3, 3}, grad_bias, absent, {.scale = nan})));
}

} // namespace deft::testing

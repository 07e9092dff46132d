#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/activation/annealed_activation.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

} // namespace

TEMPLATE_TEST_CASE("annealed_activation is an exact copy at lambda 1", "[annealed_activation]", float, double) {
    std::vector<TestType> x{-std::numeric_limits<TestType>::infinity(),
                            TestType(-0.0),
                            TestType(1e-30),
                            TestType(3),
                            std::numeric_limits<TestType>::denorm_min(),
                            std::numeric_limits<TestType>::max(),
                            std::numeric_limits<TestType>::infinity(),
                            TestType(0.1)};
    for (const activation base : {activation::relu, activation::gelu_erf, activation::silu}) {
        std::vector<TestType> y(x.size());
        deft::annealed_activation(x, y, {.base = base, .lambda = 1});
        CHECK(y == x);
        CHECK(std::signbit(y[1]));

        std::vector<TestType> grad_x(x.size());
        deft::annealed_activation_backward(x, x, grad_x, {.base = base, .lambda = 1});
        CHECK(grad_x == x);
    }
}

TEST_CASE("annealed_activation leaves lambda x out at lambda 0", "[annealed_activation]") {
    const std::vector<float> x{-infinity, infinity, -1, 2};
    std::vector<float> y(4);
    deft::annealed_activation(x, y, {.base = activation::relu, .lambda = 0});
    CHECK(y == std::vector<float>{0, infinity, 0, 2});
}

TEST_CASE("annealed relu is leaky_relu", "[annealed_activation]") {
    random_values random(1);
    const std::vector<double> x = random.normal({333}).values, g = random.normal({333}).values;
    std::vector<double> annealed(x.size()), leaky(x.size());
    for (const double lambda : {0.0, 0.01, 0.37, 0.99, 1.0}) {
        deft::annealed_activation(x, annealed, {.base = activation::relu, .lambda = lambda});
        deft::annealed_activation(x, leaky, {.base = activation::leaky_relu, .lambda = 0, .negative_slope = lambda});
        for (std::size_t i = 0; i < x.size(); ++i)
            CHECK_THAT(annealed[i], Catch::Matchers::WithinAbs(leaky[i], 1e-15));
        deft::annealed_activation_backward(x, g, annealed, {.base = activation::relu, .lambda = lambda});
        for (std::size_t i = 0; i < x.size(); ++i)
            CHECK_THAT(annealed[i], Catch::Matchers::WithinAbs(x[i] > 0 ? g[i] : lambda * g[i], 1e-15));
    }
}

TEST_CASE("annealed_activation takes NaN and empty tensors", "[annealed_activation]") {
    for (const double lambda : {0.0, 0.5, 1.0})
        for (const activation base : {activation::relu, activation::leaky_relu, activation::gelu_erf,
                                      activation::gelu_tanh, activation::silu, activation::tanh, activation::sigmoid}) {
            std::vector<float> x(21, 1.0f);
            x[7] = float(nan);
            deft::annealed_activation(x, x, {.base = base, .lambda = lambda});
            for (std::size_t i = 0; i < x.size(); ++i)
                CHECK(std::isnan(x[i]) == (i == 7));
        }
    std::vector<float> none;
    CHECK_NOTHROW(deft::annealed_activation(none, none, {.lambda = 0.5}));
    CHECK_NOTHROW(deft::annealed_activation_backward(none, none, none, {.lambda = 0.5}));
}

TEST_CASE("annealed_activation rejects bad input", "[annealed_activation]") {
    const std::vector<float> x(6, 1.0f);
    bad_input bad("annealed_activation");
    float* const y = bad.output<float>(8);
    for (const double lambda : {-0.001, 1.001, nan, double(infinity)})
        CHECK(bad.rejects("lambda", [&] {
            deft::annealed_activation<float>({x.data(), {2, 3}}, {y, {2, 3}}, {.lambda = lambda});
        }));
    CHECK(bad.rejects("y", [&] {
        deft::annealed_activation<float>({x.data(), {2, 3}}, {y, {2, 2}}, {.lambda = 0.5});
    }));
    CHECK(bad.rejects("y", [&] {
        deft::annealed_activation<float>({x.data(), {2, 3}}, {y, {1, 3}}, {.lambda = 0.5});
    }));
    CHECK(bad.rejects("base", [&] {
        deft::annealed_activation<float>({x.data(), {2, 3}}, {y, {2, 3}},
                                         {.base = activation::identity, .lambda = 0.5});
    }));
    CHECK(bad.rejects("negative_slope", [&] {
        deft::annealed_activation<float>({x.data(), {2, 3}}, {y, {2, 3}},
                                         {.base = activation::leaky_relu, .lambda = 0.5, .negative_slope = nan});
    }));

    bad_input bad_backward("annealed_activation_backward");
    float* const grad_x = bad_backward.output<float>(8);
    CHECK(bad_backward.rejects("lambda", [&] {
        deft::annealed_activation_backward<float>({x.data(), {2, 3}}, {x.data(), {2, 3}}, {grad_x, {2, 3}},
                                                  {.lambda = nan});
    }));
    CHECK(bad_backward.rejects("grad_y", [&] {
        deft::annealed_activation_backward<float>({x.data(), {2, 3}}, {x.data(), {3, 2}}, {grad_x, {2, 3}},
                                                  {.lambda = 0.5});
    }));
    CHECK(bad_backward.rejects("grad_x", [&] {
        deft::annealed_activation_backward<float>({x.data(), {2, 3}}, {x.data(), {2, 3}}, {grad_x, {2, 4}},
                                                  {.lambda = 0.5});
    }));
}

TEST_CASE("annealing_lambda goes from 0 to 1 and stays there", "[annealing_lambda]") {
    using deft::annealing_lambda;
    using deft::annealing_schedule;
    for (const annealing_schedule schedule : {annealing_schedule::linear, annealing_schedule::cosine}) {
        CHECK(annealing_lambda(0, 10, schedule) == 0);
        CHECK_THAT(annealing_lambda(5, 10, schedule), Catch::Matchers::WithinAbs(0.5, 1e-15));
        CHECK(annealing_lambda(10, 10, schedule) == 1);
        CHECK(annealing_lambda(1e9, 10, schedule) == 1);
        CHECK(annealing_lambda(infinity, 10, schedule) == 1);
        for (int e = 0; e < 40; ++e)
            CHECK(annealing_lambda(e / 4.0, 10, schedule) < annealing_lambda((e + 1) / 4.0, 10, schedule));
    }
    CHECK(annealing_lambda(37) == 0.37);
    CHECK_THAT(annealing_lambda(25, 100, annealing_schedule::cosine),
               Catch::Matchers::WithinAbs((1 - std::sqrt(0.5)) / 2, 1e-15));

    bad_input bad("annealing_lambda");
    CHECK(bad.rejects("epoch", [] { annealing_lambda(-1); }));
    CHECK(bad.rejects("epoch", [] { annealing_lambda(nan); }));
    CHECK(bad.rejects("decay_epochs", [] { annealing_lambda(1, 0); }));
    CHECK(bad.rejects("decay_epochs", [] { annealing_lambda(1, -2); }));
    CHECK(bad.rejects("decay_epochs", [] { annealing_lambda(1, nan); }));
}

} // namespace deft::testing

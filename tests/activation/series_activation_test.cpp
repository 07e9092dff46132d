#include "all_activations.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/activation/series_activation.hpp>
#include <deft/reference/activation/series_activation.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

namespace deft::testing {

namespace {

using row_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

} // namespace

TEST_CASE("one term with scale 1 and bias 0 is the base activation", "[series_activation]") {
    const std::vector<double> x{-3, -1, -0.5, 0, 0.5, 1, 3}, one{1}, zero{0};
    std::vector<double> y(x.size());
    // Values of an independent source: relu and leaky_relu by hand, the others from 20-digit tables of erf and exp.
    struct {
        activation base;
        double at_1, at_minus_1;
    } const known[] = {{activation::relu, 1, 0},
                       {activation::leaky_relu, 1, -0.01},
                       {activation::gelu_erf, 0.84134474606854294859, -0.15865525393145705141},
                       {activation::gelu_tanh, 0.84119199060827670478, -0.15880800939172329522},
                       {activation::silu, 0.73105857863000487925, -0.26894142136999512075},
                       {activation::tanh, 0.76159415595576488812, -0.76159415595576488812},
                       {activation::sigmoid, 0.73105857863000487925, 0.26894142136999512075}};
    for (const auto& [base, at_1, at_minus_1] : known)
        for (const series_form form : {series_form::outer, series_form::inner}) {
            deft::series_activation(x, one, zero, y, {.form = form, .base = base});
            CAPTURE(int(base));
            CHECK_THAT(y[5], Catch::Matchers::WithinAbs(at_1, 1e-14));
            CHECK_THAT(y[1], Catch::Matchers::WithinAbs(at_minus_1, 1e-14));
            CHECK(y[3] == (base == activation::sigmoid ? 0.5 : 0));
        }
}

TEST_CASE("series_activation takes Eigen matrices, blocks and vectors, and works in place", "[series_activation]") {
    const row_major x = row_major::Random(5, 19);
    const std::vector<float> scale{1.0f, 0.5f}, bias{0.0f, -1.0f};
    row_major expected(5, 19);
    deft::series_activation(x, scale, bias, expected, {.form = series_form::inner, .base = activation::silu});
    for (index r = 0; r < 5; ++r)
        for (index c = 0; c < 19; ++c) {
            const double u = double(x(r, c)), v = 0.5 * u - 1;
            CHECK_THAT(double(expected(r, c)),
                       Catch::Matchers::WithinAbs(u / (1 + std::exp(-u)) + v / (1 + std::exp(-v)), 1e-6));
        }

    row_major in_place = x;
    deft::series_activation(in_place, scale, bias, in_place, {.form = series_form::inner, .base = activation::silu});
    CHECK(in_place == expected);

    row_major large = row_major::Constant(9, 30, 7.0f);
    auto block = large.block(2, 3, 5, 19);
    deft::series_activation(x, scale, bias, block, {.form = series_form::inner, .base = activation::silu});
    CHECK(row_major(block) == expected);
    block.setConstant(7.0f);
    CHECK(large == row_major::Constant(9, 30, 7.0f));

    const row_major per_channel = scale[0] * row_major::Ones(1, 19), no_bias = row_major::Zero(1, 19);
    row_major y(5, 19);
    deft::series_activation(x, per_channel, no_bias, y, {.form = series_form::outer, .base = activation::relu});
    CHECK(y == x.cwiseMax(0.0f));
}

TEST_CASE("series_activation takes one activation per term", "[series_activation]") {
    const std::vector<double> x{-2, 0.5, 3}, a{2, -1, 0.5}, b{0.25, 1, -1};
    const std::vector<activation> bases{activation::relu, activation::tanh, activation::sigmoid};
    std::vector<double> y(3);
    deft::series_activation(x, a, b, y, {.form = series_form::outer, .base = bases});
    for (std::size_t i = 0; i < 3; ++i)
        CHECK_THAT(y[i],
                   Catch::Matchers::WithinAbs(
                       2 * std::max(x[i] + 0.25, 0.0) - std::tanh(x[i] + 1) + 0.5 / (1 + std::exp(1 - x[i])), 1e-14));
}

TEMPLATE_TEST_CASE("large inputs give finite values and gradients", "[series_activation]", float, double) {
    using T = TestType;
    const std::vector<T> x{T(1e20), T(-1e20), T(3e7), T(-3e7), T(1e4), T(-1e4), T(500), T(-500),
                           T(104),  T(-104),  T(89),  T(-89),  T(88),  T(-88),  T(30),  T(-30)};
    const std::vector<T> a{1, T(0.5)}, b{0, T(0.25)}, g(x.size(), T(1));
    for (const activation base : all_activations)
        for (const series_form form : {series_form::outer, series_form::inner}) {
            std::vector<T> y(x.size()), grad_x(x.size()), grad_a(2), grad_b(2);
            deft::series_activation(x, a, b, y, {.form = form, .base = base});
            deft::series_activation_backward(x, a, b, g, grad_x, grad_a, grad_b, {.form = form, .base = base});
            CAPTURE(int(base));
            for (std::size_t i = 0; i < x.size(); ++i) {
                CHECK(std::isfinite(y[i]));
                CHECK(std::isfinite(grad_x[i]));
            }
            for (std::size_t i = 0; i < 2; ++i) {
                CHECK(std::isfinite(grad_a[i]));
                CHECK(std::isfinite(grad_b[i]));
            }
        }
}

TEST_CASE("the derivative at a kink is that of the negative side", "[series_activation]") {
    const std::vector<float> x{0, -0.0f}, a{1}, b{0}, g{1, 1};
    std::vector<float> grad_x(2), grad_a(1), grad_b(1);
    deft::series_activation_backward(x, a, b, g, grad_x, grad_a, grad_b,
                                     {.form = series_form::outer, .base = activation::relu});
    CHECK(grad_x == std::vector<float>{0, 0});
    CHECK(grad_b == std::vector<float>{0});
    deft::series_activation_backward(
        x, a, b, g, grad_x, grad_a, grad_b,
        {.form = series_form::inner, .base = activation::leaky_relu, .negative_slope = 0.25});
    CHECK(grad_x == std::vector<float>{0.25f, 0.25f});
}

TEST_CASE("an infinite input where relu is off leaves gradients alone", "[series_activation]") {
    const std::vector<float> x{-std::numeric_limits<float>::infinity(), 2}, a{1, 2}, b{0, -1}, g{3, 1};
    std::vector<float> grad_x(2), grad_a(2), grad_b(2);
    deft::series_activation_backward(x, a, b, g, grad_x, grad_a, grad_b,
                                     {.form = series_form::outer, .base = activation::relu});
    CHECK(grad_x == std::vector<float>{0, 3});
    CHECK(grad_a == std::vector<float>{2, 1});
    CHECK(grad_b == std::vector<float>{1, 2});
}

TEST_CASE("sums over many elements lose nothing", "[series_activation]") {
    // 3 million ones and one large number: a running float sum would stay at 2^24.
    constexpr index rows = 3000, channels = 1000;
    const std::vector<float> x(std::size_t(rows * channels), 1.0f), a{1.0f}, b{0.0f};
    std::vector<float> g(x.size(), 1.0f), grad_x(x.size()), grad_a(1), grad_b(1);
    g[0] = 16777216.0f;
    deft::series_activation_backward<float>({x.data(), {rows, channels}}, a, b, {g.data(), {rows, channels}},
                                            {grad_x.data(), {rows, channels}}, grad_a, grad_b,
                                            {.form = series_form::outer, .base = activation::relu});
    CHECK_THAT(double(grad_b[0]), Catch::Matchers::WithinRel(16777216.0 + 2999999.0, 2e-5));
    CHECK_THAT(double(grad_a[0]), Catch::Matchers::WithinRel(16777216.0 + 2999999.0, 2e-5));
}

TEST_CASE("every number of terms is summed alike, with small and large parameters", "[series_activation]") {
    // Few relu terms are summed in one pass and several silu terms share an exponential, within limits of a and b.
    constexpr index rows = 91, channels = 33, n = rows * channels;
    const index columns = GENERATE(index(1), index(33)); // of the parameters: shared, and per channel
    random_values random(5);
    const std::vector<double> x64 = random.normal({n}, 3).values, g64 = random.normal({n}).values;
    const std::vector<float> x(x64.begin(), x64.end()), g(g64.begin(), g64.end());
    const std::vector<double> exact_x(x.begin(), x.end()), exact_g(g.begin(), g.end());
    for (const activation base : {activation::relu, activation::silu, activation::sigmoid, activation::gelu_erf})
        for (const double reach : {0.1, 1.0, 15.0, 40.0})
            for (const index terms : {1, 2, 3, 4, 5, 7, 8, 9, 16, 17}) {
                const auto size = std::size_t(terms * columns);
                std::vector<float> a(size), b(size), y(x.size()), grad_x(x.size()), grad_a(size), grad_b(size);
                for (std::size_t i = 0; i < size; ++i) {
                    a[i] = float(random.number(-1, 1));
                    b[i] = float(random.number(-reach, reach));
                }
                const deft::series_activation_options options{.form = series_form::outer, .base = base};
                if (columns == 1) {
                    deft::series_activation(x, a, b, y, options);
                    deft::series_activation_backward(x, a, b, g, grad_x, grad_a, grad_b, options);
                } else {
                    const in<float, 2> x_in(x.data(), {rows, channels}), a_in(a.data(), {terms, channels}),
                        b_in(b.data(), {terms, channels});
                    deft::series_activation<float>(x_in, a_in, b_in, {y.data(), {rows, channels}}, options);
                    deft::series_activation_backward<float>(
                        x_in, a_in, b_in, {g.data(), {rows, channels}}, {grad_x.data(), {rows, channels}},
                        {grad_a.data(), {terms, channels}}, {grad_b.data(), {terms, channels}}, options);
                }

                const std::vector<double> a64(a.begin(), a.end()), b64(b.begin(), b.end());
                std::vector<double> y64(x.size()), grad_x64(x.size()), grad_a64(size), grad_b64(size);
                const in<double, 2> in_x(exact_x.data(), {rows, channels}), in_a(a64.data(), {terms, columns}),
                    in_b(b64.data(), {terms, columns});
                deft::reference::series_activation<double>(in_x, in_a, in_b, {y64.data(), {rows, channels}}, false,
                                                           base);
                deft::reference::series_activation_backward<double>(
                    in_x, in_a, in_b, {exact_g.data(), {rows, channels}}, {grad_x64.data(), {rows, channels}},
                    {grad_a64.data(), {terms, columns}}, {grad_b64.data(), {terms, columns}}, false, base);

                double worst = 0, largest = 1;
                for (std::size_t i = 0; i < x.size(); ++i) {
                    worst = std::max(worst, std::abs(double(y[i]) - y64[i]) / (1e-5 + 2e-5 * std::abs(y64[i])));
                    worst = std::max(worst,
                                     std::abs(double(grad_x[i]) - grad_x64[i]) / (1e-5 + 2e-5 * std::abs(grad_x64[i])));
                }
                for (std::size_t i = 0; i < size; ++i)
                    largest = std::max({largest, std::abs(grad_a64[i]), std::abs(grad_b64[i])});
                for (std::size_t i = 0; i < size; ++i) {
                    worst = std::max(worst, std::abs(double(grad_a[i]) - grad_a64[i]) / (2e-5 * largest));
                    worst = std::max(worst, std::abs(double(grad_b[i]) - grad_b64[i]) / (2e-5 * largest));
                }
                CAPTURE(int(base), reach, terms, columns);
                CHECK(worst <= 1);
            }
}

TEST_CASE("empty tensors are valid and have zero gradients", "[series_activation]") {
    const std::vector<float> none, a{1, 2}, b{0, 1};
    std::vector<float> y, grad_a{7, 7}, grad_b{7, 7};
    CHECK_NOTHROW(deft::series_activation(none, a, b, y, {.form = series_form::outer, .base = activation::silu}));
    deft::series_activation_backward(none, a, b, none, y, grad_a, grad_b,
                                     {.form = series_form::outer, .base = activation::silu});
    CHECK(grad_a == std::vector<float>{0, 0});
    CHECK(grad_b == std::vector<float>{0, 0});

    const std::vector<float> per_channel(6, 1.0f);
    std::vector<float> grad_per_channel(6, 7.0f), grad_bias(6, 7.0f);
    deft::series_activation_backward<float>({nullptr, {0, 3}}, {per_channel.data(), {2, 3}},
                                            {per_channel.data(), {2, 3}}, {nullptr, {0, 3}}, {nullptr, {0, 3}},
                                            {grad_per_channel.data(), {2, 3}}, {grad_bias.data(), {2, 3}},
                                            {.form = series_form::inner, .base = activation::silu});
    CHECK(grad_per_channel == std::vector<float>(6, 0.0f));
    CHECK(grad_bias == std::vector<float>(6, 0.0f));
}

TEMPLATE_TEST_CASE("16-bit storage types round the float result once", "[series_activation]", Eigen::half,
                   Eigen::bfloat16) {
    using storage = TestType;
    // Unit roundoff of the format, 2^-11 or 2^-8 (Eigen 3.4 gives half a wrong epsilon), and the spacing of its
    // subnormal numbers.
    const double roundoff = std::ldexp(1.0, -std::numeric_limits<storage>::digits);
    const double spacing = std::is_same_v<storage, Eigen::half> ? 0x1p-24 : 0;
    random_values random(3);
    for (const activation base : all_activations)
        for (const series_form form : {series_form::outer, series_form::inner})
            for (const bool per_channel : {false, true})
                for (const index channels : {1, 3, 8, 15, 16, 17, 33, 100}) {
                    constexpr index rows = 3, terms = 2;
                    const std::size_t size = std::size_t(rows * channels);
                    const std::size_t parameters = std::size_t(terms * (per_channel ? channels : 1));
                    const std::vector<double> values = random.normal({rows, channels}, 2).values;
                    std::vector<storage> x(size), y(size);
                    std::vector<float> a(parameters), b(parameters);
                    std::vector<double> stored(size), a64(parameters), b64(parameters), expected(size);
                    for (std::size_t i = 0; i < size; ++i) {
                        x[i] = storage(float(values[i]));
                        stored[i] = double(float(x[i]));
                    }
                    for (std::size_t i = 0; i < parameters; ++i) {
                        a[i] = float(a64[i] = double(float(random.number(-1, 1))));
                        b[i] = float(b64[i] = double(float(random.number(-1, 1))));
                    }
                    const index columns = per_channel ? channels : 1;
                    deft::reference::series_activation<double>(
                        {stored.data(), {rows, channels}}, {a64.data(), {terms, columns}},
                        {b64.data(), {terms, columns}}, view<double, 2>(expected.data(), {rows, channels}),
                        form == series_form::inner, base);

                    const deft::series_activation_options options{.form = form, .base = base};
                    if (per_channel)
                        deft::series_activation<storage>({x.data(), {rows, channels}}, {a.data(), {terms, channels}},
                                                         {b.data(), {terms, channels}}, {y.data(), {rows, channels}},
                                                         options);
                    else
                        deft::series_activation<storage>({x.data(), {rows, channels}}, a, b,
                                                         {y.data(), {rows, channels}}, options);
                    double worst = 0;
                    for (std::size_t i = 0; i < size; ++i) {
                        const double in_float = 1e-5 + 2e-5 * std::abs(expected[i]);
                        const double allowed = in_float + roundoff * std::abs(expected[i]) + spacing;
                        worst = std::max(worst, std::abs(double(float(y[i])) - expected[i]) / allowed);
                    }
                    CAPTURE(int(base), channels, per_channel);
                    CHECK(worst <= 1);
                }
}

TEMPLATE_TEST_CASE("16-bit storage types keep NaN and infinity", "[series_activation]", Eigen::half, Eigen::bfloat16) {
    std::vector<TestType> x(19, TestType(1.0f)), y(19);
    x[4] = TestType(std::numeric_limits<float>::quiet_NaN());
    x[5] = TestType(std::numeric_limits<float>::infinity());
    const std::vector<float> a{1}, b{0};
    deft::series_activation(x, a, b, y, {.form = series_form::outer, .base = activation::relu});
    for (std::size_t i = 0; i < y.size(); ++i)
        CHECK(std::isnan(float(y[i])) == (i == 4));
    CHECK(std::isinf(float(y[5])));
}

TEST_CASE("series_activation rejects bad input", "[series_activation]") {
    const std::vector<float> data(64, 1.0f), none, two(2, 1.0f), three(3, 1.0f);
    const float* const p = data.data();
    const std::vector<activation> mixed{activation::relu, activation::tanh, activation::silu};
    const std::vector<activation> no_bases;
    const deft::series_activation_options options{.form = series_form::outer, .base = activation::silu};
    const double nan = std::numeric_limits<double>::quiet_NaN();

    bad_input bad("series_activation");
    float* const y = bad.output<float>(32);
    using parameters = deft::term_parameters<const float>;
    const auto call = [&](parameters a, parameters b, const deft::series_activation_options& o, index rows = 4,
                          index channels = 5) {
        return [=] { deft::series_activation<float>({p, {4, 5}}, a, b, {y, {rows, channels}}, o); };
    };
    CHECK(bad.rejects("b", call(two, three, options)));
    CHECK(bad.rejects("b", call({p, {2, 5}}, two, options)));
    CHECK(bad.rejects("b", call({p, {2, 5}}, {p, {3, 5}}, options)));
    CHECK(bad.rejects("a", call(none, none, options)));
    CHECK(bad.rejects("a", call({p, {0, 5}}, {p, {0, 5}}, options)));
    CHECK(bad.rejects("a", call({p, {2, 4}}, {p, {2, 4}}, options)));
    CHECK(bad.rejects("a", call({p, {2, 1}}, {p, {2, 1}}, options))); // [n, 1] is not [n]
    CHECK(bad.rejects("y", call(two, two, options, 3, 5)));
    CHECK(bad.rejects("y", call(two, two, options, 4, 6)));
    CHECK(bad.rejects("base", call(two, two, {.form = series_form::outer, .base = mixed})));
    CHECK(bad.rejects("base", call(two, two, {.form = series_form::outer, .base = no_bases})));
    CHECK(bad.rejects("base", call(two, two, {.form = series_form::outer, .base = activation::identity})));
    CHECK(bad.rejects(
        "negative_slope",
        call(two, two, {.form = series_form::inner, .base = activation::leaky_relu, .negative_slope = nan})));

    bad_input bad_backward("series_activation_backward");
    float* const grad_x = bad_backward.output<float>(32);
    float* const grad_a = bad_backward.output<float>(16);
    float* const grad_b = bad_backward.output<float>(16);
    const auto backward = [&](parameters a, parameters b, deft::term_parameters<float> ga,
                              deft::term_parameters<float> gb, const deft::series_activation_options& o,
                              index rows_of_grad_y = 4, index rows_of_grad_x = 4) {
        return [=] {
            deft::series_activation_backward<float>({p, {4, 5}}, a, b, {p, {rows_of_grad_y, 5}},
                                                    {grad_x, {rows_of_grad_x, 5}}, ga, gb, o);
        };
    };
    const deft::term_parameters<float> ga(grad_a, {2}), gb(grad_b, {2});
    CHECK(bad_backward.rejects("b", backward(two, three, ga, gb, options)));
    CHECK(bad_backward.rejects("a", backward(none, none, ga, gb, options)));
    CHECK(bad_backward.rejects("grad_a", backward(two, two, {grad_a, {3}}, gb, options)));
    CHECK(bad_backward.rejects("grad_a", backward(two, two, {grad_a, {2, 5}}, gb, options)));
    CHECK(bad_backward.rejects("grad_b", backward(two, two, ga, {grad_b, {3}}, options)));
    CHECK(bad_backward.rejects("grad_y", backward(two, two, ga, gb, options, 3)));
    CHECK(bad_backward.rejects("grad_x", backward(two, two, ga, gb, options, 4, 3)));
    CHECK(bad_backward.rejects("base", backward(two, two, ga, gb, {.form = series_form::outer, .base = mixed})));
    CHECK(bad_backward.rejects(
        "negative_slope",
        backward(two, two, ga, gb, {.form = series_form::outer, .base = activation::relu, .negative_slope = nan})));
}

TEST_CASE("output beyond the caches is the same as in place, and ends where it should", "[series_activation]") {
    const index n = kernels::streamed_bytes / 4 + 1001;
    const std::vector<float> a{1.5f, -0.5f}, b{0.25f, -1.0f};
    std::vector<float> x(std::size_t(n + 2)), y(x.size(), 7.0f);
    for (std::size_t i = 0; i < x.size(); ++i)
        x[i] = 0.001f * float(i % 8191) - 4.0f;
    for (const activation base : {activation::relu, activation::gelu_erf})
        for (const index offset : {0, 1}) {
            const series_activation_options options{.form = series_form::outer, .base = base};
            std::fill(y.begin(), y.end(), 7.0f);
            series_activation<float>({x.data() + offset, {1, n}}, a, b, {y.data() + offset, {1, n}}, options);
            CHECK((offset == 0 || y[0] == 7.0f));
            CHECK(y[std::size_t(n + offset)] == 7.0f);
            std::vector<float> z(x.begin() + offset, x.begin() + offset + n);
            series_activation<float>({z.data(), {1, n}}, a, b, {z.data(), {1, n}}, options);
            CHECK(std::equal(z.begin(), z.end(), y.begin() + offset));
        }
}

} // namespace deft::testing

#include "all_activations.hpp"
#include "support/allocations.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/executors.hpp"
#include "support/generate.hpp"

#include <deft/activation/prepared_series_activation.hpp>
#include <deft/reference/activation/activation.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace deft::testing {

namespace {

/// The sum in double, term by term.
double exact(double x, const std::vector<float>& a, const std::vector<float>& b,
             const deft::series_activation_options& options) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const double s = double(a[i]), t = double(b[i]);
        const activation base = options.base[index(i)];
        sum += options.form == series_form::inner ? deft::reference::activate(base, s * x + t, options.negative_slope)
                                                  : s * deft::reference::activate(base, x + t, options.negative_slope);
    }
    return sum;
}

/// Every float grid point that matters: dense where the function bends, sparse in both tails, and the exact ends.
std::vector<float> dense_inputs() {
    std::vector<float> x;
    for (int i = -200000; i <= 200000; ++i)
        x.push_back(float(i) * 1e-4f);
    for (double magnitude = 1e-38; magnitude < 1e37; magnitude *= 1.07)
        for (const double sign : {-1.0, 1.0})
            x.push_back(float(sign * magnitude));
    for (const float special : {0.0f, -0.0f, std::numeric_limits<float>::denorm_min()})
        x.push_back(special);
    return x;
}

/// The greatest error relative to max|y|, over windows of x that are ever wider, so that the unbounded growth of gelu
/// and silu cannot hide an error where the function bends.
double worst_error(const std::vector<float>& x, const std::vector<float>& y, const std::vector<float>& a,
                   const std::vector<float>& b, const deft::series_activation_options& options) {
    double worst = 0;
    for (const double window : {4.0, 20.0, 1e3, 1e37}) {
        double largest = 0, error = 0;
        for (std::size_t i = 0; i < x.size(); ++i) {
            if (std::abs(double(x[i])) > window)
                continue;
            const double expected = exact(double(x[i]), a, b, options);
            largest = std::max(largest, std::abs(expected));
            error = std::max(error, std::isfinite(y[i]) ? std::abs(double(y[i]) - expected)
                                                        : std::numeric_limits<double>::infinity());
        }
        worst = std::max(worst, error / largest);
    }
    return worst;
}

} // namespace

TEST_CASE("the prepared series is within 2e-6 of the exact one", "[prepared_series_activation]") {
    const std::vector<float> x = dense_inputs();
    std::vector<float> y(x.size());
    struct {
        std::vector<float> a, b;
    } const parameters[] = {
        {{1}, {0}}, {{1, 0.5f}, {0, -1}}, {{0.7f, -1.3f, 2}, {0.4f, 1.5f, -2}}, {{-1, 1, 0.25f, 3}, {3, -3, 0, 0.5f}}};
    for (const activation base : all_activations)
        for (const series_form form : {series_form::outer, series_form::inner})
            for (const auto& [a, b] : parameters) {
                const deft::series_activation_options options{.form = form, .base = base};
                const prepared_series_activation<float> prepared(a, b, options);
                prepared(x, y);
                CAPTURE(int(base), int(form), a, b);
                CHECK(worst_error(x, y, a, b, options) <= 2e-6);
            }
}

TEST_CASE("a prepared gelu fits the lanes of a vector", "[prepared_series_activation]") {
    const prepared_series_activation<float> one(std::vector<float>{1}, std::vector<float>{0},
                                                {.form = series_form::outer, .base = activation::gelu_erf});
    const prepared_series_activation<float> three(std::vector<float>{0.5f, 1, 0.25f}, std::vector<float>{-1, 0, 1},
                                                  {.form = series_form::outer, .base = activation::gelu_erf});
    if (simd::can_look_up<float, simd::default_arch>) {
        CHECK(one.piece_count() == simd::lanes<float>);
        CHECK(three.piece_count() == simd::lanes<float>);
    } else {
        CHECK(three.piece_count() > simd::lanes<float>);
    }
}

TEST_CASE("the prepared series takes one activation per term", "[prepared_series_activation]") {
    const std::vector<float> x = dense_inputs(), a{1, 2, -0.5f}, b{0, 1, 0.25f};
    const std::vector<activation> bases{activation::silu, activation::relu, activation::tanh};
    const deft::series_activation_options options{.form = series_form::inner, .base = bases};
    std::vector<float> y(x.size());
    prepared_series_activation<float>(a, b, options)(x, y);
    CHECK(worst_error(x, y, a, b, options) <= 2e-6);
}

TEST_CASE("the prepared series keeps NaN and the limits", "[prepared_series_activation]") {
    const std::vector<float> a{1, 0.5f}, b{0, 0.25f};
    const float infinity = std::numeric_limits<float>::infinity();
    for (const activation base : all_activations) {
        const prepared_series_activation<float> prepared(a, b, {.form = series_form::outer, .base = base});
        std::vector<float> x(37, 0.5f), y(37);
        x[3] = x[36] = std::numeric_limits<float>::quiet_NaN();
        x[5] = infinity;
        x[6] = 3e38f;
        x[7] = -3e38f;
        prepared(x, y);
        CAPTURE(int(base));
        for (std::size_t i = 0; i < x.size(); ++i)
            CHECK(std::isnan(y[i]) == (i == 3 || i == 36));
        const bool saturates = base == activation::tanh || base == activation::sigmoid;
        if (saturates)
            CHECK_THAT(double(y[5]), Catch::Matchers::WithinRel(1.5, 2e-6));
        else
            CHECK(y[5] == infinity); // 1.5 times the greatest finite number

        x.assign(37, -infinity);
        prepared(x, y);
        if (base == activation::relu || base == activation::sigmoid)
            CHECK_THAT(double(y[0]), Catch::Matchers::WithinAbs(0, 2e-6));
        else if (base == activation::tanh)
            CHECK_THAT(double(y[0]), Catch::Matchers::WithinRel(-1.5, 2e-6));
        else if (base == activation::leaky_relu)
            CHECK(y[0] == -infinity);
    }
}

TEST_CASE("the prepared series works on every length, in place, without allocating, on any threads",
          "[prepared_series_activation]") {
    random_values random(1);
    const std::vector<float> a{1, 0.5f}, b{0, -1};
    const deft::series_activation_options options{.form = series_form::inner, .base = activation::gelu_tanh};
    const prepared_series_activation<float> prepared(a, b, options);
    for (const index length : length_sweep())
        for (const index offset : {0, 1, 3}) {
            std::vector<float> x(std::size_t(length + offset)), y(x.size() + 1, -7.0f);
            for (float& value : x)
                value = float(random.number(-4, 4));
            const std::vector<float> original = x;
            const long before = allocations();
            prepared({x.data() + offset, {length}}, deft::rows<float>(y.data() + offset, {length}));
            CHECK(allocations() == before);
            for (index i = 0; i < length; ++i)
                CHECK_THAT(double(y[std::size_t(i + offset)]),
                           Catch::Matchers::WithinAbs(exact(double(x[std::size_t(i + offset)]), a, b, options), 2e-5));
            for (std::size_t i = 0; i < y.size(); ++i)
                if (index(i) < offset || index(i) >= length + offset)
                    CHECK(y[i] == -7);

            prepared({x.data() + offset, {length}}, deft::rows<float>(x.data() + offset, {length}));
            for (index i = 0; i < length; ++i)
                CHECK(x[std::size_t(i + offset)] == y[std::size_t(i + offset)]);
            for (any_executor* executor : unusual_executors()) {
                x = original;
                prepared({x.data() + offset, {length}}, deft::rows<float>(x.data() + offset, {length}), *executor);
                CHECK(std::equal(x.begin() + offset, x.end(), y.begin() + offset));
            }
        }
}

TEST_CASE("the prepared series rejects bad input", "[prepared_series_activation]") {
    const std::vector<float> none, one(1, 1.0f), two(2, 1.0f), x(6, 1.0f);
    const std::vector<activation> mixed{activation::relu, activation::tanh, activation::silu};
    const deft::series_activation_options options{.form = series_form::outer, .base = activation::silu};
    bad_input bad("prepared_series_activation");
    float* const y = bad.output<float>(8);
    const auto prepare = [](const std::vector<float>& a, const std::vector<float>& b,
                            const deft::series_activation_options& o) {
        return [&a, &b, o] { prepared_series_activation<float>(a, b, o); };
    };
    CHECK(bad.rejects("b", prepare(two, one, options)));
    CHECK(bad.rejects("a", prepare(none, none, options)));
    CHECK(bad.rejects("base", prepare(two, two, {.form = series_form::outer, .base = mixed})));
    CHECK(bad.rejects("negative_slope", prepare(two, two,
                                                {.form = series_form::outer,
                                                 .base = activation::leaky_relu,
                                                 .negative_slope = std::numeric_limits<double>::quiet_NaN()})));
    const prepared_series_activation<float> prepared(two, two, options);
    CHECK(bad.rejects("y", [&] { prepared({x.data(), {2, 3}}, deft::rows<float>(y, {2, 4})); }));
}

} // namespace deft::testing

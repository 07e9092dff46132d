// The vector layer: memory of any length and storage type, arithmetic that keeps NaN, and functions of stated accuracy.
#include "support/catch.hpp"

#include <deft/simd/gather_rows.hpp>
#include <deft/simd/loop.hpp>
#include <deft/simd/math.hpp>
#include <deft/simd/rounded_quotient.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace deft::testing {

namespace {

using arch = simd::default_arch;

template <class T>
std::vector<T> lanes_of(const simd::batch<T>& x) {
    std::vector<T> values(static_cast<std::size_t>(simd::lanes<T>));
    x.store_unaligned(values.data());
    return values;
}

// Error in units of the last place of the exact result; huge where exactly one of both is NaN or infinite.
template <class T>
double ulp_error(T actual, long double exact) {
    const T rounded = static_cast<T>(exact);
    if (std::isnan(rounded) || std::isinf(rounded) || std::isnan(actual) || std::isinf(actual))
        return (std::isnan(rounded) && std::isnan(actual)) || rounded == actual ? 0 : 1e30;
    int exponent = std::numeric_limits<T>::min_exponent;
    if (std::abs(rounded) >= std::numeric_limits<T>::min())
        std::frexp(rounded, &exponent);
    const long double ulp = std::ldexp(1.0L, exponent - std::numeric_limits<T>::digits);
    return static_cast<double>(std::abs(static_cast<long double>(actual) - exact) / ulp);
}

// Arguments in [low, high] of every size, those at the ends, and what does not count as a number.
template <class T>
std::vector<T> arguments(T low, T high) {
    std::mt19937_64 engine(7);
    std::uniform_real_distribution<double> exponent(-40, std::log2(static_cast<double>(std::max(-low, high)))),
        near(-10, 10);
    std::vector<T> x{low, high, T(0), -T(0), std::numeric_limits<T>::min(), -std::numeric_limits<T>::denorm_min()};
    while (x.size() < 200000) {
        const auto magnitude = static_cast<T>(std::exp2(exponent(engine)));
        for (const T candidate : {magnitude, -magnitude, static_cast<T>(near(engine))})
            if (candidate >= low && candidate <= high)
                x.push_back(candidate);
    }
    return x;
}

template <class T, class Function, class Exact>
void check_accuracy(const std::string& name, double bound, T low, T high, Function function, Exact exact) {
    const std::vector<T> x = arguments(low, high);
    double worst = 0;
    T at = 0;
    for (std::size_t i = 0; i + static_cast<std::size_t>(simd::lanes<T>) <= x.size();
         i += static_cast<std::size_t>(simd::lanes<T>)) {
        const std::vector<T> y = lanes_of<T>(function(simd::load<arch>(&x[i])));
        for (std::size_t lane = 0; lane < y.size(); ++lane) {
            const double error = ulp_error(y[lane], exact(static_cast<long double>(x[i + lane])));
            if (error > worst) {
                worst = error;
                at = x[i + lane];
            }
        }
    }
    CAPTURE(name, at, worst, bound);
    CHECK(worst <= bound);
    const T nan = std::numeric_limits<T>::quiet_NaN();
    CHECK(std::isnan(lanes_of<T>(function(simd::batch<T>(nan)))[0]));
}

template <class T, class Function>
T at(Function function, T x) {
    return lanes_of<T>(function(simd::batch<T>(x)))[0];
}

} // namespace

TEMPLATE_TEST_CASE("vector functions keep their stated accuracy over the whole range", "[simd]", float, double) {
    using T = TestType;
    constexpr bool is_float = std::is_same_v<T, float>;
    constexpr T all = std::numeric_limits<T>::max();
    check_accuracy<T>(
        "exp", 1.1, -all, all, [](auto x) { return simd::exp(x); }, [](long double x) { return std::exp(x); });
    check_accuracy<T>(
        "exp_saturating", 1.1, is_float ? T(-87.33) : T(-708.39), is_float ? T(88.02) : T(709.08),
        [](auto x) { return simd::exp_saturating(x); }, [](long double x) { return std::exp(x); });
    check_accuracy<T>(
        "log", 1.0, std::numeric_limits<T>::min(), all, [](auto x) { return simd::log(x); },
        [](long double x) { return std::log(x); });
    check_accuracy<T>(
        "log1p", 1.0, T(-1), all, [](auto x) { return simd::log1p(x); }, [](long double x) { return std::log1p(x); });
    check_accuracy<T>(
        "erf", is_float ? 7 : 4, -all, all, [](auto x) { return simd::erf(x); },
        [](long double x) { return std::erf(x); });
    check_accuracy<T>(
        "tanh", is_float ? 7 : 2, -all, all, [](auto x) { return simd::tanh(x); },
        [](long double x) { return std::tanh(x); });
    check_accuracy<T>(
        "sigmoid", 3, is_float ? T(-87.3) : T(-708.3), all, [](auto x) { return simd::sigmoid(x); },
        [](long double x) { return 1 / (1 + std::exp(-x)); });
    check_accuracy<T>(
        "silu", 3, is_float ? T(-87.3) : T(-708.3), all, [](auto x) { return simd::silu(x); },
        [](long double x) { return x / (1 + std::exp(-x)); });
}

TEMPLATE_TEST_CASE("gelu is accurate relative to its argument", "[simd]", float, double) {
    using T = TestType;
    const double bound = std::is_same_v<T, float> ? 3e-7 : 4e-16;
    for (const T u : arguments<T>(T(-1e4), T(1e4))) {
        const auto v = static_cast<long double>(u);
        const long double erf_form = v / 2 * std::erfc(-v / std::sqrt(2.0L));
        const long double inner = 2 * std::sqrt(2 / std::acos(-1.0L)) * (v + 0.044715L * v * v * v);
        const long double tanh_form = v / (1 + std::exp(-inner));
        const double scale = std::max(1.0, std::abs(static_cast<double>(u)));
        CAPTURE(u);
        REQUIRE(std::abs(static_cast<double>(at<T>([](auto x) { return simd::gelu_erf(x); }, u) - erf_form)) <=
                bound * scale);
        REQUIRE(std::abs(static_cast<double>(at<T>([](auto x) { return simd::gelu_tanh(x); }, u) - tanh_form)) <=
                bound * scale);
    }
}

TEMPLATE_TEST_CASE("vector functions meet their limits", "[simd]", float, double) {
    using T = TestType;
    constexpr T infinity = std::numeric_limits<T>::infinity();
    for (const T far : {T(1e4), T(1e20), std::numeric_limits<T>::max()}) {
        CHECK(at<T>([](auto x) { return simd::gelu_erf(x); }, -far) == 0);
        CHECK(at<T>([](auto x) { return simd::gelu_erf(x); }, far) == far);
        CHECK(at<T>([](auto x) { return simd::gelu_tanh(x); }, -far) == 0);
        CHECK(at<T>([](auto x) { return simd::gelu_tanh(x); }, far) == far);
        CHECK(at<T>([](auto x) { return simd::silu(x); }, -far) == 0);
        CHECK(at<T>([](auto x) { return simd::silu(x); }, far) == far);
    }
    for (const T far : {T(30), infinity}) {
        CHECK(at<T>([](auto x) { return simd::tanh(x); }, far) == 1);
        CHECK(at<T>([](auto x) { return simd::tanh(x); }, -far) == -1);
        CHECK(at<T>([](auto x) { return simd::erf(x); }, far) == 1);
        CHECK(at<T>([](auto x) { return simd::erf(x); }, -far) == -1);
    }
    CHECK(at<T>([](auto x) { return simd::sigmoid(x); }, infinity) == 1);
    CHECK(at<T>([](auto x) { return simd::sigmoid(x); }, -infinity) == 0);
    CHECK(at<T>([](auto x) { return simd::exp(x); }, infinity) == infinity);
    CHECK(at<T>([](auto x) { return simd::exp(x); }, -infinity) == 0);
}

TEMPLATE_TEST_CASE("minimum and maximum against a bound keep NaN", "[simd]", float, double) {
    using T = TestType;
    const simd::batch<T> bound(T(1)), nan(std::numeric_limits<T>::quiet_NaN()), two(T(2));
    CHECK(std::isnan(lanes_of<T>(simd::at_least(bound, nan))[0]));
    CHECK(std::isnan(lanes_of<T>(simd::at_most(bound, nan))[0]));
    CHECK(lanes_of<T>(simd::at_least(bound, two))[0] == 2);
    CHECK(lanes_of<T>(simd::at_most(bound, two))[0] == 1);
}

TEMPLATE_TEST_CASE("rounded quotients are those of a division", "[simd]", float, double) {
    using T = TestType;
    using B = simd::batch<T>;
    using limits = std::numeric_limits<T>;
    std::mt19937_64 engine(17);
    std::uniform_real_distribution<double> digits(1, 2);
    std::uniform_int_distribution<int> exponent(-30, 30), code(-300, 300), nudge(-3, 3), half(0, 1);
    std::vector<T> steps{T(0.25), T(3), limits::min(), limits::max(), limits::denorm_min(), limits::min() / 8};
    for (int i = 0; i < 3000; ++i)
        steps.push_back(T(std::ldexp(digits(engine), exponent(engine))));
    for (const T step : steps) {
        const T reach = T(1 + engine() % 256);
        const simd::rounded_quotient<T, arch> divide(step, reach);
        std::vector<T> x(64);
        for (T& value : x) { // at a tie or an integer, or some places beside it
            value = T(code(engine) + 0.5 * half(engine)) * step;
            for (int away = nudge(engine); away != 0; away += away > 0 ? -1 : 1)
                value = std::nextafter(value, away > 0 ? limits::infinity() : -limits::infinity());
        }
        x[7] = limits::infinity(), x[23] = -limits::infinity(), x[40] = limits::max(), x[41] = limits::quiet_NaN();
        x[62] = limits::denorm_min(), x[63] = T(-0.0);
        for (std::size_t i = 0; i < x.size(); i += std::size_t(simd::lanes<T>)) {
            const std::vector<T> rounded = lanes_of<T>(divide(B::load_unaligned(x.data() + i)));
            for (std::size_t l = 0; l < rounded.size(); ++l) {
                const T expected = std::nearbyint(x[i + l] / step);
                CAPTURE(x[i + l], step, reach, rounded[l], expected);
                if (std::abs(expected) <= reach)
                    CHECK((rounded[l] == expected && std::signbit(rounded[l]) == (expected < 0)));
                else if (expected == expected)
                    CHECK((expected > 0 ? rounded[l] > reach : rounded[l] < -reach));
                else
                    CHECK(rounded[l] != rounded[l]);
            }
        }
    }
}

TEMPLATE_TEST_CASE("fma, sums and bit casts", "[simd]", float, double) {
    using T = TestType;
    std::vector<T> x(static_cast<std::size_t>(simd::lanes<T>));
    for (std::size_t i = 0; i < x.size(); ++i)
        x[i] = static_cast<T>(i + 1);
    const auto v = simd::load<arch>(x.data());
    CHECK(simd::reduce_add(v) == static_cast<T>(x.size() * (x.size() + 1) / 2));
    CHECK(lanes_of<T>(simd::fma(v, v, v))[1] == T(6));
    CHECK(lanes_of<T>(simd::bit_cast<T>(simd::bit_cast<simd::integer_of<T>>(v))) == x);
}

TEMPLATE_TEST_CASE("partial loads and stores touch only their elements", "[simd]", float, double, Eigen::half,
                   Eigen::bfloat16) {
    using S = TestType;
    using T = compute_t<S>;
    constexpr index n = simd::lanes<T>;
    std::vector<S> memory(static_cast<std::size_t>(n), static_cast<S>(T(3)));
    for (index count = 1; count < n; ++count) {
        const auto loaded = lanes_of<T>(simd::load<arch>(memory.data(), simd::partial{count}));
        std::vector<S> target(static_cast<std::size_t>(n), static_cast<S>(T(-1)));
        simd::store<S>(target.data(), simd::batch<T>(T(5)), simd::partial{count});
        for (index i = 0; i < n; ++i) {
            const auto at_i = static_cast<std::size_t>(i);
            CHECK(loaded[at_i] == (i < count ? T(3) : T(0)));
            CHECK(static_cast<T>(target[at_i]) == (i < count ? T(5) : T(-1)));
        }
    }
}

TEMPLATE_TEST_CASE("16-bit storage is read exactly and rounded to nearest even", "[simd]", Eigen::half,
                   Eigen::bfloat16) {
    using S = TestType;
    constexpr auto n = static_cast<std::size_t>(simd::lanes<float>);
    std::vector<S> memory(n), target(n);
    for (std::uint32_t bits = 0; bits < 65536; bits += static_cast<std::uint32_t>(n)) {
        for (std::size_t i = 0; i < n; ++i) {
            const auto pattern = static_cast<std::uint16_t>(bits + i);
            std::memcpy(static_cast<void*>(&memory[i]), &pattern, sizeof pattern);
        }
        const auto wide = simd::load<arch>(memory.data());
        simd::store<S>(target.data(), wide);
        const auto values = lanes_of<float>(wide);
        for (std::size_t i = 0; i < n; ++i) {
            const float expected = static_cast<float>(memory[i]);
            if (std::isnan(expected)) {
                REQUIRE(std::isnan(values[i]));
                REQUIRE(std::isnan(static_cast<float>(target[i])));
            } else {
                REQUIRE(values[i] == expected);
                REQUIRE(std::memcmp(&target[i], &memory[i], sizeof(S)) == 0);
            }
        }
    }
    std::mt19937 engine(3);
    std::vector<float> source(n);
    for (int round = 0; round < 4000; ++round) {
        for (float& value : source) {
            const auto pattern = static_cast<std::uint32_t>(engine());
            std::memcpy(&value, &pattern, sizeof value);
        }
        simd::store<S>(target.data(), simd::load<arch>(source.data()));
        for (std::size_t i = 0; i < n; ++i) {
            const S expected = static_cast<S>(source[i]);
            CAPTURE(source[i]);
            if (std::isnan(source[i]))
                REQUIRE(std::isnan(static_cast<float>(target[i])));
            else
                REQUIRE(std::memcmp(&target[i], &expected, sizeof(S)) == 0);
        }
    }
}

TEMPLATE_TEST_CASE("rows of four are gathered per lane", "[simd]", float, double) {
    using T = TestType;
    constexpr auto n = static_cast<std::size_t>(simd::lanes<T>);
    std::vector<T> table(4 * 37), rows(n);
    for (std::size_t i = 0; i < table.size(); ++i)
        table[i] = static_cast<T>(i);
    for (std::size_t i = 0; i < n; ++i)
        rows[i] = static_cast<T>(i * 7 % 37);
    const auto c = simd::gather_rows(table.data(), simd::load<arch>(rows.data()));
    for (std::size_t i = 0; i < n; ++i) {
        CHECK(lanes_of<T>(c.c0)[i] == 4 * rows[i]);
        CHECK(lanes_of<T>(c.c1)[i] == 4 * rows[i] + 1);
        CHECK(lanes_of<T>(c.c2)[i] == 4 * rows[i] + 2);
        CHECK(lanes_of<T>(c.c3)[i] == 4 * rows[i] + 3);
    }
}

TEST_CASE("a vector loop covers every element once", "[simd]") {
    for (index n = 0; n <= 4 * simd::lanes<float> + 3; ++n) {
        std::vector<int> visits(static_cast<std::size_t>(n), 0);
        simd::for_each_vector<float, arch, 2>(n, [&](index i, auto count, auto extent) {
            index width = decltype(count)::value * simd::lanes<float>;
            if constexpr (std::is_same_v<decltype(extent), simd::partial>)
                width = extent.count;
            for (index k = i; k < i + width; ++k)
                ++visits[static_cast<std::size_t>(k)];
        });
        CHECK(std::all_of(visits.begin(), visits.end(), [](int count) { return count == 1; }));
    }
}

} // namespace deft::testing

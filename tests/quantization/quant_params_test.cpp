#include "support/bad_input.hpp"
#include "support/catch.hpp"

#include <deft/quantization/quant_params.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

TEST_CASE("quant_params by hand", "[quant_params]") {
    const std::vector<double> x{-1, 0.5, 3, 2};
    std::vector<double> scale(1);
    std::vector<quant_code> zero(1);
    const auto run = [&](const quant_params_options& o) {
        deft::quant_params<double>({x.data(), {1, 4}}, {scale.data(), {1, 1}}, {zero.data(), {1, 1}}, o);
    };
    run({.format = {.bits = 4}});
    CHECK(scale[0] == 3.0 / 7);
    CHECK(zero[0] == 0);
    run({.format = {.bits = 4, .symmetry = quant_symmetry::asymmetric}});
    CHECK(scale[0] == 4.0 / 15);
    CHECK(zero[0] == 4); // 3.75
    run({.format = {.bits = 4}, .scale_min = 1});
    CHECK(scale[0] == 1);
    run({.format = {.bits = 4}, .scale_max = 0.25});
    CHECK(scale[0] == 0.25);
}

TEST_CASE("the range covers zero unless it is told not to", "[quant_params]") {
    const std::vector<double> x{3, 4.5};
    std::vector<double> scale(1);
    std::vector<quant_code> zero(1);
    for (const quant_span span : {quant_span::with_zero, quant_span::plain}) {
        deft::quant_params<double>({x.data(), {1, 2}}, {scale.data(), {1, 1}}, {zero.data(), {1, 1}},
                                   {.format = {.bits = 4, .symmetry = quant_symmetry::asymmetric}, .span = span});
        CHECK(scale[0] == (span == quant_span::with_zero ? 0.3 : 0.1));
        CHECK(zero[0] == (span == quant_span::with_zero ? 0 : -30));
    }
}

TEMPLATE_TEST_CASE("ranges that are none", "[quant_params]", float, double) {
    using T = TestType;
    constexpr T nan = std::numeric_limits<T>::quiet_NaN(), inf = std::numeric_limits<T>::infinity();
    const std::vector<T> nothing(20, nan), some{nan, 2, nan, -1}, huge{inf, -inf, 1, nan};
    T scale = 0;
    quant_code zero = 0;
    for (const quant_symmetry symmetry : {quant_symmetry::symmetric, quant_symmetry::asymmetric}) {
        const auto run = [&](const std::vector<T>& x, index n, quant_span span = quant_span::with_zero) {
            deft::quant_params<T>({x.data(), {1, n}}, {&scale, {1, 1}}, {&zero, {1, 1}},
                                  {.format = {.bits = 4, .symmetry = symmetry}, .span = span});
        };
        for (const quant_span span : {quant_span::with_zero, quant_span::plain}) {
            run(nothing, 20, span);
            CHECK(scale == T(1e-5));
            CHECK(zero == 0);
            run(nothing, 0, span);
            CHECK(scale == T(1e-5));
            CHECK(zero == 0);
        }
        run(some, 4);
        CHECK(scale == (symmetry == quant_symmetry::symmetric ? T(2.0 / 7) : T(3.0 / 15)));
        run(huge, 4);
        CHECK(scale == T(1e4));
    }
}

TEST_CASE("quant_params rejects bad input", "[quant_params]") {
    const std::vector<float> data(64, 1.0f);
    bad_input bad("quant_params");
    float* const s = bad.output<float>(64);
    quant_code* const z = bad.output<quant_code>(64);
    const auto call = [&](quant_format format, shape<2> scale, shape<2> zero, double low = 1e-5, double high = 1e4) {
        return [=, x = data.data()] {
            deft::quant_params<float>({x, {4, 10}}, {s, scale}, {z, zero},
                                      {.format = format, .scale_min = low, .scale_max = high});
        };
    };
    const auto per_group = [](index size) {
        return quant_format{.bits = 4, .granularity = quant_granularity::per_group, .group_size = size};
    };
    CHECK(bad.rejects("bits", call({.bits = 1}, {4, 1}, {4, 1})));
    CHECK(bad.rejects("bits", call({.bits = 9}, {4, 1}, {4, 1})));
    CHECK(bad.rejects("group_size", call(per_group(0), {4, 1}, {4, 1})));
    CHECK(bad.rejects("group_size", call(per_group(-3), {4, 1}, {4, 1})));
    CHECK(bad.rejects("scale", call(per_group(3), {4, 3}, {4, 4})));
    CHECK(bad.rejects("zero_point", call(per_group(3), {4, 4}, {4, 3})));
    CHECK(bad.rejects("scale", call({.bits = 4}, {3, 1}, {4, 1})));
    CHECK(bad.rejects("scale", call({.bits = 4, .granularity = quant_granularity::per_tensor}, {4, 1}, {1, 1})));
    CHECK(bad.rejects("scale_min", call({.bits = 4}, {4, 1}, {4, 1}, 0)));
    CHECK(bad.rejects("scale_min", call({.bits = 4}, {4, 1}, {4, 1}, NAN)));
    CHECK(bad.rejects("scale_max", call({.bits = 4}, {4, 1}, {4, 1}, 1, 0.5)));
    CHECK(bad.rejects("scale_max", call({.bits = 4}, {4, 1}, {4, 1}, 1, INFINITY)));
}

} // namespace deft::testing

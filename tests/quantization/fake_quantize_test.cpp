#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/quantization/fake_quantize.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

namespace {

const quant_code no_zero = 0;

/// One step for the whole of x.
template <class T>
std::vector<T> quantised(const std::vector<T>& x, T scale, quant_format format, std::vector<quant_code>& q,
                         quant_code zero = 0) {
    const index n = index(x.size());
    std::vector<T> y(x.size());
    q.resize(x.size());
    format.granularity = quant_granularity::per_tensor;
    deft::fake_quantize<T>({x.data(), {1, n}}, {&scale, {1, 1}}, {&zero, {1, 1}}, {y.data(), {1, n}},
                           {q.data(), {1, n}}, {.format = format});
    return y;
}

} // namespace

TEMPLATE_TEST_CASE("ties go to the even code", "[fake_quantize]", float, double) {
    using T = TestType;
    std::vector<T> x;
    std::vector<quant_code> expected;
    for (int repeat = 0; repeat < 5; ++repeat) // whole vectors and a tail
        for (const auto& [value, code] : {std::pair{-2.5, -2},
                                          {-1.5, -2},
                                          {-0.5, 0},
                                          {0.5, 0},
                                          {1.5, 2},
                                          {2.5, 2},
                                          {6.5, 6},
                                          {7.5, 7},
                                          {-8.5, -8},
                                          {-9.5, -8},
                                          {3.5, 4}}) {
            x.push_back(T(value / 4));
            expected.push_back(code);
        }
    std::vector<quant_code> q;
    const std::vector<T> y = quantised<T>(x, T(0.25), {.bits = 4}, q);
    CHECK(q == expected);
    for (std::size_t i = 0; i < y.size(); ++i)
        CHECK(y[i] == T(expected[i]) / 4);
    // A zero point moves the codes, not the values, as long as nothing is clipped.
    const std::vector<T> shifted =
        quantised<T>(x, T(0.25), {.bits = 8, .symmetry = quant_symmetry::asymmetric}, q, 131);
    CHECK(q[0] == 129);
    CHECK(q[7] == 139); // 7.5 to 8
    CHECK(shifted[0] == y[0]);
}

TEMPLATE_TEST_CASE("what is not finite, and what is large", "[fake_quantize]", float, double) {
    using T = TestType;
    constexpr T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
    constexpr T most = std::numeric_limits<T>::max();
    std::vector<quant_code> q;
    std::vector<T> x{inf, -inf, nan, most, -most, -nan, T(1e30), T(-1e30)};
    x.insert(x.end(), x.begin(), x.end());
    x.push_back(nan);
    const std::vector<T> y = quantised<T>(x, T(0.5), {.bits = 8}, q);
    for (std::size_t i = 0; i < x.size(); ++i) {
        if (std::isnan(x[i])) {
            CHECK(std::isnan(y[i]));
            continue;
        }
        CHECK(y[i] == (x[i] > 0 ? T(63.5) : T(-64)));
        CHECK(q[i] == (x[i] > 0 ? 127 : -128));
    }
}

TEST_CASE("codes survive quantising again", "[fake_quantize]") {
    random_values random(4);
    for (const int bits : {2, 3, 4, 8}) {
        const std::vector<double> x = random.normal({300}, 2).values;
        std::vector<quant_code> first, second;
        const std::vector<double> y = quantised<double>(x, 0.3, {.bits = bits}, first);
        CHECK(quantised<double>(y, 0.3, {.bits = bits}, second) == y);
        CHECK(first == second);
    }
}

TEST_CASE("the gradient of the step, of the function with the rounding held", "[fake_quantize]") {
    // y = s (x / s + r) with r = round(x0 / s0) - x0 / s0 held constant where the code is inside of its range, ends
    // included, else s times the end: its derivative by x is the mask, by s what LSQ takes.
    random_values random(5);
    const index n = 37;
    const std::vector<double> x = random.normal({n}, 2).values, g = random.normal({n}).values;
    const double s0 = 0.4, low = -4, high = 3;
    const auto surrogate = [&](std::size_t i, double s) {
        const double code = std::nearbyint(x[i] / s0), r = code - x[i] / s0;
        return code < low ? s * low : code > high ? s * high : s * (x[i] / s + r);
    };
    double expected = 0;
    for (std::size_t i = 0; i < x.size(); ++i)
        expected += g[i] * (surrogate(i, s0 + 1e-6) - surrogate(i, s0 - 1e-6)) / 2e-6;
    std::vector<double> grad_x(x.size());
    double grad_s = 0;
    for (const step_gradient kind : {step_gradient::plain, step_gradient::lsq}) {
        deft::fake_quantize_backward<double>(
            {x.data(), {1, n}}, {&s0, {1, 1}}, {&no_zero, {1, 1}}, {g.data(), {1, n}}, {grad_x.data(), {1, n}},
            {&grad_s, {1, 1}}, {.format = {.bits = 3, .granularity = quant_granularity::per_tensor}, .gradient = kind});
        const double factor = kind == step_gradient::plain ? 1 : 1 / std::sqrt(double(n) * 3);
        CHECK_THAT(grad_s, Catch::Matchers::WithinAbs(factor * expected, 1e-6 * factor));
        for (std::size_t i = 0; i < x.size(); ++i) {
            const double code = std::nearbyint(x[i] / s0);
            CHECK(grad_x[i] == (code >= low && code <= high ? g[i] : 0));
        }
    }
}

TEST_CASE("the longest sums keep their digits", "[fake_quantize]") {
    const index rows = 500, columns = 4000;
    random_values random(6);
    const std::vector<double> x = random.normal({rows, columns}).values,
                              g = random.uniform({rows, columns}, 0, 1).values;
    const auto gradient = [&](auto zero) {
        using T = decltype(zero);
        const std::vector<T> values(x.begin(), x.end()), cotangents(g.begin(), g.end());
        std::vector<T> grad_x(x.size());
        const T scale = T(0.25);
        T grad_s = 0;
        deft::fake_quantize_backward<T>({values.data(), {rows, columns}}, {&scale, {1, 1}}, {&no_zero, {1, 1}},
                                        {cotangents.data(), {rows, columns}}, {grad_x.data(), {rows, columns}},
                                        {&grad_s, {1, 1}},
                                        {.format = {.bits = 4, .granularity = quant_granularity::per_tensor}});
        return double(grad_s);
    };
    CHECK_THAT(gradient(0.0f), Catch::Matchers::WithinRel(gradient(0.0), 1e-6));
}

TEST_CASE("values past the caches are the same values", "[fake_quantize]") {
    const index rows = 1100, columns = 8192 + 3; // more than 32 MB of float, rows at all offsets
    random_values random(7);
    std::vector<float> x(std::size_t(rows * columns)), y(x.size() + 1), h(x.size());
    for (std::size_t i = 0; i < x.size(); ++i)
        x[i] = float(i % 977) / 100 - 4;
    const float scale = 0.5f;
    const fake_quantize_options options{.format = {.bits = 4, .granularity = quant_granularity::per_tensor}};
    deft::fake_quantize<float>({x.data(), {rows, columns}}, {&scale, {1, 1}}, {&no_zero, {1, 1}},
                               {y.data() + 1, {rows, columns}}, absent, options);
    deft::fake_quantize<float>({x.data(), {rows, columns}}, {&scale, {1, 1}}, {&no_zero, {1, 1}},
                               {x.data(), {rows, columns}}, absent, options); // in place: not streamed
    CHECK(std::equal(x.begin(), x.end(), y.begin() + 1));
    CHECK(y[0] == 0);
}

TEST_CASE("dynamic steps are those of quant_params", "[fake_quantize_dynamic]") {
    random_values random(8);
    const index rows = 7, columns = 45;
    const std::vector<double> x = random.normal({rows, columns}).values;
    for (const quant_granularity granularity :
         {quant_granularity::per_token, quant_granularity::per_tensor, quant_granularity::per_group}) {
        const quant_params_options options{
            .format = {.bits = 4, .symmetry = quant_symmetry::asymmetric, .granularity = granularity, .group_size = 8}};
        const deft::detail::quant_blocks blocks(rows, columns, options.format);
        const shape<2> steps{blocks.scale_rows, blocks.scale_columns};
        std::vector<double> y(x.size()), y2(x.size()), s(std::size_t(blocks.scale_rows * blocks.scale_columns)), s2(s);
        std::vector<quant_code> q(x.size()), q2(x.size()), z(s.size()), z2(s.size());
        const shape<2> size{rows, columns};
        deft::fake_quantize_dynamic<double>({x.data(), size}, {y.data(), size}, {q.data(), size}, {s.data(), steps},
                                            {z.data(), steps}, options);
        deft::quant_params<double>({x.data(), size}, {s2.data(), steps}, {z2.data(), steps}, options);
        deft::fake_quantize<double>({x.data(), size}, {s2.data(), steps}, {z2.data(), steps}, {y2.data(), size},
                                    {q2.data(), size}, {.format = options.format});
        CHECK(s == s2);
        CHECK(z == z2);
        CHECK(q == q2);
        CHECK(y == y2);
        // Two neighbouring codes are a step apart, and no value is farther from its own than half of one.
        for (index r = 0; r < rows; ++r)
            for (index c = 0; c < columns; ++c) {
                const std::size_t at = std::size_t(blocks.scale_row(r) * blocks.scale_columns +
                                                   (granularity == quant_granularity::per_group ? c / 8 : 0));
                const std::size_t i = std::size_t(r * columns + c);
                CHECK(std::abs(y[i] - x[i]) <= s[at] * 1.0000001); // z is rounded too
                CHECK(q[i] >= 0);
                CHECK(q[i] <= 15);
            }
    }
}

TEST_CASE("fake_quantize rejects bad input", "[fake_quantize]") {
    const std::vector<float> data(64, 1.0f);
    std::vector<float> steps(8, 0.5f);
    const std::vector<quant_code> zeros(8, 0);
    const float* const p = data.data();
    bad_input bad("fake_quantize");
    float* const o = bad.output<float>(64);
    quant_code* const codes = bad.output<quant_code>(64);
    const auto call = [&](quant_format format, shape<2> s, shape<2> z, shape<2> y, view<quant_code, 2> q) {
        return [=, sp = steps.data(), zp = zeros.data()] {
            deft::fake_quantize<float>({p, {4, 10}}, {sp, s}, {zp, z}, {o, y}, q, {.format = format});
        };
    };
    const shape<2> row{4, 1}, fit{4, 10};
    CHECK(bad.rejects("bits", call({.bits = 1}, row, row, fit, absent)));
    CHECK(bad.rejects("group_size",
                      call({.bits = 4, .granularity = quant_granularity::per_group}, row, row, fit, absent)));
    CHECK(bad.rejects("scale", call({.bits = 4}, {1, 1}, row, fit, absent)));
    CHECK(bad.rejects("zero_point", call({.bits = 4}, row, {4, 2}, fit, absent)));
    CHECK(bad.rejects("y", call({.bits = 4}, row, row, {4, 9}, absent)));
    CHECK(bad.rejects("q", call({.bits = 4}, row, row, fit, {codes, {3, 10}})));
    for (const float wrong : {0.0f, -1.0f, NAN, INFINITY}) {
        steps[2] = wrong;
        CHECK(bad.rejects("scale", call({.bits = 4}, row, row, fit, absent)));
    }
    steps[2] = 0.5f;

    bad_input back("fake_quantize_backward");
    float* const g = back.output<float>(64);
    const auto backward = [&](shape<2> gy, shape<2> gx, shape<2> gs) {
        return [=, sp = steps.data(), zp = zeros.data()] {
            deft::fake_quantize_backward<float>({p, {4, 10}}, {sp, {4, 1}}, {zp, {4, 1}}, {p, gy}, {g, gx}, {g, gs},
                                                {.format = {.bits = 4}});
        };
    };
    CHECK(back.rejects("grad_y", backward({4, 9}, fit, row)));
    CHECK(back.rejects("grad_x", backward(fit, {5, 10}, row)));
    CHECK(back.rejects("grad_scale", backward(fit, fit, {1, 1})));

    bad_input dynamic("fake_quantize_dynamic");
    float* const d = dynamic.output<float>(64);
    quant_code* const dz = dynamic.output<quant_code>(64);
    const auto run = [&](int bits, shape<2> y, shape<2> s, shape<2> z) {
        return [=] {
            deft::fake_quantize_dynamic<float>({p, {4, 10}}, {d, y}, absent, {d, s}, {dz, z},
                                               {.format = {.bits = bits}});
        };
    };
    CHECK(dynamic.rejects("bits", run(0, fit, row, row)));
    CHECK(dynamic.rejects("y", run(4, {4, 1}, row, row)));
    CHECK(dynamic.rejects("scale", run(4, fit, {4, 2}, row)));
    CHECK(dynamic.rejects("zero_point", run(4, fit, row, {1, 1})));
}

} // namespace deft::testing

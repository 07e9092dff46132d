#include "support/allocations.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/quantization/quantized_matmul.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace deft::testing {

namespace {

/// A weight matrix with everything it was made of.
template <class T>
struct layer {
    packed_format format;
    std::vector<std::uint8_t> codes, bytes;
    std::vector<T> scale;

    layer(index rows, index columns, int bits, index group, unsigned seed) : format{rows, columns, bits, group} {
        random_values random(seed);
        for (index i = 0; i < rows * columns; ++i)
            codes.push_back(std::uint8_t(random.integer(0, (1 << bits) - 1)));
        for (index i = 0; i < rows * format.groups(); ++i)
            scale.push_back(T(random.number(0.01, 0.1)));
        pack();
    }
    void pack() {
        bytes.resize(std::size_t(format.rows * format.row_bytes()));
        deft::pack_codes({codes.data(), {format.rows, format.columns}},
                         {bytes.data(), {format.rows, format.row_bytes()}}, {.bits = format.bits});
    }
    packed_weights<T> packed() const {
        return {.codes = {bytes.data(), {format.rows, format.row_bytes()}},
                .scale = {scale.data(), {format.rows, format.groups()}},
                .zero_point = {},
                .format = format};
    }
};

template <class T>
std::vector<T> normal_values(index count, std::uint64_t seed) {
    const std::vector<double> values = random_values(seed).normal({count}).values;
    return {values.begin(), values.end()};
}

} // namespace

TEST_CASE("a product by hand", "[quantized_matmul]") {
    // w = 2 (u - 8): [-16, 0, 14; 2, 4, 6].
    layer<float> l(2, 3, 4, 0, 1);
    l.codes = {0, 8, 15, 9, 10, 11};
    l.scale = {2, 2};
    l.pack();
    const prepared_weights<float> w(l.packed());
    const std::vector<float> x{127, -64, 1}, bias{0.5f, -0.5f};
    std::vector<float> y(2);
    deft::quantized_matmul<float>({x.data(), {1, 3}}, w, bias, {y.data(), {1, 2}});
    CHECK(y == std::vector<float>{-16 * 127 + 14 + 0.5f, 2 * 127 - 4 * 64 + 6 - 0.5f});

    quantized_activation<float> a({.columns = 3}); // max|x| = 127: the codes are x
    deft::quantize_activation(x, a);
    CHECK(a.scale(0, 0) == 1.0f);
    CHECK(a.code(0, 1) == -64);
    std::vector<float> z(2);
    deft::quantized_matmul<float>(a, w, bias, {z.data(), {1, 2}});
    CHECK(z == y);
    std::vector<std::int32_t> acc(2);
    deft::quantized_sums(a, w, {acc.data(), {1, 2, 1}});
    CHECK(acc == std::vector<std::int32_t>{(-8 * 127 + 7), 127 - 2 * 64 + 3});
}

TEST_CASE("codes of activations by hand", "[quantized_matmul]") {
    const std::vector<double> x{-1, 0, 0.5, 2};
    quantized_activation<double> a({.columns = 4, .bits = 4, .range = code_range::asymmetric});
    deft::quantize_activation(x, a); // scale 3 / 15, zero point 5
    CHECK(std::abs(a.scale(0, 0) - 0.2) < 1e-16);
    CHECK(a.zero_point(0, 0) == 5);
    CHECK((a.code(0, 0) == 0 && a.code(0, 1) == 5 && a.code(0, 3) == 15));

    // A positive token: its range includes 0.
    const std::vector<double> positive{3, 1, 2, 3};
    deft::quantize_activation(positive, a);
    CHECK((a.zero_point(0, 0) == 0 && a.code(0, 0) == 15 && a.code(0, 1) == 5));

    // Ties go to even.
    const std::vector<double> ties{7, 0.5, 1.5, -2.5};
    quantized_activation<double> s({.columns = 4, .bits = 4});
    deft::quantize_activation(ties, s);
    CHECK((s.code(0, 1) == 0 && s.code(0, 2) == 2 && s.code(0, 3) == -2));

    // Nothing but zeros, and less than the least step.
    for (const double value : {0.0, 1e-30}) {
        deft::quantize_activation(std::vector<double>(4, value), s);
        CHECK((s.scale(0, 0) == 1e-10 && s.code(0, 0) == 0));
    }
    // Infinities saturate at the greatest step.
    const double infinity = std::numeric_limits<double>::infinity();
    deft::quantize_activation(std::vector<double>{infinity, -infinity, 1, 0}, s);
    CHECK((s.scale(0, 0) == 1e30 && s.code(0, 0) == 7 && s.code(0, 1) == -8 && s.code(0, 2) == 0));
    deft::quantize_activation(std::vector<double>{1, -infinity, 1, 0}, a);
    CHECK((a.scale(0, 0) == 1e30 && a.zero_point(0, 0) == 10000));
}

TEST_CASE("a given step is used as it is", "[quantized_matmul]") {
    const std::vector<float> x{-100, -1, 0, 3.4f, 1000};
    quantized_activation<float> a({.columns = 5, .bits = 8, .range = code_range::asymmetric});
    deft::quantize_activation(x, {.scale = 0.5f, .zero_point = 10}, a);
    const int expected[] = {0, 8, 10, 17, 255};
    for (index k = 0; k < 5; ++k)
        CHECK(a.code(0, k) == expected[k]);
    CHECK((a.scale(0, 0) == 0.5f && a.zero_point(0, 0) == 10));

    layer<float> l(3, 5, 8, 0, 2);
    const prepared_weights<float> w(l.packed());
    std::vector<float> y(3);
    deft::quantized_matmul<float>(a, w, absent, {y.data(), {1, 3}});
    for (index o = 0; o < 3; ++o) {
        int sum = 0;
        for (index k = 0; k < 5; ++k)
            sum += (expected[k] - 10) * (l.codes[std::size_t(o * 5 + k)] - 128);
        CHECK(std::abs(y[std::size_t(o)] - 0.5f * l.scale[std::size_t(o)] * float(sum)) <=
              1e-6f * std::abs(y[std::size_t(o)]));
    }
}

TEST_CASE("a token has the same bits in any company", "[quantized_matmul]") {
    constexpr index tokens = 71, columns = 1100, rows = 19;
    for (const int bits : {2, 4, 8}) {
        CAPTURE(bits);
        const layer<float> l(rows, columns, bits, 128, 3);
        const prepared_weights<float> w(l.packed());
        const std::vector<float> x = normal_values<float>(tokens * columns, 4);
        quantized_activation<float> all({.columns = columns, .group_size = 128, .max_tokens = tokens});
        quantized_activation<float> one({.columns = columns, .group_size = 128});
        std::vector<float> y(std::size_t(tokens * rows));
        std::vector<float> single(rows);
        deft::quantize_activation<float>({x.data(), {tokens, columns}}, all);
        deft::quantized_matmul<float>(all, w, absent, {y.data(), {tokens, rows}});
        for (index t = 0; t < tokens; ++t) {
            deft::quantize_activation<float>({x.data() + t * columns, {columns}}, one);
            deft::quantized_matmul<float>(one, w, absent, {single.data(), {1, rows}});
            CHECK(std::memcmp(single.data(), &y[std::size_t(t * rows)], std::size_t(rows) * sizeof(float)) == 0);
        }
    }
}

TEST_CASE("one quantised activation serves several matrices, without allocating", "[quantized_matmul]") {
    const index columns = 160;
    const layer<float> l4(20, columns, 4, 32, 5), l2(7, columns, 2, 32, 6);
    const prepared_weights<float> w4(l4.packed()), w2(l2.packed());
    const std::vector<float> x = normal_values<float>(9 * columns, 7);
    quantized_activation<float> a({.columns = columns, .group_size = 32, .max_tokens = 9});
    std::vector<float> y4(9 * 20), y2(9 * 7), z(9 * 20);
    const long before = allocations();
    deft::quantize_activation<float>({x.data(), {9, columns}}, a);
    deft::quantized_matmul<float>(a, w4, absent, {y4.data(), {9, 20}});
    deft::quantized_matmul<float>(a, w2, absent, {y2.data(), {9, 7}});
    deft::quantized_matmul<float>({x.data(), {9, columns}}, w4, absent, {z.data(), {9, 20}});
    CHECK(allocations() == before);

    // Eight bits per token are close to the exact product.
    double size = 0, worst = 0;
    for (std::size_t i = 0; i < z.size(); ++i) {
        size = std::max(size, double(std::abs(z[i])));
        worst = std::max(worst, double(std::abs(z[i] - y4[i])));
    }
    CHECK(worst < 0.02 * size);
    CHECK(worst > 0);

    const quantized_activation<float> copy(a); // independent
    deft::quantize_activation<float>({x.data() + columns, {8, columns}}, a);
    CHECK((a.tokens() == 8 && copy.tokens() == 9));
    std::vector<float> again(9 * 7);
    deft::quantized_matmul<float>(copy, w2, absent, {again.data(), {9, 7}});
    CHECK(again == y2);
}

TEST_CASE("groups of any length stay exact", "[quantized_matmul]") {
    // 70000 columns at their limits: the sum of 255 * 127 each does not fit 32 bits.
    const index columns = 70000;
    layer<double> l(1, columns, 8, 0, 8);
    std::fill(l.codes.begin(), l.codes.end(), std::uint8_t(255));
    l.scale = {1};
    l.pack();
    const std::vector<std::int64_t> zero{0};
    packed_weights<double> p = l.packed();
    p.zero_point = {zero.data(), {1, 1}};
    const prepared_weights<double> w(p);
    quantized_activation<double> a({.columns = columns});
    deft::quantize_activation(std::vector<double>(std::size_t(columns), 127.0), a);
    std::vector<double> y(1);
    deft::quantized_matmul<double>(a, w, absent, {y.data(), {1, 1}});
    CHECK(y[0] == 70000.0 * 127 * 255);

    bad_input bad("quantized_sums");
    std::int32_t* const acc = bad.output<std::int32_t>(1);
    CHECK(bad.rejects("length of a group", [&] { deft::quantized_sums(a, w, {acc, {1, 1, 1}}); }));
}

TEST_CASE("quantized_matmul rejects bad input", "[quantized_matmul]") {
    const layer<float> l(3, 64, 4, 32, 9);
    const prepared_weights<float> w(l.packed());
    const std::vector<float> data(512, 1.0f);
    const float* const p = data.data();
    quantized_activation<float> a({.columns = 64, .group_size = 32, .max_tokens = 4});
    deft::quantize_activation<float>({p, {2, 64}}, a);

    bad_input bad("quantized_matmul");
    float* const y = bad.output<float>(64);
    CHECK(bad.rejects("x", [&] { deft::quantized_matmul<float>({p, {2, 63}}, w, absent, {y, {2, 3}}); }));
    CHECK(bad.rejects("y", [&] { deft::quantized_matmul<float>({p, {2, 64}}, w, absent, {y, {1, 3}}); }));
    CHECK(bad.rejects("y", [&] { deft::quantized_matmul<float>({p, {2, 64}}, w, absent, {y, {2, 4}}); }));
    CHECK(bad.rejects("bias", [&] { deft::quantized_matmul<float>({p, {2, 64}}, w, {p, {2}}, {y, {2, 3}}); }));
    CHECK(bad.rejects("y", [&] { deft::quantized_matmul<float>(a, w, absent, {y, {3, 3}}); }));
    CHECK(bad.rejects("bias", [&] { deft::quantized_matmul<float>(a, w, {p, {4}}, {y, {2, 3}}); }));
    for (const index group : {0, 64}) {
        const quantized_activation<float> other({.columns = 64, .group_size = group});
        CHECK(bad.rejects("group_size", [&] { deft::quantized_matmul<float>(other, w, absent, {y, {0, 3}}); }));
    }
    const quantized_activation<float> narrow({.columns = 32, .group_size = 32});
    CHECK(bad.rejects("columns", [&] { deft::quantized_matmul<float>(narrow, w, absent, {y, {0, 3}}); }));

    bad_input bad_sums("quantized_sums");
    std::int32_t* const acc = bad_sums.output<std::int32_t>(64);
    CHECK(bad_sums.rejects("acc", [&] { deft::quantized_sums(a, w, {acc, {1, 3, 2}}); }));
    CHECK(bad_sums.rejects("acc", [&] { deft::quantized_sums(a, w, {acc, {2, 2, 2}}); }));
    CHECK(bad_sums.rejects("acc", [&] { deft::quantized_sums(a, w, {acc, {2, 3, 1}}); }));
}

TEST_CASE("quantized_activation rejects bad input", "[quantized_matmul]") {
    bad_input bad("quantized_activation");
    const auto make = [](const activation_quantization& options) {
        return [=] { quantized_activation<float> none(options); };
    };
    CHECK(bad.rejects("bits", make({.columns = 8, .bits = 16})));
    CHECK(bad.rejects("bits", make({.columns = 8, .bits = 2})));
    CHECK(bad.rejects("columns", make({.columns = -1})));
    CHECK(bad.rejects("group_size", make({.columns = 8, .group_size = -32})));
    CHECK(bad.rejects("max_tokens", make({.columns = 8, .max_tokens = -1})));
    CHECK(bad.rejects("group_size", make({.columns = 8, .scales = activation_granularity::group})));

    const std::vector<float> x(64, 1.0f);
    bad_input quantize("quantize_activation");
    quantized_activation<float> a({.columns = 8, .max_tokens = 2});
    quantized_activation<float> wide({.columns = 8, .range = code_range::asymmetric});
    const auto step = [&](float scale, int zero, quantized_activation<float>& to) {
        return [=, &x, &to] {
            deft::quantize_activation<float>({x.data(), {1, 8}}, {.scale = scale, .zero_point = zero}, to);
        };
    };
    CHECK(quantize.rejects("x", [&] { deft::quantize_activation<float>({x.data(), {2, 7}}, a); }));
    CHECK(quantize.rejects("max_tokens", [&] { deft::quantize_activation<float>({x.data(), {3, 8}}, a); }));
    CHECK(quantize.rejects("scale", step(0.0f, 0, a)));
    CHECK(quantize.rejects("scale", step(-1.0f, 0, a)));
    CHECK(quantize.rejects("scale", step(std::numeric_limits<float>::infinity(), 0, a)));
    CHECK(quantize.rejects("zero_point", step(1.0f, 1, a)));
    CHECK(quantize.rejects("zero_point", step(1.0f, 256, wide)));
    CHECK(quantize.rejects("zero_point", step(1.0f, -1, wide)));
    CHECK(a.tokens() == 0); // nothing was written
}

} // namespace deft::testing

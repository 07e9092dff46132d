#include "support/allocations.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/quantization/packed_weights.hpp>
#include <deft/quantization/prepared_weights.hpp>
#include <deft/reference/quantization/packed_weights.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace deft::testing {

namespace {

using bytes = std::vector<std::uint8_t>;

bytes packed(const bytes& codes, const packing& options) {
    const index columns = index(codes.size());
    bytes to(std::size_t(kernels::packed_row_bytes(columns, options.bits, options.order)), 0xff);
    deft::pack_codes({codes.data(), {1, columns}}, {to.data(), {1, index(to.size())}}, options);
    return to;
}

bytes random_codes(random_values& random, index count, int bits) {
    const std::vector<double> values = random.integers({count}, 0, (1 << bits) - 1).values;
    return {values.begin(), values.end()};
}

} // namespace

TEST_CASE("codes stand where the orders say", "[packed_weights]") {
    CHECK(packed({1, 2, 3}, {.bits = 4}) == bytes{0x21, 0x03});
    CHECK(packed({1, 2, 3, 0, 2}, {.bits = 2}) == bytes{0x39, 0x02});
    CHECK(packed({255, 0, 17}, {.bits = 8}) == bytes{255, 0, 17});

    bytes ramp(32);
    for (std::size_t i = 0; i < 32; ++i)
        ramp[i] = std::uint8_t(i % 16);
    const bytes nibbles = packed(ramp, {.bits = 4, .order = code_order::block32});
    REQUIRE(nibbles.size() == 16);
    for (std::size_t i = 0; i < 16; ++i)
        CHECK(nibbles[i] == i * 0x11); // code i low, code i + 16 high
    const bytes quarters = packed({0, 1, 2, 3}, {.bits = 2, .order = code_order::block32});
    CHECK(quarters == bytes{0, 1, 2, 3, 0, 0, 0, 0}); // padded to 32 codes
}

TEST_CASE("dequantised weights are scale times code less zero point", "[packed_weights]") {
    random_values random(1);
    for (const int bits : {2, 4, 8})
        for (const index group : {0, 1, 7, 32, 300, 1000})
            for (const code_order order : {code_order::linear, code_order::block32}) {
                CAPTURE(bits, group, int(order));
                const packed_format f{3, 613, bits, group, order};
                const bytes codes = random_codes(random, f.rows * f.columns, bits);
                bytes data(std::size_t(f.rows * f.row_bytes()));
                deft::pack_codes({codes.data(), {3, 613}}, {data.data(), {3, f.row_bytes()}},
                                 {.bits = bits, .order = order});
                const std::vector<double> scale = random.normal({3, f.groups()}).values;
                std::vector<std::int64_t> zero;
                for (index i = 0; i < 3 * f.groups(); ++i)
                    zero.push_back(random.integer(0, (1 << bits) - 1));
                const view<const double, 2> scales(scale.data(), {3, f.groups()});
                const view<const std::int64_t, 2> zeros(zero.data(), {3, f.groups()});
                std::vector<double> w(3 * 613), expected(3 * 613);
                const view<double, 2> to(w.data(), {3, 613});
                deft::dequantize_codes({{data.data(), {3, f.row_bytes()}}, scales, zeros, f}, to);
                reference::dequantize_codes<double>({data.data(), {3, f.row_bytes()}}, scales, zeros,
                                                    {expected.data(), {3, 613}}, bits, group,
                                                    order == code_order::block32);
                CHECK(w == expected);
            }
}

TEST_CASE("an absent zero point is the middle of the range", "[packed_weights]") {
    const bytes data{0x80, 0xf1};
    const std::vector<float> scale{0.5f};
    std::vector<float> w(4);
    deft::dequantize_codes({{data.data(), {1, 2}}, {scale.data(), {1, 1}}, absent, {1, 4}},
                           view<float, 2>(w.data(), {1, 4}));
    CHECK(w == std::vector<float>{-4, 0, -3.5f, 3.5f});
}

TEST_CASE("the kernel layout loses nothing", "[packed_weights]") {
    random_values random(2);
    for (const int bits : {2, 4, 8})
        for (const index rows : {1, 8, 15, 16, 37})
            for (const index columns : {0, 1, 31, 64, 100, 1100})
                for (const index group : {0, 1, 24, 32, 128, 700}) {
                    if (group == 1 && columns > 100)
                        continue;
                    CAPTURE(bits, rows, columns, group);
                    const packed_format f{rows, columns, bits, group, code_order::linear};
                    const bytes codes = random_codes(random, rows * columns, bits);
                    bytes data(std::size_t(rows * f.row_bytes()));
                    deft::pack_codes({codes.data(), {rows, columns}}, {data.data(), {rows, f.row_bytes()}},
                                     {.bits = bits});
                    const std::vector<double> numbers = random.normal({rows, f.groups()}).values;
                    const std::vector<float> scale(numbers.begin(), numbers.end());
                    std::vector<std::int64_t> zero;
                    for (index i = 0; i < rows * f.groups(); ++i)
                        zero.push_back(random.integer(0, (1 << bits) - 1));
                    const shape<2> groups{rows, f.groups()};
                    const prepared_weights<float> w(
                        {{data.data(), {rows, f.row_bytes()}}, {scale.data(), groups}, {zero.data(), groups}, f});
                    bytes data_again(data.size(), 0xff);
                    std::vector<float> scale_again(scale.size());
                    std::vector<std::int64_t> zero_again(zero.size());
                    w.unpack({data_again.data(), {rows, f.row_bytes()}}, {scale_again.data(), groups},
                             {zero_again.data(), groups});
                    CHECK(data_again == data);
                    CHECK(scale_again == scale);
                    CHECK(zero_again == zero);
                    // Out in the other order, and in again.
                    packed_format g = f;
                    g.order = code_order::block32;
                    bytes blocks(std::size_t(rows * g.row_bytes()), 0xff);
                    w.unpack({blocks.data(), {rows, g.row_bytes()}}, {scale_again.data(), groups}, absent, g.order);
                    const prepared_weights<float> from_blocks(
                        {{blocks.data(), {rows, g.row_bytes()}}, {scale.data(), groups}, {zero.data(), groups}, g});
                    from_blocks.unpack({data_again.data(), {rows, f.row_bytes()}}, {scale_again.data(), groups},
                                       {zero_again.data(), groups});
                    CHECK(data_again == data);
                }
}

TEST_CASE("blocks of ggml keep their values", "[packed_weights]") {
    // q4_0: d = -0.5 (0xb800), then nibbles: weight i low, weight i + 16 high; w = d (u - 8).
    bytes block{0x00, 0xb8};
    for (int i = 0; i < 16; ++i)
        block.push_back(std::uint8_t(i | (15 - i) << 4));
    bytes codes(32);
    std::vector<float> scale(2), w(64);
    bytes two(block);
    block[0] = 0x01; // the least subnormal, 2^-24
    block[1] = 0x00;
    two.insert(two.end(), block.begin(), block.end());
    deft::import_q4_0({two.data(), {1, 36}}, {codes.data(), {1, 32}}, {scale.data(), {1, 2}});
    CHECK(scale == std::vector<float>{-0.5f, 0x1p-24f});
    deft::dequantize_codes(
        {{codes.data(), {1, 32}}, {scale.data(), {1, 2}}, absent, {1, 64, 4, 32, code_order::block32}},
        view<float, 2>(w.data(), {1, 64}));
    for (int i = 0; i < 16; ++i) {
        CHECK(w[std::size_t(i)] == -0.5f * float(i - 8));
        CHECK(w[std::size_t(16 + i)] == -0.5f * float(15 - i - 8));
        CHECK(w[std::size_t(32 + i)] == 0x1p-24f * float(i - 8));
    }

    // q8_0: d = 65504 (0x7bff), then signed bytes.
    bytes wide{0xff, 0x7b};
    for (int i = 0; i < 32; ++i)
        wide.push_back(std::uint8_t(i * 8 - 128));
    deft::import_q8_0({wide.data(), {1, 34}}, {codes.data(), {1, 32}}, {scale.data(), {1, 1}});
    CHECK(scale[0] == 65504.0f);
    deft::dequantize_codes({{codes.data(), {1, 32}}, {scale.data(), {1, 1}}, absent, {1, 32, 8, 32}},
                           view<float, 2>(w.data(), {1, 32}));
    for (int i = 0; i < 32; ++i)
        CHECK(w[std::size_t(i)] == 65504.0f * float(i * 8 - 128));

    const auto value = [](int bits) {
        const std::uint8_t pair[] = {std::uint8_t(bits & 255), std::uint8_t(bits >> 8)};
        return kernels::binary16_value(pair);
    };
    CHECK(value(0x3c00) == 1.0f);
    CHECK(value(0x03ff) == 1023 * 0x1p-24f);
    CHECK(value(0xfc00) == -std::numeric_limits<float>::infinity());
    CHECK(std::isnan(value(0x7e00)));
    CHECK(std::signbit(value(0x8000)));
}

TEST_CASE("packing rejects bad input", "[packed_weights]") {
    const bytes codes(64, 3);
    const std::vector<std::int64_t> wide{0, 3, 4, 1, -1, 0};
    const std::uint8_t* const p = codes.data();
    bad_input bad("pack_codes");
    std::uint8_t* const to = bad.output<std::uint8_t>(64);
    CHECK(bad.rejects("bits", [&] { deft::pack_codes({p, {2, 8}}, {to, {2, 4}}, {.bits = 3}); }));
    CHECK(bad.rejects("packed", [&] { deft::pack_codes({p, {2, 8}}, {to, {2, 3}}, {.bits = 4}); }));
    CHECK(bad.rejects("packed", [&] { deft::pack_codes({p, {2, 8}}, {to, {1, 4}}, {.bits = 4}); }));
    CHECK(bad.rejects("packed", [&] {
        deft::pack_codes({p, {2, 8}}, {to, {2, 4}}, {.bits = 4, .order = code_order::block32});
    }));
    CHECK(bad.rejects("code", [&] {
        deft::pack_codes<std::int64_t>({wide.data(), {1, 3}}, {to, {1, 1}}, {.bits = 2});
    }));
    CHECK(bad.rejects("code", [&] {
        deft::pack_codes<std::int64_t>({wide.data() + 3, {1, 3}}, {to, {1, 3}}, {.bits = 8});
    }));
    bad_input back("unpack_codes");
    std::uint8_t* const out = back.output<std::uint8_t>(64);
    CHECK(back.rejects("bits", [&] {
        deft::unpack_codes({p, {2, 4}}, view<std::uint8_t, 2>(out, {2, 8}), {.bits = 0});
    }));
    CHECK(back.rejects("packed", [&] { deft::unpack_codes({p, {2, 4}}, view<std::uint8_t, 2>(out, {2, 9})); }));
    bad_input import("import_q4_0");
    std::uint8_t* const nibbles = import.output<std::uint8_t>(64);
    float* const scale = import.output<float>(4);
    CHECK(import.rejects("blocks", [&] { deft::import_q4_0({p, {1, 35}}, {nibbles, {1, 32}}, {scale, {1, 2}}); }));
    CHECK(import.rejects("codes", [&] { deft::import_q4_0({p, {1, 36}}, {nibbles, {1, 31}}, {scale, {1, 2}}); }));
    CHECK(import.rejects("scale", [&] { deft::import_q4_0({p, {1, 36}}, {nibbles, {1, 32}}, {scale, {2, 2}}); }));
}

TEST_CASE("weights that do not fit their format are rejected", "[packed_weights]") {
    const bytes data(256, 0x11);
    const std::vector<float> scale(16, 1.0f);
    std::vector<float> other(scale);
    const std::vector<std::int64_t> zero(16, 1);
    std::vector<std::int64_t> far(zero);
    const packed_format good{2, 64, 4, 32, code_order::linear};
    const auto weights = [&](packed_format f, index bytes, index groups, index zeros) {
        return packed_weights<float>{
            {data.data(), {2, bytes}}, {scale.data(), {2, groups}}, {zero.data(), {2, zeros}}, f};
    };
    bad_input bad("dequantize_codes");
    float* const w = bad.output<float>(128);
    bad_input bad_prepare("prepared_weights");
    const auto both = [&](const char* argument, const packed_weights<float>& p) {
        CHECK(bad.rejects(argument, [=] { deft::dequantize_codes(p, view<float, 2>(w, {2, 64})); }));
        CHECK(bad_prepare.rejects(argument, [=] { prepared_weights<float> none(p); }));
    };
    both("bits", weights({2, 64, 3, 32}, 32, 2, 2));
    both("group_size", weights({2, 64, 4, -1}, 32, 2, 2));
    both("columns", weights({2, -1, 4, 0}, 32, 2, 2));
    both("codes", weights(good, 31, 2, 2));
    both("codes", weights({3, 64, 4, 32}, 32, 2, 2));
    both("scale", weights(good, 32, 3, 2));
    both("zero_point", weights(good, 32, 2, 1));
    CHECK(bad.rejects("w", [&] { deft::dequantize_codes(weights(good, 32, 2, 2), view<float, 2>(w, {2, 63})); }));

    const auto prepare = [&] {
        prepared_weights<float> none({{data.data(), {2, 32}}, {other.data(), {2, 2}}, {far.data(), {2, 2}}, good});
    };
    CHECK_NOTHROW(prepare());
    for (const std::int64_t value : {-1, 16, 1 << 30}) {
        far[3] = value;
        CHECK(bad_prepare.rejects("zero_point", prepare));
    }
    far[3] = 15;
    for (const float value : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        other[2] = value;
        CHECK(bad_prepare.rejects("scale", prepare));
    }
    const prepared_weights<float> fine(weights(good, 32, 2, 2));
    bad_input bad_unpack("prepared_weights::unpack");
    std::uint8_t* const to = bad_unpack.output<std::uint8_t>(64);
    float* const scales = bad_unpack.output<float>(4);
    CHECK(bad_unpack.rejects("codes", [&] { fine.unpack({to, {2, 31}}, {scales, {2, 2}}, absent); }));
    CHECK(bad_unpack.rejects("scale", [&] { fine.unpack({to, {2, 32}}, {scales, {2, 1}}, absent); }));
}

} // namespace deft::testing

// unpack_codes and dequantize_codes of weight matrices.
#include "../support/suite.hpp"

#include <deft/quantization/packed_weights.hpp>
#include <deft/reference/quantization/packed_weights.hpp>

#include <cstdint>
#include <string>
#include <type_traits>

namespace deft::bench {
namespace {

buffer<std::uint8_t> random_bytes(index count) {
    return {count, [](std::uint8_t* to, index n) {
                std::minstd_rand generator(7);
                std::generate_n(to, n, [&] { return static_cast<std::uint8_t>(generator() >> 8); });
            }};
}

void unpack(suite& s, const packed_format& f, bool full) {
    const index count = f.rows * f.columns;
    const shape<2> size{f.rows, f.columns}, bytes{f.rows, f.row_bytes()};
    const bool block32 = f.order == code_order::block32;
    const std::string name = std::to_string(f.rows) + 'x' + std::to_string(f.columns) + "_b" + std::to_string(f.bits) +
                             (block32 ? "_block32" : "_linear");
    const auto packed = random_bytes(f.rows * f.row_bytes());
    const auto codes = output<std::uint8_t>(count);
    const double read = double(packed.size());
    s.compare({.op = "unpack_codes",
               .type = "u8",
               .shape = name,
               .work = {.items = double(count), .bytes = double(count) + read},
               .full = full})
        .naive(inputs{}, outputs{codes},
               [=]<class U>(U* to) {
                   reference::unpack_codes<U>({packed.data(), bytes}, {to, size}, f.bits, block32);
               })
        .add("deft",
             [=] { deft::unpack_codes(as(packed, bytes), as(codes, size), {.bits = f.bits, .order = f.order}); });

    const shape<2> groups{f.rows, f.groups()};
    const auto scale = uniform<float>(f.rows * f.groups(), 0.01f, 0.1f), w = output<float>(count);
    const buffer<std::int64_t> zero(
        f.rows * f.groups(), [=](std::int64_t* to, index n) { std::fill_n(to, n, std::int64_t(1) << (f.bits - 1)); });
    s.compare({.op = "dequantize_codes",
               .type = "f32",
               .shape = name + "_g" + std::to_string(f.group_size),
               .work = {.items = double(count), .bytes = sizeof(float) * double(count) + read},
               .full = full})
        .naive(inputs{scale}, outputs{w},
               [=]<class U>(const U* steps, U* to) {
                   reference::dequantize_codes<U>({packed.data(), bytes}, {steps, groups}, as(zero, groups), {to, size},
                                                  f.bits, f.group_size, block32);
               })
        .add("deft", [=] {
            deft::dequantize_codes<float>({as(packed, bytes), as(scale, groups), as(zero, groups), f}, as(w, size));
        });
}

} // namespace

void benchmark_pack_codes(suite& s) {
    for (const index rows : {4096, 11008})
        for (const int bits : {2, 4, 8})
            for (const code_order order : {code_order::linear, code_order::block32})
                unpack(s, {rows, 4096, bits, 128, order}, rows != 4096 || bits == 8);
}

} // namespace deft::bench

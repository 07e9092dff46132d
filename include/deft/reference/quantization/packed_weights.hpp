/// \file
/// Naive reference of packing: one code at a time, at the place that its definition gives.
#ifndef DEFT_REFERENCE_QUANTIZATION_PACKED_WEIGHTS_HPP
#define DEFT_REFERENCE_QUANTIZATION_PACKED_WEIGHTS_HPP

#include <deft/view.hpp>

#include <cstdint>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

struct code_position {
    index byte;
    int shift;
};

/// Of code k in its row. block32: 32 codes in 4 bits bytes; code j in byte j mod that.
inline code_position position_of_code(index k, int bits, bool block32) {
    const index per_byte = 8 / bits;
    if (!block32)
        return {k / per_byte, bits * static_cast<int>(k % per_byte)};
    const index block = k / 32, j = k % 32, stride = 32 / per_byte;
    return {block * stride + j % stride, bits * static_cast<int>(j / stride)};
}

/// codes [O, K], packed [O, row bytes].
template <class Code>
void pack_codes(view<const Code, 2> codes, view<std::uint8_t, 2> packed, int bits, bool block32) {
    for (index o = 0; o < packed.extent(0); ++o) {
        for (index i = 0; i < packed.extent(1); ++i)
            packed(o, i) = 0;
        for (index k = 0; k < codes.extent(1); ++k) {
            const code_position at = position_of_code(k, bits, block32);
            packed(o, at.byte) =
                static_cast<std::uint8_t>(packed(o, at.byte) | (static_cast<int>(codes(o, k)) << at.shift));
        }
    }
}

template <class Code>
void unpack_codes(view<const std::uint8_t, 2> packed, view<Code, 2> codes, int bits, bool block32) {
    for (index o = 0; o < codes.extent(0); ++o)
        for (index k = 0; k < codes.extent(1); ++k) {
            const code_position at = position_of_code(k, bits, block32);
            codes(o, k) = static_cast<Code>((packed(o, at.byte) >> at.shift) & ((1 << bits) - 1));
        }
}

/// w = scale (code - zero point) for codes [O, K]; group_size 0: one group.
template <class T>
void dequantize_codes(view<const std::uint8_t, 2> packed, in<T, 2> scale, view<const std::int64_t, 2> zero_point,
                      view<T, 2> w, int bits, index group_size, bool block32) {
    for (index o = 0; o < w.extent(0); ++o)
        for (index k = 0; k < w.extent(1); ++k) {
            const code_position at = position_of_code(k, bits, block32);
            const index g = group_size == 0 ? 0 : k / group_size;
            const int code = (packed(o, at.byte) >> at.shift) & ((1 << bits) - 1);
            w(o, k) = scale(o, g) * T(code - zero_point(o, g));
        }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

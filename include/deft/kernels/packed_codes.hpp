/// \file
/// Codes of 2, 4 or 8 bits in bytes: the two orders of files, and the order of the product kernels. C++17.
///
/// Everything here is lossless. Inputs and outputs must not overlap; nothing is aligned.
#ifndef DEFT_KERNELS_PACKED_CODES_HPP
#define DEFT_KERNELS_PACKED_CODES_HPP

#include <deft/config.hpp>

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace deft {

/// Where code k of a row is; P = 8 / bits.
///
/// - linear: in byte k / P, the first code in the low bits.
/// - block32: 32 codes in S = 32 / P bytes, code j of them in byte j mod S, at bit bits (j / S). With 4 bits the
/// nibbles
///   of ggml's q4_0.
enum class code_order : unsigned char { linear, block32 };

inline namespace DEFT_ISA {
namespace kernels {

inline constexpr index code_block = 32;

/// Bytes of a row of `columns` codes.
DEFT_ALWAYS_INLINE constexpr index packed_row_bytes(index columns, int bits, code_order order) noexcept {
    if (order == code_order::block32)
        columns = (columns + code_block - 1) / code_block * code_block;
    return (columns * bits + 7) / 8;
}

namespace detail {

template <int Bits>
struct code_places {
    static constexpr index per_byte = 8 / Bits, block_bytes = code_block / per_byte;
    static constexpr int mask = (1 << Bits) - 1;
};

template <int Bits, class Code>
DEFT_ALWAYS_INLINE void unpack_linear(const std::uint8_t* DEFT_RESTRICT from, index count,
                                      Code* DEFT_RESTRICT to) noexcept {
    using places = code_places<Bits>;
    const index whole = count / places::per_byte;
    for (index i = 0; i < whole; ++i)
        for (index p = 0; p < places::per_byte; ++p)
            to[i * places::per_byte + p] = static_cast<Code>((from[i] >> (Bits * p)) & places::mask);
    for (index k = whole * places::per_byte; k < count; ++k)
        to[k] = static_cast<Code>((from[whole] >> (Bits * (k % places::per_byte))) & places::mask);
}

template <int Bits, class Code>
DEFT_ALWAYS_INLINE void unpack_blocks(const std::uint8_t* DEFT_RESTRICT from, index count,
                                      Code* DEFT_RESTRICT to) noexcept {
    using places = code_places<Bits>;
    constexpr index s = places::block_bytes;
    for (; count >= code_block; count -= code_block, from += s, to += code_block)
        for (index p = 0; p < places::per_byte; ++p)
            for (index i = 0; i < s; ++i)
                to[p * s + i] = static_cast<Code>((from[i] >> (Bits * p)) & places::mask);
    for (index j = 0; j < count; ++j)
        to[j] = static_cast<Code>((from[j % s] >> (Bits * (j / s))) & places::mask);
}

template <int Bits, class Code>
DEFT_ALWAYS_INLINE void pack_row(const Code* from, index count, code_order order, std::uint8_t* to) noexcept {
    using places = code_places<Bits>;
    std::memset(to, 0, static_cast<std::size_t>(packed_row_bytes(count, Bits, order)));
    for (index k = 0; k < count; ++k) {
        const index block = k / code_block, j = k % code_block, s = places::block_bytes;
        const index byte = order == code_order::linear ? k / places::per_byte : block * s + j % s;
        const index place = order == code_order::linear ? k % places::per_byte : j / s;
        to[byte] = static_cast<std::uint8_t>(to[byte] | (static_cast<int>(from[k]) << (Bits * place)));
    }
}

} // namespace detail

/// f(std::integral_constant<int, bits>) for bits 2, 4 or 8.
template <class F>
DEFT_ALWAYS_INLINE void with_bits(int bits, F&& f) {
    DEFT_ASSERT(bits == 2 || bits == 4 || bits == 8);
    if (bits == 2)
        f(std::integral_constant<int, 2>());
    else if (bits == 4)
        f(std::integral_constant<int, 4>());
    else
        f(std::integral_constant<int, 8>());
}

/// `count` codes, each below 2^bits, to packed_row_bytes bytes; unused bits become 0.
template <class Code>
void pack_code_row(const Code* codes, index count, int bits, code_order order, std::uint8_t* packed) noexcept {
    with_bits(bits, [&](auto b) { detail::pack_row<b.value>(codes, count, order, packed); });
}

/// `count` codes from the start of a packed row.
template <class Code>
void unpack_code_row(const std::uint8_t* packed, index count, int bits, code_order order, Code* codes) noexcept {
    with_bits(bits, [&](auto b) {
        if (order == code_order::linear)
            detail::unpack_linear<b.value>(packed, count, codes);
        else
            detail::unpack_blocks<b.value>(packed, count, codes);
    });
}

/// The order of the product kernels: tiles of 16 rows, each a sequence of blocks of 32 columns, each a sequence of
/// lines of 64 bytes. Byte 4 i + j of line v is of row i; at bit bits p of it stands column 4 (v P + p) + j of the
/// block, P = 8 / bits.
struct tile_order {
    static constexpr index rows = 16, columns = code_block;

    static constexpr index block_bytes(int bits) noexcept {
        return rows * columns * bits / 8;
    }
    struct place {
        index byte;
        int shift;
    };
    /// Of a code within its block.
    static constexpr place find(index row, index column, int bits) noexcept {
        const index per_byte = 8 / bits, chunk = column / 4;
        return {4 * rows * (chunk / per_byte) + 4 * row + column % 4, bits * static_cast<int>(chunk % per_byte)};
    }
};

/// Puts `count` codes of one row, `count` at most 32, into a block, whose bits there were 0.
template <class Code>
void interleave_codes(const Code* codes, index count, index row, int bits, std::uint8_t* block) noexcept {
    for (index k = 0; k < count; ++k) {
        const tile_order::place at = tile_order::find(row, k, bits);
        block[at.byte] = static_cast<std::uint8_t>(block[at.byte] | (static_cast<int>(codes[k]) << at.shift));
    }
}

/// The inverse of interleave_codes.
template <class Code>
void deinterleave_codes(const std::uint8_t* block, index count, index row, int bits, Code* codes) noexcept {
    for (index k = 0; k < count; ++k) {
        const tile_order::place at = tile_order::find(row, k, bits);
        codes[k] = static_cast<Code>((block[at.byte] >> at.shift) & ((1 << bits) - 1));
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// y = x W^T + bias for codes in tile_order: products of integers, exact, and of numbers with codes. C++17.
///
/// Work is cut into tiles of 16 rows of W and blocks of tokens, which are independent. Nothing is aligned; memory
/// behind the activations is not read. Scratch is on the stack, less than 40 KB.
///
/// Columns come in segments: a group of columns that share scales, or a piece of one of at most 512 columns, so that
/// sums stay below 2^31 for any length of a group. A segment is some blocks of 32 columns, the last padded with codes
/// 0.
#ifndef DEFT_KERNELS_QUANTIZED_PRODUCT_HPP
#define DEFT_KERNELS_QUANTIZED_PRODUCT_HPP

#include <deft/kernels/packed_codes.hpp>
#include <deft/simd/code_rows.hpp>

#include <cstdint>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Blocks of a segment at most.
inline constexpr index segment_blocks = 16;
/// Tokens that share a pass over unpacked weights.
inline constexpr index token_block = 64;

/// A weight matrix. Behind the last row of the last tile everything is 0.
template <class T>
struct tiled_weights {
    const std::uint8_t* codes;        ///< [tiles][blocks] in tile_order
    const T* scale;                   ///< [tiles][segments][16]
    const std::uint8_t* zero;         ///< [tiles][segments][16]
    const std::int32_t* code_sums;    ///< [tiles][segments][16]: of the codes
    const std::int32_t* first_block;  ///< [segments + 1]
    const std::int32_t* first_column; ///< [segments + 1]
    index rows, blocks, segments;
    int bits;
    int common_zero; ///< of all rows and segments, or -1
};

/// Tokens as signed bytes: padded as the columns of W.
template <class T>
struct coded_activation {
    const std::int8_t* codes; ///< [tokens][32 blocks]
    const std::int32_t* sums; ///< [tokens][segments]: of codes less their zero point
    const T* scale;           ///< one per token, or one per token and segment
    const std::int32_t* zero; ///< likewise
    bool per_segment;
    bool has_zeros; ///< false: all zero points are 0
};

/// Where results go: y [tokens, rows], and a bias per row or null.
template <class T>
struct product_output {
    T* y;
    index stride;
    const T* bias;
};

namespace detail {

// How far ahead of the codes that are used memory is asked for: pages, and with them what the hardware foresees, end
// every 4 KB. 2 KB and 16 KB were slower out of the third cache and from memory, 8 KB was no faster.
inline constexpr index prefetch_bytes = 4096;

template <class T>
DEFT_ALWAYS_INLINE tiled_weights<T> at_tile(tiled_weights<T> w, index tile) noexcept {
    w.codes += tile * w.blocks * tile_order::block_bytes(w.bits);
    w.scale += tile * w.segments * tile_order::rows;
    w.zero += tile * w.segments * tile_order::rows;
    w.code_sums += tile * w.segments * tile_order::rows;
    return w;
}

// Vectors for the rows of a tile, and bytes of a line of all of them.
inline constexpr int row_vectors = static_cast<int>(tile_order::rows / simd::code_rows);
inline constexpr index line_bytes = 4 * tile_order::rows;

// A line of codes as they are stored, unpacked in registers. Codes of 8 bits may be two planes of 4 bits, whose
// products are exact in 16 bits, unlike those of a whole byte.
template <int Bits>
struct packed_codes {
    static constexpr int plane_bits = Bits < simd::product_bits ? Bits : simd::product_bits;
    static constexpr int planes = Bits / plane_bits;
    static constexpr int parts = 8 / Bits; // groups of four columns in a line
    static constexpr index block_bytes = tile_order::block_bytes(Bits);
    static constexpr bool is_streamed = true;

    DEFT_ALWAYS_INLINE packed_codes(const std::uint8_t* block, int line) noexcept {
        DEFT_UNROLL
        for (int r = 0; r < row_vectors; ++r)
            rows[r] = simd::load_codes(block + line_bytes * line + simd::code_bytes * r);
    }
    DEFT_ALWAYS_INLINE simd::code_vector get(int r, int part, int plane) const noexcept {
        return simd::extract<plane_bits>(rows[r], Bits * part + plane_bits * plane);
    }

    simd::code_vector rows[std::size_t(row_vectors)];
};

// The same, unpacked to a byte per code and plane beforehand.
template <int Planes>
struct unpacked_codes {
    static constexpr int planes = Planes;
    static constexpr int parts = 1;
    static constexpr index block_bytes = Planes * tile_order::rows * tile_order::columns;
    static constexpr bool is_streamed = false;

    DEFT_ALWAYS_INLINE unpacked_codes(const std::uint8_t* block, int line) noexcept
        : bytes(block + line_bytes * Planes * line) {}
    DEFT_ALWAYS_INLINE simd::code_vector get(int r, int, int plane) const noexcept {
        return simd::load_codes(bytes + line_bytes * plane + simd::code_bytes * r);
    }

    const std::uint8_t* bytes;
};

template <int Bits>
DEFT_ALWAYS_INLINE void unpack_block(const std::uint8_t* block, std::uint8_t* to) noexcept {
    using source = packed_codes<Bits>;
    DEFT_UNROLL
    for (int v = 0; v < 8 / source::parts; ++v) {
        const source codes(block, v);
        DEFT_UNROLL
        for (int part = 0; part < source::parts; ++part) {
            DEFT_UNROLL
            for (int plane = 0; plane < source::planes; ++plane, to += line_bytes) {
                DEFT_UNROLL
                for (int r = 0; r < row_vectors; ++r)
                    simd::store_codes(to + simd::code_bytes * r, codes.get(r, part, plane));
            }
        }
    }
}

// An integer per row of a tile, for each of some tokens.
template <int Tokens>
using tile_integers = simd::row_integers[std::size_t(Tokens)][std::size_t(row_vectors)];

// f(t, r) for the tokens and the vectors of rows.
template <int Tokens, class F>
DEFT_ALWAYS_INLINE void for_each_vector_of(F&& f) noexcept {
    DEFT_UNROLL
    for (int t = 0; t < Tokens; ++t) {
        DEFT_UNROLL
        for (int r = 0; r < row_vectors; ++r)
            f(t, r);
    }
}

// Sums over the columns of one block for Tokens tokens, `stride` bytes apart: sum[t][r] += products.
template <class Source, int Tokens>
DEFT_ALWAYS_INLINE void add_block(const std::uint8_t* block, const std::int8_t* a, index stride,
                                  tile_integers<Tokens>& sum) noexcept {
    constexpr int planes = Source::planes;
    simd::code_products products[std::size_t(planes)][std::size_t(Tokens)][std::size_t(row_vectors)];
    DEFT_UNROLL
    for (int plane = 0; plane < planes; ++plane)
        for_each_vector_of<Tokens>([&](int t, int r)
                                       DEFT_INLINE_LAMBDA { products[plane][t][r] = simd::no_products(); });
    if constexpr (Source::is_streamed)
        for (index i = 0; i < Source::block_bytes; i += 64)
            simd::prefetch(block + i + prefetch_bytes);
    DEFT_UNROLL
    for (int line = 0; line < 8 / Source::parts; ++line) {
        const Source codes(block, line);
        DEFT_UNROLL
        for (int part = 0; part < Source::parts; ++part) {
            const std::int8_t* const at = a + 4 * (line * Source::parts + part);
            DEFT_UNROLL
            for (int plane = 0; plane < planes; ++plane) {
                simd::code_vector u[std::size_t(row_vectors)];
                DEFT_UNROLL
                for (int r = 0; r < row_vectors; ++r)
                    u[r] = codes.get(r, part, plane);
                DEFT_UNROLL // not for_each_vector_of: g++ 12 then spills the products, 1.3 times the instructions
                for (int t = 0; t < Tokens; ++t) {
                    DEFT_UNROLL
                    for (int r = 0; r < row_vectors; ++r)
                        products[plane][t][r] = simd::add_products(products[plane][t][r], u[r], at + t * stride);
                }
            }
        }
    }
    DEFT_UNROLL
    for (int t = 0; t < Tokens; ++t) {
        DEFT_UNROLL
        for (int r = 0; r < row_vectors; ++r) {
            sum[t][r] = simd::add(sum[t][r], simd::widen<1>(products[0][t][r]));
            if constexpr (planes == 2)
                sum[t][r] = simd::add(sum[t][r], simd::widen<16>(products[1][t][r]));
        }
    }
}

// Segments [begin, end) of one tile, whose codes start at `codes`, for Tokens tokens from `token` on. Calls
// f(segment, sums) with the exact sums of (a - its zero point) (code - its zero point), in order. What most matrices do
// not need is decided once per segment: conditions per vector cost a fifth of the time for segments of 32 columns.
template <class Source, int Tokens, class T, class F>
DEFT_ALWAYS_INLINE void for_each_segment(const tiled_weights<T>& w, const std::uint8_t* codes,
                                         const coded_activation<T>& a, index token, index begin, index end,
                                         F&& f) noexcept {
    const index stride = w.blocks * code_block, segments = w.segments;
    const index first = w.first_block[begin];
    const std::int8_t* const base = a.codes + token * stride;
    const std::int32_t* const a_sums = a.sums + token * segments;
    const bool is_general = w.common_zero < 0 || a.has_zeros;
    const std::int32_t factor = w.common_zero < 0 ? 0 : -w.common_zero;
    for (index s = begin; s < end; ++s) {
        tile_integers<Tokens> sum;
        DEFT_UNROLL
        for (int t = 0; t < Tokens; ++t) {
            const simd::row_integers start = simd::broadcast(factor * a_sums[t * segments + s]);
            DEFT_UNROLL
            for (int r = 0; r < row_vectors; ++r)
                sum[t][r] = start;
        }
        for (index b = w.first_block[s]; b < w.first_block[s + 1]; ++b)
            add_block<Source, Tokens>(codes + (b - first) * Source::block_bytes, base + b * code_block, stride, sum);
        if (is_general)
            for_each_vector_of<Tokens>([&](int t, int r) DEFT_INLINE_LAMBDA {
                const index at = s * tile_order::rows + r * simd::code_rows;
                if (w.common_zero < 0)
                    sum[t][r] = simd::subtract_product(simd::load_rows(w.zero + at),
                                                       simd::broadcast(a_sums[t * segments + s]), sum[t][r]);
                const index step = a.per_segment ? (token + t) * segments + s : token + t;
                sum[t][r] =
                    simd::subtract_product(simd::load_rows(w.code_sums + at), simd::broadcast(a.zero[step]), sum[t][r]);
            });
        f(s, sum);
    }
}

// partial[t][row] += the sums of segments [begin, end), times their scales.
template <class Source, int Tokens, class T>
DEFT_ALWAYS_INLINE void add_segments(const tiled_weights<T>& w, const std::uint8_t* codes, const coded_activation<T>& a,
                                     index token, index begin, index end, T* partial) noexcept {
    const auto at = [](int t, int r) { return t * tile_order::rows + r * simd::code_rows; };
    simd::row_values<T> total[std::size_t(Tokens)][std::size_t(row_vectors)];
    for_each_vector_of<Tokens>([&](int t, int r)
                                   DEFT_INLINE_LAMBDA { total[t][r] = simd::load_rows(partial + at(t, r)); });
    for_each_segment<Source, Tokens>(
        w, codes, a, token, begin, end, [&](index s, const tile_integers<Tokens>& sum) DEFT_INLINE_LAMBDA {
            simd::row_values<T> scale[std::size_t(row_vectors)];
            DEFT_UNROLL
            for (int r = 0; r < row_vectors; ++r)
                scale[r] = simd::load_rows(w.scale + s * tile_order::rows + r * simd::code_rows);
            if (a.per_segment) {
                DEFT_UNROLL
                for (int t = 0; t < Tokens; ++t) {
                    const simd::row_values<T> own = simd::broadcast(a.scale[(token + t) * w.segments + s]);
                    DEFT_UNROLL
                    for (int r = 0; r < row_vectors; ++r)
                        total[t][r] = simd::multiply_add(simd::to_values<T>(sum[t][r]), simd::multiply(scale[r], own),
                                                         total[t][r]);
                }
            } else {
                DEFT_UNROLL
                for (int t = 0; t < Tokens; ++t) {
                    DEFT_UNROLL
                    for (int r = 0; r < row_vectors; ++r)
                        total[t][r] = simd::multiply_add(simd::to_values<T>(sum[t][r]), scale[r], total[t][r]);
                }
            }
        });
    for_each_vector_of<Tokens>([&](int t, int r)
                                   DEFT_INLINE_LAMBDA { simd::store_rows(partial + at(t, r), total[t][r]); });
}

// Tokens whose sums the registers hold, of which there are 16, or 32 with one vector for all rows.
template <class Source>
inline constexpr int tokens_at_once = row_vectors == 1 ? 8 : 4 / Source::planes;

// f(integral_constant Tokens, first) for the pieces of `count` tokens; Most is a power of two.
template <int Most, class F>
DEFT_ALWAYS_INLINE void for_each_tokens(index count, F&& f) {
    index t = 0;
    for (; t + Most <= count; t += Most)
        f(std::integral_constant<int, Most>(), t);
    if constexpr (Most > 1)
        for_each_tokens<Most / 2>(count - t,
                                  [&](auto tokens, index first) DEFT_INLINE_LAMBDA { f(tokens, t + first); });
}

// The last step: y = partial * scale + bias for the rows of a tile that exist.
template <class T>
DEFT_ALWAYS_INLINE void finish(const T* partial, T scale, const product_output<T>& out, index token, index row,
                               index rows) noexcept {
    T* const y = out.y + token * out.stride + row;
    const index count = rows - row < tile_order::rows ? rows - row : tile_order::rows;
    for (index i = 0; i < count; ++i)
        y[i] = partial[i] * scale + (out.bias == nullptr ? T(0) : out.bias[row + i]);
}

} // namespace detail

/// Rows of tile `tile` of y for `tokens` tokens from `token` on, at most token_block.
template <class T>
void coded_product(const tiled_weights<T>& weights, const coded_activation<T>& a, index tile, index token, index tokens,
                   const product_output<T>& out) noexcept {
    using namespace detail;
    DEFT_ASSERT(tokens <= token_block);
    const tiled_weights<T> w = at_tile(weights, tile);
    alignas(64) T partial[std::size_t(token_block * tile_order::rows)];
    for (index i = 0; i < tokens * tile_order::rows; ++i)
        partial[i] = T(0);
    with_bits(w.bits, [&](auto bits) DEFT_INLINE_LAMBDA {
        using packed = packed_codes<bits.value>;
        using unpacked = unpacked_codes<packed::planes>;
        constexpr int most = tokens_at_once<packed>;
        if (tokens <= most) {
            for_each_tokens<most>(tokens, [&](auto count, index t) DEFT_INLINE_LAMBDA {
                add_segments<packed, count.value>(w, w.codes, a, token + t, 0, w.segments,
                                                  partial + t * tile_order::rows);
            });
            return;
        }
        alignas(64) std::uint8_t codes[std::size_t(segment_blocks * unpacked::block_bytes)];
        for (index begin = 0; begin < w.segments;) {
            index end = begin + 1;
            while (end < w.segments && w.first_block[end + 1] - w.first_block[begin] <= segment_blocks)
                ++end;
            const index first = w.first_block[begin], last = w.first_block[end];
            for (index b = first; b < last; ++b)
                unpack_block<bits.value>(w.codes + b * packed::block_bytes,
                                         codes + (b - first) * unpacked::block_bytes);
            for_each_tokens<most>(tokens, [&](auto count, index t) DEFT_INLINE_LAMBDA {
                add_segments<unpacked, count.value>(w, codes, a, token + t, begin, end, partial + t * tile_order::rows);
            });
            begin = end;
        }
    });
    for (index t = 0; t < tokens; ++t)
        finish(partial + t * tile_order::rows, a.per_segment ? T(1) : a.scale[token + t], out, token + t,
               tile * tile_order::rows, w.rows);
}

/// The exact sums alone, of one token: sums[segment][16] of tile `tile`.
template <class T>
void coded_sums(const tiled_weights<T>& weights, const coded_activation<T>& a, index tile, index token, index segment,
                std::int32_t* sums) noexcept {
    using namespace detail;
    const tiled_weights<T> w = at_tile(weights, tile);
    with_bits(w.bits, [&](auto bits) DEFT_INLINE_LAMBDA {
        using packed = packed_codes<bits.value>;
        for_each_segment<packed, 1>(w, w.codes + w.first_block[segment] * packed::block_bytes, a, token, segment,
                                    segment + 1, [&](index, const tile_integers<1>& sum) DEFT_INLINE_LAMBDA {
                                        for (int r = 0; r < row_vectors; ++r)
                                            simd::store_rows(sums + r * simd::code_rows, sum[0][r]);
                                    });
    });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// y = x W^T + bias for numbers x and codes in tile_order, which become numbers on the way. C++17.
///
/// The contract is that of quantized_product.hpp. Nothing behind a row of x is read.
#ifndef DEFT_KERNELS_WEIGHT_ONLY_PRODUCT_HPP
#define DEFT_KERNELS_WEIGHT_ONLY_PRODUCT_HPP

#include <deft/kernels/quantized_product.hpp>
#include <deft/kernels/tile_product.hpp>

#include <cstdint>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {
namespace detail {

// A number per row of a tile.
template <class T>
using tile_values = simd::row_values<T>[std::size_t(row_vectors)];

// Calls f(column of the block, values of all rows) with code less zero point, exact.
template <int Bits, class T, class F>
DEFT_ALWAYS_INLINE void for_each_column(const std::uint8_t* block, const tile_values<T>& zero, F&& f) noexcept {
    using source = packed_codes<Bits>;
    DEFT_UNROLL
    for (int line = 0; line < 8 / source::parts; ++line) {
        const source codes(block, line);
        DEFT_UNROLL
        for (int part = 0; part < source::parts; ++part) {
            DEFT_UNROLL
            for (int j = 0; j < 4; ++j) {
                tile_values<T> value;
                DEFT_UNROLL
                for (int r = 0; r < row_vectors; ++r)
                    value[r] = simd::subtract(
                        simd::to_values<T>(simd::column<Bits>(codes.rows[r], 8 * j + Bits * part)), zero[r]);
                f(4 * (line * source::parts + part) + j, value);
            }
        }
    }
}

// One token: chains of sums side by side, enough to hide the latency of one.
template <int Bits, class T>
DEFT_ALWAYS_INLINE void multiply_token(const tiled_weights<T>& w, const T* x, T* y) noexcept {
    constexpr index rows = tile_order::rows, block_bytes = packed_codes<Bits>::block_bytes;
    constexpr int chains = 8 / row_vectors;
    alignas(64) T padded[std::size_t(code_block)];
    for (index s = 0; s < w.segments; ++s) {
        tile_values<T> zero, sum[std::size_t(chains)];
        for (int r = 0; r < row_vectors; ++r) {
            zero[r] = simd::to_values<T>(simd::load_rows(w.zero + s * rows + r * simd::code_rows));
            for (int c = 0; c < chains; ++c)
                sum[c][r] = simd::broadcast(T(0));
        }
        for (index b = w.first_block[s]; b < w.first_block[s + 1]; ++b) {
            const std::uint8_t* const block = w.codes + b * block_bytes;
            for (index i = 0; i < block_bytes; i += 64)
                simd::prefetch(block + i + prefetch_bytes);
            const index column = w.first_column[s] + (b - w.first_block[s]) * code_block;
            const index count = w.first_column[s + 1] - column;
            const T* at = x + column;
            if (count < code_block) {
                for (index k = 0; k < code_block; ++k)
                    padded[k] = k < count ? at[k] : T(0);
                at = padded;
            }
            for_each_column<Bits, T>(block, zero, [&](int k, const tile_values<T>& value) DEFT_INLINE_LAMBDA {
                const simd::row_values<T> factor = simd::broadcast(at[k]);
                DEFT_UNROLL
                for (int r = 0; r < row_vectors; ++r)
                    sum[k % chains][r] = simd::multiply_add(value[r], factor, sum[k % chains][r]);
            });
        }
        for (int r = 0; r < row_vectors; ++r) {
            const simd::row_values<T> scale = simd::load_rows(w.scale + s * rows + r * simd::code_rows);
            T* const to = y + r * simd::code_rows;
            simd::row_values<T> total = sum[0][r];
            for (int c = 1; c < chains; ++c)
                total = simd::add(total, sum[c][r]);
            simd::store_rows(to, simd::multiply_add(total, scale, simd::load_rows(to)));
        }
    }
}

// Rows of a tile for many tokens: panels of the ordinary product, one or more side by side, none wider than a tile.
template <class T>
struct number_panels {
    using arch = simd::default_arch;
    using shape = tile_shape<arch, T>;
    static constexpr int vectors = shape::panel_columns > tile_order::rows ? 1 : shape::vectors;
    static constexpr index width = vectors * shape::width, depth = shape::depth_block;
    static constexpr index tokens = shape::rows_for(token_block);
    static_assert(tile_order::rows % width == 0);
};

// Puts rows `row` .. row + code_rows - 1 of a column, whose first panel is at `to`, into their panels.
template <class T>
DEFT_ALWAYS_INLINE void store_column(const simd::row_values<T>& values, index row, T* to) noexcept {
    constexpr index rows = simd::code_rows, width = number_panels<T>::width, size = width * number_panels<T>::depth;
    if constexpr (width >= rows) {
        simd::store_rows(to + row / width * size + row % width, values);
    } else {
        T value[std::size_t(rows)];
        simd::store_rows(value, values);
        for (index i = 0; i < rows; ++i)
            to[(row + i) / width * size + (row + i) % width] = value[i];
    }
}

// Several tokens: columns become numbers in the first cache, which all tokens share. y is [tokens][tile_order::rows].
template <int Bits, class T>
DEFT_ALWAYS_INLINE void multiply_tokens(const tiled_weights<T>& w, const strided_matrix<const T>& x, index tokens,
                                        T* y) noexcept {
    using panels = number_panels<T>;
    constexpr index rows = tile_order::rows, width = panels::width;
    alignas(64) T numbers[std::size_t(panels::depth * rows)];
    const auto multiply = [&](index first, index count) DEFT_INLINE_LAMBDA {
        for (index j = 0; j < rows; j += width)
            multiply_panel<typename panels::arch, T, panels::vectors>(
                x.at(0, first), tokens, numbers + j * panels::depth, count, true, y + j, rows);
    };
    index first = 0, column = 0; // of those in `numbers`, and behind them
    for (index s = 0; s < w.segments; ++s) {
        tile_values<T> zero, scale;
        for (int r = 0; r < row_vectors; ++r) {
            zero[r] = simd::to_values<T>(simd::load_rows(w.zero + s * rows + r * simd::code_rows));
            scale[r] = simd::load_rows(w.scale + s * rows + r * simd::code_rows);
        }
        for (index b = w.first_block[s]; b < w.first_block[s + 1]; ++b) {
            if (column - first + code_block > panels::depth) {
                multiply(first, column - first);
                first = column;
            }
            T* const to = numbers + (column - first) * width;
            for_each_column<Bits, T>(w.codes + b * packed_codes<Bits>::block_bytes, zero,
                                     [&](int k, const tile_values<T>& value) DEFT_INLINE_LAMBDA {
                                         DEFT_UNROLL
                                         for (int r = 0; r < row_vectors; ++r)
                                             store_column(simd::multiply(value[r], scale[r]), r * simd::code_rows,
                                                          to + k * width);
                                     });
            // What is behind the end of a segment is overwritten.
            column += w.first_column[s + 1] - column < code_block ? w.first_column[s + 1] - column : code_block;
        }
    }
    multiply(first, column - first);
}

} // namespace detail

/// Rows of tile `tile` of y for `tokens` rows of x, `stride` apart, from `token` on; at most token_block.
template <class T>
void weight_only_product(const tiled_weights<T>& weights, const T* x, index stride, index tile, index token,
                         index tokens, const product_output<T>& out) noexcept {
    using panels = detail::number_panels<T>;
    DEFT_ASSERT(tokens <= token_block);
    const tiled_weights<T> w = detail::at_tile(weights, tile);
    alignas(64) T y[std::size_t(panels::tokens * tile_order::rows)];
    const index height = panels::shape::rows_for(tokens); // rows behind the last are computed too
    for (index i = 0; i < height * tile_order::rows; ++i)
        y[i] = T(0);
    with_bits(w.bits, [&](auto bits) DEFT_INLINE_LAMBDA {
        if (tokens == 1)
            detail::multiply_token<bits.value>(w, x + token * stride, y);
        else
            detail::multiply_tokens<bits.value>(w, strided_matrix<const T>{x + token * stride, stride, 1}, tokens, y);
    });
    for (index t = 0; t < tokens; ++t)
        detail::finish(y + t * tile_order::rows, T(1), out, token + t, tile * tile_order::rows, w.rows);
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

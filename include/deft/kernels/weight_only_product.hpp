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

// Calls f(column of the block, {lower 8 rows, upper 8 rows}) with code less zero point, exact.
template <int Bits, class T, class F>
DEFT_ALWAYS_INLINE void for_each_column(const std::uint8_t* block, const simd::row_values<T> (&zero)[2],
                                        F&& f) noexcept {
    using source = packed_codes<Bits>;
    DEFT_UNROLL
    for (int v = 0; v < 8 / source::parts; ++v) {
        const source codes(block, v);
        DEFT_UNROLL
        for (int part = 0; part < source::parts; ++part) {
            DEFT_UNROLL
            for (int j = 0; j < 4; ++j) {
                simd::row_values<T> value[2];
                DEFT_UNROLL
                for (int half = 0; half < 2; ++half)
                    value[half] = simd::subtract(
                        simd::to_values<T>(simd::column<Bits>(codes.halves[half], 8 * j + Bits * part)), zero[half]);
                f(4 * (v * source::parts + part) + j, value);
            }
        }
    }
}

// One token: chains of sums side by side, enough to hide the latency of one.
template <int Bits, class T>
DEFT_ALWAYS_INLINE void multiply_token(const tiled_weights<T>& w, const T* x, T* y) noexcept {
    constexpr index rows = tile_order::rows, lanes = tile_order::lanes;
    constexpr index block_bytes = packed_codes<Bits>::block_bytes;
    constexpr int chains = 4;
    alignas(64) T padded[std::size_t(code_block)];
    for (index s = 0; s < w.segments; ++s) {
        simd::row_values<T> zero[2], sum[std::size_t(chains)][2];
        for (int half = 0; half < 2; ++half) {
            zero[half] = simd::to_values<T>(simd::load_rows(w.zero + s * rows + half * lanes));
            for (int c = 0; c < chains; ++c)
                sum[c][half] = simd::broadcast(T(0));
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
            for_each_column<Bits, T>(block, zero, [&](int k, const simd::row_values<T>(&value)[2]) DEFT_INLINE_LAMBDA {
                simd::row_values<T>(&to)[2] = sum[k % chains];
                const simd::row_values<T> factor = simd::broadcast(at[k]);
                to[0] = simd::multiply_add(value[0], factor, to[0]);
                to[1] = simd::multiply_add(value[1], factor, to[1]);
            });
        }
        for (int half = 0; half < 2; ++half) {
            const simd::row_values<T> scale = simd::load_rows(w.scale + s * rows + half * lanes);
            T* const to = y + half * lanes;
            simd::row_values<T> total = sum[0][half];
            for (int c = 1; c < chains; ++c)
                total = simd::add(total, sum[c][half]);
            simd::store_rows(to, simd::multiply_add(total, scale, simd::load_rows(to)));
        }
    }
}

// Rows of a tile for many tokens, `stride` apart: panels of the ordinary product, one or more side by side.
template <class T>
struct number_panels {
    using arch = simd::default_arch;
    using shape = tile_shape<arch, T>;
    static constexpr index width = shape::panel_columns, depth = shape::depth_block;
    static constexpr index stride = tile_order::rows > width ? tile_order::rows : width;
    static constexpr index tokens = shape::rows_for(token_block);
};

// Puts rows `row` .. row + 7 of a column, whose first panel is at `to`, into their panels.
template <class T>
DEFT_ALWAYS_INLINE void store_column(const simd::row_values<T>& values, index row, T* to) noexcept {
    constexpr index lanes = tile_order::lanes, width = number_panels<T>::width, size = width * number_panels<T>::depth;
    if constexpr (width >= lanes) {
        simd::store_rows(to + row / width * size + row % width, values);
    } else {
        T rows[std::size_t(lanes)];
        simd::store_rows(rows, values);
        for (index i = 0; i < lanes; ++i)
            to[(row + i) / width * size + (row + i) % width] = rows[i];
    }
}

// Several tokens: columns become numbers in the first cache, which all tokens share. y is [tokens][panels::stride].
template <int Bits, class T>
DEFT_ALWAYS_INLINE void multiply_tokens(const tiled_weights<T>& w, const strided_matrix<const T>& x, index tokens,
                                        T* y) noexcept {
    using panels = number_panels<T>;
    constexpr index rows = tile_order::rows, lanes = tile_order::lanes, width = panels::width;
    alignas(64) T numbers[std::size_t(panels::depth * panels::stride)];
    if constexpr (width > rows)
        for (T& number : numbers)
            number = T(0);
    const auto multiply = [&](index first, index count) DEFT_INLINE_LAMBDA {
        for (index j = 0; j < rows; j += width)
            multiply_panel<typename panels::arch>(x.at(0, first), tokens, numbers + j * panels::depth, count, true,
                                                  y + j, panels::stride);
    };
    index first = 0, column = 0; // of those in `numbers`, and behind them
    for (index s = 0; s < w.segments; ++s) {
        simd::row_values<T> zero[2], scale[2];
        for (int half = 0; half < 2; ++half) {
            zero[half] = simd::to_values<T>(simd::load_rows(w.zero + s * rows + half * lanes));
            scale[half] = simd::load_rows(w.scale + s * rows + half * lanes);
        }
        for (index b = w.first_block[s]; b < w.first_block[s + 1]; ++b) {
            if (column - first + code_block > panels::depth) {
                multiply(first, column - first);
                first = column;
            }
            T* const to = numbers + (column - first) * width;
            for_each_column<Bits, T>(w.codes + b * packed_codes<Bits>::block_bytes, zero,
                                     [&](int k, const simd::row_values<T>(&value)[2]) DEFT_INLINE_LAMBDA {
                                         store_column(simd::multiply(value[0], scale[0]), 0, to + k * width);
                                         store_column(simd::multiply(value[1], scale[1]), lanes, to + k * width);
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
    alignas(64) T y[std::size_t(panels::tokens * panels::stride)];
    const index height = panels::shape::rows_for(tokens); // rows behind the last are computed too
    for (index i = 0; i < height * panels::stride; ++i)
        y[i] = T(0);
    with_bits(w.bits, [&](auto bits) DEFT_INLINE_LAMBDA {
        if (tokens == 1)
            detail::multiply_token<bits.value>(w, x + token * stride, y);
        else
            detail::multiply_tokens<bits.value>(w, strided_matrix<const T>{x + token * stride, stride, 1}, tokens, y);
    });
    for (index t = 0; t < tokens; ++t)
        detail::finish(y + t * panels::stride, T(1), out, token + t, tile * tile_order::rows, w.rows);
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// y = x W^T + bias for numbers x and codes in tile_order, which become numbers on the way. C++17.
///
/// The contract is that of quantized_product.hpp. Nothing behind a row of x is read.
#ifndef DEFT_KERNELS_WEIGHT_ONLY_PRODUCT_HPP
#define DEFT_KERNELS_WEIGHT_ONLY_PRODUCT_HPP

#include <deft/kernels/quantized_product.hpp>

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

// A block of 32 columns of x, without what is behind its end.
template <class T>
struct column_block {
    const T* x;
    alignas(64) T padded[std::size_t(code_block)];

    DEFT_ALWAYS_INLINE void set(const T* from, index count) noexcept {
        x = from;
        if (count >= code_block)
            return;
        for (index k = 0; k < code_block; ++k)
            padded[k] = k < count ? from[k] : T(0);
        x = padded;
    }
};

} // namespace detail

/// Rows of tile `tile` of y for `tokens` rows of x, `stride` apart, from `token` on; at most token_block.
template <class T>
void weight_only_product(const tiled_weights<T>& weights, const T* x, index stride, index tile, index token,
                         index tokens, const product_output<T>& out) noexcept {
    using namespace detail;
    DEFT_ASSERT(tokens <= token_block);
    const tiled_weights<T> w = at_tile(weights, tile);
    constexpr index rows = tile_order::rows, lanes = tile_order::lanes;
    // One token: chains of sums side by side, enough to hide the latency of one.
    constexpr int chains = 4;
    // Several: columns as numbers in the first cache, which all tokens share.
    constexpr int most = sizeof(T) == 4 ? 4 : 2;
    alignas(64) T partial[std::size_t(token_block * rows)];
    for (index i = 0; i < tokens * rows; ++i)
        partial[i] = T(0);
    with_bits(w.bits, [&](auto bits) DEFT_INLINE_LAMBDA {
        constexpr index block_bytes = packed_codes<bits.value>::block_bytes;
        alignas(64) T numbers[std::size_t(code_block * rows)];
        column_block<T> columns[std::size_t(most)];
        for (index s = 0; s < w.segments; ++s) {
            simd::row_values<T> zero[2], scale[2];
            for (int half = 0; half < 2; ++half) {
                zero[half] = simd::to_values<T>(simd::load_rows(w.zero + s * rows + half * lanes));
                scale[half] = simd::load_rows(w.scale + s * rows + half * lanes);
            }
            simd::row_values<T> single[std::size_t(chains)][2];
            for (int c = 0; c < chains; ++c)
                single[c][0] = single[c][1] = simd::broadcast(T(0));
            for (index b = w.first_block[s]; b < w.first_block[s + 1]; ++b) {
                const std::uint8_t* const block = w.codes + b * block_bytes;
                const index column = w.first_column[s] + (b - w.first_block[s]) * code_block;
                const index count = w.first_column[s + 1] - column;
                if (tokens == 1) {
                    for (index i = 0; i < block_bytes; i += 64)
                        simd::prefetch(block + i + prefetch_bytes);
                    columns[0].set(x + token * stride + column, count);
                    const T* const at = columns[0].x;
                    for_each_column<bits.value, T>(block, zero,
                                                   [&](int k, const simd::row_values<T>(&value)[2]) DEFT_INLINE_LAMBDA {
                                                       simd::row_values<T>(&sum)[2] = single[k % chains];
                                                       const simd::row_values<T> factor = simd::broadcast(at[k]);
                                                       sum[0] = simd::multiply_add(value[0], factor, sum[0]);
                                                       sum[1] = simd::multiply_add(value[1], factor, sum[1]);
                                                   });
                    continue;
                }
                for_each_column<bits.value, T>(block, zero,
                                               [&](int k, const simd::row_values<T>(&value)[2]) DEFT_INLINE_LAMBDA {
                                                   for (int half = 0; half < 2; ++half)
                                                       simd::store_rows(numbers + k * rows + half * lanes, value[half]);
                                               });
                for_each_tokens<most>(tokens, [&](auto n, index t) DEFT_INLINE_LAMBDA {
                    simd::row_values<T> sum[std::size_t(n.value)][2];
                    DEFT_UNROLL
                    for (int i = 0; i < n.value; ++i) {
                        columns[i].set(x + (token + t + i) * stride + column, count);
                        sum[i][0] = sum[i][1] = simd::broadcast(T(0));
                    }
                    for (index k = 0; k < code_block; ++k) {
                        const auto low = simd::load_rows(numbers + k * rows);
                        const auto high = simd::load_rows(numbers + k * rows + lanes);
                        DEFT_UNROLL
                        for (int i = 0; i < n.value; ++i) {
                            const simd::row_values<T> factor = simd::broadcast(columns[i].x[k]);
                            sum[i][0] = simd::multiply_add(low, factor, sum[i][0]);
                            sum[i][1] = simd::multiply_add(high, factor, sum[i][1]);
                        }
                    }
                    DEFT_UNROLL
                    for (int i = 0; i < n.value; ++i) {
                        DEFT_UNROLL
                        for (int half = 0; half < 2; ++half) {
                            T* const to = partial + (t + i) * rows + half * lanes;
                            simd::store_rows(to, simd::multiply_add(sum[i][half], scale[half], simd::load_rows(to)));
                        }
                    }
                });
            }
            if (tokens != 1)
                continue;
            for (int half = 0; half < 2; ++half) {
                T* const to = partial + half * lanes;
                simd::row_values<T> sum = single[0][half];
                for (int c = 1; c < chains; ++c)
                    sum = simd::add(sum, single[c][half]);
                simd::store_rows(to, simd::multiply_add(sum, scale[half], simd::load_rows(to)));
            }
        }
    });
    for (index t = 0; t < tokens; ++t)
        finish(partial + t * rows, T(1), out, token + t, tile * rows, w.rows);
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Products of sparse weights with rows of tokens, y = x W^T: the tokens of a tile become the lanes of vectors. C++17.
///
/// Contract: as in sparse_rows.hpp; x is [tokens, columns], y [tokens, rows]. Segments are at most segment_columns
/// wide.
#ifndef DEFT_KERNELS_SPARSE_TOKENS_HPP
#define DEFT_KERNELS_SPARSE_TOKENS_HPP

#include <deft/kernels/row_lanes.hpp>
#include <deft/kernels/sparse_rows.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Columns of a segment: a tile of x, transposed, lies on the stack, 32 KB of it.
inline constexpr index segment_columns = 512;
/// Rows of y that are summed before they are written: they lie there too, 32 KB.
inline constexpr index sparse_chunk = 512;
/// Vectors of tokens in a tile.
inline constexpr int token_vectors = 2;

/// Rows [first_row, first_row + row_count) of W, at most sparse_chunk, for up to token_vectors vectors of tokens.
/// `Weight` is sparse_rows or sparse_blocks, of which [first, last) are those rows; segment s takes columns
/// segment_begin[s] .. segment_begin[s + 1] - 1.
template <class Arch, class T, class Weight>
DEFT_NOINLINE void sparse_token_product(const Weight& w, index segments, const index* segment_begin, index first,
                                        index last, index first_row, index row_count, const T* x, index x_stride,
                                        index tokens, const sparse_finish<T>& finish, T* y, index y_stride) noexcept {
    constexpr index width = simd::lanes<T, Arch>, tile = token_vectors * width;
    alignas(64) T from[std::size_t(segment_columns * tile)];
    alignas(64) T sums[std::size_t(sparse_chunk * tile)];
    DEFT_ASSERT(row_count <= sparse_chunk && tokens <= tile);
    const index padded = (tokens + width - 1) / width * width; // lanes without a token are 0
    for (index s = 0; s < segments; ++s) {
        const index begin = segment_begin[s], count = segment_begin[s + 1] - begin;
        for (index t = 0; t < tokens; t += width)
            load_lanes<Arch>(x + t * x_stride + begin, x_stride, tokens - t < width ? tokens - t : width, count,
                             [&](index c) DEFT_INLINE_LAMBDA { return from + c * tile + t; });
        sparse_product<Arch, T>(w, first, last, s, {from, begin, tile}, padded, finish, {sums, first_row, tile});
    }
    for (index t = 0; t < tokens; t += width)
        store_lanes<Arch>(y + t * y_stride + first_row, y_stride, tokens - t < width ? tokens - t : width, row_count,
                          [&](index r) DEFT_INLINE_LAMBDA { return simd::load<Arch>(sums + r * tile + t); });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

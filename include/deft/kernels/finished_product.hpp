/// \file
/// A matrix product whose sums go on, out of registers, into what comes after it: an addition, a scale, a store. C++17.
///
///     f(r, c, extent, v) for every vector v of A B, which begins at row r and column c;   A: rows x depth
///
/// Contract: A and B have any strides and alignment; f may write what is neither. Every element is seen once, in any
/// order. The order of summation is that of tile_product.
#ifndef DEFT_KERNELS_FINISHED_PRODUCT_HPP
#define DEFT_KERNELS_FINISHED_PRODUCT_HPP

#include <deft/kernels/tile_product.hpp>
#include <deft/simd/loop.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Columns at a time: many where f meets memory, which is slow to start in many rows; few where there are few rows,
/// whose time is that of packing B, so that what is packed stays in the first cache.
inline constexpr index long_piece = 512, short_piece = 128;

namespace detail {

// Of few terms. Rows of what f reads and writes are met a few at a time, in long pieces; columns of B are packed once
// for all rows.
template <class Arch, class T, class F>
DEFT_ALWAYS_INLINE void finished_short_sums(const strided_matrix<const T>& a, const strided_matrix<const T>& b,
                                            index rows, index columns, index depth, index longest_piece,
                                            F&& f) noexcept {
    using shape = tile_shape<Arch, T>;
    using B = simd::batch<T, Arch>;
    constexpr index packed_size = shape::depth_block * shape::tile_columns;
    alignas(64) T packed[std::size_t(packed_size)];
    const index fit = packed_size / depth / shape::panel_columns * shape::panel_columns;
    const index piece = fit < longest_piece ? fit : longest_piece;
    for (index c = 0; c < columns; c += piece) {
        const index width = columns - c < piece ? columns - c : piece;
        pack<Arch>(b.at(0, c), depth, width, packed, depth * shape::panel_columns);
        for_each_kernel<Arch, T>(rows, [&](index i, auto count) DEFT_INLINE_LAMBDA {
            const auto panel = [&](index j, auto&& finish) DEFT_INLINE_LAMBDA {
                multiply_rows<Arch, decltype(count)::value, shape::vectors>(
                    a.at(i, 0), rows - i, packed + j * depth, depth,
                    [&](int r, int v, const B& sum) DEFT_INLINE_LAMBDA {
                        if (i + r < rows)
                            finish(i + r, j + v * shape::width, sum);
                    });
            };
            index j = 0;
            for (; j + shape::panel_columns <= width; j += shape::panel_columns)
                panel(j, [&](index r, index k, const B& sum) DEFT_INLINE_LAMBDA { f(r, c + k, simd::full{}, sum); });
            if (j < width)
                panel(j, [&](index r, index k, const B& sum) DEFT_INLINE_LAMBDA {
                    if (k < width)
                        f(r, c + k, simd::partial{width - k < shape::width ? width - k : shape::width}, sum);
                });
        });
    }
}

} // namespace detail

/// See the top of this file.
template <class Arch, class T, class F>
DEFT_ALWAYS_INLINE void finished_product(strided_matrix<const T> a, strided_matrix<const T> b, index rows,
                                         index columns, index depth, index longest_piece, F&& f) noexcept {
    using shape = tile_shape<Arch, T>;
    const bool skinny = is_skinny(a, b, rows);
    if (!skinny && depth > 0 && depth <= shape::depth_block)
        return detail::finished_short_sums<Arch>(a, b, rows, columns, depth, longest_piece, f);
    alignas(64) T tile[std::size_t(shape::tile_size)];
    const index height = shape::rows_for(rows), step = skinny ? shape::columns_for(rows) : shape::tile_columns;
    for (index i = 0; i < rows; i += height)
        for (index j = 0; j < columns; j += step) {
            const index h = rows - i < height ? rows - i : height, w = columns - j < step ? columns - j : step;
            tile_product<Arch, T>(a.at(i, 0), b.at(0, j), h, w, depth, false, tile, step);
            for (index r = 0; r < h; ++r)
                simd::for_each_vector<T, Arch, 1>(w, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
                    f(i + r, j + c, extent, simd::load<Arch>(tile + r * step + c, extent));
                });
        }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// A matrix product of any size and any strides, tile by tile. Never allocates. C++17.
///
///     C = alpha A B + beta C,   A: rows x depth, B: depth x columns
///
/// Contract: C is written where it has elements and nowhere else; it overlaps neither factor. With beta = 0 it is not
/// read. depth = 0 gives beta C. The order of summation depends on depth, on the strides, and on which of rows and
/// columns are more than skinny_rows.
#ifndef DEFT_KERNELS_MATRIX_PRODUCT_HPP
#define DEFT_KERNELS_MATRIX_PRODUCT_HPP

#include <deft/kernels/tile_product.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {
namespace detail {

// to = alpha tile + beta to.
template <class Arch, class T>
DEFT_ALWAYS_INLINE void write_tile(T alpha, const T* tile, index stride, T beta, const strided_matrix<T>& to,
                                   index rows, index columns) noexcept {
    using B = simd::batch<T, Arch>;
    if (to.column_stride != 1) {
        for (index r = 0; r < rows; ++r)
            for (index c = 0; c < columns; ++c) {
                T& value = to.data[r * to.row_stride + c * to.column_stride];
                value = beta == T(0) ? alpha * tile[r * stride + c] : alpha * tile[r * stride + c] + beta * value;
            }
        return;
    }
    for (index r = 0; r < rows; ++r) {
        const T* const from = tile + r * stride;
        T* const row = to.data + r * to.row_stride;
        simd::for_each_vector<T, Arch, 1>(columns, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
            const B x = B(alpha) * simd::load<Arch>(from + c, extent);
            simd::store(row + c, beta == T(0) ? x : simd::fma(B(beta), simd::load<Arch>(row + c, extent), x), extent);
        });
    }
}

} // namespace detail

/// See the top of this file.
template <class Arch, class T>
DEFT_NOINLINE void matrix_product(T alpha, strided_matrix<const T> a, strided_matrix<const T> b, T beta,
                                  strided_matrix<T> c, index rows, index columns, index depth) noexcept {
    using shape = tile_shape<Arch, T>;
    // Along the rows of C; and few columns as few rows, which saves a panel that is padded to its full width.
    if ((c.column_stride != 1 && c.row_stride == 1) ||
        (columns < rows && columns <= skinny_rows && is_skinny(b.transposed(), a.transposed(), columns))) {
        const auto rest = a;
        a = b.transposed(), b = rest.transposed(), c = c.transposed();
        const index height = rows;
        rows = columns, columns = height;
    }
    const bool skinny = is_skinny(a, b, rows);
    if (skinny && depth > 0 && c.column_stride == 1 && alpha == T(1) && (beta == T(0) || beta == T(1)))
        return skinny_product<Arch, T>(a, b, rows, columns, depth, beta == T(1), c.data, c.row_stride);

    alignas(64) T tile[std::size_t(shape::tile_size)];
    const index width = skinny ? shape::columns_for(rows) : shape::tile_columns;
    const index height = shape::rows_for(rows);
    for (index i = 0; i < rows; i += height)
        for (index j = 0; j < columns; j += width) {
            const index h = rows - i < height ? rows - i : height, w = columns - j < width ? columns - j : width;
            tile_product<Arch, T>(a.at(i, 0), b.at(0, j), h, w, depth, false, tile, width);
            detail::write_tile<Arch, T>(alpha, tile, width, beta, c.at(i, j), h, w);
        }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

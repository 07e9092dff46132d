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

#include <deft/kernels/finished_product.hpp>

#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {
namespace detail {

// A vector of a row, whose elements are `stride` apart from `to` on, becomes alpha x + beta to.
template <class Arch, class T, class Extent>
DEFT_ALWAYS_INLINE void write(T alpha, const simd::batch<T, Arch>& x, T beta, T* to, index stride,
                              Extent extent) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    const B scaled = B(alpha) * x;
    if (stride == 1) {
        simd::store(to, beta == T(0) ? scaled : simd::fma(B(beta), simd::load<Arch>(to, extent), scaled), extent);
        return;
    }
    index count = width;
    if constexpr (std::is_same_v<Extent, simd::partial>)
        count = extent.count;
    T values[std::size_t(width)];
    simd::store(values, scaled);
    for (index k = 0; k < count; ++k, to += stride)
        *to = beta == T(0) ? values[k] : values[k] + beta * *to;
}

} // namespace detail

/// See the top of this file.
template <class Arch, class T>
DEFT_NOINLINE void matrix_product(T alpha, strided_matrix<const T> a, strided_matrix<const T> b, T beta,
                                  strided_matrix<T> c, index rows, index columns, index depth) noexcept {
    // Along the rows of C; and few columns as few rows, which saves a panel that is padded to its full width.
    if ((c.column_stride != 1 && c.row_stride == 1) ||
        (columns < rows && columns <= skinny_rows && is_skinny(b.transposed(), a.transposed(), columns))) {
        const auto rest = a;
        a = b.transposed(), b = rest.transposed(), c = c.transposed();
        const index height = rows;
        rows = columns, columns = height;
    }
    const bool is_whole = alpha == T(1) && (beta == T(0) || beta == T(1));
    if (is_whole && depth > 0 && c.column_stride == 1 && is_skinny(a, b, rows))
        return skinny_product<Arch, T>(a, b, rows, columns, depth, beta == T(1), c.data, c.row_stride);
    finished_product<Arch, T>(a, b, rows, columns, depth, rows < 48 ? short_piece : long_piece,
                              [&](index i, index j, auto extent, const simd::batch<T, Arch>& sum) DEFT_INLINE_LAMBDA {
                                  detail::write<Arch>(alpha, sum, beta, c.data + i * c.row_stride + j * c.column_stride,
                                                      c.column_stride, extent);
                              });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// A tile of the product with a block-circulant matrix. The matrix is never built: the panels that a product of tiles
/// packs anyway are filled from the generators. C++17.
///
///     tile = A B,   B[j m + b, i m + a] = c_ij[(a - b) mod m]          (inputs x outputs; or its transpose)
///
/// Contract as in tile_product.hpp. Any m >= 1; blocks need not end where a panel does.
#ifndef DEFT_KERNELS_CIRCULANT_TILE_HPP
#define DEFT_KERNELS_CIRCULANT_TILE_HPP

#include <deft/kernels/tile_product.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Generators of length m, the first columns of the blocks; those of block (i, j) begin at i out_stride + j in_stride.
template <class T>
struct circulant_blocks {
    const T* data;
    index out_stride, in_stride, m;
    bool transposed; ///< B is outputs x inputs: the factor of a gradient
};

namespace detail {

// Rows [p, p + depth) of B, columns [c, c + columns), behind the last column zeros.
template <class Arch, class T>
DEFT_ALWAYS_INLINE void pack_circulant_panel(const circulant_blocks<T>& w, index p, index depth, index c, index columns,
                                             T* packed) noexcept {
    constexpr index width = simd::lanes<T, Arch>, panel = tile_shape<Arch, T>::panel_columns;
    const index m = w.m, row_step = w.transposed ? w.out_stride : w.in_stride;
    const index column_step = w.transposed ? w.in_stride : w.out_stride;
    const T* blocks[std::size_t(panel)]; // of each column, and where in its block it lies
    index within[std::size_t(panel)];
    for (index q = 0, block = c / m, at = c % m; q < columns; ++q) {
        blocks[q] = w.data + block * column_step;
        within[q] = at;
        if (++at == m) {
            at = 0;
            ++block;
        }
    }
    const bool one_block = columns == panel && !w.transposed && within[0] + panel <= m;
    index block = p / m, at = p % m;
    for (index r = 0; r < depth; ++r, packed += panel) {
        const index offset = block * row_step;
        const index first = within[0] < at ? within[0] - at + m : within[0] - at;
        if (one_block && first + panel <= m) { // neighbours in the generator
            DEFT_UNROLL
            for (index q = 0; q < panel; q += width)
                simd::store(packed + q, simd::load<Arch>(blocks[0] + offset + first + q));
        } else {
            for (index q = 0; q < columns; ++q) {
                const index k = w.transposed ? at - within[q] : within[q] - at;
                packed[q] = blocks[q][offset + (k < 0 ? k + m : k)];
            }
            for (index q = columns; q < panel; ++q)
                packed[q] = T(0);
        }
        if (++at == m) {
            at = 0;
            ++block;
        }
    }
}

} // namespace detail

/// Columns [c, c + columns) of A B for `rows` rows of A; A has `depth` columns, and B as many rows.
template <class Arch, class T>
DEFT_NOINLINE void circulant_tile(strided_matrix<const T> a, const circulant_blocks<T>& w, index c, index rows,
                                  index columns, index depth, T* tile, index stride) noexcept {
    using shape = tile_shape<Arch, T>;
    DEFT_ASSERT(rows <= shape::tile_rows && columns <= shape::tile_columns && shape::padded(columns) <= stride);
    for (index i = 0; depth == 0 && i < rows; ++i)
        for (index j = 0; j < columns; ++j)
            tile[i * stride + j] = T(0);
    alignas(64) T packed[std::size_t(shape::depth_block * shape::panel_columns)];
    for (index j = 0; j < columns; j += shape::panel_columns)
        for (index p = 0; p < depth; p += shape::depth_block) {
            const index count = depth - p < shape::depth_block ? depth - p : shape::depth_block;
            const index rest = columns - j < shape::panel_columns ? columns - j : shape::panel_columns;
            detail::pack_circulant_panel<Arch>(w, p, count, c + j, rest, packed);
            detail::multiply_panel<Arch>(a.at(0, p), rows, packed, count, p > 0, tile + j, stride);
        }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

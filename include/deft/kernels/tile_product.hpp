/// \file
/// A tile of a matrix product, left in cache for what comes after it: an activation, a sum, a gradient. C++17.
///
///     tile (+)= A B,   A: rows x depth, B: depth x columns, rows <= tile_rows
///
/// Contract: A and B have any strides and alignment and are not written; the tile is the caller's, its rows `stride`
/// apart. rows and columns rounded up to kernel_rows and panel_columns may be written. The order of summation depends
/// on depth, on whether rows <= skinny_rows, and then on the strides of B. depth = 0 gives zeros.
#ifndef DEFT_KERNELS_TILE_PRODUCT_HPP
#define DEFT_KERNELS_TILE_PRODUCT_HPP

#include <deft/kernels/skinny_product.hpp>
#include <deft/simd/batch.hpp>
#include <deft/simd/transpose.hpp>

#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

// Rows and vectors of accumulators: 12 of 16 registers, or 24 of 32. A tile is as tall as pays for packing B, and holds
// 48 KB like its packed columns: together the second cache, beside the rows of A that it reads depth_block at a time.
template <class Arch, class T>
struct tile_shape {
    static constexpr index width = simd::lanes<T, Arch>;
    static constexpr bool has_32_registers = width * index(sizeof(T)) == 64;
    static constexpr int vectors = 2;
    static constexpr int kernel_rows = has_32_registers ? 12 : 6;
    static constexpr index panel_columns = vectors * width;
    static constexpr index tile_rows = 768 / index(sizeof(T));
    static constexpr index tile_columns = 64;
    static constexpr index depth_block = 1024 / index(sizeof(T));
    static constexpr index tile_size = tile_rows * tile_columns;
    static_assert(tile_rows % kernel_rows == 0 && tile_columns % panel_columns == 0);

    /// Columns of a tile, and the distance of its rows: few rows are taken in pieces as long as they can be, because
    /// memory is slow to start at the next row of B.
    static constexpr index columns_for(index rows) noexcept {
        constexpr index most = 4096, step = 64;
        if (rows > skinny_rows)
            return tile_columns;
        const index fit = tile_size / (rows < 1 ? 1 : rows) / step * step;
        return fit < most ? fit : most;
    }

    /// The same for tiles that follow each other along a block of rows: more rows too in pieces as long as there is
    /// room for. Short pieces of what a tile is added to, often multiples of a page apart, would share few sets of the
    /// first cache. Not for tiles that threads share, of which there would be few.
    static constexpr index long_columns_for(index rows) noexcept {
        return rows > skinny_rows ? tile_size / rows_for(rows) / tile_columns * tile_columns : columns_for(rows);
    }

    /// Rows of a block, if so many are cut into blocks of about equal height, at most `most`, a multiple of
    /// kernel_rows.
    static constexpr index rows_for(index rows, index most = tile_rows) noexcept {
        const index blocks = rows < 1 ? 1 : (rows + most - 1) / most, least = (rows + blocks - 1) / blocks;
        return least < 1 ? kernel_rows : (least + kernel_rows - 1) / kernel_rows * kernel_rows;
    }

    /// Columns of a tile that are written.
    static constexpr index padded(index columns) noexcept {
        return (columns + panel_columns - 1) / panel_columns * panel_columns;
    }
};

namespace detail {

// Columns of B as panels, each [depth][panel_columns] and `size` numbers apart, zeros behind the last column. Rows of
// neighbours are read whole, so that memory is met in long pieces; they are often a page apart, where the hardware does
// not look ahead.
template <class Arch, class T>
DEFT_ALWAYS_INLINE void pack(const strided_matrix<const T>& b, index depth, index columns, T* packed,
                             index size) noexcept {
    using shape = tile_shape<Arch, T>;
    using B = simd::batch<T, Arch>;
    constexpr index width = shape::width, panel = shape::panel_columns;
    constexpr index ahead = 8, line = 64 / index(sizeof(T));
    const T* const data = b.data;
    const index row_stride = b.row_stride, column_stride = b.column_stride;
    index whole = 0; // columns that are done, in whole vectors
    if (column_stride == 1) {
        whole = columns / width * width;
        for (index p = 0; p < depth; ++p) {
            const T* const row = data + p * row_stride;
            if (p + ahead < depth)
                for (index j = 0; j < columns; j += line)
                    simd::prefetch(row + ahead * row_stride + j);
            T* to = packed + p * panel;
            index j = 0;
            for (; j + panel <= whole; j += panel, to += size) {
                DEFT_UNROLL
                for (index v = 0; v < panel; v += width)
                    simd::store(to + v, simd::load<Arch>(row + j + v));
            }
            for (index v = 0; j + v < whole; v += width)
                simd::store(to + v, simd::load<Arch>(row + j + v));
        }
    } else if (row_stride == 1) {
        whole = columns / width * width;
        for (index j = 0; j < whole; j += width) {
            T* const to = packed + j / panel * size + j % panel;
            index p = 0;
            for (; p + width <= depth; p += width) {
                B square[std::size_t(width)];
                simd::load_transposed(data + p + j * column_stride, column_stride, square);
                DEFT_UNROLL
                for (index i = 0; i < width; ++i)
                    simd::store(to + (p + i) * panel, square[i]);
            }
            for (; p < depth; ++p)
                for (index i = 0; i < width; ++i)
                    to[p * panel + i] = data[p + (j + i) * column_stride];
        }
    }
    for (index j = whole; j < shape::padded(columns); ++j)
        for (index p = 0; p < depth; ++p)
            packed[j / panel * size + p * panel + j % panel] =
                j < columns ? data[p * row_stride + j * column_stride] : T(0);
}

// f(row, vector, sum) for `Rows` rows of a panel of so many vectors, summed in registers. Rows from `rows` on repeat
// the last one.
template <class Arch, int Rows, int Vectors, class T, class F>
DEFT_ALWAYS_INLINE void multiply_rows(const strided_matrix<const T>& a, index rows, const T* packed, index depth,
                                      F&& f) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    const T* from[std::size_t(Rows)];
    DEFT_UNROLL
    for (int i = 0; i < Rows; ++i)
        from[i] = a.data + (i < rows ? i : rows - 1) * a.row_stride;
    const index step = a.column_stride;

    B sum[std::size_t(Rows)][std::size_t(Vectors)];
    DEFT_UNROLL
    for (int i = 0; i < Rows; ++i) {
        DEFT_UNROLL
        for (int v = 0; v < Vectors; ++v)
            sum[i][v] = B(T(0));
    }
    for (index p = 0, at = 0; p < depth; ++p, at += step) {
        B b[std::size_t(Vectors)];
        DEFT_UNROLL
        for (int v = 0; v < Vectors; ++v)
            b[v] = simd::load<Arch>(packed + (p * Vectors + v) * width);
        DEFT_UNROLL
        for (int i = 0; i < Rows; ++i) {
            const B left(from[i][at]);
            DEFT_UNROLL
            for (int v = 0; v < Vectors; ++v)
                sum[i][v] = simd::fma(left, b[v], sum[i][v]);
        }
    }
    DEFT_UNROLL
    for (int i = 0; i < Rows; ++i) {
        DEFT_UNROLL
        for (int v = 0; v < Vectors; ++v)
            f(i, v, sum[i][v]);
    }
}

// f(first row, rows of the kernel): as many as the registers hold, and at the end two thirds of it where that
// multiplies fewer rows in vain (8 are 4 and 4, 10 are 6 and 4).
template <class Arch, class T, class F>
DEFT_ALWAYS_INLINE void for_each_kernel(index rows, F&& f) noexcept {
    constexpr int tall = tile_shape<Arch, T>::kernel_rows, low = tall / 3 * 2;
    for (index i = 0; i < rows;) {
        const index left = rows - i;
        if (left > 2 * low || (left > low && left <= tall)) {
            f(i, std::integral_constant<int, tall>{});
            i += tall;
        } else {
            f(i, std::integral_constant<int, low>{});
            i += low;
        }
    }
}

// All rows of a panel. Those from `rows` on that a kernel computes land in rows of the tile that nobody reads.
template <class Arch, class T, int Vectors = tile_shape<Arch, T>::vectors>
DEFT_ALWAYS_INLINE void multiply_panel(const strided_matrix<const T>& a, index rows, const T* packed, index depth,
                                       bool accumulate, T* tile, index stride) noexcept {
    for_each_kernel<Arch, T>(rows, [&](index i, auto count) DEFT_INLINE_LAMBDA {
        multiply_rows<Arch, decltype(count)::value, Vectors>(
            a.at(i, 0), rows - i, packed, depth, [&](int r, int v, const simd::batch<T, Arch>& sum) DEFT_INLINE_LAMBDA {
                T* const to = tile + (i + r) * stride + v * simd::lanes<T, Arch>;
                simd::store(to, accumulate ? simd::load<Arch>(to) + sum : sum);
            });
    });
}

} // namespace detail

/// tile = A B, or tile += A B; see the top of this file.
template <class Arch, class T>
DEFT_NOINLINE void tile_product(strided_matrix<const T> a, strided_matrix<const T> b, index rows, index columns,
                                index depth, bool accumulate, T* tile, index stride) noexcept {
    using shape = tile_shape<Arch, T>;
    DEFT_ASSERT(rows <= shape::tile_rows && shape::padded(columns) <= stride);
    if (depth == 0 && !accumulate)
        for (index i = 0; i < rows; ++i)
            for (index j = 0; j < columns; ++j)
                tile[i * stride + j] = T(0);
    if (depth == 0)
        return;
    if (is_skinny(a, b, rows))
        return skinny_product<Arch, T>(a, b, rows, columns, depth, accumulate, tile, stride);
    // A tile as long as columns_for(few rows) is for factors that skinny_product takes.
    DEFT_ASSERT((rows + shape::kernel_rows - 1) / shape::kernel_rows * shape::kernel_rows * stride <= shape::tile_size);
    alignas(64) T packed[std::size_t(shape::depth_block * shape::tile_columns)];
    for (index c = 0; c < columns; c += shape::tile_columns)
        for (index p = 0; p < depth; p += shape::depth_block) {
            const index count = depth - p < shape::depth_block ? depth - p : shape::depth_block;
            const index width = columns - c < shape::tile_columns ? columns - c : shape::tile_columns;
            detail::pack<Arch>(b.at(p, c), count, width, packed, shape::depth_block * shape::panel_columns);
            for (index j = 0; j < width; j += shape::panel_columns)
                detail::multiply_panel<Arch>(a.at(0, p), rows, packed + j * shape::depth_block, count,
                                             accumulate || p > 0, tile + c + j, stride);
        }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Products of block-sparse rows (BCSR) with dense matrices. C++17.
///
///     y[r, j] = clamp(sum over blocks of the block row of r, and over their columns c, of w x[c, j] + bias[r])
///
/// Contract: as in sparse_rows.hpp, whose bounds are those of block rows here. Rows of a block share the
/// loads of x: that is what blocks are for. Zeros that pad a block are multiplied, but not behind the last column of x.
#ifndef DEFT_KERNELS_SPARSE_BLOCKS_HPP
#define DEFT_KERNELS_SPARSE_BLOCKS_HPP

#include <deft/kernels/sparse_rows.hpp>

#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

template <class T>
struct sparse_blocks {
    sparse_rows<T> entries;          ///< values: [block, block_rows, block_columns]; columns: of blocks
    index block_rows, block_columns; ///< of a block
    index rows, columns;             ///< of the matrix, which may end inside of a block
};

namespace detail {

/// Rows `row` .. row + Rows - 1 of a block row, `Vectors` vectors of columns; x is where row 0 of it would be.
template <class Arch, int Rows, int Vectors, class T, class Extent>
DEFT_ALWAYS_INLINE void block_tile(const sparse_blocks<T>& w, index block_row, index row, index segment, const T* x,
                                   index x_stride, const sparse_finish<T>& finish, T* y, index y_stride,
                                   Extent extent) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    const bool starts = segment == 0, ends = segment + 1 == w.entries.segments;
    const index* const bounds = w.entries.bounds + block_row * w.entries.segments + segment;
    const index r = block_row * w.block_rows + row, block = w.block_rows * w.block_columns;
    B sum[std::size_t(Rows)][std::size_t(Vectors)];
    DEFT_UNROLL
    for (int i = 0; i < Rows; ++i) {
        const B initial(starts && finish.bias != nullptr ? finish.bias[r + i] : T(0));
        DEFT_UNROLL
        for (int v = 0; v < Vectors; ++v)
            sum[i][v] = starts ? initial : load_tile<Arch, Vectors>(static_cast<const T*>(y + i * y_stride), v, extent);
    }
    for (index k = bounds[0]; k < bounds[1]; ++k) {
        const index column = w.entries.columns[k] * w.block_columns;
        const index count = w.columns - column < w.block_columns ? w.columns - column : w.block_columns;
        const T* value = w.entries.values + k * block + row * w.block_columns;
        const T* from = x + column * x_stride;
        for (index c = 0; c < count; ++c, ++value, from += x_stride) {
            B right[std::size_t(Vectors)];
            DEFT_UNROLL
            for (int v = 0; v < Vectors; ++v)
                right[v] = load_tile<Arch, Vectors>(from, v, extent);
            DEFT_UNROLL
            for (int i = 0; i < Rows; ++i) {
                const B left(value[i * w.block_columns]);
                DEFT_UNROLL
                for (int v = 0; v < Vectors; ++v)
                    sum[i][v] = simd::fma(left, right[v], sum[i][v]);
            }
        }
    }
    DEFT_UNROLL
    for (int i = 0; i < Rows; ++i) {
        DEFT_UNROLL
        for (int v = 0; v < Vectors; ++v) {
            if (ends && finish.clamps)
                sum[i][v] = simd::at_most(B(finish.high), simd::at_least(B(finish.low), sum[i][v]));
            if (v + 1 < Vectors)
                simd::store<T>(y + i * y_stride + v * width, sum[i][v]);
            else
                simd::store<T>(y + i * y_stride + v * width, sum[i][v], extent);
        }
    }
}

/// `Rows` rows of a block row, any number of columns: Rows x (sparse_vectors / Rows) accumulators at a time.
template <class Arch, int Rows, class T>
DEFT_NOINLINE void block_rows_product(const sparse_blocks<T>& w, index block_row, index row, index segment,
                                      const sparse_operand<T>& x, index columns, const sparse_finish<T>& finish, T* y,
                                      index y_stride) noexcept {
    constexpr index width = simd::lanes<T, Arch>;
    constexpr int vectors = sparse_vectors / Rows;
    const T* const origin = x.data - x.first_row * x.stride;
    index j = 0;
    for (; j + vectors * width <= columns; j += vectors * width)
        block_tile<Arch, Rows, vectors>(w, block_row, row, segment, origin + j, x.stride, finish, y + j, y_stride,
                                        simd::full{});
    for (; j < columns; j += width)
        block_tile<Arch, Rows, 1>(w, block_row, row, segment, origin + j, x.stride, finish, y + j, y_stride,
                                  simd::partial{columns - j < width ? columns - j : width});
}

} // namespace detail

/// Block rows first .. last - 1 of one segment.
template <class Arch, class T>
DEFT_NOINLINE void sparse_product(const sparse_blocks<T>& w, index first, index last, index segment,
                                  const sparse_operand<T>& x, index columns, const sparse_finish<T>& finish,
                                  const sparse_result<T>& y) noexcept {
    for (index b = first; b < last; ++b) {
        const index begin = b * w.block_rows;
        const index rows = w.rows - begin < w.block_rows ? w.rows - begin : w.block_rows;
        for (index row = 0; row < rows;) {
            T* const to = y.data + (begin + row - y.first_row) * y.stride;
            if (rows - row >= 4) {
                detail::block_rows_product<Arch, 4>(w, b, row, segment, x, columns, finish, to, y.stride);
                row += 4;
            } else if (rows - row >= 2) {
                detail::block_rows_product<Arch, 2>(w, b, row, segment, x, columns, finish, to, y.stride);
                row += 2;
            } else {
                detail::block_rows_product<Arch, 1>(w, b, row, segment, x, columns, finish, to, y.stride);
                row += 1;
            }
        }
    }
}

/// The same for a vector x: the columns of a block are taken a vector at a time.
template <class Arch, class T>
DEFT_NOINLINE void sparse_vector_product(const sparse_blocks<T>& w, index first, index last, const T* x,
                                         const sparse_finish<T>& finish, T* y, index y_stride) noexcept {
    using B = simd::batch<T, Arch>;
    for (index b = first; b < last; ++b) {
        const index begin = b * w.block_rows;
        const index* const bounds = w.entries.bounds + b * w.entries.segments;
        for (index row = 0; row < w.block_rows && begin + row < w.rows; ++row) {
            B sum(T(0));
            for (index k = bounds[0]; k < bounds[w.entries.segments]; ++k) {
                const index column = w.entries.columns[k] * w.block_columns;
                const index count = w.columns - column < w.block_columns ? w.columns - column : w.block_columns;
                const T* const value = w.entries.values + (k * w.block_rows + row) * w.block_columns;
                simd::for_each_vector<T, Arch, 1>(count, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
                    sum = simd::fma(simd::load<Arch>(value + c, extent), simd::load<Arch>(x + column + c, extent), sum);
                });
            }
            T total = simd::reduce_add(sum) + (finish.bias != nullptr ? finish.bias[begin + row] : T(0));
            if (finish.clamps)
                total = total < finish.low ? finish.low : total > finish.high ? finish.high : total;
            y[(begin + row) * y_stride] = total;
        }
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

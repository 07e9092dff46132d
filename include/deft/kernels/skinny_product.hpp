/// \file
/// Products with a few rows, as in decoding: C (+)= A B, A: rows x depth, rows <= 8, B: depth x columns. B is read
/// once, where it lies, as fast as memory gives it. C++17.
///
/// Contract: rows of C are consecutive elements, `stride` apart, and alone are written; any alignment. C overlaps
/// neither factor. The order of summation depends on depth and on which stride of B is 1, not on rows or columns.
#ifndef DEFT_KERNELS_SKINNY_PRODUCT_HPP
#define DEFT_KERNELS_SKINNY_PRODUCT_HPP

#include <deft/kernels/strided_matrix.hpp>
#include <deft/simd/loop.hpp>

#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

inline constexpr index skinny_rows = 8;

namespace detail {

// Vectors of columns of B, by rows of A: at most 12 sums, which leaves 4 of 16 registers.
template <int Rows>
inline constexpr int skinny_width = Rows == 4 ? 3 : 4;

// f(first row, rows): up to 4 rows at a time. More would reload B from the first cache less often, but spill.
template <class F>
DEFT_ALWAYS_INLINE void for_each_row_group(index rows, F&& f) noexcept {
    for (index r = 0; r < rows;) {
        const index rest = rows - r, count = rest <= 4 ? rest : (rest + 1) / 2;
        if (count == 4)
            f(r, std::integral_constant<int, 4>{});
        else if (count == 3)
            f(r, std::integral_constant<int, 3>{});
        else if (count == 2)
            f(r, std::integral_constant<int, 2>{});
        else
            f(r, std::integral_constant<int, 1>{});
        r += count;
    }
}

// Rows x Columns dot products: rows of A with columns of B, all of consecutive elements. Asks for the columns `ahead`
// behind these, for 3 and 4 rows: they compute long enough that the hardware, which stops at pages, comes late.
template <class Arch, int Rows, int Columns, class T>
DEFT_ALWAYS_INLINE void dot_products(const strided_matrix<const T>& a, const strided_matrix<const T>& b, index depth,
                                     index ahead, bool accumulate, T* c, index stride) noexcept {
    using B = simd::batch<T, Arch>;
    const T *left[std::size_t(Rows)], *right[std::size_t(Columns)];
    B sum[std::size_t(Rows)][std::size_t(Columns)];
    DEFT_UNROLL
    for (int i = 0; i < Rows; ++i)
        left[i] = a.data + i * a.row_stride;
    DEFT_UNROLL
    for (int j = 0; j < Columns; ++j)
        right[j] = b.data + j * b.column_stride;
    DEFT_UNROLL
    for (int i = 0; i < Rows; ++i) {
        DEFT_UNROLL
        for (int j = 0; j < Columns; ++j)
            sum[i][j] = B(T(0));
    }
    // Memory comes in lines of two vectors: one at a time is 1.1 to 1.3 times slower.
    simd::for_each_vector<T, Arch, 2>(depth, [&](index p, auto count, auto extent) DEFT_INLINE_LAMBDA {
        constexpr index width = simd::lanes<T, Arch>;
        if constexpr (Rows > 2) {
            DEFT_UNROLL
            for (int j = 0; j < Columns; ++j)
                simd::prefetch(right[j] + ahead * b.column_stride + p);
        }
        DEFT_UNROLL
        for (int v = 0; v < decltype(count)::value; ++v, p += width) {
            B x[std::size_t(Rows)];
            DEFT_UNROLL
            for (int i = 0; i < Rows; ++i)
                x[i] = simd::load<Arch>(left[i] + p, extent);
            DEFT_UNROLL
            for (int j = 0; j < Columns; ++j) {
                const B w = simd::load<Arch>(right[j] + p, extent);
                DEFT_UNROLL
                for (int i = 0; i < Rows; ++i)
                    sum[i][j] = simd::fma(x[i], w, sum[i][j]);
            }
        }
    });
    DEFT_UNROLL
    for (int i = 0; i < Rows; ++i) {
        DEFT_UNROLL
        for (int j = 0; j < Columns; ++j) {
            const T total = simd::reduce_add(sum[i][j]);
            c[i * stride + j] = accumulate ? c[i * stride + j] + total : total;
        }
    }
}

// C (+)= A B for `depth` rows of B, a vector of columns after the other: as many streams of memory.
template <class Arch, int Rows, class T>
DEFT_ALWAYS_INLINE void add_rows(const strided_matrix<const T>& a, const strided_matrix<const T>& b, index columns,
                                 index depth, bool accumulate, T* c, index stride) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    const T* const left = a.data;
    const T* const right = b.data;
    const index left_row = a.row_stride, left_step = a.column_stride, right_row = b.row_stride;
    simd::for_each_vector<T, Arch, skinny_width<Rows>>(
        columns, [&](index j, auto count, auto extent) DEFT_INLINE_LAMBDA {
            constexpr int vectors = decltype(count)::value;
            B sum[std::size_t(Rows)][std::size_t(vectors)];
            DEFT_UNROLL
            for (int i = 0; i < Rows; ++i) {
                DEFT_UNROLL
                for (int v = 0; v < vectors; ++v)
                    sum[i][v] = accumulate ? simd::load<Arch>(c + i * stride + j + v * width, extent) : B(T(0));
            }
            for (index p = 0; p < depth; ++p) {
                B w[std::size_t(vectors)];
                DEFT_UNROLL
                for (int v = 0; v < vectors; ++v)
                    w[v] = simd::load<Arch>(right + p * right_row + j + v * width, extent);
                DEFT_UNROLL
                for (int i = 0; i < Rows; ++i) {
                    const B x(left[i * left_row + p * left_step]);
                    DEFT_UNROLL
                    for (int v = 0; v < vectors; ++v)
                        sum[i][v] = simd::fma(x, w[v], sum[i][v]);
                }
            }
            DEFT_UNROLL
            for (int i = 0; i < Rows; ++i) {
                DEFT_UNROLL
                for (int v = 0; v < vectors; ++v)
                    simd::store<T>(c + i * stride + j + v * width, sum[i][v], extent);
            }
        });
}

} // namespace detail

/// True if skinny_product takes these factors.
template <class T>
DEFT_ALWAYS_INLINE bool is_skinny(const strided_matrix<const T>& a, const strided_matrix<const T>& b,
                                  index rows) noexcept {
    return rows <= skinny_rows && (b.column_stride == 1 || (b.row_stride == 1 && a.column_stride == 1));
}

/// C = A B, or C += A B, for is_skinny factors.
template <class Arch, class T>
DEFT_NOINLINE void skinny_product(strided_matrix<const T> a, strided_matrix<const T> b, index rows, index columns,
                                  index depth, bool accumulate, T* c, index stride) noexcept {
    DEFT_ASSERT(is_skinny(a, b, rows));
    if (b.column_stride == 1) {
        constexpr index streams = 8; // rows of B at a time; of 16 or more the hardware does not read ahead
        for (index p = 0; p == 0 || p < depth; p += streams)
            detail::for_each_row_group(rows, [&](index r, auto count) DEFT_INLINE_LAMBDA {
                detail::add_rows<Arch, decltype(count)::value>(a.at(r, p), b.at(p, 0), columns,
                                                               depth - p < streams ? depth - p : streams,
                                                               accumulate || p > 0, c + r * stride, stride);
            });
        return;
    }
    const auto by_columns = [&](auto step) DEFT_INLINE_LAMBDA {
        constexpr int most = decltype(step)::value;
        const index ahead = rows <= 4 ? most : 0; // in two groups of rows it was slower
        for (index j = 0; j < columns; j += most)
            detail::for_each_row_group(rows, [&](index r, auto count) DEFT_INLINE_LAMBDA {
                constexpr int group = decltype(count)::value;
                if constexpr (group * most <= 12) {
                    T* const to = c + r * stride + j;
                    if (columns - j >= most)
                        return detail::dot_products<Arch, group, most>(a.at(r, 0), b.at(0, j), depth, ahead, accumulate,
                                                                       to, stride);
                    for (index k = 0; k < columns - j; ++k)
                        detail::dot_products<Arch, group, 1>(a.at(r, 0), b.at(0, j + k), depth, 0, accumulate, to + k,
                                                             stride);
                }
            });
    };
    if (rows == 1) // as many streams of memory as the hardware follows
        by_columns(std::integral_constant<int, 8>{});
    else if (rows == 2)
        by_columns(std::integral_constant<int, 6>{});
    else if (rows == 4 || rows > 6) // there are groups of 4
        by_columns(std::integral_constant<int, 3>{});
    else
        by_columns(std::integral_constant<int, 4>{});
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

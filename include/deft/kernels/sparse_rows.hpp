/// \file
/// Products of sparse rows (CSR) with dense matrices. C++17.
///
///     y[r, j] = clamp(sum over entries (c, w) of row r of w x[c, j] + bias[r])
///
/// Contract: x and y have rows of neighbours, any strides and alignment; y does not overlap x. Columns of an entry
/// lie inside x. Only entries are multiplied: NaN in a row of x that no entry names reaches nothing. A row of y sums
/// its entries in their order, whatever the tile.
#ifndef DEFT_KERNELS_SPARSE_ROWS_HPP
#define DEFT_KERNELS_SPARSE_ROWS_HPP

#include <deft/simd/batch.hpp>
#include <deft/simd/loop.hpp>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Rows of entries, each cut into segments of neighbouring columns, so that the rows of x which a segment names stay
/// in cache. Entries of segment s of row r are bounds[r * segments + s] .. bounds[r * segments + s + 1] - 1.
template <class T>
struct sparse_rows {
    const T* values;
    const std::int32_t* columns;
    const index* bounds;
    index segments;
};

/// What happens to a row of sums on its way to y.
template <class T>
struct sparse_finish {
    const T* bias; ///< null: none
    bool clamps;
    T low, high;
};

/// The dense operand: row c of it is at data + (c - first_row) stride.
template <class T>
struct sparse_operand {
    const T* data;
    index first_row, stride;
};

/// The result: row r of it is at data + (r - first_row) stride.
template <class T>
struct sparse_result {
    T* data;
    index first_row, stride;
};

/// A vector of columns of x and y at a time, and this many of them in registers.
inline constexpr int sparse_vectors = 8;
template <class Arch, class T>
inline constexpr index sparse_panel = sparse_vectors* simd::lanes<T, Arch>;

namespace detail {

/// Reads vector v of a tile: the last may be cut short.
template <class Arch, int Vectors, class T, class Extent>
DEFT_ALWAYS_INLINE simd::batch<T, Arch> load_tile(const T* from, int v, Extent extent) noexcept {
    constexpr index width = simd::lanes<T, Arch>;
    return v + 1 < Vectors ? simd::load<Arch>(from + v * width) : simd::load<Arch>(from + v * width, extent);
}

/// Asks for the entries of a segment some rows ahead of r. They lie as far apart as rows are long, where the hardware
/// does not look: products of 4096x4096 with 90 % zeros took 2.3 times as long without, and 1.1 to 2 times with only
/// the first line.
template <class T>
DEFT_ALWAYS_INLINE void prefetch_entries(const sparse_rows<T>& w, index r, index last, index segment) noexcept {
    constexpr index ahead = 4, line = 64 / index(sizeof(T));
    const index row = r + ahead < last ? r + ahead : last - 1;
    const index k = w.bounds[row * w.segments + segment];
    simd::prefetch(w.values + k);
    simd::prefetch(w.values + k + line);
    simd::prefetch(w.columns + k);
    simd::prefetch(w.columns + k + line);
    simd::prefetch(w.bounds + (row + ahead) * w.segments + segment);
}

/// One row of one tile: the entries begin .. end - 1.
template <class Arch, int Vectors, class T, class Extent>
DEFT_ALWAYS_INLINE void sparse_tile(const T* values, const std::int32_t* columns, index begin, index end, const T* x,
                                    index stride, bool starts, bool clamps, T bias, T low, T high, T* y,
                                    Extent extent) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    B sum[std::size_t(Vectors)];
    DEFT_UNROLL
    for (int v = 0; v < Vectors; ++v)
        sum[v] = starts ? B(bias) : load_tile<Arch, Vectors>(static_cast<const T*>(y), v, extent);
    for (index k = begin; k < end; ++k) {
        const B value(values[k]);
        const T* const from = x + columns[k] * stride;
        DEFT_UNROLL
        for (int v = 0; v < Vectors; ++v)
            sum[v] = simd::fma(value, load_tile<Arch, Vectors>(from, v, extent), sum[v]);
    }
    if (clamps) {
        DEFT_UNROLL
        for (int v = 0; v < Vectors; ++v)
            sum[v] = simd::at_most(B(high), simd::at_least(B(low), sum[v]));
    }
    DEFT_UNROLL
    for (int v = 0; v + 1 < Vectors; ++v)
        simd::store<T>(y + v * width, sum[v]);
    simd::store<T>(y + (Vectors - 1) * width, sum[Vectors - 1], extent);
}

template <class Arch, int Vectors, class T, class Extent>
DEFT_NOINLINE void sparse_segment(const sparse_rows<T>& w, index first, index last, index segment,
                                  const sparse_operand<T>& x, const sparse_finish<T>& finish, const sparse_result<T>& y,
                                  Extent extent) noexcept {
    const bool starts = segment == 0, ends = segment + 1 == w.segments, clamps = ends && finish.clamps;
    const T* const values = w.values;
    const std::int32_t* const columns = w.columns;
    const T* const from = x.data - x.first_row * x.stride;
    for (index r = first; r < last; ++r) {
        const index* const bounds = w.bounds + r * w.segments + segment;
        const index begin = bounds[0], end = bounds[1];
        prefetch_entries(w, r, last, segment);
        if (begin == end && !starts && !ends)
            continue;
        sparse_tile<Arch, Vectors>(values, columns, begin, end, from, x.stride, starts, clamps,
                                   finish.bias != nullptr ? finish.bias[r] : T(0), finish.low, finish.high,
                                   y.data + (r - y.first_row) * y.stride, extent);
    }
}

template <class Arch, int Vectors, class T>
DEFT_ALWAYS_INLINE void choose_width(const sparse_rows<T>& w, index first, index last, index segment,
                                     const sparse_operand<T>& x, index columns, const sparse_finish<T>& finish,
                                     const sparse_result<T>& y) noexcept {
    constexpr index width = simd::lanes<T, Arch>;
    if constexpr (Vectors > 1) {
        if (columns <= (Vectors - 1) * width)
            return choose_width<Arch, Vectors - 1>(w, first, last, segment, x, columns, finish, y);
    }
    if (columns == Vectors * width)
        sparse_segment<Arch, Vectors>(w, first, last, segment, x, finish, y, simd::full{});
    else
        sparse_segment<Arch, Vectors>(w, first, last, segment, x, finish, y,
                                      simd::partial{columns - (Vectors - 1) * width});
}

} // namespace detail

/// Rows first .. last - 1 of one segment, for up to sparse_panel columns. The segments of a row follow
/// each other: the first starts y, the last finishes it.
template <class Arch, class T>
void sparse_product(const sparse_rows<T>& w, index first, index last, index segment, const sparse_operand<T>& x,
                    index columns, const sparse_finish<T>& finish, const sparse_result<T>& y) noexcept {
    DEFT_ASSERT(columns >= 1 && columns <= (sparse_panel<Arch, T>));
    detail::choose_width<Arch, sparse_vectors>(w, first, last, segment, x, columns, finish, y);
}

/// The first `columns` elements of each row of x, side by side in rows of sparse_panel, so that they are few pages and
/// whole lines. Those behind them are not written.
template <class Arch, class T>
DEFT_NOINLINE void pack_panel(const T* x, index x_stride, index rows, index columns, T* packed) noexcept {
    constexpr index panel = sparse_panel<Arch, T>;
    for (index r = 0; r < rows; ++r)
        simd::for_each_vector<T, Arch, 1>(columns, [&](index j, auto, auto extent) DEFT_INLINE_LAMBDA {
            simd::store<T>(packed + r * panel + j, simd::load<Arch>(x + r * x_stride + j, extent), extent);
        });
}

namespace detail {

/// x[at[0]], x[at[1]], ... as a vector, loaded one by one: gather instructions took four times as long on Zen 3.
template <class Arch, class T, std::size_t... Lane>
DEFT_ALWAYS_INLINE simd::batch<T, Arch> collect(const T* x, const std::int32_t* at,
                                                std::index_sequence<Lane...>) noexcept {
    return {x[at[Lane]]...};
}

} // namespace detail

/// y[r] = clamp(w_r . x + bias[r]) for rows first .. last - 1: x is a vector.
template <class Arch, class T>
DEFT_NOINLINE void sparse_vector_product(const sparse_rows<T>& w, index first, index last, const T* x,
                                         const sparse_finish<T>& finish, T* y, index y_stride) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    constexpr std::make_index_sequence<std::size_t(width)> lanes{};
    for (index r = first; r < last; ++r) {
        const index end = w.bounds[(r + 1) * w.segments];
        const T* const values = w.values;
        const std::int32_t* const columns = w.columns;
        B sum(T(0)), other(T(0));
        T rest(0);
        index k = w.bounds[r * w.segments];
        for (; k + 2 * width <= end; k += 2 * width) {
            sum = simd::fma(simd::load<Arch>(values + k), detail::collect<Arch>(x, columns + k, lanes), sum);
            other = simd::fma(simd::load<Arch>(values + k + width),
                              detail::collect<Arch>(x, columns + k + width, lanes), other);
        }
        if (k + width <= end) {
            sum = simd::fma(simd::load<Arch>(values + k), detail::collect<Arch>(x, columns + k, lanes), sum);
            k += width;
        }
        for (; k < end; ++k)
            rest += values[k] * x[columns[k]];
        T total = simd::reduce_add(sum + other) + rest + (finish.bias != nullptr ? finish.bias[r] : T(0));
        if (finish.clamps)
            total = total < finish.low ? finish.low : total > finish.high ? finish.high : total;
        y[r * y_stride] = total;
    }
}

/// The products of dense rows that a sparse matrix samples, for its rows first .. last - 1:
///
///     out[c * out_row + r * out_column] = sum over j < count of a[c, j] b[r, j]     for every entry (r, c)
template <class Arch, class T>
DEFT_NOINLINE void sampled_products(const sparse_rows<T>& w, index first, index last, const T* a, index a_stride,
                                    const T* b, index b_stride, index count, T* out, index out_row,
                                    index out_column) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr int group = 4; // entries at a time, which share the row of b
    for (index r = first; r < last; ++r) {
        const index begin = w.bounds[r * w.segments], end = w.bounds[(r + 1) * w.segments];
        const T* const right = b + r * b_stride;
        for (index k = begin; k < end; k += group) {
            const T* left[std::size_t(group)];
            B sum[std::size_t(group)];
            DEFT_UNROLL
            for (int g = 0; g < group; ++g) {
                left[g] = a + w.columns[k + g < end ? k + g : end - 1] * a_stride;
                sum[g] = B(T(0));
            }
            simd::for_each_vector<T, Arch, 1>(count, [&](index j, auto, auto extent) DEFT_INLINE_LAMBDA {
                const B y = simd::load<Arch>(right + j, extent);
                DEFT_UNROLL
                for (int g = 0; g < group; ++g)
                    sum[g] = simd::fma(simd::load<Arch>(left[g] + j, extent), y, sum[g]);
            });
            for (int g = 0; g < group && k + g < end; ++g)
                out[w.columns[k + g] * out_row + r * out_column] = simd::reduce_add(sum[g]);
        }
    }
}

/// The same with a and b transposed, their columns being what is multiplied: sum over j of a[j, c] b[j, r].
template <class T>
DEFT_NOINLINE void sampled_column_products(const sparse_rows<T>& w, index first, index last, const T* a, index a_stride,
                                           const T* b, index b_stride, index count, T* out, index out_row,
                                           index out_column) noexcept {
    constexpr index group = 64; // sums that stay in cache while rows of a pass by
    for (index r = first; r < last; ++r) {
        const index end = w.bounds[(r + 1) * w.segments];
        for (index k = w.bounds[r * w.segments]; k < end; k += group) {
            const index entries = end - k < group ? end - k : group;
            const std::int32_t* const at = w.columns + k;
            T sums[std::size_t(group)] = {};
            for (index j = 0; j < count; ++j)
                for (index e = 0; e < entries; ++e)
                    sums[e] += a[j * a_stride + at[e]] * b[j * b_stride + r];
            for (index e = 0; e < entries; ++e)
                out[at[e] * out_row + r * out_column] = sums[e];
        }
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

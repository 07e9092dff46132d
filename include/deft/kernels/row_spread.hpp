/// \file
/// How far the rows of a matrix lie from their mean: sums of squared deviations that do not cancel. C++17.
///
/// A mean is kept as `origin + offset`, origin being a row of the data: a large row that all have in common costs no
/// digits, and equal rows have offset 0 and deviation 0 exactly. Two ways: `add_row_spread` reads once, at the speed of
/// memory, and is right while squares neither overflow nor vanish in T; `add_row_spread_scaled` reads twice, in double.
#ifndef DEFT_KERNELS_ROW_SPREAD_HPP
#define DEFT_KERNELS_ROW_SPREAD_HPP

#include <deft/simd/loop.hpp>

#include <algorithm>
#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Columns whose sums are carried by themselves, so that results do not depend on where a range of columns is cut.
inline constexpr index spread_chunk = 256;

/// Over some columns: sum of (h - mean)^2 over all rows, and sum of mean^2.
struct spread_sums {
    double spread = 0, mean_square = 0;

    void add(const spread_sums& other) noexcept {
        spread += other.spread;
        mean_square += other.mean_square;
    }
};

namespace detail {

inline constexpr index spread_run = 8; // rows whose deviations are summed in T; runs are merged in double
// Columns at a time: longer runs along a row are fewer streams per byte for the prefetcher. 1024 lost an eighth.
inline constexpr index spread_strip = 4096;

// One vector of columns: `rows` rows at p are merged into `offset` and `spread` (Chan's update) after `before` others.
template <class Arch, class T, class Rows, class Extent>
DEFT_ALWAYS_INLINE void merge_run(const T* p, const T* origin, index stride, Rows rows, index before, Extent extent,
                                  double* offset, double* spread) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    const index n = rows;
    const B first = simd::load<Arch>(p, extent);
    B sum(T(0)), squares(T(0));
    const auto add_row = [&](index r) DEFT_INLINE_LAMBDA {
        const B x = simd::load<Arch>(p + r * stride, extent) - first;
        sum = sum + x;
        squares = simd::fma(x, x, squares);
    };
    if constexpr (std::is_same_v<Rows, index>) {
        for (index r = 1; r < n; ++r)
            add_row(r);
    } else {
        DEFT_UNROLL
        for (index r = 1; r < Rows::value; ++r)
            add_row(r);
    }
    const B mean = sum * B(T(1) / T(n));
    alignas(64) T firsts[std::size_t(width)], origins[std::size_t(width)], means[std::size_t(width)],
        squares_about_mean[std::size_t(width)];
    simd::store(firsts, first);
    simd::store(origins, simd::load<Arch>(origin, extent));
    simd::store(means, mean);
    simd::store(squares_about_mean, simd::fma(-mean, sum, squares));

    // Local arrays, which compilers see not to overlap: these loops become vector conversions.
    alignas(64) double at[std::size_t(width)], added[std::size_t(width)];
    for (index lane = 0; lane < width; ++lane)
        at[lane] = (double(firsts[lane]) - double(origins[lane])) + double(means[lane]);
    for (index lane = 0; lane < width; ++lane)
        added[lane] = double(squares_about_mean[lane]);

    using D = simd::batch<double, Arch>;
    constexpr index step = simd::lanes<double, Arch>;
    const double share = double(n) / double(before + n);
    const D into_mean(share), into_spread(double(before) * share);
    DEFT_UNROLL
    for (index lane = 0; lane < width; lane += step) {
        const D old = simd::load<Arch>(offset + lane);
        const D delta = simd::load<Arch>(at + lane) - old;
        const D more = simd::fma(delta * into_spread, delta, simd::load<Arch>(added + lane));
        simd::store<double>(spread + lane, simd::load<Arch>(spread + lane) + more);
        simd::store<double>(offset + lane, simd::fma(delta, into_mean, old));
    }
}

} // namespace detail

/// Adds the sums of columns [0, columns) of `rows` >= 1 rows to sums[c / segment]; `segment` is a multiple of
/// spread_chunk. The origin is the first row.
template <class Arch, class T>
void add_row_spread(const T* h, index stride, index rows, index columns, index segment, spread_sums* sums) noexcept {
    using namespace detail;
    constexpr index width = simd::lanes<T, Arch>;
    static_assert(spread_chunk % width == 0 && spread_strip % spread_chunk == 0, "vectors do not straddle chunks");
    for (index c = 0; c < columns; c += spread_strip) {
        const T* const strip = h + c;
        const index strip_columns = std::min(spread_strip, columns - c);
        alignas(64) double offset[std::size_t(spread_strip)] = {};
        alignas(64) double spread[std::size_t(spread_strip / spread_chunk)][std::size_t(width)] = {};
        for (index r = 0; r < rows; r += spread_run) {
            const T* const run = strip + r * stride;
            const auto merge = [&](auto count) DEFT_INLINE_LAMBDA {
                simd::for_each_vector<T, Arch, 1>(strip_columns, [&](index i, auto, auto extent) DEFT_INLINE_LAMBDA {
                    merge_run<Arch>(run + i, strip + i, stride, count, r, extent, offset + i, spread[i / spread_chunk]);
                });
            };
            if (rows - r >= spread_run)
                merge(std::integral_constant<index, spread_run>{});
            else
                merge(rows - r);
        }
        for (index i = 0; i < strip_columns; i += spread_chunk) {
            spread_sums chunk;
            for (const double s : spread[i / spread_chunk])
                chunk.spread += s;
            for (index j = i; j < std::min(i + spread_chunk, strip_columns); ++j) {
                const double mean = double(strip[j]) + offset[j];
                chunk.mean_square += mean * mean;
            }
            sums[(c + i) / segment].add(chunk);
        }
    }
}

// ---- in double, of h times `scale` ---------------------------------------------------------------------------------

/// offset[c] = mean of column c less origin[c].
template <class T>
void column_offsets(const T* h, index stride, index rows, index columns, const T* origin, double scale,
                    double* offset) noexcept {
    std::fill_n(offset, columns, 0.0);
    for (index r = 0; r < rows; ++r)
        for (index c = 0; c < columns; ++c)
            offset[c] += double(h[r * stride + c]) * scale - double(origin[c]) * scale;
    for (index c = 0; c < columns; ++c)
        offset[c] /= double(rows);
}

/// Sum of squared distances from origin + offset; at most spread_chunk columns.
template <class T>
double spread_about(const T* h, index stride, index rows, index columns, const T* origin, double scale,
                    const double* offset) noexcept {
    double squares[std::size_t(spread_chunk)] = {};
    for (index r = 0; r < rows; ++r)
        for (index c = 0; c < columns; ++c) {
            const double x = (double(h[r * stride + c]) * scale - double(origin[c]) * scale) - offset[c];
            squares[c] += x * x;
        }
    double sum = 0;
    for (index c = 0; c < columns; ++c)
        sum += squares[c];
    return sum;
}

/// As add_row_spread, of h times `scale`.
template <class T>
void add_row_spread_scaled(const T* h, index stride, index rows, index columns, index segment, double scale,
                           spread_sums* sums) noexcept {
    double offset[std::size_t(spread_chunk)];
    for (index c = 0; c < columns; c += spread_chunk) {
        const index count = std::min(spread_chunk, columns - c);
        column_offsets(h + c, stride, rows, count, h + c, scale, offset);
        spread_sums chunk{spread_about(h + c, stride, rows, count, h + c, scale, offset), 0};
        for (index j = 0; j < count; ++j) {
            const double mean = double(h[c + j]) * scale + offset[j];
            chunk.mean_square += mean * mean;
        }
        sums[c / segment].add(chunk);
    }
}

/// grad = of_deviation (x - mean) - of_value x, x = h times `scale`. grad must not overlap h.
template <class T>
void row_spread_gradient(const T* h, index stride, index rows, index columns, double scale, double of_deviation,
                         double of_value, T* DEFT_RESTRICT grad, index grad_stride) noexcept {
    double offset[std::size_t(spread_chunk)];
    for (index c = 0; c < columns; c += spread_chunk) {
        const index count = std::min(spread_chunk, columns - c);
        column_offsets(h + c, stride, rows, count, h + c, scale, offset);
        for (index r = 0; r < rows; ++r)
            for (index j = 0; j < count; ++j) {
                const double x = double(h[r * stride + c + j]) * scale;
                const double deviation = (x - double(h[c + j]) * scale) - offset[j];
                grad[r * grad_stride + c + j] = T(of_deviation * deviation - of_value * x);
            }
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

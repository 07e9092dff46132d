/// \file
/// Rounding to a uniform grid and back, on a run of elements that share a step size; its straight-through gradient; and
/// the range of a run. C++17.
///
/// Contract: any length, any alignment. y may be x; grad_x may be grad_y; nothing else may overlap.
///
/// The grid is clipped in shifted codes, round(x / s) between least - z and greatest - z: no zero point is added to
/// what is rounded, and y = s (clipped) needs no subtraction. Clipping comes before any conversion to integers, so that
/// quotients of any size, infinities and NaN are defined.
#ifndef DEFT_KERNELS_FAKE_QUANTIZE_HPP
#define DEFT_KERNELS_FAKE_QUANTIZE_HPP

#include <deft/kernels/streamed_blocks.hpp>
#include <deft/simd/loop.hpp>
#include <deft/simd/math.hpp>
#include <deft/simd/rounded_quotient.hpp>

#include <cstdint>
#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

template <class T>
struct quant_grid {
    T step, least, greatest; ///< least and greatest code less the zero point
    T zero_point;
};

/// Codes of a batch, which are integers between -2^22 and 2^22 (2^51 for double); NaN gives any.
/// Adding 1.5 2^23 leaves an integer in the low bits: no conversion, which double lacks before AVX-512.
template <class T, class Arch, class Extent>
DEFT_ALWAYS_INLINE void store_codes(std::int32_t* q, const simd::batch<T, Arch>& code, Extent extent) noexcept {
    using B = simd::batch<T, Arch>;
    using I = simd::integer_of<T>;
    constexpr T rounder = simd::detail::exp_constants<T>::rounder;
    const auto bits = simd::bit_cast<I>(code + B(rounder)) - simd::bit_cast<I>(B(rounder));
    if constexpr (sizeof(I) == sizeof(std::int32_t)) {
        simd::store(q, bits, extent);
    } else {
        constexpr index width = simd::lanes<T, Arch>;
        alignas(64) I wide[std::size_t(width)];
        bits.store_aligned(wide);
        index count = width;
        if constexpr (std::is_same_v<Extent, simd::partial>)
            count = extent.count;
        for (index i = 0; i < count; ++i)
            q[i] = static_cast<std::int32_t>(wide[i]);
    }
}

/// y[i] = step clip(round(x[i] / step)), and the codes into q unless it is null. Streaming writes whole vectors of y
/// past the caches.
template <class Arch, bool Streaming = false, class T>
DEFT_ALWAYS_INLINE void fake_quantize(const T* x, index n, quant_grid<T> grid, T* y, std::int32_t* q) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    const B step(grid.step), least(grid.least), greatest(grid.greatest), zero(grid.zero_point);
    const simd::rounded_quotient<T, Arch> quotient(grid.step,
                                                   -grid.least > grid.greatest ? -grid.least : grid.greatest);
    stream_from_line<Streaming>(y, n, [&](auto past_caches, index begin, index end) DEFT_INLINE_LAMBDA {
        simd::for_each_vector<T, Arch, 4>(end - begin, [&](index at, auto count, auto extent) DEFT_INLINE_LAMBDA {
            simd::ask_ahead<T, Arch, decltype(count)::value>(x + begin + at);
            DEFT_UNROLL
            for (int v = 0; v < decltype(count)::value; ++v) {
                const index i = begin + at + v * width;
                const B code =
                    simd::at_least(least, simd::at_most(greatest, quotient(simd::load<Arch>(x + i, extent))));
                store_past(past_caches, y + i, B(code * step), extent);
                if (q != nullptr)
                    store_codes<T, Arch>(q + i, B(code + zero), extent);
            }
        });
    });
}

/// grad_x[i] = grad_y[i] where the code is inside of the grid, else 0; returns the sum of
/// grad_y (clipped code - x / step inside), which is the gradient of the step.
template <class Arch, class T>
DEFT_ALWAYS_INLINE double fake_quantize_gradient(const T* x, const T* grad_y, index n, quant_grid<T> grid,
                                                 T* grad_x) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    constexpr int unroll = 4;
    constexpr index block = 64 * unroll * width; // of sums in T
    const B step(grid.step), least(grid.least), greatest(grid.greatest);
    double total = 0;
    for (index first = 0; first < n; first += block) {
        B sums[unroll] = {B(T(0)), B(T(0)), B(T(0)), B(T(0))};
        simd::for_each_vector<T, Arch, unroll>(
            n - first < block ? n - first : block, [&](index at, auto count, auto extent) DEFT_INLINE_LAMBDA {
                DEFT_UNROLL
                for (int v = 0; v < decltype(count)::value; ++v) {
                    const index i = first + at + v * width;
                    const B u = simd::load<Arch>(x + i, extent) / step, code = simd::round_even(u),
                            g = simd::load<Arch>(grad_y + i, extent);
                    const auto inside = code >= least && code <= greatest;
                    const B clipped = simd::at_least(least, simd::at_most(greatest, code));
                    sums[v] = simd::fma(g, B(clipped - simd::keep_if(inside, u)), sums[v]);
                    simd::store(grad_x + i, simd::keep_if(inside, g), extent);
                }
            });
        total += double(simd::reduce_add(B((sums[0] + sums[1]) + (sums[2] + sums[3]))));
    }
    return total;
}

template <class T>
struct value_range {
    T least, greatest; ///< of an empty range: the greatest number and its negative
};

/// Least and greatest element; NaN is passed over.
template <class Arch, class T>
DEFT_ALWAYS_INLINE value_range<T> range_of(const T* x, index n, value_range<T> so_far) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    index i = 0;
    if (n >= 2 * width) {
        B low[2] = {B(so_far.least), B(so_far.least)}, high[2] = {B(so_far.greatest), B(so_far.greatest)};
        for (; i + 2 * width <= n; i += 2 * width) {
            DEFT_UNROLL
            for (int v = 0; v < 2; ++v) {
                const B value = simd::load<Arch>(x + i + v * width);
                low[v] = simd::at_most(value, low[v]); // the second operand, if there is a NaN
                high[v] = simd::at_least(value, high[v]);
            }
        }
        alignas(64) T lows[std::size_t(width)], highs[std::size_t(width)];
        simd::min(low[0], low[1]).store_aligned(lows);
        simd::max(high[0], high[1]).store_aligned(highs);
        for (index half = width / 2; half > 0; half /= 2) // as pairs: a chain over all lanes would wait for each
            for (index k = 0; k < half; ++k) {
                lows[k] = lows[k + half] < lows[k] ? lows[k + half] : lows[k];
                highs[k] = highs[k + half] > highs[k] ? highs[k + half] : highs[k];
            }
        so_far = {lows[0], highs[0]};
    }
    for (const T *p = x + i, *const end = x + n; p != end; ++p) {
        so_far.least = *p < so_far.least ? *p : so_far.least;
        so_far.greatest = *p > so_far.greatest ? *p : so_far.greatest;
    }
    return so_far;
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

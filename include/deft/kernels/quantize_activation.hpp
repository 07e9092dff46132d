/// \file
/// Codes of 8 bits or fewer for a row of numbers, with the step size found from the row. C++17.
///
/// Codes are signed bytes: those of an asymmetric range are moved down by 2^(bits - 1), and the zero point with them.
/// Any length, any alignment; outputs must not overlap the input.
#ifndef DEFT_KERNELS_QUANTIZE_ACTIVATION_HPP
#define DEFT_KERNELS_QUANTIZE_ACTIVATION_HPP

#include <deft/simd/loop.hpp>
#include <deft/simd/rounded_quotient.hpp>

#include <cmath>
#include <cstdint>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// A code range, and what moves its codes into a signed byte.
struct activation_range {
    int lowest, highest; ///< before they are moved
    int moved;           ///< subtracted from codes and zero points

    static constexpr activation_range of(int bits, bool symmetric) noexcept {
        const int half = 1 << (bits - 1);
        return symmetric ? activation_range{-half, half - 1, 0} : activation_range{0, 2 * half - 1, half};
    }
};

/// A step size and its zero point, which is moved.
template <class T>
struct activation_step {
    T scale;
    std::int32_t zero;
};

namespace detail {

template <class T>
DEFT_ALWAYS_INLINE T clamped_step(T scale) noexcept {
    return scale < T(1e-10) ? T(1e-10) : scale > T(1e30) ? T(1e30) : scale; // NaN stays
}

} // namespace detail

/// Min-max: scale = max|x| / highest, zero point 0; or, if `lowest` is 0, scale = (hi - lo) / highest for a range that
/// includes 0, zero point round(-lo / scale), both rounded half to even. The scale is NaN if an x is.
template <class Arch, class T>
activation_step<T> find_step(const T* x, index n, const activation_range& range) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    B low(T(0)), high(T(0)), nan(T(0));
    simd::for_each_vector<T, Arch, 1>(n, [&](index i, auto, auto extent) DEFT_INLINE_LAMBDA {
        const B v = simd::load<Arch>(x + i, extent); // zeros behind the end: both ranges include 0
        const auto is_number = v == v;
        const B number = simd::keep_if(is_number, v);
        low = simd::min(low, number);
        high = simd::max(high, number);
        nan = simd::select(is_number, nan, v);
    });
    alignas(64) T lows[static_cast<std::size_t>(width)], highs[static_cast<std::size_t>(width)];
    alignas(64) T nans[static_cast<std::size_t>(width)];
    low.store_aligned(lows);
    high.store_aligned(highs);
    nan.store_aligned(nans);
    T lo = 0, hi = 0, bad = 0;
    for (index i = 0; i < width; ++i) {
        lo = lows[i] < lo ? lows[i] : lo;
        hi = highs[i] > hi ? highs[i] : hi;
        bad += nans[i];
    }
    if (range.lowest < 0)
        return {detail::clamped_step((-lo > hi ? -lo : hi) / static_cast<T>(range.highest)) + bad, 0};
    const T scale = detail::clamped_step((hi - lo) / static_cast<T>(range.highest));
    const T zero = -lo / scale;
    const T nearest = std::nearbyint(zero < T(1e4) ? zero : T(1e4));
    return {scale + bad, static_cast<std::int32_t>(nearest) - range.moved};
}

/// codes[i] = clip(round(x[i] / scale) + zero, lowest, highest), moved; infinities saturate, NaN gives some code. Codes
/// up to the next multiple of 32 become 0. Returns the sum of codes[i] - zero over the n.
template <class Arch, class T>
std::int32_t quantize_codes(const T* x, index n, const activation_step<T>& step, const activation_range& range,
                            std::int8_t* codes) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index block = 32;
    const B zero(static_cast<T>(step.zero));
    const simd::rounded_quotient<T, Arch> quotient(step.scale, T(256) + std::abs(static_cast<T>(step.zero)));
    const B lowest(static_cast<T>(range.lowest - range.moved)), highest(static_cast<T>(range.highest - range.moved));
    std::int32_t sum = 0;
    for (index i = 0; i < n; i += block) {
        alignas(64) T clipped[std::size_t(block)] = {};
        const index count = n - i < block ? n - i : block;
        simd::for_each_vector<T, Arch, 1>(count, [&](index j, auto, auto extent) DEFT_INLINE_LAMBDA {
            const B code = quotient(simd::load<Arch>(x + i + j, extent)) + zero;
            simd::store(clipped + j, simd::min(simd::max(simd::select(code == code, code, zero), lowest), highest),
                        extent);
        });
        std::int32_t block_sum = 0;
        for (index j = 0; j < block; ++j) {
            const auto code = static_cast<std::int32_t>(clipped[j]);
            codes[i + j] = static_cast<std::int8_t>(code);
            block_sum += code;
        }
        sum += block_sum - static_cast<std::int32_t>(count) * step.zero;
    }
    return sum;
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

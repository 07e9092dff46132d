/// \file
/// Comparisons of 64 elements as the bits of a word. C++17.
#ifndef DEFT_SIMD_MASK_BITS_HPP
#define DEFT_SIMD_MASK_BITS_HPP

#include <deft/simd/batch.hpp>

#include <cstdint>

namespace deft {
inline namespace DEFT_ISA {
namespace simd {

/// Bit l tells of lane l.
template <class T, class Arch>
DEFT_ALWAYS_INLINE std::uint64_t mask_bits(const mask<T, Arch>& condition) noexcept {
    constexpr index n = lanes<T, Arch>;
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<T, float> && n == 16)
        return std::uint64_t(static_cast<__mmask16>(condition));
    if constexpr (std::is_same_v<T, double> && n == 8)
        return std::uint64_t(static_cast<__mmask8>(condition));
#elif defined(DEFT_SIMD_X86)
    if constexpr (std::is_same_v<T, float> && n == 4)
        return std::uint64_t(_mm_movemask_ps(condition));
    if constexpr (std::is_same_v<T, double> && n == 2)
        return std::uint64_t(_mm_movemask_pd(condition));
#if defined(__AVX__)
    if constexpr (std::is_same_v<T, float> && n == 8)
        return std::uint64_t(_mm256_movemask_ps(condition));
    if constexpr (std::is_same_v<T, double> && n == 4)
        return std::uint64_t(_mm256_movemask_pd(condition));
#endif
#endif
    bool lane[static_cast<std::size_t>(n)];
    condition.store_unaligned(lane);
    std::uint64_t bits = 0;
    for (index i = 0; i < n; ++i)
        bits |= std::uint64_t(lane[i]) << i;
    return bits;
}

/// False if a lane is NaN.
template <class T, class Arch>
DEFT_ALWAYS_INLINE bool all_below(const batch<T, Arch>& x, T limit) noexcept {
    constexpr std::uint64_t all = (std::uint64_t(1) << lanes<T, Arch>)-1;
    return mask_bits<T, Arch>(x < batch<T, Arch>(limit)) == all;
}

/// Bits of |x[i]| > limit and of |x[i]| == limit for 64 elements, none of them NaN.
template <class Arch, class T>
DEFT_ALWAYS_INLINE void compare_magnitudes(const T* x, T limit, std::uint64_t& above, std::uint64_t& equal) noexcept {
    using B = batch<T, Arch>;
    constexpr index width = lanes<T, Arch>;
    static_assert(64 % width == 0);
    const B bound(limit);
    above = equal = 0;
    DEFT_UNROLL
    for (index i = 0; i < 64; i += width) {
        const B value = simd::abs(load<Arch>(x + i));
        above |= mask_bits<T, Arch>(value > bound) << i;
        equal |= mask_bits<T, Arch>(value == bound) << i;
    }
}

} // namespace simd
} // namespace DEFT_ISA
} // namespace deft

#endif

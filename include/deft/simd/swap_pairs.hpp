/// \file
/// Exchange of neighbouring lanes: pairs of real and imaginary parts. C++17.
#ifndef DEFT_SIMD_SWAP_PAIRS_HPP
#define DEFT_SIMD_SWAP_PAIRS_HPP

#include <deft/simd/batch.hpp>

#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace simd {
namespace detail {
// One shuffle; the swizzles of xsimd 8.1 take two steps where the register is wide.
#if defined(DEFT_SIMD_X86)
DEFT_ALWAYS_INLINE __m128 swap_pairs(__m128 x) noexcept {
    return _mm_shuffle_ps(x, x, 0xb1);
}
DEFT_ALWAYS_INLINE __m128d swap_pairs(__m128d x) noexcept {
    return _mm_shuffle_pd(x, x, 1);
}
#endif
#if defined(__AVX__)
DEFT_ALWAYS_INLINE __m256 swap_pairs(__m256 x) noexcept {
    return _mm256_permute_ps(x, 0xb1);
}
DEFT_ALWAYS_INLINE __m256d swap_pairs(__m256d x) noexcept {
    return _mm256_permute_pd(x, 5);
}
#endif
#if defined(__AVX512F__)
DEFT_ALWAYS_INLINE __m512 swap_pairs(__m512 x) noexcept {
    return _mm512_permute_ps(x, 0xb1);
}
DEFT_ALWAYS_INLINE __m512d swap_pairs(__m512d x) noexcept {
    return _mm512_permute_pd(x, 0x55);
}
#endif
} // namespace detail

/// Lane 2j changes places with lane 2j + 1.
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> swap_pairs(const batch<T, Arch>& x) noexcept {
#if defined(DEFT_SIMD_X86)
    if constexpr (std::is_floating_point_v<T>)
        return detail::swap_pairs(static_cast<typename batch<T, Arch>::register_type>(x));
#endif
    constexpr index n = lanes<T, Arch>;
    alignas(64) T from[static_cast<std::size_t>(n)], to[static_cast<std::size_t>(n)];
    x.store_aligned(from);
    for (index i = 0; i < n; ++i)
        to[i] = from[i ^ 1];
    return batch<T, Arch>::load_aligned(to);
}

} // namespace simd
} // namespace DEFT_ISA
} // namespace deft

#endif

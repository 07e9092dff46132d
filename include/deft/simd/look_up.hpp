/// \file
/// Lookups in a table that one vector holds. C++17.
#ifndef DEFT_SIMD_LOOK_UP_HPP
#define DEFT_SIMD_LOOK_UP_HPP

#include <deft/simd/batch.hpp>

#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace simd {

/// Whether one instruction picks any lane of a vector for each lane: float on AVX2 and AVX-512.
template <class T, class Arch>
inline constexpr bool can_look_up =
#if defined(__AVX2__)
    std::is_same_v<T, float>&& lanes<float, Arch> >= 8;
#else
    false;
#endif

/// Lane l gets lane at[l] of the table.
template <class Arch>
DEFT_ALWAYS_INLINE batch<float, Arch> look_up([[maybe_unused]] const batch<float, Arch>& table,
                                              [[maybe_unused]] const batch<integer_of<float>, Arch>& at) noexcept {
    static_assert(can_look_up<float, Arch>, "no instruction for it");
#if defined(__AVX512F__)
    if constexpr (lanes<float, Arch> == 16)
        return _mm512_permutexvar_ps(at, table);
    else
#endif
#if defined(__AVX2__)
        return _mm256_permutevar8x32_ps(table, at);
#endif
}

} // namespace simd
} // namespace DEFT_ISA
} // namespace deft

#endif

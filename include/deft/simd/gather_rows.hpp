/// \file
/// Reads one row of four values per lane: from a table, for piecewise cubics, or one after the other. C++17.
#ifndef DEFT_SIMD_GATHER_ROWS_HPP
#define DEFT_SIMD_GATHER_ROWS_HPP

#include <deft/simd/batch.hpp>

#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace simd {

template <class T, class Arch>
struct four {
    batch<T, Arch> c0, c1, c2, c3;
};

namespace detail {
#if defined(DEFT_SIMD_X86)
// Whole rows are loaded and transposed: four gather instructions load every value by itself and take twice as long.
// Below, m0 holds rows 0, 4, ..., m1 rows 1, 5, ..., so that a transposition inside 128-bit parts leaves lanes in
// order.
#if defined(__AVX512F__)
template <class Arch>
DEFT_ALWAYS_INLINE four<float, Arch> transpose_rows(__m512 m0, __m512 m1, __m512 m2, __m512 m3) noexcept {
    const __m512 a = _mm512_unpacklo_ps(m0, m1), b = _mm512_unpacklo_ps(m2, m3);
    const __m512 c = _mm512_unpackhi_ps(m0, m1), d = _mm512_unpackhi_ps(m2, m3);
    return {_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee), _mm512_shuffle_ps(c, d, 0x44),
            _mm512_shuffle_ps(c, d, 0xee)};
}
#endif
#if defined(__AVX__)
template <class Arch>
DEFT_ALWAYS_INLINE four<float, Arch> transpose_rows(__m256 m0, __m256 m1, __m256 m2, __m256 m3) noexcept {
    const __m256 a = _mm256_unpacklo_ps(m0, m1), b = _mm256_unpacklo_ps(m2, m3);
    const __m256 c = _mm256_unpackhi_ps(m0, m1), d = _mm256_unpackhi_ps(m2, m3);
    return {_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee), _mm256_shuffle_ps(c, d, 0x44),
            _mm256_shuffle_ps(c, d, 0xee)};
}
#endif
#endif
} // namespace detail

namespace detail {
// Lane l of c_j is row(l)[j].
template <class T, class Arch, class Row>
DEFT_ALWAYS_INLINE four<T, Arch> load_rows_of_four(Row&& row) noexcept {
    constexpr index n = lanes<T, Arch>;
#if defined(DEFT_SIMD_X86)
    if constexpr (std::is_same_v<T, float>) {
        const auto load_row = [&](index lane) { return _mm_loadu_ps(row(lane)); };
#if defined(__AVX512F__)
        if constexpr (n == 16) {
            const auto quad = [&](index lane) {
                const __m512 two = _mm512_insertf32x4(_mm512_castps128_ps512(load_row(lane)), load_row(lane + 4), 1);
                return _mm512_insertf32x4(_mm512_insertf32x4(two, load_row(lane + 8), 2), load_row(lane + 12), 3);
            };
            return transpose_rows<Arch>(quad(0), quad(1), quad(2), quad(3));
        }
#endif
#if defined(__AVX__)
        if constexpr (n == 8) {
            const auto pair = [&](index lane) {
                return _mm256_insertf128_ps(_mm256_castps128_ps256(load_row(lane)), load_row(lane + 4), 1);
            };
            return transpose_rows<Arch>(pair(0), pair(1), pair(2), pair(3));
        }
#endif
        if constexpr (n == 4) {
            __m128 m0 = load_row(0), m1 = load_row(1), m2 = load_row(2), m3 = load_row(3);
            _MM_TRANSPOSE4_PS(m0, m1, m2, m3);
            return {m0, m1, m2, m3};
        }
    }
#endif
    alignas(64) T columns[4][static_cast<std::size_t>(n)];
    for (index lane = 0; lane < n; ++lane)
        for (index j = 0; j < 4; ++j)
            columns[j][lane] = row(lane)[j];
    using B = batch<T, Arch>;
    return {B::load_aligned(columns[0]), B::load_aligned(columns[1]), B::load_aligned(columns[2]),
            B::load_aligned(columns[3])};
}
} // namespace detail

/// Lane l gets table[4 rows[l] + j] in c_j. `rows` are whole numbers that lie inside the table.
template <class T, class Arch>
DEFT_ALWAYS_INLINE four<T, Arch> gather_rows(const T* table, const batch<T, Arch>& rows) noexcept {
    alignas(64) integer_of<T> at[static_cast<std::size_t>(lanes<T, Arch>)];
    xsimd::to_int(rows).store_aligned(at);
    return detail::load_rows_of_four<T, Arch>([&](index lane) { return table + 4 * at[lane]; });
}

/// Lane l gets from[l * stride + j] in c_j.
template <class Arch, class T>
DEFT_ALWAYS_INLINE four<T, Arch> load_rows_of_four(const T* from, index stride) noexcept {
    return detail::load_rows_of_four<T, Arch>([&](index lane) { return from + lane * stride; });
}

} // namespace simd
} // namespace DEFT_ISA
} // namespace deft

#endif

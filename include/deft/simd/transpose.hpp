/// \file
/// Transposition of a square of vectors, in registers and on the way from or to memory: the bridge between layouts.
/// C++17.
#ifndef DEFT_SIMD_TRANSPOSE_HPP
#define DEFT_SIMD_TRANSPOSE_HPP

#include <deft/simd/batch.hpp>

#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace simd {
namespace detail {

// x86 works in two steps. First each 128-bit part of 4 (2 for double) neighbouring rows is transposed by itself; then
// parts change places between the rows that are 4 (2) apart. xsimd 8.1 has no transpose, and its zips need twice as
// many shuffles.
#if defined(DEFT_SIMD_X86)
DEFT_ALWAYS_INLINE void transpose_parts(__m128* r) noexcept {
    const __m128 a = _mm_unpacklo_ps(r[0], r[1]), b = _mm_unpackhi_ps(r[0], r[1]);
    const __m128 c = _mm_unpacklo_ps(r[2], r[3]), d = _mm_unpackhi_ps(r[2], r[3]);
    r[0] = _mm_movelh_ps(a, c);
    r[1] = _mm_movehl_ps(c, a);
    r[2] = _mm_movelh_ps(b, d);
    r[3] = _mm_movehl_ps(d, b);
}
DEFT_ALWAYS_INLINE void transpose_parts(__m128d* r) noexcept {
    const __m128d a = r[0];
    r[0] = _mm_unpacklo_pd(a, r[1]);
    r[1] = _mm_unpackhi_pd(a, r[1]);
}
template <int Step>
DEFT_ALWAYS_INLINE void exchange_parts(__m128*) noexcept {}
template <int Step>
DEFT_ALWAYS_INLINE void exchange_parts(__m128d*) noexcept {}
#endif

#if defined(__AVX__)
DEFT_ALWAYS_INLINE void transpose_parts(__m256* r) noexcept {
    const __m256 a = _mm256_unpacklo_ps(r[0], r[1]), b = _mm256_unpackhi_ps(r[0], r[1]);
    const __m256 c = _mm256_unpacklo_ps(r[2], r[3]), d = _mm256_unpackhi_ps(r[2], r[3]);
    r[0] = _mm256_shuffle_ps(a, c, 0x44);
    r[1] = _mm256_shuffle_ps(a, c, 0xee);
    r[2] = _mm256_shuffle_ps(b, d, 0x44);
    r[3] = _mm256_shuffle_ps(b, d, 0xee);
}
DEFT_ALWAYS_INLINE void transpose_parts(__m256d* r) noexcept {
    const __m256d a = r[0];
    r[0] = _mm256_unpacklo_pd(a, r[1]);
    r[1] = _mm256_unpackhi_pd(a, r[1]);
}
// Parts exchanged by loads and stores, which leaves the one port that shuffles a third less work.
DEFT_ALWAYS_INLINE __m256 load_parts(const float* low, const float* high) noexcept {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1);
}
DEFT_ALWAYS_INLINE __m256d load_parts(const double* low, const double* high) noexcept {
    return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(low)), _mm_loadu_pd(high), 1);
}
DEFT_ALWAYS_INLINE void store_parts(float* low, float* high, __m256 v) noexcept {
    _mm_storeu_ps(low, _mm256_castps256_ps128(v));
    _mm_storeu_ps(high, _mm256_extractf128_ps(v, 1));
}
DEFT_ALWAYS_INLINE void store_parts(double* low, double* high, __m256d v) noexcept {
    _mm_storeu_pd(low, _mm256_castpd256_pd128(v));
    _mm_storeu_pd(high, _mm256_extractf128_pd(v, 1));
}
template <int Step>
DEFT_ALWAYS_INLINE void exchange_parts(__m256* r) noexcept {
    const __m256 a = r[0];
    r[0] = _mm256_permute2f128_ps(a, r[Step], 0x20);
    r[Step] = _mm256_permute2f128_ps(a, r[Step], 0x31);
}
template <int Step>
DEFT_ALWAYS_INLINE void exchange_parts(__m256d* r) noexcept {
    const __m256d a = r[0];
    r[0] = _mm256_permute2f128_pd(a, r[Step], 0x20);
    r[Step] = _mm256_permute2f128_pd(a, r[Step], 0x31);
}
#endif

#if defined(__AVX512F__)
DEFT_ALWAYS_INLINE void transpose_parts(__m512* r) noexcept {
    const __m512 a = _mm512_unpacklo_ps(r[0], r[1]), b = _mm512_unpackhi_ps(r[0], r[1]);
    const __m512 c = _mm512_unpacklo_ps(r[2], r[3]), d = _mm512_unpackhi_ps(r[2], r[3]);
    r[0] = _mm512_shuffle_ps(a, c, 0x44);
    r[1] = _mm512_shuffle_ps(a, c, 0xee);
    r[2] = _mm512_shuffle_ps(b, d, 0x44);
    r[3] = _mm512_shuffle_ps(b, d, 0xee);
}
DEFT_ALWAYS_INLINE void transpose_parts(__m512d* r) noexcept {
    const __m512d a = r[0];
    r[0] = _mm512_unpacklo_pd(a, r[1]);
    r[1] = _mm512_unpackhi_pd(a, r[1]);
}
template <int Step>
DEFT_ALWAYS_INLINE void exchange_parts(__m512* r) noexcept {
    const __m512 a = _mm512_shuffle_f32x4(r[0], r[Step], 0x88), b = _mm512_shuffle_f32x4(r[0], r[Step], 0xdd);
    const __m512 c = _mm512_shuffle_f32x4(r[2 * Step], r[3 * Step], 0x88);
    const __m512 d = _mm512_shuffle_f32x4(r[2 * Step], r[3 * Step], 0xdd);
    r[0] = _mm512_shuffle_f32x4(a, c, 0x88);
    r[Step] = _mm512_shuffle_f32x4(b, d, 0x88);
    r[2 * Step] = _mm512_shuffle_f32x4(a, c, 0xdd);
    r[3 * Step] = _mm512_shuffle_f32x4(b, d, 0xdd);
}
template <int Step>
DEFT_ALWAYS_INLINE void exchange_parts(__m512d* r) noexcept {
    const __m512d a = _mm512_shuffle_f64x2(r[0], r[Step], 0x88), b = _mm512_shuffle_f64x2(r[0], r[Step], 0xdd);
    const __m512d c = _mm512_shuffle_f64x2(r[2 * Step], r[3 * Step], 0x88);
    const __m512d d = _mm512_shuffle_f64x2(r[2 * Step], r[3 * Step], 0xdd);
    r[0] = _mm512_shuffle_f64x2(a, c, 0x88);
    r[Step] = _mm512_shuffle_f64x2(b, d, 0x88);
    r[2 * Step] = _mm512_shuffle_f64x2(a, c, 0xdd);
    r[3 * Step] = _mm512_shuffle_f64x2(b, d, 0xdd);
}
#endif

#if defined(DEFT_SIMD_X86)
template <class Register, int Lanes, int PartLanes>
DEFT_ALWAYS_INLINE void transpose_registers(Register* r) noexcept {
    DEFT_UNROLL
    for (int i = 0; i < Lanes; i += PartLanes)
        transpose_parts(r + i);
    DEFT_UNROLL
    for (int i = 0; i < PartLanes; ++i)
        exchange_parts<PartLanes>(r + i);
}
#endif

} // namespace detail

/// Lane j of row i changes places with lane i of row j.
template <class T, class Arch, std::size_t Lanes>
DEFT_ALWAYS_INLINE void transpose(batch<T, Arch> (&rows)[Lanes]) noexcept {
    static_assert(Lanes == std::size_t(lanes<T, Arch>), "as many rows as lanes");
    constexpr int n = static_cast<int>(Lanes);
#if defined(DEFT_SIMD_X86)
    if constexpr (std::is_floating_point_v<T>) {
        using Register = typename batch<T, Arch>::register_type;
        Register r[Lanes];
        DEFT_UNROLL
        for (int i = 0; i < n; ++i)
            r[i] = rows[i];
        detail::transpose_registers<Register, n, 16 / int(sizeof(T))>(r);
        DEFT_UNROLL
        for (int i = 0; i < n; ++i)
            rows[i] = r[i];
        return;
    }
#endif
    alignas(64) T square[Lanes][Lanes], transposed[Lanes][Lanes];
    for (int i = 0; i < n; ++i)
        rows[i].store_aligned(square[i]);
    for (int i = 0; i < n; ++i)
        for (int j = 0; j < n; ++j)
            transposed[j][i] = square[i][j];
    for (int i = 0; i < n; ++i)
        rows[i] = batch<T, Arch>::load_aligned(transposed[i]);
}

/// Lane i of columns[j] = from[i * stride + j].
template <class T, class Arch, std::size_t Lanes>
DEFT_ALWAYS_INLINE void load_transposed(const T* from, index stride, batch<T, Arch> (&columns)[Lanes]) noexcept {
    constexpr int n = static_cast<int>(Lanes);
#if defined(__AVX__)
    if constexpr (std::is_floating_point_v<T> && Lanes * sizeof(T) == 32) {
        constexpr int part = n / 2;
        typename batch<T, Arch>::register_type r[Lanes];
        DEFT_UNROLL
        for (int i = 0; i < n; ++i) {
            const T* const low = from + i % part * stride + i / part * part;
            r[i] = detail::load_parts(low, low + part * stride);
        }
        detail::transpose_parts(r);
        detail::transpose_parts(r + part);
        DEFT_UNROLL
        for (int i = 0; i < n; ++i)
            columns[i] = r[i];
        return;
    }
#endif
    DEFT_UNROLL
    for (int i = 0; i < n; ++i)
        columns[i] = simd::load<Arch>(from + i * stride);
    simd::transpose(columns);
}

/// to[i * stride + j] = lane i of columns[j].
template <class T, class Arch, std::size_t Lanes>
DEFT_ALWAYS_INLINE void store_transposed(batch<T, Arch> (&columns)[Lanes], T* to, index stride) noexcept {
    constexpr int n = static_cast<int>(Lanes);
#if defined(__AVX__)
    if constexpr (std::is_floating_point_v<T> && Lanes * sizeof(T) == 32) {
        constexpr int part = n / 2;
        typename batch<T, Arch>::register_type r[Lanes];
        DEFT_UNROLL
        for (int i = 0; i < n; ++i)
            r[i] = columns[i];
        detail::transpose_parts(r);
        detail::transpose_parts(r + part);
        DEFT_UNROLL
        for (int i = 0; i < n; ++i) {
            T* const low = to + i % part * stride + i / part * part;
            detail::store_parts(low, low + part * stride, r[i]);
        }
        return;
    }
#endif
    simd::transpose(columns);
    DEFT_UNROLL
    for (int i = 0; i < n; ++i)
        simd::store(to + i * stride, columns[i]); // not that of xsimd, which expects aligned memory
}

} // namespace simd
} // namespace DEFT_ISA
} // namespace deft

#endif

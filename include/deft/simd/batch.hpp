/// \file
/// One vector type over xsimd 8.1 up to current: loads and stores of any length and storage type, and what those
/// versions name differently, lack, or do slowly. Nothing outside this folder includes xsimd. C++17.
///
/// Call these functions qualified, as in simd::fma(a, b, c): unqualified, argument-dependent lookup finds xsimd's too.
/// Intrinsics stand here only where xsimd 8.1 has no such operation, each beside a portable path.
#ifndef DEFT_SIMD_BATCH_HPP
#define DEFT_SIMD_BATCH_HPP

#include <deft/config.hpp>
#include <deft/view.hpp>

#include <xsimd/xsimd.hpp>

#include <cstdint>
#include <type_traits>

#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#define DEFT_SIMD_X86 1
#endif

namespace deft {
inline namespace DEFT_ISA {
namespace simd {

/// The instruction set that the compiler's flags allow. Kernels take theirs as a template parameter.
using default_arch = xsimd::default_arch;

template <class T, class Arch = default_arch>
using batch = xsimd::batch<T, Arch>;
template <class T, class Arch = default_arch>
using mask = xsimd::batch_bool<T, Arch>;

template <class T, class Arch = default_arch>
inline constexpr index lanes = static_cast<index>(xsimd::batch<T, Arch>::size);

/// Signed integer of the same width: the lanes of a bit cast.
template <class T>
using integer_of = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;

namespace detail {
#if defined(__AVX512F__)
template <class Arch>
inline constexpr bool is_avx512 = std::is_base_of_v<xsimd::avx512f, Arch>;
#endif
} // namespace detail

// ---- arithmetic ----------------------------------------------------------------------------------------------------

using xsimd::abs;
using xsimd::max;
using xsimd::min;
using xsimd::nearbyint;
using xsimd::select;
using xsimd::sqrt;
using xsimd::trunc;

/// a b + c, rounded once where the hardware can.
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> fma(const batch<T, Arch>& a, const batch<T, Arch>& b,
                                      const batch<T, Arch>& c) noexcept {
#if defined(__AVX512F__) // xsimd 8.1 multiplies and adds here
    if constexpr (detail::is_avx512<Arch> && std::is_same_v<T, float>)
        return _mm512_fmadd_ps(a, b, c);
    else if constexpr (detail::is_avx512<Arch> && std::is_same_v<T, double>)
        return _mm512_fmadd_pd(a, b, c);
    else
#endif
        return xsimd::fma(a, b, c);
}

/// c - a b, rounded once where the hardware can.
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> fnma(const batch<T, Arch>& a, const batch<T, Arch>& b,
                                       const batch<T, Arch>& c) noexcept {
#if defined(__AVX512F__)
    if constexpr (detail::is_avx512<Arch> && std::is_same_v<T, float>)
        return _mm512_fnmadd_ps(a, b, c);
    else if constexpr (detail::is_avx512<Arch> && std::is_same_v<T, double>)
        return _mm512_fnmadd_pd(a, b, c);
    else
#endif
        return xsimd::fnma(a, b, c);
}

/// x where `condition` holds, else 0.
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> keep_if(const mask<T, Arch>& condition, const batch<T, Arch>& x) noexcept {
#if defined(DEFT_SIMD_X86) && !defined(__AVX512F__) // GCC makes a second comparison of the selection
    return x & batch<T, Arch>(condition.data);
#else
    return select(condition, x, batch<T, Arch>(T(0)));
#endif
}

/// The larger of `floor` and x, and NaN where x is NaN. On x86 a maximum returns its second operand when either is NaN.
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> at_least(const batch<T, Arch>& floor, const batch<T, Arch>& x) noexcept {
    return xsimd::max(floor, x);
}
/// The smaller of `ceiling` and x, and NaN where x is NaN.
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> at_most(const batch<T, Arch>& ceiling, const batch<T, Arch>& x) noexcept {
    return xsimd::min(ceiling, x);
}

/// The integer nearest to x, halves to the even one, whatever its size. (xsimd's round takes halves away from 0.)
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> round_even(const batch<T, Arch>& x) noexcept {
    return xsimd::nearbyint(x);
}

/// The greatest integer that is not above x, whatever its size.
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> floor(const batch<T, Arch>& x) noexcept {
#if defined(DEFT_SIMD_X86) && !defined(__SSE4_1__) // xsimd would convert to integers, and double has no such conversion
    const batch<T, Arch> nearest = xsimd::nearbyint(x);
    return nearest - keep_if(nearest > x, batch<T, Arch>(T(1)));
#else
    return xsimd::floor(x);
#endif
}

/// The same bits as another type of the same width.
template <class To, class From, class Arch>
DEFT_ALWAYS_INLINE batch<To, Arch> bit_cast(const batch<From, Arch>& x) noexcept {
#if XSIMD_VERSION_MAJOR >= 9
    return xsimd::bitwise_cast<To>(x);
#else
    return xsimd::bitwise_cast<batch<To, Arch>>(x);
#endif
}

/// Sum of the lanes.
template <class T, class Arch>
DEFT_ALWAYS_INLINE T reduce_add(const batch<T, Arch>& x) noexcept {
#if XSIMD_VERSION_MAJOR >= 9
    return xsimd::reduce_add(x);
#else
    return xsimd::hadd(x);
#endif
}

// ---- memory --------------------------------------------------------------------------------------------------------

/// How much of a vector a load or store may touch: `full`, or the first `count` elements only.
struct full {};
struct partial {
    index count; ///< 1 .. lanes
};

namespace detail {
#if defined(__AVX2__)
// The mask of the first `count` of eight floats or four doubles.
template <class T>
DEFT_ALWAYS_INLINE __m256i first_elements(index count) noexcept {
    if constexpr (sizeof(T) == 4)
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                                  _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    else
        return _mm256_cmpgt_epi64(_mm256_set1_epi64x(static_cast<long long>(count)), _mm256_setr_epi64x(0, 1, 2, 3));
}

// The first `count` elements, piece by piece: a masked store takes a dozen cycles on Zen 2 to 4.
DEFT_ALWAYS_INLINE void store_first(float* p, __m256 x, index count) noexcept {
    if ((count & 8) != 0)
        return _mm256_storeu_ps(p, x);
    __m128 rest = _mm256_castps256_ps128(x);
    if ((count & 4) != 0) {
        _mm_storeu_ps(p, rest);
        rest = _mm256_extractf128_ps(x, 1);
        p += 4;
    }
    if ((count & 2) != 0) {
        _mm_storel_pd(reinterpret_cast<double*>(p), _mm_castps_pd(rest));
        rest = _mm_movehl_ps(rest, rest);
        p += 2;
    }
    if ((count & 1) != 0)
        _mm_store_ss(p, rest);
}
DEFT_ALWAYS_INLINE void store_first(double* p, __m256d x, index count) noexcept {
    if ((count & 4) != 0)
        return _mm256_storeu_pd(p, x);
    __m128d rest = _mm256_castpd256_pd128(x);
    if ((count & 2) != 0) {
        _mm_storeu_pd(p, rest);
        rest = _mm256_extractf128_pd(x, 1);
        p += 2;
    }
    if ((count & 1) != 0)
        _mm_store_sd(p, rest);
}
#endif
} // namespace detail

/// Asks for the memory at p, which need not exist, before it is read. Functions that do nothing else must be inlined
/// always: g++ 12 takes them for pure, and drops their calls.
DEFT_ALWAYS_INLINE void prefetch([[maybe_unused]] const void* p) noexcept {
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(p);
#endif
}

/// The first lanes() elements of memory of type S as a vector of compute_t<S>; no alignment is needed.
template <class Arch, class S>
DEFT_ALWAYS_INLINE batch<compute_t<S>, Arch> load(const S* p, full = {}) noexcept {
    using T = compute_t<S>;
    if constexpr (std::is_same_v<S, T>) {
        return batch<T, Arch>::load_unaligned(p);
    } else {
        constexpr index n = lanes<T, Arch>;
#if defined(__AVX512F__)
        if constexpr (is_binary16<S> && n == 16)
            return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
        if constexpr (is_bfloat16<S> && n == 16)
            return _mm512_castsi512_ps(
                _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
#endif
#if defined(__F16C__)
        if constexpr (is_binary16<S> && n == 8)
            return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#endif
#if defined(__AVX2__)
        if constexpr (is_bfloat16<S> && n == 8)
            return _mm256_castsi256_ps(
                _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
#endif
        alignas(64) T wide[static_cast<std::size_t>(n)];
        for (index i = 0; i < n; ++i)
            wide[i] = static_cast<T>(p[i]);
        return batch<T, Arch>::load_aligned(wide);
    }
}

/// The first `part.count` elements; the other lanes are 0. Reads nothing behind them.
template <class Arch, class S>
DEFT_ALWAYS_INLINE batch<compute_t<S>, Arch> load(const S* p, partial part) noexcept {
    using T = compute_t<S>;
    constexpr index n = lanes<T, Arch>;
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<S, float> && n == 16)
        return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << part.count) - 1u), p);
    if constexpr (std::is_same_v<S, double> && n == 8)
        return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << part.count) - 1u), p);
#endif
#if defined(__AVX2__)
    if constexpr (std::is_same_v<S, float> && n == 8)
        return _mm256_maskload_ps(p, detail::first_elements<float>(part.count));
    if constexpr (std::is_same_v<S, double> && n == 4)
        return _mm256_maskload_pd(p, detail::first_elements<double>(part.count));
#endif
    alignas(64) T wide[static_cast<std::size_t>(n)] = {};
    for (index i = 0; i < part.count; ++i)
        wide[i] = static_cast<T>(p[i]);
    return batch<T, Arch>::load_aligned(wide);
}

namespace detail {
// Upper halves of floats, rounded to nearest even: bfloat16. NaN keeps its sign and becomes quiet.
#if defined(__AVX512F__)
DEFT_ALWAYS_INLINE __m256i to_bfloat16(__m512 x) noexcept {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __mmask16 is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_blend_epi32(is_nan, rounded, quiet), 16));
}
#endif
#if defined(__AVX2__)
DEFT_ALWAYS_INLINE __m128i to_bfloat16(__m256 x) noexcept {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i upper = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, is_nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
}
#endif
} // namespace detail

/// Writes all lanes, converted to S, at p; no alignment is needed.
template <class S, class Arch>
DEFT_ALWAYS_INLINE void store(S* p, const batch<compute_t<S>, Arch>& x, full = {}) noexcept {
    using T = compute_t<S>;
    if constexpr (std::is_same_v<S, T>) {
        x.store_unaligned(p);
    } else {
        constexpr index n = lanes<T, Arch>;
#if defined(__AVX512F__)
        if constexpr (n == 16) {
            const __m256i narrow = [&] {
                if constexpr (is_binary16<S>)
                    return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
                else
                    return detail::to_bfloat16(static_cast<__m512>(x));
            }();
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow);
            return;
        }
#endif
#if defined(__F16C__)
        if constexpr (is_binary16<S> && n == 8) {
            _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                             _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
            return;
        }
#endif
#if defined(__AVX2__)
        if constexpr (is_bfloat16<S> && n == 8) {
            _mm_storeu_si128(reinterpret_cast<__m128i*>(p), detail::to_bfloat16(static_cast<__m256>(x)));
            return;
        }
#endif
        alignas(64) T wide[static_cast<std::size_t>(n)];
        x.store_aligned(wide);
        for (index i = 0; i < n; ++i)
            p[i] = static_cast<S>(wide[i]);
    }
}

/// Writes the first `part.count` lanes and nothing behind them.
template <class S, class Arch>
DEFT_ALWAYS_INLINE void store(S* p, const batch<compute_t<S>, Arch>& x, partial part) noexcept {
    using T = compute_t<S>;
    constexpr index n = lanes<T, Arch>;
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<S, float> && n == 16) {
        _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << part.count) - 1u), x);
        return;
    }
    if constexpr (std::is_same_v<S, double> && n == 8) {
        _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << part.count) - 1u), x);
        return;
    }
#endif
#if defined(__AVX2__)
    if constexpr ((std::is_same_v<S, float> && n == 8) || (std::is_same_v<S, double> && n == 4)) {
        detail::store_first(p, x, part.count);
        return;
    }
#endif
    alignas(64) T wide[static_cast<std::size_t>(n)];
    x.store_aligned(wide);
    for (index i = 0; i < part.count; ++i)
        p[i] = static_cast<S>(wide[i]);
}

/// x, with 0 in the lanes that a partial extent leaves out: for sums of what is not 0 where nothing is loaded.
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> only(const batch<T, Arch>& x, full) noexcept {
    return x;
}
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> only(const batch<T, Arch>& x, partial part) noexcept {
    alignas(64) T kept[static_cast<std::size_t>(lanes<T, Arch>)] = {};
    simd::store(kept, x, part);
    return batch<T, Arch>::load_aligned(kept);
}

/// Writes all lanes past the caches, where the hardware can: half the traffic of a store to memory that is not cached,
/// and nothing of it is cached after. p is a multiple of stream_alignment bytes; stream_end() before anyone else reads.
inline constexpr index stream_alignment = 64;
template <class T, class Arch>
DEFT_ALWAYS_INLINE void stream(T* p, const batch<T, Arch>& x) noexcept {
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<T, float> && lanes<T, Arch> == 16)
        return _mm512_stream_ps(p, x);
    if constexpr (std::is_same_v<T, double> && lanes<T, Arch> == 8)
        return _mm512_stream_pd(p, x);
#endif
#if defined(__AVX__)
    if constexpr (std::is_same_v<T, float> && lanes<T, Arch> == 8)
        return _mm256_stream_ps(p, x);
    if constexpr (std::is_same_v<T, double> && lanes<T, Arch> == 4)
        return _mm256_stream_pd(p, x);
#endif
    x.store_unaligned(p);
}
DEFT_ALWAYS_INLINE void stream_end() noexcept {
#if defined(DEFT_SIMD_X86)
    _mm_sfence();
#endif
}

} // namespace simd
} // namespace DEFT_ISA
} // namespace deft

#endif

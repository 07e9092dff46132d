/// \file
/// Eight or sixteen rows of low-bit codes at a time: products of unsigned codes with signed bytes, summed exactly, and
/// codes as numbers. C++17.
///
/// A lane is a row: a vector of bytes holds four columns of each row, so that the sums of all rows come out side by
/// side and nothing is added across lanes. xsimd 8.1 has no such product; intrinsics stand here beside a portable path
/// with the same results.
#ifndef DEFT_SIMD_CODE_ROWS_HPP
#define DEFT_SIMD_CODE_ROWS_HPP

#include <deft/simd/batch.hpp>

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace simd {

/// Rows of a vector, and its bytes: four columns of each row.
#if defined(__AVX512BW__)
inline constexpr index code_rows = 16;
#else
inline constexpr index code_rows = 8;
#endif
inline constexpr index code_bytes = 4 * code_rows;

/// Bits of the codes that add_products takes: whole bytes, where the hardware sums four products in 32 bits.
#if defined(__AVX512BW__) && defined(__AVX512VNNI__)
inline constexpr int product_bits = 8;
#else
inline constexpr int product_bits = 4;
#endif

// ---- a number or an integer per row ---------------------------------------------------------------------------------

template <class T>
struct row_values {
    static constexpr index width = lanes<T>, parts = code_rows / width;
    batch<T> part[std::size_t(parts)];
};
using row_integers = row_values<std::int32_t>;

namespace detail {
template <class T, class F, class... V>
DEFT_ALWAYS_INLINE row_values<T> each_part(F&& f, const V&... v) noexcept {
    row_values<T> r;
    DEFT_UNROLL
    for (index i = 0; i < row_values<T>::parts; ++i)
        r.part[i] = f(v.part[i]...);
    return r;
}
} // namespace detail

template <class T>
DEFT_ALWAYS_INLINE row_values<T> broadcast(T x) noexcept {
    return detail::each_part<T>([&]() DEFT_INLINE_LAMBDA { return batch<T>(x); });
}
template <class T>
DEFT_ALWAYS_INLINE row_values<T> load_rows(const T* p) noexcept {
    row_values<T> r;
    DEFT_UNROLL
    for (index i = 0; i < row_values<T>::parts; ++i)
        r.part[i] = batch<T>::load_unaligned(p + i * row_values<T>::width);
    return r;
}
template <class T>
DEFT_ALWAYS_INLINE void store_rows(T* p, const row_values<T>& v) noexcept {
    DEFT_UNROLL
    for (index i = 0; i < row_values<T>::parts; ++i)
        v.part[i].store_unaligned(p + i * row_values<T>::width);
}
template <class T>
DEFT_ALWAYS_INLINE row_values<T> add(const row_values<T>& a, const row_values<T>& b) noexcept {
    return detail::each_part<T>([](const auto& x, const auto& y) DEFT_INLINE_LAMBDA { return x + y; }, a, b);
}
template <class T>
DEFT_ALWAYS_INLINE row_values<T> subtract(const row_values<T>& a, const row_values<T>& b) noexcept {
    return detail::each_part<T>([](const auto& x, const auto& y) DEFT_INLINE_LAMBDA { return x - y; }, a, b);
}
template <class T>
DEFT_ALWAYS_INLINE row_values<T> multiply(const row_values<T>& a, const row_values<T>& b) noexcept {
    return detail::each_part<T>([](const auto& x, const auto& y) DEFT_INLINE_LAMBDA { return x * y; }, a, b);
}
/// a b + c.
template <class T>
DEFT_ALWAYS_INLINE row_values<T> multiply_add(const row_values<T>& a, const row_values<T>& b,
                                              const row_values<T>& c) noexcept {
    return detail::each_part<T>(
        [](const auto& x, const auto& y, const auto& z) DEFT_INLINE_LAMBDA { return simd::fma(x, y, z); }, a, b, c);
}
/// c - a b.
DEFT_ALWAYS_INLINE row_integers subtract_product(const row_integers& a, const row_integers& b,
                                                 const row_integers& c) noexcept {
    return subtract(c, multiply(a, b));
}
template <class T>
DEFT_ALWAYS_INLINE row_values<T> to_values(const row_integers& i) noexcept {
    if constexpr (std::is_same_v<T, float>) {
        return detail::each_part<T>([](const auto& x) DEFT_INLINE_LAMBDA { return xsimd::to_float(x); }, i);
    } else {
#if defined(__AVX512BW__)
        const __m512i all = i.part[0];
        return {
            {_mm512_cvtepi32_pd(_mm512_castsi512_si256(all)), _mm512_cvtepi32_pd(_mm512_extracti64x4_epi64(all, 1))}};
#elif defined(__AVX2__)
        const __m256i all = i.part[0];
        return {
            {_mm256_cvtepi32_pd(_mm256_castsi256_si128(all)), _mm256_cvtepi32_pd(_mm256_extracti128_si256(all, 1))}};
#else
        std::int32_t from[std::size_t(code_rows)];
        T to[std::size_t(code_rows)];
        store_rows(from, i);
        for (index k = 0; k < code_rows; ++k)
            to[k] = static_cast<T>(from[k]);
        return load_rows<T>(to);
#endif
    }
}

// ---- codes ----------------------------------------------------------------------------------------------------------

/// Byte 4 i + j is of row i and column j.
struct code_vector {
#if defined(__AVX512BW__)
    __m512i bytes;
#elif defined(__AVX2__)
    __m256i bytes;
#else
    std::uint8_t bytes[std::size_t(code_bytes)];
#endif
};

/// Sums of products on their way: of 32 bits per row, or pairs of 16 that hold eight products of codes up to 15.
struct code_products {
#if defined(__AVX512BW__)
    __m512i sums;
#elif defined(__AVX2__)
    __m256i sums;
#else
    std::int32_t sums[std::size_t(code_rows)];
#endif
};

DEFT_ALWAYS_INLINE code_vector load_codes(const std::uint8_t* p) noexcept {
    code_vector u;
    std::memcpy(&u.bytes, p, sizeof u.bytes);
    return u;
}
DEFT_ALWAYS_INLINE void store_codes(std::uint8_t* p, const code_vector& u) noexcept {
    std::memcpy(p, &u.bytes, sizeof u.bytes);
}
/// Bits `shift` .. shift + Bits - 1 of each byte; Bits is 2, 4 or 8.
template <int Bits>
DEFT_ALWAYS_INLINE code_vector extract(const code_vector& u, int shift) noexcept {
    if constexpr (Bits == 8) {
        return u;
    } else {
#if defined(__AVX512BW__)
        // & 15: an int for some compilers, unsigned for others, a warning for neither.
        const __m512i moved = shift == 0 ? u.bytes : _mm512_srli_epi16(u.bytes, shift & 15);
        return {_mm512_and_si512(moved, _mm512_set1_epi8((1 << Bits) - 1))};
#elif defined(__AVX2__)
        const __m256i moved = shift == 0 ? u.bytes : _mm256_srli_epi16(u.bytes, shift);
        return {_mm256_and_si256(moved, _mm256_set1_epi8((1 << Bits) - 1))};
#else
        code_vector part;
        for (index i = 0; i < code_bytes; ++i)
            part.bytes[i] = static_cast<std::uint8_t>((u.bytes[i] >> shift) & ((1 << Bits) - 1));
        return part;
#endif
    }
}
/// Bits `shift` .. shift + Bits - 1 of each row's four bytes: one column, as integers.
template <int Bits>
DEFT_ALWAYS_INLINE row_integers column(const code_vector& u, int shift) noexcept {
#if defined(__AVX512BW__)
    const __m512i moved = shift == 0 ? u.bytes : _mm512_srli_epi32(u.bytes, static_cast<unsigned>(shift));
    return {{shift + Bits == 32 ? moved : _mm512_and_si512(moved, _mm512_set1_epi32((1 << Bits) - 1))}};
#elif defined(__AVX2__)
    const __m256i moved = shift == 0 ? u.bytes : _mm256_srli_epi32(u.bytes, shift);
    return {{shift + Bits == 32 ? moved : _mm256_and_si256(moved, _mm256_set1_epi32((1 << Bits) - 1))}};
#else
    std::int32_t rows[std::size_t(code_rows)];
    for (index i = 0; i < code_rows; ++i)
        rows[i] = (u.bytes[4 * i + shift / 8] >> shift % 8) & ((1 << Bits) - 1);
    return load_rows(rows);
#endif
}
/// One byte per row.
DEFT_ALWAYS_INLINE row_integers load_rows(const std::uint8_t* p) noexcept {
#if defined(__AVX512BW__)
    return {{_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}};
#elif defined(__AVX2__)
    return {{_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))}};
#else
    std::int32_t rows[std::size_t(code_rows)];
    for (index i = 0; i < code_rows; ++i)
        rows[i] = p[i];
    return load_rows(rows);
#endif
}

DEFT_ALWAYS_INLINE code_products no_products() noexcept {
    code_products none;
    std::memset(&none, 0, sizeof none);
    return none;
}
/// sum + u[i][0] a[0] + .. + u[i][3] a[3] for each row i. Codes have at most product_bits bits. At most eight such
/// additions: in pairs of 16 bits they reach 8 * 2 * 15 * 128 < 2^15.
DEFT_ALWAYS_INLINE code_products add_products(const code_products& sum, const code_vector& u,
                                              const std::int8_t* a) noexcept {
#if defined(__AVX2__)
    int four;
    std::memcpy(&four, a, sizeof four);
#if defined(__AVX512BW__) && defined(__AVX512VNNI__)
    return {_mm512_dpbusd_epi32(sum.sums, u.bytes, _mm512_set1_epi32(four))};
#elif defined(__AVX512BW__)
    return {_mm512_add_epi16(sum.sums, _mm512_maddubs_epi16(u.bytes, _mm512_set1_epi32(four)))};
#else
    __m256i pairs = _mm256_add_epi16(sum.sums, _mm256_maddubs_epi16(u.bytes, _mm256_set1_epi32(four)));
#if defined(__GNUC__) && !defined(__clang__)
    // g++ 12 regroups these sums into trees that do not fit the registers: 0.6 of the speed. (A saturating addition,
    // which it leaves alone, competes with the product for its ports.)
    __asm__("" : "+x"(pairs));
#endif
    return {pairs};
#endif
#else
    code_products next = sum;
    for (index i = 0; i < code_rows; ++i) {
        const std::uint8_t* const b = u.bytes + 4 * i;
        next.sums[i] += b[0] * a[0] + b[1] * a[1] + b[2] * a[2] + b[3] * a[3];
    }
    return next;
#endif
}
/// Factor times the sums; Factor is 1 or 16.
template <int Factor>
DEFT_ALWAYS_INLINE row_integers widen(const code_products& sum) noexcept {
#if defined(__AVX512BW__) && defined(__AVX512VNNI__)
    static_assert(Factor == 1, "codes of 8 bits are not cut into planes");
    return {{sum.sums}};
#elif defined(__AVX512BW__)
    return {{_mm512_madd_epi16(sum.sums, _mm512_set1_epi16(Factor))}};
#elif defined(__AVX2__)
    return {{_mm256_madd_epi16(sum.sums, _mm256_set1_epi16(Factor))}};
#else
    return multiply(broadcast(std::int32_t(Factor)), load_rows(sum.sums));
#endif
}

} // namespace simd
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Eight rows of low-bit codes at a time: products of unsigned codes with signed bytes, summed exactly, and codes as
/// numbers. C++17.
///
/// A lane is a row: 32 bytes hold four columns of each of eight rows, so that the sums of eight rows come out side by
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

/// Rows of a vector, and columns of each row in it.
inline constexpr index code_rows = 8;
inline constexpr index code_columns = 4;

#if defined(__AVX2__)

/// 32 bytes: byte 4 i + j is of row i and column j.
struct code_vector {
    __m256i bytes;
};
/// Sums of products on their way: pairs of 16 bits per row, which hold eight products of codes up to 15.
struct code_products {
    __m256i pairs;
};
/// An integer per row.
struct row_integers {
    __m256i lanes;
};
/// A number per row.
template <class T>
struct row_values;
template <>
struct row_values<float> {
    __m256 lanes;
};
template <>
struct row_values<double> {
    __m256d low, high;
};

DEFT_ALWAYS_INLINE code_vector load_codes(const std::uint8_t* p) noexcept {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
}
DEFT_ALWAYS_INLINE void store_codes(std::uint8_t* p, code_vector u) noexcept {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), u.bytes);
}
/// Bits `shift` .. shift + Bits - 1 of each byte; Bits is 2 or 4.
template <int Bits>
DEFT_ALWAYS_INLINE code_vector extract(code_vector u, int shift) noexcept {
    const __m256i moved = shift == 0 ? u.bytes : _mm256_srli_epi16(u.bytes, shift);
    return {_mm256_and_si256(moved, _mm256_set1_epi8((1 << Bits) - 1))};
}
/// Bits `shift` .. shift + Bits - 1 of each row's four bytes: one column, as integers.
template <int Bits>
DEFT_ALWAYS_INLINE row_integers column(code_vector u, int shift) noexcept {
    const __m256i moved = shift == 0 ? u.bytes : _mm256_srli_epi32(u.bytes, shift);
    return {shift + Bits == 32 ? moved : _mm256_and_si256(moved, _mm256_set1_epi32((1 << Bits) - 1))};
}

DEFT_ALWAYS_INLINE code_products no_products() noexcept {
    return {_mm256_setzero_si256()};
}
/// sum + u[i][0] a[0] + .. + u[i][3] a[3] for each row i. Codes are at most 15; at most eight such additions, which
/// reach 8 * 2 * 15 * 128 < 2^15.
DEFT_ALWAYS_INLINE code_products add_products(code_products sum, code_vector u, const std::int8_t* a) noexcept {
    int four;
    std::memcpy(&four, a, sizeof four);
    __m256i pairs = _mm256_add_epi16(sum.pairs, _mm256_maddubs_epi16(u.bytes, _mm256_set1_epi32(four)));
#if defined(__GNUC__) && !defined(__clang__)
    // g++ 12 regroups these sums into trees that do not fit the registers: 0.6 of the speed. (A saturating addition,
    // which it leaves alone, competes with the product for its ports.)
    __asm__("" : "+x"(pairs));
#endif
    return {pairs};
}
/// Factor times the sums; Factor is 1 or 16.
template <int Factor>
DEFT_ALWAYS_INLINE row_integers widen(code_products sum) noexcept {
    return {_mm256_madd_epi16(sum.pairs, _mm256_set1_epi16(Factor))};
}

DEFT_ALWAYS_INLINE row_integers broadcast(std::int32_t i) noexcept {
    return {_mm256_set1_epi32(i)};
}
DEFT_ALWAYS_INLINE row_integers load_rows(const std::uint8_t* p) noexcept {
    return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))};
}
DEFT_ALWAYS_INLINE row_integers load_rows(const std::int32_t* p) noexcept {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
}
DEFT_ALWAYS_INLINE void store_rows(std::int32_t* p, row_integers i) noexcept {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), i.lanes);
}
DEFT_ALWAYS_INLINE row_integers add(row_integers a, row_integers b) noexcept {
    return {_mm256_add_epi32(a.lanes, b.lanes)};
}
/// c - a b.
DEFT_ALWAYS_INLINE row_integers subtract_product(row_integers a, row_integers b, row_integers c) noexcept {
    return {_mm256_sub_epi32(c.lanes, _mm256_mullo_epi32(a.lanes, b.lanes))};
}

DEFT_ALWAYS_INLINE row_values<float> load_rows(const float* p) noexcept {
    return {_mm256_loadu_ps(p)};
}
DEFT_ALWAYS_INLINE row_values<double> load_rows(const double* p) noexcept {
    return {_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4)};
}
DEFT_ALWAYS_INLINE void store_rows(float* p, row_values<float> v) noexcept {
    _mm256_storeu_ps(p, v.lanes);
}
DEFT_ALWAYS_INLINE void store_rows(double* p, row_values<double> v) noexcept {
    _mm256_storeu_pd(p, v.low);
    _mm256_storeu_pd(p + 4, v.high);
}
DEFT_ALWAYS_INLINE row_values<float> broadcast(float x) noexcept {
    return {_mm256_set1_ps(x)};
}
DEFT_ALWAYS_INLINE row_values<double> broadcast(double x) noexcept {
    return {_mm256_set1_pd(x), _mm256_set1_pd(x)};
}
template <class T>
DEFT_ALWAYS_INLINE row_values<T> to_values(row_integers i) noexcept {
    if constexpr (std::is_same_v<T, float>)
        return {_mm256_cvtepi32_ps(i.lanes)};
    else
        return {_mm256_cvtepi32_pd(_mm256_castsi256_si128(i.lanes)),
                _mm256_cvtepi32_pd(_mm256_extracti128_si256(i.lanes, 1))};
}
DEFT_ALWAYS_INLINE row_values<float> add(row_values<float> a, row_values<float> b) noexcept {
    return {_mm256_add_ps(a.lanes, b.lanes)};
}
DEFT_ALWAYS_INLINE row_values<double> add(row_values<double> a, row_values<double> b) noexcept {
    return {_mm256_add_pd(a.low, b.low), _mm256_add_pd(a.high, b.high)};
}
DEFT_ALWAYS_INLINE row_values<float> subtract(row_values<float> a, row_values<float> b) noexcept {
    return {_mm256_sub_ps(a.lanes, b.lanes)};
}
DEFT_ALWAYS_INLINE row_values<double> subtract(row_values<double> a, row_values<double> b) noexcept {
    return {_mm256_sub_pd(a.low, b.low), _mm256_sub_pd(a.high, b.high)};
}
DEFT_ALWAYS_INLINE row_values<float> multiply(row_values<float> a, row_values<float> b) noexcept {
    return {_mm256_mul_ps(a.lanes, b.lanes)};
}
DEFT_ALWAYS_INLINE row_values<double> multiply(row_values<double> a, row_values<double> b) noexcept {
    return {_mm256_mul_pd(a.low, b.low), _mm256_mul_pd(a.high, b.high)};
}
/// a b + c.
DEFT_ALWAYS_INLINE row_values<float> multiply_add(row_values<float> a, row_values<float> b,
                                                  row_values<float> c) noexcept {
#if defined(__FMA__)
    return {_mm256_fmadd_ps(a.lanes, b.lanes, c.lanes)};
#else
    return {_mm256_add_ps(_mm256_mul_ps(a.lanes, b.lanes), c.lanes)};
#endif
}
DEFT_ALWAYS_INLINE row_values<double> multiply_add(row_values<double> a, row_values<double> b,
                                                   row_values<double> c) noexcept {
#if defined(__FMA__)
    return {_mm256_fmadd_pd(a.low, b.low, c.low), _mm256_fmadd_pd(a.high, b.high, c.high)};
#else
    return {_mm256_add_pd(_mm256_mul_pd(a.low, b.low), c.low), _mm256_add_pd(_mm256_mul_pd(a.high, b.high), c.high)};
#endif
}

#else

struct code_vector {
    std::uint8_t bytes[4 * code_rows];
};
struct row_integers {
    std::int32_t lanes[code_rows];
};
struct code_products {
    row_integers sums;
};
template <class T>
struct row_values {
    T lanes[code_rows];
};

namespace detail {
template <class Rows, class F>
DEFT_ALWAYS_INLINE Rows each_row(F&& f) noexcept {
    Rows r;
    for (index i = 0; i < code_rows; ++i)
        r.lanes[i] = f(i);
    return r;
}
} // namespace detail

DEFT_ALWAYS_INLINE code_vector load_codes(const std::uint8_t* p) noexcept {
    code_vector u;
    std::memcpy(u.bytes, p, sizeof u.bytes);
    return u;
}
DEFT_ALWAYS_INLINE void store_codes(std::uint8_t* p, const code_vector& u) noexcept {
    std::memcpy(p, u.bytes, sizeof u.bytes);
}
template <int Bits>
DEFT_ALWAYS_INLINE code_vector extract(const code_vector& u, int shift) noexcept {
    code_vector part;
    for (index i = 0; i < 4 * code_rows; ++i)
        part.bytes[i] = static_cast<std::uint8_t>((u.bytes[i] >> shift) & ((1 << Bits) - 1));
    return part;
}
template <int Bits>
DEFT_ALWAYS_INLINE row_integers column(const code_vector& u, int shift) noexcept {
    return detail::each_row<row_integers>(
        [&](index i) { return (u.bytes[4 * i + shift / 8] >> shift % 8) & ((1 << Bits) - 1); });
}
DEFT_ALWAYS_INLINE code_products no_products() noexcept {
    return {};
}
DEFT_ALWAYS_INLINE code_products add_products(const code_products& sum, const code_vector& u,
                                              const std::int8_t* a) noexcept {
    return {detail::each_row<row_integers>([&](index i) {
        const std::uint8_t* const b = u.bytes + 4 * i;
        return sum.sums.lanes[i] + b[0] * a[0] + b[1] * a[1] + b[2] * a[2] + b[3] * a[3];
    })};
}
template <int Factor>
DEFT_ALWAYS_INLINE row_integers widen(const code_products& sum) noexcept {
    return detail::each_row<row_integers>([&](index i) { return Factor * sum.sums.lanes[i]; });
}
template <class Number>
DEFT_ALWAYS_INLINE auto broadcast(Number x) noexcept {
    using Rows = std::conditional_t<std::is_integral_v<Number>, row_integers, row_values<Number>>;
    return detail::each_row<Rows>([&](index) { return x; });
}
template <class Number>
DEFT_ALWAYS_INLINE auto load_rows(const Number* p) noexcept {
    using Rows = std::conditional_t<std::is_integral_v<Number>, row_integers, row_values<Number>>;
    return detail::each_row<Rows>([&](index i) { return p[i]; });
}
template <class Number, class Rows>
DEFT_ALWAYS_INLINE void store_rows(Number* p, const Rows& r) noexcept {
    std::memcpy(p, r.lanes, sizeof r.lanes);
}
DEFT_ALWAYS_INLINE row_integers add(const row_integers& a, const row_integers& b) noexcept {
    return detail::each_row<row_integers>([&](index i) { return a.lanes[i] + b.lanes[i]; });
}
DEFT_ALWAYS_INLINE row_integers subtract_product(const row_integers& a, const row_integers& b,
                                                 const row_integers& c) noexcept {
    return detail::each_row<row_integers>([&](index i) { // modulo 2^32, as vectors do
        return static_cast<std::int32_t>(static_cast<std::uint32_t>(c.lanes[i]) -
                                         static_cast<std::uint32_t>(a.lanes[i]) *
                                             static_cast<std::uint32_t>(b.lanes[i]));
    });
}
template <class T>
DEFT_ALWAYS_INLINE row_values<T> to_values(const row_integers& r) noexcept {
    return detail::each_row<row_values<T>>([&](index i) { return static_cast<T>(r.lanes[i]); });
}
template <class T>
DEFT_ALWAYS_INLINE row_values<T> add(const row_values<T>& a, const row_values<T>& b) noexcept {
    return detail::each_row<row_values<T>>([&](index i) { return a.lanes[i] + b.lanes[i]; });
}
template <class T>
DEFT_ALWAYS_INLINE row_values<T> subtract(const row_values<T>& a, const row_values<T>& b) noexcept {
    return detail::each_row<row_values<T>>([&](index i) { return a.lanes[i] - b.lanes[i]; });
}
template <class T>
DEFT_ALWAYS_INLINE row_values<T> multiply(const row_values<T>& a, const row_values<T>& b) noexcept {
    return detail::each_row<row_values<T>>([&](index i) { return a.lanes[i] * b.lanes[i]; });
}
template <class T>
DEFT_ALWAYS_INLINE row_values<T> multiply_add(const row_values<T>& a, const row_values<T>& b,
                                              const row_values<T>& c) noexcept {
    return detail::each_row<row_values<T>>([&](index i) { return a.lanes[i] * b.lanes[i] + c.lanes[i]; });
}

#endif

} // namespace simd
} // namespace DEFT_ISA
} // namespace deft

#endif

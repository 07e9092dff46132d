/// \file
/// 2^x and e^x - 1 with the least work, and softplus: what a selective scan evaluates once or more per state. C++17.
///
/// Errors are the largest seen against long double, float over all reduced arguments, double on 10^6 of each range:
///
/// | function   | float   | double  | beyond the range                                               |
/// |------------|---------|---------|----------------------------------------------------------------|
/// | exp2       | 1.7 ulp | 1 ulp   | exactly 0 from -127 (-1023) down, infinite from 128 (1024) on; |
/// |            |         |         | between, results below 2^-126 (2^-1022) err by up to that      |
/// | exp2_less1 | 8 ulp   | 4 ulp   | -1 and infinite there                                          |
/// | softplus   | 2 ulp   | 2 ulp   | 0 below -87.33 (-708.4), x itself far out                      |
///
/// NaN gives NaN, but for exp2 of a NaN whose payload is not the default one.
#ifndef DEFT_SIMD_EXP2_HPP
#define DEFT_SIMD_EXP2_HPP

#include <deft/simd/math.hpp>

#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace simd {
namespace detail {

// (2^r - 1) / r for |r| <= 1/2; minimax in the relative error of 2^r: 9e-8 (float), 2e-17 (double).
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> exp2_quotient(const batch<T, Arch>& r) noexcept {
    if constexpr (std::is_same_v<T, float>)
        return polynomial<T, Arch>(r, 0.69314698f, 0.24022242f, 0.055507337f, 0.0096715126f, 0.0013264727f);
    else
        return polynomial<T, Arch>(r, 0.6931471805599457, 0.24022650695910097, 0.05550410866479039,
                                   0.009618129107607003, 0.0013333558153439966, 0.0001540353044157213,
                                   1.5252727385193868e-05, 1.3215442675329823e-06, 1.0180647659234139e-07,
                                   7.072570412814423e-09, 4.078071929588337e-10);
}

template <class T>
inline constexpr T exp2_least = sizeof(T) == 4 ? T(-127) : T(-1023);

template <class T, class Arch>
struct exp2_parts {
    batch<T, Arch> shifted, r; // round(x) + a number whose low bits are 0, and x - round(x)
};
template <class T, class Arch>
DEFT_ALWAYS_INLINE exp2_parts<T, Arch> split_exp2(const batch<T, Arch>& argument) noexcept {
    using B = batch<T, Arch>;
    const B rounder(exp_constants<T>::rounder);
    const B x = at_least(B(exp2_least<T>), at_most(B(T(1) - exp2_least<T>), argument));
    const B shifted = x + rounder;
    return {shifted, x - (shifted - rounder)};
}

} // namespace detail

/// 2^x. At the ends of the range r is 0 and 2^r exactly 1, so that adding to the exponent gives 0 and infinity.
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> exp2(const batch<T, Arch>& x) noexcept {
    using B = batch<T, Arch>;
    const detail::exp2_parts<T, Arch> e = detail::split_exp2(x);
    const B p = simd::fma(e.r, detail::exp2_quotient(e.r), B(T(1)));
    return bit_cast<T>(bit_cast<integer_of<T>>(p) +
                       (bit_cast<integer_of<T>>(e.shifted) << detail::exp_constants<T>::mantissa_bits));
}

/// 2^(a b) for |a b| <= exp2_reach<T>: what is left without the ends of the range, the product exact.
template <class T>
inline constexpr T exp2_reach = sizeof(T) == 4 ? T(126) : T(1022);
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> exp2_of_product(const batch<T, Arch>& a, const batch<T, Arch>& b) noexcept {
    using B = batch<T, Arch>;
    const B rounder(detail::exp_constants<T>::rounder);
    const B shifted = simd::fma(a, b, rounder);
    const B r = simd::fma(a, b, rounder - shifted);
    const B p = simd::fma(r, detail::exp2_quotient(r), B(T(1)));
    return bit_cast<T>(bit_cast<integer_of<T>>(p) +
                       (bit_cast<integer_of<T>>(shifted) << detail::exp_constants<T>::mantissa_bits));
}

/// 2^x - 1 without cancellation near 0.
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> exp2_less1(const batch<T, Arch>& x) noexcept {
    using B = batch<T, Arch>;
    const detail::exp2_parts<T, Arch> e = detail::split_exp2(x);
    const B scale = bit_cast<T>(bit_cast<integer_of<T>>(B(T(1))) +
                                (bit_cast<integer_of<T>>(e.shifted) << detail::exp_constants<T>::mantissa_bits));
    return simd::fma(scale * e.r, detail::exp2_quotient(e.r), scale - B(T(1)));
}

/// log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), the logarithm as 2 atanh(w), w = e / (2 + e).
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> softplus(const batch<T, Arch>& x) noexcept {
    using B = batch<T, Arch>;
    const B e = exp_saturating(-simd::abs(x));
    const B w = e / (e + B(T(2))), t = w * w;
    B p;
    if constexpr (std::is_same_v<T, float>)
        p = polynomial<T, Arch>(t, 0.33333207f, 0.2001085f, 0.1399957f, 0.1401223f);
    else
        p = polynomial<T, Arch>(t, 0.333333333333389372, 0.199999999979987139, 0.14285714531598085,
                                0.111110963272132916, 0.0909141036889162555, 0.0768209602123154991,
                                0.0679362316525890767, 0.0494915343900224607, 0.0887442503454175899);
    const B twice = w + w;
    return at_least(B(T(0)), x) + simd::fma(twice * t, p, twice);
}

} // namespace simd
} // namespace DEFT_ISA
} // namespace deft

#endif

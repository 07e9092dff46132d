/// \file
/// Vector functions of stated accuracy: exp, log, log1p, erf, tanh, sigmoid, and the activations gelu and silu. C++17.
///
/// Errors are the largest seen against long double, with and without FMA: float over 3 10^8 evenly spread bit patterns,
/// double over 10^7 random arguments. All of them return NaN for NaN and nowhere else, and accept infinities.
///
/// | function           | float    | double   | beyond the range                                             |
/// |--------------------|----------|----------|--------------------------------------------------------------|
/// | exp                | 1.0 ulp  | 1.1 ulp  | inf from 88.7228 (709.78) on; subnormal results are kept     |
/// | exp_saturating     | 1.0 ulp  | 1.1 ulp  | inf from 88.03 (709.1) on, 0 below -87.33 (-708.4)           |
/// | log                | 1.0 ulp  | 0.9 ulp  | as the C library                                             |
/// | log1p              | 0.8 ulp  | 0.8 ulp  | as the C library                                             |
/// | erf                | 7 ulp    | 4 ulp    | exactly +-1 far out                                          |
/// | tanh               | 6 ulp    | 2 ulp    | exactly +-1 far out                                          |
/// | sigmoid, silu      | 3 ulp    | 2 ulp    | 0 below -88.03 (-709.1)                                      |
/// | gelu_erf, _tanh    | absolute: 3e-7 max(1, abs u) | 4e-16 | as above                                         |
#ifndef DEFT_SIMD_MATH_HPP
#define DEFT_SIMD_MATH_HPP

#include <deft/simd/batch.hpp>

#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace simd {

/// c0 + c1 x + c2 x^2 + ... by Horner's rule: the fewest operations; kernels hide its latency by unrolling.
template <class T, class Arch, class... C>
DEFT_ALWAYS_INLINE batch<T, Arch> polynomial(const batch<T, Arch>& x, T c0, C... rest) noexcept {
    if constexpr (sizeof...(rest) == 0)
        return batch<T, Arch>(c0);
    else
        return simd::fma(x, polynomial<T, Arch>(x, static_cast<T>(rest)...), batch<T, Arch>(c0));
}

/// c0 + c1 x + ... + x^n. The first step is an addition, for which processors have units beside those of the fma.
template <class T, class Arch, class... C>
DEFT_ALWAYS_INLINE batch<T, Arch> monic_polynomial(const batch<T, Arch>& x, T c0, C... rest) noexcept {
    if constexpr (sizeof...(rest) == 0)
        return x + batch<T, Arch>(c0);
    else
        return simd::fma(x, monic_polynomial<T, Arch>(x, static_cast<T>(rest)...), batch<T, Arch>(c0));
}

namespace detail {

// exp(x) = 2^k exp(r), |r| <= ln(2)/2, k = round(x / ln 2).
template <class T>
struct exp_constants;
template <>
struct exp_constants<float> {
    static constexpr float log2_e = 1.44269502f;
    // The upper part has 12 bits: its product with k is exact even where there is no FMA.
    static constexpr float ln2_upper = 0.693115234375f, ln2_lower = 3.19461833e-05f;
    // Adding 1.5 2^23 rounds to an integer and leaves it in the low bits; with the bias added, a shift makes 2^k of it.
    static constexpr float rounder = 12582912.0f, bias = 127.0f;
    static constexpr int mantissa_bits = 23;
    static constexpr float least = -104.0f, greatest = 89.0f;
    static constexpr float least_normal = -87.7f, greatest_saturating = 88.5f;
};
template <>
struct exp_constants<double> {
    static constexpr double log2_e = 1.4426950408889634;
    static constexpr double ln2_upper = 0.6931471805582987, ln2_lower = 1.6465949582897082e-12;
    static constexpr double rounder = 6755399441055744.0, bias = 1023.0;
    static constexpr int mantissa_bits = 52;
    static constexpr double least = -746.0, greatest = 710.0;
    static constexpr double least_normal = -708.8, greatest_saturating = 709.5;
};

// exp(r) for |r| <= ln(2)/2; minimax, relative error 3e-9 (float), 2e-17 (double).
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> exp_reduced(const batch<T, Arch>& r) noexcept {
    using B = batch<T, Arch>;
    B q;
    if constexpr (std::is_same_v<T, float>)
        q = polynomial<T, Arch>(r, 0.49999994f, 0.16666521f, 0.04166839f, 0.0083687166f, 0.0013814598f);
    else
        q = polynomial<T, Arch>(r, 0.5000000000000001, 0.16666666666666669, 0.04166666666662413, 0.008333333333330062,
                                0.0013888888917213717, 0.00019841269863053618, 2.4801521295954376e-05,
                                2.7557268459997064e-06, 2.7620088445409746e-07, 2.510038549551032e-08);
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return simd::fma(r, simd::fma(r, q, B(T(1))), B(T(1)));
#else
    return simd::fma(r * r, q, r) + B(T(1)); // the form above would round 1 + r q too
#endif
}

template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> exp_reduce(const batch<T, Arch>& x, const batch<T, Arch>& k) noexcept {
    using B = batch<T, Arch>;
    using constants = exp_constants<T>;
    return simd::fma(k, B(-constants::ln2_lower), simd::fma(k, B(-constants::ln2_upper), x));
}

// 2^k from `shifted` = k + rounder + bias.
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> exponential_of_two(const batch<T, Arch>& shifted) noexcept {
    return bit_cast<T>(bit_cast<integer_of<T>>(shifted) << exp_constants<T>::mantissa_bits);
}

} // namespace detail

/// e^x over the whole range of T, subnormal results included.
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> exp(const batch<T, Arch>& argument) noexcept {
    using B = batch<T, Arch>;
    using constants = detail::exp_constants<T>;
    const B x = at_least(B(constants::least), at_most(B(constants::greatest), argument));
    const B k = simd::fma(x, B(constants::log2_e), B(constants::rounder)) - B(constants::rounder);
    // 2^k may lie outside the normal range where e^x does not, so it is applied in two halves.
    const B shifted = simd::fma(k, B(T(0.5)), B(constants::rounder + constants::bias));
    const B half = shifted - B(constants::rounder + constants::bias);
    const B rest = (k - half) + B(constants::rounder + constants::bias);
    const B p = detail::exp_reduced(detail::exp_reduce(x, k));
    return p * detail::exponential_of_two(shifted) * detail::exponential_of_two(rest);
}

namespace detail {

// e^x = mantissa times scale, a power of two that is 0 or infinite a little early.
template <class T, class Arch>
struct exp_parts {
    batch<T, Arch> mantissa, scale;
};
template <class T, class Arch>
DEFT_ALWAYS_INLINE exp_parts<T, Arch> split_exp(const batch<T, Arch>& argument) noexcept {
    using B = batch<T, Arch>;
    using constants = exp_constants<T>;
    const B x = at_least(B(constants::least_normal), at_most(B(constants::greatest_saturating), argument));
    const B shifted = simd::fma(x, B(constants::log2_e), B(constants::rounder + constants::bias));
    const B k = shifted - B(constants::rounder + constants::bias);
    return {exp_reduced(exp_reduce(x, k)), exponential_of_two(shifted)};
}

} // namespace detail

/// e^x with the least work: 0 where the result would be subnormal, and infinite a little before T overflows. Both
/// limits are harmless in 1 / (1 + e^x) and in products with what is at most 1.
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> exp_saturating(const batch<T, Arch>& x) noexcept {
    const detail::exp_parts<T, Arch> e = detail::split_exp(x);
    return e.mantissa * e.scale;
}

/// 1 + e^-u = 1 / s(u), s the logistic function.
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> inverse_sigmoid(const batch<T, Arch>& u) noexcept {
    const detail::exp_parts<T, Arch> e = detail::split_exp(-u);
    return simd::fma(e.mantissa, e.scale, batch<T, Arch>(T(1)));
}

template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> log(const batch<T, Arch>& x) noexcept {
    return xsimd::log(x);
}

/// log(1 + x).
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> log1p(const batch<T, Arch>& x) noexcept {
    return xsimd::log1p(x);
}

namespace detail {

// (Phi(u) - 1/2) / u, Phi the normal distribution function. float: P(u^2) / Q(u^2), minimax on |u| <= 5.6; beyond, u^2
// is held, so that the product with u passes 1/2 and can be cut off there exactly. (A polynomial alone needs 14 terms
// and loses digits.) double: a polynomial, for |u| <= 2 only.
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> centred_cdf_ratio(const batch<T, Arch>& u) noexcept {
    using B = batch<T, Arch>;
    if constexpr (std::is_same_v<T, float>) {
        const B t = at_most(B(31.36f), u * u);
        return polynomial<T, Arch>(t, 338188.25f, 28762.3242f, 3965.06274f, 143.205872f, 5.33191729f, 0.0189014766f) /
               monic_polynomial<T, Arch>(t, 847712.25f, 213381.547f, 24310.4668f, 1598.36914f, 62.1754417f);
    } else {
        const B t = u * u;
        return polynomial<T, Arch>(t, 0.39894228040143265, -0.06649038006690465, 0.009973557010022772,
                                   -0.0011873282153967084, 0.00011543468733518617, -9.444655693847572e-06,
                                   6.659686122475279e-07, -4.122601622240647e-08, 2.2731201469848888e-09,
                                   -1.1283088889529666e-10, 5.055861492246278e-12, -1.9980460870692806e-13,
                                   6.30127480647449e-15, -1.1606779311358433e-16);
    }
}

// Phi(-|u|) for |u| >= 2: exp(-u^2/2) R(|u|), R (|u| + 4) a polynomial in (|u| - 4) / (|u| + 4), minimax up to 8.5.
// (xsimd's erf errs by 68 ulp at 2.2 and is NaN where x^4 overflows.)
template <class Arch>
DEFT_ALWAYS_INLINE batch<double, Arch> cdf_tail(const batch<double, Arch>& u) noexcept {
    using B = batch<double, Arch>;
    using T = double;
    const B size = at_most(B(8.5), simd::abs(u));
    const B z = (size - B(4.0)) / (size + B(4.0));
    const B r =
        polynomial<T, Arch>(z, 0.7552851304157515, -0.6078966419718924, 0.387137400742226, -0.18652185795960383,
                            0.060396574889260236, -0.007540188968944728, -0.0034796922756593846, 0.0016308184515388207,
                            0.00013334191525334583, -0.0002310929953265677, -1.875894453651865e-06,
                            3.5104082801917715e-05, 4.96294072625654e-07, -5.584327027912899e-06);
    return exp_saturating(size * size * B(-0.5)) * r / (size + B(4.0));
}

} // namespace detail

/// Phi(u), the normal distribution function: exactly 0 and 1 far out.
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> normal_cdf(const batch<T, Arch>& u) noexcept {
    using B = batch<T, Arch>;
    const B near = simd::fma(u, detail::centred_cdf_ratio(u), B(T(0.5)));
    if constexpr (std::is_same_v<T, float>) {
        return at_least(B(0.0f), at_most(B(1.0f), near));
    } else {
        const B tail = simd::select(simd::abs(u) < B(8.5), detail::cdf_tail(u), B(0.0));
        const B far = simd::select(u > B(0.0), B(1.0) - tail, tail);
        return simd::select(simd::abs(u) > B(2.0), far, near);
    }
}

template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> erf(const batch<T, Arch>& x) noexcept {
    using B = batch<T, Arch>;
    const B u = x * B(T(1.4142135623730951)), twice = u + u;
    const B near = twice * detail::centred_cdf_ratio(u);
    if constexpr (std::is_same_v<T, float>) {
        return at_least(B(-1.0f), at_most(B(1.0f), near));
    } else {
        const B tail = detail::cdf_tail(u), size = B(1.0) - (tail + tail);
        return simd::select(simd::abs(u) > B(2.0), simd::select(u > B(0.0), size, -size), near);
    }
}

/// float: x P(x^2) / Q(x^2), minimax on |x| <= 9.1. double: xsimd's, which would convert large arguments and NaN to
/// integers.
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> tanh(const batch<T, Arch>& x) noexcept {
    using B = batch<T, Arch>;
    if constexpr (std::is_same_v<T, float>) {
        const B t = at_most(B(82.81f), x * x);
        const B p = polynomial<T, Arch>(t, 1298017.25f, 173603.0f, 4527.24023f, 26.5849552f, 0.0171046797f);
        const B q = monic_polynomial<T, Arch>(t, 1298017.25f, 606275.188f, 33550.3594f, 424.830902f);
        return at_least(B(-1.0f), at_most(B(1.0f), x * (p / q)));
    } else {
        const auto is_small = simd::abs(x) < B(T(20));
        return simd::select(is_small, xsimd::tanh(simd::select(is_small, x, B(T(0)))),
                            at_least(B(T(-1)), at_most(B(T(1)), x)));
    }
}

/// s(u) = 1 / (1 + e^-u).
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> sigmoid(const batch<T, Arch>& u) noexcept {
    using B = batch<T, Arch>;
    return B(T(1)) / inverse_sigmoid(u);
}

/// u s(u).
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> silu(const batch<T, Arch>& u) noexcept {
    return u / inverse_sigmoid(u);
}

/// u Phi(u). The error is relative to |u|: the far negative tail is not resolved, as in every form with 1 + erf.
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> gelu_erf(const batch<T, Arch>& u) noexcept {
    return u * normal_cdf(u);
}

/// 2 sqrt(2/pi) (u + 0.044715 u^3): gelu_tanh(u) = u s(this).
template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> gelu_tanh_argument(const batch<T, Arch>& u) noexcept {
    using B = batch<T, Arch>;
    return u * simd::fma(u * u, B(T(0.07135481627260025)), B(T(1.5957691216057308)));
}

template <class T, class Arch>
DEFT_ALWAYS_INLINE batch<T, Arch> gelu_tanh(const batch<T, Arch>& u) noexcept {
    return u / inverse_sigmoid(gelu_tanh_argument(u));
}

} // namespace simd
} // namespace DEFT_ISA
} // namespace deft

#endif

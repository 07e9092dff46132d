/// \file
/// The base activations on vectors, values and derivatives, by kind. C++17.
#ifndef DEFT_KERNELS_ACTIVATIONS_HPP
#define DEFT_KERNELS_ACTIVATIONS_HPP

#include <deft/activation_kind.hpp>
#include <deft/simd/math.hpp>

#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

template <class T, class Arch>
struct value_and_derivative {
    simd::batch<T, Arch> value, derivative;
};

/// sigma and sigma' of one kind. `slope` is that of leaky_relu; the others ignore it. NaN gives NaN.
template <activation Kind>
struct base_activation {
    static constexpr bool is_piecewise_linear = Kind == activation::relu || Kind == activation::leaky_relu;

    template <class T, class Arch>
    static DEFT_ALWAYS_INLINE simd::batch<T, Arch> value(const simd::batch<T, Arch>& u,
                                                         const simd::batch<T, Arch>& slope) noexcept {
        using B = simd::batch<T, Arch>;
        if constexpr (Kind == activation::identity)
            return u;
        else if constexpr (Kind == activation::relu)
            return simd::at_least(B(T(0)), u);
        else if constexpr (Kind == activation::leaky_relu)
            return simd::select(u > B(T(0)), u, slope * u);
        else if constexpr (Kind == activation::gelu_erf)
            return simd::gelu_erf(u);
        else if constexpr (Kind == activation::gelu_tanh)
            return simd::gelu_tanh(u);
        else if constexpr (Kind == activation::silu)
            return simd::silu(u);
        else if constexpr (Kind == activation::tanh)
            return simd::tanh(u);
        else
            return simd::sigmoid(u);
    }

    /// Both at the cost of little more than the derivative.
    template <class T, class Arch>
    static DEFT_ALWAYS_INLINE value_and_derivative<T, Arch> both(const simd::batch<T, Arch>& u,
                                                                 const simd::batch<T, Arch>& slope) noexcept {
        using B = simd::batch<T, Arch>;
        const B one(T(1)), zero(T(0));
        if constexpr (Kind == activation::identity) {
            return {u, one};
        } else if constexpr (Kind == activation::relu) {
            return {simd::at_least(zero, u), simd::select(u > zero, one, zero)};
        } else if constexpr (Kind == activation::leaky_relu) {
            const auto positive = u > zero;
            return {simd::select(positive, u, slope * u), simd::select(positive, one, slope)};
        } else if constexpr (Kind == activation::gelu_erf) {
            // Phi(u) + u phi(u), phi(u) = exp(-u^2 / 2) / sqrt(2 pi)
            const B cdf = simd::normal_cdf(u);
            const B pdf = simd::exp_saturating(u * u * B(T(-0.5))) * B(T(0.39894228040143268));
            return {u * cdf, simd::fma(u, pdf, cdf)};
        } else if constexpr (Kind == activation::gelu_tanh) {
            // s(w) + u s(w) s(-w) w', w = 2v. Beyond +-1e4 s(w) s(-w) is 0 and w' must not become infinite.
            const B w = simd::gelu_tanh_argument(u);
            const B s = simd::sigmoid(w);
            const B near = simd::at_least(B(T(-1e4)), simd::at_most(B(T(1e4)), u));
            const B dw = simd::fma(near * near, B(T(3 * 0.07135481627260025)), B(T(1.5957691216057308)));
            return {u * s, simd::fma(near * dw, s * (one - s), s)};
        } else if constexpr (Kind == activation::silu) {
            return both_from_sigmoid(u, simd::sigmoid(u));
        } else if constexpr (Kind == activation::tanh) {
            const B t = simd::tanh(u);
            return {t, (one - t) * (one + t)};
        } else {
            return both_from_sigmoid(u, simd::sigmoid(u));
        }
    }

    /// silu and sigmoid, for s = 1 / (1 + exp(-u)).
    template <class T, class Arch>
    static DEFT_ALWAYS_INLINE value_and_derivative<T, Arch> both_from_sigmoid(const simd::batch<T, Arch>& u,
                                                                              const simd::batch<T, Arch>& s) noexcept {
        static_assert(Kind == activation::silu || Kind == activation::sigmoid, "not a logistic activation");
        const simd::batch<T, Arch> rest = simd::batch<T, Arch>(T(1)) - s;
        if constexpr (Kind == activation::silu)
            return {u * s, simd::fma(u * s, rest, s)};
        else
            return {s, s * rest};
    }
};

/// f(base_activation<kind>{}) for a kind known at run time that is not identity: what a series may be made of.
template <class F>
DEFT_ALWAYS_INLINE decltype(auto) dispatch_activation(activation kind, F&& f) {
    switch (kind) {
    case activation::relu:
        return f(base_activation<activation::relu>{});
    case activation::leaky_relu:
        return f(base_activation<activation::leaky_relu>{});
    case activation::gelu_erf:
        return f(base_activation<activation::gelu_erf>{});
    case activation::gelu_tanh:
        return f(base_activation<activation::gelu_tanh>{});
    case activation::silu:
        return f(base_activation<activation::silu>{});
    case activation::tanh:
        return f(base_activation<activation::tanh>{});
    case activation::sigmoid:
    case activation::identity:
        break;
    }
    DEFT_ASSERT(kind == activation::sigmoid);
    return f(base_activation<activation::sigmoid>{});
}

/// f(base_activation<kind>{}) for any kind known at run time.
template <class F>
DEFT_ALWAYS_INLINE decltype(auto) dispatch_any_activation(activation kind, F&& f) {
    if (kind == activation::identity)
        return f(base_activation<activation::identity>{});
    return dispatch_activation(kind, f);
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

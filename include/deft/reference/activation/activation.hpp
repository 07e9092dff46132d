/// \file
/// Naive reference: the base activations and their derivatives, one element at a time.
///
/// s is the logistic function, Phi and phi are the distribution and density of the standard normal:
/// | name       | sigma(u)                                    | sigma'(u)                       |
/// |------------|---------------------------------------------|---------------------------------|
/// | relu       | max(u, 0)                                   | u > 0 ? 1 : 0                   |
/// | leaky_relu | u > 0 ? u : slope u                         | u > 0 ? 1 : slope               |
/// | gelu_erf   | u Phi(u) = u/2 erfc(-u / sqrt 2)            | Phi(u) + u phi(u)               |
/// | gelu_tanh  | u s(2v), v = sqrt(2/pi) (u + 0.044715 u^3)  | s(2v) + u/2 sech^2(v) v'        |
/// | silu       | u s(u)                                      | s(u) + u s(u) s(-u)             |
/// | tanh       | tanh u                                      | sech^2 u                        |
/// | sigmoid    | s(u)                                        | s(u) s(-u)                      |
/// | identity   | u                                           | 1                               |
/// NaN in gives NaN out. The exponential is only taken of numbers that are not positive, so nothing overflows.
#ifndef DEFT_REFERENCE_ACTIVATION_ACTIVATION_HPP
#define DEFT_REFERENCE_ACTIVATION_ACTIVATION_HPP

#include <deft/activation_kind.hpp>

#include <algorithm>
#include <cmath>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// s(u) = 1 / (1 + exp(-u)).
template <class T>
T logistic(T u) {
    const T e = std::exp(-std::abs(u));
    return u < 0 ? e / (1 + e) : 1 / (1 + e);
}

/// sech(v)^2, without the cancellation of 1 - tanh(v)^2.
template <class T>
T sech_squared(T v) {
    const T e = std::exp(-2 * std::abs(v));
    return 4 * e / ((1 + e) * (1 + e));
}

/// v = sqrt(2/pi) (u + 0.044715 u^3), the argument of tanh in gelu_tanh.
template <class T>
T gelu_tanh_argument(T u) {
    return T(0.79788456080286535588) * (u + T(0.044715) * u * u * u);
}

/// v' = sqrt(2/pi) (1 + 3 * 0.044715 u^2).
template <class T>
T gelu_tanh_argument_derivative(T u) {
    return T(0.79788456080286535588) * (1 + 3 * T(0.044715) * u * u);
}

/// sigma(u).
template <class T>
T activate(activation kind, T u, double slope = 0.01) {
    switch (kind) {
    case activation::relu:
        return u < 0 ? T(0) : u; // a NaN is not less than 0
    case activation::leaky_relu:
        return u > 0 ? u : T(slope) * u;
    case activation::gelu_erf:
        return u / 2 * std::erfc(u * T(-0.70710678118654752440));
    case activation::gelu_tanh:
        return u * logistic(2 * gelu_tanh_argument(u)); // (1 + tanh v) / 2 = s(2v), which does not cancel
    case activation::silu:
        return u * logistic(u);
    case activation::tanh:
        return std::tanh(u);
    case activation::sigmoid:
        return logistic(u);
    case activation::identity:
        break;
    }
    return u;
}

/// sigma'(u); at the kink of relu 0, at that of leaky_relu the slope.
template <class T>
T activate_derivative(activation kind, T u, double slope = 0.01) {
    switch (kind) {
    case activation::relu:
        return u > 0 ? T(1) : T(0);
    case activation::leaky_relu:
        return u > 0 ? T(1) : T(slope);
    case activation::gelu_erf: {
        const T cdf = std::erfc(u * T(-0.70710678118654752440)) / 2;
        const T pdf = std::exp(std::max(-u * u / 2, T(-1000))) * T(0.39894228040143267794); // 1 / sqrt(2 pi)
        return cdf + u * pdf;
    }
    case activation::gelu_tanh: {
        // Where sech^2 is 0 the cube would overflow, and 0 * inf is NaN.
        const T c = std::clamp(u, T(-1e4), T(1e4));
        const T v = gelu_tanh_argument(c);
        return logistic(2 * v) + c / 2 * sech_squared(v) * gelu_tanh_argument_derivative(c);
    }
    case activation::silu:
        return logistic(u) + u * logistic(u) * logistic(-u);
    case activation::tanh:
        return sech_squared(u);
    case activation::sigmoid:
        return logistic(u) * logistic(-u);
    case activation::identity:
        break;
    }
    return T(1);
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Naive reference of rounding_loss and beta_schedule (arXiv:2004.10568, eq. 24).
#ifndef DEFT_REFERENCE_QUANTIZATION_ROUNDING_LOSS_HPP
#define DEFT_REFERENCE_QUANTIZATION_ROUNDING_LOSS_HPP

#include <deft/view.hpp>

#include <algorithm>
#include <cmath>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

template <class T>
struct rounding_at {
    T h, slope;
};

/// V_ij = sum_k a1_ik a2_kj (+ v0_ij).
template <class T>
T rounding_logit(in<T, 2> a1, in<T, 2> a2, in<T, 2> v0, index i, index j) {
    T v = v0.is_given() ? v0(i, j) : T(0);
    for (index k = 0; k < a1.extent(1); ++k)
        v += a1(i, k) * a2(k, j);
    return v;
}

/// h(v) and its derivative, 0 where h is clipped.
template <class T>
rounding_at<T> stretched_sigmoid(T v, double zeta, double gamma) {
    const T s = v >= 0 ? 1 / (1 + std::exp(-v)) : std::exp(v) / (1 + std::exp(v));
    const T t = s * T(zeta - gamma) + T(gamma);
    const bool inside = t >= 0 && t <= 1;
    return {std::min(std::max(t, T(0)), T(1)), inside ? T(zeta - gamma) * s * (1 - s) : T(0)};
}

/// grad_a1 = grad_V a2^T and grad_a2 = a1^T grad_V for the function grad_v(i, j).
template <class T, class GradV>
void rounding_factor_gradients(in<T, 2> a1, in<T, 2> a2, view<T, 2> grad_a1, out<T, 2> grad_a2, GradV&& grad_v) {
    for (index k = 0; k < a1.extent(1); ++k) {
        for (index i = 0; i < a1.extent(0); ++i)
            grad_a1(i, k) = 0;
        for (index j = 0; j < a2.extent(1); ++j)
            grad_a2(k, j) = 0;
    }
    for (index i = 0; i < a1.extent(0); ++i)
        for (index j = 0; j < a2.extent(1); ++j) {
            const T g = grad_v(i, j);
            for (index k = 0; k < a1.extent(1); ++k) {
                grad_a1(i, k) += g * a2(k, j);
                grad_a2(k, j) += g * a1(i, k);
            }
        }
}

template <class T>
T rounding_loss(in<T, 2> a1, in<T, 2> a2, in<T, 2> v0, double beta, double zeta, double gamma) {
    T loss = 0;
    for (index i = 0; i < a1.extent(0); ++i)
        for (index j = 0; j < a2.extent(1); ++j) {
            const T h = stretched_sigmoid(rounding_logit<T>(a1, a2, v0, i, j), zeta, gamma).h;
            loss += 1 - std::pow(std::abs(2 * h - 1), T(beta));
        }
    return loss;
}

/// d rounding_loss / dV at a logit, times grad_loss.
template <class T>
T rounding_loss_gradient(const rounding_at<T>& at, T grad_loss, double beta) {
    const T t = 2 * at.h - 1;
    if (t == 0)
        return 0;
    const T of_h = -2 * T(beta) * std::pow(std::abs(t), T(beta - 1)) * (t > 0 ? T(1) : T(-1));
    return grad_loss * of_h * at.slope;
}

template <class T>
void rounding_loss_backward(in<T, 2> a1, in<T, 2> a2, in<T, 2> v0, double grad_loss, view<T, 2> grad_a1,
                            out<T, 2> grad_a2, double beta, double zeta, double gamma) {
    rounding_factor_gradients<T>(a1, a2, grad_a1, grad_a2, [&](index i, index j) {
        return rounding_loss_gradient(stretched_sigmoid(rounding_logit<T>(a1, a2, v0, i, j), zeta, gamma), T(grad_loss),
                                      beta);
    });
}

struct beta_at {
    double beta;
    bool active;
};

inline beta_at beta_schedule(index t, index t_max, double warmup, double beta_start, double beta_end, bool cosine) {
    const double start = warmup * double(t_max);
    if (double(t) < start)
        return {beta_start, false};
    const double rel = double(t_max) > start ? std::min(1.0, (double(t) - start) / (double(t_max) - start)) : 1.0;
    if (cosine)
        return {beta_end + 0.5 * (beta_start - beta_end) * (1 + std::cos(3.14159265358979323846 * rel)), true};
    return {beta_end + (beta_start - beta_end) * (1 - rel), true};
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

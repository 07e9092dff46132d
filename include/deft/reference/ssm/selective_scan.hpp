/// \file
/// Naive reference of selective_scan: one channel, one token, one state at a time (arXiv:2312.00752, eq. 2a and 4;
/// state-spaces/mamba, selective_scan_ref).
#ifndef DEFT_REFERENCE_SSM_SELECTIVE_SCAN_HPP
#define DEFT_REFERENCE_SSM_SELECTIVE_SCAN_HPP

#include <deft/reference/activation/activation.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// log(1 + e^s).
template <class T>
T softplus(T s) {
    return std::max(s, T(0)) + std::log1p(std::exp(-std::abs(s)));
}

/// (exp(d A) - 1) / A, and its limit d.
template <class T>
T zoh_input(T d, T a) {
    return a == 0 ? d : std::expm1(d * a) / a;
}

/// (x e^x - (e^x - 1)) / x^2 = sum_k (k + 1) x^k / (k + 2)!: d^2 times this is the derivative of zoh_input by A.
template <class T>
T zoh_slope(T x) {
    if (std::abs(x) >= 1)
        return (x * std::exp(x) - std::expm1(x)) / (x * x);
    T sum = 0, term = T(0.5);
    for (int k = 0; k < 24; ++k) {
        sum += T(k + 1) * term;
        term *= x / T(k + 3);
    }
    return sum;
}

template <class T>
struct scan_tensors {
    view<const T, 3> u, delta;
    view<const T, 2> A;
    view<const T, 4> B, C;
    view<const T, 1> D;
    view<const T, 3> z;
    view<const T, 1> delta_bias;
    bool has_softplus, is_zoh;

    T raw_step(index b, index t, index c) const {
        return delta(b, t, c) + (delta_bias.is_given() ? delta_bias(c) : T(0));
    }
    T step(index b, index t, index c) const {
        const T s = raw_step(b, t, c);
        if (std::isnan(s))
            return s;
        return has_softplus ? softplus(s) : s;
    }
    T input(T d, index c, index n) const {
        return is_zoh ? zoh_input(d, A(c, n)) : d;
    }
    index group(index c) const {
        return c / (u.extent(2) / B.extent(2));
    }
};

/// u, delta, z, y [B, T, D]; A [D, N]; B, C [B, T, G, N]; D, delta_bias [D]; state [B, D, N], updated.
template <class T>
void selective_scan(const scan_tensors<T>& in, view<T, 3> y, out<T, 3> state) {
    const index states = in.A.extent(1);
    for (index b = 0; b < in.u.extent(0); ++b)
        for (index c = 0; c < in.u.extent(2); ++c) {
            const index g = in.group(c);
            std::vector<T> h(std::size_t(states), T(0));
            for (index n = 0; state.is_given() && n < states; ++n)
                h[std::size_t(n)] = state(b, c, n);
            for (index t = 0; t < in.u.extent(1); ++t) {
                const T d = in.step(b, t, c), u = in.u(b, t, c);
                T sum = 0;
                for (index n = 0; n < states; ++n) {
                    T& now = h[std::size_t(n)];
                    now = std::exp(d * in.A(c, n)) * now + in.input(d, c, n) * in.B(b, t, g, n) * u;
                    sum += in.C(b, t, g, n) * now;
                }
                if (in.D.is_given())
                    sum += in.D(c) * u;
                y(b, t, c) = in.z.is_given() ? sum * activate(activation::silu, in.z(b, t, c)) : sum;
            }
            for (index n = 0; state.is_given() && n < states; ++n)
                state(b, c, n) = h[std::size_t(n)];
        }
}

/// Gradients: those of absent inputs are absent.
template <class T>
struct scan_gradients {
    view<T, 3> u, delta;
    view<T, 2> A;
    view<T, 4> B, C;
    view<T, 1> D;
    view<T, 3> z;
    view<T, 1> delta_bias;
    view<T, 3> state;
};

/// `state` is that before the first token, grad_last the cotangent of that after the last one; each may be absent.
template <class T>
void selective_scan_backward(const scan_tensors<T>& in, view<const T, 3> state, view<const T, 3> grad_y,
                             view<const T, 3> grad_last, const scan_gradients<T>& grad) {
    const index batch = in.u.extent(0), tokens = in.u.extent(1), channels = in.u.extent(2), states = in.A.extent(1);
    for (index b = 0; b < batch; ++b)
        for (index t = 0; t < tokens; ++t)
            for (index g = 0; g < in.B.extent(2); ++g)
                for (index n = 0; n < states; ++n)
                    grad.B(b, t, g, n) = grad.C(b, t, g, n) = 0;
    for (index c = 0; c < channels; ++c) {
        const index g = in.group(c);
        std::vector<double> grad_a(std::size_t(states), 0.0);
        double grad_skip = 0, grad_bias = 0;
        for (index b = 0; b < batch; ++b) {
            std::vector<T> h(std::size_t((tokens + 1) * states), T(0)), adjoint(std::size_t(states), T(0));
            const auto at = [&](index t, index n) -> T& {
                return h[std::size_t((t + 1) * states + n)];
            }; // h_{-1} first
            for (index n = 0; n < states; ++n) {
                at(-1, n) = state.is_given() ? state(b, c, n) : T(0);
                adjoint[std::size_t(n)] = grad_last.is_given() ? grad_last(b, c, n) : T(0);
            }
            for (index t = 0; t < tokens; ++t)
                for (index n = 0; n < states; ++n) {
                    const T d = in.step(b, t, c);
                    at(t, n) =
                        std::exp(d * in.A(c, n)) * at(t - 1, n) + in.input(d, c, n) * in.B(b, t, g, n) * in.u(b, t, c);
                }
            for (index t = tokens - 1; t >= 0; --t) {
                const T d = in.step(b, t, c), u = in.u(b, t, c);
                T e = grad_y(b, t, c);
                if (in.z.is_given()) {
                    T y = in.D.is_given() ? in.D(c) * u : T(0);
                    for (index n = 0; n < states; ++n)
                        y += in.C(b, t, g, n) * at(t, n);
                    grad.z(b, t, c) = e * y * activate_derivative(activation::silu, in.z(b, t, c));
                    e *= activate(activation::silu, in.z(b, t, c));
                }
                T grad_u = in.D.is_given() ? e * in.D(c) : T(0), grad_d = 0;
                grad_skip += double(e * u);
                for (index n = 0; n < states; ++n) {
                    const T a_n = in.A(c, n), a = std::exp(d * a_n), phi = in.input(d, c, n), from = in.B(b, t, g, n);
                    T& l = adjoint[std::size_t(n)];
                    l += in.C(b, t, g, n) * e;
                    grad.C(b, t, g, n) += e * at(t, n);
                    grad.B(b, t, g, n) += l * phi * u;
                    grad_u += l * phi * from;
                    const T through = l * at(t - 1, n) * a, of_phi = l * from * u;
                    grad_d += through * a_n + (in.is_zoh ? of_phi * a : of_phi);
                    grad_a[std::size_t(n)] +=
                        double(through * d + (in.is_zoh ? of_phi * d * d * zoh_slope(d * a_n) : T(0)));
                    l *= a;
                }
                grad.u(b, t, c) = grad_u;
                grad.delta(b, t, c) = in.has_softplus ? grad_d * logistic(in.raw_step(b, t, c)) : grad_d;
                grad_bias += double(grad.delta(b, t, c));
            }
            for (index n = 0; grad.state.is_given() && n < states; ++n)
                grad.state(b, c, n) = adjoint[std::size_t(n)];
        }
        for (index n = 0; n < states; ++n)
            grad.A(c, n) = T(grad_a[std::size_t(n)]);
        if (grad.D.is_given())
            grad.D(c) = T(grad_skip);
        if (grad.delta_bias.is_given())
            grad.delta_bias(c) = T(grad_bias);
    }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Naive reference of retention_gate: the norm into a temporary, then the gate (arXiv:2307.08621, eq. 8).
#ifndef DEFT_REFERENCE_SSM_RETENTION_GATE_HPP
#define DEFT_REFERENCE_SSM_RETENTION_GATE_HPP

#include <deft/reference/activation/activation.hpp>
#include <deft/view.hpp>

#include <cmath>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// u = o, or o - mean, and 1 / sqrt(mean(u^2) + eps).
template <class T>
struct head_statistics {
    std::vector<T> u;
    T r;

    head_statistics(in<T, 4> o, index b, index t, index h, bool has_mean, double eps) {
        const index n = o.extent(3);
        double mean = 0, squares = 0;
        for (index i = 0; has_mean && i < n; ++i)
            mean += double(o(b, t, h, i)) / double(n);
        for (index i = 0; i < n; ++i) {
            u.push_back(T(double(o(b, t, h, i)) - mean));
            squares += double(u.back()) * double(u.back());
        }
        r = T(1 / std::sqrt(squares / double(n) + eps));
    }
};

/// o [B, T, H, dv]; gate, y [B, T, H dv]; weight [dv] or absent.
template <class T>
void retention_gate(in<T, 4> o, in<T, 3> gate, in<T, 1> weight, view<T, 3> y, bool has_mean, activation act,
                    double eps) {
    const index n = o.extent(3);
    for (index b = 0; b < o.extent(0); ++b)
        for (index t = 0; t < o.extent(1); ++t)
            for (index h = 0; h < o.extent(2); ++h) {
                const head_statistics<T> head(o, b, t, h, has_mean, eps);
                for (index i = 0; i < n; ++i)
                    y(b, t, h * n + i) = head.u[std::size_t(i)] * head.r * (weight.is_given() ? weight(i) : T(1)) *
                                         activate(act, gate(b, t, h * n + i));
            }
}

/// e = grad_y act(gate) weight; g = r (e - u r^2 mean(e u)); grad_o = g or g - mean(g).
template <class T>
void retention_gate_backward(in<T, 4> o, in<T, 3> gate, in<T, 1> weight, in<T, 3> grad_y, view<T, 4> grad_o,
                             out<T, 3> grad_gate, out<T, 1> grad_weight, bool has_mean, activation act, double eps) {
    const index n = o.extent(3);
    std::vector<double> sums(std::size_t(n), 0.0);
    for (index b = 0; b < o.extent(0); ++b)
        for (index t = 0; t < o.extent(1); ++t)
            for (index h = 0; h < o.extent(2); ++h) {
                const head_statistics<T> head(o, b, t, h, has_mean, eps);
                const auto v = [&](index i) { return head.u[std::size_t(i)] * head.r; };
                const auto w = [&](index i) { return weight.is_given() ? weight(i) : T(1); };
                double through = 0, mean = 0;
                for (index i = 0; i < n; ++i) {
                    const T g = grad_y(b, t, h * n + i), z = gate(b, t, h * n + i);
                    through += double(g * activate(act, z) * w(i) * v(i)) / double(n);
                    sums[std::size_t(i)] += double(g * activate(act, z) * v(i));
                    grad_gate(b, t, h * n + i) = g * v(i) * w(i) * activate_derivative(act, z);
                }
                for (index i = 0; i < n; ++i) {
                    const T e = grad_y(b, t, h * n + i) * activate(act, gate(b, t, h * n + i)) * w(i);
                    grad_o(b, t, h, i) = head.r * (e - v(i) * T(through));
                    mean += double(grad_o(b, t, h, i)) / double(n);
                }
                for (index i = 0; has_mean && i < n; ++i)
                    grad_o(b, t, h, i) -= T(mean);
            }
    for (index i = 0; grad_weight.is_given() && i < n; ++i)
        grad_weight(i) = T(sums[std::size_t(i)]);
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

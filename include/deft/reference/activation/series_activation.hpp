/// \file
/// Naive reference of series_activation: one element, one term at a time.
///
/// outer (VanillaNet, arXiv:2305.12972): y = sum_i a_i sigma_i(x + b_i)
/// inner (PanGu-pi, arXiv:2312.17276):   y = sum_i sigma_i(a_i x + b_i)
#ifndef DEFT_REFERENCE_ACTIVATION_SERIES_ACTIVATION_HPP
#define DEFT_REFERENCE_ACTIVATION_SERIES_ACTIVATION_HPP

#include <deft/reference/activation/activation.hpp>
#include <deft/view.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// x, y are [R, C]; a, b are [n, C], or [n, 1] shared by all channels.
template <class T>
void series_activation(in<T, 2> x, in<T, 2> a, in<T, 2> b, view<T, 2> y, bool inner, activation_list base,
                       double slope = 0.01) {
    for (index r = 0; r < x.extent(0); ++r)
        for (index c = 0; c < x.extent(1); ++c) {
            const index p = a.extent(1) == 1 ? 0 : c; // column of the parameters
            T sum = 0;
            for (index i = 0; i < a.extent(0); ++i)
                if (inner)
                    sum += activate(base[i], a(i, p) * x(r, c) + b(i, p), slope);
                else
                    sum += a(i, p) * activate(base[i], x(r, c) + b(i, p), slope);
            y(r, c) = sum;
        }
}

/// grad_y, grad_x are [R, C]; grad_a, grad_b have the shape of a, b and are sums over all that share a parameter:
/// outer, u = x + b_i:     grad_x = g sum_i a_i sigma_i'(u);  grad_a_i = sum g sigma_i(u);     grad_b_i = sum g a_i
/// sigma_i'(u) inner, u = a_i x + b_i: grad_x = g sum_i a_i sigma_i'(u);  grad_a_i = sum g x sigma_i'(u);  grad_b_i =
/// sum g sigma_i'(u)
template <class T>
void series_activation_backward(in<T, 2> x, in<T, 2> a, in<T, 2> b, in<T, 2> grad_y, view<T, 2> grad_x,
                                out<T, 2> grad_a, out<T, 2> grad_b, bool inner, activation_list base,
                                double slope = 0.01) {
    const index terms = a.extent(0);
    for (index r = 0; r < x.extent(0); ++r)
        for (index c = 0; c < x.extent(1); ++c) {
            const index p = a.extent(1) == 1 ? 0 : c;
            T sum = 0;
            for (index i = 0; i < terms; ++i) {
                const T u = inner ? a(i, p) * x(r, c) + b(i, p) : x(r, c) + b(i, p);
                sum += a(i, p) * activate_derivative(base[i], u, slope);
            }
            grad_x(r, c) = grad_y(r, c) * sum;
        }

    for (index i = 0; i < terms; ++i)
        for (index p = 0; p < a.extent(1); ++p) {
            const bool shared = a.extent(1) == 1;
            double sum_a = 0, sum_b = 0;
            for (index r = 0; r < x.extent(0); ++r)
                for (index c = shared ? 0 : p; c < (shared ? x.extent(1) : p + 1); ++c) {
                    const T u = inner ? a(i, p) * x(r, c) + b(i, p) : x(r, c) + b(i, p);
                    const T through = grad_y(r, c) * activate_derivative(base[i], u, slope);
                    sum_a += double(inner ? through * x(r, c) : grad_y(r, c) * activate(base[i], u, slope));
                    sum_b += double(inner ? through : through * a(i, p));
                }
            grad_a(i, p) = T(sum_a);
            grad_b(i, p) = T(sum_b);
        }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

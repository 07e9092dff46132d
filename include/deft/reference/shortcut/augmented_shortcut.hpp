/// \file
/// Naive reference of augmented_shortcut: one token, one path at a time.
///
/// PanGu-pi (arXiv:2312.17276, section 4.1), Aug-ViT (arXiv:2106.15941):
///     u_i = z theta_i + bias_i;  y = scale (main + R + sum_i sigma(u_i)),  R = z, a tensor of its own, or 0
#ifndef DEFT_REFERENCE_SHORTCUT_AUGMENTED_SHORTCUT_HPP
#define DEFT_REFERENCE_SHORTCUT_AUGMENTED_SHORTCUT_HPP

#include <deft/reference/activation/activation.hpp>
#include <deft/view.hpp>

#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// The rows of R (z, the residual, or absent: 0).
template <class T>
struct shortcut_of {
    activation kind;
    double slope;
    in<T, 2> residual;
    T scale;
};

/// u(o) = sum_j row(j) theta(path, j, o) + bias(path, o), as a vector. The weights are read in the order they lie in.
template <class T>
std::vector<T> shortcut_arguments(const T* row, in<T, 3> theta, in<T, 2> bias, index path) {
    std::vector<T> u(std::size_t(theta.extent(2)));
    for (std::size_t o = 0; o < u.size(); ++o)
        u[o] = bias.is_given() ? bias(path, index(o)) : T(0);
    for (index j = 0; j < theta.extent(1); ++j)
        for (std::size_t o = 0; o < u.size(); ++o)
            u[o] += row[j] * theta(path, j, index(o));
    return u;
}

/// z, main, y are [M, d]; theta is [T, d, d], each [in, out]; bias is [T, d] or absent.
template <class T>
void augmented_shortcut(in<T, 2> z, in<T, 2> main, in<T, 3> theta, in<T, 2> bias, view<T, 2> y,
                        const shortcut_of<T>& s) {
    for (index r = 0; r < z.extent(0); ++r) {
        std::vector<T> sum;
        for (index o = 0; o < z.extent(1); ++o)
            sum.push_back(main(r, o) + (s.residual.is_given() ? s.residual(r, o) : T(0)));
        for (index i = 0; i < theta.extent(0); ++i) {
            const std::vector<T> u = shortcut_arguments<T>(z.data() + r * z.stride(0), theta, bias, i);
            for (std::size_t o = 0; o < u.size(); ++o)
                sum[o] += activate(s.kind, u[o], s.slope);
        }
        for (index o = 0; o < z.extent(1); ++o)
            y(r, o) = s.scale * sum[std::size_t(o)];
    }
}

/// e_i = scale g sigma'(u_i): grad_theta_i = z^T e_i, grad_bias_i = sum of rows of e_i, grad_z = sum_i e_i theta_i^T
/// plus scale g if R = z, grad_main = scale g. What is absent is not written.
template <class T>
void augmented_shortcut_backward(in<T, 2> z, in<T, 3> theta, in<T, 2> bias, in<T, 2> grad_y, view<T, 2> grad_z,
                                 out<T, 2> grad_main, out<T, 3> grad_theta, out<T, 2> grad_bias,
                                 out<T, 2> grad_residual, bool residual_is_z, const shortcut_of<T>& s) {
    const index rows = z.extent(0), d = z.extent(1), paths = theta.extent(0);
    for (index r = 0; r < rows; ++r)
        for (index o = 0; o < d; ++o) {
            grad_main(r, o) = s.scale * grad_y(r, o);
            if (grad_residual.is_given())
                grad_residual(r, o) = s.scale * grad_y(r, o);
            grad_z(r, o) = residual_is_z ? s.scale * grad_y(r, o) : T(0);
        }
    for (index i = 0; i < paths; ++i) {
        for (index j = 0; j < d; ++j)
            for (index o = 0; o < d; ++o)
                grad_theta(i, j, o) = 0;
        for (index o = 0; grad_bias.is_given() && o < d; ++o)
            grad_bias(i, o) = 0;
        for (index r = 0; r < rows; ++r) {
            std::vector<T> e = shortcut_arguments<T>(z.data() + r * z.stride(0), theta, bias, i);
            for (index o = 0; o < d; ++o) {
                e[std::size_t(o)] = s.scale * grad_y(r, o) * activate_derivative(s.kind, e[std::size_t(o)], s.slope);
                if (grad_bias.is_given())
                    grad_bias(i, o) += e[std::size_t(o)];
            }
            for (index j = 0; j < d; ++j) {
                T sum = 0;
                for (index o = 0; o < d; ++o) {
                    grad_theta(i, j, o) += z(r, j) * e[std::size_t(o)];
                    sum += e[std::size_t(o)] * theta(i, j, o);
                }
                grad_z(r, j) += sum;
            }
        }
    }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

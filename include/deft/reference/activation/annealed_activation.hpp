/// \file
/// Naive reference of annealed_activation and annealing_lambda (VanillaNet, arXiv:2305.12972, deep training strategy).
///
/// y = (1 - lambda) sigma(x) + lambda x
#ifndef DEFT_REFERENCE_ACTIVATION_ANNEALED_ACTIVATION_HPP
#define DEFT_REFERENCE_ACTIVATION_ANNEALED_ACTIVATION_HPP

#include <deft/reference/activation/activation.hpp>
#include <deft/view.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// x, y are [R, C]. At the ends of [0, 1] the term with factor 0 is left out: 0 * inf is NaN.
template <class T>
void annealed_activation(in<T, 2> x, view<T, 2> y, activation base, double lambda, double slope = 0.01) {
    for (index r = 0; r < x.extent(0); ++r)
        for (index c = 0; c < x.extent(1); ++c)
            if (lambda == 0)
                y(r, c) = activate(base, x(r, c), slope);
            else if (lambda == 1)
                y(r, c) = x(r, c);
            else
                y(r, c) = T(1 - lambda) * activate(base, x(r, c), slope) + T(lambda) * x(r, c);
}

/// x, grad_y, grad_x are [R, C]: grad_x = grad_y ((1 - lambda) sigma'(x) + lambda).
template <class T>
void annealed_activation_backward(in<T, 2> x, in<T, 2> grad_y, view<T, 2> grad_x, activation base, double lambda,
                                  double slope = 0.01) {
    for (index r = 0; r < x.extent(0); ++r)
        for (index c = 0; c < x.extent(1); ++c)
            if (lambda == 1)
                grad_x(r, c) = grad_y(r, c);
            else
                grad_x(r, c) = grad_y(r, c) * (T(1 - lambda) * activate_derivative(base, x(r, c), slope) + T(lambda));
}

/// t = min(epoch / decay_epochs, 1): linear t, cosine (1 - cos(pi t)) / 2.
inline double annealing_lambda(double epoch, double decay_epochs = 100, bool cosine = false) {
    const double t = std::min(epoch / decay_epochs, 1.0);
    return cosine ? (1 - std::cos(3.14159265358979323846 * t)) / 2 : t;
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

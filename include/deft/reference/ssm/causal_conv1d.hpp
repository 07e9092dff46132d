/// \file
/// Naive reference of causal_conv1d: one channel, one token, one tap at a time (arXiv:2312.00752, section 3.4).
#ifndef DEFT_REFERENCE_SSM_CAUSAL_CONV1D_HPP
#define DEFT_REFERENCE_SSM_CAUSAL_CONV1D_HPP

#include <deft/reference/activation/activation.hpp>
#include <deft/view.hpp>

#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// (state, x) of one channel of one sequence: W - 1 inputs before the first token, zeros without a state, then x.
template <class T>
std::vector<T> conv_inputs(in<T, 3> x, in<T, 3> state, index taps, index b, index d) {
    std::vector<T> all;
    for (index k = 0; k < taps - 1; ++k)
        all.push_back(state.is_given() ? state(b, k, d) : T(0));
    for (index t = 0; t < x.extent(1); ++t)
        all.push_back(x(b, t, d));
    return all;
}

/// x, y [B, T, D]; weight [D, W]; bias [D]; state [B, W-1, D], updated.
template <class T>
void causal_conv1d(in<T, 3> x, in<T, 2> weight, in<T, 1> bias, view<T, 3> y, out<T, 3> state, activation base) {
    const index taps = weight.extent(1);
    for (index b = 0; b < x.extent(0); ++b)
        for (index d = 0; d < x.extent(2); ++d) {
            const std::vector<T> all = conv_inputs<T>(x, state, taps, b, d);
            for (index t = 0; t < x.extent(1); ++t) {
                T p = bias.is_given() ? bias(d) : T(0);
                for (index k = 0; k < taps; ++k)
                    p += weight(d, k) * all[std::size_t(t + k)];
                y(b, t, d) = activate(base, p);
            }
            for (index k = 0; state.is_given() && k < taps - 1; ++k)
                state(b, k, d) = all[std::size_t(x.extent(1) + k)];
        }
}

/// e_t = grad_y_t act'(p_t); the gradients of weight, bias and of (state, x), whose last W-1 rows also get grad_last.
template <class T>
void causal_conv1d_backward(in<T, 3> x, in<T, 2> weight, in<T, 1> bias, in<T, 3> state, in<T, 3> grad_y,
                            in<T, 3> grad_last, view<T, 3> grad_x, out<T, 2> grad_weight, out<T, 1> grad_bias,
                            out<T, 3> grad_state, activation base) {
    const index taps = weight.extent(1), tokens = x.extent(1);
    for (index d = 0; d < x.extent(2); ++d) {
        std::vector<double> weight_sums(std::size_t(taps), 0.0);
        double bias_sum = 0;
        for (index b = 0; b < x.extent(0); ++b) {
            const std::vector<T> all = conv_inputs<T>(x, state, taps, b, d);
            std::vector<T> grad_all(all.size(), T(0));
            for (index t = 0; t < tokens; ++t) {
                T p = bias.is_given() ? bias(d) : T(0);
                for (index k = 0; k < taps; ++k)
                    p += weight(d, k) * all[std::size_t(t + k)];
                const T e = grad_y(b, t, d) * activate_derivative(base, p);
                for (index k = 0; k < taps; ++k) {
                    grad_all[std::size_t(t + k)] += weight(d, k) * e;
                    weight_sums[std::size_t(k)] += double(e * all[std::size_t(t + k)]);
                }
                bias_sum += double(e);
            }
            for (index k = 0; grad_last.is_given() && k < taps - 1; ++k)
                grad_all[std::size_t(tokens + k)] += grad_last(b, k, d);
            for (index k = 0; grad_state.is_given() && k < taps - 1; ++k)
                grad_state(b, k, d) = grad_all[std::size_t(k)];
            for (index t = 0; t < tokens; ++t)
                grad_x(b, t, d) = grad_all[std::size_t(taps - 1 + t)];
        }
        for (index k = 0; k < taps; ++k)
            grad_weight(d, k) = T(weight_sums[std::size_t(k)]);
        if (grad_bias.is_given())
            grad_bias(d) = T(bias_sum);
    }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

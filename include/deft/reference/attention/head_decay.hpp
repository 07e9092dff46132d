/// \file
/// Naive references of head_decay and decay_from_position_weights.
#ifndef DEFT_REFERENCE_ATTENTION_HEAD_DECAY_HPP
#define DEFT_REFERENCE_ATTENTION_HEAD_DECAY_HPP

#include <deft/view.hpp>

#include <cmath>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// gamma_h: 1 minus geometric steps from 1/32 to 1/512, or 1 - 2^(-5-h).
template <class T>
void head_decay(view<T, 1> decay, bool retnet) {
    const index heads = decay.extent(0);
    for (index h = 0; h < heads; ++h)
        decay(h) = T(1 - (retnet       ? 1 / (32 * std::pow(2.0, double(h)))
                          : heads == 1 ? 1.0 / 32
                                       : std::pow(1.0 / 16, double(h) / double(heads - 1)) / 32));
}

/// q_scale_i = d1_i d2_i, decay_i = d2_{i-1} / d2_i, decay_0 = 1; all [H, n].
template <class T>
void decay_from_position_weights(in<T, 2> d1, in<T, 2> d2, view<T, 2> q_scale, out<T, 2> decay) {
    for (index h = 0; h < d1.extent(0); ++h)
        for (index i = 0; i < d1.extent(1); ++i) {
            q_scale(h, i) = d1(h, i) * d2(h, i);
            decay(h, i) = i == 0 ? T(1) : d2(h, i - 1) / d2(h, i);
        }
}

template <class T>
void decay_from_position_weights_backward(in<T, 2> d1, in<T, 2> d2, in<T, 2> grad_q_scale, in<T, 2> grad_decay,
                                          view<T, 2> grad_d1, out<T, 2> grad_d2) {
    for (index h = 0; h < d1.extent(0); ++h)
        for (index i = 0; i < d1.extent(1); ++i) {
            grad_d1(h, i) = grad_q_scale(h, i) * d2(h, i);
            grad_d2(h, i) = grad_q_scale(h, i) * d1(h, i);
            if (i == 0)
                continue;
            grad_d2(h, i - 1) += grad_decay(h, i) / d2(h, i);
            grad_d2(h, i) -= grad_decay(h, i) * d2(h, i - 1) / (d2(h, i) * d2(h, i));
        }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Decays of linear attention: one per head, or from tables of position weights that were trained.
///
/// head_decay, of DiJiang (arXiv:2403.19928, its code) and RetNet (arXiv:2307.08621):
///
///     linspace:   gamma_h = 1 - exp(log 1/32 + h / (H - 1) (log 1/512 - log 1/32)),  H = 1: 31/32
///     retnet:     gamma_h = 1 - 2^(-5-h)
///
/// decay_from_position_weights: the code of DiJiang weighs the score of query i and key j <= i by d1_i d2_j, tables
/// per head that start as gamma^i and gamma^-j, the latter infinite after some 2800 positions in float. The same scores
/// without large numbers:
///
///     q_scale_i = d1_i d2_i,    decay_i = d2_{i-1} / d2_i,   decay_0 = 1
///
/// with phi(q_i) multiplied by q_scale_i. At the start values q_scale = 1 and decay = gamma.
#ifndef DEFT_ATTENTION_HEAD_DECAY_HPP
#define DEFT_ATTENTION_HEAD_DECAY_HPP

#include <deft/view.hpp>

#include <cmath>
#include <type_traits>

namespace deft {

enum class head_decay_kind : unsigned char { linspace, retnet };

inline namespace DEFT_ISA {
namespace detail {

/// Throws if an element of d2, by which is divided, is 0.
template <class S>
void check_position_weights(const char* op, const view<const S, 2>& d2) {
    int zeros = 0; // a bool would not be vectorised
    for (index h = 0; h < d2.extent(0); ++h) {
        const S* const row = d2.data() + h * d2.stride(0);
        for (index i = 0; i < d2.extent(1); ++i)
            zeros |= row[i] == S(0) ? 1 : 0;
    }
    check(zeros == 0, op, "an element of d2", "must not be 0", 0.0);
}

} // namespace detail

/// decay[h] = gamma_h for as many heads as it has elements; computed in double. Throws std::invalid_argument if there
/// is no such kind.
template <class Y>
void head_decay(Y&& decay_out, head_decay_kind kind) {
    using T = element_t<void, Y>;
    const view<T, 1> decay(decay_out);
    const index heads = decay.extent(0);
    detail::check(kind <= head_decay_kind::retnet, "head_decay", "kind", "must be linspace or retnet", double(kind));
    for (index h = 0; h < heads; ++h) {
        const double first = std::log(1.0 / 32), last = std::log(1.0 / 512);
        const double part = heads == 1 ? 0 : double(h) / double(heads - 1);
        decay(h) = T(kind == head_decay_kind::linspace ? 1 - std::exp(first + part * (last - first))
                                                       : 1 - std::exp2(-5 - double(h)));
    }
}

/// q_scale and decay from d1 and d2, all [H, n]; formulas at the top of this file. To go on behind the last trained
/// position, q_scale and decay may be longer than d1 and d2: the tables then continue with gamma [H], that is, q_scale
/// keeps its last value and decay is gamma_h. gamma may be absent otherwise.
///
/// Outputs overlap no input. Throws std::invalid_argument before anything is written if shapes do not fit or some d2_i
/// is 0.
template <class T = void, class Y = view<float, 2>>
void decay_from_position_weights(in<element_t<T, Y>, 2> d1, in<element_t<T, Y>, 2> d2, in<element_t<T, Y>, 1> gamma,
                                 Y&& q_scale_out, out<element_t<T, Y>, 2> decay) {
    using S = element_t<T, Y>;
    const view<S, 2> q_scale(q_scale_out);
    const char* const op = "decay_from_position_weights";
    const index heads = d1.extent(0), trained = d1.extent(1), n = q_scale.extent(1);
    detail::check_same_shape(op, "d2", d2, "d1", d1);
    detail::check_extent(op, "q_scale", q_scale, 0, heads, "extent 0 of d1");
    detail::check_same_shape(op, "decay", decay, "q_scale", q_scale);
    detail::check(n >= trained, op, "extent 1 of q_scale", "must be at least that of d1", double(n));
    if (gamma.is_given())
        detail::check_extent(op, "gamma", gamma, 0, heads, "extent 0 of d1");
    else
        detail::check(n == trained, op, "extent 1 of q_scale", "must be that of d1 without gamma", double(n));
    detail::check(n == trained || trained > 0, op, "extent 1 of d1", "must be at least 1 to be continued",
                  double(trained));
    detail::check_position_weights<S>(op, d2);
    for (index h = 0; h < heads; ++h) {
        const S *const first = d1.data() + h * d1.stride(0), *const second = d2.data() + h * d2.stride(0);
        S *const scale = q_scale.data() + h * q_scale.stride(0), *const to = decay.data() + h * decay.stride(0);
        for (index i = 0; i < trained; ++i)
            scale[i] = first[i] * second[i];
        for (index i = 1; i < trained; ++i)
            to[i] = second[i - 1] / second[i];
        if (trained > 0)
            to[0] = S(1);
        for (index i = trained; i < n; ++i) {
            scale[i] = scale[trained - 1];
            to[i] = gamma(h);
        }
    }
}

/// Gradients of decay_from_position_weights for the cotangents grad_q_scale, gq, and grad_decay, ga, at the trained
/// positions; all [H, n]:
///
///     grad_d1_i = gq_i d2_i
///     grad_d2_i = gq_i d1_i + ga_{i+1} / d2_{i+1} - ga_i d2_{i-1} / d2_i^2      (ga_0 is not used)
///
/// Throws like decay_from_position_weights; computed in double.
template <class T = void, class Y = view<float, 2>>
void decay_from_position_weights_backward(in<element_t<T, Y>, 2> d1, in<element_t<T, Y>, 2> d2,
                                          in<element_t<T, Y>, 2> grad_q_scale, in<element_t<T, Y>, 2> grad_decay,
                                          Y&& grad_d1_out, out<element_t<T, Y>, 2> grad_d2) {
    using S = element_t<T, Y>;
    const view<S, 2> grad_d1(grad_d1_out);
    const char* const op = "decay_from_position_weights_backward";
    detail::check_same_shape(op, "d2", d2, "d1", d1);
    detail::check_same_shape(op, "grad_q_scale", grad_q_scale, "d1", d1);
    detail::check_same_shape(op, "grad_decay", grad_decay, "d1", d1);
    detail::check_same_shape(op, "grad_d1", grad_d1, "d1", d1);
    detail::check_same_shape(op, "grad_d2", grad_d2, "d1", d1);
    const index heads = d1.extent(0), n = d1.extent(1);
    detail::check_position_weights<S>(op, d2);
    for (index h = 0; h < heads; ++h)
        for (index i = 0; i < n; ++i) {
            const double here = double(d2(h, i)), gq = double(grad_q_scale(h, i));
            double sum = gq * double(d1(h, i));
            if (i + 1 < n)
                sum += double(grad_decay(h, i + 1)) / double(d2(h, i + 1));
            if (i > 0)
                sum -= double(grad_decay(h, i)) * double(d2(h, i - 1)) / (here * here);
            grad_d1(h, i) = S(gq * here);
            grad_d2(h, i) = S(sum);
        }
}

} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Naive reference of linear_attention_log: one token and one feature at a time; gradients pair by pair.
///
/// arXiv:2403.19928, eq. 4, over features exp(log_q), exp(log_k).
#ifndef DEFT_REFERENCE_ATTENTION_LINEAR_ATTENTION_LOG_HPP
#define DEFT_REFERENCE_ATTENTION_LINEAR_ATTENTION_LOG_HPP

#include <deft/reference/attention/linear_attention_scaled.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// x.q and x.k are logarithms; state [B, G, m, e], norm and log_scale [B, G, m]: in and out.
template <class T>
void linear_attention_log(const linear_attention_inputs<T>& x, view<T, 4> o, out<T, 4> state, out<T, 3> norm,
                          out<T, 3> log_scale, bool causal) {
    const index groups = x.k.extent(1), m = x.k.extent(3), e = x.v.extent(3);
    const index share = groups == 0 ? 0 : x.q.extent(1) / groups;
    const auto read = [&](index b, index g, index i) {
        for (index h = g * share; h < (g + 1) * share; ++h) {
            T largest = log_zero<T>, denominator = 0;
            for (index f = 0; f < m; ++f) {
                const T w = x.q(b, h, i, f) + log_scale(b, g, f);
                largest = w > largest ? w : largest;
            }
            for (index c = 0; c < e; ++c)
                o(b, h, i, c) = 0;
            for (index f = 0; f < m; ++f) {
                const T p = exp_of_difference(x.q(b, h, i, f) + log_scale(b, g, f), largest);
                denominator += p * norm(b, g, f);
                for (index c = 0; c < e; ++c)
                    o(b, h, i, c) += p * state(b, g, f, c);
            }
            for (index c = 0; c < e; ++c)
                o(b, h, i, c) = denominator == T(0) ? T(0) : o(b, h, i, c) / denominator;
        }
    };
    for (index b = 0; b < x.k.extent(0); ++b)
        for (index g = 0; g < groups; ++g) {
            for (index i = 0; i < x.k.extent(2); ++i) {
                for (index f = 0; f < m; ++f) {
                    const T kept = log_scale(b, g, f) + log_decay(x, b, g, i), key = x.k(b, g, i, f);
                    const T scale = kept > key ? kept : key;
                    const T old_factor = exp_of_difference(kept, scale), key_factor = exp_of_difference(key, scale);
                    for (index c = 0; c < e; ++c)
                        state(b, g, f, c) = old_factor * state(b, g, f, c) + key_factor * x.v(b, g, i, c);
                    norm(b, g, f) = old_factor * norm(b, g, f) + key_factor;
                    log_scale(b, g, f) = scale;
                }
                if (causal)
                    read(b, g, i);
            }
            for (index i = 0; i < x.q.extent(2) && !causal; ++i)
                read(b, g, i);
        }
}

template <class T>
void linear_attention_log_backward(const linear_attention_inputs<T>& x, in<T, 4> grad_o,
                                   const weighted_attention_gradients<T>& grad, bool causal) {
    const index m = x.k.extent(3);
    // log sum_f exp(log_q + log_k)
    const auto score = [&](index b, index h, index g, index i, index j) {
        T largest = log_zero<T>, sum = 0;
        for (index f = 0; f < m; ++f) {
            const T w = x.q(b, h, i, f) + x.k(b, g, j, f);
            largest = w > largest ? w : largest;
        }
        if (largest == log_zero<T>)
            return largest;
        for (index f = 0; f < m; ++f)
            sum += exp_of_difference(x.q(b, h, i, f) + x.k(b, g, j, f), largest);
        return largest + std::log(sum);
    };
    weighted_attention_backward(x, grad_o, grad, causal, score, [&](index b, index h, index g, index i, index j, T ds) {
        const T s = score(b, h, g, i, j);
        for (index f = 0; f < m; ++f) {
            const T share = ds * exp_of_difference(x.q(b, h, i, f) + x.k(b, g, j, f), s);
            grad.q(b, h, i, f) += share;
            grad.k(b, g, j, f) += share;
        }
    });
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

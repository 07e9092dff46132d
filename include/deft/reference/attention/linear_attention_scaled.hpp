/// \file
/// Naive reference of linear_attention_scaled: one token at a time; gradients pair by pair.
///
/// arXiv:2403.19928, eq. 4 with eq. 12: keys exp(s_j) k_j, the state relative to exp(c), c = max(c + log a, s).
#ifndef DEFT_REFERENCE_ATTENTION_LINEAR_ATTENTION_SCALED_HPP
#define DEFT_REFERENCE_ATTENTION_LINEAR_ATTENTION_SCALED_HPP

#include <deft/reference/attention/linear_attention.hpp>
#include <deft/view.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

template <class T>
inline constexpr T log_zero = -std::numeric_limits<T>::infinity();

/// exp(x - y), 0 for x = -inf whatever y is.
template <class T>
T exp_of_difference(T x, T y) {
    return x == log_zero<T> ? T(0) : std::exp(x - y);
}
template <class T>
T log_decay(const linear_attention_inputs<T>& x, index b, index g, index i) {
    const T a = x.decay_of(b, g, i);
    return a > T(0) ? std::log(a) : log_zero<T>;
}

/// state [B, G, m, e], norm [B, G, m], log_scale [B, G]: in and out.
template <class T>
void linear_attention_scaled(const linear_attention_inputs<T>& x, in<T, 3> k_log_scale, view<T, 4> o, out<T, 4> state,
                             out<T, 3> norm, out<T, 2> log_scale, bool causal) {
    const index groups = x.k.extent(1), m = x.k.extent(3), e = x.v.extent(3);
    const index share = groups == 0 ? 0 : x.q.extent(1) / groups;
    const auto read = [&](index b, index g, index i) {
        for (index h = g * share; h < (g + 1) * share; ++h) {
            T denominator = 0;
            for (index f = 0; f < m; ++f)
                denominator += x.q(b, h, i, f) * norm(b, g, f);
            for (index c = 0; c < e; ++c) {
                T sum = 0;
                for (index f = 0; f < m; ++f)
                    sum += x.q(b, h, i, f) * state(b, g, f, c);
                o(b, h, i, c) = denominator == T(0) ? T(0) : sum / denominator;
            }
        }
    };
    for (index b = 0; b < x.k.extent(0); ++b)
        for (index g = 0; g < groups; ++g) {
            for (index i = 0; i < x.k.extent(2); ++i) {
                const T kept = log_scale(b, g) + log_decay(x, b, g, i), key = k_log_scale(b, g, i);
                const T scale = kept > key ? kept : key;
                const T old_factor = exp_of_difference(kept, scale), key_factor = exp_of_difference(key, scale);
                for (index f = 0; f < m; ++f) {
                    for (index c = 0; c < e; ++c)
                        state(b, g, f, c) =
                            old_factor * state(b, g, f, c) + key_factor * x.k(b, g, i, f) * x.v(b, g, i, c);
                    norm(b, g, f) = old_factor * norm(b, g, f) + key_factor * x.k(b, g, i, f);
                }
                log_scale(b, g) = scale;
                if (causal)
                    read(b, g, i);
            }
            for (index i = 0; i < x.q.extent(2) && !causal; ++i)
                read(b, g, i);
        }
}

/// What the gradients of the weighted forms write.
template <class T>
struct weighted_attention_gradients {
    view<T, 4> q, k, v;
    view<T, 3> k_log_scale, decay; // [B, G, n], or absent
};

/// Gradients of an average of v_j with weights, from the empty state. score(b, h, g, i, j) is the logarithm of a weight
/// but for the decays, -inf for none; share(b, h, g, i, j, ds) gives ds to what the score depends on.
template <class T, class Score, class Share>
void weighted_attention_backward(const linear_attention_inputs<T>& x, in<T, 4> grad_o,
                                 const weighted_attention_gradients<T>& grad, bool causal, Score&& score,
                                 Share&& share_of) {
    const index groups = x.k.extent(1), n = x.k.extent(2), m = x.k.extent(3), e = x.v.extent(3);
    const index share = groups == 0 ? 0 : x.q.extent(1) / groups;
    for (index b = 0; b < x.k.extent(0); ++b)
        for (index g = 0; g < groups; ++g) {
            for (index j = 0; j < n; ++j) {
                for (index f = 0; f < m; ++f)
                    grad.k(b, g, j, f) = 0;
                for (index c = 0; c < e; ++c)
                    grad.v(b, g, j, c) = 0;
                if (grad.k_log_scale.is_given())
                    grad.k_log_scale(b, g, j) = 0;
                if (grad.decay.is_given())
                    grad.decay(b, g, j) = 0;
            }
            std::vector<T> p(static_cast<std::size_t>(n)), o(static_cast<std::size_t>(e));
            for (index h = g * share; h < (g + 1) * share; ++h)
                for (index i = 0; i < x.q.extent(2); ++i) {
                    for (index f = 0; f < m; ++f)
                        grad.q(b, h, i, f) = 0;
                    const index end = causal ? i + 1 : n;
                    T total = 0, largest = log_zero<T>, sum = 0;
                    for (index j = end - 1; j >= 0; --j) {
                        p[std::size_t(j)] = score(b, h, g, i, j) + total;
                        largest = p[std::size_t(j)] > largest ? p[std::size_t(j)] : largest;
                        total += causal ? log_decay(x, b, g, j) : T(0);
                    }
                    if (largest == log_zero<T>)
                        continue;
                    for (index j = 0; j < end; ++j)
                        sum += p[std::size_t(j)] = exp_of_difference(p[std::size_t(j)], largest);
                    for (index c = 0; c < e; ++c) {
                        o[std::size_t(c)] = 0;
                        for (index j = 0; j < end; ++j)
                            o[std::size_t(c)] += p[std::size_t(j)] / sum * x.v(b, g, j, c);
                    }
                    T before = 0;
                    for (index j = 0; j < end; ++j) {
                        if (grad.decay.is_given() && causal && x.decay_of(b, g, j) > T(0))
                            grad.decay(b, g, j) += before / x.decay_of(b, g, j);
                        const T weight = p[std::size_t(j)] / sum;
                        T product = 0;
                        for (index c = 0; c < e; ++c) {
                            product += (x.v(b, g, j, c) - o[std::size_t(c)]) * grad_o(b, h, i, c);
                            grad.v(b, g, j, c) += weight * grad_o(b, h, i, c);
                        }
                        if (weight != T(0))
                            share_of(b, h, g, i, j, weight * product);
                        before += weight * product;
                    }
                }
        }
}

template <class T>
void linear_attention_scaled_backward(const linear_attention_inputs<T>& x, in<T, 3> k_log_scale, in<T, 4> grad_o,
                                      const weighted_attention_gradients<T>& grad, bool causal) {
    const index m = x.k.extent(3);
    const auto product = [&](index b, index h, index g, index i, index j) {
        T sum = 0;
        for (index f = 0; f < m; ++f)
            sum += x.q(b, h, i, f) * x.k(b, g, j, f);
        return sum;
    };
    weighted_attention_backward(
        x, grad_o, grad, causal,
        [&](index b, index h, index g, index i, index j) {
            return std::log(product(b, h, g, i, j)) + k_log_scale(b, g, j);
        },
        [&](index b, index h, index g, index i, index j, T ds) {
            const T w = ds / product(b, h, g, i, j);
            for (index f = 0; f < m; ++f) {
                grad.q(b, h, i, f) += w * x.k(b, g, j, f);
                grad.k(b, g, j, f) += w * x.q(b, h, i, f);
            }
            grad.k_log_scale(b, g, j) += ds;
        });
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Naive reference of softmax_attention: a row of weights in memory, two passes.
///
/// arXiv:2403.19928, eq. 1, 2: P = softmax(scale Q K^T) over visible keys, O = P V.
#ifndef DEFT_REFERENCE_ATTENTION_SOFTMAX_ATTENTION_HPP
#define DEFT_REFERENCE_ATTENTION_SOFTMAX_ATTENTION_HPP

#include <deft/view.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

template <class T>
struct softmax_attention_inputs {
    view<const T, 4> q, k, v;
    view<const std::uint8_t, 2> mask;
    T scale;
    bool causal;

    bool sees(index b, index i, index j) const {
        return (!mask.is_given() || mask(b, j) != 0) && (!causal || j <= i + k.extent(2) - q.extent(2));
    }
};

/// p = the weights of query i; returns the logarithm of their sum.
template <class T>
T softmax_weights(const softmax_attention_inputs<T>& x, index b, index h, index g, index i, std::vector<T>& p) {
    constexpr T none = -std::numeric_limits<T>::infinity();
    const index n = x.k.extent(2), d = x.q.extent(3);
    T largest = none, sum = 0;
    p.assign(std::size_t(n), none);
    for (index j = 0; j < n; ++j) {
        if (!x.sees(b, i, j))
            continue;
        T score = 0;
        for (index f = 0; f < d; ++f)
            score += x.q(b, h, i, f) * x.k(b, g, j, f);
        p[std::size_t(j)] = x.scale * score;
        largest = x.scale * score > largest ? x.scale * score : largest;
    }
    if (largest == none) {
        p.assign(std::size_t(n), T(0));
        return none;
    }
    for (T& w : p)
        sum += w = std::exp(w - largest);
    for (T& w : p)
        w /= sum;
    return largest + std::log(sum);
}

template <class T>
void softmax_attention(const softmax_attention_inputs<T>& x, view<T, 4> o, out<T, 3> lse) {
    const index share = x.k.extent(1) == 0 ? 1 : x.q.extent(1) / x.k.extent(1);
    std::vector<T> p;
    for (index b = 0; b < x.q.extent(0); ++b)
        for (index h = 0; h < x.q.extent(1); ++h)
            for (index i = 0; i < x.q.extent(2); ++i) {
                lse(b, h, i) = softmax_weights(x, b, h, h / share, i, p);
                for (index c = 0; c < o.extent(3); ++c)
                    o(b, h, i, c) = 0;
                for (index j = 0; j < x.k.extent(2); ++j)
                    for (index c = 0; c < o.extent(3) && p[std::size_t(j)] != T(0); ++c)
                        o(b, h, i, c) += p[std::size_t(j)] * x.v(b, h / share, j, c);
            }
}

/// dS = P (dP - rowsum(P dP)), dP = dO V^T.
template <class T>
void softmax_attention_backward(const softmax_attention_inputs<T>& x, in<T, 4> grad_o, view<T, 4> grad_q,
                                view<T, 4> grad_k, view<T, 4> grad_v) {
    const index n = x.k.extent(2), d = x.q.extent(3), e = x.v.extent(3);
    const index share = x.k.extent(1) == 0 ? 1 : x.q.extent(1) / x.k.extent(1);
    std::vector<T> p, dp(static_cast<std::size_t>(n));
    for (index b = 0; b < x.q.extent(0); ++b) {
        for (index g = 0; g < x.k.extent(1); ++g)
            for (index j = 0; j < n; ++j) {
                for (index f = 0; f < d; ++f)
                    grad_k(b, g, j, f) = 0;
                for (index c = 0; c < e; ++c)
                    grad_v(b, g, j, c) = 0;
            }
        for (index h = 0; h < x.q.extent(1); ++h)
            for (index i = 0; i < x.q.extent(2); ++i) {
                const index g = h / share;
                softmax_weights(x, b, h, g, i, p);
                T mean = 0;
                for (index j = 0; j < n; ++j) {
                    T& product = dp[std::size_t(j)];
                    product = 0;
                    for (index c = 0; c < e; ++c) {
                        product += grad_o(b, h, i, c) * x.v(b, g, j, c);
                        grad_v(b, g, j, c) += p[std::size_t(j)] * grad_o(b, h, i, c);
                    }
                    mean += p[std::size_t(j)] * product;
                }
                for (index f = 0; f < d; ++f)
                    grad_q(b, h, i, f) = 0;
                for (index j = 0; j < n; ++j) {
                    const T ds = x.scale * p[std::size_t(j)] * (dp[std::size_t(j)] - mean);
                    for (index f = 0; f < d; ++f) {
                        grad_q(b, h, i, f) += ds * x.k(b, g, j, f);
                        grad_k(b, g, j, f) += ds * x.q(b, h, i, f);
                    }
                }
            }
    }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

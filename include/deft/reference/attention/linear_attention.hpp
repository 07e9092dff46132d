/// \file
/// Naive reference of linear_attention: one token at a time, as the formulas say.
///
/// DiJiang (arXiv:2403.19928, eq. 4 and 13):
///     S_i = a_i S_{i-1} + k_i v_i^T, z_i = a_i z_{i-1} + k_i;  o_i = q_i S_i or q_i S_i / (q_i z_i + eps)
#ifndef DEFT_REFERENCE_ATTENTION_LINEAR_ATTENTION_HPP
#define DEFT_REFERENCE_ATTENTION_LINEAR_ATTENTION_HPP

#include <deft/view.hpp>

#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

struct linear_attention_form {
    bool causal = true;
    bool divided = false; ///< normalize sum
    double eps = 0;
};

/// Tensors of linear attention. decay is [B, G, n] or absent; norm is given if outputs are divided.
template <class T>
struct linear_attention_inputs {
    view<const T, 4> q, k, v; // [B, H, nq, m], [B, G, n, m], [B, G, n, e]
    view<const T, 3> decay;

    T decay_of(index b, index g, index i) const {
        return decay.is_given() ? decay(b, g, i) : T(1);
    }
};

/// S = a S + k_i v_i^T and z = a z + k_i; a = 0 forgets.
template <class T>
void add_token(const linear_attention_inputs<T>& x, index b, index g, index i, T* s, T* z) {
    const index m = x.k.extent(3), e = x.v.extent(3);
    const T a = x.decay_of(b, g, i);
    for (index f = 0; f < m; ++f) {
        const T key = x.k(b, g, i, f);
        for (index c = 0; c < e; ++c)
            s[f * e + c] = (a == T(0) ? T(0) : a * s[f * e + c]) + key * x.v(b, g, i, c);
        if (z != nullptr)
            z[f] = (a == T(0) ? T(0) : a * z[f]) + key;
    }
}

/// o = q S, divided; returns the denominator.
template <class T>
T read_state(const T* q, const T* s, const T* z, index m, index e, double eps, T* o) {
    for (index c = 0; c < e; ++c)
        o[c] = 0;
    T denominator = z == nullptr ? T(1) : T(eps);
    for (index f = 0; f < m; ++f) {
        for (index c = 0; c < e; ++c)
            o[c] += q[f] * s[f * e + c];
        if (z != nullptr)
            denominator += q[f] * z[f];
    }
    for (index c = 0; c < e && z != nullptr; ++c)
        o[c] = denominator == T(0) ? T(0) : o[c] / denominator;
    return denominator;
}

/// o is [B, H, nq, e]; state [B, G, m, e] and norm [B, G, m] are contiguous, in and out.
template <class T>
void linear_attention(const linear_attention_inputs<T>& x, view<T, 4> o, out<T, 4> state, out<T, 3> norm,
                      const linear_attention_form& form) {
    const index groups = x.k.extent(1), n = x.k.extent(2), m = x.k.extent(3), e = x.v.extent(3);
    const index share = groups == 0 ? 0 : x.q.extent(1) / groups;
    std::vector<T> sums(std::size_t(m * e)), norms(std::size_t(form.divided ? m : 0));
    for (index b = 0; b < x.k.extent(0); ++b)
        for (index g = 0; g < groups; ++g) {
            for (index f = 0; f < m; ++f) {
                for (index c = 0; c < e; ++c)
                    sums[std::size_t(f * e + c)] = state(b, g, f, c);
                if (form.divided)
                    norms[std::size_t(f)] = norm(b, g, f);
            }
            T* const z = form.divided ? norms.data() : nullptr;
            const auto read = [&](index i) {
                for (index h = g * share; h < (g + 1) * share; ++h)
                    read_state(&x.q.data()[b * x.q.stride(0) + h * x.q.stride(1) + i * x.q.stride(2)], sums.data(), z,
                               m, e, form.eps, &o.data()[b * o.stride(0) + h * o.stride(1) + i * o.stride(2)]);
            };
            for (index i = 0; i < n; ++i) {
                add_token(x, b, g, i, sums.data(), z);
                if (form.causal)
                    read(i);
            }
            for (index i = 0; i < x.q.extent(2) && !form.causal; ++i)
                read(i);
            for (index f = 0; f < m; ++f) {
                for (index c = 0; c < e; ++c)
                    state(b, g, f, c) = sums[std::size_t(f * e + c)];
                if (form.divided)
                    norm(b, g, f) = norms[std::size_t(f)];
            }
        }
}

/// Gradients by the reverse recurrence, with all states kept: memory of n states. `state` and `norm` are those before
/// the first token (absent: zero); grad_state and grad_norm hold the cotangents of the final ones (absent: zero) and
/// receive the gradients. grad_decay is [B, G, n], or absent.
template <class T>
void linear_attention_backward(const linear_attention_inputs<T>& x, view<const T, 4> state, view<const T, 3> norm,
                               view<const T, 4> grad_o, view<T, 4> grad_q, view<T, 4> grad_k, view<T, 4> grad_v,
                               view<T, 3> grad_decay, view<T, 4> grad_state, view<T, 3> grad_norm,
                               const linear_attention_form& form) {
    const index groups = x.k.extent(1), n = x.k.extent(2), m = x.k.extent(3), e = x.v.extent(3);
    const index share = groups == 0 ? 0 : x.q.extent(1) / groups, size = m * (e + 1);
    // Column e of a state is z.
    std::vector<T> states(std::size_t((n + 1) * size)), gradient(static_cast<std::size_t>(size)), o(std::size_t(e) + 1);
    for (index b = 0; b < x.k.extent(0); ++b)
        for (index g = 0; g < groups; ++g) {
            for (index f = 0; f < m; ++f)
                for (index c = 0; c <= e; ++c) {
                    T& s = states[std::size_t(f * (e + 1) + c)];
                    T& d = gradient[std::size_t(f * (e + 1) + c)];
                    if (c < e) {
                        s = state.is_given() ? state(b, g, f, c) : T(0);
                        d = grad_state.is_given() ? grad_state(b, g, f, c) : T(0);
                    } else {
                        s = form.divided && norm.is_given() ? norm(b, g, f) : T(0);
                        d = form.divided && grad_norm.is_given() ? grad_norm(b, g, f) : T(0);
                    }
                }
            const auto value = [&](index i, index c) { return c < e ? x.v(b, g, i, c) : T(form.divided); };
            for (index i = 0; i < n; ++i) {
                const T a = x.decay_of(b, g, i);
                const T* const before = states.data() + i * size;
                for (index f = 0; f < m; ++f)
                    for (index c = 0; c <= e; ++c)
                        states[std::size_t((i + 1) * size + f * (e + 1) + c)] =
                            a * before[f * (e + 1) + c] + x.k(b, g, i, f) * value(i, c);
            }
            const auto read = [&](index i, const T* s) {
                for (index h = g * share; h < (g + 1) * share; ++h) {
                    T denominator = form.divided ? T(form.eps) : T(1), product = 0;
                    for (index f = 0; f < m && form.divided; ++f)
                        denominator += x.q(b, h, i, f) * s[f * (e + 1) + e];
                    const T inverse = denominator == T(0) ? T(0) : 1 / denominator;
                    for (index c = 0; c < e; ++c) {
                        o[std::size_t(c)] = grad_o(b, h, i, c) * inverse;
                        T numerator = 0;
                        for (index f = 0; f < m; ++f)
                            numerator += x.q(b, h, i, f) * s[f * (e + 1) + c];
                        product += numerator * inverse * grad_o(b, h, i, c);
                    }
                    o[std::size_t(e)] = form.divided ? -product * inverse : T(0);
                    for (index f = 0; f < m; ++f) {
                        T sum = 0;
                        for (index c = 0; c <= e; ++c) {
                            sum += s[f * (e + 1) + c] * o[std::size_t(c)];
                            gradient[std::size_t(f * (e + 1) + c)] += x.q(b, h, i, f) * o[std::size_t(c)];
                        }
                        grad_q(b, h, i, f) = sum;
                    }
                }
            };
            for (index i = 0; i < x.q.extent(2) && !form.causal; ++i)
                read(i, states.data() + n * size);
            for (index i = n - 1; i >= 0; --i) {
                if (form.causal)
                    read(i, states.data() + (i + 1) * size);
                for (index c = 0; c < e; ++c)
                    grad_v(b, g, i, c) = 0;
                T of_decay = 0;
                for (index f = 0; f < m; ++f) {
                    T sum = 0;
                    for (index c = 0; c <= e; ++c) {
                        T& d = gradient[std::size_t(f * (e + 1) + c)];
                        sum += d * value(i, c);
                        if (c < e)
                            grad_v(b, g, i, c) += d * x.k(b, g, i, f);
                        of_decay += d * states[std::size_t(i * size + f * (e + 1) + c)];
                        d *= x.decay_of(b, g, i);
                    }
                    grad_k(b, g, i, f) = sum;
                }
                if (grad_decay.is_given())
                    grad_decay(b, g, i) = of_decay;
            }
            for (index f = 0; f < m; ++f) {
                for (index c = 0; c < e && grad_state.is_given(); ++c)
                    grad_state(b, g, f, c) = gradient[std::size_t(f * (e + 1) + c)];
                if (form.divided && grad_norm.is_given())
                    grad_norm(b, g, f) = gradient[std::size_t(f * (e + 1) + e)];
            }
        }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Gradients of linear attention whose weights are logarithms or carry scales, of one group, pair by pair. C++17.
///
/// o_i is an average of v_j with weights P_ij, so ds_ij = P_ij (v_j - o_i) do_i. v_j - o_i is formed before the
/// product: ds is then 0 where one key has all the weight. Quadratic in the tokens, without memory; keys that a decay
/// of 0 has cut off are not visited.
#ifndef DEFT_KERNELS_WEIGHTED_ATTENTION_BACKWARD_HPP
#define DEFT_KERNELS_WEIGHTED_ATTENTION_BACKWARD_HPP

#include <deft/kernels/linear_attention_log.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

template <class T>
struct weighted_attention_gradient_group {
    head_rows<const T> q, k, v, o, grad_o; ///< q, k: features, or their logarithms
    const T* key_log_scale;                ///< per token; null: q and k are logarithms
    decay_rows<T> decay;
    head_rows<T> grad_q, grad_k, grad_v;
    T *grad_key_log_scale, *grad_decay; ///< null: not wanted
    index grad_decay_step;              ///< 0: their sum
    index heads, queries, tokens, features, width;
    bool causal;
};

namespace detail {

/// to += factor from.
template <class Arch, class T>
DEFT_ALWAYS_INLINE void add_scaled(T* to, T factor, const T* from, index n) noexcept {
    using B = simd::batch<T, Arch>;
    simd::for_each_vector<T, Arch, 2>(n, [&](index c, auto vectors, auto extent) DEFT_INLINE_LAMBDA {
        for (index at = c; at < c + decltype(vectors)::value * simd::lanes<T, Arch>; at += simd::lanes<T, Arch>)
            simd::store(to + at,
                        simd::fma(B(factor), simd::load<Arch>(from + at, extent), simd::load<Arch>(to + at, extent)),
                        extent);
    });
}

template <class Arch, class T>
class weighted_attention_gradient_run {
    using B = simd::batch<T, Arch>;

public:
    explicit weighted_attention_gradient_run(const weighted_attention_gradient_group<T>& given) noexcept : g(given) {}

    /// The sum of the gradients of the decays.
    double run() noexcept {
        for (index j = 0; j < g.tokens; ++j) {
            clear(g.grad_k.at(0, j), g.features);
            clear(g.grad_v.at(0, j), g.width);
            if (g.grad_key_log_scale != nullptr)
                g.grad_key_log_scale[j] = 0;
            if (g.grad_decay != nullptr && g.grad_decay_step != 0)
                g.grad_decay[j * g.grad_decay_step] = 0;
        }
        index first = 0;       // the first key that is not forgotten
        double from_first = 0; // log of the decays after it
        for (index i = 0; i < g.queries; ++i) {
            const index end = g.causal ? i + 1 : g.tokens;
            if (g.causal && i > 0) {
                const double a = double(log_decay(g.decay[i]));
                const bool forgets = a == double(log_zero<T>);
                first = forgets ? i : first;
                from_first = forgets ? 0 : from_first + a;
            }
            for (index h = 0; h < g.heads; ++h)
                row(h, i, first, end, from_first);
        }
        if (g.grad_decay != nullptr && g.grad_decay_step != 0)
            for (index j = 0; j < g.tokens; ++j) {
                T& d = g.grad_decay[j * g.grad_decay_step];
                d = g.decay[j] > T(0) ? d / g.decay[j] : T(0);
            }
        return total;
    }

private:
    static void clear(T* to, index n) noexcept {
        for (index c = 0; c < n; ++c)
            to[c] = T(0);
    }

    void row(index h, index i, index first, index end, double from_first) noexcept {
        clear(g.grad_q.at(h, i), g.features);
        double largest = -std::numeric_limits<double>::infinity(), sum = 0;
        each_key(first, end, from_first, [&](index j, double log_l) {
            const weight w = weight_of(h, i, j, log_l);
            if (w.log_size > largest) {
                sum = sum == 0 ? 0 : sum * std::exp(largest - w.log_size);
                largest = w.log_size;
            }
            if (w.log_size > -std::numeric_limits<double>::infinity())
                sum += std::exp(w.log_size - largest) * w.sign;
        });
        if (sum == 0)
            return;
        double before = 0; // sum of ds over the keys so far
        each_key(first, end, from_first, [&](index j, double log_l) {
            const weight w = weight_of(h, i, j, log_l);
            if (j > first && g.grad_decay != nullptr) {
                const double share = before / double(g.decay[j]);
                total += share;
                if (g.grad_decay_step != 0)
                    g.grad_decay[j * g.grad_decay_step] += T(before);
            }
            if (!(w.log_size > -std::numeric_limits<double>::infinity()))
                return;
            const double scale = std::exp(w.log_size - largest) / sum;
            const double ds = w.sign * scale * double(difference_dot(h, i, j));
            before += ds;
            add_scaled<Arch>(g.grad_v.at(0, j), T(w.sign * scale), g.grad_o.at(h, i), g.width);
            if (g.key_log_scale == nullptr) {
                share_features(h, i, j, T(ds));
            } else {
                g.grad_key_log_scale[j] += T(ds);
                const T factor = T(ds / w.product);
                add_scaled<Arch>(g.grad_q.at(h, i), factor, g.k.at(0, j), g.features);
                add_scaled<Arch>(g.grad_k.at(0, j), factor, g.q.at(h, i), g.features);
            }
        });
    }

    // Keys first .. end - 1 and the logarithm of the decays after each.
    template <class F>
    void each_key(index first, index end, double log_l, F&& f) noexcept {
        for (index j = first; j < end; ++j) {
            if (g.causal && j > first)
                log_l -= double(log_decay(g.decay[j]));
            f(j, log_l);
        }
    }

    /// sign exp(log_size); product: q k.
    struct weight {
        double log_size, sign, product;
    };
    weight weight_of(index h, index i, index j, double log_l) noexcept {
        if (g.key_log_scale == nullptr) {
            find_shares(h, i, j);
            return {shares_top == log_zero<T> ? double(log_zero<T>)
                                              : double(shares_top) + std::log(double(shares_sum)) + log_l,
                    1, 0};
        }
        const double product = double(dot<Arch>(g.q.at(h, i), g.k.at(0, j), g.features));
        return {product == 0 ? double(log_zero<T>) : std::log(std::abs(product)) + double(g.key_log_scale[j]) + log_l,
                product < 0 ? -1.0 : 1.0, product};
    }

    // The largest of log_q + log_k over features, and the sum of exponentials relative to it.
    void find_shares(index h, index i, index j) noexcept {
        const T *const q = g.q.at(h, i), *const k = g.k.at(0, j);
        shares_top = log_zero<T>;
        for (index f = 0; f < g.features; ++f)
            shares_top = q[f] + k[f] > shares_top ? q[f] + k[f] : shares_top;
        shares_sum = 0;
        if (shares_top == log_zero<T>)
            return;
        simd::for_each_vector<T, Arch, 1>(g.features, [&](index f, auto, auto extent) DEFT_INLINE_LAMBDA {
            alignas(64) T shares[std::size_t(simd::lanes<T, Arch>)] = {};
            simd::store(shares, share_of(q + f, k + f, extent), extent);
            shares_sum += simd::reduce_add(simd::load<Arch>(shares));
        });
    }
    template <class Extent>
    B share_of(const T* q, const T* k, Extent extent) const noexcept {
        return simd::exp(simd::load<Arch>(q, extent) + simd::load<Arch>(k, extent) - B(shares_top));
    }
    void share_features(index h, index i, index j, T ds) noexcept {
        const T *const q = g.q.at(h, i), *const k = g.k.at(0, j);
        T *const grad_q = g.grad_q.at(h, i), *const grad_k = g.grad_k.at(0, j);
        const B factor(ds / shares_sum);
        simd::for_each_vector<T, Arch, 1>(g.features, [&](index f, auto, auto extent) DEFT_INLINE_LAMBDA {
            const B share = factor * share_of(q + f, k + f, extent);
            simd::store(grad_q + f, simd::load<Arch>(grad_q + f, extent) + share, extent);
            simd::store(grad_k + f, simd::load<Arch>(grad_k + f, extent) + share, extent);
        });
    }

    // (v_j - o_i) do_i
    T difference_dot(index h, index i, index j) const noexcept {
        const T *const v = g.v.at(0, j), *const o = g.o.at(h, i), *const d = g.grad_o.at(h, i);
        B sum(T(0));
        simd::for_each_vector<T, Arch, 1>(g.width, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
            sum = simd::fma(simd::load<Arch>(v + c, extent) - simd::load<Arch>(o + c, extent),
                            simd::load<Arch>(d + c, extent), sum);
        });
        return simd::reduce_add(sum);
    }

    const weighted_attention_gradient_group<T> g;
    double total = 0;
    T shares_top = 0, shares_sum = 0;
};

} // namespace detail

/// Writes all gradients; returns the sum of those of the decays.
template <class Arch, class T>
DEFT_NOINLINE double weighted_attention_gradient(const weighted_attention_gradient_group<T>& group) noexcept {
    return detail::weighted_attention_gradient_run<Arch, T>(group).run();
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

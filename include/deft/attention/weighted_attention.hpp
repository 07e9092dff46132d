/// \file
/// What linear_attention_scaled and linear_attention_log share: options, checks, and the gradient.
#ifndef DEFT_ATTENTION_WEIGHTED_ATTENTION_HPP
#define DEFT_ATTENTION_WEIGHTED_ATTENTION_HPP

#include <deft/attention/linear_attention.hpp>
#include <deft/attention/linear_attention_scaled_state.hpp>
#include <deft/kernels/weighted_attention_backward.hpp>

namespace deft {

/// Outputs are always divided by the sum of the weights.
struct weighted_attention_options {
    attention_mask mask = attention_mask::causal;
    index chunk = 0; ///< tokens at a time, at most; 0: chosen. Results differ by rounding only.
};

template <class T, int ScaleRank>
using in_scaled_state = typename detail::non_deduced<scaled_attention_state_view<T, ScaleRank>>::type;

inline namespace DEFT_ISA {
namespace detail {

template <class T>
void check_weighted(const char* op, const view<const T, 4>& q, const view<const T, 4>& k, const view<const T, 4>& v,
                    const attention_decay<const T>& decay, const weighted_attention_options& options) {
    check_attention<T>(op, q, k, v, decay, {.mask = options.mask, .chunk = options.chunk});
}

template <class T, int ScaleRank>
void check_scaled_state(const char* op, const scaled_attention_state_view<T, ScaleRank>& s, const view<const T, 4>& k,
                        const view<const T, 4>& v) {
    check_state(op, "state", "norm", s.state, s.norm, k, v, attention_normalize::sum);
    constexpr int axes[] = {0, 1, 3};
    constexpr const char* sources[] = {"extent 0 of k", "extent 1 of k", "extent 3 of k"};
    for (int axis = 0; axis < ScaleRank; ++axis)
        check_extent(op, "log_scale", s.log_scale, axis, k.extent(axes[axis]), sources[axis]);
}

template <class Scale, class T>
void check_key_scale(const char* op, const char* name, const view<Scale, 3>& scale, const view<T, 4>& k) {
    for (int axis = 0; axis < 3; ++axis)
        check_extent(op, name, scale, axis, k.extent(axis), "extent of k");
}

/// Gradients of both; key_log_scale is absent for logarithms.
template <class T>
struct weighted_attention_tensors {
    view<const T, 4> q, k, v;
    view<const T, 3> key_log_scale;
    attention_decay<const T> decay;
    view<const T, 4> o, grad_o;
    view<T, 4> grad_q, grad_k, grad_v;
    view<T, 3> grad_key_log_scale;
    attention_decay<T> grad_decay;
};

template <class T>
void check_weighted_gradient(const char* op, const weighted_attention_tensors<T>& x,
                             const weighted_attention_options& options) {
    check_weighted<T>(op, x.q, x.k, x.v, x.decay, options);
    check_output(op, "o", x.o, x.q, x.v);
    check_output(op, "grad_o", x.grad_o, x.q, x.v);
    check_same_shape(op, "grad_q", x.grad_q, "q", x.q);
    check_same_shape(op, "grad_k", x.grad_k, "k", x.k);
    check_same_shape(op, "grad_v", x.grad_v, "v", x.v);
    check_decay_gradient<T>(op, x.grad_decay, x.decay, x.k.extent(0), x.k.extent(1), x.k.extent(2));
}

template <class T, class Executor>
void weighted_attention_backward(const weighted_attention_tensors<T>& x, const weighted_attention_options& options,
                                 Executor& executor) {
    const index batches = x.k.extent(0), groups = x.k.extent(1), share = groups == 0 ? 0 : x.q.extent(1) / groups;
    const auto backward = [&](index b, index g) -> double {
        const auto row = [&](const auto& t) {
            return t.is_given() ? t.data() + b * t.stride(0) + g * t.stride(1) : nullptr;
        };
        return kernels::weighted_attention_gradient<simd::default_arch>(
            kernels::weighted_attention_gradient_group<T>{.q = heads_from(x.q, b, g * share),
                                                          .k = heads_from(x.k, b, g),
                                                          .v = heads_from(x.v, b, g),
                                                          .o = heads_from(x.o, b, g * share),
                                                          .grad_o = heads_from(x.grad_o, b, g * share),
                                                          .key_log_scale = row(x.key_log_scale),
                                                          .decay = {x.decay.at(b, g), x.decay.step()},
                                                          .grad_q = heads_from(x.grad_q, b, g * share),
                                                          .grad_k = heads_from(x.grad_k, b, g),
                                                          .grad_v = heads_from(x.grad_v, b, g),
                                                          .grad_key_log_scale = row(x.grad_key_log_scale),
                                                          .grad_decay = x.grad_decay.at(b, g),
                                                          .grad_decay_step = x.grad_decay.step(),
                                                          .heads = share,
                                                          .queries = x.q.extent(2),
                                                          .tokens = x.k.extent(2),
                                                          .features = x.k.extent(3),
                                                          .width = x.v.extent(3),
                                                          .causal = options.mask == attention_mask::causal});
    };
    const bool summed = x.grad_decay.is_given() && !x.grad_decay.is_per_token(); // over batches: one task owns a head
    executor.parallel_for(groups * (summed ? 1 : batches), 1, [&](index begin, index end) {
        for (index task = begin; task < end; ++task) {
            double sum = 0;
            for (index b = 0; b < (summed ? batches : 1); ++b)
                sum += backward(summed ? b : task / groups, task % groups);
            if (summed)
                *x.grad_decay.at(0, task) = T(sum);
        }
    });
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// linear_attention over positive features that are given by their logarithms: normalised, and it can neither overflow
/// nor divide by 0 (arXiv:2403.19928, eq. 4; the form for exponential features).
///
/// Every feature f has a scale of its own, exp(c_f), c_f the largest seen:
///
///     c'_f = max(c_f + log a, log_k_f)
///     S_f = exp(c_f + log a - c'_f) S_f + exp(log_k_f - c'_f) v,   z likewise
///     o = sum_f p_f S_f / sum_f p_f z_f,   p_f = exp(log_q_f + c'_f - max_f(log_q_f + c'_f))
///
/// It equals softmax attention with scores logsumexp_f(log_q_if + log_k_jf) + the logarithm of the decays between.
///
/// log_q, log_k: as q and k of linear_attention, -inf for a feature that is exactly 0; v, decay, o: as there, decays at
/// least 0; state: `[B, G, m, e]`, norm `[B, G, m]`, log_scale `[B, G, m]`. Elements are float or double.
#ifndef DEFT_ATTENTION_LINEAR_ATTENTION_LOG_HPP
#define DEFT_ATTENTION_LINEAR_ATTENTION_LOG_HPP

#include <deft/attention/weighted_attention.hpp>
#include <deft/kernels/linear_attention_log.hpp>

namespace deft {
inline namespace DEFT_ISA {

/// Formulas, shapes and types at the top of this file; `state` is a linear_attention_log_state or views of one. One
/// token or many, as linear_attention, which says what else holds: errors, aliasing, threads. A query none of whose
/// features was seen gives 0.
template <class T = void, class O, executor Executor = serial_executor>
void linear_attention_log(in<element_t<T, O>, 4> log_q, in<element_t<T, O>, 4> log_k, in<element_t<T, O>, 4> v,
                          in_decay<element_t<T, O>> decay, O&& o_out, in_scaled_state<element_t<T, O>, 3> state,
                          const weighted_attention_options& options = {}, Executor&& executor = Executor()) {
    using S = element_t<T, O>;
    using arch = simd::default_arch;
    const char* const op = "linear_attention_log";
    const view<S, 4> o(o_out);
    detail::check_weighted<S>(op, log_q, log_k, v, decay, options);
    detail::check_scaled_state<S>(op, state, log_k, v);
    detail::check_output(op, "o", o, log_q, v);
    const index groups = log_k.extent(1), share = groups == 0 ? 0 : log_q.extent(1) / groups;
    executor.parallel_for(log_k.extent(0) * groups, 1, [&](index begin, index end) {
        for (index task = begin; task < end; ++task) {
            const index b = task / groups, g = task % groups;
            const auto at = [&](const auto& t) { return t.data() + b * t.stride(0) + g * t.stride(1); };
            const kernels::log_attention_group<S> group{.log_q = detail::heads_from(log_q, b, g * share),
                                                        .log_k = detail::heads_from(log_k, b, g),
                                                        .v = detail::heads_from(v, b, g),
                                                        .o = detail::heads_from(o, b, g * share),
                                                        .decay = {decay.at(b, g), decay.step()},
                                                        .state = at(state.state),
                                                        .norm = at(state.norm),
                                                        .log_scale = at(state.log_scale),
                                                        .state_row = state.state.stride(2),
                                                        .heads = share,
                                                        .queries = log_q.extent(2),
                                                        .tokens = log_k.extent(2),
                                                        .features = log_k.extent(3),
                                                        .width = v.extent(3),
                                                        .block = options.chunk == 0 ? kernels::largest_block
                                                                                    : options.chunk};
            if (options.mask == attention_mask::causal)
                kernels::log_attention_causal<arch>(group);
            else
                kernels::log_attention_full<arch>(group);
        }
    });
}

/// Gradients of linear_attention_log, of one call from the empty state, for the cotangent grad_o of o. With P_ij the
/// share of key j in o_i, ds_ij = P_ij (v_j - o_i) grad_o_i, and R_ijf the share of feature f in the similarity:
///
///     grad_log_q_if = sum_j ds_ij R_ijf     grad_log_k_jf = sum_i ds_ij R_ijf     grad_v_j = sum_i P_ij grad_o_i
///     grad_a_l = sum_{j < l <= i} ds_ij / a_l, 0 where a_l = 0
///
/// o: the output of the forward call. grad_decay may be absent. Quadratic in n: pair by pair, without memory. No output
/// overlaps another or an input. Throws like linear_attention. The same bits for every executor.
template <class T = void, class GQ, executor Executor = serial_executor>
void linear_attention_log_backward(in<element_t<T, GQ>, 4> log_q, in<element_t<T, GQ>, 4> log_k,
                                   in<element_t<T, GQ>, 4> v, in_decay<element_t<T, GQ>> decay,
                                   in<element_t<T, GQ>, 4> o, in<element_t<T, GQ>, 4> grad_o, GQ&& grad_log_q,
                                   out<element_t<T, GQ>, 4> grad_log_k, out<element_t<T, GQ>, 4> grad_v,
                                   out_decay<element_t<T, GQ>> grad_decay,
                                   const weighted_attention_options& options = {}, Executor&& executor = Executor()) {
    using S = element_t<T, GQ>;
    const detail::weighted_attention_tensors<S> x{log_q,  log_k,      v,          absent, decay,  o,
                                                  grad_o, grad_log_q, grad_log_k, grad_v, absent, grad_decay};
    detail::check_weighted_gradient<S>("linear_attention_log_backward", x, options);
    detail::weighted_attention_backward<S>(x, options, executor);
}

} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// linear_attention of keys that carry the logarithm of a scale, so that they cannot overflow: normalised, positive
/// features (arXiv:2403.19928, eq. 4 with eq. 12).
///
/// Key j counts exp(k_log_scale_j) k_j. The state has one scale per head, exp(c), c the largest seen:
///
///     c_i = max(c_{i-1} + log a_i, s_i),   s_i = k_log_scale_i
///     S_i = exp(c_{i-1} + log a_i - c_i) S_{i-1} + exp(s_i - c_i) k_i v_i^T,   z likewise
///     o_i = q_i S_i / q_i z_i,   0 where the denominator is 0
///
/// A scale of a query cancels. Enough in float while, for every pair, the largest log q plus the largest log k exceeds
/// the largest log q + log k of one feature by less than 60; beyond that use linear_attention_log.
///
/// q, k, v, decay, o: as in linear_attention, decays at least 0; k_log_scale: `[B, G, n]`, -inf for keys that do not
/// count; state: `[B, G, m, e]`, norm `[B, G, m]`, log_scale `[B, G]`. Elements are float or double.
#ifndef DEFT_ATTENTION_LINEAR_ATTENTION_SCALED_HPP
#define DEFT_ATTENTION_LINEAR_ATTENTION_SCALED_HPP

#include <deft/attention/weighted_attention.hpp>

namespace deft {
inline namespace DEFT_ISA {

/// Formulas, shapes and types at the top of this file; `state` is a linear_attention_scaled_state or views of one. One
/// token or many, as linear_attention, which says what else holds: errors, aliasing, threads.
template <class T = void, class O, executor Executor = serial_executor>
void linear_attention_scaled(in<element_t<T, O>, 4> q, in<element_t<T, O>, 4> k, in<element_t<T, O>, 4> v,
                             in<element_t<T, O>, 3> k_log_scale, in_decay<element_t<T, O>> decay, O&& o_out,
                             in_scaled_state<element_t<T, O>, 2> state, const weighted_attention_options& options = {},
                             Executor&& executor = Executor()) {
    using S = element_t<T, O>;
    using arch = simd::default_arch;
    const char* const op = "linear_attention_scaled";
    const view<S, 4> o(o_out);
    detail::check_weighted<S>(op, q, k, v, decay, options);
    detail::check_key_scale(op, "k_log_scale", k_log_scale, k);
    detail::check_scaled_state<S>(op, state, k, v);
    detail::check_output(op, "o", o, q, v);
    const index groups = k.extent(1), share = groups == 0 ? 0 : q.extent(1) / groups;
    executor.parallel_for(k.extent(0) * groups, 1, [&](index begin, index end) {
        for (index task = begin; task < end; ++task) {
            const index b = task / groups, g = task % groups;
            const auto at = [&](const auto& t) { return t.data() + b * t.stride(0) + g * t.stride(1); };
            const kernels::linear_attention_group<S, S> group{.q = detail::heads_from(q, b, g * share),
                                                              .k = detail::heads_from(k, b, g),
                                                              .v = detail::heads_from(v, b, g),
                                                              .o = detail::heads_from(o, b, g * share),
                                                              .decay = {decay.at(b, g), decay.step()},
                                                              .state = at(state.state),
                                                              .state_row = state.state.stride(2),
                                                              .norm = at(state.norm),
                                                              .eps = S(0),
                                                              .heads = share,
                                                              .queries = q.extent(2),
                                                              .tokens = k.extent(2),
                                                              .features = k.extent(3),
                                                              .width = v.extent(3),
                                                              .block = options.chunk == 0 ? kernels::largest_block
                                                                                          : options.chunk,
                                                              .key_log_scale = at(k_log_scale),
                                                              .log_scale = at(state.log_scale)};
            if (options.mask == attention_mask::causal)
                kernels::linear_attention_causal<arch>(group);
            else
                kernels::linear_attention_full<arch>(group);
        }
    });
}

/// Gradients of linear_attention_scaled, of one call from the empty state, for the cotangent grad_o of o. With P_ij the
/// share of key j in o_i, s_ij its logarithm, and w_ij = ds_ij / (q_i k_j), ds_ij = P_ij (v_j - o_i) grad_o_i:
///
///     grad_q_i = sum_j w_ij k_j     grad_k_j = sum_i w_ij q_i     grad_v_j = sum_i P_ij grad_o_i
///     grad_k_log_scale_j = sum_i ds_ij       grad_a_l = sum_{j < l <= i} ds_ij / a_l, 0 where a_l = 0
///
/// o: the output of the forward call. grad_decay may be absent. Quadratic in n: pair by pair, without memory. No output
/// overlaps another or an input. Throws like linear_attention. The same bits for every executor.
template <class T = void, class GQ, executor Executor = serial_executor>
void linear_attention_scaled_backward(in<element_t<T, GQ>, 4> q, in<element_t<T, GQ>, 4> k, in<element_t<T, GQ>, 4> v,
                                      in<element_t<T, GQ>, 3> k_log_scale, in_decay<element_t<T, GQ>> decay,
                                      in<element_t<T, GQ>, 4> o, in<element_t<T, GQ>, 4> grad_o, GQ&& grad_q,
                                      out<element_t<T, GQ>, 4> grad_k, out<element_t<T, GQ>, 4> grad_v,
                                      out<element_t<T, GQ>, 3> grad_k_log_scale, out_decay<element_t<T, GQ>> grad_decay,
                                      const weighted_attention_options& options = {},
                                      Executor&& executor = Executor()) {
    using S = element_t<T, GQ>;
    const char* const op = "linear_attention_scaled_backward";
    const detail::weighted_attention_tensors<S> x{q,      k,      v,      k_log_scale,      decay,     o, grad_o,
                                                  grad_q, grad_k, grad_v, grad_k_log_scale, grad_decay};
    detail::check_weighted_gradient<S>(op, x, options);
    detail::check_key_scale(op, "k_log_scale", k_log_scale, k);
    detail::check_key_scale(op, "grad_k_log_scale", grad_k_log_scale, k);
    detail::weighted_attention_backward<S>(x, options, executor);
}

} // namespace DEFT_ISA
} // namespace deft

#endif

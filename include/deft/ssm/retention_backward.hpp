/// \file
/// Gradients of retention; formulas and shapes in retention.hpp.
#ifndef DEFT_SSM_RETENTION_BACKWARD_HPP
#define DEFT_SSM_RETENTION_BACKWARD_HPP

#include <deft/kernels/linear_attention_backward.hpp>
#include <deft/ssm/retention.hpp>

namespace deft {

/// A state that is read, or absent for an empty one.
template <class T>
using in_retention_state = typename detail::non_deduced<retention_state_view<const T>>::type;

inline namespace DEFT_ISA {

/// Gradients of retention for the cotangent grad_o of o and, in grad_state, that of the final S. With
/// e_t = grad_o_t / (sqrt(c_t) rho_t), what is divided by being a constant, and G carried from the last token to the
/// first:
///
///     grad_q_t = S_t e_t     G += q_t e_t^T     grad_k_t = G v_t     grad_v_t = G^T k_t,     then G = gamma G
///
/// q, k, v, gamma: the inputs of the forward call; initial: the state before it, absent if empty. grad_state `[B, H,
/// dk, dv]` holds the cotangent of the final S and receives the gradient of the initial one, so that a sequence that
/// was cut into calls is taken back in the reverse order of them; absent: zero, and not wanted. denominator `[B, H, T]`
/// receives sqrt(c_t) rho_t. There is no gradient of gamma, c and z. States are computed again, block after block of
/// columns: the memory does not grow with T, and no decay is divided by.
///
/// T is float or double. No output overlaps another or an input. Throws like retention. The same bits for every
/// executor.
template <class T = void, class GQ, executor Executor = serial_executor>
void retention_backward(in<element_t<T, GQ>, 4> q, in<element_t<T, GQ>, 4> k, in<element_t<T, GQ>, 4> v,
                        in<double, 1> gamma, in_retention_state<element_t<T, GQ>> initial,
                        in<element_t<T, GQ>, 4> grad_o, GQ&& grad_q_out, out<element_t<T, GQ>, 4> grad_k,
                        out<element_t<T, GQ>, 4> grad_v, out<element_t<T, GQ>, 4> grad_state,
                        out<element_t<T, GQ>, 3> denominator, const retention_options& options = {},
                        Executor&& executor = Executor()) {
    using S = element_t<T, GQ>;
    using arch = simd::default_arch;
    const char* const op = "retention_backward";
    const view<S, 4> grad_q(grad_q_out);
    detail::check_retention<S>(op, q, k, v, gamma, options);
    if (initial.state.is_given() || initial.scale.is_given())
        detail::check_retention_state(op, "initial", initial, q, v, options);
    detail::check_same_shape(op, "grad_o", grad_o, "v", v);
    detail::check_same_shape(op, "grad_q", grad_q, "q", q);
    detail::check_same_shape(op, "grad_k", grad_k, "k", k);
    detail::check_same_shape(op, "grad_v", grad_v, "v", v);
    for (int axis = 0; axis < 3; ++axis)
        detail::check_extent(op, "denominator", denominator, axis, q.extent(axis), "the same extent of q");
    if (grad_state.is_given()) {
        const index expected[4] = {q.extent(0), q.extent(1), q.extent(3), v.extent(3)};
        for (int axis = 0; axis < 4; ++axis)
            detail::check_extent(op, "grad_state", grad_state, axis, expected[axis], "batch, heads, dk, dv");
    }

    const index heads = q.extent(1), tokens = q.extent(2);
    const bool has_roots = options.decay_norm == decay_norm::sqrt;
    executor.parallel_for(q.extent(0) * heads, 1, [&](index begin, index end) {
        for (index task = begin; task < end; ++task) {
            const index b = task / heads, h = task % heads;
            const auto head = [&](const auto& s) {
                return s.is_given() ? s.data() + b * s.stride(0) + h * s.stride(1) : nullptr;
            };
            S* const divided = denominator.data() + b * denominator.stride(0) + h * denominator.stride(1);
            const kernels::decayed_count count{initial.scale.is_given() ? initial.scale(h) : 0.0, gamma(h)};
            const auto rows = [&](const auto& x) { return detail::retention_rows_of(x, b, h); };
            if (options.row_norm == retention_row_norm::abs_sum)
                kernels::retention_rows<arch, S>({.q = rows(q),
                                                  .k = rows(k),
                                                  .v = rows(v),
                                                  .o = {},
                                                  .gamma = gamma(h),
                                                  .has_roots = has_roots,
                                                  .most = options.clamp_max,
                                                  .tokens = tokens,
                                                  .features = q.extent(3),
                                                  .width = v.extent(3),
                                                  .denominator = divided});
            else
                kernels::retention_denominators<arch, S>(
                    rows(q), rows(k), head(initial.key_state), count, has_roots,
                    options.row_norm == retention_row_norm::sum_abs ? options.clamp_max : 0, tokens, q.extent(3),
                    divided);
            kernels::linear_attention_gradient<arch, S>({.q = rows(q),
                                                         .k = rows(k),
                                                         .v = rows(v),
                                                         .o = {},
                                                         .grad_o = rows(grad_o),
                                                         .grad_q = rows(grad_q),
                                                         .grad_k = rows(grad_k),
                                                         .grad_v = rows(grad_v),
                                                         .denominator = {divided, 0, 1},
                                                         .decay = {nullptr, 0, gamma(h)},
                                                         .grad_decay = nullptr,
                                                         .grad_decay_step = 0,
                                                         .state = head(initial.state),
                                                         .norm = nullptr,
                                                         .state_row = initial.state.stride(2),
                                                         .grad_state = head(grad_state),
                                                         .grad_norm = nullptr,
                                                         .grad_state_row = grad_state.stride(2),
                                                         .eps = S(0),
                                                         .heads = 1,
                                                         .queries = tokens,
                                                         .tokens = tokens,
                                                         .features = q.extent(3),
                                                         .width = v.extent(3),
                                                         .causal = true,
                                                         .constant_denominator = true});
        }
    });
}

} // namespace DEFT_ISA
} // namespace deft

#endif

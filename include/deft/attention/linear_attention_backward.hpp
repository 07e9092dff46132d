/// \file
/// Gradients of linear_attention; formulas and shapes in linear_attention.hpp.
#ifndef DEFT_ATTENTION_LINEAR_ATTENTION_BACKWARD_HPP
#define DEFT_ATTENTION_LINEAR_ATTENTION_BACKWARD_HPP

#include <deft/attention/linear_attention.hpp>
#include <deft/kernels/linear_attention_backward.hpp>
#include <deft/kernels/linear_attention_decay_gradient.hpp>

namespace deft {

/// A state that is read, or absent for an empty one.
template <class T>
using in_linear_attention_state = typename detail::non_deduced<linear_attention_state_view<const T>>::type;
/// A state that is updated, or absent.
template <class T>
using out_linear_attention_state = typename detail::non_deduced<linear_attention_state_view<T>>::type;

inline namespace DEFT_ISA {

/// Gradients of linear_attention for the cotangent grad_o of o and, in grad_state, those of the final state. With
/// D_i = q_i z_i + eps, N_i = grad_o_i / D_i, M_i = -(o_i grad_o_i) / D_i (normalize none: N_i = grad_o_i, M_i = 0;
/// where D_i = 0 both are 0), and Gs, Gz carried from the last token to the first:
///
///     Gs += q_i N_i^T,  Gz += q_i M_i        (all heads of the group)
///     grad_q_i = S_i N_i + z_i M_i     grad_k_i = Gs v_i + Gz     grad_v_i = Gs^T k_i
///     grad_a_i = <Gs, S_{i-1}> + <Gz, z_{i-1}>,  then Gs = a_i Gs,  Gz = a_i Gz
///
/// q, k, v, decay: the inputs of the forward call; initial: the state before it, absent if empty; o: its output, absent
/// for normalize none. grad_decay has the shape of decay, and may be absent. grad_state holds the cotangents of the
/// final state and receives the gradients of the initial one, so that a sequence that was cut into calls is taken back
/// in the reverse order of them; absent: zero, and not wanted. denominator `[B, H, nq]` receives D, absent for
/// normalize none. States are computed again; the memory does not grow with n. The gradient of decay takes log2(n) / 2
/// forward passes, the others three.
///
/// T is float or double. No output overlaps another or an input. Throws like linear_attention. The same bits for every
/// executor.
template <class T = void, class GQ, executor Executor = serial_executor>
void linear_attention_backward(in<element_t<T, GQ>, 4> q, in<element_t<T, GQ>, 4> k, in<element_t<T, GQ>, 4> v,
                               in_decay<element_t<T, GQ>> decay, in_linear_attention_state<element_t<T, GQ>> initial,
                               in<element_t<T, GQ>, 4> o, in<element_t<T, GQ>, 4> grad_o, GQ&& grad_q_out,
                               out<element_t<T, GQ>, 4> grad_k, out<element_t<T, GQ>, 4> grad_v,
                               out_decay<element_t<T, GQ>> grad_decay,
                               out_linear_attention_state<element_t<T, GQ>> grad_state,
                               out<element_t<T, GQ>, 3> denominator, const linear_attention_options& options = {},
                               Executor&& executor = Executor()) {
    using S = element_t<T, GQ>;
    using arch = simd::default_arch;
    const char* const op = "linear_attention_backward";
    const view<S, 4> grad_q(grad_q_out);
    const bool sums = options.normalize == attention_normalize::sum;
    detail::check_attention<S>(op, q, k, v, decay, options);
    if (initial.state.is_given())
        detail::check_state(op, "initial", "initial.norm", initial.state, initial.norm, k, v, options.normalize);
    detail::check_output(op, "grad_o", grad_o, q, v);
    if (sums) {
        detail::check_output(op, "o", o, q, v);
        for (int axis = 0; axis < 3; ++axis)
            detail::check_extent(op, "denominator", denominator, axis, q.extent(axis), "extent of q");
    }
    detail::check_same_shape(op, "grad_q", grad_q, "q", q);
    detail::check_same_shape(op, "grad_k", grad_k, "k", k);
    detail::check_same_shape(op, "grad_v", grad_v, "v", v);
    detail::check_decay_gradient<S>(op, grad_decay, decay, k.extent(0), k.extent(1), k.extent(2));
    if (grad_state.state.is_given())
        detail::check_state(op, "grad_state", "grad_state.norm", grad_state.state, grad_state.norm, k, v,
                            options.normalize);

    const index batches = k.extent(0), groups = k.extent(1), share = groups == 0 ? 0 : q.extent(1) / groups;
    const auto backward = [&](index b, index g) -> double {
        const auto matrix = [&](const auto& s) {
            return s.is_given() ? s.data() + b * s.stride(0) + g * s.stride(1) : nullptr;
        };
        const auto vector = [&](const auto& z) { return sums ? matrix(z) : nullptr; };
        const kernels::linear_attention_gradient_group<S> group{
            .q = detail::heads_from(q, b, g * share),
            .k = detail::heads_from(k, b, g),
            .v = detail::heads_from(v, b, g),
            .o = sums ? detail::heads_from(o, b, g * share) : kernels::head_rows<const S>{},
            .grad_o = detail::heads_from(grad_o, b, g * share),
            .grad_q = detail::heads_from(grad_q, b, g * share),
            .grad_k = detail::heads_from(grad_k, b, g),
            .grad_v = detail::heads_from(grad_v, b, g),
            .denominator = sums ? kernels::head_rows<S>{&denominator.data()[b * denominator.stride(0) +
                                                                            g * share * denominator.stride(1)],
                                                        denominator.stride(1), 1}
                                : kernels::head_rows<S>{},
            .decay = {decay.at(b, g), decay.step()},
            .grad_decay = grad_decay.at(b, g),
            .grad_decay_step = grad_decay.step(),
            .state = matrix(initial.state),
            .norm = vector(initial.norm),
            .state_row = initial.state.stride(2),
            .grad_state = matrix(grad_state.state),
            .grad_norm = vector(grad_state.norm),
            .grad_state_row = grad_state.state.stride(2),
            .eps = S(options.eps),
            .heads = share,
            .queries = q.extent(2),
            .tokens = k.extent(2),
            .features = k.extent(3),
            .width = v.extent(3),
            .causal = options.mask == attention_mask::causal};
        if (sums)
            kernels::linear_attention_denominators<arch>(group);
        const double sum = grad_decay.is_given() ? kernels::linear_attention_decay_gradient<arch>(group) : 0.0;
        kernels::linear_attention_gradient<arch>(group);
        return sum;
    };
    if (grad_decay.is_given() && !grad_decay.is_per_token()) // a sum over batches: one task owns it
        executor.parallel_for(groups, 1, [&](index begin, index end) {
            for (index g = begin; g < end; ++g) {
                double sum = 0;
                for (index b = 0; b < batches; ++b)
                    sum += backward(b, g);
                *grad_decay.at(0, g) = S(sum);
            }
        });
    else
        executor.parallel_for(batches * groups, 1, [&](index begin, index end) {
            for (index task = begin; task < end; ++task)
                backward(task / groups, task % groups);
        });
}

} // namespace DEFT_ISA
} // namespace deft

#endif

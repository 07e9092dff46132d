/// \file
/// Softmax attention, exact: what linear attention replaces (arXiv:2403.19928, eq. 1, 2), blocked so that scores never
/// lie in memory.
///
///     s_ij = scale q_i k_j for visible j      visible: key_mask_j, and j <= i + n - nq if the mask is causal
///     lse_i = log sum_j exp(s_ij)      o_i = sum_j exp(s_ij - lse_i) v_j
///
/// q: `[B, H, nq, d]`; k: `[B, G, n, d]`; v: `[B, G, n, e]`; o: `[B, H, nq, e]`; lse: `[B, H, nq]`; H a multiple of G,
/// query head h reads head h / (H / G). key_mask: `[B, n]`, 0: hidden, or absent. The causal mask is aligned to the end
/// of the keys: a step of decoding has nq = 1. A query that sees nothing gives o = 0 and lse = -inf. Elements are float
/// or double. n >= 1.
#ifndef DEFT_ATTENTION_SOFTMAX_ATTENTION_HPP
#define DEFT_ATTENTION_SOFTMAX_ATTENTION_HPP

#include <deft/attention/attention_options.hpp>
#include <deft/kernels/softmax_attention.hpp>
#include <deft/kernels/softmax_attention_backward.hpp>
#include <deft/parallel.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <type_traits>

namespace deft {

struct softmax_attention_options {
    attention_mask mask = attention_mask::causal;
    std::optional<double> scale = std::nullopt; ///< default: d^(-1/2)
};

inline namespace DEFT_ISA {
namespace detail {

template <class T>
void check_softmax(const char* op, const view<const T, 4>& q, const view<const T, 4>& k, const view<const T, 4>& v,
                   const view<const std::uint8_t, 2>& mask, const softmax_attention_options& options) {
    check_extent(op, "k", k, 0, q.extent(0), "extent 0 of q");
    check_extent(op, "k", k, 3, q.extent(3), "extent 3 of q");
    for (int axis = 0; axis < 3; ++axis)
        check_extent(op, "v", v, axis, k.extent(axis), "extent of k");
    const index heads = q.extent(1), groups = k.extent(1);
    check(groups == 0 ? heads == 0 : heads % groups == 0, op, "q",
          "the number of its heads must be a multiple of that of k", double(heads));
    check(k.extent(2) > 0, op, "k", "it must have at least one token", double(k.extent(2)));
    check(!options.scale || !std::isnan(*options.scale), op, "scale", "it must be a number", options.scale.value_or(0));
    if (!mask.is_given())
        return;
    check_extent(op, "key_mask", mask, 0, k.extent(0), "extent 0 of k");
    check_extent(op, "key_mask", mask, 1, k.extent(2), "extent 2 of k");
}

template <class T>
void check_softmax_output(const char* op, const char* name, const view<T, 4>& o,
                          const view<const std::remove_const_t<T>, 4>& q,
                          const view<const std::remove_const_t<T>, 4>& v) {
    for (int axis = 0; axis < 3; ++axis)
        check_extent(op, name, o, axis, q.extent(axis), "extent of q");
    check_extent(op, name, o, 3, v.extent(3), "extent 3 of v");
}

template <class T>
kernels::softmax_attention_head<T> softmax_head(const view<const T, 4>& q, const view<const T, 4>& k,
                                                const view<const T, 4>& v, const view<const std::uint8_t, 2>& mask,
                                                const softmax_attention_options& options, index b, index h) {
    const index g = h / (q.extent(1) / k.extent(1));
    const auto at = [&](const auto& x, index head) { return x.data() + b * x.stride(0) + head * x.stride(1); };
    return {.q = at(q, h),
            .k = at(k, g),
            .v = at(v, g),
            .q_row = q.stride(2),
            .k_row = k.stride(2),
            .v_row = v.stride(2),
            .mask = mask.is_given() ? mask.data() + b * mask.stride(0) : nullptr,
            .queries = q.extent(2),
            .tokens = k.extent(2),
            .features = q.extent(3),
            .width = v.extent(3),
            .scale = T(options.scale.value_or(1 / std::sqrt(double(q.extent(3))))),
            .causal = options.mask == attention_mask::causal};
}

} // namespace detail

/// Formulas, shapes and types at the top of this file. o and lse overlap nothing. Values of hidden keys must be finite:
/// they are multiplied by 0. Throws std::invalid_argument before anything is written if shapes do not fit, H is no
/// multiple of G, there are no keys, or scale is NaN. Scores of any size are valid: their maximum is subtracted. The
/// same bits for every executor.
template <class T = void, class O, executor Executor = serial_executor>
void softmax_attention(in<element_t<T, O>, 4> q, in<element_t<T, O>, 4> k, in<element_t<T, O>, 4> v,
                       view<const std::uint8_t, 2> key_mask, O&& o_out, out<element_t<T, O>, 3> lse,
                       const softmax_attention_options& options = {}, Executor&& executor = Executor()) {
    using S = element_t<T, O>;
    const char* const op = "softmax_attention";
    const view<S, 4> o(o_out);
    detail::check_softmax<S>(op, q, k, v, key_mask, options);
    detail::check_softmax_output(op, "o", o, q, v);
    for (int axis = 0; axis < 3; ++axis)
        detail::check_extent(op, "lse", lse, axis, q.extent(axis), "extent of q");

    const index blocks = (q.extent(2) + kernels::softmax_queries - 1) / kernels::softmax_queries;
    const index heads = q.extent(1);
    executor.parallel_for(q.extent(0) * heads * blocks, 1, [&](index begin, index end) {
        for (index task = begin; task < end; ++task) {
            const index b = task / blocks / heads, h = task / blocks % heads;
            kernels::softmax_attention_block<simd::default_arch>(
                detail::softmax_head<S>(q, k, v, key_mask, options, b, h), task % blocks * kernels::softmax_queries,
                o.data() + b * o.stride(0) + h * o.stride(1), o.stride(2),
                lse.data() + b * lse.stride(0) + h * lse.stride(1));
        }
    });
}

/// Gradients of softmax_attention for the cotangent grad_o of o, with P_ij = exp(s_ij - lse_i):
///
///     grad_v = P^T grad_o      dP = grad_o V^T      dS = P (dP - rowsum(P dP))
///     grad_q = scale dS K      grad_k = scale dS^T Q      (grad_k, grad_v: sums over the heads of a group)
///
/// q, k, v, key_mask: inputs of the forward call; P is computed again. No output overlaps another or an input. Throws
/// like softmax_attention. The same bits for every executor.
template <class T = void, class GQ, executor Executor = serial_executor>
void softmax_attention_backward(in<element_t<T, GQ>, 4> q, in<element_t<T, GQ>, 4> k, in<element_t<T, GQ>, 4> v,
                                view<const std::uint8_t, 2> key_mask, in<element_t<T, GQ>, 4> grad_o, GQ&& grad_q_out,
                                out<element_t<T, GQ>, 4> grad_k, out<element_t<T, GQ>, 4> grad_v,
                                const softmax_attention_options& options = {}, Executor&& executor = Executor()) {
    using S = element_t<T, GQ>;
    const char* const op = "softmax_attention_backward";
    const view<S, 4> grad_q(grad_q_out);
    detail::check_softmax<S>(op, q, k, v, key_mask, options);
    detail::check_softmax_output(op, "grad_o", grad_o, q, v);
    detail::check_same_shape(op, "grad_q", grad_q, "q", q);
    detail::check_same_shape(op, "grad_k", grad_k, "k", k);
    detail::check_same_shape(op, "grad_v", grad_v, "v", v);

    const index groups = k.extent(1), share = groups == 0 ? 0 : q.extent(1) / groups;
    executor.parallel_for(k.extent(0) * groups, 1, [&](index begin, index end) {
        for (index task = begin; task < end; ++task) {
            const index b = task / groups, g = task % groups;
            const auto at = [&](const auto& x, index head) { return x.data() + b * x.stride(0) + head * x.stride(1); };
            for (index j = 0; j < k.extent(2); ++j) {
                std::fill_n(at(grad_k, g) + j * grad_k.stride(2), grad_k.extent(3), S(0));
                std::fill_n(at(grad_v, g) + j * grad_v.stride(2), grad_v.extent(3), S(0));
            }
            for (index h = g * share; h < (g + 1) * share; ++h)
                for (index i = 0; i < q.extent(2); i += kernels::softmax_queries)
                    kernels::softmax_attention_gradient_block<simd::default_arch>(
                        detail::softmax_head<S>(q, k, v, key_mask, options, b, h), i,
                        kernels::softmax_attention_gradients<S>{.grad_o = at(grad_o, h),
                                                                .grad_q = at(grad_q, h),
                                                                .grad_k = at(grad_k, g),
                                                                .grad_v = at(grad_v, g),
                                                                .grad_o_row = grad_o.stride(2),
                                                                .grad_q_row = grad_q.stride(2),
                                                                .grad_k_row = grad_k.stride(2),
                                                                .grad_v_row = grad_v.stride(2)});
        }
    });
}

} // namespace DEFT_ISA
} // namespace deft

#endif

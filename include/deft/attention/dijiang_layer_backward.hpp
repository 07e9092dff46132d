/// \file
/// Gradients of dijiang_layer; its formulas and shapes in dijiang_layer.hpp.
#ifndef DEFT_ATTENTION_DIJIANG_LAYER_BACKWARD_HPP
#define DEFT_ATTENTION_DIJIANG_LAYER_BACKWARD_HPP

#include <deft/attention/dijiang_plan.hpp>
#include <deft/attention/linear_attention_backward.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace detail {

/// sum += the rows of x.
template <class T>
void add_rows(const view<const T, 2>& x, const view<T, 1>& sum) {
    for (index c = 0; c < x.extent(1); ++c) {
        double total = double(sum(c));
        for (index r = 0; r < x.extent(0); ++r)
            total += double(x(r, c));
        sum(c) = T(total);
    }
}

template <class T>
void set_zero(const view<T, 1>& x) {
    std::fill_n(x.data(), x.extent(0), T(0));
}
template <class T>
void set_zero(const view<T, 2>& x) {
    for (index r = 0; r < x.extent(0); ++r)
        std::fill_n(x.data() + r * x.stride(0), x.extent(1), T(0));
}

/// grad_q_scale += grad_q phi(q), summed over columns; then grad_q *= q_scale. Rows of 3 heads d.
template <class T>
void unscale_queries(const view<const T, 2>& q_scale, index d, const T* phi, T* grad_q, const view<T, 2>& grad) {
    const index heads = q_scale.extent(0);
    for (index i = 0; i < q_scale.extent(1); ++i)
        for (index h = 0; h < heads; ++h) {
            const index at = (i * heads + h) * 3 * d;
            T sum = 0;
            for (index c = at; c < at + d; ++c) {
                sum += grad_q[c] * phi[c];
                grad_q[c] *= q_scale(h, i);
            }
            if (grad.is_given())
                grad(h, i) += sum;
        }
}

} // namespace detail

/// Gradients of dijiang_layer for the cotangent grad_y. With Z = x W_gate, s = logistic(Z), N the group norm, h = Z s
/// N:
///
///     dh = dy W_out,   dZ = dh N s (1 + Z (1 - s)),   dN = dh Z s,   do through the norm
///     do -> linear_attention_backward -> dq', dk', dv;   dq_scale = sum dq' phi(q),   dphi(q) = q_scale dq'
///     -> dct_feature_map_backward, t by the sum of both sides -> rotation by -angle -> D [n, 3E]
///     gW_out = dy^T h,  gW_qkv = D^T x,  gW_gate = x^T dZ,  biases by sums,  gx = dZ W_gate^T + D W_qkv
///
/// initial: the state before the call, absent if empty. grad_state holds the cotangent of the final state and receives
/// the gradient of the initial one; absent: zero, and not wanted. The gradients of decay and q_scale may be absent,
/// all others are given; sums run over tokens and batches. What the forward call computed is computed again: memory of
/// 14 E n numbers, which the plan keeps. No output overlaps another or an input. Throws like dijiang_layer. The same
/// bits for every executor.
template <class T = void, class GX = view<float, 3>, executor Executor = serial_executor>
void dijiang_layer_backward(in<element_t<T, GX>, 3> x,
                            const typename detail::non_deduced<dijiang_weights<const element_t<T, GX>>>::type& w,
                            in<element_t<T, GX>, 4> initial, in<element_t<T, GX>, 3> grad_y, GX&& grad_x_out,
                            const typename detail::non_deduced<dijiang_weights<element_t<T, GX>>>::type& grad,
                            out<element_t<T, GX>, 4> grad_state, index position, dijiang_plan<element_t<T, GX>>& plan,
                            Executor&& executor = Executor()) {
    using S = element_t<T, GX>;
    using matrix = linalg::matrix<const S>;
    const char* const op = "dijiang_layer_backward";
    const view<S, 3> grad_x(grad_x_out);
    const index e = plan.embedding(), heads = plan.options().heads, d = plan.width(), n = x.extent(1);
    const index groups = plan.options().groups, batches = x.extent(0), state_size = heads * d * d;
    const view<const S, 4> any_state(nullptr, {batches, heads, d, d});
    detail::check_dijiang<S>(op, plan, x, w, initial.is_given() ? initial : any_state);
    detail::check_same_shape(op, "grad_y", grad_y, "x", x);
    detail::check_same_shape(op, "grad_x", grad_x, "x", x);
    detail::check_dijiang_weights(op, plan, grad);
    detail::check_decay_gradient<S>(op, grad.decay, w.decay, batches, heads, n);
    if (grad.q_scale.is_given())
        detail::check_same_shape(op, "grad.q_scale", grad.q_scale, "q_scale", w.q_scale);
    if (grad_state.is_given())
        detail::check_same_shape(op, "grad_state", grad_state, "state", any_state);

    S* const qkv = plan.memory(n * 14 * e + state_size + 2 * d + heads);
    S *const phi = qkv + n * 3 * e, *const back = phi + n * 3 * e, *const scaled = back + n * 3 * e;
    S *const o = scaled + n * e, *const z = o + n * e, *const dh = z + n * e, *const row = dh + n * e;
    S *const state = qkv + n * 14 * e, *const sums = state + state_size, *const grad_decay = sums + 2 * d;
    std::vector<double> norm_sums(std::size_t(2 * e + groups), 0.0);
    for (const view<S, 2>& sum : {grad.w_qkv, grad.w_gate, grad.w_out, grad.q_scale})
        detail::set_zero(sum);
    for (const view<S, 1>& sum : {grad.b_qkv, grad.t, grad.b_out})
        detail::set_zero(sum);
    for (index h = 0; h < heads && grad.decay.is_given() && !grad.decay.is_per_token(); ++h)
        *grad.decay.at(0, h) = S(0);

    for (index b = 0; b < batches; ++b) {
        const detail::dijiang_block block{b, 1, 0, n};
        const view<const S, 2> from = block.of(x), dy = block.of(grad_y);
        const auto part = [&](S* first) { return block.heads(first, 3 * e, heads, 3 * d, d); };
        const auto heads_of = [&](S* first) { return detail::head_matrix(first, n, heads, d); };

        // Forward again.
        detail::project<S>(from, matrix(w.w_qkv).transposed(), w.b_qkv, {qkv, {n, 3 * e}}, executor);
        for (index i = 0; i < n; ++i)
            plan.rotate(qkv + i * 3 * e, position + i, false);
        for (const index at : {index{0}, d})
            deft::dct_feature_map(heads_of(qkv + at), w.t, absent, heads_of(phi + at), absent, plan.features(),
                                  executor);
        if (w.q_scale.is_given())
            detail::scale_queries<S>(w.q_scale, block, heads, d, phi, 3 * e, 3 * d, scaled, e, d);
        const view<const S, 4> q = w.q_scale.is_given() ? block.heads(scaled, e, heads, d, d) : part(phi);
        const view<S, 4> final_state(state, {1, heads, d, d});
        for (index h = 0; h < heads; ++h)
            for (index f = 0; f < d; ++f)
                for (index c = 0; c < d; ++c)
                    final_state(0, h, f, c) = initial.is_given() ? initial(b, h, f, c) : S(0);
        const attention_decay<const S> decay = detail::decay_of(w.decay, block);
        deft::linear_attention<S>(q, part(phi + d), part(qkv + 2 * d), decay, block.heads(o, e, heads, d, d),
                                  linear_attention_state_view<S>(final_state), {}, executor);
        detail::project<S>(from, w.w_gate, absent, {z, {n, e}}, executor);

        // Output, gate and norm: o becomes h, z its gradient, dh that of o.
        const view<const S, 2> h(o, {n, e}), dz(z, {n, e}), big(back, {n, 3 * e});
        detail::project<S>(dy, w.w_out, absent, {dh, {n, e}}, executor);
        for (index i = 0; i < n; ++i)
            kernels::gated_group_norm_backward<simd::default_arch, S>(plan.norm(w), o + i * e, z + i * e, dh + i * e,
                                                                      norm_sums.data(), norm_sums.data() + e, row,
                                                                      norm_sums.data() + 2 * e);
        linalg::gemm<S>(S(1), matrix(dy).transposed(), h, S(1), grad.w_out, executor);
        detail::add_rows<S>(dy, grad.b_out);
        linalg::gemm<S>(S(1), matrix(from).transposed(), dz, S(1), grad.w_gate, executor);

        // Attention and features.
        const bool per_token = grad.decay.is_per_token();
        attention_decay<S> to_decay = absent;
        if (per_token)
            to_decay = detail::decay_of(grad.decay, block);
        else if (grad.decay.is_given())
            to_decay = view<S, 1>(grad_decay, {heads});
        linear_attention_state_view<S> to_state = absent;
        if (grad_state.is_given())
            to_state = detail::state_of(grad_state, block);
        linear_attention_state_view<const S> before = absent;
        if (initial.is_given())
            before = detail::state_of(initial, block);
        deft::linear_attention_backward<S>(q, part(phi + d), part(qkv + 2 * d), decay, before, absent,
                                           block.heads(dh, e, heads, d, d), part(back), part(back + d),
                                           part(back + 2 * d), to_decay, to_state, absent, {}, executor);
        for (index g = 0; g < heads && grad.decay.is_given() && !per_token; ++g)
            *grad.decay.at(0, g) += grad_decay[g];
        if (w.q_scale.is_given())
            detail::unscale_queries<S>(w.q_scale, d, phi, back, grad.q_scale);
        for (const index at : {index{0}, d}) {
            deft::dct_feature_map_backward(heads_of(qkv + at), w.t, absent, heads_of(back + at), absent,
                                           heads_of(back + at), {sums, {d}}, absent, plan.features(), executor);
            for (index c = 0; c < d; ++c)
                grad.t(c) += sums[c];
        }
        for (index i = 0; i < n; ++i)
            plan.rotate(back + i * 3 * e, position + i, true);

        linalg::gemm<S>(S(1), matrix(big).transposed(), from, S(1), grad.w_qkv, executor);
        detail::add_rows<S>(big, grad.b_qkv);
        const view<S, 2> dx = block.of(grad_x);
        linalg::gemm<S>(S(1), dz, matrix(w.w_gate).transposed(), S(0), dx, executor);
        linalg::gemm<S>(S(1), big, w.w_qkv, S(1), dx, executor);
    }
    for (index c = 0; c < e; ++c) {
        grad.gn_weight(c) = S(norm_sums[std::size_t(c)]);
        grad.gn_bias(c) = S(norm_sums[std::size_t(e + c)]);
    }
}

} // namespace DEFT_ISA
} // namespace deft

#endif

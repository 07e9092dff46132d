/// \file
/// A stack of DenseRetNet layers (arXiv:2403.00818, section 3.3, and its code): RetNet as a gated unit whose keys and
/// values are fused with those of earlier layers. Made of the operators that a user has.
///
///     n = rms(x) input_norm     q = silu(n wq^T)     k = silu(n wk^T) (Dk / H)^-1/2     (v, gate) = silu(n wvg^T)
///     from the second layer on: k = hidden_state_fusion(k, n, k of the last m layers; k_sel1, k_sel2, k_norm), so v
///     o = retention(retention_rotary(q), retention_rotary(k), v)     gamma_h = 1 - 2^(-5-h)
///     x = x + retention_gate(o, gate; group_norm) wo^T
///
/// What later layers see are k and v as they were before fusion. x, y: `[B, T, D]`; input_norm: `[D]`; wq, wk: `[Dk,
/// D]`; wvg: `[2E, D]`; k_sel1: `[Mk, D]`, k_sel2: `[Dk, Mk]`, v_sel1: `[Mv, D]`, v_sel2: `[E, Mv]`, k_norm: `[Dk]`,
/// v_norm:
/// `[E]`; group_norm: `[E / H]`; wo: `[D, E]`; no biases. float or double. One call with many tokens is prefill, with
/// one token a step of decoding; a sequence may be cut into calls anywhere. Tokens go through all layers a chunk at a
/// time, so that the window over the layers stays small: window chunk (Dk + E) numbers, whatever T.
///
/// row_norm none is the function that the published code decodes with, the default; abs_sum with clamp_max 5e4 the one
/// that it trains with, on whole sequences. They differ as far as eps of the head norms lets them.
#ifndef DEFT_SSM_DENSE_RETNET_BLOCK_HPP
#define DEFT_SSM_DENSE_RETNET_BLOCK_HPP

#include <deft/ssm/dense_retnet_plan.hpp>
#include <deft/ssm/retention_gate.hpp>
#include <deft/ssm/retention_rotary.hpp>

#include <cmath>

namespace deft {
inline namespace DEFT_ISA {
namespace detail {

/// One layer over a block of tokens; x is updated.
template <class T, class Executor>
void dense_retnet_layer_rows(const dense_retnet_layer<T>& w, index l, const layer_rows& block, const view<T, 2>& x,
                             dense_retnet_state<T>& state, dense_retnet_plan<T>& plan,
                             const typename dense_retnet_plan<T>::memory& m, Executor& executor) {
    const dense_retnet_options& o = plan.options();
    const index rows = block.count(), d = o.width, dk = o.key_width, e = o.value_width;
    const view<T, 2> normed(m.normed, {rows, d}), q(m.q, {rows, dk}), k(m.k, {rows, dk}),
        v_and_gate(m.v_and_gate, {rows, 2 * e}), v(m.v_and_gate, {rows, e}, {2 * e, index{1}});
    normalise_rows<T>(x, w.input_norm, o.eps, normed, executor);
    map_rows<T>(normed, w.wq, q, false, executor);
    map_rows<T>(normed, w.wk, k, false, executor);
    map_rows<T>(normed, w.wvg, v_and_gate, false, executor);
    silu_rows<T>(q, T(1), executor);
    silu_rows<T>(k, T(1 / std::sqrt(double(dk / o.heads))), executor);
    silu_rows<T>(v_and_gate, T(1), executor);

    T *keys = m.k, *values = m.v_and_gate;
    index value_stride = 2 * e;
    if (l > 0) {
        const index seen = std::min(l, o.window);
        keys = m.fused_k;
        values = m.fused_v;
        value_stride = e;
        hidden_state_fusion<T>({.current = k,
                                .x = normed,
                                .past = {m.window_k, {seen, rows, dk}},
                                .w1 = w.k_sel1,
                                .w2 = w.k_sel2,
                                .norm_weight = w.k_norm},
                               {keys, {rows, dk}}, {.eps = o.eps}, executor);
        hidden_state_fusion<T>({.current = v,
                                .x = normed,
                                .past = {m.window_v, {seen, rows, e}},
                                .w1 = w.v_sel1,
                                .w2 = w.v_sel2,
                                .norm_weight = w.v_norm},
                               {values, {rows, e}}, {.eps = o.eps}, executor);
    }
    if (l + 1 < o.layers) { // in the place of the oldest
        const index slot = l % o.window;
        for (index r = 0; r < rows; ++r) {
            std::copy_n(m.k + r * dk, dk, m.window_k + (slot * rows + r) * dk);
            std::copy_n(m.v_and_gate + r * 2 * e, e, m.window_v + (slot * rows + r) * e);
        }
    }

    const view<T, 4> turned_q = block.heads(m.q, o.heads, dk, dk), turned_k = block.heads(keys, o.heads, dk, dk);
    const retention_rotary_options rotary{.offset = state.position + block.token, .base = o.base};
    retention_rotary<T>(turned_q, turned_q, rotary, executor);
    retention_rotary<T>(turned_k, turned_k, rotary, executor);
    std::copy_n(plan.scale(0).data(), o.heads, plan.scale(1).data());
    deft::retention<T>(turned_q, turned_k, block.heads(values, o.heads, e, value_stride), plan.gamma(),
                       block.heads(m.o, o.heads, e, e),
                       retention_state_view<T>(block.part(state.layer(l)), plan.scale(1), block.part(state.keys(l))),
                       plan.retention(), executor);
    const view<T, 4> heads(m.o, {1, rows, o.heads, e / o.heads});
    const view<T, 3> gated(m.o, {1, rows, e});
    retention_gate<T>(heads, {m.v_and_gate + e, {1, rows, e}, {0, 2 * e, index{1}}}, w.group_norm, gated,
                      {.gate = activation::identity, .eps = o.eps}, executor);
    map_rows<T>({m.o, {rows, e}}, w.wo, x, true, executor);
}

} // namespace detail

/// y of x; formulas and shapes at the top of this file.
///
/// y may be x. Throws std::invalid_argument before anything is written if shapes do not fit or abs_sum meets a state
/// that is not empty. NaN in a token reaches that token and, by the state, those after it. The same bits for every
/// executor. The plan allocates when it meets more tokens than before.
template <class T = void, class Y = view<float, 3>, executor Executor = serial_executor>
void dense_retnet_block(in<element_t<T, Y>, 3> x,
                        typename detail::non_deduced<std::span<const dense_retnet_layer<element_t<T, Y>>>>::type layers,
                        Y&& y_out, dense_retnet_state<element_t<T, Y>>& state, dense_retnet_plan<element_t<T, Y>>& plan,
                        Executor&& executor = Executor()) {
    using S = element_t<T, Y>;
    const char* const op = "dense_retnet_block";
    const view<S, 3> y(y_out);
    const dense_retnet_options& o = plan.options();
    detail::check_dense_retnet<S>(op, x, layers, state, o);
    detail::check_same_shape(op, "y", y, "x", x);
    const index tokens = x.extent(1);
    if (tokens == 0)
        return;
    const index most = o.row_norm == retention_row_norm::abs_sum ? tokens : o.chunk;
    detail::for_each_layer_rows(x.extent(0), tokens, most, [&](const detail::layer_rows& block) {
        const view<const S, 2> from = block.of(x);
        const view<S, 2> to = block.of(y);
        if (to.data() != from.data())
            for (index r = 0; r < block.count(); ++r)
                std::copy_n(from.data() + r * from.stride(0), o.width, to.data() + r * to.stride(0));
        const auto memory = plan.reserve(block.count());
        if (block.token == 0) // of the next sequence
            std::copy_n(state.scale().data(), o.heads, plan.scale(0).data());
        for (index l = 0; l < o.layers; ++l)
            detail::dense_retnet_layer_rows<S>(layers[std::size_t(l)], l, block, to, state, plan, memory, executor);
        std::copy_n(plan.scale(1).data(), o.heads, plan.scale(0).data());
    });
    if (x.extent(0) > 0) {
        std::copy_n(plan.scale(0).data(), o.heads, state.scale().data());
        state.position += tokens;
    }
}

} // namespace DEFT_ISA
} // namespace deft

#endif

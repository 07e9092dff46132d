/// \file
/// The attention layer of DiJiang (arXiv:2403.19928, section 3, Algorithm 1, and its code): linear attention over
/// discrete cosine features with rotary positions, a decay per head, a group norm and a gate.
///
///     [q k v]_h = rows of x W_qkv^T + b_qkv, per head q(d) k(d) v(d)
///     q, k:  columns c < R turned by the angle p / base^(2 (c mod R/2) / R), with the column R/2 further, p the
///     position o = linear_attention(q_scale phi(q), phi(k), v, decay, state),   phi: dct_feature_map with its defaults
///     y = (silu(x W_gate) * GroupNorm(o)) W_out^T + b_out
///
/// x, y: `[B, n, E]`, H heads of width d = E / H. w_qkv: `[3E, E]` and w_out: `[E, E]` are `[out, in]`, w_gate:
/// `[E, E]` is `[in, out]`, as in the code. t: `[d]`; b_qkv: `[3E]`; gn_weight, gn_bias, b_out: `[E]`; decay: `[H]` or
/// `[B, H, n]`; q_scale: `[H, n]` or absent; state: `[B, H, d, d]`, in and out. float or double. One call with many
/// tokens is prefill, with one token a step of decoding: a sequence may be cut into calls anywhere, if each says where
/// it begins (position). The group norm takes `groups` blocks of E; the code has d of them, which straddle heads where
/// H does not divide d, and leave nothing of the attention where H = 1. H is the sane choice.
///
/// Conversion of a softmax layer: copy w_qkv, w_out, their biases and the rotary settings (rows of separate matrices
/// are interleaved by head: d rows of q, d of k, d of v, then the next head), draw t by qmc_frequencies and decay by
/// head_decay, start w_gate small, gn_weight at 1 and gn_bias at 0. The gate and the norm do not exist in the donor:
/// the layer is not close to it before it is fine-tuned.
#ifndef DEFT_ATTENTION_DIJIANG_LAYER_HPP
#define DEFT_ATTENTION_DIJIANG_LAYER_HPP

#include <deft/attention/dijiang_plan.hpp>

namespace deft {
inline namespace DEFT_ISA {

/// y of x; formulas and shapes at the top of this file. `position` is that of the first token; it turns q and k only:
/// q_scale and decay begin with the tokens of the call.
///
/// y overlaps nothing. Throws std::invalid_argument before anything is written if shapes do not fit. NaN in a token
/// reaches that token and, by the state, those after it. The same bits for every executor. The plan
/// allocates when it meets more tokens than before.
template <class T = void, class Y = view<float, 3>, executor Executor = serial_executor>
void dijiang_layer(in<element_t<T, Y>, 3> x,
                   const typename detail::non_deduced<dijiang_weights<const element_t<T, Y>>>::type& w, Y&& y_out,
                   out<element_t<T, Y>, 4> state, index position, dijiang_plan<element_t<T, Y>>& plan,
                   Executor&& executor = Executor()) {
    using S = element_t<T, Y>;
    constexpr index most_tokens = 256; // enough rows for products to be fast
    const char* const op = "dijiang_layer";
    const view<S, 3> y(y_out);
    detail::check_dijiang<S>(op, plan, x, w, state);
    detail::check_same_shape(op, "y", y, "x", x);
    const index e = plan.embedding(), heads = plan.options().heads, d = plan.width();
    detail::for_each_dijiang_block(x.extent(0), x.extent(1), most_tokens, [&](const detail::dijiang_block& block) {
        const index rows = block.rows();
        S *const qkv = plan.memory(rows * 5 * e), *const o = qkv + rows * 3 * e, *const z = o + rows * e;
        const view<const S, 2> from = block.of(x);
        detail::project<S>(from, linalg::matrix<const S>(w.w_qkv).transposed(), w.b_qkv, {qkv, {rows, 3 * e}},
                           executor);
        for (index r = 0; r < rows; ++r)
            plan.rotate(qkv + r * 3 * e, position + block.token + r % block.tokens, false);
        for (S* const part : {qkv, qkv + d}) {
            const view<S, 2> features = detail::head_matrix(part, rows, heads, d);
            deft::dct_feature_map(features, w.t, absent, features, absent, plan.features(), executor);
        }
        if (w.q_scale.is_given())
            detail::scale_queries<S>(w.q_scale, block, heads, d, qkv, 3 * e, 3 * d, qkv, 3 * e, 3 * d);
        const auto part = [&](S* first) { return block.heads(first, 3 * e, heads, 3 * d, d); };
        deft::linear_attention<S>(part(qkv), part(qkv + d), part(qkv + 2 * d), detail::decay_of(w.decay, block),
                                  block.heads(o, e, heads, d, d),
                                  linear_attention_state_view<S>(detail::state_of(state, block)), {}, executor);
        detail::project<S>(from, w.w_gate, absent, {z, {rows, e}}, executor);
        for (index r = 0; r < rows; ++r)
            kernels::gated_group_norm_forward<simd::default_arch, S>(plan.norm(w), o + r * e, z + r * e, o + r * e);
        detail::project<S>({o, {rows, e}}, linalg::matrix<const S>(w.w_out).transposed(), w.b_out, block.of(y),
                           executor);
    });
}

} // namespace DEFT_ISA
} // namespace deft

#endif

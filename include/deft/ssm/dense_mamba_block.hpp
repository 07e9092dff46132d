/// \file
/// A stack of Mamba layers (arXiv:2312.00752, section 3.4) whose states are fused with those of earlier layers
/// (DenseSSM, arXiv:2403.00818, section 3.2 and figure 1). Made of the operators that a user has.
///
///     n = rms(x) norm     (xi, z) = n in_proj^T     u = causal_conv1d(xi; conv_weight, conv_bias, silu)
///     (dt, B, C) = u x_proj^T     delta = dt dt_proj^T
///     h_t = exp(d A) h_{t-1} + d B_t u_t,  d = softplus(delta + dt_bias)          selective_scan
///     Hd_t = silu(silu(n sel1^T) sel2^T) (x) sum over the last m layers of their h_t      hidden_state_fusion
///     y = ((h_t + Hd_t) . C_t + D u) silu(z)          x = x + y out_proj^T
///
/// Hd is 0 in the first layer, and with a window m of 0: plain Mamba. There is no published code of DenseMamba, and the
/// two halves of the figure disagree: with the fusion point `readout` Hd is only read, and later layers see h_t; with
/// `recurrent` it joins h_t, which is carried on and seen by later layers.
///
/// x, y: `[B, T, D]`; norm: `[D]`; in_proj: `[2E, D]`; conv_weight: `[E, W]`, conv_bias: `[E]`; x_proj: `[R + 2N, E]`;
/// dt_proj: `[E, R]`, dt_bias: `[E]`, not part of the projection; A: `[E, N]`, which is -exp(A_log); D: `[E]`;
/// out_proj:
/// `[D, E]`; sel1: `[M, D]`, sel2: `[E, M]`. float or double. One call with many tokens is prefill, with one token a
/// step of decoding; a sequence may be cut into calls anywhere. Fused states are N times as large as the rest: tokens
/// go through all layers a chunk at a time, and (m + 1) chunk E N numbers are alive, whatever T.
#ifndef DEFT_SSM_DENSE_MAMBA_BLOCK_HPP
#define DEFT_SSM_DENSE_MAMBA_BLOCK_HPP

#include <deft/ssm/causal_conv1d.hpp>
#include <deft/ssm/dense_mamba_plan.hpp>
#include <deft/ssm/selective_scan.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace detail {

/// One layer over a block of tokens; x is updated.
template <class T, class Executor>
void dense_mamba_layer_rows(const dense_mamba_layer<T>& w, index l, const layer_rows& block, const view<T, 2>& x,
                            dense_mamba_state<T>& state, const dense_mamba_plan<T>& plan,
                            const typename dense_mamba_plan<T>::memory& m, Executor& executor) {
    const dense_mamba_options& o = plan.options();
    const index rows = block.count(), e = o.channels, n = o.states, projected = o.rank + 2 * n;
    const view<T, 2> normed(m.normed, {rows, o.width}), u(m.u, {rows, e}), dt(m.projected, {rows, projected}),
        delta(m.delta, {rows, e});
    normalise_rows<T>(x, w.norm, o.eps, normed, executor);
    map_rows<T>(normed, w.in_proj, {m.x_and_z, {rows, 2 * e}}, false, executor);
    causal_conv1d<T>(block.sequences(m.x_and_z, e, 2 * e), w.conv_weight, w.conv_bias, block.sequences(m.u, e, e),
                     block.part(state.conv(l)), {}, executor);
    map_rows<T>(u, w.x_proj, dt, false, executor);
    map_rows<T>({m.projected, {rows, o.rank}, {projected, index{1}}}, w.dt_proj, delta, false, executor);

    const auto vectors = [&](index first) {
        return view<const T, 4>(m.projected + first, {block.batches, block.tokens, 1, n},
                                {block.tokens * projected, projected, n, index{1}});
    };
    const selective_scan_inputs<T> in{.u = block.sequences(m.u, e, e),
                                      .delta = block.sequences(m.delta, e, e),
                                      .A = w.A,
                                      .B = vectors(o.rank),
                                      .C = vectors(o.rank + n),
                                      .D = w.D,
                                      .z = block.sequences(m.x_and_z + e, e, 2 * e),
                                      .delta_bias = w.dt_bias};
    const index seen = std::min(l, o.window), states = e * n;
    const bool is_seen = o.window > 0 && l + 1 < o.layers;
    const view<T, 3> y = block.sequences(m.delta, e, e), h = block.part(state.scan(l));
    if (seen == 0 && !is_seen) {
        selective_scan<T>(in, y, h, {}, executor);
    } else {
        view<T, 4> added, hidden;
        const auto tokens = [&](T* data) { return view<T, 4>(data, {block.batches, block.tokens, e, n}); };
        if (seen > 0) {
            added = tokens(m.added);
            hidden_state_fusion<T>({.current = {plan.nothing(), {rows, states}, {0, index{1}}},
                                    .x = normed,
                                    .past = {m.window, {seen, rows, states}},
                                    .w1 = w.sel1,
                                    .w2 = w.sel2},
                                   {m.added, {rows, states}}, {.gate_group = n, .norm = fusion_norm::none}, executor);
        }
        if (is_seen) // in the place of the oldest
            hidden = tokens(m.window + l % o.window * rows * states);
        selective_scan_hidden<T>(in, added, y, hidden, h, {.point = o.point}, executor);
    }
    map_rows<T>(delta, w.out_proj, x, true, executor);
}

} // namespace detail

/// y of x; formulas and shapes at the top of this file.
///
/// y may be x. Throws std::invalid_argument before anything is written if shapes do not fit. NaN in a token reaches
/// that token and, by the states, those after it. The same bits for every executor. The plan allocates when it
/// meets more tokens than before.
template <class T = void, class Y = view<float, 3>, executor Executor = serial_executor>
void dense_mamba_block(in<element_t<T, Y>, 3> x,
                       typename detail::non_deduced<std::span<const dense_mamba_layer<element_t<T, Y>>>>::type layers,
                       Y&& y_out, dense_mamba_state<element_t<T, Y>>& state, dense_mamba_plan<element_t<T, Y>>& plan,
                       Executor&& executor = Executor()) {
    using S = element_t<T, Y>;
    const char* const op = "dense_mamba_block";
    const view<S, 3> y(y_out);
    const dense_mamba_options& o = plan.options();
    detail::check_dense_mamba<S>(op, x, layers, state, o);
    detail::check_same_shape(op, "y", y, "x", x);
    detail::for_each_layer_rows(x.extent(0), x.extent(1), o.chunk, [&](const detail::layer_rows& block) {
        const view<const S, 2> from = block.of(x);
        const view<S, 2> to = block.of(y);
        if (to.data() != from.data())
            for (index r = 0; r < block.count(); ++r)
                std::copy_n(from.data() + r * from.stride(0), o.width, to.data() + r * to.stride(0));
        const auto memory = plan.reserve(block.count());
        for (index l = 0; l < o.layers; ++l)
            detail::dense_mamba_layer_rows<S>(layers[std::size_t(l)], l, block, to, state, plan, memory, executor);
    });
}

} // namespace DEFT_ISA
} // namespace deft

#endif

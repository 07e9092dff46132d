/// \file
/// Linear attention: softmax attention with its exponential kernel replaced by features, in time linear in the tokens
/// and memory that does not depend on them.
///
/// DiJiang (arXiv:2403.19928, eq. 4 normalised, eq. 13 not; the recurrent form of section 4.4). Over features that are
/// already computed, of queries q_i, keys k_i and values v_i, with a state S and its norm z:
///
///     S_i = a_i S_{i-1} + k_i v_i^T      z_i = a_i z_{i-1} + k_i
///     normalize none:  o_i = q_i S_i     sum:  o_i = q_i S_i / (q_i z_i + eps), 0 where the denominator is 0
///     mask full: every query reads the final S and z
///
/// q: `[B, H, nq, m]`; k: `[B, G, n, m]`; v: `[B, G, n, e]`; o: `[B, H, nq, e]`; H a multiple of G, query head h reads
/// key/value head h / (H / G). decay a: absent (1), `[G]` or `[B, G, n]`; it multiplies the OLD state, so a = 0 at the
/// first token of a packed document forgets the one before, and k = 0 with a = 1 makes a token of padding. state:
/// `[B, G, m, e]`, norm `[B, G, m]`, in and out. Causal: nq = n. One call with many tokens is prefill, with one token a
/// step of decoding; a sequence may be cut into calls anywhere.
/// Elements are float, double, or half / bfloat16 in q, k, v and o with the state in float (forward only). The state
/// may be double where the elements are float.
///
/// ONNX opset 27 LinearAttention in these terms (its layout is [B, T, H d]; ours is [B, H, T, d] with any strides):
///
///     ONNX                              deft
///     query, key, value                 q (times scale), k, v
///     past_state, present_state         state, [B, H_kv, d_k, d_v], in and out
///     decay (log space)                 decay = exp(...); per head or per token, not per feature
///     update_rule linear, gated         decay absent, given; the delta rules are not here
///     scale (default 1/sqrt(d_k))       none: fold it into q
///     q_num_heads, kv_num_heads         extents 1 of q and k
///     chunk_size                        options.chunk, a hint here as there
#ifndef DEFT_ATTENTION_LINEAR_ATTENTION_HPP
#define DEFT_ATTENTION_LINEAR_ATTENTION_HPP

#include <deft/attention/attention_decay.hpp>
#include <deft/attention/attention_options.hpp>
#include <deft/attention/linear_attention_state.hpp>
#include <deft/kernels/linear_attention.hpp>
#include <deft/parallel.hpp>
#include <deft/view.hpp>

#include <type_traits>

namespace deft {

struct linear_attention_options {
    attention_normalize normalize = attention_normalize::none;
    attention_mask mask = attention_mask::causal;
    double eps = 0;  ///< added to denominators
    index chunk = 0; ///< tokens at a time, at most; 0: chosen. Results differ by rounding only.
};

inline namespace DEFT_ISA {
namespace detail {

template <class S>
kernels::head_rows<S> heads_from(const view<S, 4>& x, index batch, index head) noexcept {
    return {x.data() + batch * x.stride(0) + head * x.stride(1), x.stride(1), x.stride(2)};
}

template <class S>
void check_attention(const char* op, const view<const S, 4>& q, const view<const S, 4>& k, const view<const S, 4>& v,
                     const attention_decay<const compute_t<S>>& decay, const linear_attention_options& options) {
    check_extent(op, "k", k, 0, q.extent(0), "extent 0 of q");
    check_extent(op, "v", v, 0, q.extent(0), "extent 0 of q");
    check_extent(op, "v", v, 1, k.extent(1), "extent 1 of k");
    check_extent(op, "v", v, 2, k.extent(2), "extent 2 of k");
    check_extent(op, "k", k, 3, q.extent(3), "extent 3 of q");
    const index heads = q.extent(1), groups = k.extent(1);
    check(groups == 0 ? heads == 0 : heads % groups == 0, op, "q",
          "the number of its heads must be a multiple of that of k", double(heads));
    if (options.mask == attention_mask::causal)
        check_extent(op, "q", q, 2, k.extent(2), "extent 2 of k: mask is causal");
    else
        check(!decay.is_given(), op, "decay", "there is none without a causal mask", decay.rank());
    check(options.eps >= 0, op, "eps", "it must not be negative", options.eps);
    check(options.chunk >= 0, op, "chunk", "it must not be negative", double(options.chunk));
    check_decay<compute_t<S>>(op, decay, k.extent(0), groups, k.extent(2));
}

template <class T, class S>
void check_state(const char* op, const char* name, const char* norm_name, const view<T, 4>& state,
                 const view<T, 3>& norm, const view<S, 4>& k, const view<S, 4>& v, attention_normalize normalize) {
    check_extent(op, name, state, 0, k.extent(0), "extent 0 of k");
    check_extent(op, name, state, 1, k.extent(1), "extent 1 of k");
    check_extent(op, name, state, 2, k.extent(3), "extent 3 of k");
    check_extent(op, name, state, 3, v.extent(3), "extent 3 of v");
    if (normalize == attention_normalize::none)
        return;
    check_extent(op, norm_name, norm, 0, k.extent(0), "extent 0 of k");
    check_extent(op, norm_name, norm, 1, k.extent(1), "extent 1 of k");
    check_extent(op, norm_name, norm, 2, k.extent(3), "extent 3 of k");
}

template <class T, class S>
void check_output(const char* op, const char* name, const view<T, 4>& o, const view<S, 4>& q, const view<S, 4>& v) {
    check_extent(op, name, o, 0, q.extent(0), "extent 0 of q");
    check_extent(op, name, o, 1, q.extent(1), "extent 1 of q");
    check_extent(op, name, o, 2, q.extent(2), "extent 2 of q");
    check_extent(op, name, o, 3, v.extent(3), "extent 3 of v");
}

} // namespace detail

/// Formulas, shapes and types at the top of this file. `state` is a linear_attention_state, or views of one.
///
/// o overlaps nothing. Throws std::invalid_argument before anything is written if shapes do not fit, H is no multiple
/// of G, there is a decay without causal mask or one that is NaN, eps or chunk is negative, or the norm is missing for
/// normalize sum (for none it is left alone). No tokens are valid. Decays beyond [0, 1] are computed as written. With a
/// denominator of 0 the output is 0. NaN in a token reaches what its state reaches, until a decay of 0.
/// Error: that of sums of n terms in the type of the state; with decays a, of 1 / (1 - a) terms. Without decay more
/// than 1e5 tokens need a state in double. The same bits for every executor; threads share heads and batches.
template <class T = void, class O, class State, executor Executor = serial_executor>
void linear_attention(in<element_t<T, O>, 4> q, in<element_t<T, O>, 4> k, in<element_t<T, O>, 4> v,
                      in_decay<compute_t<element_t<T, O>>> decay, O&& o_out, State&& state_out,
                      const linear_attention_options& options = {}, Executor&& executor = Executor()) {
    using S = element_t<T, O>;
    using A = decltype(detail::state_element(state_out));
    using arch = simd::default_arch;
    const char* const op = "linear_attention";
    const view<S, 4> o(o_out);
    const linear_attention_state_view<A> state(state_out);
    const bool sums = options.normalize == attention_normalize::sum;
    detail::check_attention<S>(op, q, k, v, decay, options);
    detail::check_state(op, "state", "norm", state.state, state.norm, k, v, options.normalize);
    detail::check_output(op, "o", o, q, v);

    const index groups = k.extent(1), share = groups == 0 ? 0 : q.extent(1) / groups;
    executor.parallel_for(k.extent(0) * groups, 1, [&](index begin, index end) {
        for (index task = begin; task < end; ++task) {
            const index b = task / groups, g = task % groups;
            const kernels::linear_attention_group<A, S> group{
                .q = detail::heads_from(q, b, g * share),
                .k = detail::heads_from(k, b, g),
                .v = detail::heads_from(v, b, g),
                .o = detail::heads_from(o, b, g * share),
                .decay = {decay.at(b, g), decay.step()},
                .state = state.state.data() + b * state.state.stride(0) + g * state.state.stride(1),
                .state_row = state.state.stride(2),
                .norm = sums ? state.norm.data() + b * state.norm.stride(0) + g * state.norm.stride(1) : nullptr,
                .eps = A(options.eps),
                .heads = share,
                .queries = q.extent(2),
                .tokens = k.extent(2),
                .features = k.extent(3),
                .width = v.extent(3),
                .block = options.chunk == 0 ? kernels::largest_block : options.chunk};
            if (options.mask == attention_mask::causal)
                kernels::linear_attention_causal<arch>(group);
            else
                kernels::linear_attention_full<arch>(group);
        }
    });
}

} // namespace DEFT_ISA
} // namespace deft

#endif

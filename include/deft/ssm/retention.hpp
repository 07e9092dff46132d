/// \file
/// Retention, the linear attention of RetNet (arXiv:2307.08621, eq. 5 to 7, section 2.2), with a fixed decay per head;
/// DenseRetNet (arXiv:2403.00818) uses it over fused keys and values.
///
///     S_t = gamma S_{t-1} + k_t v_t^T     c_t = gamma c_{t-1} + 1     o_t = q_t S_t / (sqrt(c_t) rho_t)
///
///     rho_t:  none     1
///             sum_abs  |sum_m R_tm| within [1, clamp_max]       RetNet, torchscale (clamp_max infinite)
///             abs_sum  sum_m |R_tm| within [1, clamp_max]       DenseSSM's training (clamp_max 5e4)
///     R_tm = (q_t . k_m) gamma^(t-m) / sqrt(c_t), m <= t; sum_m R_tm = q_t . z_t / sqrt(c_t), z_t = gamma z_{t-1} +
///     k_t
///
/// q, k: `[B, H, T, dk]`, turned by retention_rotary, k already multiplied by dk^-1/2; v, o: `[B, H, T, dv]`; gamma:
/// `[H]` in [0, 1], always double: rounded to float, it would be another decay over its horizon. State: S `[B, H, dk,
/// dv]`, c `[H]`, z `[B, H, dk]`, in and out. decay_norm none replaces sqrt(c_t) by 1. One call with many tokens is
/// prefill, with one token a step of decoding; a sequence may be cut into calls anywhere. abs_sum cannot be carried
/// from call to call: it takes the whole sequence, in time quadratic in it. Elements are float, double, or half /
/// bfloat16 in q, k, v and o with the state in float (forward only). The state may be double where the elements are
/// float.
///
/// A norm of each head that follows removes rho, but for its eps: DenseSSM trains with abs_sum and decodes without.
#ifndef DEFT_SSM_RETENTION_HPP
#define DEFT_SSM_RETENTION_HPP

#include <deft/kernels/linear_attention.hpp>
#include <deft/kernels/retention_rows.hpp>
#include <deft/parallel.hpp>
#include <deft/ssm/retention_state.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

namespace deft {

enum class decay_norm : unsigned char { sqrt, none };
enum class retention_row_norm : unsigned char { none, sum_abs, abs_sum };

struct retention_options {
    deft::decay_norm decay_norm = deft::decay_norm::sqrt;
    retention_row_norm row_norm = retention_row_norm::none;
    double clamp_max = std::numeric_limits<double>::infinity(); ///< of rho, at least 1
    index chunk = 0; ///< tokens at a time, at most; 0: chosen. Results differ by rounding only.
};

/// retnet: 1 - 2^(-5-h), exact in float for h <= 18; lm: 1 - exp of H numbers evenly from log(1/32) to log(1/512).
enum class retention_decay : unsigned char { retnet, lm };

inline namespace DEFT_ISA {

/// The decays of `[H]` heads.
inline void fill_retention_decay(view<double, 1> gamma, retention_decay kind) noexcept {
    const index heads = gamma.extent(0);
    const double from = std::log(1.0 / 32), step = heads > 1 ? (std::log(1.0 / 512) - from) / double(heads - 1) : 0.0;
    for (index h = 0; h < heads; ++h)
        gamma(h) =
            kind == retention_decay::retnet ? 1 - std::exp2(-5 - double(h)) : -std::expm1(from + step * double(h));
}

namespace detail {

template <class S>
kernels::head_rows<S> retention_rows_of(const view<S, 4>& x, index batch, index head, index column = 0) noexcept {
    return {x.data() + batch * x.stride(0) + head * x.stride(1) + column, x.stride(1), x.stride(2)};
}

template <class S>
void check_retention(const char* op, const view<const S, 4>& q, const view<const S, 4>& k, const view<const S, 4>& v,
                     const view<const double, 1>& gamma, const retention_options& options) {
    check_same_shape(op, "k", k, "q", q);
    for (int axis = 0; axis < 3; ++axis)
        check_extent(op, "v", v, axis, q.extent(axis), "the same extent of q");
    check_extent(op, "gamma", gamma, 0, q.extent(1), "extent 1 of q");
    for (index h = 0; h < gamma.extent(0); ++h)
        check(gamma(h) >= 0 && gamma(h) <= 1, op, "gamma", "it must lie in [0, 1]", gamma(h));
    check(options.clamp_max >= 1, op, "clamp_max", "it must be at least 1", options.clamp_max);
    check(options.chunk >= 0, op, "chunk", "it must not be negative", double(options.chunk));
    if (options.row_norm == retention_row_norm::abs_sum)
        check(options.chunk == 0, op, "chunk", "abs_sum takes a sequence as a whole", double(options.chunk));
}

/// Shapes, and what the options need of it. abs_sum: also that it is empty, which its scale tells.
template <class T, class S>
void check_retention_state(const char* op, const char* name, const retention_state_view<T>& s, const view<S, 4>& q,
                           const view<S, 4>& v, const retention_options& options) {
    const bool alone = options.row_norm == retention_row_norm::abs_sum;
    check_extent(op, name, s.state, 0, q.extent(0), "extent 0 of q");
    check_extent(op, name, s.state, 1, q.extent(1), "extent 1 of q");
    check_extent(op, name, s.state, 2, q.extent(3), "extent 3 of q");
    check_extent(op, name, s.state, 3, v.extent(3), "extent 3 of v");
    if (options.decay_norm == decay_norm::sqrt || alone || s.scale.is_given())
        check_extent(op, "scale", s.scale, 0, q.extent(1), "extent 1 of q");
    for (index h = 0; h < s.scale.extent(0); ++h)
        check(alone ? s.scale(h) == 0 : s.scale(h) >= 0, op, "scale",
              alone ? "abs_sum begins with an empty state" : "it must not be negative", s.scale(h));
    if (options.row_norm != retention_row_norm::sum_abs)
        return;
    for (int axis = 0; axis < 3; ++axis)
        check_extent(op, "key_state", s.key_state, axis, s.state.extent(axis), "the same extent of the state");
}

} // namespace detail

/// Formulas, shapes and types at the top of this file. `state` is a retention_state, or views of one.
///
/// o overlaps nothing. Throws std::invalid_argument before anything is written if shapes do not fit, gamma is outside
/// of [0, 1] or NaN, clamp_max < 1, chunk < 0, the state lacks its scale (decay_norm sqrt, abs_sum) or key_state
/// (sum_abs; otherwise that is left alone), or if abs_sum meets a state that is not empty or a chunk. No tokens leave
/// the state as it is. gamma = 0 gives (q_t . k_t) v_t. NaN in a token reaches what its state reaches. Zeros give
/// zeros. Error: that of sums of 1 / (1 - gamma) terms in the type of the state: in float 6e-6 for gamma = 1 - 2^-12
/// over 1e5 equal tokens, the worst; for gamma > 0.9999 it should be double. The same bits for every executor; threads
/// share batches, heads and columns of v.
template <class T = void, class O, class State, executor Executor = serial_executor>
void retention(in<element_t<T, O>, 4> q, in<element_t<T, O>, 4> k, in<element_t<T, O>, 4> v, in<double, 1> gamma,
               O&& o_out, State&& state_out, const retention_options& options = {}, Executor&& executor = Executor()) {
    using S = element_t<T, O>;
    using A = decltype(detail::state_element(state_out));
    using arch = simd::default_arch;
    constexpr index most_columns = 256; // of a task: enough that reading q and k does not show
    const char* const op = "retention";
    const view<S, 4> o(o_out);
    const retention_state_view<A> state(state_out);
    detail::check_retention<S>(op, q, k, v, gamma, options);
    detail::check_retention_state(op, "state", state, q, v, options);
    detail::check_same_shape(op, "o", o, "v", v);

    const index heads = q.extent(1), tokens = q.extent(2), width = v.extent(3);
    const bool has_roots = options.decay_norm == decay_norm::sqrt;
    const bool sums = options.row_norm == retention_row_norm::sum_abs,
               alone = options.row_norm == retention_row_norm::abs_sum;
    if (tokens == 0)
        return;
    // z belongs to one task.
    const index piece = sums || alone ? std::max<index>(width, 1) : most_columns;
    const index pieces = std::max<index>((width + piece - 1) / piece, 1);
    executor.parallel_for(q.extent(0) * heads * pieces, 1, [&](index begin, index end) {
        for (index task = begin; task < end; ++task) {
            const index head = task / pieces, b = head / heads, h = head % heads, c = task % pieces * piece;
            const kernels::decayed_count count{state.scale.is_given() ? state.scale(h) : 0.0, gamma(h)};
            A* const s = state.state.data() + b * state.state.stride(0) + h * state.state.stride(1) + c;
            kernels::linear_attention_group<A, S> group{
                .q = detail::retention_rows_of(q, b, h),
                .k = detail::retention_rows_of(k, b, h),
                .v = detail::retention_rows_of(v, b, h, c),
                .o = detail::retention_rows_of(o, b, h, c),
                .decay = {nullptr, 0, gamma(h)},
                .state = s,
                .state_row = state.state.stride(2),
                .norm = sums ? state.key_state.data() + b * state.key_state.stride(0) + h * state.key_state.stride(1)
                             : nullptr,
                .eps = A(0),
                .heads = 1,
                .queries = tokens,
                .tokens = tokens,
                .features = q.extent(3),
                .width = std::min(piece, width - c),
                .block = options.chunk == 0 ? kernels::largest_block : options.chunk,
                .roots = has_roots ? &count : nullptr,
                .most = sums ? options.clamp_max : 0};
            if (!alone) {
                kernels::linear_attention_causal<arch>(group);
                continue;
            }
            kernels::retention_rows<arch, S>({group.q, group.k, group.v, group.o, gamma(h), has_roots,
                                              options.clamp_max, tokens, group.features, width});
            for (index d = 0; d < group.features; ++d)
                std::fill_n(s + d * group.state_row, width, A(0));
            group.queries = 0;
            group.roots = nullptr;
            kernels::linear_attention_full<arch>(group);
        }
    });
    for (index h = 0; h < heads && state.scale.is_given(); ++h)
        state.scale(h) = kernels::decayed_count{state.scale(h), gamma(h)}.after(tokens - 1);
}

} // namespace DEFT_ISA
} // namespace deft

#endif

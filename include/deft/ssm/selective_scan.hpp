/// \file
/// The S6 layer of Mamba (arXiv:2312.00752, eq. 2a, eq. 4 and algorithm 2): a diagonal state-space recurrence whose
/// step size d and vectors B, C depend on the token. For channel c of group g = c / (D / G) and token t:
///
///     s = delta + delta_bias,   d = softplus(s) or s,   a = exp(d A),   phi = d (euler) or (exp(d A) - 1) / A (zoh)
///     h_t = a h_{t-1} + phi B_t u_t,     y_t = (sum_n C_t h_t + D u_t) silu(z_t)
///
/// u, delta, z, y: `[B, T, D]`; A: `[D, N]`; B, C: `[B, T, G, N]`; D, delta_bias: `[D]`. z (no gate), D and delta_bias
/// (zeros) may be absent. The state h, `[B, D, N]`, is the caller's: zeros to start with, updated by each call, a copy
/// is a snapshot; absent, it is zeros at first and not kept. A sequence may be cut into calls anywhere.
///
/// The paper discretises B exactly (zoh), its code by Euler's rule, the default. A > 0 and negative d grow, and
/// overflow as IEEE arithmetic does; where d A is 0 or far below, a is exactly 1 and 0. 1 <= N <= 512. Elements are
/// float, double, or half / bfloat16 in u, delta, z, B, C and y with the rest in float (forward only).
///
/// Accuracy: a errs by 2 ulp and the rounding of its exponent; float states follow double ones to about eps / (d |A|).
/// Cost: B T D N exponentials; nothing of size B T D N is ever stored.
#ifndef DEFT_SSM_SELECTIVE_SCAN_HPP
#define DEFT_SSM_SELECTIVE_SCAN_HPP

#include <deft/kernels/selective_scan.hpp>
#include <deft/kernels/selective_scan_step.hpp>
#include <deft/parallel.hpp>
#include <deft/view.hpp>

#include <algorithm>

namespace deft {

/// Tensors that a scan reads; those with a default may be absent.
template <class S>
struct selective_scan_inputs {
    view<const S, 3> u, delta;
    view<const compute_t<S>, 2> A;
    view<const S, 4> B, C;
    view<const compute_t<S>, 1> D = {};
    view<const S, 3> z = {};
    view<const compute_t<S>, 1> delta_bias = {};
};

enum class step_size : unsigned char { softplus, identity }; ///< d of s
enum class discretisation : unsigned char { euler, zoh };    ///< phi

struct selective_scan_options {
    step_size step = step_size::softplus;
    deft::discretisation discretisation = deft::discretisation::euler;
    index chunk = 0; ///< tokens of a span that a thread takes, at twice the work; 0: threads share channels
};

inline namespace DEFT_ISA {
namespace detail {

template <class S>
void check_selective_scan(const char* op, const selective_scan_inputs<S>& in, const selective_scan_options& options) {
    const index channels = in.u.extent(2), states = in.A.extent(1), groups = in.B.extent(2);
    check_same_shape(op, "delta", in.delta, "u", in.u);
    check_extent(op, "A", in.A, 0, channels, "extent 2 of u");
    check(states >= 1 && states <= kernels::selective_scan_states, op, "A",
          "states, its extent 1, must lie in [1, 512]", double(states));
    check_extent(op, "B", in.B, 0, in.u.extent(0), "extent 0 of u");
    check_extent(op, "B", in.B, 1, in.u.extent(1), "extent 1 of u");
    check(groups >= 1 && channels % groups == 0, op, "B", "groups, its extent 2, must divide the channels of u",
          double(groups));
    check_extent(op, "B", in.B, 3, states, "extent 1 of A");
    check_same_shape(op, "C", in.C, "B", in.B);
    if (in.D.is_given())
        check_extent(op, "D", in.D, 0, channels, "extent 2 of u");
    if (in.z.is_given())
        check_same_shape(op, "z", in.z, "u", in.u);
    if (in.delta_bias.is_given())
        check_extent(op, "delta_bias", in.delta_bias, 0, channels, "extent 2 of u");
    check(options.chunk >= 0, op, "chunk", "must not be negative", double(options.chunk));
}

template <class S, class V>
void check_scan_state(const char* op, const char* name, const V& state, const selective_scan_inputs<S>& in) {
    if (!state.is_given())
        return;
    check_extent(op, name, state, 0, in.u.extent(0), "extent 0 of u");
    check_extent(op, name, state, 1, in.A.extent(0), "extent 0 of A");
    check_extent(op, name, state, 2, in.A.extent(1), "extent 1 of A");
}

/// How channels are cut into blocks of one group.
struct scan_blocks {
    index per_group, width, in_group, count;

    scan_blocks(index channels, index groups, index most) noexcept
        : per_group(channels / groups), width(most), in_group((per_group + most - 1) / most), count(groups * in_group) {
    }
    index group(index block) const noexcept {
        return block / in_group;
    }
    index first(index block) const noexcept {
        return group(block) * per_group + block % in_group * width;
    }
    index channels(index block) const noexcept {
        return std::min(width, per_group - block % in_group * width);
    }
};

/// Channels [c, c + channels) and tokens [t, t + tokens) of sequence b.
template <class S>
kernels::selective_scan_channels<S> scan_part(const selective_scan_inputs<S>& in, const view<S, 3>& y,
                                              const selective_scan_options& options, index b, index t, index tokens,
                                              index c, index channels, index group) noexcept {
    const auto at = [&](const auto& v) {
        return v.is_given() ? v.data() + b * v.stride(0) + t * v.stride(1) + c : nullptr;
    };
    const auto of_group = [&](const auto& v) {
        return v.data() + b * v.stride(0) + t * v.stride(1) + group * v.stride(2);
    };
    return {at(in.u),
            at(in.delta),
            at(in.z),
            in.u.stride(1),
            in.delta.stride(1),
            in.z.stride(1),
            of_group(in.B),
            of_group(in.C),
            in.B.stride(1),
            in.C.stride(1),
            in.A.data() + c * in.A.stride(0),
            in.A.stride(0),
            in.D.is_given() ? in.D.data() + c : nullptr,
            in.delta_bias.is_given() ? in.delta_bias.data() + c : nullptr,
            at(y),
            y.stride(1),
            tokens,
            channels,
            in.A.extent(1),
            options.step == step_size::softplus,
            options.discretisation == discretisation::zoh};
}

/// A block whose tokens are cut into spans: what each makes of a zero state, in parallel; their states in order; the
/// results, in parallel.
template <class S, class Executor>
void scan_by_spans(const selective_scan_inputs<S>& in, const view<S, 3>& y, const selective_scan_options& options,
                   index b, index c, index channels, index group,
                   const kernels::selective_scan_decay<simd::default_arch, compute_t<S>>& decay, compute_t<S>* h,
                   Executor& executor) {
    using T = compute_t<S>;
    using arch = simd::default_arch;
    using shape = kernels::selective_scan_shape<arch, T>;
    constexpr index at_once = 8;
    const index tokens = in.u.extent(1), spans = (tokens + options.chunk - 1) / options.chunk;
    T local[std::size_t(at_once)][std::size_t(shape::block_size)];
    T sums[std::size_t(at_once)][std::size_t(shape::most_vectors * shape::width)];
    for (index first = 0; first < spans; first += at_once) {
        const index count = std::min(at_once, spans - first);
        const auto part = [&](index s) {
            const index t = (first + s) * options.chunk;
            return scan_part(in, y, options, b, t, std::min(options.chunk, tokens - t), c, channels, group);
        };
        executor.parallel_for(count, 1, [&](index begin, index end) {
            for (index s = begin; s < end; ++s) {
                std::fill_n(local[s], shape::block_size, T(0));
                std::fill_n(sums[s], shape::most_vectors * shape::width, T(0));
                kernels::selective_scan_forward<arch, false>(part(s), decay, local[s], sums[s]);
            }
        });
        for (index s = 0; s < count; ++s)
            kernels::selective_scan_combine<arch, T>(decay, channels, in.A.extent(1), sums[s], local[s], h);
        executor.parallel_for(count, 1, [&](index begin, index end) {
            for (index s = begin; s < end; ++s)
                kernels::selective_scan_forward<arch, true>(part(s), decay, local[s], sums[s]);
        });
    }
}

} // namespace detail

/// y and the new state; formulas, shapes and types at the top of this file.
///
/// y may be u, delta or z. Throws std::invalid_argument before anything is written if shapes do not fit, the groups do
/// not divide the channels, N is not in [1, 512] or chunk is negative. No tokens leave the state as it is. NaN in a
/// channel of u, delta or z spoils that channel from there on. The same bits for every executor; a chunk, and calls of
/// one or two tokens, change roundings.
template <class S, executor Executor = serial_executor>
void selective_scan(const selective_scan_inputs<S>& in, out<S, 3> y, out<compute_t<S>, 3> state,
                    const selective_scan_options& options = {}, Executor&& executor = Executor()) {
    using T = compute_t<S>;
    using arch = simd::default_arch;
    using shape = kernels::selective_scan_shape<arch, T>;
    constexpr index tokens_at_once = 4 * shape::tile_tokens, few_tokens = 2;
    const char* const op = "selective_scan";
    detail::check_selective_scan(op, in, options);
    detail::check_same_shape(op, "y", y, "u", in.u);
    detail::check_scan_state(op, "state", state, in);

    const index states = in.A.extent(1), tokens = in.u.extent(1);
    if (tokens == 0 || in.u.size() == 0)
        return;
    const detail::scan_blocks blocks(in.u.extent(2), in.B.extent(2), shape::channels(states));
    const auto run = [&](index task, index t, index count, auto& inner) {
        const index b = task / blocks.count, block = task % blocks.count, c = blocks.first(block),
                    channels = blocks.channels(block);
        const auto all = detail::scan_part(in, y, options, b, t, count, c, channels, blocks.group(block));
        T* const rows = state.is_given() ? state.data() + b * state.stride(0) + c * state.stride(1) : nullptr;
        if (rows != nullptr && count <= few_tokens)
            return kernels::selective_scan_steps<arch>(all, {rows, state.stride(1), 0});
        kernels::selective_scan_decay<arch, T> decay;
        alignas(64) T h[std::size_t(shape::block_size)];
        kernels::load_decay<arch>(all, decay);
        if (rows != nullptr)
            kernels::load_channel_rows<arch, T>(rows, state.stride(1), channels, states, h);
        else
            std::fill_n(h, shape::block_size, T(0));
        if (options.chunk == 0)
            kernels::selective_scan_forward<arch, true>(all, decay, h, nullptr);
        else
            detail::scan_by_spans(in, y, options, b, c, channels, blocks.group(block), decay, h, inner);
        if (rows != nullptr)
            kernels::store_channel_rows<arch, T>(h, channels, states, rows, state.stride(1));
    };
    const index tasks = in.u.extent(0) * blocks.count;
    if (options.chunk > 0) {
        for (index task = 0; task < tasks; ++task)
            run(task, 0, tokens, executor);
        return;
    }
    // A block of channels is a short piece of every row: some tokens for all blocks meet whole rows. Without a state
    // there is nowhere to keep h meanwhile.
    const index step = state.is_given() ? tokens_at_once : tokens;
    executor.parallel_for(tasks, 1, [&](index begin, index end) {
        serial_executor serial;
        for (index t = 0; t < tokens; t += step)
            for (index task = begin; task < end; ++task)
                run(task, t, std::min(step, tokens - t), serial);
    });
}

} // namespace DEFT_ISA
} // namespace deft

#endif

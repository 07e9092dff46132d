/// \file
/// Dense hidden-state fusion (DenseSSM, arXiv:2403.00818, section 3.2 and figure 1): a gate made of the layer's input
/// picks what is useful of the states p_i of the previous m layers, which is added to the layer's own state c.
///
///     a = w2 silu(w1 x),   g_j = act(a_{j / gate_group}),   f = c + g sum_i P_i p_i
///     y = f / sqrt(mean(f^2) + eps) norm_weight  (norm = rms),   or f  (none)
///
/// current, y: `[R, Dh]`, rows (tokens) any distance apart; x: `[R, Dx]`; past: `[m, R, Dp]`, oldest first, m >= 0; w1:
/// `[M, Dx]`; w2: `[Dg, M]` with Dg gate_group = Dh; proj: `[m, Dh, Dp]`, or absent: the identity, Dp = Dh;
/// norm_weight:
/// `[Dh]`, or absent: ones. Elements are float or double.
///
/// Nothing crosses rows: a sequence may be cut anywhere. The official code fuses keys and values of DenseRetNet (norm
/// rms, no projection, m = 1) and passes on to later layers what was before fusion; a Mamba state is fused flattened,
/// [E, N] with gate_group N and no norm. Cost: 2 M (Dx + Dg) flops per row, and (m + 2) Dh + Dx elements of memory.
#ifndef DEFT_SSM_HIDDEN_STATE_FUSION_HPP
#define DEFT_SSM_HIDDEN_STATE_FUSION_HPP

#include <deft/parallel.hpp>
#include <deft/ssm/hidden_state_fusion_gate.hpp>

#include <cmath>
#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace detail {

template <class T>
void check_fusion(const char* op, const hidden_state_fusion_inputs<T>& in, const hidden_state_fusion_options& options) {
    static_assert(std::is_floating_point_v<T>, "hidden_state_fusion takes float or double");
    const index rows = in.current.extent(0), width = in.current.extent(1), group = options.gate_group;
    check_extent(op, "x", in.x, 0, rows, "extent 0 of current");
    check_extent(op, "past", in.past, 1, rows, "extent 0 of current");
    check_extent(op, "w1", in.w1, 1, in.x.extent(1), "extent 1 of x");
    check_extent(op, "w2", in.w2, 1, in.w1.extent(0), "extent 0 of w1");
    check(group >= 1, op, "gate_group", "must be at least 1", double(group));
    check(in.w2.extent(0) * group == width, op, "w2", "its extent 0 times gate_group must be extent 1 of current",
          double(in.w2.extent(0)));
    if (in.proj.is_given()) {
        check_extent(op, "proj", in.proj, 0, in.past.extent(0), "extent 0 of past");
        check_extent(op, "proj", in.proj, 1, width, "extent 1 of current");
        check_extent(op, "proj", in.proj, 2, in.past.extent(2), "extent 2 of past");
    } else if (in.past.extent(0) > 0) {
        check_extent(op, "past", in.past, 2, width, "extent 1 of current, without proj");
    }
    if (in.norm_weight.is_given()) {
        check_extent(op, "norm_weight", in.norm_weight, 0, width, "extent 1 of current");
        check(options.norm == fusion_norm::rms, op, "norm_weight", "must be absent (0) without a norm", 1);
    }
    check(options.eps >= 0, op, "eps", "must not be negative", options.eps);
    check(options.gate == activation::silu || options.gate == activation::sigmoid ||
              options.gate == activation::identity,
          op, "gate", "must be silu, sigmoid or identity", double(options.gate));
}

/// f of rows [r, r + rows) into y, and the sums of its squares, where the gate is direct and there are past states; h
/// holds the hidden units. Row i of the gates before their activation goes to kept + i kept_stride, if not null.
template <class T>
void fuse_rows_directly(const fusion_gate<T>& gate, index r, index rows, const T* h, const view<T, 2>& y,
                        double* squares, T* kept = nullptr, index kept_stride = 0) noexcept {
    const view<const T, 2>& current = gate.in.current;
    kernels::fuse_product<simd::default_arch, T>(
        gate.options.gate, {h, gate.stride_of_hidden(), 1}, gate.to_gates(), gate.middle(),
        {current.data() + r * current.stride(0), current.stride(0), gate.past_at(r, 0, nullptr), gate.in.past.stride(1),
         y.data() + r * y.stride(0), y.stride(0), kept, kept_stride},
        rows, gate.width(), squares);
}

/// f of rows [r, r + rows) into y, and the sums of its squares.
template <class T>
void fuse_rows(const fusion_gate<T>& gate, index r, index rows, const view<T, 2>& y, double* squares) noexcept {
    using arch = simd::default_arch;
    using shape = kernels::tile_shape<arch, T>;
    alignas(64) T h[std::size_t(shape::tile_size)], gates[std::size_t(shape::tile_size)],
        projected[std::size_t(shape::tile_size)], room[std::size_t(fusion_gate<T>::piece)];
    const view<const T, 2>& current = gate.in.current;
    std::fill_n(squares, rows, 0.0);
    if (gate.past() == 0) {
        for (index i = 0; i < rows; ++i)
            squares[i] = static_cast<double>(
                kernels::fuse_row<arch, T>(current.data() + (r + i) * current.stride(0), nullptr, {nullptr, 0, 0},
                                           y.data() + (r + i) * y.stride(0), gate.width()));
        return;
    }
    if (gate.is_direct()) {
        gate.hidden(r, rows, 0, gate.middle(), h, h);
        return fuse_rows_directly<T>(gate, r, rows, h, y, squares);
    }
    const index step = shape::long_columns_for(rows), group = gate.options.gate_group,
                channels = gate.piece_channels(step);
    index held = -1;
    for (index k = 0; k < gate.gates(); k += step) {
        const index count = std::min(step, gate.gates() - k), first = k * group, last = (k + count) * group;
        gate.gate_tile(r, rows, k, count, h, held, gates, step);
        for (index i = 0; i < rows; ++i)
            kernels::gate_values<arch, T>(gate.options.gate, gates + i * step, gates + i * step, count);
        for (index c = first; c < last; c += channels) {
            const index n = std::min(channels, last - c);
            if (gate.in.proj.is_given())
                gate.projected_tile(r, rows, c, n, projected, step);
            for (index i = 0; i < rows; ++i)
                squares[i] += static_cast<double>(kernels::fuse_row<arch, T>(
                    current.data() + (r + i) * current.stride(0) + c, gate.expand(gates + i * step, first, c, n, room),
                    gate.past_at(r + i, c, projected + i * step), y.data() + (r + i) * y.stride(0) + c, n));
        }
    }
}

/// 1 / sqrt(mean + eps).
template <class T>
T inverse_norm(double squares, index width, double eps) noexcept {
    return static_cast<T>(1 / std::sqrt(squares / double(width) + eps));
}

} // namespace detail

/// y; formulas, shapes and types at the top of this file.
///
/// y may be current. Throws std::invalid_argument before anything is written if shapes do not fit, norm_weight is given
/// without a norm, eps is negative or the gate is none of silu, sigmoid and identity. m = 0 gives the norm of current,
/// no rows are valid; with eps = 0 a row of zeros gives NaN; rows whose squares overflow T give 0 or NaN. The same bits
/// for every executor.
template <class T, executor Executor = serial_executor>
void hidden_state_fusion(const hidden_state_fusion_inputs<T>& in, out<T, 2> y,
                         const hidden_state_fusion_options& options = {}, Executor&& executor = Executor()) {
    const char* const op = "hidden_state_fusion";
    detail::check_fusion(op, in, options);
    detail::check_same_shape(op, "y", y, "current", in.current);
    const detail::fusion_gate<T> gate{in, options};
    const index rows = in.current.extent(0), height = gate.block_rows(), width = gate.width();
    executor.parallel_for((rows + height - 1) / height, 1, [&](index begin, index end) {
        double squares[std::size_t(detail::fusion_gate<T>::shape::tile_rows)];
        for (index r = begin * height; r < std::min(end * height, rows); r += height) {
            const index count = std::min(height, rows - r);
            detail::fuse_rows<T>(gate, r, count, y, squares);
            for (index i = 0; options.norm == fusion_norm::rms && i < count; ++i)
                kernels::scale_row<simd::default_arch, T>(detail::inverse_norm<T>(squares[i], width, options.eps),
                                                          in.norm_weight.is_given() ? in.norm_weight.data() : nullptr,
                                                          y.data() + (r + i) * y.stride(0), width);
        }
    });
}

} // namespace DEFT_ISA
} // namespace deft

#endif

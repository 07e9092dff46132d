/// \file
/// Gradients of hidden_state_fusion, a block of rows at a time; gates are computed again.
#ifndef DEFT_SSM_HIDDEN_STATE_FUSION_BACKWARD_HPP
#define DEFT_SSM_HIDDEN_STATE_FUSION_BACKWARD_HPP

#include <deft/shortcut/augmented_shortcut_paths.hpp>
#include <deft/ssm/hidden_state_fusion.hpp>

namespace deft {

/// Gradients of what hidden_state_fusion reads, each of the same shape; proj and norm_weight are given exactly where
/// their inputs are.
template <class T>
struct hidden_state_fusion_gradients {
    view<T, 2> current, x;
    view<T, 3> past;
    view<T, 2> w1, w2;
    view<T, 3> proj = {};
    view<T, 1> norm_weight = {};
};

inline namespace DEFT_ISA {
namespace detail {

template <class T, int Rank>
void fill_zero(const view<T, Rank>& v) noexcept {
    if constexpr (Rank == 1) {
        std::fill_n(v.data(), v.extent(0), T(0));
    } else {
        for (index i = 0; i < v.extent(0); ++i)
            if constexpr (Rank == 2)
                std::fill_n(v.data() + i * v.stride(0), v.extent(1), T(0));
            else
                fill_zero(view<T, 2>(v.data() + i * v.stride(0), {v.extent(1), v.extent(2)}, {v.stride(1), index{1}}));
    }
}

/// A block of a matrix.
template <class T>
view<T, 2> part_of(const view<T, 2>& v, index r, index rows, index c, index columns) noexcept {
    return {v.data() + r * v.stride(0) + c, {rows, columns}, {v.stride(0), index{1}}};
}

/// Hidden units u and h = silu(u). Where the norm's gradient has to compute them and the gates of all channels, they
/// are kept for what follows: the gates, before their activation, where the gradient of the oldest past states is to
/// be.
template <class T>
struct fusion_units {
    static constexpr std::size_t size = std::size_t(kernels::tile_shape<simd::default_arch, T>::tile_size);
    alignas(64) T u[size], h[size];
    const bool are_kept;

    explicit fusion_units(const fusion_gate<T>& gate) noexcept
        : are_kept(gate.is_direct() && gate.past() > 0 && gate.options.norm == fusion_norm::rms) {}
};

/// grad.current of rows [r, r + rows): f, then the gradient of f; grad.norm_weight is added to.
template <class T>
void fusion_norm_gradient(const fusion_gate<T>& gate, const view<const T, 2>& grad_y,
                          const hidden_state_fusion_gradients<T>& grad, index r, index rows,
                          fusion_units<T>& hidden) noexcept {
    using arch = simd::default_arch;
    const index width = gate.width();
    const T* const w = gate.in.norm_weight.is_given() ? gate.in.norm_weight.data() : nullptr;
    if (gate.options.norm == fusion_norm::none) {
        for (index i = r; i < r + rows; ++i)
            std::copy_n(grad_y.data() + i * grad_y.stride(0), width, grad.current.data() + i * grad.current.stride(0));
        return;
    }
    double squares[std::size_t(fusion_gate<T>::shape::tile_rows)];
    if (hidden.are_kept) {
        const view<T, 3>& gates = grad.past;
        gate.hidden(r, rows, 0, gate.middle(), hidden.u, hidden.h);
        fuse_rows_directly<T>(gate, r, rows, hidden.h, grad.current, squares, gates.data() + r * gates.stride(1),
                              gates.stride(1));
    } else
        fuse_rows<T>(gate, r, rows, grad.current, squares);
    for (index i = 0; i < rows; ++i) {
        T* const f = grad.current.data() + (r + i) * grad.current.stride(0);
        const T* const g = grad_y.data() + (r + i) * grad_y.stride(0);
        const T scale = inverse_norm<T>(squares[i], width, gate.options.eps);
        const T mean = kernels::norm_cotangent<arch, T>(g, w, f, width) / T(width);
        kernels::norm_gradient<arch, T>(g, w, scale, (scale * mean) * scale, f,
                                        grad.norm_weight.is_given() ? grad.norm_weight.data() : nullptr, width);
    }
}

/// The gradients of the gates [k, k + count) before their activation, into `cotangent`, of rows [r, r + rows), whose
/// gradient of f is grad.current; with `states`, also those of past states and projections.
template <class T>
void fusion_gate_gradient(const fusion_gate<T>& gate, const hidden_state_fusion_gradients<T>& grad, index r, index rows,
                          index k, index count, bool states, const T* before, T* cotangent, index stride) noexcept {
    using arch = simd::default_arch;
    using shape = kernels::tile_shape<arch, T>;
    constexpr index piece = fusion_gate<T>::piece;
    alignas(64) T projected[std::size_t(shape::tile_size)], of_states[std::size_t(shape::tile_size)];
    T values[std::size_t(shape::tile_size)], room[std::size_t(piece)], of_gates[std::size_t(piece)];
    const auto& in = gate.in;
    const bool has_proj = in.proj.is_given();
    const index group = gate.options.gate_group, first = k * group, last = (k + count) * group,
                channels = gate.piece_channels(stride);
    serial_executor serial;
    for (index i = 0; i < rows; ++i) {
        kernels::gate_values<arch, T>(gate.options.gate, before + i * stride, values + i * stride, count);
        std::fill_n(cotangent + i * stride, count, T(0));
    }
    for (index c = first; c < last; c += channels) {
        const index n = std::min(channels, last - c);
        if (has_proj)
            gate.projected_tile(r, rows, c, n, projected, stride);
        for (index i = 0; i < rows; ++i) {
            kernels::past_rows<T> to{grad.past.data() + (r + i) * grad.past.stride(1) + c, grad.past.stride(0),
                                     states ? gate.past() : 0};
            if (has_proj)
                to = {of_states + i * stride, 0, 1};
            T* const sums = cotangent + i * stride;
            kernels::fusion_gradient<arch, T>(grad.current.data() + (r + i) * grad.current.stride(0) + c,
                                              gate.expand(values + i * stride, first, c, n, room),
                                              gate.past_at(r + i, c, projected + i * stride),
                                              group == 1 ? sums + (c - first) : of_gates, to, n);
            if (group > 1)
                gate.for_each_gate(c - first, n, [&](index g, index begin, index end) {
                    for (index j = begin; j < end; ++j)
                        sums[g] += of_gates[j];
                });
        }
        for (index p = 0; has_proj && states && p < gate.past(); ++p) {
            const kernels::strided_matrix<const T> q{of_states, stride, 1};
            const index width = in.past.extent(2);
            const view<const T, 2> p_i(in.past.data() + p * in.past.stride(0), {in.past.extent(1), width},
                                       {in.past.stride(1), index{1}});
            const view<const T, 2> proj_i(in.proj.data() + p * in.proj.stride(0), {gate.width(), width},
                                          {in.proj.stride(1), index{1}});
            const view<T, 2> to_past(grad.past.data() + p * grad.past.stride(0), {in.past.extent(1), width},
                                     {grad.past.stride(1), index{1}});
            const view<T, 2> to_proj(grad.proj.data() + p * grad.proj.stride(0), {gate.width(), width},
                                     {grad.proj.stride(1), index{1}});
            multiply<T>(q, as_factor(proj_i).at(c, 0), n, c > 0, part_of(to_past, r, rows, 0, width), serial);
            multiply<T>(q.transposed(), as_factor(p_i).at(r, 0), rows, true, part_of(to_proj, c, n, 0, width), serial);
        }
    }
    for (index i = 0; i < rows; ++i)
        kernels::times_gate_slopes<arch, T>(gate.options.gate, before + i * stride, cotangent + i * stride, count);
}

/// Hidden units of part p: grad.w2, then through silu grad.w1 and grad.x, which are added to.
template <class T>
void fusion_hidden_gradient(const fusion_gate<T>& gate, const hidden_state_fusion_gradients<T>& grad, index r,
                            index rows, index p, fusion_units<T>& hidden) noexcept {
    using arch = simd::default_arch;
    using shape = kernels::tile_shape<arch, T>;
    alignas(64) T t[std::size_t(shape::tile_size)];
    T *const u = hidden.u, *const h = hidden.h;
    alignas(64) T gates[std::size_t(shape::tile_size)], cotangent[std::size_t(shape::tile_size)];
    const index first = p * gate.chunk(), units = std::min(gate.chunk(), gate.middle() - first),
                step = shape::long_columns_for(rows), stride = gate.stride_of_hidden();
    serial_executor serial;
    if (!hidden.are_kept)
        gate.hidden(r, rows, first, units, u, h);
    index held = p;
    for (index k = 0; k < gate.gates(); k += step) {
        const index count = std::min(step, gate.gates() - k);
        if (hidden.are_kept) {
            for (index i = 0; i < rows; ++i)
                std::copy_n(grad.past.data() + (r + i) * grad.past.stride(1) + k, count, gates + i * step);
        } else {
            gate.gate_tile(r, rows, k, count, h, held, gates, step);
            if (held != p)
                gate.hidden(r, rows, first, units, u, h);
            held = p;
        }
        fusion_gate_gradient<T>(gate, grad, r, rows, k, count, p == 0, gates, cotangent, step);
        const kernels::strided_matrix<const T> e{cotangent, step, 1};
        multiply<T>(e.transposed(), {h, stride, 1}, rows, true, part_of(grad.w2, k, count, first, units), serial);
        multiply<T>(e, as_factor(gate.in.w2).at(k, first), count, k > 0,
                    view<T, 2>(t, {rows, units}, {stride, index{1}}), serial);
    }
    for (index i = 0; i < rows; ++i)
        kernels::times_gate_slopes<arch, T>(activation::silu, u + i * stride, t + i * stride, units);
    const kernels::strided_matrix<const T> e{t, stride, 1};
    const index width = gate.in.x.extent(1);
    multiply<T>(e.transposed(), as_factor(gate.in.x).at(r, 0), rows, true, part_of(grad.w1, first, units, 0, width),
                serial);
    multiply<T>(e, as_factor(gate.in.w1).at(first, 0), units, p > 0, part_of(grad.x, r, rows, 0, width), serial);
}

} // namespace detail

/// Gradients of hidden_state_fusion for the cotangent grad_y of y, with s = sum_i P_i p_i, r = 1 / sqrt(mean(f^2) +
/// eps), n = grad_y norm_weight:
///
///     grad_f = r (n - f r^2 mean(n f))  (grad_y without norm) = grad_current      grad_norm_weight = sum grad_y f r
///     grad_p_i = P_i^T (grad_f g)      grad_P_i = sum (grad_f g) p_i^T
///     grad_a_j = act'(a_j) sum over its channels of grad_f s
///     grad_w2 = sum grad_a silu(w1 x)^T      t = (w2^T grad_a) silu'(w1 x)      grad_w1 = sum t x^T      grad_x = w1^T
///     t
///
/// in: inputs of the forward call. Outputs may not overlap inputs or each other. Throws like hidden_state_fusion. Runs
/// in the calling thread.
template <class T>
void hidden_state_fusion_backward(const hidden_state_fusion_inputs<T>& in, deft::in<T, 2> grad_y,
                                  const hidden_state_fusion_gradients<T>& grad,
                                  const hidden_state_fusion_options& options = {}) {
    const char* const op = "hidden_state_fusion_backward";
    detail::check_fusion(op, in, options);
    detail::check_same_shape(op, "grad_y", grad_y, "current", in.current);
    detail::check_same_shape(op, "grad.current", grad.current, "current", in.current);
    detail::check_same_shape(op, "grad.x", grad.x, "x", in.x);
    detail::check_same_shape(op, "grad.past", grad.past, "past", in.past);
    detail::check_same_shape(op, "grad.w1", grad.w1, "w1", in.w1);
    detail::check_same_shape(op, "grad.w2", grad.w2, "w2", in.w2);
    detail::check_gradient_of(op, "grad.proj", grad.proj, in.proj, "proj");
    detail::check_gradient_of(op, "grad.norm_weight", grad.norm_weight, in.norm_weight, "norm_weight");
    const detail::fusion_gate<T> gate{in, options};
    const bool has_gates = gate.past() > 0 && gate.width() > 0;
    if (!has_gates) { // otherwise they are assigned
        detail::fill_zero(grad.x);
        detail::fill_zero(grad.past);
    }
    detail::fill_zero(grad.w1);
    detail::fill_zero(grad.w2);
    detail::fill_zero(grad.proj);
    detail::fill_zero(grad.norm_weight);
    const index rows = in.current.extent(0), height = gate.block_rows();
    detail::fusion_units<T> hidden(gate);
    for (index r = 0; r < rows; r += height) {
        const index count = std::min(height, rows - r);
        detail::fusion_norm_gradient<T>(gate, grad_y, grad, r, count, hidden);
        for (index p = 0; has_gates && p < gate.chunks(); ++p)
            detail::fusion_hidden_gradient<T>(gate, grad, r, count, p, hidden);
    }
}

} // namespace DEFT_ISA
} // namespace deft

#endif

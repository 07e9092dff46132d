/// \file
/// What follows retention: a norm over the channels of each head, then an elementwise gate (arXiv:2307.08621, eq. 8); a
/// gated RMSNorm for any other use.
///
///     rms:    n = o / sqrt(mean(o^2) + eps) weight          layer:  n = (o - mean) / sqrt(var + eps) weight
///     y = n act(gate)
///
/// o: `[B, T, H, dv]`, token before head; gate, y: `[B, T, H dv]`; weight: `[dv]`, for all heads, or absent: ones.
/// Means are over dv, var is biased. The paper says group norm, which is layer; both codes use rms, the default.
/// DenseSSM's gate is activated beforehand: identity. Elements are float or double.
#ifndef DEFT_SSM_RETENTION_GATE_HPP
#define DEFT_SSM_RETENTION_GATE_HPP

#include <deft/activation_kind.hpp>
#include <deft/kernels/gated_norm.hpp>
#include <deft/parallel.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <type_traits>

namespace deft {

enum class head_norm : unsigned char { rms, layer };

struct retention_gate_options {
    head_norm norm = head_norm::rms;
    activation gate = activation::silu; ///< silu, sigmoid or identity
    double eps = 1e-6;
};

inline namespace DEFT_ISA {
namespace detail {

template <class T>
void check_retention_gate(const char* op, const view<const T, 4>& o, const view<const T, 3>& gate,
                          const view<const T, 1>& weight, const retention_gate_options& options) {
    static_assert(std::is_floating_point_v<T>, "retention_gate takes float or double");
    check(o.extent(3) >= 1, op, "o", "its extent 3, dv, must be at least 1", double(o.extent(3)));
    check_extent(op, "gate", gate, 0, o.extent(0), "extent 0 of o");
    check_extent(op, "gate", gate, 1, o.extent(1), "extent 1 of o");
    check_extent(op, "gate", gate, 2, o.extent(2) * o.extent(3), "extents 2 and 3 of o");
    if (weight.is_given())
        check_extent(op, "weight", weight, 0, o.extent(3), "extent 3 of o");
    check(options.eps >= 0, op, "eps", "must not be negative", options.eps);
    check(options.gate == activation::silu || options.gate == activation::sigmoid ||
              options.gate == activation::identity,
          op, "gate activation", "must be silu, sigmoid or identity", double(options.gate));
}

/// f(b, t, h) for every head of every token.
template <class T, class Executor, class F>
void for_each_head(const view<const T, 4>& o, Executor& executor, F&& f) {
    const index tokens = o.extent(1), heads = o.extent(2), grain = 16384 / (heads * o.extent(3) + 1) + 1;
    executor.parallel_for(o.extent(0) * tokens, grain, [&](index begin, index end) {
        for (index i = begin; i < end; ++i)
            for (index h = 0; h < heads; ++h)
                f(i / tokens, i % tokens, h);
    });
}

/// f(base_activation) of a gate.
template <class F>
void with_gate(activation kind, F&& f) {
    if (kind == activation::silu)
        f(kernels::base_activation<activation::silu>{});
    else if (kind == activation::sigmoid)
        f(kernels::base_activation<activation::sigmoid>{});
    else
        f(kernels::base_activation<activation::identity>{});
}

} // namespace detail

/// y; formulas, shapes and types at the top of this file.
///
/// y may be gate, or o seen as `[B, T, H dv]`. Throws std::invalid_argument before anything is written if shapes do not
/// fit, dv is 0, eps is negative or the activation is none of silu, sigmoid and identity. No tokens are valid; zeros
/// give zeros for eps > 0 and NaN for eps = 0; equal values under layer give zeros exactly. NaN spoils its own head of
/// its own token. The same bits for every executor.
template <class T = void, class Y = view<T, 3>, executor Executor = serial_executor>
void retention_gate(in<element_t<T, Y>, 4> o, in<element_t<T, Y>, 3> gate, in<element_t<T, Y>, 1> weight, Y&& y_out,
                    const retention_gate_options& options = {}, Executor&& executor = Executor()) {
    using S = element_t<T, Y>;
    using arch = simd::default_arch;
    const view<S, 3> y(y_out);
    const char* const op = "retention_gate";
    detail::check_retention_gate<S>(op, o, gate, weight, options);
    detail::check_same_shape(op, "y", y, "gate", gate);
    const index n = o.extent(3);
    const S* const w = weight.is_given() ? weight.data() : nullptr;
    detail::with_gate(options.gate, [&](auto act) {
        detail::for_each_head<S>(o, executor, [&](index b, index t, index h) {
            const S* const row = &o(b, t, h, 0);
            const auto norm = kernels::measure_row<arch, S>(row, n, options.norm == head_norm::layer, options.eps);
            kernels::gate_row<arch, decltype(act), S>(row, norm, w, &gate(b, t, h * n), &y(b, t, h * n), n);
        });
    });
}

/// Gradients of retention_gate for the cotangent grad_y of y, with u = o (rms) or o - mean, r = 1 / sqrt(. + eps) and
/// e = grad_y act(gate) weight:
///
///     g = r (e - u r^2 mean(e u))      grad_o = g (rms) or g - mean(g)      grad_gate = grad_y n act'(gate)
///     grad_weight = sum over tokens and heads of grad_y act(gate) u r, in double
///
/// grad_weight is given exactly where weight is. Outputs may not overlap inputs. Throws like retention_gate. The same
/// bits for every executor.
template <class T = void, class GO = view<T, 4>, executor Executor = serial_executor>
void retention_gate_backward(in<element_t<T, GO>, 4> o, in<element_t<T, GO>, 3> gate, in<element_t<T, GO>, 1> weight,
                             in<element_t<T, GO>, 3> grad_y, GO&& grad_o_out, out<element_t<T, GO>, 3> grad_gate,
                             out<element_t<T, GO>, 1> grad_weight, const retention_gate_options& options = {},
                             Executor&& executor = Executor()) {
    using S = element_t<T, GO>;
    using arch = simd::default_arch;
    const view<S, 4> grad_o(grad_o_out);
    const char* const op = "retention_gate_backward";
    detail::check_retention_gate<S>(op, o, gate, weight, options);
    detail::check_same_shape(op, "grad_y", grad_y, "gate", gate);
    detail::check_same_shape(op, "grad_o", grad_o, "o", o);
    detail::check_same_shape(op, "grad_gate", grad_gate, "gate", gate);
    detail::check(grad_weight.is_given() == weight.is_given(), op, "grad_weight",
                  "must be given (1) exactly where its input is", grad_weight.is_given());
    if (weight.is_given())
        detail::check_extent(op, "grad_weight", grad_weight, 0, o.extent(3), "extent 3 of o");
    const index n = o.extent(3);
    const bool has_mean = options.norm == head_norm::layer;
    const auto norm_of = [&](const S* row) { return kernels::measure_row<arch, S>(row, n, has_mean, options.eps); };
    detail::with_gate(options.gate, [&](auto act) {
        using act_type = decltype(act);
        if (weight.is_given()) {
            // What is to be summed waits in grad_o, so that threads can share channels.
            detail::for_each_head<S>(o, executor, [&](index b, index t, index h) {
                const S* const row = &o(b, t, h, 0);
                kernels::gate_row_weights<arch, act_type, S>(row, norm_of(row), &gate(b, t, h * n),
                                                             &grad_y(b, t, h * n), &grad_o(b, t, h, 0), n);
            });
            constexpr index width = 64;
            executor.parallel_for((n + width - 1) / width, 1, [&](index begin, index end) {
                for (index c = begin * width; c < std::min(end * width, n); c += width) {
                    const index count = std::min(width, n - c);
                    double sums[std::size_t(width)] = {};
                    serial_executor serial;
                    detail::for_each_head<S>(o, serial, [&](index b, index t, index h) {
                        const S* const from = &grad_o(b, t, h, c);
                        for (index i = 0; i < count; ++i)
                            sums[i] += static_cast<double>(from[i]);
                    });
                    for (index i = 0; i < count; ++i)
                        grad_weight(c + i) = static_cast<S>(sums[i]);
                }
            });
        }
        detail::for_each_head<S>(o, executor, [&](index b, index t, index h) {
            const S* const row = &o(b, t, h, 0);
            kernels::gate_row_gradient<arch, act_type, S>(
                row, norm_of(row), has_mean, weight.is_given() ? weight.data() : nullptr, &gate(b, t, h * n),
                &grad_y(b, t, h * n), &grad_o(b, t, h, 0), &grad_gate(b, t, h * n), n);
        });
    });
}

} // namespace DEFT_ISA
} // namespace deft

#endif

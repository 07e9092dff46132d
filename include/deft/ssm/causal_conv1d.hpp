/// \file
/// The short depthwise causal convolution before Mamba's scan (arXiv:2312.00752, section 3.4 and figure 3), whole, by
/// chunks or token by token:
///
///     p_t = bias + sum_k weight[:, k] x_{t - W + 1 + k},   k = 0 .. W-1;   y_t = silu(p_t), or p_t
///
/// x, y: `[B, T, D]`; weight: `[D, W]`, weight[:, W-1] meets the current token; bias: `[D]` or absent. x_{-i} comes
/// from the state, `[B, W-1, D]`: the last W-1 inputs, oldest first. It is the caller's: zeros to start with, updated
/// by each call, a copy is a snapshot; absent, the inputs before the first token are zeros. However a sequence is cut
/// into calls, the results are the same bits. (Mamba's own step keeps W inputs, `[B, D, W]`: drop the oldest.)
///
/// 1 <= W <= 256. Elements are float, double, or half / bfloat16 in x, y and state with weight and bias in float
/// (forward only).
#ifndef DEFT_SSM_CAUSAL_CONV1D_HPP
#define DEFT_SSM_CAUSAL_CONV1D_HPP

#include <deft/activation_kind.hpp>
#include <deft/kernels/causal_conv_gradient.hpp>
#include <deft/parallel.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <type_traits>

namespace deft {

struct causal_conv1d_options {
    activation base = activation::silu; ///< silu or identity
};

inline namespace DEFT_ISA {
namespace detail {

template <class X, class T>
void check_conv(const char* op, const X& x, const view<const T, 2>& weight, const view<const T, 1>& bias,
                const causal_conv1d_options& options) {
    const index taps = weight.extent(1);
    check_extent(op, "weight", weight, 0, x.extent(2), "extent 2 of x");
    check(taps >= 1 && taps <= kernels::causal_conv_taps, op, "weight", "taps, its extent 1, must lie in [1, 256]",
          double(taps));
    if (bias.is_given())
        check_extent(op, "bias", bias, 0, x.extent(2), "extent 2 of x");
    check(options.base == activation::silu || options.base == activation::identity, op, "base",
          "must be silu or identity", double(options.base));
}

template <class X, class V>
void check_conv_state(const char* op, const char* name, const V& state, const X& x, index taps) {
    if (!state.is_given())
        return;
    check_extent(op, name, state, 0, x.extent(0), "extent 0 of x");
    check_extent(op, name, state, 1, taps - 1, "taps - 1");
    check_extent(op, name, state, 2, x.extent(2), "extent 2 of x");
}

} // namespace detail

/// y and the new state; formulas, shapes and types at the top of this file.
///
/// y may be x. Throws std::invalid_argument before anything is written if shapes do not fit, W is not in [1, 256] or
/// the activation is neither silu nor identity. No tokens leave the state as it is; W = 1 has no state. NaN in x spoils
/// the W results that see it. Error: that of a sum of W products, and of silu (3 ulp). The same bits for every
/// executor.
template <class T = void, class Y = view<T, 3>, executor Executor = serial_executor>
void causal_conv1d(in<element_t<T, Y>, 3> x, in<compute_t<element_t<T, Y>>, 2> weight,
                   in<compute_t<element_t<T, Y>>, 1> bias, Y&& y_out, out<element_t<T, Y>, 3> state,
                   const causal_conv1d_options& options = {}, Executor&& executor = Executor()) {
    using S = element_t<T, Y>;
    const view<S, 3> y(y_out);
    const char* const op = "causal_conv1d";
    detail::check_conv(op, x, weight, bias, options);
    detail::check_same_shape(op, "y", y, "x", x);
    const index taps = weight.extent(1), channels = x.extent(2);
    detail::check_conv_state(op, "state", state, x, taps);

    const index step = kernels::causal_conv_channels<compute_t<S>>(taps), blocks = (channels + step - 1) / step;
    const bool has_state = state.is_given() && taps > 1;
    executor.parallel_for(x.extent(0) * blocks, 1, [&](index begin, index end) {
        for (index task = begin; task < end; ++task) {
            const index b = task / blocks, c = task % blocks * step;
            kernels::causal_conv_forward<simd::default_arch, S>(
                {x.data() + b * x.stride(0) + c, x.stride(1), weight.data() + c * weight.stride(0), weight.stride(0),
                 bias.is_given() ? bias.data() + c : nullptr,
                 has_state ? state.data() + b * state.stride(0) + c : nullptr, state.stride(1),
                 y.data() + b * y.stride(0) + c, y.stride(1), x.extent(1), std::min(step, channels - c), taps,
                 options.base == activation::silu});
        }
    });
}

/// Gradients of causal_conv1d for the cotangents grad_y of y and grad_last of the state after the call (absent: zeros):
///
///     e_t = grad_y_t act'(p_t)              grad_x_{t - W + 1 + k} = sum_k weight[:, k] e_t
///     grad_weight[:, k] = sum e_t x_{t - W + 1 + k}         grad_bias = sum e_t
///
/// with sums over all tokens and sequences, in T over runs of about 128 tokens and then in double. grad_state is the
/// part of grad_x before the first token, to which grad_last adds as to the last rows of (state, x). x, weight, bias,
/// state: the inputs of the forward call, state as it was before it. grad_bias and grad_state may be absent. Outputs
/// may not overlap inputs. Throws like causal_conv1d. The same bits for every executor.
template <class T = void, class GX = view<T, 3>, executor Executor = serial_executor>
void causal_conv1d_backward(in<element_t<T, GX>, 3> x, in<element_t<T, GX>, 2> weight, in<element_t<T, GX>, 1> bias,
                            in<element_t<T, GX>, 3> state, in<element_t<T, GX>, 3> grad_y,
                            in<element_t<T, GX>, 3> grad_last, GX&& grad_x_out, out<element_t<T, GX>, 2> grad_weight,
                            out<element_t<T, GX>, 1> grad_bias, out<element_t<T, GX>, 3> grad_state,
                            const causal_conv1d_options& options = {}, Executor&& executor = Executor()) {
    using S = element_t<T, GX>;
    static_assert(std::is_floating_point_v<S>, "gradients are float or double");
    const view<S, 3> grad_x(grad_x_out);
    const char* const op = "causal_conv1d_backward";
    detail::check_conv(op, x, weight, bias, options);
    const index taps = weight.extent(1), channels = x.extent(2);
    detail::check_conv_state(op, "state", state, x, taps);
    detail::check_same_shape(op, "grad_y", grad_y, "x", x);
    detail::check_conv_state(op, "grad_last", grad_last, x, taps);
    detail::check_same_shape(op, "grad_x", grad_x, "x", x);
    detail::check_same_shape(op, "grad_weight", grad_weight, "weight", weight);
    if (grad_bias.is_given())
        detail::check_extent(op, "grad_bias", grad_bias, 0, channels, "extent 2 of x");
    detail::check_conv_state(op, "grad_state", grad_state, x, taps);

    const index step = kernels::causal_conv_channels<S>(taps);
    const auto at = [](const auto& v, index b, index c) {
        return v.is_given() ? v.data() + b * v.stride(0) + c : nullptr;
    };
    // A task owns its channels in all sequences, so that sums over them need no merging.
    executor.parallel_for((channels + step - 1) / step, 1, [&](index begin, index end) {
        for (index c = begin * step; c < std::min(end * step, channels); c += step) {
            const index count = std::min(step, channels - c);
            double sums[kernels::detail::conv_buffer<S> + std::size_t(kernels::causal_conv_channels<S>(1))] = {};
            for (index b = 0; b < x.extent(0); ++b)
                kernels::causal_conv_backward<simd::default_arch, S>(
                    {x.data() + b * x.stride(0) + c, x.stride(1), weight.data() + c * weight.stride(0),
                     weight.stride(0), bias.is_given() ? bias.data() + c : nullptr, at(state, b, c), state.stride(1),
                     grad_y.data() + b * grad_y.stride(0) + c, grad_y.stride(1), at(grad_last, b, c),
                     grad_last.stride(1), grad_x.data() + b * grad_x.stride(0) + c, grad_x.stride(1),
                     at(grad_state, b, c), grad_state.stride(1), x.extent(1), count, taps,
                     options.base == activation::silu},
                    sums);
            for (index i = 0; i < count; ++i) {
                for (index k = 0; k < taps; ++k)
                    grad_weight(c + i, k) = static_cast<S>(sums[k * step + i]);
                if (grad_bias.is_given())
                    grad_bias(c + i) = static_cast<S>(sums[taps * step + i]);
            }
        }
    });
}

} // namespace DEFT_ISA
} // namespace deft

#endif

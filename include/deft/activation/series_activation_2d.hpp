/// \file
/// Series activation over a neighbourhood: an activation, then per channel a K x K sum over neighbours, then a bias or
/// batch normalisation. VanillaNet (arXiv:2305.12972, eq. 6; huawei-noah/VanillaNet, models/vanillanet.py).
///
///     h[b,c,i,j] = sigma(x[b,c,i,j] + pre_bias[c])
///     z[b,c,i,j] = sum_{p,q} weight[c,p,q] h[b,c,i+p-n,j+q-n],   K = 2n + 1, h = 0 outside the map
///
///     deploy: y = z + bias
///
///     eval:   y = gamma (z - running_mean) / sqrt(running_var + eps) + beta
///
///     train:  as eval, with mean and biased variance of z over N, H, W; then, with momentum m and M = N H W,
///             running_mean <- (1 - m) running_mean + m mean
///             running_var <- (1 - m) running_var + m var M / (M - 1)
///
/// Padding comes after the activation: outside the map there is 0, not sigma(pre_bias). The paper has pre_bias and says
/// nothing of borders; the code has no pre_bias and pads like this.
///
/// x, y: [N, C, H, W] or [N, H, W, C] as options.layout says, with any strides; weight: [C, K, K], K odd; every vector
/// [C]; pre_bias and bias may be absent. Maps smaller than the kernel, down to 1 x 1, are valid, and N = 0 or C = 0 in
/// deploy and eval. [N, H, W, C] is the faster layout. From train over eval to deploy: fuse_conv_bn.
#ifndef DEFT_ACTIVATION_SERIES_ACTIVATION_2D_HPP
#define DEFT_ACTIVATION_SERIES_ACTIVATION_2D_HPP

#include <deft/activation/series_activation_2d_layer.hpp>
#include <deft/parallel.hpp>
#include <deft/view.hpp>

namespace deft {
inline namespace DEFT_ISA {

/// Deploy: y = z + bias. y must not overlap x: beginning where x does is an error. Throws std::invalid_argument before
/// anything is written if K is even, shapes do not fit or negative_slope is NaN.
template <class T = void, class Y = view<T, 4>, executor Executor = serial_executor>
void series_activation_2d(in<element_t<T, Y>, 4> x, in<element_t<T, Y>, 3> weight, in<element_t<T, Y>, 1> pre_bias,
                          in<element_t<T, Y>, 1> bias, Y&& y, const series_activation_2d_options& options,
                          Executor&& executor = Executor()) {
    using S = element_t<T, Y>;
    const char* const op = "series_activation_2d";
    const view<S, 4> to(y);
    const auto layer = detail::check_layer<S>(op, x, weight, pre_bias, options);
    detail::check_optional_channels(op, "bias", bias, layer.channels);
    detail::check_map_output<S>(op, "y", to, x, x, "x");
    detail::run_forward<S>(layer, detail::as_feature_map(x, options.layout),
                           {nullptr, bias.data(), nullptr, nullptr, options.eps},
                           detail::as_feature_map(to, options.layout), executor);
}

/// Eval: y = gamma (z - running_mean) / sqrt(running_var + eps) + beta. Throws like series_activation_2d, and if a
/// vector is missing, eps is negative or running_var has a negative value.
template <class T = void, class Y = view<T, 4>, executor Executor = serial_executor>
void series_activation_2d_eval(in<element_t<T, Y>, 4> x, in<element_t<T, Y>, 3> weight, in<element_t<T, Y>, 1> pre_bias,
                               in<element_t<T, Y>, 1> gamma, in<element_t<T, Y>, 1> beta,
                               in<element_t<T, Y>, 1> running_mean, in<element_t<T, Y>, 1> running_var, Y&& y,
                               const series_activation_2d_options& options, Executor&& executor = Executor()) {
    using S = element_t<T, Y>;
    const char* const op = "series_activation_2d_eval";
    const view<S, 4> to(y);
    const auto layer = detail::check_layer<S>(op, x, weight, pre_bias, options);
    detail::check_channels(op, "gamma", gamma, layer.channels);
    detail::check_channels(op, "beta", beta, layer.channels);
    detail::check_channels(op, "running_mean", running_mean, layer.channels);
    detail::check_running_var(op, running_var, layer.channels);
    detail::check_map_output<S>(op, "y", to, x, x, "x");
    detail::run_forward<S>(layer, detail::as_feature_map(x, options.layout),
                           {gamma.data(), beta.data(), running_mean.data(), running_var.data(), options.eps},
                           detail::as_feature_map(to, options.layout), executor);
}

/// Train: y is normalised with the statistics of the batch, and running_mean and running_var are updated. Throws like
/// series_activation_2d_eval, and if a channel has fewer than two values.
template <class T = void, class Y = view<T, 4>, executor Executor = serial_executor>
void series_activation_2d_train(in<element_t<T, Y>, 4> x, in<element_t<T, Y>, 3> weight,
                                in<element_t<T, Y>, 1> pre_bias, in<element_t<T, Y>, 1> gamma,
                                in<element_t<T, Y>, 1> beta, out<element_t<T, Y>, 1> running_mean,
                                out<element_t<T, Y>, 1> running_var, Y&& y, const series_activation_2d_options& options,
                                Executor&& executor = Executor()) {
    using S = element_t<T, Y>;
    const char* const op = "series_activation_2d_train";
    const view<S, 4> to(y);
    const auto layer = detail::check_layer<S>(op, x, weight, pre_bias, options);
    detail::check_channels(op, "gamma", gamma, layer.channels);
    detail::check_channels(op, "beta", beta, layer.channels);
    detail::check_channels(op, "running_mean", running_mean, layer.channels);
    detail::check_running_var(op, running_var, layer.channels);
    detail::check_map_output<S>(op, "y", to, x, x, "x");
    detail::check_batch(op, layer);
    const kernels::channel_normalisation<S> normalisation{gamma.data(), beta.data(), nullptr, nullptr, options.eps};
    const kernels::running_statistics<S> running{running_mean.data(), running_var.data(), options.momentum};
    const auto from = detail::as_feature_map(x, options.layout);
    const auto target = detail::as_feature_map(to, options.layout);
    detail::for_each_block<S>(layer.channels, executor, [&](index first, index count) {
        kernels::depthwise_activation_train<simd::default_arch>(layer, from, normalisation, running, target, first,
                                                                count);
    });
}

/// Gradients of the deploy mode for the cotangent grad_y of y; x, weight, pre_bias as in the forward call. Every
/// gradient but grad_x may be absent, and is left out then. grad_x serves as memory in between: it must not overlap x
/// or grad_y. Throws like series_activation_2d.
template <class T = void, class GX = view<T, 4>, executor Executor = serial_executor>
void series_activation_2d_backward(in<element_t<T, GX>, 4> x, in<element_t<T, GX>, 3> weight,
                                   in<element_t<T, GX>, 1> pre_bias, in<element_t<T, GX>, 4> grad_y, GX&& grad_x,
                                   out<element_t<T, GX>, 3> grad_weight, out<element_t<T, GX>, 1> grad_pre_bias,
                                   out<element_t<T, GX>, 1> grad_bias, const series_activation_2d_options& options,
                                   Executor&& executor = Executor()) {
    using S = element_t<T, GX>;
    const char* const op = "series_activation_2d_backward";
    const auto layer = detail::check_layer<S>(op, x, weight, pre_bias, options);
    detail::check_optional_channels(op, "grad_bias", grad_bias, layer.channels);
    detail::run_backward<S>(op, layer, x, {nullptr, nullptr, nullptr, nullptr, options.eps}, grad_y, view<S, 4>(grad_x),
                            weight, grad_weight, grad_pre_bias, absent, grad_bias, options.layout, executor);
}

/// Gradients of the eval mode; the running statistics are constants. Throws like series_activation_2d_eval.
template <class T = void, class GX = view<T, 4>, executor Executor = serial_executor>
void series_activation_2d_eval_backward(in<element_t<T, GX>, 4> x, in<element_t<T, GX>, 3> weight,
                                        in<element_t<T, GX>, 1> pre_bias, in<element_t<T, GX>, 1> gamma,
                                        in<element_t<T, GX>, 1> running_mean, in<element_t<T, GX>, 1> running_var,
                                        in<element_t<T, GX>, 4> grad_y, GX&& grad_x,
                                        out<element_t<T, GX>, 3> grad_weight, out<element_t<T, GX>, 1> grad_pre_bias,
                                        out<element_t<T, GX>, 1> grad_gamma, out<element_t<T, GX>, 1> grad_beta,
                                        const series_activation_2d_options& options, Executor&& executor = Executor()) {
    using S = element_t<T, GX>;
    const char* const op = "series_activation_2d_eval_backward";
    const auto layer = detail::check_layer<S>(op, x, weight, pre_bias, options);
    detail::check_channels(op, "gamma", gamma, layer.channels);
    detail::check_channels(op, "running_mean", running_mean, layer.channels);
    detail::check_running_var(op, running_var, layer.channels);
    detail::check_optional_channels(op, "grad_gamma", grad_gamma, layer.channels);
    detail::check_optional_channels(op, "grad_beta", grad_beta, layer.channels);
    detail::run_backward<S>(op, layer, x, {gamma.data(), nullptr, running_mean.data(), running_var.data(), options.eps},
                            grad_y, view<S, 4>(grad_x), weight, grad_weight, grad_pre_bias, grad_gamma, grad_beta,
                            options.layout, executor);
}

/// Gradients of the train mode; the statistics of the batch are computed anew, and x and weight act on y through them
/// too. Throws like series_activation_2d_train.
template <class T = void, class GX = view<T, 4>, executor Executor = serial_executor>
void series_activation_2d_train_backward(in<element_t<T, GX>, 4> x, in<element_t<T, GX>, 3> weight,
                                         in<element_t<T, GX>, 1> pre_bias, in<element_t<T, GX>, 1> gamma,
                                         in<element_t<T, GX>, 4> grad_y, GX&& grad_x,
                                         out<element_t<T, GX>, 3> grad_weight, out<element_t<T, GX>, 1> grad_pre_bias,
                                         out<element_t<T, GX>, 1> grad_gamma, out<element_t<T, GX>, 1> grad_beta,
                                         const series_activation_2d_options& options,
                                         Executor&& executor = Executor()) {
    using S = element_t<T, GX>;
    const char* const op = "series_activation_2d_train_backward";
    const auto layer = detail::check_layer<S>(op, x, weight, pre_bias, options);
    detail::check_channels(op, "gamma", gamma, layer.channels);
    detail::check_batch(op, layer);
    detail::check_optional_channels(op, "grad_gamma", grad_gamma, layer.channels);
    detail::check_optional_channels(op, "grad_beta", grad_beta, layer.channels);
    detail::run_backward<S>(op, layer, x, {gamma.data(), nullptr, nullptr, nullptr, options.eps}, grad_y,
                            view<S, 4>(grad_x), weight, grad_weight, grad_pre_bias, grad_gamma, grad_beta,
                            options.layout, executor);
}

} // namespace DEFT_ISA
} // namespace deft

#endif

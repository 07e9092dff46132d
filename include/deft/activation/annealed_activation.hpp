/// \file
/// Annealed activation: an activation on its way to the identity, and the schedule of the way.
///
/// VanillaNet's deep training (arXiv:2305.12972, eq. 1; huawei-noah/VanillaNet, models/vanillanet.py `act_learn` and
/// main.py): two 1x1 convolutions are trained with an activation between them that becomes the identity over E epochs;
/// then merge_pointwise_convs makes one of them.
///
///     y = (1 - lambda) sigma(x) + lambda x,   0 <= lambda <= 1
///
/// x, y: any shape. For relu this is leaky_relu with slope lambda.
#ifndef DEFT_ACTIVATION_ANNEALED_ACTIVATION_HPP
#define DEFT_ACTIVATION_ANNEALED_ACTIVATION_HPP

#include <deft/activation_kind.hpp>
#include <deft/kernels/annealed.hpp>
#include <deft/parallel.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace deft {

struct annealed_activation_options {
    activation base = activation::relu;
    /// Share of the identity: 0 is the activation alone, 1 an exact copy of x.
    required<double> lambda;
    /// Slope of leaky_relu for negative arguments.
    double negative_slope = 0.01;
};

enum class annealing_schedule : unsigned char { linear, cosine };

inline namespace DEFT_ISA {

/// Share of the identity at an epoch, t = min(epoch / decay_epochs, 1): linear t, cosine (1 - cos(pi t)) / 2.
/// Throws std::invalid_argument for a negative or NaN epoch and for decay_epochs that are not positive.
/// The released code keeps its last value beyond decay_epochs; here lambda is 1 from there on.
inline double annealing_lambda(double epoch, double decay_epochs = 100,
                               annealing_schedule schedule = annealing_schedule::linear) {
    detail::check(epoch >= 0, "annealing_lambda", "epoch", "must not be negative", epoch);
    detail::check(decay_epochs > 0, "annealing_lambda", "decay_epochs", "must be positive", decay_epochs);
    const double t = std::min(epoch / decay_epochs, 1.0);
    return schedule == annealing_schedule::linear ? t : 0.5 * (1 - std::cos(std::numbers::pi * t));
}

namespace detail {

inline void check_annealing(const char* op, const annealed_activation_options& options) {
    check(options.lambda >= 0 && options.lambda <= 1, op, "lambda", "must lie in [0, 1]", options.lambda);
    check_base(op, options.base);
    check(!std::isnan(options.negative_slope), op, "negative_slope", "it must be a number", options.negative_slope);
}

} // namespace detail

/// y = (1 - lambda) sigma(x) + lambda x. y may be x. At lambda = 1 y is a copy of x, bit by bit, NaN and infinities
/// included; at lambda = 0 it is sigma(x). Throws std::invalid_argument before anything is written if the shapes
/// differ, lambda lies outside [0, 1] or a number is NaN. Error as series_activation's.
template <class T = void, class Y = rows<T>, executor Executor = serial_executor>
void annealed_activation(in_rows<element_t<T, Y>> x, Y&& y_out, const annealed_activation_options& options,
                         Executor&& executor = Executor()) {
    using S = element_t<T, Y>;
    const rows<S> y(y_out);
    detail::check_same_shape("annealed_activation", "y", y, "x", x);
    detail::check_annealing("annealed_activation", options);
    const auto lambda = static_cast<S>(options.lambda), slope = static_cast<S>(options.negative_slope);
    kernels::dispatch_activation(options.base, [&](auto base) {
        detail::for_each_piece(x.extent(0), x.extent(1), x.is_contiguous() && y.is_contiguous(), executor,
                               [&](index r, index c, index count) {
                                   kernels::annealed_forward<simd::default_arch, decltype(base)>(
                                       x.data() + r * x.stride(0) + c, y.data() + r * y.stride(0) + c, count, lambda,
                                       slope);
                               });
    });
}

/// grad_x = grad_y ((1 - lambda) sigma'(x) + lambda) for the cotangent grad_y of y. x is the input of the forward call;
/// grad_x may be grad_y. Throws like annealed_activation.
template <class T = void, class GX = rows<T>, executor Executor = serial_executor>
void annealed_activation_backward(in_rows<element_t<T, GX>> x, in_rows<element_t<T, GX>> grad_y, GX&& grad_x_out,
                                  const annealed_activation_options& options, Executor&& executor = Executor()) {
    using S = element_t<T, GX>;
    const rows<S> grad_x(grad_x_out);
    const char* const op = "annealed_activation_backward";
    detail::check_same_shape(op, "grad_y", grad_y, "x", x);
    detail::check_same_shape(op, "grad_x", grad_x, "x", x);
    detail::check_annealing(op, options);
    const auto lambda = static_cast<S>(options.lambda), slope = static_cast<S>(options.negative_slope);
    kernels::dispatch_activation(options.base, [&](auto base) {
        detail::for_each_piece(x.extent(0), x.extent(1),
                               x.is_contiguous() && grad_y.is_contiguous() && grad_x.is_contiguous(), executor,
                               [&](index r, index c, index count) {
                                   kernels::annealed_backward<simd::default_arch, decltype(base)>(
                                       x.data() + r * x.stride(0) + c, grad_y.data() + r * grad_y.stride(0) + c,
                                       grad_x.data() + r * grad_x.stride(0) + c, count, lambda, slope);
                               });
    });
}

} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Augmented shortcut: learnable nonlinear paths beside the identity shortcut of a transformer block, so that its
/// tokens do not drift to one vector. Dense form; arXiv:2106.15941 (vision, eq. 5) and PanGu-pi, arXiv:2312.17276,
/// section 4.1 (AugMSA). The output of attention (or of the MLP) is an input, `main`:
///
///     u_i = z theta_i + bias_i,    y = scale (main + R + sum_i sigma(u_i)),    R = z | residual | 0
///
/// z, main, residual, y: `[..., d]`, rows (tokens) any distance apart; theta: `[T, d, d]`, each [in, out], or
/// [out, in] where options.weights says so; bias: `[T, d]` or absent; residual only where options.residual is separate.
/// T >= 0. The paper's formula is the default; the released vision code is {.residual = separate, .scale = 0.75} with
/// biases. Elements are float or double.
///
/// Cost: 2 rows d^2 T flops. Every product is left tile by tile in cache, activated there and added into y, so that the
/// u_i never reach memory.
#ifndef DEFT_SHORTCUT_AUGMENTED_SHORTCUT_HPP
#define DEFT_SHORTCUT_AUGMENTED_SHORTCUT_HPP

#include <deft/shortcut/augmented_shortcut_paths.hpp>

namespace deft {

struct augmented_shortcut_options {
    activation base = activation::gelu_erf; ///< sigma; identity: none, as the released code with one path
    shortcut_residual residual = shortcut_residual::z;
    double scale = 1;
    weight_layout weights = weight_layout::in_out; ///< of theta and its gradient
    double negative_slope = 0.01;                  ///< of leaky_relu for negative arguments
};

inline namespace DEFT_ISA {
namespace detail {

template <class T>
void check_augmented_shortcut(const char* op, const rows<const T>& z, const rows<const T>& main,
                              const view<const T, 3>& theta, const view<const T, 2>& bias,
                              const augmented_shortcut_options& options) {
    static_assert(std::is_floating_point_v<T>, "augmented_shortcut takes float or double");
    const index paths = theta.extent(0), d = z.extent(1);
    check_same_shape(op, "main", main, "z", z);
    check_weights(op, "theta", theta, paths, d, "extent 1 of z", d, "extent 1 of z", options.weights);
    check_bias(op, "bias", bias, paths, d, "extent 1 of z");
    check_shortcut(op, options);
}

} // namespace detail

/// y = scale (main + R + sum_i sigma(z theta_i + bias_i)); formulas, shapes and types at the top of this file.
///
/// y may be main or residual; it must not overlap z, theta or bias. Throws std::invalid_argument before anything is
/// written if shapes do not fit, residual is given but not asked for or the reverse, scale is not finite or the slope
/// is NaN. No rows and no paths are valid. NaN in a row of z makes that row NaN and no other. The same bits for every
/// executor. Error: that of a sum of d products plus that of the activation (series_activation).
template <class T = void, class Y = rows<T>, executor Executor = serial_executor>
void augmented_shortcut(in_rows<element_t<T, Y>> z, in_rows<element_t<T, Y>> main, in<element_t<T, Y>, 3> theta,
                        in<element_t<T, Y>, 2> bias, in_rows<element_t<T, Y>> residual, Y&& y_out,
                        const augmented_shortcut_options& options = {}, Executor&& executor = Executor()) {
    using S = element_t<T, Y>;
    using arch = simd::default_arch;
    using shape = detail::shortcut_tile<S>;
    const rows<S> y(y_out);
    const char* const op = "augmented_shortcut";
    detail::check_augmented_shortcut<S>(op, z, main, theta, bias, options);
    detail::check_residual(op, "residual", residual, z, options.residual);
    detail::check_same_shape(op, "y", y, "z", z);

    const index paths = theta.extent(0), d = z.extent(1);
    const detail::shortcut_sum<S> sum(options, {options.base, static_cast<S>(options.negative_slope)}, z, main,
                                      residual, y);
    const index stride = shape::columns_for(z.extent(0));
    detail::for_each_tile<S>(z.extent(0), d, stride, executor, [&](index r, index c, kernels::block_size size) {
        if (paths == 0)
            return sum.add_none(r, c, size);
        alignas(64) S u[std::size_t(shape::tile_size)];
        for (index i = 0; i < paths; ++i) {
            kernels::tile_product<arch, S>(detail::as_factor(z).at(r, 0),
                                           detail::path_weights(theta, i, options.weights).at(0, c), size.rows,
                                           size.columns, d, false, u, stride);
            sum.add({u, stride}, detail::path_bias(bias, i), r, c, size, i == 0, i + 1 == paths);
        }
    });
}

/// Gradients of augmented_shortcut for the cotangent grad_y of y, with e_i = scale grad_y sigma'(u_i):
///
///     grad_main = grad_residual = scale grad_y      grad_theta_i = z^T e_i      grad_bias_i = sum over rows of e_i
///     grad_z = sum_i e_i theta_i^T  (+ scale grad_y if R = z)
///
/// z, theta, bias: inputs of the forward call; main is not needed. grad_bias and grad_residual are absent where bias
/// and the residual are; grad_theta lies as theta does. The u_i are computed again: three products per path. No output
/// may overlap an input or another output: grad_main holds the e_i on the way. For no rows grad_theta and grad_bias are
/// 0. Throws like augmented_shortcut. The same bits for every executor.
template <class T = void, class GZ = rows<T>, executor Executor = serial_executor>
void augmented_shortcut_backward(in_rows<element_t<T, GZ>> z, in<element_t<T, GZ>, 3> theta,
                                 in<element_t<T, GZ>, 2> bias, in_rows<element_t<T, GZ>> grad_y, GZ&& grad_z_out,
                                 out_rows<element_t<T, GZ>> grad_main, out<element_t<T, GZ>, 3> grad_theta,
                                 out<element_t<T, GZ>, 2> grad_bias, out_rows<element_t<T, GZ>> grad_residual,
                                 const augmented_shortcut_options& options = {}, Executor&& executor = Executor()) {
    using S = element_t<T, GZ>;
    using arch = simd::default_arch;
    using shape = detail::shortcut_tile<S>;
    const rows<S> grad_z(grad_z_out);
    const char* const op = "augmented_shortcut_backward";
    detail::check_same_shape(op, "grad_y", grad_y, "z", z);
    detail::check_augmented_shortcut<S>(op, z, grad_y, theta, bias, options);
    detail::check_same_shape(op, "grad_z", grad_z, "z", z);
    detail::check_same_shape(op, "grad_main", grad_main, "z", z);
    detail::check_same_shape(op, "grad_theta", grad_theta, "theta", theta);
    detail::check_gradient_of(op, "grad_bias", grad_bias, bias, "bias");
    detail::check_residual(op, "grad_residual", grad_residual, z, options.residual);

    const index row_count = z.extent(0), d = z.extent(1);
    const S scale = static_cast<S>(options.scale);
    const kernels::activation_choice<S> sigma{options.base, static_cast<S>(options.negative_slope)};
    const view<S, 2>& e = grad_main;
    const index stride = shape::columns_for(row_count);
    detail::start_gradient<S>(grad_y, options.residual, scale, grad_z, executor);
    for (index i = 0; i < theta.extent(0); ++i) {
        const auto weights = detail::path_weights(theta, i, options.weights);
        const S* const b = detail::path_bias(bias, i);
        detail::for_each_tile<S>(row_count, d, stride, executor, [&](index r, index c, kernels::block_size size) {
            alignas(64) S u[std::size_t(shape::tile_size)];
            kernels::tile_product<arch, S>(detail::as_factor(z).at(r, 0), weights.at(0, c), size.rows, size.columns, d,
                                           false, u, stride);
            kernels::times_derivative<arch, S>(sigma, {u, stride}, b == nullptr ? b : b + c,
                                               detail::block_at(grad_y, r, c), scale, detail::block_at(e, r, c), size);
        });
        detail::multiply<S>(detail::as_factor(e), weights.transposed(), d, true, grad_z, executor);
        detail::multiply_weights<S>(detail::as_factor(z), detail::as_factor(e), row_count, false, grad_theta, i,
                                    options.weights, executor);
        if (bias.is_given())
            detail::sum_rows<S>(e, grad_bias.data() + i * grad_bias.stride(0), executor);
    }
    detail::scale_rows<S>(grad_y, scale, grad_main, executor);
    if (grad_residual.is_given())
        detail::scale_rows<S>(grad_y, scale, grad_residual, executor);
}

} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Augmented shortcut with narrow paths: each reduces d channels to k, applies an activation and expands back. PanGu-pi
/// (arXiv:2312.17276, section 4.1), which found k = d / 32 the best trade. Beside `main`, the output of attention:
///
///     u_i = z down_i + down_bias_i,    h_i = sigma(u_i),    v_i = h_i up_i + up_bias_i
///     y = scale (main + R + sum_i post(v_i)),    R = z | residual | 0
///
/// z, main, residual, y: `[..., d]`, rows (tokens) any distance apart; down: `[T, d, k]` and up: `[T, k, d]`, each
/// [in, out], or both [out, in] where options.weights says so; down_bias: `[T, k]`, up_bias: `[T, d]`, each or absent;
/// residual only where options.residual is separate. T >= 0; k >= 1, also above d. The paper does not say whether an
/// activation follows the second layer: options.post, none by default. Elements are float or double.
///
/// Cost: 4 rows d k T flops. Rows are taken by blocks whose h stays in the first caches.
#ifndef DEFT_SHORTCUT_AUGMENTED_SHORTCUT_BOTTLENECK_HPP
#define DEFT_SHORTCUT_AUGMENTED_SHORTCUT_BOTTLENECK_HPP

#include <deft/shortcut/augmented_shortcut_bottleneck_paths.hpp>

namespace deft {

struct augmented_shortcut_bottleneck_options {
    activation base = activation::gelu_erf; ///< sigma
    activation post = activation::identity; ///< after the expansion
    shortcut_residual residual = shortcut_residual::z;
    double scale = 1;
    weight_layout weights = weight_layout::in_out; ///< of down, up and their gradients
    double negative_slope = 0.01;                  ///< of leaky_relu for negative arguments
};

inline namespace DEFT_ISA {
namespace detail {

template <class T>
bottleneck_paths<T> checked_bottleneck(const char* op, const rows<const T>& z, const view<const T, 3>& down,
                                       const view<const T, 3>& up, const view<const T, 2>& down_bias,
                                       const view<const T, 2>& up_bias,
                                       const augmented_shortcut_bottleneck_options& options) {
    static_assert(std::is_floating_point_v<T>, "augmented_shortcut_bottleneck takes float or double");
    const index paths = down.extent(0), d = z.extent(1);
    const index hidden = down.extent(options.weights == weight_layout::in_out ? 2 : 1);
    check_weights(op, "down", down, paths, d, "extent 1 of z", hidden, "k", options.weights);
    check(hidden >= 1 || paths == 0, op, "down", "k, the number of hidden units, must be at least 1", double(hidden));
    check_weights(op, "up", up, paths, hidden, "k of down", d, "extent 1 of z", options.weights);
    check_bias(op, "down_bias", down_bias, paths, hidden, "k of down");
    check_bias(op, "up_bias", up_bias, paths, d, "extent 1 of z");
    check_shortcut(op, options);
    const T slope = static_cast<T>(options.negative_slope);
    return {z, down, up, down_bias, up_bias, hidden, options.weights, {options.base, slope}, {options.post, slope}};
}

} // namespace detail

/// y = scale (main + R + sum_i post(sigma(z down_i + down_bias_i) up_i + up_bias_i)); formulas, shapes and types at the
/// top of this file.
///
/// y may be main or residual; it must not overlap another input. Throws std::invalid_argument before anything is
/// written if shapes do not fit, there are paths without hidden units, residual is given but not asked for or the
/// reverse, scale is not finite or the slope is NaN. No rows and no paths are valid. NaN in a row of z makes that row
/// NaN and no other. The same bits for every executor. Error: those of sums of d and of k products and of the
/// activations (series_activation).
template <class T = void, class Y = rows<T>, executor Executor = serial_executor>
void augmented_shortcut_bottleneck(in_rows<element_t<T, Y>> z, in_rows<element_t<T, Y>> main,
                                   in<element_t<T, Y>, 3> down, in<element_t<T, Y>, 3> up,
                                   in<element_t<T, Y>, 2> down_bias, in<element_t<T, Y>, 2> up_bias,
                                   in_rows<element_t<T, Y>> residual, Y&& y_out,
                                   const augmented_shortcut_bottleneck_options& options = {},
                                   Executor&& executor = Executor()) {
    using S = element_t<T, Y>;
    const rows<S> y(y_out);
    const char* const op = "augmented_shortcut_bottleneck";
    detail::check_same_shape(op, "main", main, "z", z);
    const auto all = detail::checked_bottleneck<S>(op, z, down, up, down_bias, up_bias, options);
    detail::check_residual(op, "residual", residual, z, options.residual);
    detail::check_same_shape(op, "y", y, "z", z);

    const index paths = down.extent(0), d = z.extent(1);
    const detail::shortcut_sum<S> sum(options, all.post, z, main, residual, y);
    if (paths == 0)
        return detail::for_each_tile<S>(z.extent(0), d, detail::shortcut_tile<S>::tile_columns, executor,
                                        [&](index r, index c, kernels::block_size size) { sum.add_none(r, c, size); });
    detail::for_each_row_block<S>(z.extent(0), all.block_rows(), executor, [&](index r, index count) {
        for (index i = 0; i < paths; ++i)
            all.add(i, r, count, sum, i == 0, i + 1 == paths);
    });
}

/// Gradients of augmented_shortcut_bottleneck for the cotangent grad_y of y:
///
///     p_i = scale grad_y post'(v_i)              q_i = (p_i up_i^T) sigma'(u_i)
///     grad_up_i = h_i^T p_i                      grad_up_bias_i = sum over rows of p_i
///     grad_down_i = z^T q_i                      grad_down_bias_i = sum over rows of q_i
///     grad_z = sum_i q_i down_i^T  (+ scale grad_y if R = z)
///     grad_main = grad_residual = scale grad_y
///
/// z, down, up and the biases: inputs of the forward call; main is not needed. Gradients of what is absent are absent;
/// grad_down and grad_up lie as down and up do. u_i and h_i are computed again. No output may overlap an input or
/// another output: grad_main holds the p_i on the way. For no rows the gradients of weights and biases are 0. Throws
/// like augmented_shortcut_bottleneck. The same bits for every executor.
template <class T = void, class GZ = rows<T>, executor Executor = serial_executor>
void augmented_shortcut_bottleneck_backward(
    in_rows<element_t<T, GZ>> z, in<element_t<T, GZ>, 3> down, in<element_t<T, GZ>, 3> up,
    in<element_t<T, GZ>, 2> down_bias, in<element_t<T, GZ>, 2> up_bias, in_rows<element_t<T, GZ>> grad_y,
    GZ&& grad_z_out, out_rows<element_t<T, GZ>> grad_main, out<element_t<T, GZ>, 3> grad_down,
    out<element_t<T, GZ>, 3> grad_up, out<element_t<T, GZ>, 2> grad_down_bias, out<element_t<T, GZ>, 2> grad_up_bias,
    out_rows<element_t<T, GZ>> grad_residual, const augmented_shortcut_bottleneck_options& options = {},
    Executor&& executor = Executor()) {
    using S = element_t<T, GZ>;
    const rows<S> grad_z(grad_z_out);
    const char* const op = "augmented_shortcut_bottleneck_backward";
    detail::check_same_shape(op, "grad_y", grad_y, "z", z);
    const auto all = detail::checked_bottleneck<S>(op, z, down, up, down_bias, up_bias, options);
    detail::check_same_shape(op, "grad_z", grad_z, "z", z);
    detail::check_same_shape(op, "grad_main", grad_main, "z", z);
    detail::check_same_shape(op, "grad_down", grad_down, "down", down);
    detail::check_same_shape(op, "grad_up", grad_up, "up", up);
    detail::check_gradient_of(op, "grad_down_bias", grad_down_bias, down_bias, "down_bias");
    detail::check_gradient_of(op, "grad_up_bias", grad_up_bias, up_bias, "up_bias");
    detail::check_residual(op, "grad_residual", grad_residual, z, options.residual);

    const S scale = static_cast<S>(options.scale);
    detail::start_gradient<S>(grad_y, options.residual, scale, grad_z, executor);
    detail::scale_rows<S>(grad_y, scale, grad_main, executor); // p, if there is no post
    for (index i = 0; i < down.extent(0); ++i) {
        if (all.has_post())
            detail::bottleneck_cotangent<S>(all, i, grad_y, scale, grad_main, executor);
        detail::bottleneck_grad_z<S>(all, i, grad_main, grad_z, executor);
        detail::bottleneck_grad_weights<S>(all, i, grad_main, grad_down, grad_up, grad_down_bias, executor);
        if (up_bias.is_given())
            detail::sum_rows<S>(grad_main, grad_up_bias.data() + i * grad_up_bias.stride(0), executor);
    }
    if (all.has_post())
        detail::scale_rows<S>(grad_y, scale, grad_main, executor);
    if (grad_residual.is_given())
        detail::scale_rows<S>(grad_y, scale, grad_residual, executor);
}

} // namespace DEFT_ISA
} // namespace deft

#endif

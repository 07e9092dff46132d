/// \file
/// Augmented shortcut with block-circulant projections: the cheap form of Aug-ViT (arXiv:2106.15941; huawei-noah's
/// augvit.py, modes `circulant` and `circulant2`). The sum is that of augmented_shortcut, the weights those of
/// block_circulant_linear:
///
///     u_i = z W_i^T + bias_i,    y = scale (main + R + sum_i sigma(u_i)),    R = z | residual | 0
///
/// z, main, residual, y: `[..., d]`; c: `[T, p, p, m]` with d = p m, generators of W_i; bias: `[T, d]` or absent;
/// residual only where options.residual is separate. T >= 0. The paper's formula is the default; the released models
/// are {.residual = separate, .scale = 0.75} with T = 2 and biases, mode `circulant` {.base = identity, .residual =
/// separate} with T = 1. Elements are float or double. For long blocks prepared_augmented_shortcut_circulant.hpp,
/// through Fourier transforms, is several times faster.
#ifndef DEFT_SHORTCUT_AUGMENTED_SHORTCUT_CIRCULANT_HPP
#define DEFT_SHORTCUT_AUGMENTED_SHORTCUT_CIRCULANT_HPP

#include <deft/shortcut/augmented_shortcut_paths.hpp>
#include <deft/shortcut/block_circulant_linear.hpp>

namespace deft {

struct augmented_shortcut_circulant_options {
    activation base = activation::gelu_erf; ///< sigma; identity: none
    shortcut_residual residual = shortcut_residual::z;
    double scale = 1;
    double negative_slope = 0.01; ///< of leaky_relu for negative arguments
};

inline namespace DEFT_ISA {
namespace detail {

/// The generators of one path.
template <class T>
view<T, 3> path_generators(const view<T, 4>& c, index path) noexcept {
    return {c.data() == nullptr ? nullptr : c.data() + path * c.stride(0),
            {c.extent(1), c.extent(2), c.extent(3)},
            {c.stride(1), c.stride(2), index{1}}};
}

template <class T>
void check_circulant_paths(const char* op, const rows<const T>& z, const view<const T, 4>& c,
                           const view<const T, 2>& bias, const augmented_shortcut_circulant_options& options) {
    check_extent(op, "c", c, 2, c.extent(1), "blocks of c along axis 1: W is square");
    if (c.extent(0) > 0) { // without paths nothing is said of blocks
        const view<const T, 3> first = path_generators(c, 0);
        check_generators(op, first);
        check_channels_of(op, "z", z, 1, first, 1);
    }
    check_bias(op, "bias", bias, c.extent(0), z.extent(1), "extent 1 of z");
    check_shortcut(op, options);
}

} // namespace detail

/// y = scale (main + R + sum_i sigma(z W_i^T + bias_i)); formulas, shapes and types at the top of this file.
///
/// y may be main or residual; it must not overlap z, c or bias. Throws std::invalid_argument before anything is written
/// if shapes do not fit, residual is given but not asked for or the reverse, scale is not finite or the slope is NaN.
/// No rows and no paths are valid. NaN in a row of z makes that row NaN and no other. The same bits for every executor.
template <class T = void, class Y = rows<T>, executor Executor = serial_executor>
void augmented_shortcut_circulant(in_rows<element_t<T, Y>> z, in_rows<element_t<T, Y>> main, in<element_t<T, Y>, 4> c,
                                  in<element_t<T, Y>, 2> bias, in_rows<element_t<T, Y>> residual, Y&& y_out,
                                  const augmented_shortcut_circulant_options& options = {},
                                  Executor&& executor = Executor()) {
    using S = element_t<T, Y>;
    using arch = simd::default_arch;
    using shape = detail::shortcut_tile<S>;
    const rows<S> y(y_out);
    const char* const op = "augmented_shortcut_circulant";
    detail::check_circulant_paths<S>(op, z, c, bias, options);
    detail::check_same_shape(op, "main", main, "z", z);
    detail::check_residual(op, "residual", residual, z, options.residual);
    detail::check_same_shape(op, "y", y, "z", z);

    const index paths = c.extent(0), d = z.extent(1);
    const detail::shortcut_sum<S> sum(options, {options.base, static_cast<S>(options.negative_slope)}, z, main,
                                      residual, y);
    detail::for_each_tile<S>(
        z.extent(0), d, shape::tile_columns, executor, [&](index r, index column, kernels::block_size size) {
            if (paths == 0)
                return sum.add_none(r, column, size);
            alignas(64) S u[std::size_t(shape::tile_size)];
            for (index i = 0; i < paths; ++i) {
                const auto w = detail::circulant_factor<S>(detail::path_generators(c, i), false);
                kernels::circulant_tile<arch, S>(detail::as_factor(z).at(r, 0), w, column, size.rows, size.columns, d,
                                                 u, shape::tile_columns);
                sum.add({u, shape::tile_columns}, detail::path_bias(bias, i), r, column, size, i == 0, i + 1 == paths);
            }
        });
}

/// Gradients of augmented_shortcut_circulant for the cotangent grad_y of y, with e_i = scale grad_y sigma'(u_i):
///
///     grad_main = grad_residual = scale grad_y      grad_c_i, grad_bias_i: those of block_circulant_linear for e_i
///     grad_z = sum_i e_i W_i  (+ scale grad_y if R = z)
///
/// z, c, bias: inputs of the forward call; main is not needed. grad_bias and grad_residual are absent where bias and
/// the residual are. The u_i are computed again. No output may overlap an input or another output: grad_main holds the
/// e_i on the way. Throws like augmented_shortcut_circulant. The same bits for every executor.
template <class T = void, class GZ = rows<T>, executor Executor = serial_executor>
void augmented_shortcut_circulant_backward(in_rows<element_t<T, GZ>> z, in<element_t<T, GZ>, 4> c,
                                           in<element_t<T, GZ>, 2> bias, in_rows<element_t<T, GZ>> grad_y,
                                           GZ&& grad_z_out, out_rows<element_t<T, GZ>> grad_main,
                                           out<element_t<T, GZ>, 4> grad_c, out<element_t<T, GZ>, 2> grad_bias,
                                           out_rows<element_t<T, GZ>> grad_residual,
                                           const augmented_shortcut_circulant_options& options = {},
                                           Executor&& executor = Executor()) {
    using S = element_t<T, GZ>;
    const rows<S> grad_z(grad_z_out);
    const char* const op = "augmented_shortcut_circulant_backward";
    detail::check_circulant_paths<S>(op, z, c, bias, options);
    detail::check_same_shape(op, "grad_y", grad_y, "z", z);
    detail::check_same_shape(op, "grad_z", grad_z, "z", z);
    detail::check_same_shape(op, "grad_main", grad_main, "z", z);
    detail::check_same_shape(op, "grad_c", grad_c, "c", c);
    detail::check_gradient_of(op, "grad_bias", grad_bias, bias, "bias");
    detail::check_residual(op, "grad_residual", grad_residual, z, options.residual);

    const S scale = static_cast<S>(options.scale);
    const kernels::activation_choice<S> sigma{options.base, static_cast<S>(options.negative_slope)};
    const view<S, 2>& e = grad_main;
    detail::start_gradient<S>(grad_y, options.residual, scale, grad_z, executor);
    for (index i = 0; i < c.extent(0); ++i) {
        const view<const S, 3> generators = detail::path_generators(c, i);
        const S* const b = detail::path_bias(bias, i);
        detail::for_each_circulant_tile<S>(
            z, detail::circulant_factor<S>(generators, false), e.extent(1), executor,
            [&](kernels::row_block<const S> u, index r, index column, kernels::block_size size) {
                kernels::times_derivative<simd::default_arch, S>(sigma, u, b == nullptr ? b : b + column,
                                                                 detail::block_at(grad_y, r, column), scale,
                                                                 detail::block_at(e, r, column), size);
            });
        detail::multiply_by_circulant<S>(e, generators, true, grad_z, executor);
        detail::circulant_gradient<S>(z, e, detail::path_generators(grad_c, i), executor);
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

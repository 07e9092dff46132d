/// \file
/// Linear layer with a block-circulant weight: d p parameters instead of d^2, for d = p m.
///
/// The cheap projection of Augmented Shortcuts (arXiv:2106.15941; `Circulant_Linear` of huawei-noah's augvit.py). The
/// weight W [outputs, inputs] is cut into m x m blocks, each the circulant matrix whose FIRST COLUMN is its generator:
///
///     W[i m + a, j m + b] = c_ij[(a - b) mod m],    y = x W^T + bias,    so block i of y = sum_j c_ij (*) x_j
///
/// with (*) the circular convolution. x: `[..., p_in m]`; c: `[p_out, p_in, m]`; bias: `[p_out m]` or absent; y: `[...,
/// p_out m]`. A flat checkpoint in the order (i, j, k) is c as it lies; generators that are first rows are c reversed,
/// c'[k] = c[(-k) mod m]. Any m >= 1 is valid: 1 is a dense matrix. Elements are float or double.
///
/// Cost: the products of the dense layer, 2 rows p_out p_in m^2 flops, from weights m times smaller: W is never built.
/// For long blocks prepared_block_circulant.hpp, which goes through Fourier transforms, is many times faster.
#ifndef DEFT_SHORTCUT_BLOCK_CIRCULANT_LINEAR_HPP
#define DEFT_SHORTCUT_BLOCK_CIRCULANT_LINEAR_HPP

#include <deft/kernels/circulant_tile.hpp>
#include <deft/shortcut/augmented_shortcut_paths.hpp>

#include <algorithm>

namespace deft {
inline namespace DEFT_ISA {
namespace detail {

template <class T>
kernels::circulant_blocks<T> circulant_factor(const view<const T, 3>& c, bool transposed) noexcept {
    return {c.data(), c.stride(0), c.stride(1), c.extent(2), transposed};
}

template <class T>
void check_generators(const char* op, const view<const T, 3>& c) {
    static_assert(std::is_floating_point_v<T>, "circulant layers take float or double");
    check(c.extent(2) >= 1 || c.extent(0) * c.extent(1) == 0, op, "c", "its extent 2, the length of blocks",
          double(c.extent(2)));
}

/// `channels` of a tensor are blocks of m along axis `axis` of c.
template <class V, class T>
void check_channels_of(const char* op, const char* name, const V& v, int v_axis, const view<const T, 3>& c, int axis) {
    check_extent(op, name, v, v_axis, c.extent(axis) * c.extent(2),
                 axis == 0 ? "blocks of c along axis 0, times their length"
                           : "blocks of c along axis 1, times their length");
}

/// f(tile, r, c, size) for tiles u of x W^T, or of x W for a transposed factor, `columns` in all.
template <class T, class Executor, class F>
void for_each_circulant_tile(const view<const T, 2>& x, const kernels::circulant_blocks<T>& w, index columns,
                             Executor& executor, F&& f) {
    using shape = shortcut_tile<T>;
    for_each_tile<T>(x.extent(0), columns, shape::tile_columns, executor,
                     [&](index r, index c, kernels::block_size size) {
                         alignas(64) T u[std::size_t(shape::tile_size)];
                         kernels::circulant_tile<simd::default_arch, T>(
                             as_factor(x).at(r, 0), w, c, size.rows, size.columns, x.extent(1), u, shape::tile_columns);
                         f(kernels::row_block<const T>{u, shape::tile_columns}, r, c, size);
                     });
}

/// out = x W (the gradient of x), or out += x W.
template <class T, class Executor>
void multiply_by_circulant(const view<const T, 2>& x, const view<const T, 3>& c, bool accumulate, const view<T, 2>& out,
                           Executor& executor) {
    for_each_circulant_tile<T>(x, circulant_factor(c, true), out.extent(1), executor,
                               [&](kernels::row_block<const T> u, index r, index column, kernels::block_size size) {
                                   const auto to = block_at(out, r, column);
                                   const kernels::row_block<const T> nothing{nullptr, 0};
                                   kernels::add_blocks<simd::default_arch, T>(
                                       u, accumulate ? kernels::row_block<const T>{to.data, to.stride} : nothing, T(1),
                                       to, size);
                               });
}

/// grad_c_ij[k] = sum over rows and over a of g_i[a] x_j[(a - k) mod m]: the product g^T x, tile by tile, with its
/// diagonals summed. A task owns whole blocks of outputs.
template <class T, class Executor>
void circulant_gradient(const view<const T, 2>& x, const view<const T, 2>& g, const view<T, 3>& grad_c,
                        Executor& executor) {
    using shape = shortcut_tile<T>;
    const index m = grad_c.extent(2), outputs = grad_c.extent(0), inputs = grad_c.extent(1) * m;
    const index group = m == 0 ? 1 : std::max<index>(1, shape::tile_rows / m);
    const auto add_tile = [&](index a0, index b0, kernels::block_size size) {
        alignas(64) T tile[std::size_t(shape::tile_size)];
        kernels::tile_product<simd::default_arch, T>(as_factor(g).transposed().at(a0, 0), as_factor(x).at(0, b0),
                                                     size.rows, size.columns, x.extent(0), false, tile,
                                                     shape::tile_columns);
        for (index a = 0; a < size.rows; ++a) {
            index block = b0 / m, b = b0 % m;
            for (index q = 0; q < size.columns; ++q) {
                const index k = (a0 + a) % m - b;
                grad_c((a0 + a) / m, block, k < 0 ? k + m : k) += tile[a * shape::tile_columns + q];
                if (++b == m) {
                    b = 0;
                    ++block;
                }
            }
        }
    };
    executor.parallel_for((outputs + group - 1) / group, 1, [&](index begin, index end) {
        for (index t = begin; t < end; ++t) {
            const index first = t * group, last = std::min(first + group, outputs);
            for (index i = first; i < last; ++i)
                for (index j = 0; j < grad_c.extent(1); ++j)
                    for (index k = 0; k < m; ++k)
                        grad_c(i, j, k) = T(0);
            for (index a = first * m; a < last * m; a += shape::tile_rows)
                for (index b = 0; b < inputs; b += shape::tile_columns)
                    add_tile(a, b,
                             {std::min(shape::tile_rows, last * m - a), std::min(shape::tile_columns, inputs - b)});
        }
    });
}

} // namespace detail

/// y = x W^T + bias with a block-circulant W; formulas, shapes and types at the top of this file.
///
/// y must not overlap an input. Throws std::invalid_argument before anything is written if shapes do not fit or blocks
/// have length 0. No rows are valid. NaN in a row of x makes that row NaN and no other. The same bits for every
/// executor. Error: that of a sum of p_in m products.
template <class T = void, class Y = rows<T>, executor Executor = serial_executor>
void block_circulant_linear(in_rows<element_t<T, Y>> x, in<element_t<T, Y>, 3> c, in<element_t<T, Y>, 1> bias,
                            Y&& y_out, Executor&& executor = Executor()) {
    using S = element_t<T, Y>;
    const rows<S> y(y_out);
    const char* const op = "block_circulant_linear";
    detail::check_generators<S>(op, c);
    detail::check_channels_of(op, "x", x, 1, c, 1);
    detail::check_channels_of(op, "y", y, 1, c, 0);
    detail::check_extent(op, "y", y, 0, x.extent(0), "rows of x");
    if (bias.is_given())
        detail::check_channels_of(op, "bias", bias, 0, c, 0);
    const S* const b = bias.data();
    detail::for_each_circulant_tile<S>(
        x, detail::circulant_factor<S>(c, false), y.extent(1), executor,
        [&](kernels::row_block<const S> u, index r, index column, kernels::block_size size) {
            kernels::activate<simd::default_arch, S>({activation::identity, S(0)}, u, b == nullptr ? b : b + column,
                                                     detail::block_at(y, r, column), size);
        });
}

/// Gradients of block_circulant_linear for the cotangent grad_y of y, g_i and x_j being blocks of m channels:
///
///     grad_x = grad_y W      grad_c_ij[k] = sum over rows and a of g_i[a] x_j[(a - k) mod m]
///     grad_bias = sum over rows of grad_y
///
/// grad_bias may be absent. No output may overlap an input or another output. For no rows grad_c and grad_bias are 0.
/// Throws like block_circulant_linear. The same bits for every executor.
template <class T = void, class GX = rows<T>, executor Executor = serial_executor>
void block_circulant_linear_backward(in_rows<element_t<T, GX>> x, in<element_t<T, GX>, 3> c,
                                     in_rows<element_t<T, GX>> grad_y, GX&& grad_x_out, out<element_t<T, GX>, 3> grad_c,
                                     out<element_t<T, GX>, 1> grad_bias, Executor&& executor = Executor()) {
    using S = element_t<T, GX>;
    const rows<S> grad_x(grad_x_out);
    const char* const op = "block_circulant_linear_backward";
    detail::check_generators<S>(op, c);
    detail::check_channels_of(op, "x", x, 1, c, 1);
    detail::check_channels_of(op, "grad_y", grad_y, 1, c, 0);
    detail::check_extent(op, "grad_y", grad_y, 0, x.extent(0), "rows of x");
    detail::check_same_shape(op, "grad_x", grad_x, "x", x);
    detail::check_same_shape(op, "grad_c", grad_c, "c", c);
    if (grad_bias.is_given())
        detail::check_channels_of(op, "grad_bias", grad_bias, 0, c, 0);
    detail::multiply_by_circulant<S>(grad_y, c, false, grad_x, executor);
    detail::circulant_gradient<S>(x, grad_y, grad_c, executor);
    if (grad_bias.is_given())
        detail::sum_rows<S>(grad_y, grad_bias.data(), executor);
}

} // namespace DEFT_ISA
} // namespace deft

#endif

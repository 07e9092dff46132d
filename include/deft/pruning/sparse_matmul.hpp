/// \file
/// Sparse weight x dense activations: runs what pruning left of a linear layer or a convolution.
///
/// RPG (arXiv:2311.17493) prunes without structure and ships no way to run the result; the design follows Fast Sparse
/// ConvNets (arXiv:1911.09723). W [m, n] is prepared once (sparse_weight.hpp), bias [m] may be absent:
///
///     cn: x [n, p], y = clamp(W x + bias 1^T) [m, p]        channels x pixels: a 1x1 convolution, or an im2col matrix
///     nc: x [p, n], y = clamp(x W^T + 1 bias^T) [p, m]      tokens x features
///
/// y is overwritten. 0 of a pruned weight times NaN is not computed: NaN and infinities of x travel only through
/// entries that are kept, unlike in a dense product; blocks also multiply the zeros that pad them.
///
/// cn is the fast layout: x and y are met in rows. nc transposes tiles on the way in and out. p = 1 has a kernel of its
/// own in both.
#ifndef DEFT_PRUNING_SPARSE_MATMUL_HPP
#define DEFT_PRUNING_SPARSE_MATMUL_HPP

#include <deft/pruning/sparse_weight.hpp>

#include <limits>
#include <vector>

namespace deft {

enum class sparse_layout : unsigned char { cn, nc };

struct sparse_matmul_options {
    required<sparse_layout> layout;
    double clamp_min = -std::numeric_limits<double>::infinity(); ///< 0: relu
    double clamp_max = std::numeric_limits<double>::infinity();  ///< with 0 and 6: relu6
};

inline namespace DEFT_ISA {
namespace detail {

inline bool clamps(const sparse_matmul_options& options) noexcept {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    return options.clamp_min != -infinity || options.clamp_max != infinity;
}

/// p, after x and y (or their gradients) were found to fit the weight.
template <class T, class X, class Y>
index check_sparse(const char* op, const sparse_weight<T>& w, const char* x_name, const X& x, const char* y_name,
                   const Y& y, const sparse_matmul_options& options) {
    const int channel = options.layout == sparse_layout::cn ? 0 : 1;
    check_extent(op, x_name, x, channel, w.columns(), "columns of the weight");
    check_extent(op, y_name, y, channel, w.rows(), "rows of the weight");
    check_extent(op, y_name, y, 1 - channel, x.extent(1 - channel), "columns or tokens of x");
    check(options.clamp_min <= options.clamp_max, op, "clamp_min", "must not exceed clamp_max", options.clamp_min);
    return x.extent(1 - channel);
}

template <class T, class Executor>
void run_sparse(const sparse_engine<T>& engine, sparse_layout layout, const view<const T, 2>& x,
                const kernels::sparse_finish<T>& finish, const view<T, 2>& y, Executor& executor) {
    if (layout == sparse_layout::cn)
        engine.multiply(x, finish, y, executor);
    else
        engine.multiply_tokens(x, finish, y, executor);
}

/// The products that the entries sample; `transposed` has a row for every column of the weight.
template <class T, class Executor>
void sparse_weight_gradient(const sparse_engine<T>& transposed, bool cn, const view<const T, 2>& x,
                            const view<const T, 2>& g, index p, const view<T, 2>& grad_weight, Executor& executor) {
    constexpr index step = 16; // columns of the weight: a line of grad_weight, which tasks must not share
    const index columns = transposed.row_count(), rows = transposed.column_count();
    executor.parallel_for((columns + step - 1) / step, 1, [&](index begin, index end) {
        const index first = begin * step, last = std::min(end * step, columns);
        for (index r = 0; r < rows; ++r)
            std::fill(&grad_weight(r, 0) + first, &grad_weight(r, 0) + last, T(0));
        if (cn)
            kernels::sampled_products<simd::default_arch, T>(transposed.entries(), first, last, g.data(), g.stride(0),
                                                             x.data(), x.stride(0), p, grad_weight.data(),
                                                             grad_weight.stride(0), 1);
        else
            kernels::sampled_column_products(transposed.entries(), first, last, g.data(), g.stride(0), x.data(),
                                             x.stride(0), p, grad_weight.data(), grad_weight.stride(0), 1);
    });
}

template <class T, class Executor>
void sparse_bias_gradient(bool cn, const view<const T, 2>& g, const view<T, 1>& grad_bias, Executor& executor) {
    executor.parallel_for(grad_bias.extent(0), 64, [&](index begin, index end) {
        for (index r = begin; r < end; ++r) {
            double sum = 0;
            for (index j = 0; j < g.extent(cn ? 1 : 0); ++j)
                sum += double(cn ? g(r, j) : g(j, r));
            grad_bias(r) = T(sum);
        }
    });
}

} // namespace detail

/// y = clamp(W x + bias); formulas and layouts at the top of this file.
///
/// y must not overlap x. Throws std::invalid_argument before anything is written if shapes do not fit or clamp_min >
/// clamp_max. p = 0, rows and weights without entries are valid. The same bits for every executor; a column or token
/// gives the same bits whatever others stand beside it, if p > 1. Error: that of a sum of as many products as a row has
/// entries. Does not allocate.
template <class T, class Y = view<T, 2>, executor Executor = serial_executor>
void sparse_matmul(const sparse_weight<T>& weight, in<T, 2> x, in<T, 1> bias, Y&& y_out,
                   const sparse_matmul_options& options, Executor&& executor = Executor()) {
    const view<T, 2> y(y_out);
    const char* const op = "sparse_matmul";
    if (detail::check_sparse(op, weight, "x", x, "y", y, options); bias.is_given())
        detail::check_extent(op, "bias", bias, 0, weight.rows(), "rows of the weight");
    const kernels::sparse_finish<T> finish{bias.data(), detail::clamps(options), T(options.clamp_min),
                                           T(options.clamp_max)};
    detail::run_sparse<T>(weight.engine(), options.layout, x, finish, y, executor);
}

/// Gradients of sparse_matmul for the cotangent grad_y of y; with a clamp, G is grad_y where clamp_min < y < clamp_max
/// and 0 elsewhere, else G = grad_y:
///
///     cn: grad_x = W^T G      grad_weight = (G x^T) at the entries kept, 0 elsewhere      grad_bias = row sums of G
///     nc: the same of the transposes
///
/// The weight was prepared with `backward`. y is what sparse_matmul gave; it may be absent without a clamp. grad_weight
/// is dense, [m, n]; it and grad_bias may be absent. No output may overlap an input or another output. Throws like
/// sparse_matmul. The same bits for every executor. Allocates a copy of grad_y with a clamp, else nothing.
template <class T, class GX = view<T, 2>, executor Executor = serial_executor>
void sparse_matmul_backward(const sparse_weight<T>& weight, in<T, 2> x, in<T, 2> y, in<T, 2> grad_y, GX&& grad_x_out,
                            out<T, 2> grad_weight, out<T, 1> grad_bias, const sparse_matmul_options& options,
                            Executor&& executor = Executor()) {
    const view<T, 2> grad_x(grad_x_out);
    const char* const op = "sparse_matmul_backward";
    const index p = detail::check_sparse(op, weight, "x", x, "grad_y", grad_y, options);
    detail::check(weight.has_backward(), op, "weight", "must be prepared with backward (1)", 0);
    detail::check_same_shape(op, "grad_x", grad_x, "x", x);
    if (detail::clamps(options))
        detail::check_same_shape(op, "y", y, "grad_y", grad_y);
    if (grad_weight.is_given()) {
        detail::check_extent(op, "grad_weight", grad_weight, 0, weight.rows(), "rows of the weight");
        detail::check_extent(op, "grad_weight", grad_weight, 1, weight.columns(), "columns of the weight");
    }
    if (grad_bias.is_given())
        detail::check_extent(op, "grad_bias", grad_bias, 0, weight.rows(), "rows of the weight");

    const bool cn = options.layout == sparse_layout::cn;
    view<const T, 2> g = grad_y;
    std::vector<T> passed;
    if (detail::clamps(options)) {
        passed.resize(std::size_t(g.size()));
        for (index r = 0; r < g.extent(0); ++r)
            for (index c = 0; c < g.extent(1); ++c)
                passed[std::size_t(r * g.extent(1) + c)] =
                    y(r, c) > T(options.clamp_min) && y(r, c) < T(options.clamp_max) ? grad_y(r, c) : T(0);
        g = {passed.data(), {grad_y.extent(0), grad_y.extent(1)}};
    }
    detail::run_sparse<T>(weight.transposed_engine(), options.layout, g, {nullptr, false, T(0), T(0)}, grad_x,
                          executor);
    if (grad_weight.is_given())
        detail::sparse_weight_gradient<T>(weight.transposed_engine(), cn, x, g, p, grad_weight, executor);
    if (grad_bias.is_given())
        detail::sparse_bias_gradient<T>(cn, g, grad_bias, executor);
}

} // namespace DEFT_ISA
} // namespace deft

#endif

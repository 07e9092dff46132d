/// \file
/// What augmented_shortcut and augmented_shortcut_bottleneck share: the sum around the paths, orientation of weights,
/// and how the work is cut into tiles.
#ifndef DEFT_SHORTCUT_AUGMENTED_SHORTCUT_PATHS_HPP
#define DEFT_SHORTCUT_AUGMENTED_SHORTCUT_PATHS_HPP

#include <deft/activation_kind.hpp>
#include <deft/kernels/activation_block.hpp>
#include <deft/kernels/tile_product.hpp>
#include <deft/linalg.hpp>
#include <deft/parallel.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>

namespace deft {

/// The identity shortcut R beside the paths: z itself, a tensor of its own (pre-norm: the raw input), or none.
enum class shortcut_residual : unsigned char { z, separate, none };

/// How a weight matrix lies in memory: [in, out] as formulas read, or [out, in] as checkpoints of nn.Linear hold it.
enum class weight_layout : unsigned char { in_out, out_in };

inline namespace DEFT_ISA {
namespace detail {

template <class T>
using shortcut_tile = kernels::tile_shape<simd::default_arch, T>;

template <class Options>
void check_shortcut(const char* op, const Options& options) {
    check(std::isfinite(options.scale), op, "scale", "must be finite", options.scale);
    check(!std::isnan(options.negative_slope), op, "negative_slope", "it must be a number", options.negative_slope);
}

/// The residual, or its gradient, is there exactly where the options ask for it.
template <class Rows, class T>
void check_residual(const char* op, const char* name, const Rows& residual, const rows<T>& z, shortcut_residual kind) {
    if (kind == shortcut_residual::separate) {
        check(residual.is_given() || z.size() == 0, op, name, "must be given (1): options.residual is separate", 0);
        if (residual.is_given())
            check_same_shape(op, name, residual, "z", z);
    } else {
        check(!residual.is_given(), op, name, "must be absent (0): options.residual is not separate", 1);
    }
}

/// weights is [paths, from, to], or [paths, to, from] if they lie as checkpoints hold them.
template <class V>
void check_weights(const char* op, const char* name, const V& weights, index paths, index from, const char* from_source,
                   index to, const char* to_source, weight_layout layout) {
    const bool swapped = layout == weight_layout::out_in;
    check_extent(op, name, weights, 0, paths, "paths, extent 0 of the weights");
    check_extent(op, name, weights, swapped ? 2 : 1, from, from_source);
    check_extent(op, name, weights, swapped ? 1 : 2, to, to_source);
}

template <class V>
void check_bias(const char* op, const char* name, const V& bias, index paths, index width, const char* source) {
    if (!bias.is_given())
        return;
    check_extent(op, name, bias, 0, paths, "paths, extent 0 of the weights");
    check_extent(op, name, bias, 1, width, source);
}

/// A gradient is wanted exactly where its input is given.
template <class V, class Other>
void check_gradient_of(const char* op, const char* name, const V& gradient, const Other& input,
                       const char* input_name) {
    check(gradient.is_given() == input.is_given(), op, name, "must be given (1) exactly where its input is",
          gradient.is_given() ? 1 : 0);
    if (input.is_given())
        check_same_shape(op, name, gradient, input_name, input);
}

/// The matrix of one path, in x out.
template <class T>
kernels::strided_matrix<T> path_weights(const view<T, 3>& weights, index path, weight_layout layout) noexcept {
    const kernels::strided_matrix<T> m{weights.data() + path * weights.stride(0), weights.stride(1), 1};
    return layout == weight_layout::in_out ? m : m.transposed();
}

template <class T>
const T* path_bias(const view<const T, 2>& bias, index path) noexcept {
    return bias.is_given() ? bias.data() + path * bias.stride(0) : nullptr;
}

template <class T>
kernels::strided_matrix<const T> as_factor(const view<T, 2>& v) noexcept {
    return {v.data(), v.stride(0), 1};
}

template <class T>
kernels::row_block<T> block_at(const view<T, 2>& v, index r, index c) noexcept {
    return {v.data() == nullptr ? nullptr : v.data() + r * v.stride(0) + c, v.stride(0)};
}

/// y = scale (main + R + the sum of what paths add), a block of one path at a time.
template <class T>
struct shortcut_sum {
    using arch = simd::default_arch;

    view<const T, 2> main, beside; ///< R, or absent: 0
    view<T, 2> y;
    kernels::activation_choice<T> sigma;
    T scale;

    /// Options of any of the augmented shortcuts.
    template <class Options>
    shortcut_sum(const Options& options, const kernels::activation_choice<T>& activation, const view<const T, 2>& z,
                 const view<const T, 2>& to_add_to, const view<const T, 2>& residual, const view<T, 2>& out) noexcept
        : main(to_add_to), beside(options.residual == shortcut_residual::z ? z : residual), y(out), sigma(activation),
          scale(static_cast<T>(options.scale)) {}

    /// Adds sigma(u + bias) for the block of u that begins at row r and column c.
    void add(kernels::row_block<const T> u, const T* bias, index r, index c, kernels::block_size size, bool is_first,
             bool is_last) const noexcept {
        kernels::add_activated<arch, T>(sigma, u, bias == nullptr ? bias : bias + c, before(r, c, is_first),
                                        beside_at(r, c, is_first), is_last ? scale : T(1), block_at(y, r, c), size);
    }
    /// Adds a b + bias, a: [count, depth], to whole rows from row r on.
    void add_product(const kernels::strided_matrix<const T>& a, const kernels::strided_matrix<const T>& b, index depth,
                     const T* bias, index r, index count, bool is_first, bool is_last) const noexcept {
        kernels::add_product<arch, T>(a, b, depth, bias, before(r, 0, is_first), beside_at(r, 0, is_first),
                                      is_last ? scale : T(1), block_at(y, r, 0), {count, y.extent(1)});
    }
    /// All there is without paths.
    void add_none(index r, index c, kernels::block_size size) const noexcept {
        kernels::add_blocks<arch, T>(block_at(main, r, c), block_at(beside, r, c), scale, block_at(y, r, c), size);
    }

private:
    // What the first path is added to, and others: what is in y already.
    kernels::row_block<const T> before(index r, index c, bool is_first) const noexcept {
        const kernels::row_block<T> sum = block_at(y, r, c);
        return is_first ? block_at(main, r, c) : kernels::row_block<const T>{sum.data, sum.stride};
    }
    kernels::row_block<const T> beside_at(index r, index c, bool is_first) const noexcept {
        return is_first ? block_at(beside, r, c) : kernels::row_block<const T>{nullptr, 0};
    }
};

/// f(first row, rows) for blocks of about equal height, at most `most` rows each.
template <class T, class Executor, class F>
void for_each_row_block(index row_count, index most, Executor& executor, F&& f) {
    const index height = shortcut_tile<T>::rows_for(row_count, most);
    executor.parallel_for((row_count + height - 1) / height, 1, [&](index begin, index end) {
        for (index b = begin; b < end; ++b)
            f(b * height, std::min(height, row_count - b * height));
    });
}

/// f(first row, first column, size) for the tiles of a matrix, `width` columns wide; tiles of the same rows follow each
/// other.
template <class T, class Executor, class F>
void for_each_tile(index row_count, index column_count, index width, Executor& executor, F&& f) {
    const index height = shortcut_tile<T>::rows_for(row_count), column_blocks = (column_count + width - 1) / width;
    executor.parallel_for((row_count + height - 1) / height * column_blocks, 1, [&](index begin, index end) {
        for (index t = begin; t < end; ++t) {
            const index r = t / column_blocks * height, c = t % column_blocks * width;
            f(r, c, kernels::block_size{std::min(height, row_count - r), std::min(width, column_count - c)});
        }
    });
}

/// out (+)= A B for a matrix of any size.
template <class T, class Executor>
void multiply(kernels::strided_matrix<const T> a, kernels::strided_matrix<const T> b, index depth, bool accumulate,
              const view<T, 2>& out, Executor& executor) {
    const linalg::matrix<const T> left(a.data, out.extent(0), depth, a.row_stride, a.column_stride),
        right(b.data, depth, out.extent(1), b.row_stride, b.column_stride);
    linalg::gemm<T>(T(1), left, right, accumulate ? T(1) : T(0), out, executor);
}

/// The gradient of the weights of one path, from^T to, in the orientation that they have.
template <class T, class Executor>
void multiply_weights(kernels::strided_matrix<const T> from, kernels::strided_matrix<const T> to, index row_count,
                      bool accumulate, const view<T, 3>& gradient, index path, weight_layout layout,
                      Executor& executor) {
    const view<T, 2> out(gradient.data() + path * gradient.stride(0), {gradient.extent(1), gradient.extent(2)},
                         {gradient.stride(1), index{1}});
    const bool swapped = layout == weight_layout::out_in;
    multiply<T>((swapped ? to : from).transposed(), swapped ? from : to, row_count, accumulate, out, executor);
}

/// out = scale x.
template <class T, class Executor>
void scale_rows(const view<const T, 2>& x, T scale, const view<T, 2>& out, Executor& executor) {
    for_each_piece(x.extent(0), x.extent(1), x.is_contiguous() && out.is_contiguous(), executor,
                   [&](index r, index c, index n) {
                       kernels::add_blocks<simd::default_arch, T>(block_at(x, r, c), {nullptr, 0}, scale,
                                                                  block_at(out, r, c), {1, n});
                   });
}

/// What the identity shortcut adds to the gradient of z, which the paths then add to.
template <class T, class Executor>
void start_gradient(const view<const T, 2>& grad_y, shortcut_residual residual, T scale, const view<T, 2>& grad_z,
                    Executor& executor) {
    if (residual == shortcut_residual::z)
        return scale_rows<T>(grad_y, scale, grad_z, executor);
    for_each_piece(grad_z.extent(0), grad_z.extent(1), grad_z.is_contiguous(), executor,
                   [&](index r, index c, index n) { std::fill_n(block_at(grad_z, r, c).data, n, T(0)); });
}

/// sums[c] = sum over rows of x(r, c).
template <class T, class Executor>
void sum_rows(const view<const T, 2>& x, T* sums, Executor& executor) {
    constexpr index width = shortcut_tile<T>::tile_columns;
    executor.parallel_for((x.extent(1) + width - 1) / width, 1, [&](index begin, index end) {
        for (index c = begin * width; c < std::min(end * width, x.extent(1)); c += width) {
            const index count = std::min(width, x.extent(1) - c);
            double totals[std::size_t(width)] = {};
            kernels::add_column_sums<T>(block_at(x, 0, c), totals, {x.extent(0), count});
            for (index j = 0; j < count; ++j)
                sums[c + j] = static_cast<T>(totals[j]);
        }
    });
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

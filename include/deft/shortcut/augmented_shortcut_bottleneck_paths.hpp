/// \file
/// The paths of augmented_shortcut_bottleneck block by block, forward and backward; what is between z and y stays in
/// cache.
#ifndef DEFT_SHORTCUT_AUGMENTED_SHORTCUT_BOTTLENECK_PATHS_HPP
#define DEFT_SHORTCUT_AUGMENTED_SHORTCUT_BOTTLENECK_PATHS_HPP

#include <deft/shortcut/augmented_shortcut_paths.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace detail {

/// The inputs of the paths, and what is made of them block by block.
template <class T>
class bottleneck_paths {
public:
    using arch = simd::default_arch;
    using shape = shortcut_tile<T>;
    using factor = kernels::strided_matrix<const T>;

    view<const T, 2> z;
    view<const T, 3> down, up;
    view<const T, 2> down_bias, up_bias;
    index hidden;
    weight_layout layout;
    kernels::activation_choice<T> sigma, post;

    index width() const noexcept {
        return z.extent(1);
    }
    factor down_of(index path) const noexcept {
        return path_weights(down, path, layout);
    }
    factor up_of(index path) const noexcept {
        return path_weights(up, path, layout);
    }
    bool has_post() const noexcept {
        return post.kind != activation::identity;
    }

    /// u, without bias, of rows [r, r + rows) and hidden units [k, k + count).
    void reduce(index path, index r, index rows, index k, index count, T* u, index stride) const noexcept {
        kernels::tile_product<arch, T>(as_factor(z).at(r, 0), down_of(path).at(0, k), rows, count, width(), false, u,
                                       stride);
    }
    const T* bias_of_hidden(index path, index k) const noexcept {
        const T* const bias = path_bias(down_bias, path);
        return bias == nullptr ? bias : bias + k;
    }

    /// Rows of a block: as many as make h fit its memory, and at most half a tile where v goes through one. Else 132:
    /// more would be 3 % faster, but leave few blocks to threads; a quarter of 512 rows, in whole kernels.
    index block_rows() const noexcept {
        constexpr index step = shape::kernel_rows, tall = std::min<index>(shape::tile_rows, 132);
        return std::clamp(hidden_size / shape::padded(chunk()) / step * step, step,
                          has_post() ? shape::tile_rows / 2 : tall);
    }

    /// Adds what a path does to rows [r, r + rows): post(v), or h up straight out of the product's registers.
    void add(index path, index r, index rows, const shortcut_sum<T>& sum, bool is_first, bool is_last) const noexcept {
        const T* const bias = path_bias(up_bias, path);
        if (has_post())
            return expand(path, r, rows, [&](index c, auto v, index columns) {
                sum.add(v, bias, r, c, {rows, columns}, is_first, is_last);
            });
        alignas(64) T h[std::size_t(hidden_size)];
        for (index k = 0; k < hidden; k += chunk()) {
            const index count = std::min(chunk(), hidden - k), stride = shape::padded(chunk());
            fill_hidden(path, r, rows, k, count, h, stride);
            sum.add_product({h, stride, 1}, up_of(path).at(k, 0), count, k == 0 ? bias : nullptr, r, rows,
                            is_first && k == 0, is_last && k + count == hidden);
        }
    }

    /// finish(c, v, columns) with v = h up, without bias, in tiles of the rows [r, r + rows). h is computed again for
    /// every tile if a single row of it is too long.
    template <class F>
    void expand(index path, index r, index rows, F&& finish) const noexcept {
        alignas(64) T h[std::size_t(hidden_size)];
        alignas(64) T v[std::size_t(shape::tile_size)];
        const index step = shape::long_columns_for(rows), stride = shape::padded(chunk());
        index held = -1;
        for (index c = 0; c < width(); c += step) {
            const index columns = std::min(step, width() - c);
            for (index k = 0; k < hidden; k += chunk()) {
                const index count = std::min(chunk(), hidden - k);
                if (k != held)
                    fill_hidden(path, r, rows, k, count, h, stride);
                held = k;
                kernels::tile_product<arch, T>({h, stride, 1}, up_of(path).at(k, c), rows, columns, count, k > 0, v,
                                               step);
            }
            finish(c, kernels::row_block<const T>{v, step}, columns);
        }
    }

private:
    static constexpr index hidden_size = shape::tile_size;

    /// Hidden units at a time.
    index chunk() const noexcept {
        const index most = has_post() ? hidden_size / shape::kernel_rows / shape::panel_columns * shape::panel_columns
                                      : 2 * shape::tile_columns;
        return std::min(hidden, most);
    }

    void fill_hidden(index path, index r, index rows, index k, index count, T* h, index stride) const noexcept {
        reduce(path, r, rows, k, count, h, stride);
        kernels::activate<arch, T>(sigma, {h, stride}, bias_of_hidden(path, k), {h, stride}, {rows, count});
    }
};

/// p = scale grad_y post'(v).
template <class T, class Executor>
void bottleneck_cotangent(const bottleneck_paths<T>& all, index path, const view<const T, 2>& grad_y, T scale,
                          const view<T, 2>& p, Executor& executor) {
    const T* const bias = path_bias(all.up_bias, path);
    for_each_row_block<T>(p.extent(0), all.block_rows(), executor, [&](index r, index rows) {
        all.expand(path, r, rows, [&](index c, auto v, index columns) {
            kernels::times_derivative<simd::default_arch, T>(all.post, v, bias == nullptr ? bias : bias + c,
                                                             block_at(grad_y, r, c), scale, block_at(p, r, c),
                                                             {rows, columns});
        });
    });
}

/// u (without bias) and q = (p up^T) sigma'(u) of rows [r, r + rows) and hidden units [k, k + count), in tiles.
template <class T>
void hidden_cotangent(const bottleneck_paths<T>& all, index path, const view<const T, 2>& p, index r, index rows,
                      index k, index count, T* u, T* q) noexcept {
    using arch = simd::default_arch;
    constexpr index stride = shortcut_tile<T>::tile_columns;
    all.reduce(path, r, rows, k, count, u, stride);
    kernels::tile_product<arch, T>(as_factor(p).at(r, 0), all.up_of(path).transposed().at(0, k), rows, count,
                                   all.width(), false, q, stride);
    kernels::times_derivative<arch, T>(all.sigma, {u, stride}, all.bias_of_hidden(path, k), {q, stride}, T(1),
                                       {q, stride}, {rows, count});
}

/// grad_z += q down^T.
template <class T, class Executor>
void bottleneck_grad_z(const bottleneck_paths<T>& all, index path, const view<const T, 2>& p, const view<T, 2>& grad_z,
                       Executor& executor) {
    using shape = shortcut_tile<T>;
    for_each_row_block<T>(p.extent(0), shape::tile_rows, executor, [&](index r, index rows) {
        alignas(64) T u[std::size_t(shape::tile_size)], q[std::size_t(shape::tile_size)];
        for (index k = 0; k < all.hidden; k += shape::tile_columns) {
            const index count = std::min(shape::tile_columns, all.hidden - k);
            hidden_cotangent<T>(all, path, p, r, rows, k, count, u, q);
            const view<T, 2> to(grad_z.data() + r * grad_z.stride(0), {rows, grad_z.extent(1)},
                                {grad_z.stride(0), index{1}});
            serial_executor serial;
            multiply<T>({q, shape::tile_columns, 1}, all.down_of(path).transposed().at(k, 0), count, true, to, serial);
        }
    });
}

/// grad_up = h^T p, grad_down = z^T q, grad_down_bias = sum of q. A task owns some hidden units and goes over all rows.
template <class T, class Executor>
void bottleneck_grad_weights(const bottleneck_paths<T>& all, index path, const view<const T, 2>& p,
                             const view<T, 3>& grad_down, const view<T, 3>& grad_up, const view<T, 2>& grad_down_bias,
                             Executor& executor) {
    using arch = simd::default_arch;
    using shape = shortcut_tile<T>;
    constexpr index width = shape::tile_columns;
    const index row_count = p.extent(0);
    // The part of a gradient that belongs to hidden units [k, k + count): rows or columns of its matrix.
    const auto add = [&](const view<T, 3>& gradient, bool hidden_are_rows, index k, index count, const T* hidden,
                         const view<const T, 2>& other, index r, index rows) {
        T* const data = gradient.data() + path * gradient.stride(0) + k * (hidden_are_rows ? gradient.stride(1) : 1);
        const index d = other.extent(1);
        const view<T, 2> to(data, {hidden_are_rows ? count : d, hidden_are_rows ? d : count},
                            {gradient.stride(1), index{1}});
        const kernels::strided_matrix<const T> h{hidden, width, 1};
        const auto x = as_factor(other).at(r, 0);
        serial_executor serial;
        multiply<T>((hidden_are_rows ? h : x).transposed(), hidden_are_rows ? x : h, rows, r > 0, to, serial);
    };
    const bool in_out = all.layout == weight_layout::in_out;
    executor.parallel_for((all.hidden + width - 1) / width, 1, [&](index begin, index end) {
        alignas(64) T u[std::size_t(shape::tile_size)], q[std::size_t(shape::tile_size)];
        for (index k = begin * width; k < std::min(end * width, all.hidden); k += width) {
            const index count = std::min(width, all.hidden - k);
            double totals[std::size_t(width)] = {};
            for (index r = 0; r == 0 || r < row_count; r += shape::tile_rows) { // once without rows: zeros
                const index rows = std::min(shape::tile_rows, row_count - r);
                if (rows > 0)
                    hidden_cotangent<T>(all, path, p, r, rows, k, count, u, q);
                kernels::activate<arch, T>(all.sigma, {u, width}, all.bias_of_hidden(path, k), {u, width},
                                           {rows, count});
                add(grad_up, in_out, k, count, u, p, r, rows);
                add(grad_down, !in_out, k, count, q, all.z, r, rows);
                kernels::add_column_sums<T>({q, width}, totals, {rows, count});
            }
            if (grad_down_bias.is_given())
                for (index j = 0; j < count; ++j)
                    grad_down_bias(path, k + j) = static_cast<T>(totals[j]);
        }
    });
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// A linear layer that serves several tasks: one general weight, and a bias of low rank on it for each task.
///
/// Weight modulation of Instruct-IPT (arXiv:2407.00676): W_t = W + B_t A_t. x [B, n], W [m, n], down A [T, r, n], up
/// [T, m, r], task [B] in 0 .. T - 1, bias [m] and task_bias [T, m] both optional, scale c (1 in the paper's form):
///
///     y_b = W x_b + c up[t] (down[t] x_b) + bias + task_bias[t],   t = task[b]
///     merged[t] = W + c up[t] down[t]                              what a layer for one task deploys
///
/// Fused costs 2 B r (m + n) flops on top of the 2 B m n of the layer, 4 % at m = n = 384 and r = 8, and a batch may
/// mix tasks; merging costs 2 m n r flops and m n of memory per task, and pays from about B = m n / (m + n) rows on.
/// Neither touches W: switching task is another index, or another merged weight.
///
/// Each layer has its own r, which rank_analysis chooses. Elements are float or double, tasks 64-bit integers.
#ifndef DEFT_PRUNING_LOW_RANK_MODULATED_LINEAR_HPP
#define DEFT_PRUNING_LOW_RANK_MODULATED_LINEAR_HPP

#include <deft/shortcut/augmented_shortcut_paths.hpp>
#include <deft/simd/loop.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace deft {

struct low_rank_modulated_linear_options {
    double scale = 1; ///< c
};

inline namespace DEFT_ISA {
namespace detail {

/// The factors of a task: x is multiplied by down [from, r], then by up [r, to].
template <class T>
struct modulation {
    kernels::strided_matrix<const T> weight; ///< [from, to]
    view<const T, 3> down, up;
    bool transposed; ///< down is [T, from, r], up [T, r, to]; else [T, r, from] and [T, to, r]

    kernels::strided_matrix<const T> of(const view<const T, 3>& factors, index task) const noexcept {
        const kernels::strided_matrix<const T> m{factors.data() + task * factors.stride(0), factors.stride(1), 1};
        return transposed ? m : m.transposed();
    }
    index rank() const noexcept {
        return down.extent(transposed ? 2 : 1);
    }
};

/// y = x (weight + c down up) + biases, for blocks of rows. The product of low rank is added to the tile of the layer
/// while that is in cache: to all of it if the block has one task, else through a second tile, whose rows are sorted by
/// task. Ranks above rank_block are taken in parts.
template <class T, class Executor>
void modulated_product(const modulation<T>& w, const view<const T, 2>& x, const view<const std::int64_t, 1>& task,
                       T scale, const view<const T, 1>& bias, const view<const T, 2>& task_bias, const view<T, 2>& y,
                       Executor& executor) {
    using arch = simd::default_arch;
    using shape = shortcut_tile<T>;
    constexpr index rank_block = 32;
    // A product may write a few rows behind its own: those of a run of rows of one task are not the last of a tile.
    constexpr std::size_t h_size = std::size_t((shape::tile_rows + shape::kernel_rows) * rank_block);
    constexpr std::size_t tile_size = std::size_t(shape::tile_size + shape::kernel_rows * shape::tile_columns);
    const index depth = x.extent(1), r = w.rank();
    for_each_row_block<T>(x.extent(0), shape::tile_rows, executor, [&](index first, index count) {
        alignas(64) T tile[tile_size];
        alignas(64) T other[tile_size];
        alignas(64) T h[h_size];
        alignas(64) T sorted[h_size];
        index order[std::size_t(shape::tile_rows)];
        for (index i = 0; i < count; ++i)
            order[i] = i;
        std::sort(order, order + count, [&](index a, index b) {
            return task(first + a) != task(first + b) ? task(first + a) < task(first + b) : a < b;
        });
        const auto task_of = [&](index i) { return index(task(first + order[i])); };
        const bool is_mixed = task_of(0) != task_of(count - 1);
        const index stride = shape::columns_for(count);
        const T* const h_rows = is_mixed ? sorted : h;
        const auto sample = [&](index k, index part) { // h = c x down, a part of its columns
            for (index i = 0; i < count;) {
                index end = i + 1;
                while (end < count && task(first + end) == task(first + i))
                    ++end;
                kernels::tile_product<arch, T>(as_factor(x).at(first + i, 0),
                                               w.of(w.down, index(task(first + i))).at(0, k), end - i, part, depth,
                                               false, h + i * rank_block, rank_block);
                i = end;
            }
            for (index i = 0; i < count; ++i)
                for (index j = 0; j < part; ++j)
                    h[i * rank_block + j] *= scale;
            for (index i = 0; is_mixed && i < count; ++i)
                std::copy_n(h + order[i] * rank_block, part, sorted + i * rank_block);
        };
        if (r > 0 && r <= rank_block)
            sample(0, r);
        for (index c = 0; c < y.extent(1); c += stride) {
            const index columns = std::min(stride, y.extent(1) - c);
            kernels::tile_product<arch, T>(as_factor(x).at(first, 0), w.weight.at(0, c), count, columns, depth, false,
                                           tile, stride);
            for (index k = 0; k < r; k += rank_block) {
                const index part = std::min(rank_block, r - k);
                if (r > rank_block)
                    sample(k, part);
                for (index i = 0; i < count;) {
                    index end = i + 1;
                    while (end < count && task_of(end) == task_of(i))
                        ++end;
                    kernels::tile_product<arch, T>({h_rows + i * rank_block, rank_block, 1},
                                                   w.of(w.up, task_of(i)).at(k, c), end - i, columns, part,
                                                   !is_mixed || k > 0, (is_mixed ? other : tile) + i * stride, stride);
                    i = end;
                }
            }
            for (index i = 0; i < count; ++i) {
                const index row = order[i];
                const T* const base = tile + row * stride;
                const T* const low = is_mixed && r > 0 ? other + i * stride : nullptr;
                const T* const of_task =
                    task_bias.is_given() ? task_bias.data() + task_of(i) * task_bias.stride(0) + c : nullptr;
                T* const to = y.data() + (first + row) * y.stride(0) + c;
                const T* const of_all = bias.is_given() ? bias.data() + c : nullptr;
                simd::for_each_vector<T, arch, 4>(columns, [&](index j, auto vectors, auto extent) DEFT_INLINE_LAMBDA {
                    DEFT_UNROLL
                    for (int v = 0; v < decltype(vectors)::value; ++v, j += simd::lanes<T, arch>) {
                        simd::batch<T, arch> sum = simd::load<arch>(base + j, extent);
                        for (const T* const term : {low, of_all, of_task})
                            if (term != nullptr)
                                sum = sum + simd::load<arch>(term + j, extent);
                        simd::store<T>(to + j, sum, extent);
                    }
                });
            }
        }
    });
}

template <class T>
void check_modulation(const char* op, const view<const T, 2>& weight, const view<const T, 3>& down,
                      const view<const T, 3>& up) {
    static_assert(std::is_floating_point_v<T>, "modulated layers take float or double");
    check_extent(op, "down", down, 2, weight.extent(1), "extent 1 of weight");
    check_extent(op, "up", up, 0, down.extent(0), "extent 0 of down");
    check_extent(op, "up", up, 1, weight.extent(0), "extent 0 of weight");
    check_extent(op, "up", up, 2, down.extent(1), "extent 1 of down");
}

inline void check_tasks(const char* op, const view<const std::int64_t, 1>& task, index rows, index tasks) {
    check_extent(op, "task", task, 0, rows, "extent 0 of x");
    for (index b = 0; b < rows; ++b)
        check(task(b) >= 0 && task(b) < tasks, op, "task", "must be an index along extent 0 of down", double(task(b)));
}

} // namespace detail

/// y for a batch that may mix tasks; formulas and shapes at the top of this file.
///
/// y must not overlap an input. Throws std::invalid_argument before anything is written if shapes do not fit, r among
/// them, or a task lies outside of 0 .. T - 1. No rows, r = 0 and any r are valid. The same bits for every executor;
/// the bits of a row may depend on the tasks of others. Does not allocate.
template <class T, executor Executor = serial_executor>
void low_rank_modulated_linear(in<T, 2> x, in<T, 2> weight, in<T, 3> down, in<T, 3> up, in<std::int64_t, 1> task,
                               in<T, 1> bias, in<T, 2> task_bias, view<T, 2> y,
                               const low_rank_modulated_linear_options& options = {},
                               Executor&& executor = Executor()) {
    const char* const op = "low_rank_modulated_linear";
    detail::check_modulation<T>(op, weight, down, up);
    detail::check_extent(op, "x", x, 1, weight.extent(1), "extent 1 of weight");
    detail::check_extent(op, "y", y, 0, x.extent(0), "extent 0 of x");
    detail::check_extent(op, "y", y, 1, weight.extent(0), "extent 0 of weight");
    detail::check_tasks(op, task, x.extent(0), down.extent(0));
    if (bias.is_given())
        detail::check_extent(op, "bias", bias, 0, weight.extent(0), "extent 0 of weight");
    if (task_bias.is_given()) {
        detail::check_extent(op, "task_bias", task_bias, 0, down.extent(0), "extent 0 of down");
        detail::check_extent(op, "task_bias", task_bias, 1, weight.extent(0), "extent 0 of weight");
    }
    const detail::modulation<T> w{detail::as_factor(weight).transposed(), down, up, false};
    detail::modulated_product<T>(w, x, task, T(options.scale), bias, task_bias, y, executor);
}

/// merged = W + c up[task] down[task]: the weight of one task. merged may be weight itself only if it does not serve
/// another task afterwards; it must not overlap down or up. Throws like low_rank_modulated_linear.
template <class T, executor Executor = serial_executor>
void low_rank_modulated_weight(in<T, 2> weight, in<T, 3> down, in<T, 3> up, index task, view<T, 2> merged,
                               const low_rank_modulated_linear_options& options = {},
                               Executor&& executor = Executor()) {
    using arch = simd::default_arch;
    using shape = detail::shortcut_tile<T>;
    const char* const op = "low_rank_modulated_weight";
    detail::check_modulation<T>(op, weight, down, up);
    detail::check(task >= 0 && task < down.extent(0), op, "task", "must be an index along extent 0 of down",
                  double(task));
    detail::check_same_shape(op, "merged", merged, "weight", weight);
    const kernels::strided_matrix<const T> left{up.data() + task * up.stride(0), up.stride(1), 1};
    const kernels::strided_matrix<const T> right{down.data() + task * down.stride(0), down.stride(1), 1};
    const T scale = T(options.scale);
    detail::for_each_tile<T>(merged.extent(0), merged.extent(1), shape::tile_columns, executor,
                             [&](index r, index c, kernels::block_size size) {
                                 for (index i = r; i < r + size.rows; ++i)
                                     std::copy_n(&weight(i, c), size.columns, &merged(i, c));
                                 kernels::matrix_product<arch, T>(scale, left.at(r, 0), right.at(0, c), T(1),
                                                                  {&merged(r, c), merged.stride(0), 1}, size.rows,
                                                                  size.columns, down.extent(1));
                             });
}

/// Gradients for the cotangent grad_y of y, h_b = down[t] x_b, q_b = c up[t]^T g_b, g = grad_y, sums over rows of a
/// task:
///
///     grad_x_b = W^T g_b + down[t]^T q_b      grad_weight = g^T x      grad_bias = sum g_b
///     grad_up[t] = c sum g_b h_b^T            grad_down[t] = sum q_b x_b^T      grad_task_bias[t] = sum g_b
///
/// Tasks that no row has get zeros. grad_bias and grad_task_bias may be absent. No output may overlap an input or
/// another output. Throws like low_rank_modulated_linear. The same bits for every executor. Allocates copies of x and
/// grad_y, sorted by task, and two matrices of B x r.
template <class T, executor Executor = serial_executor>
void low_rank_modulated_linear_backward(in<T, 2> x, in<T, 2> weight, in<T, 3> down, in<T, 3> up,
                                        in<std::int64_t, 1> task, in<T, 2> grad_y, view<T, 2> grad_x,
                                        out<T, 2> grad_weight, out<T, 3> grad_down, out<T, 3> grad_up,
                                        out<T, 1> grad_bias, out<T, 2> grad_task_bias,
                                        const low_rank_modulated_linear_options& options = {},
                                        Executor&& executor = Executor()) {
    using detail::check_same_shape;
    const char* const op = "low_rank_modulated_linear_backward";
    const index rows = x.extent(0), m = weight.extent(0), n = weight.extent(1), r = down.extent(1);
    detail::check_modulation<T>(op, weight, down, up);
    detail::check_extent(op, "x", x, 1, n, "extent 1 of weight");
    detail::check_extent(op, "grad_y", grad_y, 0, rows, "extent 0 of x");
    detail::check_extent(op, "grad_y", grad_y, 1, m, "extent 0 of weight");
    detail::check_tasks(op, task, rows, down.extent(0));
    check_same_shape(op, "grad_x", grad_x, "x", x);
    check_same_shape(op, "grad_weight", grad_weight, "weight", weight);
    check_same_shape(op, "grad_down", grad_down, "down", down);
    check_same_shape(op, "grad_up", grad_up, "up", up);
    if (grad_bias.is_given())
        detail::check_extent(op, "grad_bias", grad_bias, 0, m, "extent 0 of weight");
    if (grad_task_bias.is_given()) {
        detail::check_extent(op, "grad_task_bias", grad_task_bias, 0, down.extent(0), "extent 0 of down");
        detail::check_extent(op, "grad_task_bias", grad_task_bias, 1, m, "extent 0 of weight");
    }
    const T scale = T(options.scale);
    // grad_x is the layer of the transposed weights.
    const detail::modulation<T> back{detail::as_factor(weight), up, down, true};
    detail::modulated_product<T>(back, grad_y, task, scale, absent, absent, grad_x, executor);
    detail::multiply<T>(detail::as_factor(grad_y).transposed(), detail::as_factor(x), rows, false, grad_weight,
                        executor);
    if (grad_bias.is_given())
        detail::sum_rows<T>(grad_y, grad_bias.data(), executor);

    std::vector<index> order(std::size_t(rows), 0), begin(std::size_t(down.extent(0) + 1), 0);
    for (index b = 0; b < rows; ++b)
        ++begin[std::size_t(task(b) + 1)];
    for (std::size_t t = 1; t < begin.size(); ++t)
        begin[t] += begin[t - 1];
    std::vector<index> next(begin.begin(), begin.end());
    for (index b = 0; b < rows; ++b)
        order[std::size_t(next[std::size_t(task(b))]++)] = b;
    std::vector<T> xs(std::size_t(rows * n)), gs(std::size_t(rows * m)), h(std::size_t(rows * r)), q(h.size());
    for (index i = 0; i < rows; ++i) {
        const index b = order[std::size_t(i)];
        std::copy_n(x.data() + b * x.stride(0), n, xs.data() + i * n);
        std::copy_n(grad_y.data() + b * grad_y.stride(0), m, gs.data() + i * m);
    }
    for (index t = 0; t < down.extent(0); ++t) {
        const index first = begin[std::size_t(t)], count = begin[std::size_t(t + 1)] - first;
        const kernels::strided_matrix<const T> x_t{xs.data() + first * n, n, 1}, g_t{gs.data() + first * m, m, 1};
        const view<T, 2> h_t(h.data() + first * r, {count, r}), q_t(q.data() + first * r, {count, r});
        const auto of = [t](const auto& v) { return v.data() + t * v.stride(0); };
        const view<T, 2> to_up(of(grad_up), {m, r}, {grad_up.stride(1), 1});
        const view<T, 2> to_down(of(grad_down), {r, n}, {grad_down.stride(1), 1});
        detail::multiply<T>(x_t, {of(down), 1, down.stride(1)}, n, false, h_t, executor);
        detail::multiply<T>(g_t, {of(up), up.stride(1), 1}, m, false, q_t, executor);
        for (index i = first * r; i < (first + count) * r; ++i) {
            h[std::size_t(i)] *= scale;
            q[std::size_t(i)] *= scale;
        }
        detail::multiply<T>(g_t.transposed(), {h_t.data(), r, 1}, count, false, to_up, executor);
        detail::multiply<T>({q_t.data(), 1, r}, x_t, count, false, to_down, executor);
        if (grad_task_bias.is_given())
            detail::sum_rows<T>(view<const T, 2>(g_t.data, {count, m}), of(grad_task_bias), executor);
    }
}

} // namespace DEFT_ISA
} // namespace deft

#endif

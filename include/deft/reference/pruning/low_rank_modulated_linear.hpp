/// \file
/// Naive reference of low_rank_modulated_linear (arXiv:2407.00676): loops per row.
///
///     y_b = W x_b + c up[t] (down[t] x_b) + bias + task_bias[t], t = task[b]        merged[t] = W + c up[t] down[t]
#ifndef DEFT_REFERENCE_PRUNING_LOW_RANK_MODULATED_LINEAR_HPP
#define DEFT_REFERENCE_PRUNING_LOW_RANK_MODULATED_LINEAR_HPP

#include <deft/view.hpp>

#include <cstdint>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

template <class T>
void low_rank_modulated_linear(in<T, 2> x, in<T, 2> weight, in<T, 3> down, in<T, 3> up, in<std::int64_t, 1> task,
                               T scale, in<T, 1> bias, in<T, 2> task_bias, view<T, 2> y) {
    for (index b = 0; b < x.extent(0); ++b) {
        const index t = index(task(b));
        std::vector<T> h(std::size_t(down.extent(1)), T(0));
        for (index k = 0; k < down.extent(1); ++k)
            for (index j = 0; j < x.extent(1); ++j)
                h[std::size_t(k)] += down(t, k, j) * x(b, j);
        for (index i = 0; i < weight.extent(0); ++i) {
            T sum = 0, low = 0;
            for (index j = 0; j < x.extent(1); ++j)
                sum += weight(i, j) * x(b, j);
            for (index k = 0; k < down.extent(1); ++k)
                low += up(t, i, k) * h[std::size_t(k)];
            sum += scale * low;
            if (bias.is_given())
                sum += bias(i);
            if (task_bias.is_given())
                sum += task_bias(t, i);
            y(b, i) = sum;
        }
    }
}

/// merged [T, m, n].
template <class T>
void low_rank_modulated_weight(in<T, 2> weight, in<T, 3> down, in<T, 3> up, T scale, view<T, 3> merged) {
    for (index t = 0; t < down.extent(0); ++t)
        for (index i = 0; i < weight.extent(0); ++i)
            for (index j = 0; j < weight.extent(1); ++j) {
                T low = 0;
                for (index k = 0; k < down.extent(1); ++k)
                    low += up(t, i, k) * down(t, k, j);
                merged(t, i, j) = weight(i, j) + scale * low;
            }
}

/// Row-major, each in the shape of its input.
template <class T>
struct modulated_gradients {
    std::vector<T> x, weight, down, up, bias, task_bias;
};

template <class T>
modulated_gradients<T> low_rank_modulated_linear_backward(in<T, 2> x, in<T, 2> weight, in<T, 3> down, in<T, 3> up,
                                                          in<std::int64_t, 1> task, T scale, in<T, 2> g) {
    const index rows = x.extent(0), n = x.extent(1), m = weight.extent(0), r = down.extent(1), tasks = down.extent(0);
    const auto zeros = [](index count) { return std::vector<T>(std::size_t(count), T(0)); };
    modulated_gradients<T> result{zeros(rows * n),      zeros(m * n), zeros(tasks * r * n),
                                  zeros(tasks * m * r), zeros(m),     zeros(tasks * m)};
    for (index b = 0; b < rows; ++b) {
        const index t = index(task(b));
        std::vector<T> h = zeros(r), q = zeros(r);
        for (index k = 0; k < r; ++k) {
            for (index j = 0; j < n; ++j)
                h[std::size_t(k)] += down(t, k, j) * x(b, j);
            for (index i = 0; i < m; ++i)
                q[std::size_t(k)] += scale * up(t, i, k) * g(b, i);
        }
        for (index i = 0; i < m; ++i) {
            for (index j = 0; j < n; ++j) {
                result.x[std::size_t(b * n + j)] += weight(i, j) * g(b, i);
                result.weight[std::size_t(i * n + j)] += g(b, i) * x(b, j);
            }
            for (index k = 0; k < r; ++k)
                result.up[std::size_t((t * m + i) * r + k)] += scale * g(b, i) * h[std::size_t(k)];
            result.bias[std::size_t(i)] += g(b, i);
            result.task_bias[std::size_t(t * m + i)] += g(b, i);
        }
        for (index k = 0; k < r; ++k)
            for (index j = 0; j < n; ++j) {
                result.x[std::size_t(b * n + j)] += down(t, k, j) * q[std::size_t(k)];
                result.down[std::size_t((t * r + k) * n + j)] += q[std::size_t(k)] * x(b, j);
            }
    }
    return result;
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Feature diversity: how far the rows of a token matrix are from being all equal. 0 is feature collapse.
///
/// The distance in which PanGu-pi (arXiv:2312.17276, section 3) and Augmented Shortcuts (arXiv:2106.15941) state their
/// theory; logged per layer, it shows what a shortcut brings. H is N tokens x d features, hbar the mean of its rows:
///
///     d_M(H) = min_x ||H - 1 x^T||_F = ||H - 1 hbar^T||_F
///     none: value = d_M(H)          frobenius: value = d_M(H) / ||H||_F, in [0, 1], and 0 for H = 0
///
/// The relative form is ours, for comparing layers of different scale.
///
/// h: `[..., N, d]`, leading axes collapsed into one, N >= 1; value: one number per matrix. Elements are float or
/// double. Rows that come in blocks: feature_diversity_state.hpp.
#ifndef DEFT_SHORTCUT_FEATURE_DIVERSITY_HPP
#define DEFT_SHORTCUT_FEATURE_DIVERSITY_HPP

#include <deft/kernels/row_spread.hpp>
#include <deft/parallel.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace deft {

enum class diversity_norm : unsigned char { none, frobenius };

struct feature_diversity_options {
    diversity_norm normalize = diversity_norm::none;
};

inline namespace DEFT_ISA {
namespace detail {

/// d_M and the Frobenius norm of a matrix, both times `scale`.
struct matrix_diversity {
    double distance, norm, scale;

    double value(diversity_norm normalize) const noexcept {
        if (normalize == diversity_norm::none)
            return distance / scale;
        return norm == 0 ? 0.0 : distance / norm;
    }
};

template <class T>
void check_diversity_rows(const char* op, const char* argument, index rows) {
    check(rows >= 1, op, argument, "its extent of rows: there is no mean of none", double(rows));
}

/// The power of two that brings the largest entry to about 1.
template <class T>
double normalising_scale(const view<const T, 2>& h) noexcept {
    T largest = 0;
    for (index r = 0; r < h.extent(0); ++r)
        for (index c = 0; c < h.extent(1); ++c)
            largest = std::max(largest, std::abs(h(r, c))); // ignores NaN, which the sums will meet
    if (largest == 0 || !std::isfinite(largest))
        return 1;
    int exponent = 0;
    std::frexp(double(largest), &exponent);
    return std::ldexp(1.0, std::min(-exponent, 1000));
}

// Columns are cut into at most 64 segments that depend on d alone; their sums are added in order, so that threads do
// not change a bit.
template <class T, class Executor>
matrix_diversity measure_diversity(const view<const T, 2>& h, Executor& executor) {
    constexpr index most_segments = 64, chunk = kernels::spread_chunk;
    const index rows = h.extent(0), columns = h.extent(1), stride = h.stride(0);
    const index segment = chunk * std::max<index>(1, (columns + most_segments * chunk - 1) / (most_segments * chunk));
    const auto sum_segments = [&](auto&& kernel) {
        kernels::spread_sums sums[std::size_t(most_segments)];
        executor.parallel_for((columns + segment - 1) / segment, 1 + (1 << 16) / (rows * segment),
                              [&](index begin, index end) {
                                  kernel(h.data() + begin * segment,
                                         std::min((end - begin) * segment, columns - begin * segment), sums + begin);
                              });
        for (index s = 1; s < most_segments; ++s)
            sums[0].add(sums[s]);
        return sums[0];
    };
    double scale = 1;
    kernels::spread_sums total = sum_segments([=](const T* from, index count, kernels::spread_sums* sums) {
        kernels::add_row_spread<simd::default_arch>(from, stride, rows, count, segment, sums);
    });
    // Squares that vanish in T cost up to its least number each; both limits leave their sum below rounding.
    using limits = std::numeric_limits<T>;
    const double least = double(limits::min()) / double(limits::epsilon()) * double(h.size());
    if (!(total.spread >= least && std::isfinite(total.spread) && std::isfinite(total.mean_square))) {
        scale = normalising_scale<T>(h);
        total = sum_segments([=](const T* from, index count, kernels::spread_sums* sums) {
            kernels::add_row_spread_scaled(from, stride, rows, count, segment, scale, sums);
        });
    }
    return {std::sqrt(total.spread), std::sqrt(total.spread + double(rows) * total.mean_square), scale};
}

/// f(index of a matrix, the matrix, an executor for it): many matrices are shared out whole, a single one is cut.
template <class T, class Executor, class F>
void for_each_matrix(const view<const T, 3>& h, Executor& executor, F&& f) {
    const auto matrix = [&](index b) {
        return view<const T, 2>(h.data() + b * h.stride(0), {h.extent(1), h.extent(2)}, {h.stride(1), index{1}});
    };
    if (h.extent(0) == 1)
        return f(index{0}, matrix(0), executor);
    executor.parallel_for(h.extent(0), 1 + (1 << 16) / (h.extent(1) * h.extent(2) + 1), [&](index begin, index end) {
        serial_executor here;
        for (index b = begin; b < end; ++b)
            f(b, matrix(b), here);
    });
}

} // namespace detail

/// value[b] = d_M(h[b]), or d_M(h[b]) / ||h[b]||_F; formulas and shapes at the top of this file.
///
/// Equal rows give exactly 0, whatever N; squares neither overflow nor vanish for any entries of T. A matrix that holds
/// NaN or an infinity has the value NaN. Throws std::invalid_argument before anything is written if N = 0 or value
/// does not have one element per matrix. Relative error: 1e-6 (float), 1e-15 (double). Reads h once, entries whose
/// squares leave the range of T, and collapsed matrices, three times more.
template <class T = void, class V = view<T, 1>, executor Executor = serial_executor>
void feature_diversity(in<element_t<T, V>, 3> h, V&& value_out, const feature_diversity_options& options = {},
                       Executor&& executor = Executor()) {
    using S = element_t<T, V>;
    const view<S, 1> value(value_out);
    const char* const op = "feature_diversity";
    detail::check_diversity_rows<S>(op, "h", h.extent(1));
    detail::check_extent(op, "value", value, 0, h.extent(0), "extent 0 of h");
    detail::for_each_matrix<S>(h, executor, [&](index b, const view<const S, 2>& matrix, auto& team) {
        value(b) = S(detail::measure_diversity<S>(matrix, team).value(options.normalize));
    });
}

/// The same for one matrix: `deft::feature_diversity<float>(h)`.
template <class T, executor Executor = serial_executor>
T feature_diversity(in<T, 2> h, const feature_diversity_options& options = {}, Executor&& executor = Executor()) {
    detail::check_diversity_rows<T>("feature_diversity", "h", h.extent(0));
    return T(detail::measure_diversity<T>(h, executor).value(options.normalize));
}

/// Gradient for the cotangent grad_value of value; C = H - 1 hbar^T, D = d_M(H), F = ||H||_F:
///
///     none: grad_h = g C / D          frobenius: grad_h = g / F (C / D - (D / F) (H / F))          0 where D = 0
///
/// The 0 for equal rows is a subgradient. grad_h has the shape of h and must not overlap it. Throws like
/// feature_diversity. Computed in double, rounded once.
template <class T = void, class GH = view<T, 3>, executor Executor = serial_executor>
void feature_diversity_backward(in<element_t<T, GH>, 3> h, in<element_t<T, GH>, 1> grad_value, GH&& grad_h_out,
                                const feature_diversity_options& options = {}, Executor&& executor = Executor()) {
    using S = element_t<T, GH>;
    const view<S, 3> grad_h(grad_h_out);
    const char* const op = "feature_diversity_backward";
    detail::check_diversity_rows<S>(op, "h", h.extent(1));
    detail::check_extent(op, "grad_value", grad_value, 0, h.extent(0), "extent 0 of h");
    detail::check_same_shape(op, "grad_h", grad_h, "h", h);
    detail::for_each_matrix<S>(h, executor, [&](index b, const view<const S, 2>& matrix, auto& team) {
        const detail::matrix_diversity m = detail::measure_diversity<S>(matrix, team);
        const double g = double(grad_value(b));
        double of_deviation = 0, of_value = 0;
        if (m.distance != 0) { // also for NaN
            const double relative = options.normalize == diversity_norm::frobenius ? g * m.scale / m.norm : g;
            of_deviation = relative / m.distance;
            if (options.normalize == diversity_norm::frobenius)
                of_value = relative * (m.distance / m.norm) / m.norm;
        }
        constexpr index block = kernels::spread_chunk;
        const index columns = matrix.extent(1);
        team.parallel_for((columns + block - 1) / block, 1 + (1 << 14) / (matrix.extent(0) * block),
                          [&](index begin, index end) {
                              const index c = begin * block;
                              kernels::row_spread_gradient(matrix.data() + c, matrix.stride(0), matrix.extent(0),
                                                           std::min(end * block, columns) - c, m.scale, of_deviation,
                                                           of_value, &grad_h(b, 0, 0) + c, grad_h.stride(1));
                          });
    });
}

} // namespace DEFT_ISA
} // namespace deft

#endif

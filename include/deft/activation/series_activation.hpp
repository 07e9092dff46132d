/// \file
/// Series activation: several copies of a base activation, each with its own scale and bias, summed.
///
/// A cheap activation with more nonlinearity. VanillaNet (arXiv:2305.12972, eq. 4, "series informed activation") puts
/// the scale outside, PanGu-pi (arXiv:2312.17276, section 4.2, SIAF) inside, where the base may differ per term:
///
///     outer:  y = sum_i a_i sigma_i(x + b_i)          inner:  y = sum_i sigma_i(a_i x + b_i)
///
/// x, y: `[..., C]`, any rank >= 1, rows any distance apart. a, b: `[n]`, the same for all channels, or `[n, C]`; n
/// >= 1. Elements are float, double, or half / bfloat16 in x and y with a and b in float (forward only); T is float or
/// double.
#ifndef DEFT_ACTIVATION_SERIES_ACTIVATION_HPP
#define DEFT_ACTIVATION_SERIES_ACTIVATION_HPP

#include <deft/activation/series_terms.hpp>
#include <deft/kernels/series.hpp>
#include <deft/kernels/series_gradient.hpp>
#include <deft/kernels/streamed_blocks.hpp>
#include <deft/parallel.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {

/// y = sum_i a_i sigma_i(x + b_i) or sum_i sigma_i(a_i x + b_i); formulas, shapes and types at the top of this file.
///
/// y may be x. Throws std::invalid_argument before anything is written if shapes do not fit, there is no term, or the
/// slope is NaN. NaN in x gives NaN there and nowhere else; large |x| stays finite.
/// Error per term: relu, leaky_relu rounding only; silu, sigmoid 3 ulp; tanh 7 ulp; gelu 3e-7 max(1, |u|) (float).
template <class T = void, class Y = rows<T>, executor Executor = serial_executor>
void series_activation(in_rows<element_t<T, Y>> x, in_terms<compute_t<element_t<T, Y>>> a,
                       in_terms<compute_t<element_t<T, Y>>> b, Y&& y_out, const series_activation_options& options,
                       Executor&& executor = Executor()) {
    using S = element_t<T, Y>;
    using compute = compute_t<S>;
    const rows<S> y(y_out);
    const char* const op = "series_activation";
    detail::check_same_shape(op, "y", y, "x", x);
    const auto terms = detail::checked_terms<compute>(op, x.extent(1), a, b, options);

    using arch = simd::default_arch;
    const bool flat = a.is_shared() && x.is_contiguous() && y.is_contiguous();
    // Between 44 KB, where asking for memory ahead costs short activations a tenth, and 1 MB, where it gains as much.
    const bool beyond_cache = x.size() * index(sizeof(S)) > 131072;
    const bool streams = y.size() * index(sizeof(S)) > kernels::streamed_bytes && x.data() != y.data() &&
                         (flat || x.extent(1) >= kernels::streamed_row);
    detail::for_each_piece(x.extent(0), x.extent(1), flat, executor, [&](index r, index c, index n) {
        const S* const from = x.data() + r * x.stride(0) + c;
        S* const to = y.data() + r * y.stride(0) + c;
        if (!streams)
            return kernels::series_forward<arch>(terms, c, from, to, n, beyond_cache);
        kernels::stream_blocks<arch, compute>(to, n, [&](index at, index count, S* block) {
            kernels::series_forward<arch>(terms, c + at, from + at, block, count, beyond_cache);
        });
        simd::stream_end();
    });
}

namespace detail {

// grad_a and grad_b of terms [first, last) from sums[2 (i - first) + which] at `at` channels or once.
template <class T>
void store_term_gradients(const kernels::series_terms<T>& terms, index first, index last, index c, index width,
                          const double* sums, index sum_stride, const term_parameters<T>& grad_a,
                          const term_parameters<T>& grad_b) noexcept {
    for (index i = first; i < last; ++i)
        for (index lane = 0; lane < width; ++lane) {
            const double sum_a = sums[2 * (i - first) * sum_stride + lane];
            const double sum_b = sums[(2 * (i - first) + 1) * sum_stride + lane];
            const double scale = !terms.inner ? static_cast<double>(terms.a[i * terms.stride + c + lane]) : 1.0;
            grad_a.data()[i * grad_a.stride() + c + lane] = static_cast<T>(sum_a);
            grad_b.data()[i * grad_b.stride() + c + lane] = static_cast<T>(scale * sum_b);
        }
}

// Terms whose sums are carried at a time.
inline constexpr index gradient_group = 8;

// Shared a and b. The elements are cut into at most 64 segments that depend on the shape alone; their sums are added in
// order, so that threads do not change a bit.
template <class T, class Executor>
void series_backward_shared(const kernels::series_terms<T>& terms, const view<const T, 2>& x, const view<const T, 2>& g,
                            const view<T, 2>& grad_x, const term_parameters<T>& grad_a,
                            const term_parameters<T>& grad_b, Executor& executor) {
    constexpr index piece = 8192, most_segments = 64;
    const bool flat = x.is_contiguous() && g.is_contiguous() && grad_x.is_contiguous();
    const index row_count = flat ? std::min<index>(x.size(), 1) : x.extent(0);
    const index channels = flat ? x.size() : x.extent(1);
    const index pieces_per_row = (channels + piece - 1) / piece;
    const index pieces = row_count * pieces_per_row;
    const index segments = std::min(pieces, most_segments);
    for (index first = 0; first < terms.count; first += gradient_group) {
        const index last = std::min(terms.count, first + gradient_group);
        double sums[std::size_t(most_segments)][std::size_t(2 * gradient_group)] = {};
        executor.parallel_for(segments, 1, [&](index begin, index end) {
            for (index s = begin; s < end; ++s)
                for (index p = pieces * s / segments; p < pieces * (s + 1) / segments; ++p) {
                    const index r = p / pieces_per_row, c = p % pieces_per_row * piece;
                    kernels::series_backward_shared<simd::default_arch>(
                        terms, first, last, std::min(piece, channels - c), x.data() + r * x.stride(0) + c,
                        g.data() + r * g.stride(0) + c, grad_x.data() + r * grad_x.stride(0) + c, sums[s]);
                }
        });
        for (index s = 1; s < segments; ++s)
            for (index k = 0; k < 2 * gradient_group; ++k)
                sums[0][k] += sums[s][k];
        store_term_gradients(terms, first, last, index{0}, index{1}, sums[0], index{1}, grad_a, grad_b);
    }
}

// One a and b per channel. A task owns whole channels, so that their sums need no merging; rows are taken a few at a
// time so that the cache lines of neighbouring vectors and the pages of rows are still at hand.
template <class T, class Executor>
void series_backward_channels(const kernels::series_terms<T>& terms, const view<const T, 2>& x,
                              const view<const T, 2>& g, const view<T, 2>& grad_x, const term_parameters<T>& grad_a,
                              const term_parameters<T>& grad_b, Executor& executor) {
    using arch = simd::default_arch;
    constexpr index width = simd::lanes<T, arch>, block = 64, row_run = 64;
    static_assert(block % width == 0 && row_run <= kernels::gradient_run);
    const index channels = x.extent(1);
    executor.parallel_for((channels + block - 1) / block, 1, [&](index begin, index end) {
        for (index c = begin * block; c < std::min(end * block, channels); c += block)
            for (index first = 0; first < terms.count; first += gradient_group) {
                const index last = std::min(terms.count, first + gradient_group), stop = std::min(c + block, channels);
                double sums[std::size_t(block / width)][std::size_t(2 * gradient_group * width)] = {};
                for (index r = 0; r < x.extent(0); r += row_run)
                    for (index v = c; v < stop; v += width) {
                        const kernels::gradient_strip<T> rows{
                            x.data() + r * x.stride(0) + v,           x.stride(0),
                            g.data() + r * g.stride(0) + v,           g.stride(0),
                            grad_x.data() + r * grad_x.stride(0) + v, grad_x.stride(0),
                            std::min(row_run, x.extent(0) - r)};
                        kernels::series_backward_channels<arch>(terms, first, last, v, std::min(width, stop - v), rows,
                                                                sums[(v - c) / width]);
                    }
                for (index v = c; v < stop; v += width)
                    store_term_gradients(terms, first, last, v, std::min(width, stop - v), sums[(v - c) / width], width,
                                         grad_a, grad_b);
            }
    });
}

} // namespace detail

/// Gradients of series_activation for the cotangent grad_y of y; u_i = x + b_i (outer) or a_i x + b_i (inner):
///
///     grad_x = grad_y sum_i a_i sigma_i'(u_i)
///     outer:  grad_a_i = sum grad_y sigma_i(u_i)       grad_b_i = sum grad_y a_i sigma_i'(u_i)
///     inner:  grad_a_i = sum grad_y x sigma_i'(u_i)    grad_b_i = sum grad_y sigma_i'(u_i)
///
/// with sums over every element that shares a_i, taken in T over short runs and then in double; relu' is 0 at 0,
/// leaky_relu' the slope. x is the input of the forward call; T is float or double. grad_x may not overlap any input.
/// For no elements, grad_a and grad_b are 0. Throws like series_activation. The same bits for every executor.
template <class T = void, class GX = rows<T>, executor Executor = serial_executor>
void series_activation_backward(in_rows<element_t<T, GX>> x, in_terms<element_t<T, GX>> a, in_terms<element_t<T, GX>> b,
                                in_rows<element_t<T, GX>> grad_y, GX&& grad_x_out,
                                typename detail::non_deduced<term_parameters<element_t<T, GX>>>::type grad_a,
                                typename detail::non_deduced<term_parameters<element_t<T, GX>>>::type grad_b,
                                const series_activation_options& options, Executor&& executor = Executor()) {
    using S = element_t<T, GX>;
    const rows<S> grad_x(grad_x_out);
    const char* const op = "series_activation_backward";
    detail::check_same_shape(op, "grad_y", grad_y, "x", x);
    detail::check_same_shape(op, "grad_x", grad_x, "x", x);
    const auto terms = detail::checked_terms<S>(op, x.extent(1), a, b, options);
    detail::check_terms(op, "grad_a", grad_a, a, x.extent(1));
    detail::check_terms(op, "grad_b", grad_b, a, x.extent(1));
    if (a.is_shared())
        detail::series_backward_shared<S>(terms, x, grad_y, grad_x, grad_a, grad_b, executor);
    else
        detail::series_backward_channels<S>(terms, x, grad_y, grad_x, grad_a, grad_b, executor);
}

} // namespace DEFT_ISA
} // namespace deft

#endif

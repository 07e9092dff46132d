/// \file
/// Search for the step size of a weight matrix by a metric that knows how the loss depends on its output: PTQ4ViT
/// (arXiv:2111.12293, algorithm 1), for TinySAM (arXiv:2312.13789). With Q = 2^(b-1):
///
///     s_j = (alpha + (beta - alpha) j / (n - 1)) max |w| / (Q - 1),   j = 0 .. n-1
///     score_j = sum over t, o of (g (x (w_hat(s_j) - w)^T))^2,   w_hat(s) = s clip(round(w / s), -Q, Q - 1)
///
/// x: `[T, K]`; w: `[O, K]`; grad g, the gradient of the loss by x w^T: `[T, O]`; steps, scores: `[n]`. Elements are
/// float or double. Calibration: it allocates for a few rows of w_hat - w and their products.
#ifndef DEFT_QUANTIZATION_STEP_SEARCH_HPP
#define DEFT_QUANTIZATION_STEP_SEARCH_HPP

#include <deft/kernels/fake_quantize.hpp>
#include <deft/linalg.hpp>
#include <deft/parallel.hpp>
#include <deft/quantization/quant_params.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace deft {

struct step_search_options {
    required<int> bits; ///< 2 .. 8
    double alpha = 0.5;
    double beta = 1.2;
    index count = 100; ///< n, at least 2
};

inline namespace DEFT_ISA {
namespace detail {

template <class T>
double step_score(const view<const T, 2>& x, const view<const T, 2>& w, const view<const T, 2>& grad,
                  const kernels::quant_grid<T>& grid) {
    constexpr index block = 128;
    const index tokens = x.extent(0), depth = x.extent(1);
    std::vector<T> changes(std::size_t(block * depth)), products(std::size_t(block * tokens));
    double score = 0;
    for (index o = 0; o < w.extent(0); o += block) {
        const index count = std::min(block, w.extent(0) - o);
        for (index i = 0; i < count; ++i) {
            T* const to = changes.data() + i * depth;
            const T* const from = w.data() + (o + i) * w.stride(0);
            kernels::fake_quantize<simd::default_arch>(from, depth, grid, to, nullptr);
            for (index k = 0; k < depth; ++k)
                to[k] -= from[k];
        }
        const view<T, 2> product(products.data(), {tokens, count});
        linalg::gemm<T>(T(1), x, linalg::matrix<const T>(changes.data(), depth, count, 1, depth), T(0), product);
        for (index t = 0; t < tokens; ++t)
            for (index i = 0; i < count; ++i) {
                const double error = double(grad(t, o + i)) * double(product(t, i));
                score += error * error;
            }
    }
    return score;
}

} // namespace detail

/// The steps that were tried and their scores; returns the first j with the least score. A matrix of zeros has scores
/// 0. Throws std::invalid_argument before anything is written if shapes do not fit, bits is not 2 .. 8, count < 2, or
/// alpha or beta is not positive and finite. Candidates are shared among threads; the same bits for every executor.
template <class T = void, class S = view<T, 1>, executor Executor = serial_executor>
index step_search(in<element_t<T, S>, 2> x, in<element_t<T, S>, 2> w, in<element_t<T, S>, 2> grad, S&& steps_out,
                  out<element_t<T, S>, 1> scores, const step_search_options& options,
                  Executor&& executor = Executor()) {
    using E = element_t<T, S>;
    const char* const op = "step_search";
    const view<E, 1> steps(steps_out);
    const quant_format format{.bits = options.bits};
    detail::check_format(op, format);
    detail::check_extent(op, "w", w, 1, x.extent(1), "extent 1 of x");
    detail::check_extent(op, "grad", grad, 0, x.extent(0), "extent 0 of x");
    detail::check_extent(op, "grad", grad, 1, w.extent(0), "extent 0 of w");
    detail::check(options.count >= 2, op, "count", "must be at least 2", double(options.count));
    detail::check(options.alpha > 0 && std::isfinite(options.alpha), op, "alpha", "must be positive and finite",
                  options.alpha);
    detail::check(options.beta > 0 && std::isfinite(options.beta), op, "beta", "must be positive and finite",
                  options.beta);
    detail::check_extent(op, "steps", steps, 0, options.count, "count");
    detail::check_extent(op, "scores", scores, 0, options.count, "count");
    const detail::quant_levels levels = detail::levels_of(format);
    const kernels::value_range<E> range = detail::matrix_range<E>(w, executor);
    const double peak = w.size() == 0 ? 0.0 : std::max(-double(range.least), double(range.greatest));
    const double base = peak / double(levels.greatest);
    executor.parallel_for(options.count, 1, [&](index begin, index end) {
        for (index j = begin; j < end; ++j) {
            const double share = double(j) / double(options.count - 1);
            steps(j) = E(base * (options.alpha + (options.beta - options.alpha) * share));
            scores(j) = steps(j) > E(0)
                            ? E(detail::step_score<E>(x, w, grad, detail::quant_step<E>{steps(j), 0}.grid(levels)))
                            : E(0);
        }
    });
    return std::min_element(scores.data(), scores.data() + options.count) - scores.data();
}

} // namespace DEFT_ISA
} // namespace deft

#endif

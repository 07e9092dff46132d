/// \file
/// Coarse-to-fine pre-processing of CBQ (arXiv:2312.07950): outliers are found by quartiles, then told from the rest by
/// the split with the widest gap; outliers of weights are truncated, channels of activations that have them are scaled
/// down. Preparation: it runs once per matrix or site, reads its input a few times, and allocates for its candidates.
///
///     a = sort |x|    T = Q3 + lambda1 (Q3 - Q1)    candidates O = {a_k > T}, ascending
///     for each split i: K = O[0:i], R = O[i:]    M = (min R - max K)^2 - lambda2 Var(K)    the first greatest M wins
///
/// max of nothing is T; Var is that of the population, 0 for one element or none. outlier_min = O[i], boundary = the
/// greatest magnitude strictly below it. No candidates: no outliers, boundary = outlier_min = max |x|.
///
/// Elements are float or double; statistics are computed in double. NaN, infinities and nothing at all are errors.
#ifndef DEFT_QUANTIZATION_CFP_OUTLIERS_HPP
#define DEFT_QUANTIZATION_CFP_OUTLIERS_HPP

#include <deft/kernels/magnitudes.hpp>
#include <deft/parallel.hpp>
#include <deft/quantization/cfp_detection.hpp>
#include <deft/quantization/quant_format.hpp>
#include <deft/simd/batch.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

namespace deft {

enum class cfp_scope : unsigned char { matrix, row };

/// What a channel's peak is compared with: the greatest kept peak, or the least outlier (the paper can be read as
/// both).
enum class cfp_reference : unsigned char { boundary, outlier_min };

struct smooth_scale_options {
    double alpha = 0.5;
    double floor = 1e-5; ///< least peak of a channel, and least scale
};

inline namespace DEFT_ISA {
namespace detail {

/// peaks, in blocks of columns on the stack: f(first column, count, greatest magnitudes).
template <class T, class F>
void for_each_peak_block(const view<const T, 2>& x, F&& f) {
    constexpr index block = 512;
    for (index c = 0; c < x.extent(1); c += block) {
        T peaks[std::size_t(block)] = {};
        const index count = std::min(block, x.extent(1) - c);
        kernels::column_peaks<simd::default_arch, T>({x.data() + c, x.stride(0), x.extent(0), count}, peaks);
        f(c, count, peaks);
    }
}

} // namespace detail

/// The outliers among all elements of x `[...]`, and a mask of x's shape, 1 where |x| >= outlier_min and there are
/// outliers, unless absent. Throws std::invalid_argument before anything is written if x has no elements or one that is
/// not finite, shapes do not fit, or lambda1 or lambda2 is negative. Counts and mask are exact.
template <class T>
cfp_result cfp_detect(in_rows<T> x, rows<std::uint8_t> is_outlier, const cfp_options& options = {}) {
    const char* const op = "cfp_detect";
    detail::check_cfp(op, options);
    if (is_outlier.is_given())
        detail::check_same_shape(op, "is_outlier", is_outlier, "x", x);
    detail::check_finite<T>(op, "x", x);
    const cfp_result found = detail::detect_outliers(detail::magnitudes<T>(x), options);
    if (is_outlier.is_given())
        for (index r = 0; r < x.extent(0); ++r)
            for (index c = 0; c < x.extent(1); ++c)
                is_outlier(r, c) = found.outliers > 0 && std::abs(double(x(r, c))) >= found.outlier_min;
    return found;
}

/// w_out = clip(w, -boundary, boundary), `[R, C]`, detection over the whole matrix or row by row; clip: the boundaries,
/// `[1]` or `[R]`. w_out may be w. Throws like cfp_detect. The same bits for every executor.
template <class T = void, class W = view<T, 2>, executor Executor = serial_executor>
void cfp_truncate_weight(in<element_t<T, W>, 2> w, W&& w_out, out<element_t<T, W>, 1> clip, cfp_scope scope,
                         const cfp_options& options = {}, Executor&& executor = Executor()) {
    using S = element_t<T, W>;
    const char* const op = "cfp_truncate_weight";
    const view<S, 2> to(w_out);
    const index parts = scope == cfp_scope::row ? w.extent(0) : 1, rows = scope == cfp_scope::row ? 1 : w.extent(0);
    detail::check_cfp(op, options);
    detail::check_same_shape(op, "w_out", to, "w", w);
    detail::check_extent(op, "clip", clip, 0, parts, "parts with a boundary of their own");
    detail::check_finite<S>(op, "w", w);
    executor.parallel_for(parts, detail::rows_per_task(8 * rows * w.extent(1)), [&](index begin, index end) {
        for (index part = begin; part < end; ++part) {
            const S* const from = w.data() + part * rows * w.stride(0);
            const S bound = S(detail::detect_outliers<S>({from, w.stride(0), rows, w.extent(1)}, options).boundary);
            for (index r = 0; r < rows; ++r)
                kernels::clip_magnitudes<simd::default_arch>(from + r * w.stride(0), w.extent(1), bound,
                                                             to.data() + (part * rows + r) * to.stride(0));
            clip(part) = bound;
        }
    });
}

/// peaks[c] = max(peaks[c], max over the rows of x of |x_c|): peaks, at first 0, of activations that come in batches.
/// x `[T, C]`; peaks `[C]`. Throws std::invalid_argument before anything is written if shapes do not fit or x has an
/// element that is not finite.
template <class T = void, class P = view<T, 1>>
void cfp_peaks(in_rows<element_t<T, P>> x, P&& peaks_out) {
    using S = element_t<T, P>;
    const view<S, 1> peaks(peaks_out);
    detail::check_extent("cfp_peaks", "peaks", peaks, 0, x.extent(1), "extent 1 of x");
    if (x.size() == 0)
        return;
    detail::check_finite<S>("cfp_peaks", "x", x);
    kernels::column_peaks<simd::default_arch, S>(detail::magnitudes<S>(x), peaks.data());
}

/// The scales of channels with these peaks, detection over the peaks:
///
///     s_c = sqrt(peak_c / ref) if there are outliers, ref > 0 and peak_c > ref, else 1
///
/// peaks, scale: `[C]`; scale may be peaks. Throws like cfp_detect.
template <class T = void, class S = view<T, 1>>
void cfp_scale(in<element_t<T, S>, 1> peaks, S&& scale_out, const cfp_options& options = {},
               cfp_reference reference = cfp_reference::boundary) {
    using E = element_t<T, S>;
    const view<E, 1> scale(scale_out);
    const view<const E, 2> row(peaks.data(), {index{1}, peaks.extent(0)});
    detail::check_cfp("cfp_scale", options);
    detail::check_same_shape("cfp_scale", "scale", scale, "peaks", peaks);
    detail::check_finite<E>("cfp_scale", "peaks", row);
    const cfp_result found = detail::detect_outliers<E>(detail::magnitudes<E>(row), options);
    const double ref = reference == cfp_reference::boundary ? found.boundary : found.outlier_min;
    for (index c = 0; c < peaks.extent(0); ++c) {
        const double peak = std::abs(double(peaks(c)));
        scale(c) = found.outliers > 0 && ref > 0 && peak > ref ? E(std::sqrt(peak / ref)) : E(1);
    }
}

/// Scales of the channels of x `[T, C]` from its own peaks, x_out = x / scale, w_out = w scale for w `[O, C]`, so that
/// x_out w_out^T = x w^T but for rounding; in a model 1 / scale goes into the layer before. scale: `[C]`. x_out may be
/// x, w_out may be w. Throws like cfp_detect.
template <class T = void, class S = view<T, 1>, executor Executor = serial_executor>
void cfp_scale_activation(in<element_t<T, S>, 2> x, in<element_t<T, S>, 2> w, S&& scale_out,
                          out<element_t<T, S>, 2> x_out, out<element_t<T, S>, 2> w_out, const cfp_options& options = {},
                          cfp_reference reference = cfp_reference::boundary, Executor&& executor = Executor()) {
    using E = element_t<T, S>;
    const char* const op = "cfp_scale_activation";
    const view<E, 1> scale(scale_out);
    detail::check_cfp(op, options);
    detail::check_extent(op, "w", w, 1, x.extent(1), "extent 1 of x");
    detail::check_extent(op, "scale", scale, 0, x.extent(1), "extent 1 of x");
    detail::check_same_shape(op, "x_out", x_out, "x", x);
    detail::check_same_shape(op, "w_out", w_out, "w", w);
    detail::check_finite<E>(op, "x", x);
    std::fill_n(scale.data(), scale.extent(0), E(0));
    kernels::column_peaks<simd::default_arch, E>(detail::magnitudes<E>(x), scale.data());
    deft::cfp_scale<E>(scale, scale, options, reference);
    const auto each_row = [&](const auto& from, const view<E, 2>& to, auto divide) {
        executor.parallel_for(from.extent(0), detail::rows_per_task(from.extent(1)), [&](index begin, index end) {
            for (index r = begin; r < end; ++r)
                kernels::scale_columns<divide.value, simd::default_arch>(from.data() + r * from.stride(0), scale.data(),
                                                                         from.extent(1), to.data() + r * to.stride(0));
        });
    };
    each_row(x, x_out, std::true_type{});
    each_row(w, w_out, std::false_type{});
}

/// SmoothQuant's scale (arXiv:2211.10438, eq. 4), for comparison:
///
///     s_c = max(max |x_c|^alpha / max |w_c|^(1 - alpha), floor)      both maxima at least floor
///
/// x: `[T, C]`; w: `[O, C]`; scale: `[C]`. Throws std::invalid_argument before anything is written if shapes do not
/// fit, x or w has no element or one that is not finite, alpha is outside [0, 1], or floor is not positive.
template <class T = void, class S = view<T, 1>>
void smooth_scale(in<element_t<T, S>, 2> x, in<element_t<T, S>, 2> w, S&& scale_out,
                  const smooth_scale_options& options = {}) {
    using E = element_t<T, S>;
    const char* const op = "smooth_scale";
    const view<E, 1> scale(scale_out);
    detail::check_extent(op, "w", w, 1, x.extent(1), "extent 1 of x");
    detail::check_extent(op, "scale", scale, 0, x.extent(1), "extent 1 of x");
    detail::check(options.alpha >= 0 && options.alpha <= 1, op, "alpha", "must lie in [0, 1]", options.alpha);
    detail::check(options.floor > 0 && std::isfinite(options.floor), op, "floor", "must be positive and finite",
                  options.floor);
    detail::check_finite<E>(op, "x", x);
    detail::check_finite<E>(op, "w", w);
    detail::for_each_peak_block<E>(
        x, [&](index c, index count, const E* peaks) { std::copy_n(peaks, count, scale.data() + c); });
    detail::for_each_peak_block<E>(w, [&](index c, index count, const E* peaks) {
        for (index i = 0; i < count; ++i) {
            const double of_x = std::max(double(scale(c + i)), options.floor);
            const double of_w = std::max(double(peaks[i]), options.floor);
            scale(c + i) =
                E(std::max(std::pow(of_x, options.alpha) / std::pow(of_w, 1 - options.alpha), options.floor));
        }
    });
}

} // namespace DEFT_ISA
} // namespace deft

#endif

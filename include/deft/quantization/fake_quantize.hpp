/// \file
/// Quantise and dequantise: a matrix on its uniform grid, with step sizes that can be learned. The base of CBQ
/// (arXiv:2312.07950, section 3), after OmniQuant (arXiv:2308.13137); the gradient of the step is LSQ's
/// (arXiv:1902.08153, eq. 1-5).
///
///     c = round(x / s) + z    round half to even      q = clip(c, qmin, qmax)      y = s (q - z)
///
/// x, y: `[R, C]`, rows any distance apart; q: `[R, C]` of integers, or absent; scale s and zero_point z: see
/// quant_format.hpp, which also has the ranges of codes. Elements are float or double.
///
/// fake_quantize_dynamic computes s and z from x itself first, as quant_params does, row by row while it is in cache.
#ifndef DEFT_QUANTIZATION_FAKE_QUANTIZE_HPP
#define DEFT_QUANTIZATION_FAKE_QUANTIZE_HPP

#include <deft/kernels/fake_quantize.hpp>
#include <deft/kernels/streamed_blocks.hpp>
#include <deft/parallel.hpp>
#include <deft/quantization/quant_format.hpp>
#include <deft/quantization/quant_params.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <type_traits>

namespace deft {

/// Factor of the gradient of a step: 1, or LSQ's 1 / sqrt(n qmax), n the number of elements that share the step.
enum class step_gradient : unsigned char { plain, lsq };

struct fake_quantize_options {
    quant_format format;
    step_gradient gradient = step_gradient::plain;
};

inline namespace DEFT_ISA {
namespace detail {

template <class T>
void check_codes(const char* op, const view<quant_code, 2>& q, const view<const T, 2>& x) {
    if (q.is_given())
        check_same_shape(op, "q", q, "x", x);
}

template <class T, class F>
void with_streaming(const view<const T, 2>& x, const view<T, 2>& y, F&& f) {
    if (y.size() * index(sizeof(T)) > kernels::streamed_bytes && x.data() != y.data() &&
        x.extent(1) >= kernels::streamed_row) {
        f(std::true_type{});
        simd::stream_end();
    } else {
        f(std::false_type{});
    }
}

/// Columns [c, c + count) of row r.
template <bool Streaming, class T>
DEFT_ALWAYS_INLINE void quantize_run(const view<const T, 2>& x, index r, index c, index count,
                                     const kernels::quant_grid<T>& grid, const view<T, 2>& y,
                                     const view<quant_code, 2>& q) noexcept {
    kernels::fake_quantize<simd::default_arch, Streaming>(x.data() + r * x.stride(0) + c, count, grid,
                                                          y.data() + r * y.stride(0) + c,
                                                          q.is_given() ? q.data() + r * q.stride(0) + c : nullptr);
}

} // namespace detail

/// y, and the codes q unless absent; formulas and shapes at the top of this file.
///
/// y may be x. NaN gives NaN (and an unspecified code), infinities saturate. Throws std::invalid_argument before
/// anything is written if a shape does not fit, bits is not 2 .. 8, group_size is not positive where it counts, or a
/// step is not positive and finite. Codes are those of a division, not of a product with 1 / s. The same bits for every
/// executor. y beyond 32 MB is written past the caches.
template <class T = void, class Y = view<T, 2>, executor Executor = serial_executor>
void fake_quantize(in<element_t<T, Y>, 2> x, in<element_t<T, Y>, 2> scale, view<const quant_code, 2> zero_point,
                   Y&& y_out, view<quant_code, 2> q, const fake_quantize_options& options,
                   Executor&& executor = Executor()) {
    using S = element_t<T, Y>;
    static_assert(std::is_floating_point_v<S>, "fake_quantize takes float or double");
    const char* const op = "fake_quantize";
    const view<S, 2> y(y_out);
    detail::check_format(op, options.format);
    detail::check_scale<S>(op, scale, zero_point, x, options.format);
    detail::check_same_shape(op, "y", y, "x", x);
    detail::check_codes<S>(op, q, x);
    const detail::quant_levels levels = detail::levels_of(options.format);
    const detail::quant_blocks blocks(x.extent(0), x.extent(1), options.format);
    detail::with_streaming<S>(x, y, [&](auto streaming) {
        executor.parallel_for(x.extent(0), detail::rows_per_task(x.extent(1)), [&](index begin, index end) {
            for (index r = begin; r < end; ++r)
                blocks.for_each_group(0, x.extent(1), [&](index g, index c, index count) {
                    const index sr = blocks.scale_row(r);
                    const detail::quant_step<S> step{scale(sr, g), zero_point(sr, g)};
                    detail::quantize_run<streaming.value, S>(x, r, c, count, step.grid(levels), y, q);
                });
            if constexpr (streaming.value)
                simd::stream_end();
        });
    });
}

/// Gradients of fake_quantize for the cotangent grad_y, straight through the rounding; m = 1 where qmin <= c <= qmax,
/// tested on the rounded code, else 0:
///
///     grad_x = grad_y m      grad_s = f sum over the elements of s of grad_y ((q - z) - m x / s)
///
/// f: options.gradient. z gets none. grad_scale may be absent; grad_x may be grad_y. Throws like fake_quantize. Sums in
/// blocks of T, then in double. The same bits for every executor.
template <class T = void, class GX = view<T, 2>, executor Executor = serial_executor>
void fake_quantize_backward(in<element_t<T, GX>, 2> x, in<element_t<T, GX>, 2> scale,
                            view<const quant_code, 2> zero_point, in<element_t<T, GX>, 2> grad_y, GX&& grad_x_out,
                            out<element_t<T, GX>, 2> grad_scale, const fake_quantize_options& options,
                            Executor&& executor = Executor()) {
    using S = element_t<T, GX>;
    const char* const op = "fake_quantize_backward";
    const view<S, 2> grad_x(grad_x_out);
    detail::check_format(op, options.format);
    detail::check_scale<S>(op, scale, zero_point, x, options.format);
    detail::check_same_shape(op, "grad_y", grad_y, "x", x);
    detail::check_same_shape(op, "grad_x", grad_x, "x", x);
    if (grad_scale.is_given())
        detail::check_same_shape(op, "grad_scale", grad_scale, "scale", scale);
    const detail::quant_levels levels = detail::levels_of(options.format);
    const detail::quant_blocks blocks(x.extent(0), x.extent(1), options.format);
    const auto factor = [&](index elements) {
        return options.gradient == step_gradient::lsq && elements > 0
                   ? 1 / std::sqrt(double(elements) * double(levels.greatest))
                   : 1.0;
    };
    double totals[std::size_t(detail::quant_row_spans)] = {}; // per_tensor
    detail::for_each_row_span(x.extent(0), x.extent(1), executor, [&](index span, index begin, index end) {
        for (index r = begin; r < end; ++r) {
            if (grad_scale.is_given() && !blocks.per_tensor && x.extent(1) == 0 && blocks.scale_columns == 1)
                grad_scale(r, 0) = S(0);
            blocks.for_each_group(0, x.extent(1), [&](index g, index c, index count) {
                const index sr = blocks.scale_row(r);
                const detail::quant_step<S> step{scale(sr, g), zero_point(sr, g)};
                const double sum = kernels::fake_quantize_gradient<simd::default_arch, S>(
                    x.data() + r * x.stride(0) + c, grad_y.data() + r * grad_y.stride(0) + c, count, step.grid(levels),
                    grad_x.data() + r * grad_x.stride(0) + c);
                if (blocks.per_tensor)
                    totals[span] += sum;
                else if (grad_scale.is_given())
                    grad_scale(r, g) = S(factor(count) * sum);
            });
        }
    });
    if (!blocks.per_tensor || !grad_scale.is_given())
        return;
    for (index span = 1; span < detail::quant_row_spans; ++span)
        totals[0] += totals[span];
    grad_scale(0, 0) = S(factor(x.size()) * totals[0]);
}

/// scale and zero_point of x by quant_params, then y and the codes q (unless absent) by fake_quantize, for options of
/// the former. per_tensor, per_token and per_group make sense. y may be x. Throws like the two.
template <class T = void, class Y = view<T, 2>, executor Executor = serial_executor>
void fake_quantize_dynamic(in<element_t<T, Y>, 2> x, Y&& y_out, view<quant_code, 2> q, out<element_t<T, Y>, 2> scale,
                           view<quant_code, 2> zero_point, const quant_params_options& options,
                           Executor&& executor = Executor()) {
    using S = element_t<T, Y>;
    const char* const op = "fake_quantize_dynamic";
    const view<S, 2> y(y_out);
    detail::check_quant_params(op, options);
    detail::check_same_shape(op, "y", y, "x", x);
    detail::check_codes<S>(op, q, x);
    detail::check_scale_shape(op, "scale", scale, x, options.format);
    detail::check_scale_shape(op, "zero_point", zero_point, x, options.format);
    if (options.format.granularity == quant_granularity::per_tensor || x.extent(1) == 0) {
        deft::quant_params<S>(x, scale, zero_point, options, executor);
        return deft::fake_quantize<S>(x, scale, zero_point, y, q, {.format = options.format}, executor);
    }
    const detail::quant_levels levels = detail::levels_of(options.format);
    const detail::quant_blocks blocks(x.extent(0), x.extent(1), options.format);
    executor.parallel_for(x.extent(0), detail::rows_per_task(x.extent(1)), [&](index begin, index end) {
        for (index r = begin; r < end; ++r)
            blocks.for_each_group(0, x.extent(1), [&](index g, index c, index count) {
                const detail::quant_step<S> step = detail::step_of(
                    kernels::range_of<simd::default_arch>(x.data() + r * x.stride(0) + c, count, detail::no_values<S>),
                    options);
                detail::quantize_run<false, S>(x, r, c, count, step.grid(levels), y, q);
                scale(r, g) = step.scale;
                zero_point(r, g) = step.zero_point;
            });
    });
}

/// The gradient of fake_quantize_dynamic, its s and z taken for constants: grad_x = grad_y m. (m can be 0 for
/// asymmetric codes, because z is rounded.) grad_x may be grad_y. Throws like fake_quantize_dynamic.
template <class T = void, class GX = view<T, 2>, executor Executor = serial_executor>
void fake_quantize_dynamic_backward(in<element_t<T, GX>, 2> x, in<element_t<T, GX>, 2> grad_y, GX&& grad_x_out,
                                    const quant_params_options& options, Executor&& executor = Executor()) {
    using S = element_t<T, GX>;
    const char* const op = "fake_quantize_dynamic_backward";
    const view<S, 2> grad_x(grad_x_out);
    detail::check_quant_params(op, options);
    detail::check_same_shape(op, "grad_y", grad_y, "x", x);
    detail::check_same_shape(op, "grad_x", grad_x, "x", x);
    const detail::quant_levels levels = detail::levels_of(options.format);
    const detail::quant_blocks blocks(x.extent(0), x.extent(1), options.format);
    detail::quant_step<S> whole{S(1), 0};
    if (blocks.per_tensor)
        whole = detail::step_of(detail::matrix_range<S>(x, executor), options);
    executor.parallel_for(x.extent(0), detail::rows_per_task(x.extent(1)), [&](index begin, index end) {
        for (index r = begin; r < end; ++r)
            blocks.for_each_group(0, x.extent(1), [&](index, index c, index count) {
                const S* const from = x.data() + r * x.stride(0) + c;
                const detail::quant_step<S> step =
                    blocks.per_tensor
                        ? whole
                        : detail::step_of(kernels::range_of<simd::default_arch>(from, count, detail::no_values<S>),
                                          options);
                kernels::fake_quantize_gradient<simd::default_arch, S>(from, grad_y.data() + r * grad_y.stride(0) + c,
                                                                       count, step.grid(levels),
                                                                       grad_x.data() + r * grad_x.stride(0) + c);
            });
    });
}

} // namespace DEFT_ISA
} // namespace deft

#endif

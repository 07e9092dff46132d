/// \file
/// Step sizes and zero points from the range of the values they have to cover (min-max), as OmniQuant
/// (arXiv:2308.13137) and BRECQ start from, and as CBQ (arXiv:2312.07950) does. Over the elements that share one:
///
///     symmetric:  s = max |x| / qmax,    z = 0
///     asymmetric: s = (hi - lo) / (2^b - 1),    z = round(clip(-lo / s, -1e4, 1e4)),    lo = min(min x, 0),
///                 hi = max(max x, 0), or the plain minimum and maximum where zero need not be covered
///
/// s is clamped to [scale_min, scale_max] before z is computed; rounding is half to even.
///
/// x: `[R, C]`; scale, zero_point: see quant_format.hpp. Elements are float or double; zero points are integers.
#ifndef DEFT_QUANTIZATION_QUANT_PARAMS_HPP
#define DEFT_QUANTIZATION_QUANT_PARAMS_HPP

#include <deft/kernels/fake_quantize.hpp>
#include <deft/parallel.hpp>
#include <deft/quantization/quant_format.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

namespace deft {

/// Whether the range always covers 0. Without it a zero point may leave the range of codes, and cannot be packed then.
enum class quant_span : unsigned char { with_zero, plain };

struct quant_params_options {
    quant_format format;
    quant_span span = quant_span::with_zero; ///< of asymmetric codes
    double scale_min = 1e-5;
    double scale_max = 1e4;
};

inline namespace DEFT_ISA {
namespace detail {

template <class T>
struct quant_step {
    T scale;
    quant_code zero_point;

    kernels::quant_grid<T> grid(quant_levels q) const noexcept {
        return {scale, T(q.least - zero_point), T(q.greatest - zero_point), T(zero_point)};
    }
};

template <class T>
inline constexpr kernels::value_range<T> no_values{std::numeric_limits<T>::infinity(),
                                                   -std::numeric_limits<T>::infinity()};

template <class T>
quant_step<T> step_of(kernels::value_range<T> range, const quant_params_options& o) noexcept {
    const quant_levels q = levels_of(o.format);
    double low = double(range.least), high = double(range.greatest);
    if (!(low <= high))
        low = high = 0; // no value, or only NaN
    const bool symmetric = o.format.symmetry == quant_symmetry::symmetric;
    if (!symmetric && o.span == quant_span::with_zero) {
        low = std::min(low, 0.0);
        high = std::max(high, 0.0);
    }
    const double step = symmetric ? std::max(std::abs(low), std::abs(high)) / double(q.greatest)
                                  : (high - low) / double(q.greatest - q.least);
    const T scale = T(step >= o.scale_min ? std::min(step, o.scale_max) : o.scale_min);
    const double zero = symmetric ? 0.0 : std::min(std::max(-low / double(scale), -1e4), 1e4);
    return {scale, static_cast<quant_code>(std::nearbyint(zero))};
}

inline void check_quant_params(const char* op, const quant_params_options& o) {
    check_format(op, o.format);
    check(o.scale_min > 0 && std::isfinite(o.scale_min), op, "scale_min", "must be positive and finite", o.scale_min);
    check(o.scale_max >= o.scale_min && std::isfinite(o.scale_max), op, "scale_max",
          "must be finite and not below scale_min", o.scale_max);
}

/// The range of a whole matrix.
template <class T, class Executor>
kernels::value_range<T> matrix_range(const view<const T, 2>& x, Executor& executor) {
    kernels::value_range<T> ranges[std::size_t(quant_row_spans)];
    std::fill_n(ranges, quant_row_spans, no_values<T>);
    for_each_row_span(x.extent(0), x.extent(1), executor, [&](index span, index begin, index end) {
        for (index r = begin; r < end; ++r)
            ranges[span] = kernels::range_of<simd::default_arch>(x.data() + r * x.stride(0), x.extent(1), ranges[span]);
    });
    kernels::value_range<T> all = no_values<T>;
    for (const kernels::value_range<T>& part : ranges)
        all = {std::min(all.least, part.least), std::max(all.greatest, part.greatest)};
    return all;
}

} // namespace detail

/// scale and zero_point of x; formulas and shapes at the top of this file.
///
/// NaN is passed over; infinities give scale_max. No element at all gives scale_min and zero point 0. Throws
/// std::invalid_argument before anything is written if a shape does not fit, bits is not 2 .. 8, group_size is not
/// positive where it counts, or the limits of scale are not positive, finite and in order. Rounded once from double.
/// The same bits for every executor.
template <class T = void, class S = view<T, 2>, executor Executor = serial_executor>
void quant_params(in<element_t<T, S>, 2> x, S&& scale_out, view<quant_code, 2> zero_point,
                  const quant_params_options& options, Executor&& executor = Executor()) {
    using E = element_t<T, S>;
    static_assert(std::is_floating_point_v<E>, "quant_params takes float or double");
    const char* const op = "quant_params";
    const view<E, 2> scale(scale_out);
    detail::check_quant_params(op, options);
    detail::check_scale_shape(op, "scale", scale, x, options.format);
    detail::check_scale_shape(op, "zero_point", zero_point, x, options.format);
    const detail::quant_blocks blocks(x.extent(0), x.extent(1), options.format);
    const auto write = [&](index r, index g, kernels::value_range<E> range) {
        const detail::quant_step<E> step = detail::step_of(range, options);
        scale(r, g) = step.scale;
        zero_point(r, g) = step.zero_point;
    };
    if (blocks.per_tensor)
        return write(0, 0, detail::matrix_range<E>(x, executor));
    executor.parallel_for(x.extent(0), detail::rows_per_task(x.extent(1)), [&](index begin, index end) {
        for (index r = begin; r < end; ++r) {
            if (x.extent(1) == 0 && blocks.scale_columns == 1)
                write(r, 0, detail::no_values<E>);
            blocks.for_each_group(0, x.extent(1), [&](index g, index c, index count) {
                write(
                    r, g,
                    kernels::range_of<simd::default_arch>(x.data() + r * x.stride(0) + c, count, detail::no_values<E>));
            });
        }
    });
}

} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Naive reference of quantized_matmul: loops over codes (arXiv:1712.05877, section 2).
#ifndef DEFT_REFERENCE_QUANTIZATION_QUANTIZED_MATMUL_HPP
#define DEFT_REFERENCE_QUANTIZATION_QUANTIZED_MATMUL_HPP

#include <deft/reference/quantization/packed_weights.hpp>
#include <deft/view.hpp>

#include <cmath>
#include <cstdint>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// Weights [O, K]; group of column k: k / group_size, or 0.
template <class T>
struct packed_matrix {
    view<const std::uint8_t, 2> packed;
    view<const T, 2> scale;
    view<const std::int64_t, 2> zero_point;
    index columns;
    int bits;
    index group_size;
    bool block32;

    index group(index k) const {
        return group_size == 0 ? 0 : k / group_size;
    }
    int code(index o, index k) const {
        const code_position at = position_of_code(k, bits, block32);
        return (packed(o, at.byte) >> at.shift) & ((1 << bits) - 1);
    }
};

/// y[t, o] = bias[o] + sum_k x[t, k] scale (code - zero point).
template <class T>
void weight_only_matmul(in<T, 2> x, const packed_matrix<T>& w, in<T, 1> bias, view<T, 2> y) {
    for (index t = 0; t < y.extent(0); ++t)
        for (index o = 0; o < y.extent(1); ++o) {
            T sum = bias.is_given() ? bias(o) : T(0);
            for (index k = 0; k < w.columns; ++k) {
                const index g = w.group(k);
                sum += x(t, k) * (w.scale(o, g) * T(w.code(o, k) - w.zero_point(o, g)));
            }
            y(t, o) = sum;
        }
}

/// Min-max step and zero point of columns [begin, end) of one token.
template <class T>
void activation_step(in<T, 2> x, index t, index begin, index end, int bits, bool symmetric, T& scale,
                     std::int64_t& zero_point) {
    T lo = 0, hi = 0;
    bool has_nan = false;
    for (index k = begin; k < end; ++k) {
        lo = std::fmin(lo, x(t, k));
        hi = std::fmax(hi, x(t, k));
        has_nan = has_nan || std::isnan(x(t, k));
    }
    const int codes = (1 << bits) - 1, half = 1 << (bits - 1);
    scale = symmetric ? std::fmax(-lo, hi) / T(half - 1) : (hi - lo) / T(codes);
    scale = std::fmin(std::fmax(scale, T(1e-10)), T(1e30));
    zero_point = symmetric ? 0 : static_cast<std::int64_t>(std::nearbyint(std::fmin(-lo / scale, T(1e4))));
    if (has_nan)
        scale = NAN;
}

/// codes [T, K]; scale, zero_point [T, 1], or [T, G] for groups of group_size columns.
template <class T>
void quantize_activation(in<T, 2> x, view<std::int64_t, 2> codes, out<T, 2> scale, view<std::int64_t, 2> zero_point,
                         int bits, bool symmetric, index group_size) {
    const index columns = x.extent(1), step = group_size == 0 ? columns : group_size;
    const T lowest = T(symmetric ? -(1 << (bits - 1)) : 0);
    const T highest = T(symmetric ? (1 << (bits - 1)) - 1 : (1 << bits) - 1);
    for (index t = 0; t < x.extent(0); ++t)
        for (index g = 0; g < scale.extent(1); ++g) {
            const index begin = g * step, end = begin + step < columns ? begin + step : columns;
            activation_step<T>(x, t, begin, end, bits, symmetric, scale(t, g), zero_point(t, g));
            for (index k = begin; k < end; ++k) {
                const T code = std::nearbyint(x(t, k) / scale(t, g)) + T(zero_point(t, g));
                codes(t, k) = std::isnan(code) ? zero_point(t, g)
                                               : static_cast<std::int64_t>(std::fmin(std::fmax(code, lowest), highest));
            }
        }
}

/// acc [T, O, G], exact.
template <class T>
void quantized_sums(view<const std::int64_t, 2> a, view<const std::int64_t, 2> a_zero, const packed_matrix<T>& w,
                    view<std::int64_t, 3> acc) {
    for (index t = 0; t < acc.extent(0); ++t)
        for (index o = 0; o < acc.extent(1); ++o) {
            for (index g = 0; g < acc.extent(2); ++g)
                acc(t, o, g) = 0;
            for (index k = 0; k < w.columns; ++k) {
                const index g = w.group(k);
                acc(t, o, g) +=
                    (a(t, k) - a_zero(t, a_zero.extent(1) > 1 ? g : 0)) * (w.code(o, k) - w.zero_point(o, g));
            }
        }
}

/// y[t, o] = bias[o] + sum_g a_scale scale acc.
template <class T>
void scale_sums(view<const std::int64_t, 3> acc, in<T, 2> a_scale, const packed_matrix<T>& w, in<T, 1> bias,
                view<T, 2> y) {
    for (index t = 0; t < y.extent(0); ++t)
        for (index o = 0; o < y.extent(1); ++o) {
            T sum = bias.is_given() ? bias(o) : T(0);
            for (index g = 0; g < acc.extent(2); ++g)
                sum += a_scale(t, a_scale.extent(1) > 1 ? g : 0) * w.scale(o, g) * T(acc(t, o, g));
            y(t, o) = sum;
        }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

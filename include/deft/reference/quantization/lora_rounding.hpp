/// \file
/// Naive reference of lora_rounding: one weight after the other (arXiv:2312.07950, section 3; arXiv:2004.10568).
#ifndef DEFT_REFERENCE_QUANTIZATION_LORA_ROUNDING_HPP
#define DEFT_REFERENCE_QUANTIZATION_LORA_ROUNDING_HPP

#include <deft/reference/quantization/quant_blocks.hpp>
#include <deft/reference/quantization/rounding_loss.hpp>

#include <cmath>
#include <cstdint>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// h and q may be absent.
template <class T>
void lora_rounding(in<T, 2> w, in<T, 2> a1, in<T, 2> a2, in<T, 2> v0, in<T, 2> scale,
                   view<const std::int32_t, 2> zero_point, view<T, 2> w_hat, out<T, 2> h, view<std::int32_t, 2> q,
                   const quant_layout& layout, double zeta, double gamma, bool hard) {
    for (index i = 0; i < w.extent(0); ++i)
        for (index j = 0; j < w.extent(1); ++j) {
            const T s = scale(layout.scale_row(i), layout.scale_column(j));
            const T z = T(zero_point(layout.scale_row(i), layout.scale_column(j)));
            const T v = rounding_logit<T>(a1, a2, v0, i, j);
            const T up = hard ? T(v >= 0) : stretched_sigmoid(v, zeta, gamma).h;
            const T code = clip(std::floor(w(i, j) / s) + up + z, layout.qmin(), layout.qmax());
            w_hat(i, j) = s * (code - z);
            if (h.is_given())
                h(i, j) = up;
            if (q.is_given())
                q(i, j) = std::int32_t(code);
        }
}

/// hard: straight through its step, with the slope of the soft form; loss_weight: of rounding_loss, whose gradient is
/// added.
template <class T>
void lora_rounding_backward(in<T, 2> w, in<T, 2> a1, in<T, 2> a2, in<T, 2> v0, in<T, 2> scale,
                            view<const std::int32_t, 2> zero_point, in<T, 2> grad_w_hat, view<T, 2> grad_a1,
                            out<T, 2> grad_a2, out<T, 2> grad_scale, const quant_layout& layout, double zeta,
                            double gamma, bool through_floor, bool hard, double loss_weight, double beta) {
    for (index r = 0; r < scale.extent(0); ++r)
        for (index c = 0; c < scale.extent(1); ++c)
            grad_scale(r, c) = 0;
    rounding_factor_gradients<T>(a1, a2, grad_a1, grad_a2, [&](index i, index j) {
        const index sr = layout.scale_row(i), sc = layout.scale_column(j);
        const T s = scale(sr, sc), z = T(zero_point(sr, sc)), u = w(i, j) / s;
        const T v = rounding_logit<T>(a1, a2, v0, i, j);
        const rounding_at<T> at = stretched_sigmoid(v, zeta, gamma);
        const T code = std::floor(u) + (hard ? T(v >= 0) : at.h) + z;
        const bool inside = code >= T(layout.qmin()) && code <= T(layout.qmax());
        const T clipped = clip(code, layout.qmin(), layout.qmax()) - z;
        grad_scale(sr, sc) += grad_w_hat(i, j) * (clipped - (inside && through_floor ? u : T(0)));
        return (inside ? grad_w_hat(i, j) * s * at.slope : T(0)) + rounding_loss_gradient(at, T(loss_weight), beta);
    });
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Naive reference of fake_quantize: one element after the other (arXiv:2312.07950, section 3; arXiv:1902.08153).
#ifndef DEFT_REFERENCE_QUANTIZATION_FAKE_QUANTIZE_HPP
#define DEFT_REFERENCE_QUANTIZATION_FAKE_QUANTIZE_HPP

#include <deft/reference/quantization/quant_blocks.hpp>

#include <cmath>
#include <cstdint>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

template <class T>
void fake_quantize(in<T, 2> x, in<T, 2> scale, view<const std::int32_t, 2> zero_point, view<T, 2> y,
                   view<std::int32_t, 2> q, const quant_layout& layout) {
    for (index r = 0; r < x.extent(0); ++r)
        for (index c = 0; c < x.extent(1); ++c) {
            const T s = scale(layout.scale_row(r), layout.scale_column(c));
            const T z = T(zero_point(layout.scale_row(r), layout.scale_column(c)));
            const T code = clip(std::nearbyint(x(r, c) / s) + z, layout.qmin(), layout.qmax());
            y(r, c) = s * (code - z);
            if (q.is_given() && code == code)
                q(r, c) = std::int32_t(code);
        }
}

/// factor: of the gradient of a step that n elements share, 1 or 1 / sqrt(n qmax).
template <class T>
void fake_quantize_backward(in<T, 2> x, in<T, 2> scale, view<const std::int32_t, 2> zero_point, in<T, 2> grad_y,
                            view<T, 2> grad_x, out<T, 2> grad_scale, const quant_layout& layout, bool lsq) {
    for (index sr = 0; sr < scale.extent(0); ++sr)
        for (index sc = 0; sc < scale.extent(1); ++sc) {
            const T s = scale(sr, sc), z = T(zero_point(sr, sc));
            T sum = 0;
            index count = 0;
            for (index r = 0; r < x.extent(0); ++r)
                for (index c = 0; c < x.extent(1); ++c) {
                    if (layout.scale_row(r) != sr || layout.scale_column(c) != sc)
                        continue;
                    const T u = x(r, c) / s, code = std::nearbyint(u) + z;
                    const bool inside = code >= T(layout.qmin()) && code <= T(layout.qmax());
                    grad_x(r, c) = inside ? grad_y(r, c) : T(0);
                    sum += grad_y(r, c) * (clip(code, layout.qmin(), layout.qmax()) - z - (inside ? u : T(0)));
                    ++count;
                }
            if (grad_scale.is_given())
                grad_scale(sr, sc) = lsq && count > 0 ? sum / std::sqrt(T(count) * T(layout.qmax())) : sum;
        }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Naive reference of quant_params: step sizes and zero points from the range of the values (arXiv:2308.13137).
#ifndef DEFT_REFERENCE_QUANTIZATION_QUANT_PARAMS_HPP
#define DEFT_REFERENCE_QUANTIZATION_QUANT_PARAMS_HPP

#include <deft/reference/quantization/quant_blocks.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

template <class T>
void quant_params(in<T, 2> x, view<T, 2> scale, view<std::int32_t, 2> zero_point, const quant_layout& layout,
                  bool include_zero, double scale_min, double scale_max) {
    for (index sr = 0; sr < scale.extent(0); ++sr)
        for (index sc = 0; sc < scale.extent(1); ++sc) {
            double low = 0, high = 0;
            bool first = true;
            for (index r = 0; r < x.extent(0); ++r)
                for (index c = 0; c < x.extent(1); ++c) {
                    const double value = double(x(r, c));
                    if (layout.scale_row(r) != sr || layout.scale_column(c) != sc || std::isnan(value))
                        continue;
                    low = first ? value : std::min(low, value);
                    high = first ? value : std::max(high, value);
                    first = false;
                }
            if (!layout.symmetric && include_zero) {
                low = std::min(low, 0.0);
                high = std::max(high, 0.0);
            }
            const double step = layout.symmetric ? std::max(std::abs(low), std::abs(high)) / layout.qmax()
                                                 : (high - low) / (layout.qmax() - layout.qmin());
            scale(sr, sc) = T(std::min(std::max(step, scale_min), scale_max));
            const double zero = layout.symmetric ? 0.0 : clip(-low / double(scale(sr, sc)), -1e4, 1e4);
            zero_point(sr, sc) = std::int32_t(std::nearbyint(zero));
        }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Naive reference of twin_quantize: separate clamps and roundings (arXiv:2312.13789, arXiv:2111.12293).
#ifndef DEFT_REFERENCE_QUANTIZATION_TWIN_QUANTIZE_HPP
#define DEFT_REFERENCE_QUANTIZATION_TWIN_QUANTIZE_HPP

#include <deft/reference/quantization/quant_blocks.hpp>

#include <cmath>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

template <class T>
void twin_quantize_softmax(in_rows<T> x, rows<T> y, int bits, double split, double step_low, bool sum) {
    const T p = T(split), d = T(step_low), most = T((1 << (bits - 1)) - 1);
    for (index r = 0; r < x.extent(0); ++r)
        for (index c = 0; c < x.extent(1); ++c) {
            const T v = x(r, c);
            const T high = clip(std::nearbyint(clip(v, split, 1) * most), 0, double(most)) / most;
            const T low = clip(std::nearbyint(clip(v, 0, double(p)) / d), 0, double(most)) * d;
            y(r, c) = sum ? high + low : v >= p ? high : low;
        }
}

template <class T>
void twin_quantize_gelu(in_rows<T> x, rows<T> y, int bits, double step_pos, double step_neg) {
    const T dp = T(step_pos), dn = T(step_neg);
    const double q = double(1 << (bits - 1));
    for (index r = 0; r < x.extent(0); ++r)
        for (index c = 0; c < x.extent(1); ++c)
            y(r, c) =
                clip(std::nearbyint(x(r, c) / dp), 0, q - 1) * dp + clip(std::nearbyint(x(r, c) / dn), -q, 0) * dn;
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Naive reference of merge_pointwise_convs (VanillaNet, arXiv:2305.12972): two convolutions in a row become one.
///
/// pointwise, kxk_then_pointwise: W[o,c,p,q] = sum_m w2[o,m] w1[m,c,p,q],  b_o = b2_o + sum_m w2[o,m] b1_m
/// pointwise_then_kxk:            W[o,c,p,q] = sum_m w2[o,m,p,q] w1[m,c],  b_o = b2_o + sum_m b1_m sum_pq w2[o,m,p,q]
#ifndef DEFT_REFERENCE_ACTIVATION_MERGE_POINTWISE_CONVS_HPP
#define DEFT_REFERENCE_ACTIVATION_MERGE_POINTWISE_CONVS_HPP

#include <deft/view.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// w1 is [Cm, Ci, k1, k1] and applied first, w2 is [Co, Cm, k2, k2], b1 is [Cm], b2 is [Co] (each may be absent: 0);
/// weight is [Co, Ci, k, k] with k = max(k1, k2), bias is [Co]. `mode` counts the lines of the formula:
/// 0 pointwise, 1 kxk_then_pointwise, 2 pointwise_then_kxk.
template <class T>
void merge_pointwise_convs(in<T, 4> w1, in<T, 1> b1, in<T, 4> w2, in<T, 1> b2, view<T, 4> weight, out<T, 1> bias,
                           int mode) {
    for (index o = 0; o < weight.extent(0); ++o)
        for (index c = 0; c < weight.extent(1); ++c)
            for (index p = 0; p < weight.extent(2); ++p)
                for (index q = 0; q < weight.extent(3); ++q) {
                    double sum = 0;
                    for (index m = 0; m < w2.extent(1); ++m)
                        sum += mode == 2 ? double(w2(o, m, p, q)) * double(w1(m, c, 0, 0))
                                         : double(w2(o, m, 0, 0)) * double(w1(m, c, p, q));
                    weight(o, c, p, q) = T(sum);
                }

    for (index o = 0; o < weight.extent(0); ++o) {
        double sum = b2.is_given() ? double(b2(o)) : 0.0;
        for (index m = 0; b1.is_given() && m < w2.extent(1); ++m)
            for (index p = 0; p < w2.extent(2); ++p) // once, unless pointwise_then_kxk
                for (index q = 0; q < w2.extent(3); ++q)
                    sum += double(w2(o, m, p, q)) * double(b1(m));
        bias(o) = T(sum);
    }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

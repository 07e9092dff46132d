/// \file
/// Naive reference of scan_combine: (a1, b1) then (a2, b2) = (a2 a1, a2 b1 + b2), one column at a time
/// (arXiv:2312.00752, section 3.3.2).
#ifndef DEFT_REFERENCE_SSM_SCAN_COMBINE_HPP
#define DEFT_REFERENCE_SSM_SCAN_COMBINE_HPP

#include <deft/view.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// a, b, prefix_a, prefix_b [K, C]; a_total, b_total [C]. minus_one: decays are held less 1.
template <class T>
void scan_combine(in<T, 2> a, in<T, 2> b, view<T, 1> a_total, out<T, 1> b_total, out<T, 2> prefix_a, out<T, 2> prefix_b,
                  bool minus_one) {
    for (index c = 0; c < a.extent(1); ++c) {
        T decay = T(minus_one ? 0 : 1), own = 0;
        for (index k = 0; k < a.extent(0); ++k) {
            prefix_a(k, c) = decay;
            prefix_b(k, c) = own;
            const T x = a(k, c);
            own = minus_one ? own + (x * own + b(k, c)) : x * own + b(k, c);
            decay = minus_one ? decay + (x * decay + x) : x * decay;
        }
        a_total(c) = decay;
        b_total(c) = own;
    }
}

/// Element k sees the fold of those before it, and the product of the decays of those behind it.
template <class T>
void scan_combine_backward(in<T, 2> a, in<T, 2> b, in<T, 1> grad_a_total, in<T, 1> grad_b_total, view<T, 2> grad_a,
                           out<T, 2> grad_b, bool minus_one) {
    const auto decay = [&](index k, index c) { return minus_one ? 1 + a(k, c) : a(k, c); };
    for (index c = 0; c < a.extent(1); ++c)
        for (index k = 0; k < a.extent(0); ++k) {
            T before_a = 1, before_b = 0, behind = 1;
            for (index j = 0; j < k; ++j) {
                before_a *= decay(j, c);
                before_b = decay(j, c) * before_b + b(j, c);
            }
            for (index j = k + 1; j < a.extent(0); ++j)
                behind *= decay(j, c);
            grad_a(k, c) = behind * (grad_a_total(c) * before_a + grad_b_total(c) * before_b);
            grad_b(k, c) = behind * grad_b_total(c);
        }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

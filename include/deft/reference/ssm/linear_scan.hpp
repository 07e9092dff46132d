/// \file
/// Naive reference of linear_scan: h_t = a_t h_{t-1} + b_t, one column at a time (arXiv:2312.00752, section 3.3.2).
#ifndef DEFT_REFERENCE_SSM_LINEAR_SCAN_HPP
#define DEFT_REFERENCE_SSM_LINEAR_SCAN_HPP

#include <deft/view.hpp>

#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// a, b, h [T, C]; h0, a_total, b_total [C]. minus_one: a and a_total hold the decay less 1.
template <class T>
void linear_scan(in<T, 2> a, in<T, 2> b, in<T, 1> h0, view<T, 2> h, out<T, 1> a_total, out<T, 1> b_total,
                 bool minus_one, bool reverse) {
    const index tokens = a.extent(0);
    for (index c = 0; c < a.extent(1); ++c) {
        T state = h0.is_given() ? h0(c) : T(0), total = T(minus_one ? 0 : 1), own = 0;
        for (index i = 0; i < tokens; ++i) {
            const index t = reverse ? tokens - 1 - i : i;
            const T x = a(t, c), y = b(t, c);
            state = minus_one ? state + (x * state + y) : x * state + y;
            own = minus_one ? own + (x * own + y) : x * own + y;
            total = minus_one ? total + (total * x + x) : total * x;
            h(t, c) = state;
        }
        if (a_total.is_given()) {
            a_total(c) = total;
            b_total(c) = own;
        }
    }
}

/// l_t = grad_h_t + a_{t+1} l_{t+1}; grad_a_t = l_t h_{t-1}, grad_b_t = l_t, grad_h0 = a_1 l_1.
template <class T>
void linear_scan_backward(in<T, 2> a, in<T, 2> b, in<T, 1> h0, in<T, 2> grad_h, view<T, 2> grad_a, out<T, 2> grad_b,
                          out<T, 1> grad_h0, bool minus_one, bool reverse) {
    const index tokens = a.extent(0), columns = a.extent(1);
    std::vector<T> states(std::size_t(tokens * columns));
    const view<T, 2> h(states.data(), {tokens, columns});
    linear_scan<T>(a, b, h0, h, absent, absent, minus_one, reverse);
    for (index c = 0; c < columns; ++c) {
        T through = 0; // a_{t+1} l_{t+1}
        for (index i = tokens - 1; i >= 0; --i) {
            const index t = reverse ? tokens - 1 - i : i, before = reverse ? t + 1 : t - 1;
            const T adjoint = grad_h(t, c) + through;
            grad_a(t, c) = adjoint * (i > 0 ? h(before, c) : h0.is_given() ? h0(c) : T(0));
            grad_b(t, c) = adjoint;
            through = (minus_one ? 1 + a(t, c) : a(t, c)) * adjoint;
        }
        if (grad_h0.is_given())
            grad_h0(c) = through;
    }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

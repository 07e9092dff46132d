/// \file
/// Naive reference of block_circulant_linear: one product at a time, the generator read through its index formula.
///
/// W[i m + a, j m + b] = c_ij[(a - b) mod m];  y = x W^T + bias (arXiv:2106.15941)
#ifndef DEFT_REFERENCE_SHORTCUT_BLOCK_CIRCULANT_LINEAR_HPP
#define DEFT_REFERENCE_SHORTCUT_BLOCK_CIRCULANT_LINEAR_HPP

#include <deft/view.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// Where W[o, j] stands in c [p_out, p_in, m]; E is T or const T.
template <class E>
E& circulant_entry(const view<E, 3>& c, index o, index j) {
    const index m = c.extent(2);
    return c(o / m, j / m, (o % m - j % m + m) % m);
}

/// x is [M, p_in m], y [M, p_out m], bias [p_out m] or absent.
template <class T>
void block_circulant_linear(in<T, 2> x, in<T, 3> c, in<T, 1> bias, view<T, 2> y) {
    const index m = c.extent(2);
    for (index r = 0; r < x.extent(0); ++r)
        for (index o = 0; o < y.extent(1); ++o) {
            T sum = bias.is_given() ? bias(o) : T(0);
            for (index j = 0; j < c.extent(1); ++j)
                for (index b = 0, a = o % m; b < m; ++b)
                    sum += x(r, j * m + b) * c(o / m, j, a < b ? a - b + m : a - b);
            y(r, o) = sum;
        }
}

/// grad_x = g W, grad_c the entries of g^T x summed along diagonals of blocks, grad_bias = sum of rows of g.
template <class T>
void block_circulant_linear_backward(in<T, 2> x, in<T, 3> c, in<T, 2> grad_y, view<T, 2> grad_x, out<T, 3> grad_c,
                                     out<T, 1> grad_bias) {
    for (index i = 0; i < c.extent(0); ++i)
        for (index j = 0; j < c.extent(1); ++j)
            for (index k = 0; k < c.extent(2); ++k)
                grad_c(i, j, k) = 0;
    for (index o = 0; grad_bias.is_given() && o < grad_y.extent(1); ++o)
        grad_bias(o) = 0;
    for (index r = 0; r < x.extent(0); ++r) {
        for (index j = 0; j < x.extent(1); ++j)
            grad_x(r, j) = 0;
        for (index o = 0; o < grad_y.extent(1); ++o) {
            for (index j = 0; j < x.extent(1); ++j) {
                grad_x(r, j) += grad_y(r, o) * circulant_entry(c, o, j);
                circulant_entry(grad_c, o, j) += grad_y(r, o) * x(r, j);
            }
            if (grad_bias.is_given())
                grad_bias(o) += grad_y(r, o);
        }
    }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

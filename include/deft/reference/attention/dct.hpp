/// \file
/// Naive reference of dct: the matrix, entry by entry, times a row.
///
/// DCT-II: y_k = s_k sum_j x_j cos(pi (2j+1) k / 2n), s_0 = sqrt(1/n), else sqrt(2/n); DCT-III: its transpose;
/// DCT-IV: y_k = sqrt(2/n) sum_j x_j cos(pi (2j+1) (2k+1) / 4n)
#ifndef DEFT_REFERENCE_ATTENTION_DCT_HPP
#define DEFT_REFERENCE_ATTENTION_DCT_HPP

#include <deft/view.hpp>

#include <cmath>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// M[k, j] of kind 2, 3 or 4. The angle is reduced as an integer first, else large n would lose digits.
inline double dct_entry(index n, int kind, index k, index j) {
    constexpr double pi = 3.14159265358979323846;
    if (kind == 3)
        return dct_entry(n, 2, j, k);
    if (kind == 2 && k == 0)
        return std::sqrt(1.0 / double(n));
    const index angle = kind == 2 ? 2 * ((2 * j + 1) * k % (4 * n)) : (2 * j + 1) * (2 * k + 1) % (8 * n);
    return std::sqrt(2.0 / double(n)) * std::cos(pi * double(angle) / double(4 * n));
}

/// M, or M^T, [n, n].
template <class T>
std::vector<T> dct_matrix(index n, int kind, bool transposed = false) {
    std::vector<T> matrix;
    for (index k = 0; k < n; ++k)
        for (index j = 0; j < n; ++j)
            matrix.push_back(T(transposed ? dct_entry(n, kind, j, k) : dct_entry(n, kind, k, j)));
    return matrix;
}

/// y = x M^T for a matrix of dct_matrix; x, y are [R, n].
template <class T>
void apply_dct(in<T, 2> x, const std::vector<T>& matrix, view<T, 2> y) {
    const index n = x.extent(1);
    for (index r = 0; r < x.extent(0); ++r)
        for (index k = 0; k < n; ++k) {
            T sum = 0;
            for (index j = 0; j < n; ++j)
                sum += matrix[std::size_t(k * n + j)] * x(r, j);
            y(r, k) = sum;
        }
}

/// x, y are [R, n] and do not overlap.
template <class T>
void dct(in<T, 2> x, view<T, 2> y, int kind) {
    apply_dct<T>(x, dct_matrix<T>(x.extent(1), kind), y);
}

/// grad_x = M^T grad_y.
template <class T>
void dct_backward(in<T, 2> grad_y, view<T, 2> grad_x, int kind) {
    apply_dct<T>(grad_y, dct_matrix<T>(grad_y.extent(1), kind, true), grad_x);
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

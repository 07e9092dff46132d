/// \file
/// Naive reference of feature_diversity: the mean row, then the distance from it.
///
/// value = ||H - 1 hbar^T||_F, divided by ||H||_F if `relative` (arXiv:2312.17276, section 3)
#ifndef DEFT_REFERENCE_SHORTCUT_FEATURE_DIVERSITY_HPP
#define DEFT_REFERENCE_SHORTCUT_FEATURE_DIVERSITY_HPP

#include <deft/view.hpp>

#include <cmath>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// Mean of column c of matrix b. The first row is subtracted before averaging: equal rows have it as their mean
/// exactly.
template <class T>
double column_mean(in<T, 3> h, index b, index c) {
    double sum = 0;
    for (index r = 0; r < h.extent(1); ++r)
        sum += double(h(b, r, c)) - double(h(b, 0, c));
    return double(h(b, 0, c)) + sum / double(h.extent(1));
}

struct diversity_parts {
    double distance = 0, norm = 0;
};

/// h is [B, N, d]; squares are taken in double.
template <class T>
diversity_parts diversity_of(in<T, 3> h, index b) {
    diversity_parts squares;
    for (index c = 0; c < h.extent(2); ++c) {
        const double mean = column_mean<T>(h, b, c);
        for (index r = 0; r < h.extent(1); ++r) {
            squares.distance += (double(h(b, r, c)) - mean) * (double(h(b, r, c)) - mean);
            squares.norm += double(h(b, r, c)) * double(h(b, r, c));
        }
    }
    return {std::sqrt(squares.distance), std::sqrt(squares.norm)};
}

/// h is [B, N, d], value [B].
template <class T>
void feature_diversity(in<T, 3> h, view<T, 1> value, bool relative) {
    for (index b = 0; b < h.extent(0); ++b) {
        const diversity_parts p = diversity_of<T>(h, b);
        value(b) = T(!relative ? p.distance : p.norm == 0 ? 0.0 : p.distance / p.norm);
    }
}

/// grad_h = g C / D, or g / F (C / D - (D / F) (H / F)); 0 where D = 0.
template <class T>
void feature_diversity_backward(in<T, 3> h, in<T, 1> grad_value, view<T, 3> grad_h, bool relative) {
    for (index b = 0; b < h.extent(0); ++b) {
        const diversity_parts p = diversity_of<T>(h, b);
        for (index c = 0; c < h.extent(2); ++c) {
            const double mean = column_mean<T>(h, b, c);
            for (index r = 0; r < h.extent(1); ++r) {
                double unit = 0;
                if (p.distance != 0) {
                    unit = (double(h(b, r, c)) - mean) / p.distance;
                    if (relative)
                        unit = (unit - p.distance / p.norm * (double(h(b, r, c)) / p.norm)) / p.norm;
                }
                grad_h(b, r, c) = T(double(grad_value(b)) * unit);
            }
        }
    }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

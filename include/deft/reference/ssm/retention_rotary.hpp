/// \file
/// Naive reference of retention_rotary: a cosine and a sine per element, in double (arXiv:2307.08621, eq. 5;
/// arXiv:2212.10554 for the scale).
#ifndef DEFT_REFERENCE_SSM_RETENTION_ROTARY_HPP
#define DEFT_REFERENCE_SSM_RETENTION_ROTARY_HPP

#include <deft/view.hpp>

#include <algorithm>
#include <cmath>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

struct rotary_parameters {
    index offset;
    double base;
    bool is_rope;   ///< spacing: else linspace
    bool transpose; ///< by the opposite angle: the gradient
    double xpos_scale_base;
    int xpos_sign;
    double xpos_center;
};

/// x, y [B, H, T, dk].
template <class T>
void retention_rotary(in<T, 4> x, view<T, 4> y, const rotary_parameters& p) {
    const index width = x.extent(3), pairs = width / 2;
    for (index b = 0; b < x.extent(0); ++b)
        for (index h = 0; h < x.extent(1); ++h)
            for (index t = 0; t < x.extent(2); ++t)
                for (index j = 0; j < pairs; ++j) {
                    const double position = double(p.offset + t);
                    const double steps = double(p.is_rope ? pairs : std::max<index>(pairs - 1, 1));
                    const double angle = position * std::pow(p.base, -(double(j) / steps));
                    const double zeta = (2 * double(j) + 0.4 * double(width)) / (1.4 * double(width));
                    const double z = p.xpos_scale_base > 0
                                         ? std::pow(zeta, p.xpos_sign * (position - p.xpos_center) / p.xpos_scale_base)
                                         : 1;
                    const double c = std::cos(angle), s = p.transpose ? -std::sin(angle) : std::sin(angle);
                    const double even = double(x(b, h, t, 2 * j)), odd = double(x(b, h, t, 2 * j + 1));
                    y(b, h, t, 2 * j) = T((even * c - odd * s) * z);
                    y(b, h, t, 2 * j + 1) = T((odd * c + even * s) * z);
                }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Naive reference of fuse_conv_bn (VanillaNet, arXiv:2305.12972): the normalisation after a convolution moves into it.
///
/// s_o = gamma_o / sqrt(var_o + eps);  weight'_o = s_o weight_o;  bias'_o = beta_o + (bias_o - mean_o) s_o
#ifndef DEFT_REFERENCE_ACTIVATION_FUSE_CONV_BN_HPP
#define DEFT_REFERENCE_ACTIVATION_FUSE_CONV_BN_HPP

#include <deft/view.hpp>

#include <cmath>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// weight, out_weight are [Co, Ci / groups, kh, kw], the others [Co]; bias may be absent and counts as 0 then.
template <class T>
void fuse_conv_bn(in<T, 4> weight, in<T, 1> bias, in<T, 1> gamma, in<T, 1> beta, in<T, 1> mean, in<T, 1> var,
                  view<T, 4> out_weight, out<T, 1> out_bias, double eps = 1e-6) {
    for (index o = 0; o < weight.extent(0); ++o)
        for (index c = 0; c < weight.extent(1); ++c)
            for (index p = 0; p < weight.extent(2); ++p)
                for (index q = 0; q < weight.extent(3); ++q)
                    out_weight(o, c, p, q) =
                        T(double(weight(o, c, p, q)) * double(gamma(o)) / std::sqrt(double(var(o)) + eps));

    for (index o = 0; o < weight.extent(0); ++o) {
        const double given = bias.is_given() ? double(bias(o)) : 0.0;
        const double scale = double(gamma(o)) / std::sqrt(double(var(o)) + eps);
        out_bias(o) = T(double(beta(o)) + (given - double(mean(o))) * scale);
    }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

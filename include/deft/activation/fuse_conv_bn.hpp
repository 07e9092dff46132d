/// \file
/// Batch normalisation folded into the convolution, or linear layer, before it: the first half of VanillaNet's merge
/// after training (arXiv:2305.12972; huawei-noah/VanillaNet, models/vanillanet.py `_fuse_bn_tensor`).
///
///     s_o = gamma_o / sqrt(var_o + eps);  weight'_o = s_o weight_o;  bias'_o = beta_o + (bias_o - mean_o) s_o
///
/// BN(conv(x)) = conv'(x) for every stride, padding, dilation and number of groups, because BN acts on outputs only.
/// The other order, BN before a convolution, is not offered: with zero padding its shift is not a constant bias.
///
/// weight, out_weight: [Co, Ci / groups, kh, kw], with Ci / groups = 1 for a depthwise convolution and kh = kw = 1 for
/// a linear layer; all others [Co]; bias may be absent and counts as 0 then. No gradient: this runs once per model.
#ifndef DEFT_ACTIVATION_FUSE_CONV_BN_HPP
#define DEFT_ACTIVATION_FUSE_CONV_BN_HPP

#include <deft/view.hpp>

#include <cmath>

namespace deft {

struct fuse_conv_bn_options {
    double eps = 1e-6; ///< VanillaNet's; PyTorch's default is 1e-5
};

inline namespace DEFT_ISA {
namespace detail {

template <class T>
void check_fuse_conv_bn(const view<const T, 4>& weight, const view<const T, 1>& bias, const view<const T, 1>& gamma,
                        const view<const T, 1>& beta, const view<const T, 1>& mean, const view<const T, 1>& var,
                        const view<T, 4>& out_weight, const view<T, 1>& out_bias, double eps) {
    const char *const op = "fuse_conv_bn", *const outputs = "extent 0 of weight";
    const index co = weight.extent(0);
    if (bias.is_given())
        check_extent(op, "bias", bias, 0, co, outputs);
    check_extent(op, "gamma", gamma, 0, co, outputs);
    check_extent(op, "beta", beta, 0, co, outputs);
    check_extent(op, "mean", mean, 0, co, outputs);
    check_extent(op, "var", var, 0, co, outputs);
    check_same_shape(op, "out_weight", out_weight, "weight", weight);
    check_extent(op, "out_bias", out_bias, 0, co, outputs);
    check(eps >= 0, op, "eps", "must not be negative", eps);
    for (index o = 0; o < co; ++o) {
        check(double(var(o)) >= 0, op, "var", "must not be negative", double(var(o)));
        check(double(var(o)) + eps > 0, op, "var", "must be positive where eps is 0", double(var(o)));
    }
}

} // namespace detail

/// out_weight, out_bias: the convolution with the normalisation in it. out_weight may be weight, out_bias may be bias.
/// The scale is computed in double. Throws std::invalid_argument before anything is written if shapes do not fit, eps
/// is negative, or var is negative, NaN, or 0 together with eps; gamma = 0 is valid.
template <class T = void, class W = view<T, 4>>
void fuse_conv_bn(in<element_t<T, W>, 4> weight, in<element_t<T, W>, 1> bias, in<element_t<T, W>, 1> gamma,
                  in<element_t<T, W>, 1> beta, in<element_t<T, W>, 1> mean, in<element_t<T, W>, 1> var, W&& out_weight,
                  out<element_t<T, W>, 1> out_bias, const fuse_conv_bn_options& options) {
    using S = element_t<T, W>;
    const view<S, 4> fused(out_weight);
    detail::check_fuse_conv_bn<S>(weight, bias, gamma, beta, mean, var, fused, out_bias, options.eps);
    // All weights of an output are one row, unless there are gaps between rows of the kernel.
    const bool is_flat = weight.is_contiguous() && fused.is_contiguous();
    const index channels = is_flat ? 1 : weight.extent(1), height = is_flat ? 1 : weight.extent(2);
    const index width = is_flat ? weight.extent(1) * weight.extent(2) * weight.extent(3) : weight.extent(3);
    for (index o = 0; o < weight.extent(0); ++o) {
        const double scale = double(gamma(o)) / std::sqrt(double(var(o)) + options.eps);
        for (index c = 0; c < channels; ++c)
            for (index p = 0; p < height; ++p) {
                const S* from = weight.data() + o * weight.stride(0) + c * weight.stride(1) + p * weight.stride(2);
                S* to = fused.data() + o * fused.stride(0) + c * fused.stride(1) + p * fused.stride(2);
                for (index q = 0; q < width; ++q)
                    to[q] = S(double(from[q]) * scale);
            }
        const double given = bias.is_given() ? double(bias(o)) : 0.0;
        out_bias(o) = S(double(beta(o)) + (given - double(mean(o))) * scale);
    }
}

} // namespace DEFT_ISA
} // namespace deft

#endif

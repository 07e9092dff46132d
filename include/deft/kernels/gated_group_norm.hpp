/// \file
/// A gated group norm, row by row: what stands between linear attention and its output projection. C++17.
///
///     N = w xhat + b,  xhat = (o - mean) inv,  inv = 1 / sqrt(var + eps), biased, over groups of neighbouring channels
///     h = silu(z) N
///
/// Contract: rows of `channels` numbers, any alignment; groups divides channels; h may be o or z. Sums are in double:
/// the norm takes a hundredth of the products around it.
#ifndef DEFT_KERNELS_GATED_GROUP_NORM_HPP
#define DEFT_KERNELS_GATED_GROUP_NORM_HPP

#include <deft/simd/loop.hpp>
#include <deft/simd/math.hpp>

#include <cmath>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

template <class T>
struct gated_group_norm {
    index channels, groups;
    double eps;
    const T *weight, *bias; // w, b
};

namespace detail {

/// xhat of the group at o; returns inv.
template <class T>
double normalise_group(const T* o, index size, double eps, T* xhat) noexcept {
    double sum = 0, squares = 0;
    for (index c = 0; c < size; ++c)
        sum += double(o[c]);
    const double mean = sum / double(size);
    for (index c = 0; c < size; ++c)
        squares += (double(o[c]) - mean) * (double(o[c]) - mean);
    const double inverse = 1 / std::sqrt(squares / double(size) + eps);
    for (index c = 0; c < size; ++c)
        xhat[c] = T((double(o[c]) - mean) * inverse);
    return inverse;
}

} // namespace detail

/// One row of h.
template <class Arch, class T>
void gated_group_norm_forward(const gated_group_norm<T>& f, const T* o, const T* z, T* h) noexcept {
    using B = simd::batch<T, Arch>;
    const index size = f.channels / f.groups;
    for (index c = 0; c < f.channels; c += size)
        detail::normalise_group(o + c, size, f.eps, h + c);
    const T *const w = f.weight, *const b = f.bias;
    simd::for_each_vector<T, Arch, 1>(f.channels, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
        const B norm = simd::fma(simd::load<Arch>(w + c, extent), simd::load<Arch>(h + c, extent),
                                 simd::load<Arch>(b + c, extent));
        simd::store<T>(h + c, simd::silu(simd::load<Arch>(z + c, extent)) * norm, extent);
    });
}

/// One row of the gradients. With s the logistic function of z, and means over a group:
///
///     dz = dh N s (1 + z (1 - s)),  dN = dh z s,  dw += dN xhat,  db += dN
///     do = inv (e - mean e - xhat mean (e xhat)),  e = dN w
///
/// o, z and grad_h are overwritten by h, grad_z and grad_o; xhat and inverse hold a row and a number per group.
template <class Arch, class T>
void gated_group_norm_backward(const gated_group_norm<T>& f, T* o, T* z, T* grad_h, double* grad_weight,
                               double* grad_bias, T* xhat, double* inverse) noexcept {
    using B = simd::batch<T, Arch>;
    const index size = f.channels / f.groups;
    const T *const w = f.weight, *const b = f.bias;
    for (index g = 0; g < f.groups; ++g)
        inverse[g] = detail::normalise_group(o + g * size, size, f.eps, xhat + g * size);
    simd::for_each_vector<T, Arch, 1>(f.channels, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
        const B norm = simd::fma(simd::load<Arch>(w + c, extent), simd::load<Arch>(xhat + c, extent),
                                 simd::load<Arch>(b + c, extent));
        const B u = simd::load<Arch>(z + c, extent), s = simd::sigmoid(u), open = u * s;
        const B dh = simd::load<Arch>(grad_h + c, extent);
        simd::store<T>(o + c, open * norm, extent);
        simd::store<T>(z + c, dh * norm * s * simd::fma(u, B(T(1)) - s, B(T(1))), extent);
        simd::store<T>(grad_h + c, dh * open, extent);
    });
    for (index g = 0; g < f.groups; ++g) {
        double sum = 0, along = 0;
        for (index c = g * size; c < (g + 1) * size; ++c) {
            const double through = double(grad_h[c]), e = through * double(w[c]);
            grad_weight[c] += through * double(xhat[c]);
            grad_bias[c] += through;
            sum += e;
            along += e * double(xhat[c]);
        }
        for (index c = g * size; c < (g + 1) * size; ++c)
            grad_h[c] =
                T(inverse[g] * (double(grad_h[c]) * double(w[c]) - (sum + double(xhat[c]) * along) / double(size)));
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

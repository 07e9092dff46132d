/// \file
/// Rotation of pairs of neighbours by a row of cosines and sines. C++17.
///
///     y_2j = x_2j cos_j - x_2j+1 sin_j,     y_2j+1 = x_2j+1 cos_j + x_2j sin_j
///
/// Contract: any length, any alignment; y may be x.
#ifndef DEFT_KERNELS_ROTARY_HPP
#define DEFT_KERNELS_ROTARY_HPP

#include <deft/simd/loop.hpp>
#include <deft/simd/swap_pairs.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// `size` elements, an even number. `cosines` holds cos_j twice, `sines` -sin_j and then sin_j: what even and odd
/// elements are multiplied with.
template <class Arch, class S>
DEFT_NOINLINE void rotate_pairs(const S* x, const compute_t<S>* cosines, const compute_t<S>* sines, S* y,
                                index size) noexcept {
    using T = compute_t<S>;
    simd::for_each_vector<T, Arch, 2>(size, [&](index i, auto count, auto extent) DEFT_INLINE_LAMBDA {
        DEFT_UNROLL
        for (int v = 0; v < decltype(count)::value; ++v) {
            const index at = i + v * simd::lanes<T, Arch>;
            const simd::batch<T, Arch> value = simd::load<Arch>(x + at, extent);
            simd::store<S>(y + at,
                           simd::fma(value, simd::load<Arch>(cosines + at, extent),
                                     simd::swap_pairs(value) * simd::load<Arch>(sines + at, extent)),
                           extent);
        }
    });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Weighted sum of two rows. C++17.
#ifndef DEFT_KERNELS_LINEAR_ATTENTION_COMBINE_HPP
#define DEFT_KERNELS_LINEAR_ATTENTION_COMBINE_HPP

#include <deft/simd/loop.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// to = a x + b y; to may be x or y. A factor of 0 forgets, also what is not finite.
template <class Arch, class T>
void combine_rows(T a, const T* x, T b, const T* y, T* to, index n) noexcept {
    using B = simd::batch<T, Arch>;
    const B of_x(a), of_y(b);
    simd::for_each_vector<T, Arch, 1>(n, [&](index i, auto, auto extent) DEFT_INLINE_LAMBDA {
        const B kept = b == T(0) ? of_y : of_y * simd::load<Arch>(y + i, extent);
        simd::store(to + i, a == T(0) ? kept : simd::fma(of_x, simd::load<Arch>(x + i, extent), kept), extent);
    });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

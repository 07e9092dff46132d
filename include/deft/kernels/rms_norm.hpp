/// \file
/// y = x g / rms(x), rms(x)^2 = mean x^2 + eps, of one row, and its gradient by x. C++17.
///
/// Contract: any length, any alignment; y may be x, grad_x may be grad_y.
#ifndef DEFT_KERNELS_RMS_NORM_HPP
#define DEFT_KERNELS_RMS_NORM_HPP

#include <deft/simd/loop.hpp>

#include <cmath>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {
namespace detail {

// Sums of f(i, extent) over a row, lanes in T, blocks in double.
template <class Arch, class T, class F>
DEFT_ALWAYS_INLINE double row_sum(index n, F&& f) noexcept {
    using B = simd::batch<T, Arch>;
    const index block = 128 * simd::lanes<T, Arch>;
    double total = 0;
    for (index first = 0; first < n; first += block) {
        B sum(T(0));
        simd::for_each_vector<T, Arch, 1>(n - first < block ? n - first : block,
                                          [&](index i, auto, auto extent)
                                              DEFT_INLINE_LAMBDA { sum += f(first + i, extent); });
        total += double(simd::reduce_add(sum));
    }
    return total;
}

} // namespace detail

/// 1 / rms of a row.
template <class Arch, class T>
DEFT_NOINLINE T inverse_rms(const T* x, index n, double eps) noexcept {
    const double sum = detail::row_sum<Arch, T>(n, [&](index i, auto extent) DEFT_INLINE_LAMBDA {
        const simd::batch<T, Arch> v = simd::load<Arch>(x + i, extent);
        return simd::batch<T, Arch>(v * v);
    });
    return T(1 / std::sqrt(sum / double(n) + eps));
}

template <class Arch, class T>
DEFT_NOINLINE void rms_norm(const T* x, const T* gain, index n, double eps, T* y) noexcept {
    using B = simd::batch<T, Arch>;
    const B inverse(inverse_rms<Arch>(x, n, eps));
    simd::for_each_vector<T, Arch, 1>(n, [&](index i, auto, auto extent) DEFT_INLINE_LAMBDA {
        simd::store(y + i, B(simd::load<Arch>(x + i, extent) * inverse * simd::load<Arch>(gain + i, extent)), extent);
    });
}

/// grad_x = (g grad_y - x (x . g grad_y) / (n rms^2)) / rms, added to what is there.
template <class Arch, class T>
DEFT_NOINLINE void add_rms_norm_gradient(const T* x, const T* gain, index n, double eps, const T* grad_y,
                                         T* grad_x) noexcept {
    using B = simd::batch<T, Arch>;
    const T inverse = inverse_rms<Arch>(x, n, eps);
    const double dot = detail::row_sum<Arch, T>(n, [&](index i, auto extent) DEFT_INLINE_LAMBDA {
        return B(simd::load<Arch>(x + i, extent) * simd::load<Arch>(gain + i, extent) *
                 simd::load<Arch>(grad_y + i, extent));
    });
    const B scale(inverse), back(T(dot * double(inverse) * double(inverse) / double(n)));
    simd::for_each_vector<T, Arch, 1>(n, [&](index i, auto, auto extent) DEFT_INLINE_LAMBDA {
        const B own = simd::load<Arch>(gain + i, extent) * simd::load<Arch>(grad_y + i, extent);
        const B change = simd::fnma(simd::load<Arch>(x + i, extent), back, own) * scale;
        simd::store(grad_x + i, B(simd::load<Arch>(grad_x + i, extent) + change), extent);
    });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// (1 - lambda) sigma(x) + lambda x and its gradient, over n consecutive elements. C++17.
///
/// Contract: any length, any alignment; y may be x, grad_x may be g.
#ifndef DEFT_KERNELS_ANNEALED_HPP
#define DEFT_KERNELS_ANNEALED_HPP

#include <deft/kernels/activations.hpp>
#include <deft/simd/loop.hpp>

#include <algorithm>
#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

template <class Arch, class Base, class T>
void annealed_forward(const T* x, T* y, index n, T lambda, T slope) noexcept {
    using B = simd::batch<T, Arch>;
    if (lambda == T(1)) { // the activation of an infinity is not always finite times 0
        if (x != y)
            std::copy(x, x + n, y);
        return;
    }
    if constexpr (std::is_same_v<Base, base_activation<activation::relu>>) { // one blend instead of two products
        if (lambda != T(0))
            return annealed_forward<Arch, base_activation<activation::leaky_relu>>(x, y, n, T(0), lambda);
    }
    const B keep(T(1) - lambda), share(lambda), leak(slope);
    const bool blends = lambda != T(0); // 0 times an infinity is NaN
    simd::for_each_vector<T, Arch, 2>(n, [&](index i, auto count, auto extent) DEFT_INLINE_LAMBDA {
        simd::ask_ahead<T, Arch, decltype(count)::value>(x + i);
        DEFT_UNROLL
        for (int v = 0; v < decltype(count)::value; ++v) {
            const index at = i + v * simd::lanes<T, Arch>;
            const B u = simd::load<Arch>(x + at, extent);
            const B sigma = Base::value(u, leak);
            simd::store<T>(y + at, blends ? simd::fma(keep, sigma, share * u) : sigma, extent);
        }
    });
}

template <class Arch, class Base, class T>
void annealed_backward(const T* x, const T* g, T* grad_x, index n, T lambda, T slope) noexcept {
    using B = simd::batch<T, Arch>;
    if (lambda == T(1)) {
        if (g != grad_x)
            std::copy(g, g + n, grad_x);
        return;
    }
    const B keep(T(1) - lambda), share(lambda), leak(slope);
    simd::for_each_vector<T, Arch, 2>(n, [&](index i, auto count, auto extent) DEFT_INLINE_LAMBDA {
        DEFT_UNROLL
        for (int v = 0; v < decltype(count)::value; ++v) {
            const index at = i + v * simd::lanes<T, Arch>;
            const auto sigma = Base::both(simd::load<Arch>(x + at, extent), leak);
            simd::store<T>(grad_x + at, simd::load<Arch>(g + at, extent) * simd::fma(keep, sigma.derivative, share),
                           extent);
        }
    });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Two step sizes in one tensor: values after softmax and after GELU. C++17.
///
/// Contract: any length, any alignment; y may be x.
#ifndef DEFT_KERNELS_TWIN_QUANTIZE_HPP
#define DEFT_KERNELS_TWIN_QUANTIZE_HPP

#include <deft/simd/loop.hpp>
#include <deft/simd/rounded_quotient.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Codes 0 .. most of steps 1 / most above split and `step` below.
template <bool Sum, class Arch, class T>
DEFT_ALWAYS_INLINE void twin_quantize_softmax(const T* x, index n, T split, T step, T most, T* y) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    const B zero(T(0)), one(T(1)), cut(split), fine(step), greatest(most);
    const simd::rounded_quotient<T, Arch> by_fine(step, most);
    simd::for_each_vector<T, Arch, 2>(n, [&](index at, auto count, auto extent) DEFT_INLINE_LAMBDA {
        simd::ask_ahead<T, Arch, decltype(count)::value>(x + at);
        DEFT_UNROLL
        for (int v = 0; v < decltype(count)::value; ++v) {
            const B value = simd::load<Arch>(x + at + v * width, extent);
            const B upper = simd::at_least(cut, simd::at_most(one, value));
            const B lower = simd::at_least(zero, simd::at_most(cut, value));
            const B high = simd::at_most(greatest, simd::round_even(B(upper * greatest))) / greatest;
            const B low = simd::at_most(greatest, by_fine(lower)) * fine;
            simd::store(y + at + v * width, Sum ? B(high + low) : simd::select(value >= cut, high, low), extent);
        }
    });
}

/// Codes 0 .. most of step `positive`, plus codes -most - 1 .. 0 of step `negative`.
template <class Arch, class T>
DEFT_ALWAYS_INLINE void twin_quantize_gelu(const T* x, index n, T positive, T negative, T most, T* y) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    const B zero(T(0)), above(positive), below(negative), greatest(most), least(-most - T(1));
    const simd::rounded_quotient<T, Arch> by_positive(positive, most + 1), by_negative(negative, most + 1);
    simd::for_each_vector<T, Arch, 2>(n, [&](index at, auto count, auto extent) DEFT_INLINE_LAMBDA {
        simd::ask_ahead<T, Arch, decltype(count)::value>(x + at);
        DEFT_UNROLL
        for (int v = 0; v < decltype(count)::value; ++v) {
            const B value = simd::load<Arch>(x + at + v * width, extent);
            const B up = simd::at_least(zero, simd::at_most(greatest, by_positive(value)));
            const B down = simd::at_least(least, simd::at_most(zero, by_negative(value)));
            simd::store(y + at + v * width, simd::fma(up, above, B(down * below)), extent);
        }
    });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

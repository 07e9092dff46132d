/// \file
/// One token of a selective scan, states in lanes: the state is read and written where it lies, row by row, and A is
/// read as it is. What selective_scan.hpp makes ready for a tile of tokens would take most of the time here. C++17.
///
/// Contract: that of selective_scan.hpp, for one token and any number of channels.
#ifndef DEFT_KERNELS_SELECTIVE_SCAN_STEP_HPP
#define DEFT_KERNELS_SELECTIVE_SCAN_STEP_HPP

#include <deft/kernels/selective_scan.hpp>
#include <deft/simd/mask_bits.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {
namespace detail {

// States of one channel: h = a h + phi B u in place, and the terms of the sum of C h, lane by lane.
template <class Arch, bool IsZoh, class S, class T>
DEFT_ALWAYS_INLINE simd::batch<T, Arch> step_channel(const T* a, const S* b, const S* c, index states, T step, T input,
                                                     T* h) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr std::uint64_t all = (std::uint64_t(1) << simd::lanes<T, Arch>)-1;
    const B d(step), in(input), log2_e(simd::detail::exp_constants<T>::log2_e);
    B sum(T(0));
    simd::for_each_vector<T, Arch, 1>(states, [&](index n, auto, auto extent) DEFT_INLINE_LAMBDA {
        const B rate = simd::load<Arch>(a + n, extent), log2 = rate * log2_e, x = d * log2;
        const bool is_near = simd::mask_bits<T, Arch>(simd::abs(x) < B(simd::exp2_reach<T>)) == all;
        const B decay = is_near ? simd::exp2_of_product(d, log2) : simd::select(x == x, simd::exp2(x), x);
        B from = in * simd::load<Arch>(b + n, extent);
        if constexpr (IsZoh) {
            const auto vanishes = simd::abs(rate) < B(selective_scan_least_rate<T>);
            from *= simd::select(vanishes, d, B(simd::exp2_less1(x) / simd::select(vanishes, B(T(1)), rate)));
        }
        const B state = simd::fma(decay, simd::load<Arch>(h + n, extent), from);
        simd::store(h + n, state, extent);
        sum = simd::fma(simd::load<Arch>(c + n, extent), simd::only(state, extent), sum);
    });
    return sum;
}

template <class Arch, bool IsZoh, class S>
DEFT_NOINLINE void step_channels(const selective_scan_channels<S>& scan, compute_t<S>* h, index h_stride) noexcept {
    using T = compute_t<S>;
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    const bool has_softplus = scan.has_softplus;
    simd::for_each_vector<T, Arch, 1>(scan.channels, [&](index first, auto, auto extent) DEFT_INLINE_LAMBDA {
        alignas(64) T steps[std::size_t(width)], inputs[std::size_t(width)], sums[std::size_t(width * width)] = {};
        B d = simd::load<Arch>(scan.delta + first, extent);
        if (scan.bias != nullptr)
            d += simd::load<Arch>(scan.bias + first, extent);
        if (has_softplus)
            d = simd::softplus(d);
        const B u = simd::load<Arch>(scan.u + first, extent);
        d.store_aligned(steps);
        B(IsZoh ? u : d * u).store_aligned(inputs);
        for (index i = 0; i < width && first + i < scan.channels; ++i)
            step_channel<Arch, IsZoh>(scan.a + (first + i) * scan.a_stride, scan.b, scan.c, scan.states, steps[i],
                                      inputs[i], h + (first + i) * h_stride)
                .store_aligned(sums + i * width);
        B terms[std::size_t(width)];
        simd::load_transposed(static_cast<const T*>(sums), width, terms);
        B y(T(0));
        DEFT_UNROLL
        for (index i = 0; i < width; ++i)
            y += terms[i];
        if (scan.d != nullptr)
            y = simd::fma(simd::load<Arch>(scan.d + first, extent), u, y);
        if (scan.z != nullptr)
            y *= simd::silu(simd::load<Arch>(scan.z + first, extent));
        simd::store<S>(scan.y + first, y, extent);
    });
}

} // namespace detail

/// y of one token, and the state, rows `h_stride` apart, after it.
template <class Arch, class S>
DEFT_ALWAYS_INLINE void selective_scan_step(const selective_scan_channels<S>& scan, compute_t<S>* h,
                                            index h_stride) noexcept {
    DEFT_ASSERT(scan.tokens == 1);
    if (scan.is_zoh)
        detail::step_channels<Arch, true>(scan, h, h_stride);
    else
        detail::step_channels<Arch, false>(scan, h, h_stride);
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// The selective scan with states in lanes: token by token, the state read and written where it lies, row by row, and A
/// taken as it is. For a single token, for which selective_scan.hpp would make more ready than it computes, and for
/// scans that show their states and take in what others have made of theirs. C++17.
///
///     read:     h = a h + phi B u,               y = sum_n C_n (h_n + added_n)
///     carried:  h = a h + phi B u + added,       y = sum_n C_n h_n
///
/// Contract: that of selective_scan_forward; hidden may be added.
#ifndef DEFT_KERNELS_SELECTIVE_SCAN_STEP_HPP
#define DEFT_KERNELS_SELECTIVE_SCAN_STEP_HPP

#include <deft/kernels/selective_scan.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// States of some channels: channel c at data[c channel], `states` consecutive elements; those of token t `token`
/// further.
template <class T>
struct channel_states {
    T* data; ///< may be null where nothing is added or shown
    index channel, token;

    DEFT_ALWAYS_INLINE T* at(index c) const noexcept {
        return data == nullptr ? nullptr : data + c * channel;
    }
};

/// Where added states join.
enum class scan_extra { none, read, carried };

namespace detail {

// States of one channel: the terms of the sum of C h, lane by lane.
template <class Arch, bool IsZoh, scan_extra Extra, class S, class T>
DEFT_ALWAYS_INLINE simd::batch<T, Arch> step_channel(const T* a, const S* b, const S* c, index states, T step, T input,
                                                     T* h, const T* added, T* hidden) noexcept {
    using B = simd::batch<T, Arch>;
    const B d(step), in(input), log2_e(simd::detail::exp_constants<T>::log2_e);
    B sum(T(0));
    simd::for_each_vector<T, Arch, 1>(states, [&](index n, auto, auto extent) DEFT_INLINE_LAMBDA {
        const B rate = simd::load<Arch>(a + n, extent), log2 = rate * log2_e, x = d * log2;
        const bool is_near = all_below(simd::abs(x), simd::exp2_reach<T>);
        const B decay = is_near ? simd::exp2_of_product(d, log2) : simd::select(x == x, simd::exp2(x), x);
        B from = in * simd::load<Arch>(b + n, extent);
        if constexpr (IsZoh) {
            const auto vanishes = simd::abs(rate) < B(selective_scan_least_rate<T>);
            from *= simd::select(vanishes, d, B(simd::exp2_less1(x) / simd::select(vanishes, B(T(1)), rate)));
        }
        B state = simd::fma(decay, simd::load<Arch>(h + n, extent), from), read = state;
        if constexpr (Extra != scan_extra::none) {
            if (added != nullptr)
                read += simd::load<Arch>(added + n, extent);
            if constexpr (Extra == scan_extra::carried)
                state = read;
            if (hidden != nullptr)
                simd::store(hidden + n, state, extent);
        }
        simd::store(h + n, state, extent);
        sum = simd::fma(simd::load<Arch>(c + n, extent), simd::only(read, extent), sum);
    });
    return sum;
}

template <class Arch, bool IsZoh, scan_extra Extra, class S>
DEFT_NOINLINE void step_channels(const selective_scan_channels<S>& scan, index t, const channel_states<compute_t<S>>& h,
                                 const channel_states<const compute_t<S>>& added,
                                 const channel_states<compute_t<S>>& hidden) noexcept {
    using T = compute_t<S>;
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    const S *const u_row = scan.u + t * scan.u_stride, *const delta = scan.delta + t * scan.delta_stride;
    const S *const b = scan.b + t * scan.b_stride, *const c = scan.c + t * scan.c_stride;
    simd::for_each_vector<T, Arch, 1>(scan.channels, [&](index first, auto, auto extent) DEFT_INLINE_LAMBDA {
        alignas(64) T steps[std::size_t(width)], inputs[std::size_t(width)], sums[std::size_t(width * width)] = {};
        B d = simd::load<Arch>(delta + first, extent);
        if (scan.bias != nullptr)
            d += simd::load<Arch>(scan.bias + first, extent);
        if (scan.has_softplus)
            d = simd::softplus(d);
        const B u = simd::load<Arch>(u_row + first, extent);
        d.store_aligned(steps);
        B(IsZoh ? u : d * u).store_aligned(inputs);
        for (index i = 0; i < width && first + i < scan.channels; ++i)
            step_channel<Arch, IsZoh, Extra>(scan.a + (first + i) * scan.a_stride, b, c, scan.states, steps[i],
                                             inputs[i], h.at(first + i), added.at(first + i), hidden.at(first + i))
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
            y *= simd::silu(simd::load<Arch>(scan.z + t * scan.z_stride + first, extent));
        simd::store<S>(scan.y + t * scan.y_stride + first, y, extent);
    });
}

} // namespace detail

/// All tokens, from and into h, whose tokens share a place.
template <class Arch, scan_extra Extra = scan_extra::none, class S>
DEFT_NOINLINE void selective_scan_steps(const selective_scan_channels<S>& scan, const channel_states<compute_t<S>>& h,
                                        channel_states<const compute_t<S>> added = {},
                                        channel_states<compute_t<S>> hidden = {}) noexcept {
    for (index t = 0; t < scan.tokens; ++t) {
        if (scan.is_zoh)
            detail::step_channels<Arch, true, Extra>(scan, t, h, added, hidden);
        else
            detail::step_channels<Arch, false, Extra>(scan, t, h, added, hidden);
        added.data = added.data == nullptr ? nullptr : added.data + added.token;
        hidden.data = hidden.data == nullptr ? nullptr : hidden.data + hidden.token;
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

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

    /// From state n of channel c on.
    DEFT_ALWAYS_INLINE channel_states at(index c, index n) const noexcept {
        return {data == nullptr ? nullptr : data + c * channel + n, channel, token};
    }
    DEFT_ALWAYS_INLINE void to_next_channel() noexcept {
        data = data == nullptr ? nullptr : data + channel;
    }
    DEFT_ALWAYS_INLINE void to_next_token() noexcept {
        data = data == nullptr ? nullptr : data + token;
    }
};

/// Where added states join.
enum class scan_extra { none, read, carried };

namespace detail {

// Some states of one channel, of h and of where it is shown; what C reads of them. in is d u, or u with zoh.
template <class Arch, bool IsZoh, scan_extra Extra, class T, class Extent>
DEFT_ALWAYS_INLINE simd::batch<T, Arch> step_states(const T* a, const simd::batch<T, Arch>& b,
                                                    const simd::batch<T, Arch>& d, const simd::batch<T, Arch>& in, T* h,
                                                    const T* added, T* hidden, Extent extent) noexcept {
    using B = simd::batch<T, Arch>;
    const B rate = simd::load<Arch>(a, extent), log2 = rate * B(simd::detail::exp_constants<T>::log2_e), x = d * log2;
    const bool is_near = simd::all_below(simd::abs(x), simd::exp2_reach<T>);
    const B decay = is_near ? simd::exp2_of_product(d, log2) : simd::select(x == x, simd::exp2(x), x);
    B from = in * b;
    if constexpr (IsZoh) {
        const auto vanishes = simd::abs(rate) < B(selective_scan_least_rate<T>);
        from *= simd::select(vanishes, d, B(simd::exp2_less1(x) / simd::select(vanishes, B(T(1)), rate)));
    }
    B state = simd::fma(decay, simd::load<Arch>(h, extent), from), read = state;
    if constexpr (Extra != scan_extra::none) {
        if (added != nullptr)
            read += simd::load<Arch>(added, extent);
        if constexpr (Extra == scan_extra::carried)
            state = read;
        if (hidden != nullptr)
            simd::store(hidden, state, extent);
    }
    simd::store(h, state, extent);
    return simd::only(read, extent);
}

// Tokens [t, t + count), into the y of the tile.
template <class Arch, bool IsZoh, scan_extra Extra, class S>
DEFT_NOINLINE void step_tile(const selective_scan_channels<S>& scan, index t, index count,
                             const channel_states<compute_t<S>>& h, channel_states<const compute_t<S>>& added,
                             channel_states<compute_t<S>>& hidden, scan_tile<Arch, compute_t<S>>& tile) noexcept {
    using T = compute_t<S>;
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    const index channels = scan.channels, a_stride = scan.a_stride;
    for (index token = 0; token < count; ++token, added.to_next_token(), hidden.to_next_token()) {
        const S *const b = scan.b + (t + token) * scan.b_stride, *const c = scan.c + (t + token) * scan.c_stride;
        for (index first = 0; first < channels; first += width) {
            const index at = tile.at(first, token), some = channels - first < width ? channels - first : width;
            alignas(64) T sums[std::size_t(width * width)] = {};
            // The channels inside, so that nothing but their states is loaded for each.
            simd::for_each_vector<T, Arch, 1>(scan.states, [&](index n, auto, auto extent) DEFT_INLINE_LAMBDA {
                const B of_b = simd::load<Arch>(b + n, extent), of_c = simd::load<Arch>(c + n, extent);
                const T* a = scan.a + first * a_stride + n;
                channel_states<T> to = h.at(first, n), shown = hidden.at(first, n);
                channel_states<const T> more = added.at(first, n);
                for (index i = 0; i < some; ++i, a += a_stride) {
                    const B read = step_states<Arch, IsZoh, Extra>(a, of_b, B(tile.d[at + i]), B(tile.input[at + i]),
                                                                   to.data, more.data, shown.data, extent);
                    T* const sum = sums + i * width;
                    simd::fma(of_c, read, B::load_aligned(sum)).store_aligned(sum);
                    to.to_next_channel(), more.to_next_channel(), shown.to_next_channel();
                }
            });
            B terms[std::size_t(width)];
            simd::load_transposed(static_cast<const T*>(sums), width, terms);
            B y(T(0));
            DEFT_UNROLL
            for (index i = 0; i < width; ++i)
                y += terms[i];
            simd::store(tile.y + at, y);
        }
    }
}

} // namespace detail

/// All tokens, from and into h, whose tokens share a place.
template <class Arch, scan_extra Extra = scan_extra::none, class S>
DEFT_NOINLINE void selective_scan_steps(const selective_scan_channels<S>& scan, const channel_states<compute_t<S>>& h,
                                        channel_states<const compute_t<S>> added = {},
                                        channel_states<compute_t<S>> hidden = {}) noexcept {
    constexpr index tokens = selective_scan_shape<Arch, compute_t<S>>::tile_tokens;
    detail::scan_tile<Arch, compute_t<S>> tile;
    for (index t = 0; t < scan.tokens; t += tokens) {
        const index count = scan.tokens - t < tokens ? scan.tokens - t : tokens;
        detail::start_tile<Arch>(scan, t, count, tile);
        if (scan.is_zoh)
            detail::step_tile<Arch, true, Extra>(scan, t, count, h, added, hidden, tile);
        else
            detail::step_tile<Arch, false, Extra>(scan, t, count, h, added, hidden, tile);
        detail::finish_tile<Arch>(scan, t, count, tile);
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

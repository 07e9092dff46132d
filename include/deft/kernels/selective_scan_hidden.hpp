/// \file
/// The selective scan that shows its states, token by token, and takes in what others have made of theirs. C++17.
///
///     read:     h = a h + phi B u,               y = sum_n C_n (h_n + added_n)
///     carried:  h = a h + phi B u + added,       y = sum_n C_n h_n
///
/// added and h lie as a model has them, states beside each other; they are turned into lanes of channels, a few states
/// at a time, by transposes in registers. Contract: that of selective_scan_forward; hidden may be added.
#ifndef DEFT_KERNELS_SELECTIVE_SCAN_HIDDEN_HPP
#define DEFT_KERNELS_SELECTIVE_SCAN_HIDDEN_HPP

#include <deft/kernels/selective_scan.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// States of the channels of a block: token t, channel c at data[t token + c channel], `states` consecutive elements.
template <class T>
struct shown_states {
    T* data; ///< may be null
    index token, channel;
};

namespace detail {

// rows of `count` <= width states, one per channel, to and from [state][width].
template <class Arch, class T>
DEFT_ALWAYS_INLINE void load_states(const T* rows, index stride, index channels, index count, T* square) noexcept {
    constexpr index width = simd::lanes<T, Arch>;
    if (channels >= width && count == width) {
        simd::batch<T, Arch> lanes[std::size_t(width)];
        simd::load_transposed(rows, stride, lanes);
        DEFT_UNROLL
        for (index n = 0; n < width; ++n)
            simd::store(square + n * width, lanes[n]);
        return;
    }
    for (index n = 0; n < count; ++n)
        for (index c = 0; c < width; ++c)
            square[n * width + c] = c < channels ? rows[c * stride + n] : T(0);
}

template <class Arch, class T>
DEFT_ALWAYS_INLINE void store_states(const T* square, index channels, index count, T* rows, index stride) noexcept {
    constexpr index width = simd::lanes<T, Arch>;
    if (channels >= width && count == width) {
        simd::batch<T, Arch> lanes[std::size_t(width)];
        DEFT_UNROLL
        for (index n = 0; n < width; ++n)
            lanes[n] = simd::load<Arch>(square + n * width);
        simd::store_transposed(lanes, rows, stride);
        return;
    }
    for (index n = 0; n < count; ++n)
        for (index c = 0; c < width && c < channels; ++c)
            rows[c * stride + n] = square[n * width + c];
}

// The vector of channels [c, c + width) along a tile.
template <class Arch, scan_rule Rule, scan_extra Extra, class S>
DEFT_NOINLINE void scan_hidden_of_vector(const selective_scan_channels<S>& scan,
                                         const shown_states<const compute_t<S>>& added,
                                         const shown_states<compute_t<S>>& hidden, index t, index count, index c,
                                         const selective_scan_decay<Arch, compute_t<S>>& decay, compute_t<S>* h,
                                         scan_tile<Arch, compute_t<S>>& tile) noexcept {
    using T = compute_t<S>;
    constexpr index width = simd::lanes<T, Arch>, square = width * width;
    constexpr int group = 2; // of states: a quarter of the registers less than without what is added
    alignas(64) T extra[std::size_t(scan_tile<Arch, T>::tokens * square)];
    const index block = c * scan.states, at = tile.at(c, 0), channels = scan.channels - c;
    for (index n = 0; n < scan.states; n += width) {
        const index states = scan.states - n < width ? scan.states - n : width;
        for (index i = 0; i < count; ++i) {
            if (added.data != nullptr)
                load_states<Arch>(added.data + (t + i) * added.token + c * added.channel + n, added.channel, channels,
                                  states, extra + i * square);
            else
                for (index k = 0; k < square; ++k)
                    extra[i * square + k] = T(0);
        }
        const auto run = [&](index j, auto taken) DEFT_INLINE_LAMBDA {
            scan_states_of_tile<Arch, decltype(taken)::value, Rule, true, Extra>(
                scan, t, count, n + j, decay.log2 + block, decay.inverse + block, h + block, tile.d + at,
                tile.input + at, tile.y + at, extra + j * width);
        };
        index j = 0;
        for (; j + group <= states; j += group)
            run(j, std::integral_constant<int, group>{});
        for (; j < states; ++j)
            run(j, std::integral_constant<int, 1>{});
        for (index i = 0; i < count && hidden.data != nullptr; ++i)
            store_states<Arch>(extra + i * square, channels, states,
                               hidden.data + (t + i) * hidden.token + c * hidden.channel + n, hidden.channel);
    }
}

} // namespace detail

/// All tokens from and into the state h of a block; added and hidden are at its first channel and token.
template <class Arch, bool IsCarried, class S>
DEFT_NOINLINE void
selective_scan_hidden(const selective_scan_channels<S>& scan, const shown_states<const compute_t<S>>& added,
                      const shown_states<compute_t<S>>& hidden, const selective_scan_decay<Arch, compute_t<S>>& decay,
                      compute_t<S>* h) noexcept {
    using T = compute_t<S>;
    constexpr index tokens = selective_scan_shape<Arch, T>::tile_tokens;
    constexpr auto extra = IsCarried ? detail::scan_extra::carried : detail::scan_extra::read;
    detail::scan_tile<Arch, T> tile;
    for (index t = 0; t < scan.tokens; t += tokens) {
        const index count = scan.tokens - t < tokens ? scan.tokens - t : tokens;
        detail::start_tile<Arch>(scan, t, count, tile);
        detail::for_each_scan_vector<Arch>(scan, count, decay, tile, [&](index c, auto rule) DEFT_INLINE_LAMBDA {
            detail::scan_hidden_of_vector<Arch, decltype(rule)::value, extra>(scan, added, hidden, t, count, c, decay,
                                                                              h, tile);
        });
        detail::finish_tile<Arch>(scan, t, count, tile);
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Depthwise causal convolution over tokens, for a block of channels. C++17.
///
///     p_t = bias + sum_k weight_k x_{t - W + 1 + k},   y_t = silu(p_t) or p_t,   x_{-i} = state row W - 1 - i
///
/// Contract: any alignment; only y, state and gradients are written, and nothing outside `channels`. y may be x. At
/// most causal_conv_taps taps, and causal_conv_channels(taps) channels at a time.
#ifndef DEFT_KERNELS_CAUSAL_CONV_HPP
#define DEFT_KERNELS_CAUSAL_CONV_HPP

#include <deft/kernels/activations.hpp>
#include <deft/simd/gather_rows.hpp>
#include <deft/simd/loop.hpp>

#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

inline constexpr index causal_conv_taps = 256;

/// Channels of a block, whose weights and last inputs stay in cache: pieces of memory rows of 4 KB as long as there are
/// few taps. Pieces of 1 KB, a page or two apart, took twice as long.
template <class T>
constexpr index causal_conv_channels(index taps) noexcept {
    constexpr index most = 4096 / index(sizeof(T)), least = 64 / index(sizeof(T)), total = least * causal_conv_taps;
    const index fit = total / taps / least * least;
    return fit < most ? fit : most;
}

/// A block of channels of one sequence.
template <class S>
struct causal_conv {
    using T = compute_t<S>;
    const S* x;
    index x_stride; ///< between tokens
    const T* weight;
    index weight_stride; ///< between channels
    const T* bias;       ///< null: zeros
    S* state;            ///< taps - 1 rows, oldest first; null: zeros, and the last inputs are not kept
    index state_stride;  ///< between rows
    S* y;
    index y_stride;
    index tokens, channels, taps;
    bool is_silu;
};

namespace detail {

template <class T>
inline constexpr std::size_t conv_buffer = std::size_t(64 / index(sizeof(T)) * causal_conv_taps);

// [taps][width] from [channels][taps].
template <class Arch, int Taps, class T>
DEFT_ALWAYS_INLINE void pack_taps(const T* weight, index stride, index channels, index taps, index width,
                                  T* packed) noexcept {
    constexpr index lanes = simd::lanes<T, Arch>;
    index first = 0;
    if constexpr (Taps == 4) // for a few tokens, scalars would take longer than all that follows
        for (; first + lanes <= channels; first += lanes) {
            const auto w = simd::load_rows_of_four<Arch>(weight + first * stride, stride);
            simd::store(packed + first, w.c0);
            simd::store(packed + width + first, w.c1);
            simd::store(packed + 2 * width + first, w.c2);
            simd::store(packed + 3 * width + first, w.c3);
        }
    for (index k = 0; k < taps; ++k)
        for (index c = first; c < width; ++c)
            packed[k * width + c] = c < channels ? weight[c * stride + k] : T(0);
}

// Tokens [t, t + Tokens). The window holds the taps - 1 inputs before t, and then those before t + Tokens: each input
// is read once, before its result is written. With a number of taps known here it moves through registers.
template <class Arch, int Taps, int Tokens, class S>
DEFT_ALWAYS_INLINE void conv_tokens(const causal_conv<S>& conv, index t, const compute_t<S>* weights, index width,
                                    compute_t<S>* window) noexcept {
    using T = compute_t<S>;
    using B = simd::batch<T, Arch>;
    const index taps = Taps == 0 ? conv.taps : Taps, x_stride = conv.x_stride, y_stride = conv.y_stride;
    const S* const x = conv.x + t * x_stride;
    S* const y = conv.y + t * y_stride;
    const T* const bias = conv.bias;
    const bool is_silu = conv.is_silu;
    simd::for_each_vector<T, Arch, 1>(conv.channels, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
        B p[std::size_t(Tokens)];
        const B start = bias == nullptr ? B(T(0)) : simd::load<Arch>(bias + c, extent);
        DEFT_UNROLL
        for (int i = 0; i < Tokens; ++i)
            p[i] = start;
        if constexpr (Taps != 0) {
            B in[std::size_t(Taps - 1 + Tokens)];
            DEFT_UNROLL
            for (int k = 0; k < Taps - 1; ++k)
                in[k] = simd::load<Arch>(window + k * width + c);
            DEFT_UNROLL
            for (int i = 0; i < Tokens; ++i)
                in[Taps - 1 + i] = simd::load<Arch>(x + i * x_stride + c, extent);
            DEFT_UNROLL
            for (int k = 0; k < Taps; ++k) {
                const B w = simd::load<Arch>(weights + k * width + c);
                DEFT_UNROLL
                for (int i = 0; i < Tokens; ++i)
                    p[i] = simd::fma(w, in[i + k], p[i]);
            }
            DEFT_UNROLL
            for (int k = 0; k < Taps - 1; ++k)
                simd::store(window + k * width + c, in[Tokens + k]);
        } else {
            DEFT_UNROLL
            for (int i = 0; i < Tokens; ++i)
                simd::store(window + (taps - 1 + i) * width + c, simd::load<Arch>(x + i * x_stride + c, extent));
            for (index k = 0; k < taps; ++k) {
                const B w = simd::load<Arch>(weights + k * width + c);
                DEFT_UNROLL
                for (int i = 0; i < Tokens; ++i)
                    p[i] = simd::fma(w, simd::load<Arch>(window + (i + k) * width + c), p[i]);
            }
            for (index k = 0; k < taps - 1; ++k)
                simd::store(window + k * width + c, simd::load<Arch>(window + (k + Tokens) * width + c));
        }
        DEFT_UNROLL
        for (int i = 0; i < Tokens; ++i)
            simd::store<S>(y + i * y_stride + c, is_silu ? simd::silu(p[i]) : p[i], extent);
    });
}

template <class Arch, int Taps, class S>
DEFT_NOINLINE void convolve(const causal_conv<S>& conv) noexcept {
    using T = compute_t<S>;
    constexpr int group = 4; // tokens that share a load of the weights
    const index taps = Taps == 0 ? conv.taps : Taps, channels = conv.channels, past = taps - 1;
    const index width = (channels + simd::lanes<T, Arch> - 1) / simd::lanes<T, Arch> * simd::lanes<T, Arch>;
    alignas(64) T weights[conv_buffer<T>];
    alignas(64) T window[conv_buffer<T> + std::size_t(causal_conv_channels<T>(1) * group)];
    pack_taps<Arch, Taps>(conv.weight, conv.weight_stride, channels, taps, width, weights);
    for (index k = 0; k < past; ++k)
        simd::for_each_vector<T, Arch, 1>(channels, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
            simd::store(window + k * width + c, conv.state == nullptr
                                                    ? simd::batch<T, Arch>(T(0))
                                                    : simd::load<Arch>(conv.state + k * conv.state_stride + c, extent));
        });
    index t = 0;
    for (; t + group <= conv.tokens; t += group)
        conv_tokens<Arch, Taps, group>(conv, t, weights, width, window);
    for (; t < conv.tokens; ++t)
        conv_tokens<Arch, Taps, 1>(conv, t, weights, width, window);
    if (conv.state != nullptr)
        for (index k = 0; k < past; ++k)
            simd::for_each_vector<T, Arch, 1>(channels, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
                simd::store<S>(conv.state + k * conv.state_stride + c, simd::load<Arch>(window + k * width + c),
                               extent);
            });
}

} // namespace detail

/// f(std::integral_constant<int, taps>) for the widths of Mamba, f(0) for others: the number is known when run.
template <class F>
DEFT_ALWAYS_INLINE void with_taps(index taps, F&& f) noexcept {
    switch (taps) {
    case 2:
        return f(std::integral_constant<int, 2>{});
    case 3:
        return f(std::integral_constant<int, 3>{});
    case 4:
        return f(std::integral_constant<int, 4>{});
    default:
        return f(std::integral_constant<int, 0>{});
    }
}

namespace detail {

// One token of four taps, for whole vectors of channels: as Mamba decodes. Nothing is worth packing. Returns how many.
template <class Arch, class S>
DEFT_NOINLINE index convolve_token(const causal_conv<S>& conv) noexcept {
    using T = compute_t<S>;
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    const index stride = conv.state_stride;
    index c = 0;
    for (; c + width <= conv.channels; c += width) {
        const auto w = simd::load_rows_of_four<Arch>(conv.weight + c * conv.weight_stride, conv.weight_stride);
        S* const past = conv.state + c;
        const B third = simd::load<Arch>(past), second = simd::load<Arch>(past + stride),
                last = simd::load<Arch>(past + 2 * stride), now = simd::load<Arch>(conv.x + c);
        B p = conv.bias == nullptr ? B(T(0)) : simd::load<Arch>(conv.bias + c);
        p = simd::fma(w.c3, now, simd::fma(w.c2, last, simd::fma(w.c1, second, simd::fma(w.c0, third, p))));
        simd::store<S>(past, second);
        simd::store<S>(past + stride, last);
        simd::store<S>(past + 2 * stride, now);
        simd::store<S>(conv.y + c, conv.is_silu ? simd::silu(p) : p);
    }
    return c;
}

} // namespace detail

/// y, and the state after the last token.
template <class Arch, class S>
DEFT_ALWAYS_INLINE void causal_conv_forward(causal_conv<S> conv) noexcept {
    DEFT_ASSERT(conv.taps <= causal_conv_taps && conv.channels <= causal_conv_channels<compute_t<S>>(conv.taps));
    if (conv.tokens == 1 && conv.taps == 4 && conv.state != nullptr) {
        const index done = detail::convolve_token<Arch>(conv);
        conv.x += done, conv.y += done, conv.state += done, conv.channels -= done;
        conv.weight += done * conv.weight_stride;
        conv.bias = conv.bias == nullptr ? nullptr : conv.bias + done;
        if (conv.channels == 0)
            return;
    }
    with_taps(conv.taps, [&](auto taps) { detail::convolve<Arch, decltype(taps)::value>(conv); });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

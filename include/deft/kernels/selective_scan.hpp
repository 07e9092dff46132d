/// \file
/// The selective scan over tokens for a block of channels, channels in lanes. C++17.
///
///     h_n = a_n h_n + phi_n B_n u,   a_n = exp(d A_n),   phi = d or (a_n - 1) / A_n,   y = sum_n C_n h_n
///
/// Tokens are taken by tiles: d = softplus(delta + bias) for all channels of the block, rows outside, as memory likes
/// it; then, a vector of channels after the other, a few states at a time stay in registers along the tile; last y = (y
/// + D u) silu(z). Neither a nor phi B u ever lie in memory.
///
/// Contract: any alignment; only y and the block's state are written. y may be u, delta or z.
#ifndef DEFT_KERNELS_SELECTIVE_SCAN_HPP
#define DEFT_KERNELS_SELECTIVE_SCAN_HPP

#include <deft/simd/exp2.hpp>
#include <deft/simd/loop.hpp>
#include <deft/simd/mask_bits.hpp>
#include <deft/simd/transpose.hpp>

#include <limits>
#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Where |A| is below, (exp(d A) - 1) / A is d for all d that make sense.
template <class T>
inline constexpr T selective_scan_least_rate = sizeof(T) == 4 ? T(1e-30) : T(1e-280);

/// States per channel at most: those of a block of channels, with A, are the first cache.
inline constexpr index selective_scan_states = 512;

template <class Arch, class T>
struct selective_scan_shape {
    static constexpr index width = simd::lanes<T, Arch>;
    static constexpr index most_vectors = 32; ///< of channels: short pieces of memory rows, pages apart, are slow
    static constexpr index tile_tokens = 32;
    static constexpr index block_size = selective_scan_states * width;
    static constexpr index tile_size = most_vectors * tile_tokens * width;

    /// Channels of a block.
    static constexpr index channels(index states) noexcept {
        const index fit = selective_scan_states / states;
        return (fit < most_vectors ? fit : most_vectors) * width;
    }
};

/// Channels of one sequence and one group, at most selective_scan_shape::channels(states).
template <class S>
struct selective_scan_channels {
    using T = compute_t<S>;
    const S *u, *delta, *z; ///< z may be null
    index u_stride, delta_stride, z_stride;
    const S *b, *c; ///< `states` consecutive elements per token
    index b_stride, c_stride;
    const T* a; ///< `states` consecutive elements per channel
    index a_stride;
    const T *d, *bias; ///< each may be null
    S* y;
    index y_stride;
    index tokens, channels, states;
    bool has_softplus, is_zoh;
};

/// A of a block, as vectors of channels: element (channel, n) at [channel / width][n][channel % width].
template <class Arch, class T>
struct selective_scan_decay {
    static constexpr index size = selective_scan_shape<Arch, T>::block_size;
    alignas(64) T log2[std::size_t(size)];    ///< A log2(e)
    alignas(64) T inverse[std::size_t(size)]; ///< 1 / A, and 0 where A vanishes; of zoh only
    T reach;                                  ///< the largest |A log2(e)|, NaN if one is not finite
};

/// block = rows of `states` consecutive elements, one per channel; behind the last channel zeros.
template <class Arch, class T>
DEFT_NOINLINE void load_channel_rows(const T* rows, index stride, index channels, index states, T* block) noexcept {
    constexpr index width = simd::lanes<T, Arch>;
    for (index c = 0; c < channels; c += width, block += states * width) {
        index n = 0;
        if (channels - c >= width)
            for (; n + width <= states; n += width) {
                simd::batch<T, Arch> square[std::size_t(width)];
                simd::load_transposed(rows + c * stride + n, stride, square);
                DEFT_UNROLL
                for (index i = 0; i < width; ++i)
                    simd::store(block + (n + i) * width, square[i]);
            }
        for (; n < states; ++n)
            for (index i = 0; i < width; ++i)
                block[n * width + i] = c + i < channels ? rows[(c + i) * stride + n] : T(0);
    }
}

template <class Arch, class T>
DEFT_NOINLINE void store_channel_rows(const T* block, index channels, index states, T* rows, index stride) noexcept {
    constexpr index width = simd::lanes<T, Arch>;
    for (index c = 0; c < channels; c += width, block += states * width) {
        index n = 0;
        if (channels - c >= width)
            for (; n + width <= states; n += width) {
                simd::batch<T, Arch> square[std::size_t(width)];
                DEFT_UNROLL
                for (index i = 0; i < width; ++i)
                    square[i] = simd::load<Arch>(block + (n + i) * width);
                simd::store_transposed(square, rows + c * stride + n, stride);
            }
        for (; n < states; ++n)
            for (index i = 0; i < width && c + i < channels; ++i)
                rows[(c + i) * stride + n] = block[n * width + i];
    }
}

template <class Arch, class S>
DEFT_NOINLINE void load_decay(const selective_scan_channels<S>& scan,
                              selective_scan_decay<Arch, compute_t<S>>& decay) noexcept {
    using T = compute_t<S>;
    constexpr index width = simd::lanes<T, Arch>;
    using B = simd::batch<T, Arch>;
    load_channel_rows<Arch>(scan.a, scan.a_stride, scan.channels, scan.states, decay.log2);
    const index size = (scan.channels + width - 1) / width * width * scan.states;
    const B least(selective_scan_least_rate<T>), one(T(1)), nan(std::numeric_limits<T>::quiet_NaN());
    for (index i = 0; scan.is_zoh && i < size; i += width) {
        const B a = simd::load<Arch>(decay.log2 + i);
        const auto vanishes = simd::abs(a) < least;
        simd::store(decay.inverse + i, simd::select(vanishes, B(T(0)), one / a));
    }
    B largest(T(0)), not_finite(T(0)); // a maximum forgets NaN
    for (index i = 0; i < size; i += width) {
        const B a = simd::load<Arch>(decay.log2 + i),
                log2 = simd::select(a == a, a * B(simd::detail::exp_constants<T>::log2_e), nan);
        simd::store(decay.log2 + i, log2);
        largest = simd::max(largest, simd::abs(log2));
        not_finite += log2 - log2;
    }
    alignas(64) T lanes[std::size_t(width)];
    B(largest + not_finite).store_aligned(lanes);
    decay.reach = 0;
    for (const T lane : lanes)
        decay.reach = lane <= decay.reach ? decay.reach : lane;
}

namespace detail {

// How a and phi are made: `near` where no exponent of the tile leaves the range, which is the rule.
enum class scan_rule { near, euler, zoh };

// What a tile of tokens holds between the steps, [vector of channels][token][width].
template <class Arch, class T>
struct scan_tile {
    static constexpr index size = selective_scan_shape<Arch, T>::tile_size;
    static constexpr index tokens = selective_scan_shape<Arch, T>::tile_tokens;
    static constexpr index width = simd::lanes<T, Arch>;
    alignas(64) T d[std::size_t(size)];
    alignas(64) T input[std::size_t(size)]; // d u, or u with zoh
    alignas(64) T y[std::size_t(size)];

    static constexpr index at(index channel, index token) noexcept {
        return channel * tokens + token * width; // channel is a multiple of width
    }
};

// d and the input of tokens [t, t + count).
template <class Arch, class S>
DEFT_NOINLINE void start_tile(const selective_scan_channels<S>& scan, index t, index count,
                              scan_tile<Arch, compute_t<S>>& tile) noexcept {
    using T = compute_t<S>;
    using B = simd::batch<T, Arch>;
    for (index i = 0; i < count; ++i) {
        const S* const u = scan.u + (t + i) * scan.u_stride;
        const S* const delta = scan.delta + (t + i) * scan.delta_stride;
        const T* const bias = scan.bias;
        const bool has_softplus = scan.has_softplus, is_zoh = scan.is_zoh;
        simd::for_each_vector<T, Arch, 1>(scan.channels, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
            B d = simd::load<Arch>(delta + c, extent);
            if (bias != nullptr)
                d += simd::load<Arch>(bias + c, extent);
            if (has_softplus)
                d = simd::softplus(d);
            const B input = simd::load<Arch>(u + c, extent);
            simd::store(tile.d + tile.at(c, i), d);
            simd::store(tile.input + tile.at(c, i), is_zoh ? input : d * input);
        });
    }
}

// y = (y + D u) silu(z) of tokens [t, t + count).
template <class Arch, class S>
DEFT_NOINLINE void finish_tile(const selective_scan_channels<S>& scan, index t, index count,
                               const scan_tile<Arch, compute_t<S>>& tile) noexcept {
    using T = compute_t<S>;
    using B = simd::batch<T, Arch>;
    for (index i = 0; i < count; ++i) {
        const S* const u = scan.u + (t + i) * scan.u_stride;
        const S* const z = scan.z == nullptr ? nullptr : scan.z + (t + i) * scan.z_stride;
        const T* const skip = scan.d;
        S* const to = scan.y + (t + i) * scan.y_stride;
        simd::for_each_vector<T, Arch, 1>(scan.channels, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
            B y = simd::load<Arch>(tile.y + tile.at(c, i));
            if (skip != nullptr)
                y = simd::fma(simd::load<Arch>(skip + c, extent), simd::load<Arch>(u + c, extent), y);
            if (z != nullptr)
                y *= simd::silu(simd::load<Arch>(z + c, extent));
            simd::store<S>(to + c, y, extent);
        });
    }
}

// States [n, n + States) of a vector of channels along a tile; h is [n][width].
template <class Arch, int States, scan_rule Rule, bool HasOutput, class S>
DEFT_ALWAYS_INLINE void scan_states_of_tile(const selective_scan_channels<S>& scan, index t, index count, index n,
                                            const compute_t<S>* log2, const compute_t<S>* inverse, compute_t<S>* h,
                                            const compute_t<S>* d, const compute_t<S>* input,
                                            compute_t<S>* y) noexcept {
    using T = compute_t<S>;
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    const index b_stride = scan.b_stride, c_stride = scan.c_stride;
    const S* b = scan.b + t * b_stride + n;
    const S* c = scan.c + t * c_stride + n;
    B a[std::size_t(States)], state[std::size_t(States)];
    DEFT_UNROLL
    for (int j = 0; j < States; ++j) {
        a[j] = simd::load<Arch>(log2 + (n + j) * width);
        state[j] = simd::load<Arch>(h + (n + j) * width);
    }
    for (index i = 0; i < count; ++i, b += b_stride, c += c_stride) {
        const B step = simd::load<Arch>(d + i * width), in = simd::load<Arch>(input + i * width);
        B sum = HasOutput && n > 0 ? simd::load<Arch>(y + i * width) : B(T(0));
        DEFT_UNROLL
        for (int j = 0; j < States; ++j) {
            const B from(static_cast<T>(b[j]));
            if constexpr (Rule == scan_rule::zoh) {
                const B x = step * a[j];
                const B less1 = simd::exp2_less1(x), inv = simd::load<Arch>(inverse + (n + j) * width);
                const B phi = simd::select(inv == B(T(0)), step, less1 * inv);
                state[j] = simd::fma(simd::exp2(x), state[j], phi * from * in);
            } else if constexpr (Rule == scan_rule::near) {
                state[j] = simd::fma(simd::exp2_of_product(step, a[j]), state[j], in * from);
            } else {
                state[j] = simd::fma(simd::exp2(step * a[j]), state[j], in * from);
            }
            if constexpr (HasOutput)
                sum = simd::fma(B(static_cast<T>(c[j])), state[j], sum);
        }
        if constexpr (HasOutput)
            simd::store(y + i * width, sum);
    }
    DEFT_UNROLL
    for (int j = 0; j < States; ++j)
        simd::store(h + (n + j) * width, state[j]);
}

// The vector of channels [c, c + width) along a tile.
template <class Arch, scan_rule Rule, bool HasOutput, class S>
DEFT_NOINLINE void scan_tile_of_vector(const selective_scan_channels<S>& scan, index t, index count, index c,
                                       const selective_scan_decay<Arch, compute_t<S>>& decay, compute_t<S>* h,
                                       scan_tile<Arch, compute_t<S>>& tile) noexcept {
    constexpr int group = 4; // with A, 8 registers; the other 8 hold what an exponential needs
    const index block = c * scan.states, at = tile.at(c, 0);
    const auto run = [&](index n, auto states) DEFT_INLINE_LAMBDA {
        scan_states_of_tile<Arch, decltype(states)::value, Rule, HasOutput>(scan, t, count, n, decay.log2 + block,
                                                                            decay.inverse + block, h + block,
                                                                            tile.d + at, tile.input + at, tile.y + at);
    };
    index n = 0;
    for (; n + group <= scan.states; n += group)
        run(n, std::integral_constant<int, group>{});
    for (; n < scan.states; ++n)
        run(n, std::integral_constant<int, 1>{});
}

template <class Arch, bool HasOutput, class S>
DEFT_NOINLINE void scan_tile_of_block(const selective_scan_channels<S>& scan, index t, index count,
                                      const selective_scan_decay<Arch, compute_t<S>>& decay, compute_t<S>* h,
                                      scan_tile<Arch, compute_t<S>>& tile) noexcept {
    using T = compute_t<S>;
    using B = simd::batch<T, Arch>;
    for (index c = 0; c < scan.channels; c += simd::lanes<T, Arch>) {
        B largest(T(0));
        for (index i = 0; i < count; ++i)
            largest = simd::max(largest, simd::abs(simd::load<Arch>(tile.d + tile.at(c, i))));
        const bool is_near = simd::all_below(largest * B(decay.reach), simd::exp2_reach<T>);
        if (scan.is_zoh)
            scan_tile_of_vector<Arch, scan_rule::zoh, HasOutput>(scan, t, count, c, decay, h, tile);
        else if (is_near)
            scan_tile_of_vector<Arch, scan_rule::near, HasOutput>(scan, t, count, c, decay, h, tile);
        else
            scan_tile_of_vector<Arch, scan_rule::euler, HasOutput>(scan, t, count, c, decay, h, tile);
    }
}

} // namespace detail

/// All tokens from and into the state h of a block. Without output y is not written; then `sum`, a row of channels, has
/// d of all tokens added.
template <class Arch, bool HasOutput, class S>
DEFT_NOINLINE void selective_scan_forward(const selective_scan_channels<S>& scan,
                                          const selective_scan_decay<Arch, compute_t<S>>& decay, compute_t<S>* h,
                                          compute_t<S>* sum) noexcept {
    using T = compute_t<S>;
    constexpr index tokens = selective_scan_shape<Arch, T>::tile_tokens, width = simd::lanes<T, Arch>;
    detail::scan_tile<Arch, T> tile;
    for (index t = 0; t < scan.tokens; t += tokens) {
        const index count = scan.tokens - t < tokens ? scan.tokens - t : tokens;
        detail::start_tile<Arch>(scan, t, count, tile);
        detail::scan_tile_of_block<Arch, HasOutput>(scan, t, count, decay, h, tile);
        if constexpr (HasOutput) {
            detail::finish_tile<Arch>(scan, t, count, tile);
        } else {
            for (index c = 0; c < scan.channels; c += width) {
                simd::batch<T, Arch> total = simd::load<Arch>(sum + c);
                for (index i = 0; i < count; ++i)
                    total += simd::load<Arch>(tile.d + tile.at(c, i));
                simd::store(sum + c, total);
            }
        }
    }
}

/// A span whose d add up to `sum` and whose state from 0 is `local` follows the state h: both change, local into the
/// state at its start, h into that at its end. The decay of a span is one exponential, not a product.
template <class Arch, class T>
DEFT_NOINLINE void selective_scan_combine(const selective_scan_decay<Arch, T>& decay, index channels, index states,
                                          const T* sum, T* local, T* h) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    for (index c = 0; c < channels; c += width) {
        const B total = simd::load<Arch>(sum + c);
        for (index at = c * states; at < (c + width) * states; at += width) {
            const B start = simd::load<Arch>(h + at), a = simd::exp2(total * simd::load<Arch>(decay.log2 + at));
            simd::store(h + at, simd::fma(a, start, simd::load<Arch>(local + at)));
            simd::store(local + at, start);
        }
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

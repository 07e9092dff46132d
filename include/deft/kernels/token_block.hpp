/// \file
/// Tokens on their way into a recurrence: decays as factors, and rows converted, scaled and packed. C++17.
///
/// Within a block of tokens the state is not decayed. With b_i the product of the decays so far, S_i / b_i follows a
/// recurrence without decay in which keys are divided by b_i and queries multiplied:
///
///     S_i = a_i S_{i-1} + k_i v_i^T   =>   S_i / b_i = S_{i-1} / b_{i-1} + (k_i / b_i) v_i^T,   q_i S_i = (b_i q_i)
///     (S_i / b_i)
///
/// Where b would leave [1/256, 256], or is 0, the state itself is multiplied and b starts again from 1: nothing can
/// overflow that would not in the plain recurrence with eight bits less, however long the sequence.
#ifndef DEFT_KERNELS_TOKEN_BLOCK_HPP
#define DEFT_KERNELS_TOKEN_BLOCK_HPP

#include <deft/kernels/state_panel.hpp>
#include <deft/simd/batch.hpp>
#include <deft/simd/loop.hpp>

#include <cmath>
#include <limits>
#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Decay of token i: data[i step], or without data the same for all.
template <class T>
struct decay_rows {
    const T* data;
    index step;
    double constant = 1; ///< not rounded to T, which over a long horizon would be another decay

    DEFT_ALWAYS_INLINE T operator[](index i) const noexcept {
        return static_cast<T>(exact(i));
    }
    DEFT_ALWAYS_INLINE double exact(index i) const noexcept {
        return data == nullptr ? constant : double(data[i * step]);
    }
};

/// How the tokens of a block and the state are multiplied.
template <class T>
struct block_factors {
    static constexpr index capacity = 132; ///< tokens of a block

    T key[std::size_t(capacity)], query[std::size_t(capacity)];
    T before[std::size_t(capacity)]; ///< the state, before the token; 1 but where b starts again
    T after;                         ///< the state, after the last token
};

/// `decay(i)` is that of token i of the block.
template <class T, class Decay>
void find_factors(index count, Decay&& decay, block_factors<T>& f) noexcept {
    constexpr double least = 1.0 / 256, greatest = 256;
    double b = 1;
    for (index i = 0; i < count; ++i) {
        const double a = double(decay(i)), next = b * a, size = next < 0 ? -next : next;
        const bool starts = i == 0 || !(size >= least && size <= greatest);
        f.before[i] = starts ? T(next) : T(1);
        b = starts ? 1 : next;
        f.query[i] = T(b);
        f.key[i] = T(1 / b);
    }
    f.after = T(b);
}

/// The same where key i counts exp(scale(i)) times, and the state exp(log_scale) times. log_scale follows the largest
/// of them, c' = max(c + log a, scale), -inf if all are; queries are not multiplied, so that what they read is off by a
/// factor that a quotient does not see.
template <class T, class Decay, class Scale>
void find_scaled_factors(index count, Decay&& decay, Scale&& scale, T& log_scale, block_factors<T>& f) noexcept {
    constexpr double most = 5.5, none = -std::numeric_limits<double>::infinity(); // e^5.5: as much as above
    const auto ratio = [](double x, double of) { return x == none ? 0.0 : std::exp(x - of); };
    double largest = double(log_scale), origin = largest; // the state as it is counts exp(origin) times
    for (index i = 0; i < count; ++i) {
        const double a = double(decay(i)), log_a = a > 0 ? std::log(a) : none, key = double(scale(i));
        largest = largest + log_a > key ? largest + log_a : key;
        origin += log_a;
        const bool starts = i == 0 || origin == none || key - origin > most;
        f.before[i] = starts ? T(ratio(origin, largest)) : T(1);
        origin = starts ? largest : origin;
        f.key[i] = T(ratio(key, origin));
        f.query[i] = T(1);
    }
    f.after = T(ratio(origin, largest));
    log_scale = T(largest);
}

/// A decayed count of tokens, c_i = gamma c_{i-1} + 1, from its value before token 0.
struct decayed_count {
    double before, gamma;

    /// After token i, without a walk: gamma^(i+1) before + (1 - gamma^(i+1)) / (1 - gamma).
    double after(index i) const noexcept {
        const double n = double(i + 1);
        if (gamma == 1)
            return before + n;
        const double log_power = n * std::log1p(gamma - 1);
        return std::exp(log_power) * before - std::expm1(log_power) / (1 - gamma);
    }
    /// f(i, c_i) for tokens [begin, begin + count), the first exact and the others from it.
    template <class F>
    DEFT_ALWAYS_INLINE void for_each(index begin, index count, F&& f) const noexcept {
        double c = begin == 0 ? before : after(begin - 1);
        for (index i = 0; i < count; ++i) {
            c = gamma * c + 1;
            f(i, c);
        }
    }
};

/// x_i = x_i / sqrt(c_i) of tokens [begin, begin + count), at most those of a block.
template <class Arch, class T>
DEFT_NOINLINE void divide_by_roots(const decayed_count& tokens, index begin, index count, T* x) noexcept {
    alignas(64) T c[std::size_t(block_factors<T>::capacity)];
    tokens.for_each(begin, count, [&](index i, double value) { c[i] = T(value); });
    simd::for_each_vector<T, Arch, 1>(count, [&](index i, auto, auto extent) DEFT_INLINE_LAMBDA {
        simd::store(x + i, simd::load<Arch>(x + i, extent) / simd::sqrt(simd::load<Arch>(c + i, extent)), extent);
    });
}

/// Vectors of T from memory of S.
template <class T, class Arch, class S, class Extent>
DEFT_ALWAYS_INLINE simd::batch<T, Arch> load_as(const S* p, Extent extent) noexcept {
    if constexpr (std::is_same_v<T, compute_t<S>>) {
        return simd::load<Arch>(p, extent);
    } else {
        constexpr index width = simd::lanes<T, Arch>;
        alignas(64) T wide[std::size_t(width)] = {};
        index count = width;
        if constexpr (std::is_same_v<Extent, simd::partial>)
            count = extent.count;
        for (index i = 0; i < count; ++i)
            wide[i] = static_cast<T>(static_cast<compute_t<S>>(p[i]));
        return simd::load<Arch>(wide);
    }
}

template <class T, class Arch, class S, class Extent>
DEFT_ALWAYS_INLINE void store_as(S* p, const simd::batch<T, Arch>& x, Extent extent) noexcept {
    if constexpr (std::is_same_v<T, compute_t<S>>) {
        simd::store<S>(p, x, extent);
    } else {
        constexpr index width = simd::lanes<T, Arch>;
        alignas(64) T wide[std::size_t(width)];
        simd::store(wide, x);
        index count = width;
        if constexpr (std::is_same_v<Extent, simd::partial>)
            count = extent.count;
        for (index i = 0; i < count; ++i)
            p[i] = static_cast<S>(static_cast<compute_t<S>>(wide[i]));
    }
}

/// to = scale from, `count` elements.
template <class Arch, class T, class S>
DEFT_ALWAYS_INLINE void pack_row(const S* from, index count, T scale, T* to) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    const B factor(scale);
    index c = 0;
    for (; c + width <= count; c += width)
        simd::store(to + c, factor * load_as<T, Arch>(from + c, simd::full{}));
    if (c < count)
        simd::store(to + c, factor * load_as<T, Arch>(from + c, simd::partial{count - c}), simd::partial{count - c});
}

/// to = scale from, and zeros up to a row of a panel.
template <class Arch, class T, class S>
DEFT_ALWAYS_INLINE void pack_columns(const S* from, index count, T scale, T* to) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>, columns = panel_shape<Arch, T>::columns;
    const B factor(scale);
    DEFT_UNROLL
    for (index c = 0; c < columns; c += width) {
        if (c + width <= count)
            simd::store(to + c, factor * load_as<T, Arch>(from + c, simd::full{}));
        else if (c < count)
            simd::store(to + c, factor * load_as<T, Arch>(from + c, simd::partial{count - c}));
        else
            simd::store(to + c, B(T(0)));
    }
}

/// Rows of memory that the next block of tokens will read and write, asked for a few at a time while this one is
/// computed: all at once they would wait for each other, and the hardware does not run ahead of a recurrence.
template <class S>
struct rows_ahead {
    struct kind {
        const S* data;
        index stride, width;
    };
    kind rows[4];
    index kinds, next, last; ///< tokens [next, last)
    index each, pause;       ///< of them at a time, and calls without any after that
    index wait = 0;

    /// Tokens [begin, end) over so many calls of ask().
    void spread(index begin, index end, index calls) noexcept {
        const index tokens = end - begin < 1 ? 1 : end - begin;
        next = begin;
        last = end;
        each = calls < 1 ? tokens : (tokens + calls - 1) / calls;
        pause = calls / tokens < 1 ? 0 : calls / tokens - 1;
    }
    DEFT_ALWAYS_INLINE void ask() noexcept {
#if defined(__GNUC__) || defined(__clang__)
        constexpr index line = 64 / index(sizeof(S));
        if (wait-- > 0)
            return;
        wait = pause;
        for (const index end = next + each < last ? next + each : last; next < end; ++next)
            for (index k = 0; k < kinds; ++k) {
                const S* const row = rows[k].data + next * rows[k].stride;
                for (index i = 0; i < rows[k].width; i += line)
                    __builtin_prefetch(row + i, 0, 2);
            }
#endif
    }
};

/// The tokens of a block, in order, through a panel whose state is multiplied as `f` says; `started`: it was before the
/// first.
template <class Arch, class T, bool Update, bool Read, class Ahead = no_rows_ahead>
void pass_block(const block_factors<T>& f, T* panel, index rows, token_rows<T> k, token_rows<T> q, const T* v, T* out,
                index count, bool started = false, Ahead* ahead = nullptr) noexcept {
    constexpr index columns = panel_shape<Arch, T>::columns;
    static_assert(panel_shape<Arch, T>::tokens <= block_factors<T>::capacity);
    for (index i = 0; i < count;) {
        if (f.before[i] != T(1) && !(started && i == 0))
            scale_panel<Arch>(panel, rows, f.before[i]);
        index end = i + 1;
        while (end < count && f.before[end] == T(1))
            ++end;
        pass_panel<Arch, T, Update, Read>(panel, rows, {k.data + (Update ? i * k.stride : 0), k.stride},
                                          {q.data + (Read ? i * q.stride : 0), q.stride}, v + i * columns,
                                          out + i * columns, end - i, ahead);
        i = end;
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

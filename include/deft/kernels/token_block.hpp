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

#include <cmath>
#include <limits>
#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Decay of token i: data[i step], or 1 without data.
template <class T>
struct decay_rows {
    const T* data;
    index step;

    DEFT_ALWAYS_INLINE T operator[](index i) const noexcept {
        return data == nullptr ? T(1) : data[i * step];
    }
};

/// How the tokens of a block and the state are multiplied.
template <class T>
struct block_factors {
    static constexpr index capacity = 64;

    T key[std::size_t(capacity)], query[std::size_t(capacity)];
    T before[std::size_t(capacity)]; ///< the state, before the token; 1 but where b starts again
    T after;                         ///< the state, after the last token
    bool all_one;
};

/// `decay(i)` is that of token i of the block.
template <class T, class Decay>
void find_factors(index count, Decay&& decay, block_factors<T>& f) noexcept {
    constexpr double least = 1.0 / 256, greatest = 256;
    double b = 1;
    f.all_one = true;
    for (index i = 0; i < count; ++i) {
        const double a = double(decay(i)), next = b * a, size = next < 0 ? -next : next;
        const bool starts = i == 0 || !(size >= least && size <= greatest);
        f.before[i] = starts ? T(next) : T(1);
        b = starts ? 1 : next;
        f.query[i] = T(b);
        f.key[i] = T(1 / b);
        f.all_one = f.all_one && a == 1;
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
    f.all_one = false;
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

/// The tokens of a block, in order, through a panel whose state is multiplied as `f` says.
template <class Arch, class T, bool Update, bool Read>
void pass_block(const block_factors<T>& f, T* panel, index rows, token_rows<T> k, token_rows<T> q, const T* v, T* out,
                index count) noexcept {
    constexpr index columns = panel_shape<Arch, T>::columns;
    for (index i = 0; i < count;) {
        if (f.before[i] != T(1))
            scale_panel<Arch>(panel, rows, f.before[i]);
        index end = i + 1;
        while (end < count && f.before[end] == T(1))
            ++end;
        pass_panel<Arch, T, Update, Read>(panel, rows, {k.data + (Update ? i * k.stride : 0), k.stride},
                                          {q.data + (Read ? i * q.stride : 0), q.stride}, v + i * columns,
                                          out + i * columns, end - i);
        i = end;
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// The parts of finding the k-th largest magnitude without sorting or copying: histograms of digits, and masks. C++17.
///
/// The bits of |x| as an integer are ordered as |x| is. Digits are counted from the highest on, each pass only among
/// the values that share the digits found before; what is left is one key, and how many of those equal to it are taken.
///
/// Contract: x has `count` elements, any alignment. `skip`, if not null, is a mask of elements that do not take part:
/// element i is bit first + i.
#ifndef DEFT_KERNELS_SELECT_MAGNITUDES_HPP
#define DEFT_KERNELS_SELECT_MAGNITUDES_HPP

#include <deft/simd/mask_bits.hpp>

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

template <class T>
using magnitude_key = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

/// Without the sign: equal for 0 and -0; above that of infinity only for NaN.
template <class T>
DEFT_ALWAYS_INLINE magnitude_key<T> key_of(T x) noexcept {
    magnitude_key<T> bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits & (~magnitude_key<T>(0) >> 1);
}

/// Bits of the first digit, and of those that follow: float takes two passes, double four.
inline constexpr int first_digit = 15, next_digit = 16;
inline constexpr index digit_values = index(1) << next_digit;

/// Counts the first digit, in two tables, of even and of odd elements: equal neighbours, such as zeros, would wait for
/// each other in one. table[2 d] and table[2 d + 1] are added to. True if some x is NaN.
template <class T>
DEFT_NOINLINE bool count_first_digit(const T* x, index count, const std::uint64_t* skip, index first,
                                     std::uint32_t* table) noexcept {
    using key = magnitude_key<T>;
    constexpr int shift = int(sizeof(T)) * 8 - 1 - first_digit;
    const key infinity = key_of(std::numeric_limits<T>::infinity());
    bool has_nan = false;
    index i = 0;
    if (skip == nullptr)
        for (; i + 2 <= count; i += 2) {
            const key even = key_of(x[i]), odd = key_of(x[i + 1]);
            has_nan |= (even > infinity) | (odd > infinity);
            ++table[2 * (even >> shift)];
            ++table[2 * (odd >> shift) + 1];
        }
    for (; i < count; ++i) {
        const key k = key_of(x[i]);
        has_nan |= k > infinity;
        const index bit = first + i;
        table[2 * (k >> shift)] += skip == nullptr || (skip[bit / 64] >> (bit % 64) & 1u) == 0 ? 1u : 0u;
    }
    return has_nan;
}

/// Counts the digit that begins at bit `shift` of those whose bits above it are `prefix`.
template <class T>
DEFT_NOINLINE void count_next_digit(const T* x, index count, const std::uint64_t* skip, index first, int shift,
                                    magnitude_key<T> prefix, std::uint32_t* table) noexcept {
    for (index i = 0; i < count; ++i) {
        const magnitude_key<T> k = key_of(x[i]);
        if (k >> (shift + next_digit) != prefix)
            continue;
        const index bit = first + i;
        if (skip == nullptr || (skip[bit / 64] >> (bit % 64) & 1u) == 0)
            ++table[(k >> shift) & (digit_values - 1)];
    }
}

/// Which magnitudes are kept: those above `key`, and the first `ties` that equal it.
template <class T>
struct magnitude_threshold {
    magnitude_key<T> key;
    index ties;
};

/// Bits first .. first + count - 1 of `mask`, which are 0 before, become 1 where x is kept and not skipped. Ties are
/// taken in order, and counted down in `threshold`.
template <class Arch, class T>
DEFT_NOINLINE void mark_magnitudes(const T* x, index count, const std::uint64_t* skip, index first,
                                   magnitude_threshold<T>& threshold, std::uint64_t* mask) noexcept {
    const magnitude_key<T> limit = threshold.key;
    index i = 0;
    const auto one_by_one = [&](index end) {
        for (; i < end; ++i) {
            const index bit = first + i;
            if (skip != nullptr && (skip[bit / 64] >> (bit % 64) & 1u) != 0)
                continue;
            const magnitude_key<T> k = key_of(x[i]);
            const bool tie = k == limit && threshold.ties > 0;
            threshold.ties -= tie ? 1 : 0;
            mask[bit / 64] |= std::uint64_t(k > limit || tie) << (bit % 64);
        }
    };
    one_by_one(first % 64 == 0 ? 0 : count < 64 - first % 64 ? count : 64 - first % 64);
    T value;
    std::memcpy(&value, &limit, sizeof value);
    for (; i + 64 <= count; i += 64) { // whole words
        const index word = (first + i) / 64;
        const std::uint64_t free = skip == nullptr ? ~std::uint64_t(0) : ~skip[word];
        std::uint64_t above, equal;
        simd::compare_magnitudes<Arch>(x + i, value, above, equal);
        for (equal &= free; equal != 0 && threshold.ties > 0; equal &= equal - 1, --threshold.ties)
            above |= equal & (~equal + 1);
        mask[word] = above & free;
    }
    one_by_one(count);
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Masks of pruned weights as bits: element i of a tensor, counted row-major, is bit i % 64 of word i / 64.
///
/// A mask of n elements takes mask_words(n) words, 32 times less than a float each; bits behind the last element are 0.
#ifndef DEFT_PRUNING_BIT_MASK_HPP
#define DEFT_PRUNING_BIT_MASK_HPP

#include <deft/view.hpp>

#include <cstdint>

namespace deft {

/// Words that hold a mask of `size` elements.
constexpr index mask_words(index size) noexcept {
    return (size + 63) / 64;
}

inline namespace DEFT_ISA {

/// Whether element `i` is kept.
DEFT_ALWAYS_INLINE bool mask_bit(in<std::uint64_t, 1> mask, index i) noexcept {
    return (mask(i / 64) >> (i % 64) & 1u) != 0;
}

namespace detail {

template <class Mask>
void check_mask(const char* op, const char* name, const Mask& mask, index size) {
    check_extent(op, name, mask, 0, mask_words(size), "words for one bit per element");
}

} // namespace detail

/// mask = bytes, which are 0 or 1. Throws std::invalid_argument if the sizes do not fit, or a byte is neither.
inline void pack_mask(in<std::uint8_t, 1> bytes, view<std::uint64_t, 1> mask) {
    const index n = bytes.extent(0);
    detail::check_mask("pack_mask", "mask", mask, n);
    for (index i = 0; i < n; ++i)
        detail::check(bytes(i) <= 1, "pack_mask", "bytes", "must be 0 or 1", double(bytes(i)));
    for (index w = 0; w < mask.extent(0); ++w) {
        std::uint64_t word = 0;
        for (index i = w * 64; i < n && i < w * 64 + 64; ++i)
            word |= std::uint64_t(bytes(i)) << (i - w * 64);
        mask(w) = word;
    }
}

/// bytes = mask, as 0 and 1. Throws std::invalid_argument if the sizes do not fit.
inline void unpack_mask(in<std::uint64_t, 1> mask, view<std::uint8_t, 1> bytes) {
    detail::check_mask("unpack_mask", "mask", mask, bytes.extent(0));
    for (index i = 0; i < bytes.extent(0); ++i)
        bytes(i) = std::uint8_t(mask_bit(mask, i));
}

/// Number of elements kept.
inline index count_mask(in<std::uint64_t, 1> mask) noexcept {
    index count = 0;
    for (index w = 0; w < mask.extent(0); ++w)
        for (std::uint64_t word = mask(w); word != 0; word &= word - 1)
            ++count;
    return count;
}

/// x = 0 where the mask is 0: the masked weight, and its gradient. x is [rows, columns] with any distance of rows.
/// Throws std::invalid_argument if the sizes do not fit.
template <class T>
void apply_mask(in<std::uint64_t, 1> mask, view<T, 2> x) {
    detail::check_mask("apply_mask", "mask", mask, x.size());
    const index columns = x.extent(1);
    for (index r = 0; r < x.extent(0); ++r) {
        T* const row = x.data() + r * x.stride(0);
        index i = r * columns;
        for (index c = 0; c < columns; ++c, ++i)
            row[c] = mask_bit(mask, i) ? row[c] : T(0);
    }
}

} // namespace DEFT_ISA
} // namespace deft

#endif

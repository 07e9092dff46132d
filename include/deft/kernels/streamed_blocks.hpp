/// \file
/// Output that is larger than the caches, written past them: what a kernel makes goes to a block in the first cache,
/// and from there to memory. Any kernel can do so, whatever loops it has. C++17.
#ifndef DEFT_KERNELS_STREAMED_BLOCKS_HPP
#define DEFT_KERNELS_STREAMED_BLOCKS_HPP

#include <deft/simd/loop.hpp>

#include <cstdint>
#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Beyond this, output does not stay in the caches, and writing past them saves reading it first.
inline constexpr index streamed_bytes = index{32} << 20;

/// Rows shorter than this are not streamed: their ends are lines that are written in parts.
inline constexpr index streamed_row = 1024;

/// Writes past the caches if `past_caches` says so and the vector is whole, otherwise as always.
template <class PastCaches, class T, class Arch, class Extent>
DEFT_ALWAYS_INLINE void store_past(PastCaches, T* p, const simd::batch<T, Arch>& x, Extent extent) noexcept {
    if constexpr (PastCaches::value && std::is_same_v<Extent, simd::full>)
        simd::stream(p, x);
    else
        simd::store(p, x, extent);
}

/// run(past_caches, begin, end) for [0, n) of y: what lies before the first line as always, the rest with Streaming.
template <bool Streaming, class T, class Run>
DEFT_ALWAYS_INLINE void stream_from_line(const T* y, index n, Run&& run) noexcept {
    index head = 0;
    if constexpr (Streaming) {
        while (head < n && reinterpret_cast<std::uintptr_t>(y + head) % simd::stream_alignment != 0)
            ++head;
        run(std::false_type{}, index(0), head);
    }
    run(std::bool_constant<Streaming>{}, head, n);
}

/// y[0 .. n) is what make(at, count, to) writes for the elements [at, at + count). simd::stream_end() after the last.
/// Elements that are not T, the type of the vectors, are written as they always are.
template <class Arch, class T, class S, class Make>
DEFT_ALWAYS_INLINE void stream_blocks(S* y, index n, Make&& make) noexcept {
    if constexpr (!std::is_same_v<S, T>) {
        make(index(0), n, y);
    } else {
        constexpr index width = simd::lanes<T, Arch>, line = simd::stream_alignment / index(sizeof(T));
        constexpr index block = 8192 / index(sizeof(T)), step = width > line ? width : line;
        alignas(64) T made[std::size_t(block)];
        index at = 0;
        while (at < n && reinterpret_cast<std::uintptr_t>(y + at) % simd::stream_alignment != 0)
            ++at;
        make(index(0), at, y);
        for (; n - at >= step;) {
            const index count = n - at < block ? (n - at) / step * step : block;
            make(at, count, made);
            for (index i = 0; i < count; i += width)
                simd::stream(y + at + i, simd::load<Arch>(made + i));
            at += count;
        }
        make(at, n - at, y + at);
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

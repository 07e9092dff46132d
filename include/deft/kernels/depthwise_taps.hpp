/// \file
/// Gradient of a depthwise convolution with respect to its taps. C++17.
#ifndef DEFT_KERNELS_DEPTHWISE_TAPS_HPP
#define DEFT_KERNELS_DEPTHWISE_TAPS_HPP

#include <deft/kernels/depthwise_rows.hpp>

#include <algorithm>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {
namespace detail {

// Taps of a row that are summed together, and pixels that stay in registers meanwhile.
inline constexpr int tap_group = tile_width;

// Taps of one row of the kernel. With the taps as outputs and the pixels of h as weights, this is add_tap_row again.
template <class Arch, class T, int Taps>
void add_tap_group(const T* h, index width, const T* const* rows, index column, index count, double* sums) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr int vectors = tile_vectors<T, Arch>;
    constexpr index lanes = simd::lanes<T, Arch>, size = block_channels<T, Arch>;
    for (index lane = 0; lane < size; lane += vectors * lanes) {
        B sum[std::size_t(Taps)][std::size_t(vectors)];
        DEFT_UNROLL
        for (int i = 0; i < Taps * vectors; ++i)
            sum[i / vectors][i % vectors] = B(T(0));
        const T* value = h + lane;
        for (index i = 0; i < count; ++i) {
            const T* row = rows[i] + column * size + lane;
            index j = 0;
            for (; j + tap_group <= width; j += tap_group, value += tap_group * size, row += tap_group * size) {
                DEFT_UNROLL
                for (int v = 0; v < vectors; ++v)
                    add_tap_row<Arch, 1, Taps, vectors, tap_group>(sum, v, value + v * lanes, size, row + v * lanes);
            }
            for (; j < width; ++j, value += size, row += size) {
                DEFT_UNROLL
                for (int v = 0; v < vectors; ++v)
                    add_tap_row<Arch, 1, Taps, vectors, 1>(sum, v, value + v * lanes, size, row + v * lanes);
            }
        }
        DEFT_UNROLL
        for (int i = 0; i < Taps * vectors; ++i) {
            alignas(64) T total[std::size_t(lanes)];
            sum[i / vectors][i % vectors].store_aligned(total);
            double* to = sums + i / vectors * size + lane + i % vectors * lanes;
            for (index c = 0; c < lanes; ++c)
                to[c] += double(total[c]);
        }
    }
}

} // namespace detail

/// sums[p,q] += sum_{i < count, j < width} h[i,j] pixels[i + p][j + q], one sum per channel; h is dense. The sums of a
/// call are in T: callers keep count width small, and add calls in double.
template <class Arch, class T>
void add_tap_gradients(const T* h, index count, index width, const input_rows<T>& input, index rows, index columns,
                       double* sums) noexcept {
    using group = void (*)(const T*, index, const T* const*, index, index, double*) noexcept;
    constexpr group groups[] = {detail::add_tap_group<Arch, T, 1>, detail::add_tap_group<Arch, T, 2>,
                                detail::add_tap_group<Arch, T, 3>, detail::add_tap_group<Arch, T, 4>,
                                detail::add_tap_group<Arch, T, 5>, detail::add_tap_group<Arch, T, 6>,
                                detail::add_tap_group<Arch, T, 7>};
    constexpr index size = block_channels<T, Arch>;
    for (index p = 0; p < rows; ++p) {
        const index first = std::max(-input.top - p, index{0});
        const index last = std::min(input.height - input.top - p, count);
        for (index q = 0; q < columns && first < last; q += detail::tap_group)
            groups[std::min(columns - q, index{detail::tap_group}) - 1](h + first * width * size, width,
                                                                        input.pixels + first + p, q, last - first,
                                                                        sums + (p * columns + q) * size);
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Gradient of a depthwise convolution with respect to its taps. C++17.
#ifndef DEFT_KERNELS_DEPTHWISE_TAPS_HPP
#define DEFT_KERNELS_DEPTHWISE_TAPS_HPP

#include <deft/kernels/depthwise_rows.hpp>

#include <algorithm>
#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {
namespace detail {

// Taps of a row that are summed together, and pixels that stay in registers meanwhile.
inline constexpr int tap_group = tile_width;

// Where a group of pixels begins and ends at an edge of the map, the first or last n of the pixels under it are
// padding.
struct map_edges {
    bool left, right; ///< of the first and last group
};

// Taps of one row of the kernel. With the taps as outputs and the pixels of h as weights, this is add_tap_row again.
template <class Arch, class T, int Taps>
void add_tap_group(const T* h, index width, const T* const* rows, index column, index count, map_edges edges,
                   double* sums) noexcept {
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
            const auto add = [&](auto at_left, auto at_right) DEFT_INLINE_LAMBDA {
                constexpr int n = Taps / 2, from = decltype(at_left)::value ? n : 0,
                              to = Taps + tap_group - 1 - (decltype(at_right)::value ? n : 0);
                DEFT_UNROLL
                for (int v = 0; v < vectors; ++v)
                    add_tap_row<Arch, 1, Taps, vectors, tap_group, from, to>(sum, v, value + v * lanes, size,
                                                                             row + v * lanes);
            };
            for (; j + tap_group <= width; j += tap_group, value += tap_group * size, row += tap_group * size) {
                const bool at_left = edges.left && j == 0, at_right = edges.right && j + tap_group == width;
                if (at_left && at_right)
                    add(std::true_type{}, std::true_type{});
                else if (at_left)
                    add(std::true_type{}, std::false_type{});
                else if (at_right)
                    add(std::false_type{}, std::true_type{});
                else
                    add(std::false_type{}, std::false_type{});
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

/// sums[p,q] += sum_{i < count, j < width} h[i,j] pixels[i + p][j + q], one sum per channel; h is dense. `at_left`,
/// `at_right`: the first, or last, columns / 2 pixels of input rows are padding. The sums of a call are in T: callers
/// keep count width small, and add calls in double.
template <class Arch, class T>
void add_tap_gradients(const T* h, index count, index width, const input_rows<T>& input, index rows, index columns,
                       bool at_left, bool at_right, double* sums) noexcept {
    using group = void (*)(const T*, index, const T* const*, index, index, detail::map_edges, double*) noexcept;
    constexpr group groups[] = {detail::add_tap_group<Arch, T, 1>, detail::add_tap_group<Arch, T, 2>,
                                detail::add_tap_group<Arch, T, 3>, detail::add_tap_group<Arch, T, 4>,
                                detail::add_tap_group<Arch, T, 5>, detail::add_tap_group<Arch, T, 6>,
                                detail::add_tap_group<Arch, T, 7>};
    constexpr index size = block_channels<T, Arch>;
    const bool is_whole_row = columns <= detail::tap_group && columns % 2 == 1;
    const detail::map_edges edges{at_left && is_whole_row, at_right && is_whole_row};
    for (index p = 0; p < rows; ++p) {
        const index first = std::max(-input.top - p, index{0});
        const index last = std::min(input.height - input.top - p, count);
        for (index q = 0; q < columns && first < last; q += detail::tap_group)
            groups[std::min(columns - q, index{detail::tap_group}) - 1](h + first * width * size, width,
                                                                        input.pixels + first + p, q, last - first,
                                                                        edges, sums + (p * columns + q) * size);
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Activation, then a depthwise 3 x 3 convolution, of maps whose columns are neighbours in memory, with the columns in
/// the lanes: formulas in depthwise_activation.hpp. C++17.
///
/// Nothing is transposed, and an input, loaded once at each of three shifts, serves all rows of outputs that are summed
/// together. With more taps the loads that straddle cache lines cost more than the transposition of channels into the
/// lanes (7 x 7 on 14 columns: twice the time).
///
/// Contract: any alignment, more columns than lanes; y must not overlap x. Rows whose length is no multiple of a vector
/// end with a vector that moves back into the row: masked stores cost 20 cycles on some processors. The activated rows
/// under a tile of columns lie zero-padded in a buffer on the stack, 20 KB for every size.
#ifndef DEFT_KERNELS_DEPTHWISE_PLANES_HPP
#define DEFT_KERNELS_DEPTHWISE_PLANES_HPP

#include <deft/kernels/activations.hpp>
#include <deft/kernels/channel_block.hpp>
#include <deft/simd/batch.hpp>

#include <algorithm>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {
namespace detail {

inline constexpr int plane_taps = 3;
inline constexpr index plane_columns = 64;       // of a tile at most
inline constexpr index plane_buffer = 20 * 1024; // bytes: a map of 56 x 56 is one band of rows

// Rows [0, Rows) and vectors [0, Vectors) of outputs at `to`, the last vector `end` columns from the first. h: the
// input row above the first of them, at the column to its left; of the rows from there on, [first, last)
// are in the map.
template <class Arch, int Vectors, int Rows, class T>
DEFT_ALWAYS_INLINE void sum_plane_block(const T* weight, T shift, const T* h, index stride, index first, index last,
                                        index end, T* to, index to_stride) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    B sum[std::size_t(Rows)][std::size_t(Vectors)];
    DEFT_UNROLL
    for (int o = 0; o < Rows; ++o) {
        DEFT_UNROLL
        for (int v = 0; v < Vectors; ++v)
            sum[o][v] = B(shift);
    }
    const auto column = [end](int v) DEFT_INLINE_LAMBDA { return v + 1 < Vectors ? v * width : end; };
    DEFT_UNROLL
    for (int d = 0; d < plane_taps + Rows - 1; ++d, h += stride) {
        if (d < first || d >= last)
            continue;
        DEFT_UNROLL
        for (int q = 0; q < plane_taps; ++q) {
            B input[std::size_t(Vectors)];
            DEFT_UNROLL
            for (int v = 0; v < Vectors; ++v)
                input[v] = simd::load<Arch>(h + q + column(v));
            DEFT_UNROLL
            for (int o = 0; o < Rows; ++o)
                if (0 <= d - o && d - o < plane_taps) {
                    const B w(weight[(d - o) * plane_taps + q]);
                    DEFT_UNROLL
                    for (int v = 0; v < Vectors; ++v)
                        sum[o][v] = simd::fma(w, input[v], sum[o][v]);
                }
        }
    }
    DEFT_UNROLL
    for (int o = 0; o < Rows; ++o, to += to_stride) {
        DEFT_UNROLL
        for (int v = 0; v < Vectors; ++v)
            simd::store(to + column(v), sum[o][v]);
    }
}

/// Some columns of a plane of outputs, and the rows of it to compute.
template <class T>
struct plane_strip {
    T* data; ///< row 0
    index row_stride, height, top, bottom;
    index end; ///< column of the last vector
};

// h: the input of the row above `top`. Rows are summed in groups; the last one moves up to be whole, and computes some
// rows again.
template <class Arch, int Vectors, class T>
DEFT_NOINLINE void sum_plane_strip(const T* weight, T shift, const T* h, index stride,
                                   const plane_strip<T>& y) noexcept {
    constexpr int group = Vectors == 2 ? 4 : 2; // the sums and what they are made of fill 16 registers
    const auto sum = [&](index i, auto rows) DEFT_INLINE_LAMBDA {
        sum_plane_block<Arch, Vectors, decltype(rows)::value>(
            weight, shift, h + (i - y.top) * stride, stride, std::max(plane_taps / 2 - i, index{0}),
            y.height + plane_taps / 2 - i, y.end, y.data + i * y.row_stride, y.row_stride);
    };
    if (y.bottom - y.top < group)
        for (index i = y.top; i < y.bottom; ++i)
            sum(i, std::integral_constant<int, 1>{});
    else
        for (index i = y.top; i < y.bottom; i += group)
            sum(std::min(i, y.bottom - group), std::integral_constant<int, group>{});
}

// f(j) for vectors at j that cover `count` elements, count >= Width, the last one moved back; two at a time, as rows
// are short.
template <index Width, class F>
DEFT_ALWAYS_INLINE void cover_row(index count, F&& f) noexcept {
    index i = 0;
    for (; i + Width < count; i += 2 * Width) {
        f(i);
        f(std::min(i + Width, count - Width));
    }
    if (i < count)
        f(count - Width);
}

// to[j] = sigma(from[j] + pre_bias), count >= lanes.
template <class Arch, class F, class T>
DEFT_ALWAYS_INLINE void activate_row(F, const T* from, index count, T pre_bias, T slope, T* to) noexcept {
    using B = simd::batch<T, Arch>;
    const B bias(pre_bias), s(slope);
    cover_row<simd::lanes<T, Arch>>(count, [=](index j) DEFT_INLINE_LAMBDA {
        simd::store(to + j, F::value(simd::load<Arch>(from + j) + bias, s));
    });
}

} // namespace detail

/// Whether the layer and maps with these strides between columns are what these kernels are for.
template <class Arch, class T, class... Stride>
bool fits_planes(index taps, index width, Stride... column_strides) noexcept {
    return taps == detail::plane_taps && width > simd::lanes<T, Arch> && (... && (column_strides == 1));
}

/// One channel: of image b the input starts at x + b x_stride, the output at y + b y_stride.
template <class T>
struct depthwise_channel {
    const T* weight; ///< [3, 3], dense, the scale in it
    T pre_bias, shift;
    const T* x;
    T* y;
};

/// y = shift + the convolution of sigma(x + pre_bias) for `count` channels of `images` maps of one size.
template <class Arch, class T>
DEFT_NOINLINE void depthwise_planes(const depthwise_channel<T>* channels, index count, activation base, T slope,
                                    const feature_map<const T>& x, const feature_map<T>& y,
                                    const map_extents& extents) noexcept {
    constexpr index lanes = simd::lanes<T, Arch>, n = detail::plane_taps / 2,
                    room = detail::plane_buffer / index(sizeof(T));
    alignas(64) T buffer[std::size_t(room)];
    const index height = extents.height, width = extents.width;
    const index tiles = (width + detail::plane_columns - 1) / detail::plane_columns;
    const index columns = (width + tiles - 1) / tiles; // of a tile; the last one moves back to have as many
    const index stride = (columns + 2 * n + lanes - 1) / lanes * lanes, band = room / stride - 2 * n;
    for (index tile = 0; tile < tiles; ++tile) {
        const index begin = std::min(tile * columns, width - columns);
        const index left = std::max(begin - n, index{0}), right = std::min(begin + columns + n, width);
        const index before = left - (begin - n), inside = before + right - left; // where padding ends, and begins
        for (index row = 0; row < std::min(band, height) + 2 * n; ++row) {
            std::fill(buffer + row * stride, buffer + row * stride + before, T(0));
            std::fill(buffer + row * stride + inside, buffer + row * stride + columns + 2 * n, T(0));
        }
        for (index c = 0; c < count; ++c)
            for (index image = 0; image < extents.images; ++image)
                for (index top = 0; top < height; top += band) {
                    const depthwise_channel<T>& channel = channels[c];
                    const index bottom = std::min(top + band, height);
                    const index above = std::max(top - n, index{0}), below = std::min(bottom + n, height);
                    const T* from = channel.x + image * x.batch_stride + above * x.row_stride + left;
                    T* row = buffer + (above - (top - n)) * stride + before;
                    dispatch_activation(base, [&](auto f) DEFT_INLINE_LAMBDA {
                        for (index r = above; r < below; ++r, from += x.row_stride, row += stride)
                            detail::activate_row<Arch>(f, from, right - left, channel.pre_bias, slope, row);
                    });
                    T* const to = channel.y + image * y.batch_stride + begin;
                    index j = 0;
                    while (j < columns) {
                        const auto sum = [&](auto vectors) {
                            constexpr int taken = decltype(vectors)::value;
                            const index end = std::min(j + (taken - 1) * lanes, columns - lanes) - j;
                            detail::sum_plane_strip<Arch, taken>(channel.weight, channel.shift, buffer + j, stride,
                                                                 {to + j, y.row_stride, height, top, bottom, end});
                            j += taken * lanes;
                        };
                        const index vectors = (columns - j + lanes - 1) / lanes; // never 1
                        if (vectors == 4 || vectors > 5)
                            sum(std::integral_constant<int, 4>{});
                        else if (vectors == 3 || vectors == 5)
                            sum(std::integral_constant<int, 3>{});
                        else
                            sum(std::integral_constant<int, 2>{});
                    }
                }
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

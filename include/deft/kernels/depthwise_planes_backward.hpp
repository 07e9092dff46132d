/// \file
/// Gradients of depthwise_planes, for one channel: with gz = k g,
///
///     grad_h[i,j] = sum_{p,q < 3} weight[p,q] gz[i-p+1,j-q+1];  grad_x = grad_h sigma'(x + pre_bias)
///     grad_weight[p,q] = sum_{i,j} gz[i-p+1,j-q+1] h[i,j]
///
/// Both take the same nine shifts of g around a pixel: loaded once, at three shifts of four rows, they serve two rows
/// of outputs and the sums of all taps, which stay in registers for a strip of a vector's columns. C++17.
///
/// Contract: any alignment, more columns than lanes; grad_x must not overlap x or g. Under a tile of columns some rows
/// of g, zero-padded, h and sigma' lie in buffers on the stack, 24 KB for every size. Sums are in T over such a band,
/// in double over bands.
#ifndef DEFT_KERNELS_DEPTHWISE_PLANES_BACKWARD_HPP
#define DEFT_KERNELS_DEPTHWISE_PLANES_BACKWARD_HPP

#include <deft/kernels/depthwise_planes.hpp>

#include <algorithm>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {
namespace detail {

inline constexpr index plane_gradient_buffer = 24 * 1024; // bytes: with what passes through, an L1 cache of 32 KB

// Rows of g, one row and one column before the outputs; of h and of sigma', at the outputs.
template <class T>
struct plane_gradient_input {
    const T *g, *value, *derivative;
    index g_stride, stride;
};

// Sums over pixels: those of g h for the nine shifts of g, those of grad_x and of g.
template <class Arch, class T>
struct plane_gradient_sums {
    static constexpr int taps = plane_taps * plane_taps, count = taps + 2;
    simd::batch<T, Arch> sum[std::size_t(count)];
};

// Rows [0, Rows) of a vector of outputs. weight: of shift (d, q) a vector of its tap.
template <class Arch, int Rows, class T>
DEFT_ALWAYS_INLINE void add_plane_block(const T* weight, const plane_gradient_input<T>& in, T* to, index to_stride,
                                        plane_gradient_sums<Arch, T>& sums) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    constexpr int n = plane_taps / 2;
    B value[std::size_t(Rows)], grad[std::size_t(Rows)];
    DEFT_UNROLL
    for (int o = 0; o < Rows; ++o) {
        value[o] = simd::load<Arch>(in.value + o * in.stride);
        grad[o] = B(T(0));
    }
    const T* g = in.g;
    DEFT_UNROLL
    for (int d = 0; d < plane_taps + Rows - 1; ++d, g += in.g_stride) {
        DEFT_UNROLL
        for (int q = 0; q < plane_taps; ++q) {
            const B input = simd::load<Arch>(g + q);
            if (q == n && n <= d && d < n + Rows)
                sums.sum[sums.taps + 1] += input;
            DEFT_UNROLL
            for (int o = 0; o < Rows; ++o)
                if (0 <= d - o && d - o < plane_taps) {
                    const int k = (d - o) * plane_taps + q;
                    grad[o] = simd::fma(B::load_aligned(weight + k * width), input, grad[o]);
                    sums.sum[k] = simd::fma(value[o], input, sums.sum[k]);
                }
        }
    }
    DEFT_UNROLL
    for (int o = 0; o < Rows; ++o, to += to_stride) {
        const B product = grad[o] * simd::load<Arch>(in.derivative + o * in.stride);
        simd::store(to, product);
        sums.sum[sums.taps] += product;
    }
}

// The lanes from `first` on.
template <class Arch, class T>
DEFT_ALWAYS_INLINE simd::mask<T, Arch> lanes_from(index first) noexcept {
    using B = simd::batch<T, Arch>;
    alignas(64) T number[std::size_t(simd::lanes<T, Arch>)];
    for (index lane = 0; lane < simd::lanes<T, Arch>; ++lane)
        number[lane] = T(lane);
    return B::load_aligned(number) >= B(T(first));
}

// `rows` rows of a vector of outputs. Its first `repeated` lanes are in another strip too, and not in `totals`
// (plane_gradient_sums, vector after vector).
template <class Arch, class T>
DEFT_NOINLINE void add_plane_strip(const T* weight, const plane_gradient_input<T>& input, index column, index rows,
                                   index repeated, T* to, index to_stride, T* totals) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    plane_gradient_input<T> in{input.g + column, input.value + column, input.derivative + column, input.g_stride,
                               input.stride};
    plane_gradient_sums<Arch, T> sums;
    DEFT_UNROLL
    for (int k = 0; k < sums.count; ++k)
        sums.sum[k] = B(T(0));
    index i = 0;
    for (; i + 2 <= rows; i += 2) {
        add_plane_block<Arch, 2>(weight, in, to, to_stride, sums);
        in.g += 2 * in.g_stride;
        in.value += 2 * in.stride;
        in.derivative += 2 * in.stride;
        to += 2 * to_stride;
    }
    if (i < rows)
        add_plane_block<Arch, 1>(weight, in, to, to_stride, sums);
    const auto is_new = lanes_from<Arch, T>(repeated);
    DEFT_UNROLL
    for (int k = 0; k < sums.count; ++k) {
        T* const total = totals + k * width;
        (B::load_aligned(total) + simd::keep_if(is_new, sums.sum[k])).store_aligned(total);
    }
}

// to[j] = from[j], count >= lanes.
template <class Arch, class T>
DEFT_ALWAYS_INLINE void copy_row(const T* from, index count, T* to) noexcept {
    cover_row<simd::lanes<T, Arch>>(count, [=](index j)
                                               DEFT_INLINE_LAMBDA { simd::store(to + j, simd::load<Arch>(from + j)); });
}

// value[j] = sigma(from[j] + pre_bias) and its derivative, count >= lanes.
template <class Arch, class F, class T>
DEFT_ALWAYS_INLINE void activate_row_both(F, const T* from, index count, T pre_bias, T slope, T* value,
                                          T* derivative) noexcept {
    using B = simd::batch<T, Arch>;
    const B bias(pre_bias), s(slope);
    cover_row<simd::lanes<T, Arch>>(count, [=](index j) DEFT_INLINE_LAMBDA {
        const auto both = F::both(simd::load<Arch>(from + j) + bias, s);
        simd::store(value + j, both.value);
        simd::store(derivative + j, both.derivative);
    });
}

} // namespace detail

/// One channel: of image b the maps start at x + b x_stride, and so on.
template <class T>
struct depthwise_channel_gradient {
    const T* weight; ///< [3, 3], dense, k in it
    T pre_bias;
    const T *x, *g;
    T* grad_x;
};

struct depthwise_channel_sums {
    double taps[std::size_t(detail::plane_taps * detail::plane_taps)]; ///< of g h: grad_weight is k times them
    double x, g;                                                       ///< of grad_x and of g
};

/// grad_x, and sums, for one channel of `images` maps of one size.
template <class Arch, class T>
DEFT_NOINLINE depthwise_channel_sums depthwise_planes_backward(const depthwise_channel_gradient<T>& channel,
                                                               activation base, T slope, const feature_map<const T>& x,
                                                               const feature_map<const T>& g,
                                                               const feature_map<T>& grad_x,
                                                               const map_extents& extents) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index lanes = simd::lanes<T, Arch>, n = detail::plane_taps / 2,
                    room = detail::plane_gradient_buffer / index(sizeof(T));
    constexpr int taps = detail::plane_gradient_sums<Arch, T>::taps,
                  count = detail::plane_gradient_sums<Arch, T>::count;
    double sums[std::size_t(count)] = {};
    alignas(64) T buffer[std::size_t(room)];
    alignas(64) T weight[std::size_t(taps * lanes)];
    for (int k = 0; k < taps; ++k)
        B(channel.weight[taps - 1 - k]).store_aligned(weight + k * lanes);
    const index height = extents.height, width = extents.width;
    const index tiles = (width + detail::plane_columns - 1) / detail::plane_columns;
    const index most = (width + tiles - 1) / tiles; // columns of a tile
    const index stride = (most + lanes - 1) / lanes * lanes, g_stride = stride + 2 * lanes;
    const index band = std::min((room - 2 * n * g_stride) / (g_stride + 2 * stride), height);
    T* const value = buffer + (band + 2 * n) * g_stride;
    T* const derivative = value + band * stride;
    T* const g_rows = buffer + lanes; // column `begin` of the row above the band
    for (index tile = 0; tile < tiles; ++tile) {
        const index begin = width * tile / tiles, end = width * (tile + 1) / tiles, columns = end - begin;
        const index left = std::max(begin - n, index{0}), right = std::min(end + n, width);
        for (index row = 0; row < band + 2 * n; ++row)
            g_rows[row * g_stride - n] = g_rows[row * g_stride + columns] = T(0);
        for (index image = 0; image < extents.images; ++image)
            for (index top = 0; top < height; top += band) {
                const index rows = std::min(band, height - top);
                const T* const g_from = channel.g + image * g.batch_stride + left;
                T* to = g_rows + (left - begin);
                for (index i = top - n; i < top + rows + n; ++i, to += g_stride)
                    if (0 <= i && i < height)
                        detail::copy_row<Arch>(g_from + i * g.row_stride, right - left, to);
                    else
                        std::fill(to, to + (right - left), T(0));
                const T* const x_from = channel.x + image * x.batch_stride + top * x.row_stride + begin;
                dispatch_activation(base, [&](auto f) DEFT_INLINE_LAMBDA {
                    for (index i = 0; i < rows; ++i)
                        detail::activate_row_both<Arch>(f, x_from + i * x.row_stride, columns, channel.pre_bias, slope,
                                                        value + i * stride, derivative + i * stride);
                });
                T* const out = channel.grad_x + image * grad_x.batch_stride + top * grad_x.row_stride + begin;
                alignas(64) T totals[std::size_t(count * lanes)];
                for (int k = 0; k < count; ++k)
                    B(T(0)).store_aligned(totals + k * lanes);
                const detail::plane_gradient_input<T> input{g_rows - n, value, derivative, g_stride, stride};
                for (index i = 0; i < columns; i += lanes) {
                    const index j = std::min(i, columns - lanes);
                    detail::add_plane_strip<Arch>(weight, input, j, rows, i - j, out + j, grad_x.row_stride, totals);
                }
                for (int k = 0; k < count; ++k)
                    sums[k] += double(simd::reduce_add(B::load_aligned(totals + k * lanes)));
            }
    }
    depthwise_channel_sums result;
    std::reverse_copy(sums, sums + taps, result.taps);
    result.x = sums[taps];
    result.g = sums[taps + 1];
    return result;
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Activation, then a depthwise K x K convolution of its zero-padded map, stride 1, same size (cross-correlation):
///
///     h[b,c,i,j] = sigma(x[b,c,i,j] + pre_bias[c]),   0 outside the map
///
///     z[b,c,i,j] = sum_{p,q < K} weight[c,p,q] h[b,c,i+p-n,j+q-n],   K = 2n + 1
///
///     y = scale z + shift
///
/// For one block of channels (Lines cache lines of them) the activated rows that the kernel spans lie in a ring on the
/// stack, so that every element is activated once. Wide maps are cut into tiles of columns and large kernels into
/// windows of taps, which bounds the stack at 45 KB a line for every size. y must not overlap x. C++17.
#ifndef DEFT_KERNELS_DEPTHWISE_ACTIVATION_HPP
#define DEFT_KERNELS_DEPTHWISE_ACTIVATION_HPP

#include <deft/kernels/activations.hpp>
#include <deft/kernels/channel_block.hpp>
#include <deft/kernels/depthwise_rows.hpp>
#include <deft/kernels/row_ring.hpp>

#include <algorithm>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Shape, parameters and activation of the layer.
template <class T>
struct depthwise_activation_layer {
    map_extents extents;
    index channels, taps; ///< taps: K, odd
    const T* weight;      ///< [channels, K, K], last stride 1
    index weight_channel_stride, weight_row_stride;
    const T* pre_bias; ///< [channels], or null: 0
    activation base;
    T slope;
};

namespace detail {

/// to = the `count` values from `first` on, and 0 in the lanes beyond them; all 0 if there are none.
template <class T, class To, std::size_t Size>
void gather_channels(const T* from, index first, index count, To (&to)[Size]) noexcept {
    if (from != nullptr && count == index(Size)) { // without a call of memset
        std::copy(from + first, from + first + index(Size), to);
        return;
    }
    std::fill(to, to + Size, To(0));
    if (from != nullptr)
        std::copy(from + first, from + first + count, to);
}

/// to[i][j] = sigma(from[i,j] + pre_bias) for the pixels of a patch.
template <class Arch, int Lines, class F, class T>
void activate_pixels(F, pixel_grid<const T> from, const map_patch& patch, const T* pre_bias, T slope, T* const* to,
                     index column) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index lanes = simd::lanes<T, Arch>;
    constexpr int vectors = block_vectors<T, Arch, Lines>;
    B shift[std::size_t(vectors)];
    DEFT_UNROLL
    for (int v = 0; v < vectors; ++v)
        shift[v] = B::load_aligned(pre_bias + v * lanes);
    const index rows = patch.rows(), columns = patch.columns(), stride = from.column_stride;
    for (index i = 0; i < rows; ++i) {
        const T* pixel = from.at(i, 0);
        T* activated = to[i] + column * vectors * lanes;
        for (index j = 0; j < columns; ++j, pixel += stride, activated += vectors * lanes) {
            DEFT_UNROLL
            for (int v = 0; v < vectors; ++v)
                F::value(simd::load<Arch>(pixel + v * lanes) + shift[v], B(slope)).store_aligned(activated + v * lanes);
        }
    }
}

} // namespace detail

/// A block of channels of the layer.
template <class Arch, class T, int Lines = 1>
class depthwise_activation_block {
    static constexpr index size = block_channels<T, Arch, Lines>;
    using output_block = channel_block<Arch, T, Lines>;
    using ring_of_rows = detail::row_ring<Arch, T, Lines>;

    template <index Pixels>
    static constexpr std::size_t elements = detail::elements<T, Arch, Lines>(Pixels);

public:
    depthwise_activation_block(const depthwise_activation_layer<T>& layer, const feature_map<const T>& x, index first,
                               index count) noexcept
        : layer_(layer), x_(x, first, count),
          weight_({layer.weight, 0, layer.weight_channel_stride, layer.weight_row_stride, 1}, first, count) {
        detail::gather_channels(layer.pre_bias, first, count, pre_bias_);
    }

    /// The taps of a window, [rows * columns, size], times `scale` ([size]) if that is not null.
    DEFT_NOINLINE void pack(const detail::tap_window& window, const T* scale, T* packed) const noexcept {
        weight_.copy({0, window.top, window.top + window.rows, window.left, window.left + window.columns}, packed);
        if (scale != nullptr)
            for (index k = 0; k < window.rows * window.columns; ++k)
                for (index c = 0; c < size; ++c)
                    packed[k * size + c] *= scale[c];
    }

    /// A patch of h, of at most max_input pixels: row i of it goes to rows[i] from pixel `column` on.
    DEFT_NOINLINE void activate(const map_patch& patch, T* const* rows, index column) const noexcept {
        alignas(64) T buffer[elements<detail::max_input>];
        const pixel_grid<const T> from = x_.read(patch, buffer);
        dispatch_activation(layer_.base, [&](auto f) {
            detail::activate_pixels<Arch, Lines>(f, from, patch, pre_bias_, layer_.slope, rows, column);
        });
    }

    /// y = scale z + shift in images [first_image, last_image). scale (null: 1) and shift are of length `size`. `ring`
    /// may have served other blocks, which saves laying it out.
    DEFT_NOINLINE void convolve(const T* scale, const T* shift, const output_block& y, index first_image,
                                index last_image, ring_of_rows& ring) const noexcept {
        alignas(64) T packed[elements<detail::max_window * detail::max_window>];
        detail::for_each_window(layer_.taps, [&](const detail::tap_window& window) {
            pack(window, scale, packed);
            for (index image = first_image; image < last_image; ++image)
                detail::for_each_part(layer_.extents.width, ring.longest_tile(window), [&](index begin, index end) {
                    convolve_tile(window, packed, shift, y, image, begin, end, ring);
                });
        });
    }

    DEFT_NOINLINE void convolve(const T* scale, const T* shift, const output_block& y, index first_image,
                                index last_image) const noexcept {
        ring_of_rows ring;
        convolve(scale, shift, y, first_image, last_image, ring);
    }

    /// One row of z, or a part of at most max_input pixels, at `to`. Activates what it needs anew for every row of
    /// taps.
    DEFT_NOINLINE void convolve_row(const map_patch& row, T* to) const noexcept {
        constexpr index longest = detail::max_input + detail::max_window - 1;
        alignas(64) T packed[elements<detail::max_window>];
        alignas(64) T h[elements<longest>];
        const index n = layer_.taps / 2;
        const pixel_grid<T> z{to, 0, size};
        std::fill(to, to + row.columns() * size, T(0));
        for (index p = std::max(n - row.top, index{0}); p < std::min(layer_.taps, layer_.extents.height + n - row.top);
             ++p)
            detail::for_each_part(layer_.taps, detail::max_window, [&](index left, index right) {
                const index columns = right - left;
                const detail::padded_columns padded(row.left + left - n, row.columns() + columns - 1,
                                                    layer_.extents.width);
                pack({p, left, 1, columns, false, false}, nullptr, packed);
                std::fill(h, h + padded.columns * size, T(0));
                T* const rows[] = {h};
                const index source = row.top + p - n;
                detail::for_each_part(padded.last - padded.first, detail::max_input, [&](index from, index until) {
                    activate({row.image, source, source + 1, padded.first + from, padded.first + until}, rows,
                             padded.first + from - padded.begin);
                });
                depthwise_rows<Arch, T, Lines>(row.columns(), columns, false,
                                               false)({rows, 0, 1}, {1, columns, packed, size}, 1, {to, 0, size}, z);
            });
    }

private:
    void convolve_tile(const detail::tap_window& window, const T* packed, const T* shift, const output_block& y,
                       index image, index begin, index end, ring_of_rows& ring) const noexcept {
        alignas(64) T buffer[elements<detail::max_tile>];
        const tap_rectangle<T> taps{window.rows, window.columns, packed, size};
        const auto fill = [&](const map_patch& patch, T* const* rows, index column) { activate(patch, rows, column); };
        const auto emit = [&](const map_patch& patch, const input_rows<T>& input) {
            const pixel_grid<const T> start =
                window.is_first ? pixel_grid<const T>{shift, 0, 0} : y.read(patch, buffer);
            ring.convolution()(input, taps, patch.rows(), start, y.target(patch, buffer));
            y.write(patch, buffer);
        };
        ring.slide(layer_.extents, image, window, layer_.taps / 2, begin, end, fill, emit);
    }

    const depthwise_activation_layer<T>& layer_;
    channel_block<Arch, const T, Lines> x_, weight_;
    alignas(64) T pre_bias_[elements<1>];
};

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

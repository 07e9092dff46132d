/// \file
/// A few neighbouring channels of a feature map, read and written row by row as vectors of channels, whatever the
/// layout.
///
/// Kernels that treat channels alike, such as depthwise convolutions, put channels into the lanes. With channels last
/// in memory a row can be used where it lies; other rows pass through a buffer, transposed where columns come last.
/// Nothing outside the map is touched: channels that a block has beyond the map are 0 when read, and not written.
/// C++17.
#ifndef DEFT_KERNELS_CHANNEL_BLOCK_HPP
#define DEFT_KERNELS_CHANNEL_BLOCK_HPP

#include <deft/simd/batch.hpp>
#include <deft/simd/transpose.hpp>

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Vectors in a block: together `Lines` cache lines, so that no line of a channels-last map is fetched twice.
template <class T, class Arch, int Lines = 1>
inline constexpr int block_vectors = Lines*(simd::lanes<T, Arch>* index(sizeof(T)) < 64
                                                ? 64 / static_cast<int>(simd::lanes<T, Arch> * index(sizeof(T)))
                                                : 1);
/// Channels in a block.
template <class T, class Arch, int Lines = 1>
inline constexpr index block_channels = block_vectors<T, Arch, Lines>* simd::lanes<T, Arch>;

/// a / b for 0 <= a < 2^32, 0 < b < 2^32. Division of 64 bits takes up to 90 cycles, as long as a row of a small map.
DEFT_ALWAYS_INLINE index small_quotient(index a, index b) noexcept {
    return static_cast<index>(static_cast<std::uint32_t>(a) / static_cast<std::uint32_t>(b));
}

/// Where the elements of a map lie. Channels or columns are neighbours in memory: one of these two strides is 1.
template <class T>
struct feature_map {
    T* data;
    index batch_stride, channel_stride, row_stride, column_stride;
};

struct map_extents {
    index images, height, width;

    index pixels() const noexcept {
        return images * height * width;
    }
};

/// Rows [top, bottom) and columns [left, right) of one image.
struct map_patch {
    index image, top, bottom, left, right;

    index rows() const noexcept {
        return bottom - top;
    }
    index columns() const noexcept {
        return right - left;
    }
};

/// f(patch) for patches of at most `most` pixels that together are all images, in order; whole rows if one fits.
template <class F>
void for_each_patch(const map_extents& extents, index most, F&& f) noexcept {
    const index columns = std::min(extents.width, most), rows = small_quotient(most, std::max(columns, index{1}));
    for (index image = 0; image < extents.images; ++image)
        for (index top = 0; top < extents.height; top += rows)
            for (index left = 0; left < extents.width; left += columns)
                f(map_patch{image, top, std::min(top + rows, extents.height), left,
                            std::min(left + columns, extents.width)});
}

/// Pixels of a patch: block_channels elements at data + row * row_stride + column * column_stride.
template <class T>
struct pixel_grid {
    T* data;
    index row_stride, column_stride;

    T* at(index row, index column) const noexcept {
        return data + row * row_stride + column * column_stride;
    }
};

/// Channels [first, first + count) of a map. Buffers are dense: block_channels elements per pixel, aligned to 64 bytes,
/// row after row of a patch.
template <class Arch, class T, int Lines = 1>
class channel_block {
    using value = std::remove_const_t<T>;
    using B = simd::batch<value, Arch>;
    static constexpr index lanes = simd::lanes<value, Arch>;
    static constexpr index size = block_channels<value, Arch, Lines>;

public:
    channel_block(const feature_map<T>& map, index first, index count) noexcept
        : map_(map), first_(map.data + first * map.channel_stride), count_(count) {
        DEFT_ASSERT(0 < count && count <= size && (map.channel_stride == 1 || map.column_stride == 1));
    }

    /// A patch: where it lies if that is possible, else copied to `buffer`.
    pixel_grid<const value> read(const map_patch& patch, value* buffer) const noexcept {
        if (is_direct())
            return {at(patch), map_.row_stride, map_.column_stride};
        copy(patch, buffer);
        return {buffer, patch.columns() * size, size};
    }

    /// A patch, copied.
    DEFT_NOINLINE void copy(const map_patch& patch, value* to) const noexcept {
        for_each_run(patch, [&](const T* from, index pixels, index first) {
            if (map_.channel_stride == 1)
                for (index j = 0; j < pixels; ++j)
                    copy_pixel(from + j * map_.column_stride, to + (first + j) * size);
            else
                copy_transposed(from, pixels, to + first * size);
        });
    }

    /// Where to put a patch, for write() to finish: in the map itself, or in `buffer`.
    pixel_grid<T> target(const map_patch& patch, T* buffer) const noexcept {
        if (is_direct())
            return {at(patch), map_.row_stride, map_.column_stride};
        return {buffer, patch.columns() * size, size};
    }

    /// Completes what was put where target() said.
    void write(const map_patch& patch, const T* buffer) const noexcept {
        if (!is_direct())
            put(patch, buffer);
    }

    /// A patch, copied from `from`.
    DEFT_NOINLINE void put(const map_patch& patch, const T* from) const noexcept {
        for_each_run(patch, [&](T* to, index pixels, index first) {
            if (is_direct())
                for (index j = 0; j < pixels; ++j)
                    for (index c = 0; c < size; c += lanes) // std::copy would call memmove
                        simd::store(to + j * map_.column_stride + c, B::load_aligned(from + (first + j) * size + c));
            else if (map_.channel_stride == 1)
                for (index j = 0; j < pixels; ++j)
                    std::copy(from + (first + j) * size, from + (first + j) * size + count_,
                              to + j * map_.column_stride);
            else
                put_transposed(from + first * size, pixels, to);
        });
    }

private:
    T* at(const map_patch& patch) const noexcept {
        return first_ + patch.image * map_.batch_stride + patch.top * map_.row_stride + patch.left * map_.column_stride;
    }

    // f(first pixel, their number, number of the first) for runs of evenly spaced pixels: rows, or all of the patch if
    // its rows follow each other, which fills vectors where rows are short.
    template <class F>
    void for_each_run(const map_patch& patch, F&& f) const noexcept {
        const index columns = patch.columns();
        if (map_.row_stride == columns * map_.column_stride)
            f(at(patch), patch.rows() * columns, index{0});
        else
            for (index i = 0; i < patch.rows(); ++i)
                f(at(patch) + i * map_.row_stride, columns, i * columns);
    }

    bool is_direct() const noexcept {
        return map_.channel_stride == 1 && count_ == size;
    }

    void copy_pixel(const value* from, value* to) const noexcept {
        for (index c = 0; c < size; c += lanes)
            part(from, c, count_ - c).store_aligned(to + c);
    }

    // The first `count` of the lanes at p + offset; 0 in the others.
    static B part(const value* p, index offset, index count) noexcept {
        if (count >= lanes)
            return simd::load<Arch>(p + offset);
        return count > 0 ? simd::load<Arch>(p + offset, simd::partial{count}) : B(value(0));
    }

    // Squares of `lanes` columns. Where columns do not fill the last one, it moves back over columns that are done.
    template <class Square>
    static void for_each_square(index columns, Square&& square) noexcept {
        if (columns < lanes) {
            square(index{0}, columns);
            return;
        }
        for (index j = 0; j < columns; j += lanes)
            square(j + lanes <= columns ? j : columns - lanes, lanes);
    }

    // Planes are more streams than the hardware looks ahead of, of runs that are short besides: 1.1 to 1.7 times faster
    // beyond the second cache, a fiftieth slower within. Twice as far ahead won half as much.
    DEFT_ALWAYS_INLINE void prefetch_square(const value* corner, index j) const noexcept {
        constexpr index line = 64 / index(sizeof(value)), ahead = 16 * line;
        if (j % line < lanes)
            for (index i = 0; i < lanes; ++i)
                simd::prefetch(corner + i * map_.channel_stride + ahead);
    }

    void copy_transposed(const value* from, index columns, value* to) const noexcept {
        for (index c = 0; c < size; c += lanes)
            for_each_square(columns, [&](index j, index width) {
                const value* corner = from + c * map_.channel_stride + j;
                prefetch_square(corner, j);
                B square[std::size_t(lanes)];
                if (c + lanes <= count_ && width == lanes) {
                    simd::load_transposed(corner, map_.channel_stride, square);
                } else {
                    DEFT_UNROLL
                    for (index i = 0; i < lanes; ++i)
                        square[i] = c + i < count_ ? part(corner + i * map_.channel_stride, 0, width) : B(value(0));
                    simd::transpose(square);
                }
                value* pixel = to + j * size + c;
                if (width == lanes) {
                    DEFT_UNROLL
                    for (index i = 0; i < lanes; ++i)
                        square[i].store_aligned(pixel + i * size);
                } else {
                    for (index i = 0; i < width; ++i)
                        square[i].store_aligned(pixel + i * size);
                }
            });
    }

    void put_transposed(const value* from, index columns, T* to) const noexcept {
        for (index c = 0; c < count_; c += lanes)
            for_each_square(columns, [&](index j, index width) {
                B square[std::size_t(lanes)];
                DEFT_UNROLL
                for (index i = 0; i < lanes; ++i)
                    square[i] = i < width ? B::load_aligned(from + (j + i) * size + c) : B(value(0));
                T* const corner = to + c * map_.channel_stride + j;
                prefetch_square(corner, j);
                if (c + lanes <= count_ && width == lanes) {
                    simd::store_transposed(square, corner, map_.channel_stride);
                    return;
                }
                simd::transpose(square);
                for (index i = 0; i < lanes && c + i < count_; ++i)
                    simd::store(corner + i * map_.channel_stride, square[i], simd::partial{width});
            });
    }

    feature_map<T> map_;
    T* first_;
    index count_;
};

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Rows of a map under a sliding K x K window, in a ring of buffers on the stack: each row is prepared once and used K
/// times. Wide maps are cut into tiles of columns and large kernels into windows of taps, so that the ring has a fixed
/// size. C++17.
#ifndef DEFT_KERNELS_ROW_RING_HPP
#define DEFT_KERNELS_ROW_RING_HPP

#include <deft/kernels/depthwise_rows.hpp>

#include <algorithm>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {
namespace detail {

/// Largest side of a window of taps; larger kernels are sums of windows.
inline constexpr index max_window = 11;
/// With 7 x 7 taps a map of 56 columns is one tile, and the ring of a line stays in an L1 cache of 32 KB.
inline constexpr index ring_bytes_per_line = 28 * 1024;
/// Pixels that are worked on together at most: columns of a tile, and those of a band of short rows.
inline constexpr index max_tile = 56;
/// A row of input under a tile.
inline constexpr index max_input = max_tile + max_window - 1;

/// Elements of `pixels` pixels.
template <class T, class Arch, int Lines = 1>
constexpr std::size_t elements(index pixels) noexcept {
    return std::size_t(pixels * block_channels<T, Arch, Lines>);
}

/// Taps (p, q) of the kernel, p in [top, top + rows), q in [left, left + columns).
struct tap_window {
    index top, left, rows, columns;
    bool is_first, is_last; ///< of those that make up the kernel
};

/// f(begin, end) for parts of [0, n) of about equal length, none longer than `longest`.
template <class F>
void for_each_part(index n, index longest, F&& f) noexcept {
    const index parts = n <= longest ? 1 : (n + longest - 1) / longest;
    const index length = parts == 1 ? n : (n + parts - 1) / parts;
    for (index begin = 0; begin < n; begin += length)
        f(begin, std::min(begin + length, n));
}

template <class F>
void for_each_window(index taps, F&& f) noexcept {
    for_each_part(taps, max_window, [&](index top, index bottom) {
        for_each_part(taps, max_window, [&](index left, index right) {
            f(tap_window{top, left, bottom - top, right - left, top == 0 && left == 0,
                         bottom == taps && right == taps});
        });
    });
}

/// A row of `columns` columns from `begin` on, of which the map has those in [first, last).
struct padded_columns {
    index begin, columns, first, last;

    padded_columns(index from, index count, index width) noexcept
        : begin(from), columns(count), first(std::clamp(index{0}, from, from + count)),
          last(std::clamp(width, first, from + count)) {}
};

/// Input that one tile of a map needs for one window of taps, row by row in a ring of zero-padded rows.
template <class Arch, class T, int Lines = 1>
class row_ring {
    static constexpr index size = block_channels<T, Arch, Lines>, ring_bytes = Lines * ring_bytes_per_line;

public:
    /// Columns of a tile at most.
    static index longest_tile(const tap_window& window) noexcept {
        const index pixels = small_quotient(ring_bytes, window.rows * size * index(sizeof(T)));
        return std::min(max_tile, pixels - (window.columns - 1));
    }

    /// For all rows of columns [begin, end) of an image in turn, a band of them at a time: emit(patch of output, its
    /// input). Before, fill(patch of input, rows, column) has put each pixel of input that the map has where it
    /// belongs: row r of the patch to rows[r] from pixel `column` on. Patches of output have at most max_tile pixels,
    /// of input max_input. `n`: half the side of the kernel.
    template <class Fill, class Emit>
    void slide(const map_extents& extents, index image, const tap_window& window, index n, index begin, index end,
               Fill&& fill, Emit&& emit) noexcept {
        lay_out({extents.height, extents.width, window.rows, window.columns, window.left - n, begin, end,
                 window.is_first && window.is_last});
        const index up = n - window.top; // output row i sees input rows from i - up on
        index filled = std::max(index{0}, -up), turn = 0;
        for (index i = 0; i < extents.height; i += band_) {
            const index bottom = std::min(i + band_, extents.height), top = i - up;
            T* const* const rows = slot_ + turn; // rows[r]: row top + r of the input
            const index needed = std::min(bottom - up + window.rows - 1, extents.height);
            for (index r = filled; padded_.first < padded_.last && r < needed; r += most_)
                fill(map_patch{image, r, std::min(r + most_, needed), padded_.first, padded_.last}, rows + (r - top),
                     padded_.first - padded_.begin);
            filled = std::max(filled, needed);
            emit(map_patch{image, i, bottom, begin, end}, input_rows<T>{rows, top, extents.height});
            turn = turn + band_ < slots_ ? turn + band_ : turn + band_ - slots_;
        }
    }

    /// The convolution of what emit() is given.
    const depthwise_rows<Arch, T, Lines>& convolution() const noexcept {
        return convolution_;
    }

private:
    struct layout {
        index height, width, rows, columns, left, begin, end;
        bool is_whole; // the window is the kernel

        bool operator==(const layout& other) const noexcept {
            return height == other.height && width == other.width && rows == other.rows && columns == other.columns &&
                   left == other.left && begin == other.begin && end == other.end && is_whole == other.is_whole;
        }
    };

    // Blocks of channels and images ask for the same layout again and again; to make it takes a tenth of the time of a
    // block of 7 x 7 pixels.
    void lay_out(const layout& wanted) noexcept {
        if (layout_ == wanted)
            return;
        layout_ = wanted;
        const index width = wanted.end - wanted.begin;
        convolution_ = depthwise_rows<Arch, T, Lines>(width, wanted.columns, wanted.is_whole && wanted.begin == 0,
                                                      wanted.is_whole && wanted.end == wanted.width);
        padded_ = padded_columns(wanted.begin + wanted.left, width + wanted.columns - 1, wanted.width);
        const index row_size = padded_.columns * size;
        const index room = small_quotient(ring_bytes, row_size * index(sizeof(T)));
        band_ = std::max(index{1}, std::min({room - wanted.rows + 1, small_quotient(max_tile, width), wanted.height}));
        slots_ = band_ + wanted.rows - 1;
        most_ = std::max(small_quotient(max_tile, std::max(padded_.last - padded_.first, index{1})), index{1});
        for (index r = 0; r < slots_; ++r) {
            T* const row = slot_[r] = slot_[r + slots_] = storage_ + r * row_size;
            std::fill(row, row + (padded_.first - padded_.begin) * size, T(0));
            std::fill(row + (padded_.last - padded_.begin) * size, row + row_size, T(0));
        }
    }

    layout layout_{};
    depthwise_rows<Arch, T, Lines> convolution_{0, 0, false, false};
    padded_columns padded_{0, 0, 0};
    index band_, slots_, most_;                       // most_: rows of input that are filled together
    T* slot_[2 * std::size_t(max_window + max_tile)]; // the ring twice: every turn of it is a contiguous list
    alignas(64) T storage_[std::size_t(ring_bytes) / sizeof(T)];
};

} // namespace detail
} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// The inner loops of depthwise convolutions, over rows of pixels whose lanes are channels. C++17.
///
/// A pixel is a block of block_channels channels (Lines cache lines). Rows of input lie in buffers, pixel after pixel,
/// aligned to 64 bytes and zero-padded by the caller.
#ifndef DEFT_KERNELS_DEPTHWISE_ROWS_HPP
#define DEFT_KERNELS_DEPTHWISE_ROWS_HPP

#include <deft/kernels/channel_block.hpp>

#include <algorithm>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// A rectangle of taps. From tap to tap, in a row and from the end of a row to the next, it is `step` elements; a
/// negative step walks taps backwards, as the gradient with respect to the input does.
template <class T>
struct tap_rectangle {
    index rows, columns;
    const T* weight; ///< of the first tap
    index step;
};

/// Input under the taps: tap row p of output row i lies on pixels[i + p], which is row top + i + p of a map of `height`
/// rows. Rows that the map does not have are not looked at.
template <class T>
struct input_rows {
    const T* const* pixels;
    index top, height;
};

namespace detail {

// Outputs that are computed together. With two vectors per pixel that makes 14 sums, which with two weights fill the 16
// registers of AVX2, as do the sums and the 7 taps of one vector with an input; maps of 7, 14, 28 and 56 columns divide
// by it.
inline constexpr int tile_width = 7;

// Vectors of a pixel that are computed together.
template <class T, class Arch>
inline constexpr int tile_vectors = block_vectors<T, Arch> < 2 ? 1 : 2;

// Hides where p comes from. Compilers see otherwise that neighbouring taps share inputs, carry those over in registers,
// run out of them and spill the sums: half the speed.
template <class T>
DEFT_ALWAYS_INLINE const T* opaque(const T* p) noexcept {
#if defined(__GNUC__) || defined(__clang__)
    __asm__("" : "+r"(p));
#endif
    return p;
}

// Keeps v in a register up to here. Compilers see otherwise that the last use of an input may overwrite it, and move
// sums from register to register.
template <class T, class Arch>
DEFT_ALWAYS_INLINE void keep([[maybe_unused]] const simd::batch<T, Arch>& v) noexcept {
#if defined(DEFT_SIMD_X86) && (defined(__GNUC__) || defined(__clang__))
    __asm__("" : : "v"(v.data));
#endif
}

// sum[t] += weight h[t], the inputs as memory operands of the FMAs.
template <class Arch, int Lines, int Width, int Vectors, class T>
DEFT_ALWAYS_INLINE void add_tap(simd::batch<T, Arch> (&sum)[std::size_t(Width)][std::size_t(Vectors)], const T* w,
                                const T* h) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index lanes = simd::lanes<T, Arch>, size = block_channels<T, Arch, Lines>;
    h = opaque(h);
    B weight[std::size_t(Vectors)];
    DEFT_UNROLL
    for (int v = 0; v < Vectors; ++v)
        weight[v] = B::load_aligned(w + v * lanes);
    DEFT_UNROLL
    for (int t = 0; t < Width; ++t) {
        DEFT_UNROLL
        for (int v = 0; v < Vectors; ++v)
            sum[t][v] = simd::fma(weight[v], B::load_aligned(h + t * size + v * lanes), sum[t][v]);
    }
}

// sum[t][v] += sum_{q < Columns} w[q] h[t + q]. An FMA that loads an operand of its own is held up by the load ports:
// here every input is loaded once, and the taps stay in registers. Inputs outside [From, To) are known to be 0.
//
// Seven sums are too few to hide the latency of an FMA, most of all between edges of the map, where the middle one
// takes every tap and the others take few. The other vector of the pixels, which comes next, fills the gaps; that some
// sums wait in memory meanwhile costs less.
template <class Arch, int Lines, int Width, int Vectors, int Columns, int From = 0, int To = Width + Columns - 1,
          class T>
DEFT_ALWAYS_INLINE void add_tap_row(simd::batch<T, Arch> (&sum)[std::size_t(Width)][std::size_t(Vectors)], int v,
                                    const T* w, index step, const T* h) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index size = block_channels<T, Arch, Lines>;
    h = opaque(h);
    B weight[std::size_t(Columns)];
    DEFT_UNROLL
    for (int q = 0; q < Columns; ++q, w += step)
        weight[q] = B::load_aligned(w);
    DEFT_UNROLL
    for (int j = From; j < To; ++j) {
        const B input = B::load_aligned(h + j * size);
        DEFT_UNROLL
        for (int q = 0; q < Columns; ++q)
            if (0 <= j - q && j - q < Width)
                sum[j - q][v] = simd::fma(weight[q], input, sum[j - q][v]);
        if (Width > 1 && Columns > 1 && 0 < j && j < Width + Columns - 2) // else it has one use, which may load it
            keep(input);
    }
}

// `rows` rows of `tiles` tiles of Width outputs, from column `begin` on. Columns: 0, or the number of columns of taps.
// It is needed for tiles at the edge of the map: inputs before From or from To on are padding then and are left out, a
// quarter of the work at 7 x 7 taps.
template <class Arch, class T, int Lines, int Width, int Columns = 0, int From = 0, int To = Width + Columns - 1>
void depthwise_tiles(const input_rows<T>& input, const tap_rectangle<T>& taps, index rows, index begin, index tiles,
                     const pixel_grid<const T>& start, const pixel_grid<T>& to) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr int vectors = tile_vectors<T, Arch>;
    constexpr index lanes = simd::lanes<T, Arch>, size = block_channels<T, Arch, Lines>;
    const index columns = Columns != 0 ? Columns : taps.columns, step = taps.step;
    const index start_stride = start.column_stride, to_stride = to.column_stride;
    for (index i = 0; i < rows; ++i) {
        const index first = std::max(-input.top - i, index{0});
        const index last = std::min(input.height - input.top - i, taps.rows);
        const T* const* const pixels = input.pixels + i;
        const T* const weight = taps.weight + first * columns * step;
        for (index lane = 0; lane < size; lane += vectors * lanes) {
            const T* from = start.at(i, begin) + lane;
            T* out = to.at(i, begin) + lane;
            index column = begin * size + lane;
            for (index k = 0; k < tiles; ++k, column += Width * size) {
                // A pixel of a map with its channels last is a line far from the others: asked for while its sum is
                // computed, it does not stop the stores (1.1 times faster in cache, up to 2.3 beyond it).
                DEFT_UNROLL
                for (int t = 0; t < Width; ++t)
                    simd::prefetch(out + t * to_stride);
                B sum[std::size_t(Width)][std::size_t(vectors)];
                DEFT_UNROLL
                for (int t = 0; t < Width; ++t, from += start_stride) {
                    DEFT_UNROLL
                    for (int v = 0; v < vectors; ++v)
                        sum[t][v] = simd::load<Arch>(from + v * lanes);
                }
                const T* w = weight + lane;
                for (index p = first; p < last; ++p) {
                    const T* h = pixels[p] + column;
                    if constexpr (Columns == 0) {
                        for (index q = 0; q < columns; ++q, h += size, w += step)
                            add_tap<Arch, Lines, Width, vectors>(sum, w, h);
                    } else {
                        DEFT_UNROLL
                        for (int v = 0; v < vectors; ++v)
                            add_tap_row<Arch, Lines, Width, vectors, Columns, From, To>(sum, v, w + v * lanes, step,
                                                                                        h + v * lanes);
                        w += Columns * step;
                    }
                }
                DEFT_UNROLL
                for (int t = 0; t < Width; ++t, out += to_stride) {
                    DEFT_UNROLL
                    for (int v = 0; v < vectors; ++v)
                        simd::store(out + v * lanes, sum[t][v]);
                }
            }
        }
    }
}

} // namespace detail

/// A depthwise convolution of rows of one width, cut into tiles. Their widths differ by one at most, so that no tile is
/// left over with too few sums to hide the latency of an FMA.
template <class Arch, class T, int Lines = 1>
class depthwise_rows {
    using kernel = void (*)(const input_rows<T>&, const tap_rectangle<T>&, index, index, index,
                            const pixel_grid<const T>&, const pixel_grid<T>&) noexcept;

public:
    /// `at_left`, `at_right`: the first, or last, columns / 2 pixels of input rows are padding.
    depthwise_rows(index width, index columns, bool at_left, bool at_right) noexcept {
        const index longest = detail::tile_width, tiles = (width + longest - 1) / longest;
        const index narrow = small_quotient(width, std::max(tiles, index{1})), wide_tiles = width - tiles * narrow;
        const auto tile = [&](index k) { return k < wide_tiles ? narrow + 1 : narrow; };
        const index last = tiles - 1;
        if (tiles > 0)
            add(select(tile(0), columns, at_left, at_right && last == 0), tile(0), 1);
        add(select(narrow + 1, columns, false, false), narrow + 1, std::min(wide_tiles, last) - 1);
        add(select(narrow, columns, false, false), narrow, last - std::max(wide_tiles, index{1}));
        if (last > 0)
            add(select(tile(last), columns, false, at_right), tile(last), 1);
    }

    /// to[i,j] = start[i,j] + sum_{p,q} weight[p,q] pixels[i + p][j + q], 0 <= i < rows, 0 <= j < width. `start` may be
    /// `to`; rows of input have columns - 1 pixels more than rows of output.
    void operator()(const input_rows<T>& input, const tap_rectangle<T>& taps, index rows,
                    const pixel_grid<const T>& start, const pixel_grid<T>& to) const noexcept {
        for (int g = 0; g < groups_; ++g)
            group_[g].run(input, taps, rows, group_[g].begin, group_[g].tiles, start, to);
    }

private:
    struct group {
        kernel run;
        index begin, tiles;
    };

    void add(kernel run, index width, index tiles) noexcept {
        if (tiles <= 0)
            return;
        group_[groups_++] = {run, end_, tiles};
        end_ += width * tiles;
    }

    template <int Columns>
    static kernel select_edge(bool at_left, bool at_right) noexcept {
        constexpr int width = detail::tile_width, n = Columns / 2;
        if (at_left && at_right)
            return detail::depthwise_tiles<Arch, T, Lines, width, Columns, n, width + n>;
        if (at_left)
            return detail::depthwise_tiles<Arch, T, Lines, width, Columns, n, width + 2 * n>;
        if (at_right)
            return detail::depthwise_tiles<Arch, T, Lines, width, Columns, 0, width + n>;
        return detail::depthwise_tiles<Arch, T, Lines, width, Columns>;
    }

    static kernel select(index width, index columns, bool at_left, bool at_right) noexcept {
        if (width == detail::tile_width) {
            if (columns == 3)
                return select_edge<3>(at_left, at_right);
            if (columns == 5)
                return select_edge<5>(at_left, at_right);
            if (columns == 7)
                return select_edge<7>(at_left, at_right);
        }
        constexpr kernel of_width[] = {
            detail::depthwise_tiles<Arch, T, Lines, 1>, detail::depthwise_tiles<Arch, T, Lines, 2>,
            detail::depthwise_tiles<Arch, T, Lines, 3>, detail::depthwise_tiles<Arch, T, Lines, 4>,
            detail::depthwise_tiles<Arch, T, Lines, 5>, detail::depthwise_tiles<Arch, T, Lines, 6>,
            detail::depthwise_tiles<Arch, T, Lines, 7>};
        return of_width[std::clamp(width, index{1}, index{detail::tile_width}) - 1];
    }

    group group_[4];
    int groups_ = 0;
    index end_ = 0;
};

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

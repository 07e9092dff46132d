/// \file
/// Statistics per channel over all images and pixels of a map, in double, and the normalisation that rests on them.
///
/// Everything works on one block of channels, row after row in one thread: results do not depend on how blocks are
/// shared out. C++17.
#ifndef DEFT_KERNELS_CHANNEL_STATISTICS_HPP
#define DEFT_KERNELS_CHANNEL_STATISTICS_HPP

#include <deft/kernels/channel_block.hpp>

#include <algorithm>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// A number per channel of a block.
template <class Arch, class T>
struct per_channel {
    static constexpr index size = block_channels<T, Arch>;
    alignas(64) double values[std::size_t(size)] = {};

    double& operator[](index c) noexcept {
        return values[c];
    }
    double operator[](index c) const noexcept {
        return values[c];
    }
};

namespace detail {

inline constexpr index statistics_pixels = 32; // in the buffers that patches pass through

// The sums of a patch, in T, to those of the map.
template <class Arch, class T>
DEFT_ALWAYS_INLINE void add_to_channels(const simd::batch<T, Arch> (&part)[std::size_t(block_vectors<T, Arch>)],
                                        per_channel<Arch, T>& sum) noexcept {
    constexpr index size = block_channels<T, Arch>;
    alignas(64) T total[std::size_t(size)];
    DEFT_UNROLL
    for (int v = 0; v < block_vectors<T, Arch>; ++v)
        part[v].store_aligned(total + v * simd::lanes<T, Arch>);
    for (index c = 0; c < size; ++c)
        sum.values[c] += double(total[c]);
}

} // namespace detail

/// sum[c] += term(value, c) over the map.
template <class Arch, class T, class U, class Term>
void add_over_map(const channel_block<Arch, U>& map, const map_extents& extents, per_channel<Arch, T>& sum,
                  Term&& term) noexcept {
    alignas(64) T buffer[std::size_t(detail::statistics_pixels * sum.size)];
    for_each_patch(extents, detail::statistics_pixels, [&](const map_patch& patch) {
        const pixel_grid<const T> pixels = map.read(patch, buffer);
        for (index i = 0; i < patch.rows(); ++i)
            for (index j = 0; j < patch.columns(); ++j)
                for (index c = 0; c < sum.size; ++c)
                    sum.values[c] += term(double(pixels.at(i, j)[c]), c);
    });
}

/// sum[c] += value over the map; in T over a patch, in double over patches.
template <class Arch, class T, class U>
void add_pixels(const channel_block<Arch, U>& map, const map_extents& extents, per_channel<Arch, T>& sum) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index lanes = simd::lanes<T, Arch>;
    constexpr int vectors = block_vectors<T, Arch>;
    alignas(64) T buffer[std::size_t(detail::statistics_pixels * sum.size)];
    for_each_patch(extents, detail::statistics_pixels, [&](const map_patch& patch) {
        const pixel_grid<const T> pixels = map.read(patch, buffer);
        B part[std::size_t(vectors)];
        DEFT_UNROLL
        for (int v = 0; v < vectors; ++v)
            part[v] = B(T(0));
        for (index i = 0; i < patch.rows(); ++i)
            for (index j = 0; j < patch.columns(); ++j) {
                DEFT_UNROLL
                for (int v = 0; v < vectors; ++v)
                    part[v] += simd::load<Arch>(pixels.at(i, j) + v * lanes);
            }
        detail::add_to_channels<Arch, T>(part, sum);
    });
}

/// Mean and biased variance; the squares are those of z - mean, as E[z^2] - E[z]^2 would cancel.
template <class Arch, class T>
void channel_moments(const channel_block<Arch, T>& z, const map_extents& extents, per_channel<Arch, T>& mean,
                     per_channel<Arch, T>& variance) noexcept {
    add_over_map(z, extents, mean, [](double value, index) { return value; });
    for (double& m : mean.values)
        m /= double(extents.pixels());
    add_over_map(z, extents, variance, [&](double value, index c) { return (value - mean[c]) * (value - mean[c]); });
    for (double& v : variance.values)
        v /= double(extents.pixels());
}

/// y = scale (y - mean) + shift, in place.
template <class Arch, class T>
void normalise(const channel_block<Arch, T>& y, const map_extents& extents, const per_channel<Arch, T>& mean,
               const per_channel<Arch, T>& scale, const per_channel<Arch, T>& shift) noexcept {
    alignas(64) T buffer[std::size_t(detail::statistics_pixels * scale.size)];
    for_each_patch(extents, detail::statistics_pixels, [&](const map_patch& patch) {
        const pixel_grid<const T> from = y.read(patch, buffer);
        const pixel_grid<T> to = y.target(patch, buffer);
        for (index i = 0; i < patch.rows(); ++i)
            for (index j = 0; j < patch.columns(); ++j)
                for (index c = 0; c < scale.size; ++c)
                    to.at(i, j)[c] = T(scale[c] * (double(from.at(i, j)[c]) - mean[c]) + shift[c]);
        y.write(patch, buffer);
    });
}

/// sum[c] += g (z - mean) inverse over the map.
template <class Arch, class T>
void add_normalised(const channel_block<Arch, const T>& g, const channel_block<Arch, T>& z, const map_extents& extents,
                    const per_channel<Arch, T>& mean, const per_channel<Arch, T>& inverse,
                    per_channel<Arch, T>& sum) noexcept {
    alignas(64) T g_buffer[std::size_t(detail::statistics_pixels * sum.size)];
    alignas(64) T z_buffer[std::size_t(detail::statistics_pixels * sum.size)];
    for_each_patch(extents, detail::statistics_pixels, [&](const map_patch& patch) {
        const pixel_grid<const T> gs = g.read(patch, g_buffer), zs = z.read(patch, z_buffer);
        for (index i = 0; i < patch.rows(); ++i)
            for (index j = 0; j < patch.columns(); ++j)
                for (index c = 0; c < sum.size; ++c)
                    sum.values[c] += double(gs.at(i, j)[c]) * ((double(zs.at(i, j)[c]) - mean[c]) * inverse[c]);
    });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

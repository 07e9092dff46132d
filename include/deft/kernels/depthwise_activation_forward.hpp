/// \file
/// depthwise_activation_block::convolve followed by a bias or by batch normalisation, for one block of channels. C++17.
#ifndef DEFT_KERNELS_DEPTHWISE_ACTIVATION_FORWARD_HPP
#define DEFT_KERNELS_DEPTHWISE_ACTIVATION_FORWARD_HPP

#include <deft/kernels/channel_statistics.hpp>
#include <deft/kernels/depthwise_activation.hpp>
#include <deft/kernels/depthwise_planes.hpp>

#include <cmath>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// What follows the convolution, each [channels] or null: y = gamma (z - mean) / sqrt(variance + eps) + beta. gamma
/// null: y = z + beta, beta null: 0. mean and variance null: those of the batch.
template <class T>
struct channel_normalisation {
    const T *gamma, *beta, *mean, *variance;
    double eps;
};

/// Running statistics, [channels]: r <- (1 - momentum) r + momentum s.
template <class T>
struct running_statistics {
    T *mean, *variance;
    double momentum;
};

namespace detail {

/// to[first + c] = values[c] for the channels of the block, unless `to` is null.
template <class Arch, class T>
void scatter_channels(const per_channel<Arch, T>& values, index first, index count, T* to) noexcept {
    if (to != nullptr)
        for (index c = 0; c < count; ++c)
            to[first + c] = T(values[c]);
}

// The taps of a channel, dense, times `scale`.
template <class T>
void copy_plane_taps(const depthwise_activation_layer<T>& layer, index channel, T scale, T* to) noexcept {
    const T* const from = layer.weight + channel * layer.weight_channel_stride;
    for (index k = 0; k < plane_taps * plane_taps; ++k)
        to[k] = from[k / plane_taps * layer.weight_row_stride + k % plane_taps] * scale;
}

// convolve() with the columns in the lanes.
template <class Arch, class T>
void convolve_planes(const depthwise_activation_layer<T>& layer, const feature_map<const T>& x, const T* scale,
                     const T* shift, const feature_map<T>& y, index first, index count, index first_image,
                     index last_image) noexcept {
    constexpr std::size_t most = std::size_t(block_channels<T, Arch>);
    depthwise_channel<T> channels[most];
    T weight[most][std::size_t(plane_taps * plane_taps)];
    for (index c = 0; c < count; ++c) {
        copy_plane_taps(layer, first + c, scale == nullptr ? T(1) : scale[c], weight[c]);
        channels[c] = {weight[c], layer.pre_bias == nullptr ? T(0) : layer.pre_bias[first + c], shift[c],
                       x.data + first_image * x.batch_stride + (first + c) * x.channel_stride,
                       y.data + first_image * y.batch_stride + (first + c) * y.channel_stride};
    }
    depthwise_planes<Arch>(channels, count, layer.base, layer.slope, x, y,
                           {last_image - first_image, layer.extents.height, layer.extents.width});
}

// z of channels [first, first + count), scaled and shifted.
template <class Arch, class T, int Lines>
void convolve(const depthwise_activation_layer<T>& layer, const feature_map<const T>& x, const T* scale, const T* shift,
              const feature_map<T>& y, index first, index count, index first_image, index last_image,
              row_ring<Arch, T, Lines>& ring) noexcept {
    if (fits_planes<Arch, T>(layer.taps, layer.extents.width, x.column_stride, y.column_stride))
        convolve_planes<Arch>(layer, x, scale, shift, y, first, count, first_image, last_image);
    else
        depthwise_activation_block<Arch, T, Lines>(layer, x, first, count)
            .convolve(scale, shift, channel_block<Arch, T, Lines>(y, first, count), first_image, last_image, ring);
}

} // namespace detail

/// Channels [first, first + count), at most a block of Lines, of images [first_image, last_image), with a bias or given
/// statistics. These go into the weights and the start of the sums, so that they cost nothing per element.
template <class Arch, class T, int Lines>
void depthwise_activation_forward(const depthwise_activation_layer<T>& layer, const feature_map<const T>& x,
                                  const channel_normalisation<T>& normalisation, const feature_map<T>& y, index first,
                                  index count, index first_image, index last_image,
                                  detail::row_ring<Arch, T, Lines>& ring) noexcept {
    constexpr index size = block_channels<T, Arch, Lines>;
    alignas(64) T shift[std::size_t(size)], scale[std::size_t(size)];
    detail::gather_channels(normalisation.beta, first, count, shift);
    if (normalisation.gamma == nullptr) {
        detail::convolve<Arch, T>(layer, x, nullptr, shift, y, first, count, first_image, last_image, ring);
        return;
    }
    std::fill(scale, scale + size, T(0));
    for (index c = 0; c < count; ++c) {
        const double s = double(normalisation.gamma[first + c]) /
                         std::sqrt(double(normalisation.variance[first + c]) + normalisation.eps);
        scale[c] = T(s);
        shift[c] = T(double(shift[c]) - s * double(normalisation.mean[first + c]));
    }
    detail::convolve<Arch, T>(layer, x, scale, shift, y, first, count, first_image, last_image, ring);
}

/// Channels [first, first + count) of all images, with the statistics of the batch.
template <class Arch, class T>
void depthwise_activation_train(const depthwise_activation_layer<T>& layer, const feature_map<const T>& x,
                                const channel_normalisation<T>& normalisation, const running_statistics<T>& running,
                                const feature_map<T>& y, index first, index count) noexcept {
    constexpr index size = block_channels<T, Arch>;
    const channel_block<Arch, T> to(y, first, count);
    alignas(64) const T zero[std::size_t(size)] = {};
    depthwise_activation_block<Arch, T>(layer, x, first, count).convolve(nullptr, zero, to, 0, layer.extents.images);

    per_channel<Arch, T> mean, variance, scale, shift;
    channel_moments(to, layer.extents, mean, variance);
    detail::gather_channels(normalisation.gamma, first, count, scale.values);
    detail::gather_channels(normalisation.beta, first, count, shift.values);
    for (index c = 0; c < size; ++c)
        scale[c] /= std::sqrt(variance[c] + normalisation.eps);
    normalise(to, layer.extents, mean, scale, shift);

    const double values = double(layer.extents.pixels()), m = running.momentum;
    for (index c = 0; c < count; ++c) {
        T &running_mean = running.mean[first + c], &running_variance = running.variance[first + c];
        running_mean = T((1 - m) * double(running_mean) + m * mean[c]);
        running_variance = T((1 - m) * double(running_variance) + m * variance[c] * values / (values - 1));
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

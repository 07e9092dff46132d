/// \file
/// Gradients of depthwise_activation_block::convolve, followed by a bias or by batch normalisation, for one block of
/// channels: with g the cotangent of y, K = 2n + 1, and sums over images and pixels
///
///     gz = g with a bias, k g with given statistics,
///          k (g - sum g / M - zhat sum(g zhat) / M) with those of the batch
///
///     grad_h[b,i,j] = sum_{p,q} weight[p,q] gz[b,i-p+n,j-q+n];  grad_x = grad_h sigma'(x + pre_bias)
///
///     grad_weight[p,q] = sum_{b,i,j} gz[b,i,j] h[b,i+p-n,j+q-n]
///
/// Both sums see rows i-n .. i+n of gz at row i, so one ring of zero-padded rows of gz serves them: the first with taps
/// in reverse order. grad_x holds z in between; it must not overlap x or g. 75 KB of stack. 3 x 3 taps on maps whose
/// columns are neighbours go to depthwise_planes_backward, but for statistics of the batch. C++17.
#ifndef DEFT_KERNELS_DEPTHWISE_ACTIVATION_BACKWARD_HPP
#define DEFT_KERNELS_DEPTHWISE_ACTIVATION_BACKWARD_HPP

#include <deft/kernels/channel_statistics.hpp>
#include <deft/kernels/depthwise_activation_forward.hpp>
#include <deft/kernels/depthwise_planes_backward.hpp>
#include <deft/kernels/depthwise_taps.hpp>

#include <algorithm>
#include <cmath>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Where gradients go; all but x may be null.
template <class T>
struct depthwise_activation_gradients {
    feature_map<T> x;
    T* weight;
    index weight_channel_stride, weight_row_stride;
    T *pre_bias, *gamma, *beta;
};

namespace detail {

/// gz = by_g g + (constant + by_z (z - mean)) per channel; the term in z only where `needs_z`.
template <class Arch, class T>
struct cotangent_of_z {
    static constexpr std::size_t size = std::size_t(block_channels<T, Arch>);
    alignas(64) T by_g[size], constant[size], by_z[size], mean[size];
    bool needs_z = false;

    /// to[i][j] = gz for the pixels of a patch, and adds g up.
    void operator()(pixel_grid<const T> g, pixel_grid<const T> z, const map_patch& patch, T* const* to, index column,
                    per_channel<Arch, T>& sum_g) const noexcept {
        using B = simd::batch<T, Arch>;
        constexpr index lanes = simd::lanes<T, Arch>;
        constexpr int vectors = block_vectors<T, Arch>;
        B factor[std::size_t(vectors)], offset[std::size_t(vectors)], sum[std::size_t(vectors)];
        DEFT_UNROLL
        for (int v = 0; v < vectors; ++v) {
            factor[v] = B::load_aligned(by_g + v * lanes);
            offset[v] = B::load_aligned(constant + v * lanes);
            sum[v] = B(T(0));
        }
        const index rows = patch.rows(), columns = patch.columns();
        for (index i = 0; i < rows; ++i) {
            const T *g_pixel = g.at(i, 0), *z_pixel = z.at(i, 0);
            T* pixel = to[i] + column * index(size);
            for (index j = 0; j < columns; ++j, g_pixel += g.column_stride, z_pixel += z.column_stride, pixel += size) {
                DEFT_UNROLL
                for (int v = 0; v < vectors; ++v) {
                    const index c = v * lanes;
                    const B cotangent = simd::load<Arch>(g_pixel + c);
                    sum[v] += cotangent;
                    B gz = simd::fma(factor[v], cotangent, offset[v]);
                    if (needs_z)
                        gz = simd::fma(B::load_aligned(by_z + c),
                                       simd::load<Arch>(z_pixel + c) - B::load_aligned(mean + c), gz);
                    gz.store_aligned(pixel + c);
                }
            }
        }
        add_to_channels<Arch, T>(sum, sum_g);
    }
};

/// sigma and sigma' of x + pre_bias, both dense.
template <class Arch, class F, class T>
void activate_both(F, pixel_grid<const T> x, const map_patch& patch, const T* pre_bias, T slope, T* value,
                   T* derivative) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index lanes = simd::lanes<T, Arch>;
    constexpr int vectors = block_vectors<T, Arch>;
    B shift[std::size_t(vectors)];
    DEFT_UNROLL
    for (int v = 0; v < vectors; ++v)
        shift[v] = B::load_aligned(pre_bias + v * lanes);
    const index rows = patch.rows(), columns = patch.columns();
    for (index i = 0; i < rows; ++i) {
        const T* pixel = x.at(i, 0);
        for (index j = 0; j < columns; ++j, pixel += x.column_stride) {
            DEFT_UNROLL
            for (int v = 0; v < vectors; ++v, value += lanes, derivative += lanes) {
                const auto both = F::both(simd::load<Arch>(pixel + v * lanes) + shift[v], B(slope));
                both.value.store_aligned(value);
                both.derivative.store_aligned(derivative);
            }
        }
    }
}

} // namespace detail

/// Gradients for channels [first, first + count).
template <class Arch, class T>
class depthwise_activation_backward {
    static constexpr index size = block_channels<T, Arch>;
    using layer = depthwise_activation_layer<T>;

public:
    depthwise_activation_backward(const layer& l, const feature_map<const T>& x,
                                  const channel_normalisation<T>& normalisation, const feature_map<const T>& g,
                                  const depthwise_activation_gradients<T>& gradients, index first, index count) noexcept
        : layer_(l), gradients_(gradients), x_map_(x), g_map_(g), block_(l, x, first, count), x_(x, first, count),
          g_(g, first, count), grad_x_(gradients.x, first, count), first_(first), count_(count) {
        detail::gather_channels(l.pre_bias, first, count, pre_bias_);
        prepare(normalisation);
    }

    void operator()() const noexcept {
        if (is_of_planes_) {
            run_planes();
            return;
        }
        detail::row_ring<Arch, T> ring;
        per_channel<Arch, T> sum_x, sum_g;
        detail::for_each_window(layer_.taps,
                                [&](const detail::tap_window& window) { run(window, ring, sum_x, sum_g); });
        detail::scatter_channels(sum_x, first_, count_, gradients_.pre_bias);
        if (adds_up_g_)
            detail::scatter_channels(sum_g, first_, count_, gradients_.beta);
    }

private:
    // Gradients of gamma and beta, and with them gz as a function of g and z.
    void prepare(const channel_normalisation<T>& normalisation) noexcept {
        const double pixels = double(layer_.extents.pixels());
        per_channel<Arch, T> gamma, mean, variance, inverse, sum_g, sum_g_zhat;
        const bool is_normalised = normalisation.gamma != nullptr, is_batch = normalisation.mean == nullptr;
        cotangent_.needs_z = is_normalised && is_batch;
        is_of_planes_ =
            !cotangent_.needs_z && fits_planes<Arch, T>(layer_.taps, layer_.extents.width, x_map_.column_stride,
                                                        g_map_.column_stride, gradients_.x.column_stride);
        is_single_ = layer_.taps <= detail::max_window &&
                     layer_.extents.width <=
                         detail::row_ring<Arch, T>::longest_tile({0, 0, layer_.taps, layer_.taps, true, true});
        adds_up_g_ = is_of_planes_ || (is_single_ && !cotangent_.needs_z);
        if (!adds_up_g_) {
            add_pixels(g_, layer_.extents, sum_g);
            detail::scatter_channels(sum_g, first_, count_, gradients_.beta);
        }
        if (is_normalised) {
            alignas(64) const T zero[std::size_t(size)] = {};
            block_.convolve(nullptr, zero, grad_x_, 0, layer_.extents.images);
            detail::gather_channels(normalisation.gamma, first_, count_, gamma.values);
            if (is_batch) {
                channel_moments(grad_x_, layer_.extents, mean, variance);
            } else {
                detail::gather_channels(normalisation.mean, first_, count_, mean.values);
                detail::gather_channels(normalisation.variance, first_, count_, variance.values);
            }
            for (index c = 0; c < size; ++c)
                inverse[c] = 1 / std::sqrt(variance[c] + normalisation.eps);
            add_normalised(g_, grad_x_, layer_.extents, mean, inverse, sum_g_zhat);
            detail::scatter_channels(sum_g_zhat, first_, count_, gradients_.gamma);
        }
        for (index c = 0; c < size; ++c) {
            const double k = is_normalised ? gamma[c] * inverse[c] : 1;
            cotangent_.by_g[c] = T(k);
            cotangent_.constant[c] = cotangent_.needs_z ? T(-k * sum_g[c] / pixels) : T(0);
            cotangent_.by_z[c] = T(-k * inverse[c] * sum_g_zhat[c] / pixels);
            cotangent_.mean[c] = T(mean[c]);
        }
    }

    void run_planes() const noexcept {
        constexpr int n = detail::plane_taps, taps = n * n;
        for (index c = 0; c < count_; ++c) {
            const index at = first_ + c;
            const T k = cotangent_.by_g[c];
            T weight[std::size_t(taps)];
            detail::copy_plane_taps(layer_, at, k, weight);
            const auto sums = depthwise_planes_backward<Arch, T>(
                {weight, pre_bias_[c], x_map_.data + at * x_map_.channel_stride,
                 g_map_.data + at * g_map_.channel_stride, gradients_.x.data + at * gradients_.x.channel_stride},
                layer_.base, layer_.slope, x_map_, g_map_, gradients_.x, layer_.extents);
            if (gradients_.weight != nullptr)
                for (index t = 0; t < taps; ++t)
                    gradients_
                        .weight[at * gradients_.weight_channel_stride + t / n * gradients_.weight_row_stride + t % n] =
                        T(double(k) * sums.taps[t]);
            if (gradients_.pre_bias != nullptr)
                gradients_.pre_bias[at] = T(sums.x);
            if (gradients_.beta != nullptr)
                gradients_.beta[at] = T(sums.g);
        }
    }

    // One window of the kernel, in coordinates of the reversed taps.
    void run(const detail::tap_window& window, detail::row_ring<Arch, T>& ring, per_channel<Arch, T>& sum_x,
             per_channel<Arch, T>& sum_g) const noexcept {
        const detail::tap_window forward{layer_.taps - window.top - window.rows,
                                         layer_.taps - window.left - window.columns,
                                         window.rows,
                                         window.columns,
                                         window.is_first,
                                         window.is_last};
        constexpr index most_taps = detail::max_window * detail::max_window;
        alignas(64) T packed[detail::elements<T, Arch>(most_taps)];
        alignas(64) double tap_sums[detail::elements<T, Arch>(most_taps)];
        std::fill(tap_sums, tap_sums + window.rows * window.columns * size, 0.0);
        block_.pack(forward, nullptr, packed);
        for (index image = 0; image < layer_.extents.images; ++image)
            detail::for_each_part(layer_.extents.width, ring.longest_tile(window), [&](index begin, index end) {
                run_tile(window, packed, image, begin, end, ring, tap_sums, sum_x, sum_g);
            });
        if (gradients_.weight != nullptr)
            put_taps(forward, tap_sums);
    }

    void run_tile(const detail::tap_window& window, const T* packed, index image, index begin, index end,
                  detail::row_ring<Arch, T>& ring, double* tap_sums, per_channel<Arch, T>& sum_x,
                  per_channel<Arch, T>& sum_g) const noexcept {
        constexpr std::size_t longest = detail::elements<T, Arch>(detail::max_tile);
        alignas(64) T h[longest], derivative[longest], grad[longest];
        const index width = layer_.extents.width;
        const bool is_whole = window.is_first && window.is_last;
        const tap_rectangle<T> taps{window.rows, window.columns, packed + (window.rows * window.columns - 1) * size,
                                    -size};
        const auto fill = [&](const map_patch& patch, T* const* rows, index column) {
            fill_cotangent(patch, rows, column, sum_g);
        };
        const auto emit = [&](const map_patch& patch, const input_rows<T>& input) {
            const pixel_grid<const T> x = x_.read(patch, h);
            dispatch_activation(layer_.base, [&](auto f) {
                detail::activate_both<Arch>(f, x, patch, pre_bias_, layer_.slope, h, derivative);
            });
            const pixel_grid<T> to{grad, patch.columns() * size, size};
            alignas(64) const T zero[std::size_t(size)] = {};
            pixel_grid<const T> start{zero, 0, 0};
            if (!window.is_first) {
                grad_x_.copy(patch, grad);
                start = {grad, to.row_stride, size};
            }
            ring.convolution()(input, taps, patch.rows(), start, to);
            if (gradients_.weight != nullptr)
                add_tap_gradients<Arch>(h, patch.rows(), patch.columns(), input, window.rows, window.columns,
                                        is_whole && begin == 0, is_whole && end == width, tap_sums);
            if (!window.is_last) {
                grad_x_.put(patch, grad);
                return;
            }
            finish(grad, derivative, patch, grad_x_.target(patch, grad), sum_x);
            grad_x_.write(patch, grad);
        };
        ring.slide(layer_.extents, image, window, layer_.taps / 2, begin, end, fill, emit);
    }

    void fill_cotangent(const map_patch& patch, T* const* rows, index column,
                        per_channel<Arch, T>& sum_g) const noexcept {
        alignas(64) T g_buffer[detail::elements<T, Arch>(detail::max_input)];
        alignas(64) T z_buffer[detail::elements<T, Arch>(detail::max_input)];
        const pixel_grid<const T> g = g_.read(patch, g_buffer);
        pixel_grid<const T> z{z_buffer, patch.columns() * size, size};
        if (cotangent_.needs_z && is_single_)
            z = grad_x_.read(patch, z_buffer);
        else if (cotangent_.needs_z)
            for (index i = 0; i < patch.rows(); ++i)
                block_.convolve_row({patch.image, patch.top + i, patch.top + i + 1, patch.left, patch.right},
                                    z_buffer + i * patch.columns() * size);
        cotangent_(g, z, patch, rows, column, sum_g);
    }

    // to = grad_h sigma', and its sum: that of a band in T, of bands in double, as for taps. `to` may be grad.
    static void finish(const T* grad, const T* derivative, const map_patch& patch, const pixel_grid<T>& to,
                       per_channel<Arch, T>& sum_x) noexcept {
        using B = simd::batch<T, Arch>;
        constexpr index lanes = simd::lanes<T, Arch>;
        constexpr int vectors = block_vectors<T, Arch>;
        B sum[std::size_t(vectors)];
        DEFT_UNROLL
        for (int v = 0; v < vectors; ++v)
            sum[v] = B(T(0));
        const index rows = patch.rows(), columns = patch.columns(), stride = to.column_stride;
        for (index i = 0; i < rows; ++i) {
            T* pixel = to.at(i, 0);
            for (index j = 0; j < columns; ++j, pixel += stride, grad += size, derivative += size) {
                DEFT_UNROLL
                for (int v = 0; v < vectors; ++v) {
                    const B product = B::load_aligned(grad + v * lanes) * B::load_aligned(derivative + v * lanes);
                    simd::store(pixel + v * lanes, product);
                    sum[v] += product;
                }
            }
        }
        detail::add_to_channels<Arch, T>(sum, sum_x);
    }

    void put_taps(const detail::tap_window& forward, const double* reversed) const noexcept {
        const channel_block<Arch, T> weight(
            {gradients_.weight, 0, gradients_.weight_channel_stride, gradients_.weight_row_stride, 1}, first_, count_);
        alignas(64) T taps[detail::elements<T, Arch>(detail::max_window)];
        for (index p = 0; p < forward.rows; ++p) {
            const double* last = reversed + ((forward.rows - p) * forward.columns - 1) * size;
            for (index q = 0; q < forward.columns; ++q)
                for (index c = 0; c < size; ++c)
                    taps[q * size + c] = T(last[c - q * size]);
            const index row = forward.top + p;
            weight.put({0, row, row + 1, forward.left, forward.left + forward.columns}, taps);
        }
    }

    const layer& layer_;
    const depthwise_activation_gradients<T>& gradients_;
    const feature_map<const T>&x_map_, &g_map_;
    depthwise_activation_block<Arch, T> block_;
    channel_block<Arch, const T> x_, g_;
    channel_block<Arch, T> grad_x_;
    index first_, count_;
    detail::cotangent_of_z<Arch, T> cotangent_;
    bool is_of_planes_ = false; // depthwise_planes_backward computes the gradients
    // Everything in one tile and one window, so that g is read once, and z in grad_x is overwritten band by band after
    // the ring has taken it in; tiles and windows take in what others have overwritten.
    bool is_single_ = false;
    bool adds_up_g_ = false; // as it passes
    alignas(64) T pre_bias_[std::size_t(size)];
};

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

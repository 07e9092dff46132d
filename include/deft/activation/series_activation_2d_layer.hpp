/// \file
/// What the six functions of series_activation_2d.hpp share: options, checks, and how work is handed to the kernels.
#ifndef DEFT_ACTIVATION_SERIES_ACTIVATION_2D_LAYER_HPP
#define DEFT_ACTIVATION_SERIES_ACTIVATION_2D_LAYER_HPP

#include <deft/activation_kind.hpp>
#include <deft/kernels/depthwise_activation_backward.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace deft {

enum class tensor_layout : unsigned char { nchw, nhwc };

struct series_activation_2d_options {
    required<tensor_layout> layout;
    activation base = activation::relu;
    double eps = 1e-6; ///< VanillaNet's; PyTorch's default is 1e-5
    double momentum = 0.1;
    double negative_slope = 0.01; ///< of leaky_relu
};

inline namespace DEFT_ISA {
namespace detail {

template <class T>
kernels::feature_map<T> as_feature_map(const view<T, 4>& v, tensor_layout layout) {
    if (layout == tensor_layout::nchw)
        return {v.data(), v.stride(0), v.stride(1), v.stride(2), v.stride(3)};
    return {v.data(), v.stride(0), v.stride(3), v.stride(1), v.stride(2)};
}

/// Checks what all modes share, and gathers it for the kernels. An optional vector that is absent has no data.
template <class T>
kernels::depthwise_activation_layer<T> check_layer(const char* op, const view<const T, 4>& x,
                                                   const view<const T, 3>& weight, const view<const T, 1>& pre_bias,
                                                   const series_activation_2d_options& options) {
    const bool is_planar = options.layout == tensor_layout::nchw;
    const index channels = x.extent(is_planar ? 1 : 3);
    check_extent(op, "weight", weight, 0, channels, "channels of x");
    check(weight.extent(1) % 2 == 1, op, "weight", "its extents 1 and 2 must be odd", double(weight.extent(1)));
    check_extent(op, "weight", weight, 2, weight.extent(1), "kernels are square");
    if (pre_bias.is_given())
        check_extent(op, "pre_bias", pre_bias, 0, channels, "channels of x");
    check_base(op, options.base);
    check(!std::isnan(options.negative_slope), op, "negative_slope", "it must be a number", options.negative_slope);
    check(options.eps >= 0, op, "eps", "must not be negative", options.eps);
    return {{x.extent(0), x.extent(is_planar ? 2 : 1), x.extent(is_planar ? 3 : 2)},
            channels,
            weight.extent(1),
            weight.data(),
            weight.stride(0),
            weight.stride(1),
            pre_bias.data(),
            options.base,
            static_cast<T>(options.negative_slope)};
}

/// A vector of one number per channel.
template <class T>
void check_channels(const char* op, const char* argument, const view<T, 1>& v, index channels) {
    check_extent(op, argument, v, 0, channels, "channels of x");
}

template <class T>
void check_optional_channels(const char* op, const char* argument, const view<T, 1>& v, index channels) {
    if (v.is_given())
        check_channels(op, argument, v, channels);
}

/// An output in the shape of x that does not begin where an input does.
template <class T>
void check_map_output(const char* op, const char* argument, const view<T, 4>& v, const view<const T, 4>& x,
                      const view<const T, 4>& input, const char* input_name) {
    check_same_shape(op, argument, v, "x", x);
    if (v.data() == input.data() && v.size() != 0) {
        char text[128];
        std::snprintf(text, sizeof text, "deft::%s: %s is %s, whose neighbours are read after it is written", op,
                      argument, input_name);
        throw_invalid(text);
    }
}

template <class T>
void check_running_var(const char* op, const view<T, 1>& running_var, index channels) {
    check_channels(op, "running_var", running_var, channels);
    for (index c = 0; c < channels; ++c)
        check(!(running_var(c) < 0), op, "running_var", "must not be negative", double(running_var(c)));
}

template <class T>
void check_batch(const char* op, const kernels::depthwise_activation_layer<T>& layer) {
    const index values = layer.extents.pixels();
    check(values >= 2, op, "x", "values per channel: the variance of a batch takes at least 2", double(values));
}

/// f(first, count) for the blocks of channels.
template <class T, class Executor, class F>
void for_each_block(index channels, Executor& executor, F&& f) {
    constexpr index size = kernels::block_channels<T, simd::default_arch>;
    executor.parallel_for((channels + size - 1) / size, 1, [&](index begin, index end) {
        for (index first = begin * size; first < std::min(end * size, channels); first += size)
            f(first, std::min(size, channels - first));
    });
}

/// y = scale z + shift, both from the normalisation, for the images of blocks of channels from `first` on: of items
/// [begin, end), block by block.
template <int Lines, class T>
DEFT_NOINLINE void run_blocks(const kernels::depthwise_activation_layer<T>& layer,
                              const kernels::feature_map<const T>& x,
                              const kernels::channel_normalisation<T>& normalisation, const kernels::feature_map<T>& y,
                              index first, index begin, index end) {
    constexpr index size = kernels::block_channels<T, simd::default_arch, Lines>;
    kernels::detail::row_ring<simd::default_arch, T, Lines> ring;
    const index images = layer.extents.images;
    while (begin < end) { // the images of a block share its weights
        const index block = begin / images, channel = first + block * size, image = begin - block * images;
        const index last_image = std::min(images, image + end - begin);
        kernels::depthwise_activation_forward(layer, x, normalisation, y, channel,
                                              std::min(size, layer.channels - channel), image, last_image, ring);
        begin += last_image - image;
    }
}

/// The same for all channels. With channels last, blocks are of two cache lines as long as there are channels: lines
/// that are neighbours in memory are fetched together, 1.1 to 1.5 times faster, most where pixels are 4 KB apart and a
/// map takes a few sets of the caches. Four lines gain a tenth more, and take 110 KB of stack; blocks of planes get
/// slower.
template <class T, class Executor>
void run_forward(const kernels::depthwise_activation_layer<T>& layer, const kernels::feature_map<const T>& x,
                 const kernels::channel_normalisation<T>& normalisation, const kernels::feature_map<T>& y,
                 Executor& executor) {
    constexpr index narrow = kernels::block_channels<T, simd::default_arch>, wide = 2 * narrow;
    const index images = layer.extents.images;
    const index wide_blocks = x.channel_stride == 1 && y.channel_stride == 1 ? layer.channels / wide : 0;
    const index rest = layer.channels - wide_blocks * wide, wide_items = images * wide_blocks;
    executor.parallel_for(wide_items + images * ((rest + narrow - 1) / narrow), 1, [&](index begin, index end) {
        if (begin < wide_items)
            run_blocks<2>(layer, x, normalisation, y, 0, begin, std::min(end, wide_items));
        if (end > wide_items)
            run_blocks<1>(layer, x, normalisation, y, layer.channels - rest, std::max(begin - wide_items, index{0}),
                          end - wide_items);
    });
}

/// What the three gradients share; `normalisation` and the vectors of `gradients` are checked already.
template <class T, class Executor>
void run_backward(const char* op, const kernels::depthwise_activation_layer<T>& layer, const view<const T, 4>& x,
                  const kernels::channel_normalisation<T>& normalisation, const view<const T, 4>& grad_y,
                  const view<T, 4>& grad_x, const view<const T, 3>& weight, const view<T, 3>& grad_weight,
                  const view<T, 1>& grad_pre_bias, const view<T, 1>& grad_gamma, const view<T, 1>& grad_beta,
                  tensor_layout layout, Executor& executor) {
    check_same_shape(op, "grad_y", grad_y, "x", x);
    check_map_output(op, "grad_x", grad_x, x, x, "x");
    check_map_output(op, "grad_x", grad_x, x, grad_y, "grad_y");
    if (grad_weight.is_given())
        check_same_shape(op, "grad_weight", grad_weight, "weight", weight);
    check_optional_channels(op, "grad_pre_bias", grad_pre_bias, layer.channels);
    const kernels::depthwise_activation_gradients<T> gradients{
        as_feature_map(grad_x, layout), grad_weight.data(), grad_weight.stride(0), grad_weight.stride(1),
        grad_pre_bias.data(),           grad_gamma.data(),  grad_beta.data()};
    const auto from = as_feature_map(x, layout), cotangent = as_feature_map(grad_y, layout);
    for_each_block<T>(layer.channels, executor, [&](index first, index count) {
        kernels::depthwise_activation_backward<simd::default_arch, T>(layer, from, normalisation, cotangent, gradients,
                                                                      first, count)();
    });
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

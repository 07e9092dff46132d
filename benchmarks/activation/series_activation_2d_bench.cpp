// series_activation_2d in deployment, and its gradient, against the depthwise convolutions of oneDNN and XNNPACK.
#include "../peers/onednn.hpp"
#include "../peers/series.hpp"
#include "../peers/xnnpack.hpp"
#include "../support/suite.hpp"

#include <deft/activation/series_activation_2d.hpp>
#include <deft/reference/activation/series_activation_2d.hpp>

#include <string>

namespace deft::bench {
namespace {

using enum tensor_layout;

struct setup {
    tensor_layout layout;
    index batch, channels, height, width, taps;
    bool full = false;

    std::string name() const {
        return std::string(layout == nchw ? "nchw_" : "nhwc_") + (batch == 1 ? "" : std::to_string(batch) + 'x') +
               std::to_string(channels) + 'x' + std::to_string(height) + 'x' + std::to_string(width) + "_k" +
               std::to_string(taps);
    }
    index count() const {
        return batch * channels * height * width;
    }
    shape<4> nchw_size() const {
        return {batch, channels, height, width};
    }
    /// Of x and y in this layout.
    shape<4> size() const {
        return layout == nchw ? nchw_size() : shape<4>{batch, height, width, channels};
    }
    shape<3> weight_size() const {
        return {channels, taps, taps};
    }
    index weight_count() const {
        return channels * taps * taps;
    }
    series_activation_2d_options options() const {
        return {.layout = layout};
    }
    /// Counts taps outside the map too, as everybody does.
    work least(double passes_over_taps, double tensors) const {
        const double n = double(count());
        return {.items = n,
                .bytes = tensors * sizeof(float) * n,
                .pattern = tensors > 2 ? traffic::triad : traffic::copy,
                .flops = passes_over_taps * 2 * double(taps * taps) * n};
    }
};

/// Exchanges the last two axes of [batch, rows, columns].
void transpose(const float* from, float* to, index batch, index rows, index columns) {
    for (index b = 0; b < batch; ++b, from += rows * columns, to += rows * columns)
        for (index i = 0; i < rows; ++i)
            for (index j = 0; j < columns; ++j)
                to[j * rows + i] = from[i * columns + j];
}

/// A tensor in the layout of the case, and how it gets there from NCHW and back.
struct in_layout {
    buffer<float> nchw_data, data;
    action load = {}, store = {};

    in_layout(const setup& c, const buffer<float>& nchw_tensor, int slot)
        : nchw_data(nchw_tensor), data(c.layout == nchw ? nchw_tensor : output<float>(c.count(), slot)) {
        if (c.layout == nchw)
            return;
        const index plane = c.height * c.width;
        load = [=, from = nchw_data, to = data] { transpose(from.data(), to.data(), c.batch, c.channels, plane); };
        store = [=, from = data, to = nchw_data] { transpose(from.data(), to.data(), c.batch, plane, c.channels); };
    }
};

void forward(suite& s, const setup& c) {
    const auto x = normal<float>(c.count()), weight = uniform<float>(c.weight_count(), -0.2f, 0.2f, 2),
               bias = uniform<float>(c.channels, -0.5f, 0.5f, 3), y = output<float>(c.count());
    const in_layout own_x(c, x, 1), own_y(c, y, 2);
    comparison& rivals =
        s.compare({.op = "series_activation_2d",
                   .type = "f32",
                   .shape = "relu_" + c.name(),
                   .work = c.least(1, 2),
                   .full = c.full})
            .naive(inputs{x, weight, bias}, outputs{y},
                   [=]<class U>(const U* from, const U* taps, const U* shift, U* to) {
                       reference::series_activation_2d<U>({from, c.nchw_size()}, {taps, c.weight_size()}, absent,
                                                          {shift, {c.channels}}, {to, c.nchw_size()}, activation::relu);
                   })
            .add("deft",
                 [=] {
                     deft::series_activation_2d(as(own_x.data, c.size()), as(weight, c.weight_size()), absent,
                                                as(bias, shape<1>(c.channels)), as(own_y.data, c.size()), c.options());
                 },
                 {.before = own_x.load, .after = own_y.store});
    if (c.layout == nchw)
        rivals.add("autovec", [=] {
            for (index b = 0; b < c.batch; ++b) {
                const index offset = b * c.channels * c.height * c.width;
                autovec::depthwise_relu(x.data() + offset, weight.data(), bias.data(), y.data() + offset, c.channels,
                                        c.height, c.width, c.taps);
            }
        });
#if DEFT_PEER_ONEDNN
    // As users of oneDNN would write it, activation and convolution; and the convolution alone, which does less than
    // this operator and is what a network pays if its activation comes for free in the layer before.
    const auto add_onednn = [&](const std::string& implementation, onednn::layout order) {
        const lazy layer([=] {
            return onednn::depthwise(c.batch, c.channels, c.height, c.width, c.taps, weight.data(), bias.data(), order);
        });
        const auto load = [=] {
            layer->load(x.data());
            layer->activate();
        };
        const auto store = [=] { layer->store(y.data()); };
        rivals.add(implementation, [=] { layer->run(); }, {.before = load, .after = store});
        rivals.add(implementation + "_conv", [=] { layer->convolve(); }, {.before = load, .after = store});
    };
    add_onednn("onednn_own", onednn::layout::own);
    if (c.layout == nhwc)
        add_onednn("onednn_nhwc", onednn::layout::nhwc);
#endif
#if DEFT_PEER_XNNPACK
    if (c.layout == nhwc) {
        const auto h = output<float>(c.count(), 4);
        const lazy layer([=] {
            return xnnpack::depthwise_relu(c.batch, c.channels, c.height, c.width, c.taps, weight.data(), bias.data(),
                                           own_x.data.data(), h.data(), own_y.data.data());
        });
        rivals.add("xnnpack", [=] { layer->run(); }, {.before = own_x.load, .after = own_y.store});
    }
#endif
}

void backward(suite& s, const setup& c) {
    const auto x = normal<float>(c.count()), weight = uniform<float>(c.weight_count(), -0.2f, 0.2f, 2),
               grad_y = normal<float>(c.count(), 4), grad_x = output<float>(c.count());
    const auto grad_weight = output<float>(c.weight_count(), 4), grad_bias = output<float>(c.channels, 5);
    const in_layout own_x(c, x, 1), own_grad_y(c, grad_y, 3), own_grad_x(c, grad_x, 2);
    s.compare({.op = "series_activation_2d_backward",
               .type = "f32",
               .shape = "relu_" + c.name(),
               .work = c.least(2, 3),
               .tolerance = 1e-4, // sums over the map
               .full = c.full})
        .naive(inputs{x, weight, grad_y}, outputs{grad_x, grad_weight, grad_bias},
               [=]<class U>(const U* from, const U* taps, const U* grad, U* to, U* to_weight, U* to_bias) {
                   reference::series_activation_2d_backward<U>({from, c.nchw_size()}, {taps, c.weight_size()}, absent,
                                                               {grad, c.nchw_size()}, {to, c.nchw_size()},
                                                               {to_weight, c.weight_size()}, absent,
                                                               {to_bias, {c.channels}}, activation::relu);
               })
        .add("deft",
             [=] {
                 deft::series_activation_2d_backward(as(own_x.data, c.size()), as(weight, c.weight_size()), absent,
                                                     as(own_grad_y.data, c.size()), as(own_grad_x.data, c.size()),
                                                     as(grad_weight, c.weight_size()), absent,
                                                     as(grad_bias, shape<1>(c.channels)), c.options());
             },
             {.before =
                  [=] {
                      if (own_x.load) {
                          own_x.load();
                          own_grad_y.load();
                      }
                  },
              .after = own_grad_x.store});
}

} // namespace

void benchmark_series_activation_2d(suite& s) {
    for (const tensor_layout layout : {nchw, nhwc}) {
        for (const index taps : {3, 5, 7}) {
            forward(s, {layout, 1, 512, 14, 14, taps, taps == 5});
            forward(s, {layout, 1, 1024, 7, 7, taps, true});
            forward(s, {layout, 1, 128, 56, 56, taps, true});
        }
        // The activation layers of VanillaNet-5, n = 3.
        for (const index batch : {1, 8}) {
            forward(s, {layout, batch, 512, 56, 56, 7, true});
            forward(s, {layout, batch, 1024, 28, 28, 7, true});
            forward(s, {layout, batch, 2048, 14, 14, 7, true});
            forward(s, {layout, batch, 4096, 7, 7, 7, batch != 1});
        }
        for (const index taps : {3, 7}) {
            backward(s, {layout, 1, 512, 14, 14, taps, taps != 3});
            backward(s, {layout, 1, 128, 56, 56, taps, true});
        }
    }
}

} // namespace deft::bench

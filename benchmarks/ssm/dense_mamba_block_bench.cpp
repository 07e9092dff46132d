// dense_mamba_block: prefill and a step of decoding, plain and fused.
#include "../support/suite.hpp"

#include <deft/reference/ssm/dense_mamba_block.hpp>
#include <deft/ssm/dense_mamba_block.hpp>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

namespace deft::bench {
namespace {

struct setup {
    index batch, tokens, width, layers, window;
    bool full;

    std::string name() const {
        std::string text;
        const auto add = [&](const char* letter, index extent) { text.append(letter).append(std::to_string(extent)); };
        add("B", batch);
        add("_T", tokens);
        add("_D", width);
        add("_L", layers);
        add("_m", window);
        return text;
    }
    dense_mamba_options options() const {
        return {.width = width, .channels = 2 * width, .rank = width / 16, .layers = layers, .window = window};
    }
    shape<3> rows() const {
        return {batch, tokens, width};
    }
    index middle() const {
        return width / 32;
    }
    /// The linear maps and the exponentials of the scan.
    work least() const {
        const dense_mamba_options o = options();
        const double d = double(width), e = double(o.channels), n = double(o.states), r = double(o.rank);
        const double times = double(batch * tokens * layers);
        return {.items = double(batch * tokens),
                .flops = times * 2 * (3 * d * e + e * (2 * r + 2 * n)),
                .exps = times * e * n};
    }
};

/// All tensors of all layers behind one pointer, as float or double.
template <class U>
std::vector<dense_mamba_layer<U>> cut(const setup& s, const U* at, const U* decay, const U* bias) {
    const dense_mamba_options o = s.options();
    const index d = o.width, e = o.channels, n = o.states;
    std::vector<dense_mamba_layer<U>> layers;
    const auto matrix = [&](index rows, index columns) {
        const view<const U, 2> m(at, {rows, columns});
        at += rows * columns;
        return m;
    };
    const auto vector = [&](index width) {
        const view<const U, 1> v(at, {width});
        at += width;
        return v;
    };
    for (index l = 0; l < s.layers; ++l)
        layers.push_back({.norm = vector(d),
                          .in_proj = matrix(2 * e, d),
                          .conv_weight = matrix(e, o.taps),
                          .conv_bias = vector(e),
                          .x_proj = matrix(o.rank + 2 * n, e),
                          .dt_proj = matrix(e, o.rank),
                          .dt_bias = {bias, {e}},
                          .A = {decay, {e, n}},
                          .D = vector(e),
                          .out_proj = matrix(d, e),
                          .sel1 = matrix(s.middle(), d),
                          .sel2 = matrix(e, s.middle())});
    return layers;
}

index weights_of(const setup& s) {
    const dense_mamba_options o = s.options();
    const index d = o.width, e = o.channels, n = o.states;
    return s.layers * (d + 3 * e * d + e * (o.taps + 2) + (o.rank + 2 * n) * e + e * o.rank + s.middle() * (d + e));
}

void run(suite& s, const setup& c) {
    const dense_mamba_options o = c.options();
    const index count = c.batch * c.tokens * c.width;
    const auto x = normal<float>(count), y = output<float>(count);
    const float range = 1.7f / std::sqrt(float(c.width));
    const auto weights = uniform<float>(weights_of(c), -range, range, 2),
               decay = uniform<float>(o.channels * o.states, -16.0f, -1.0f, 3),
               bias = uniform<float>(o.channels, -6.0f, -2.0f, 4);
    const auto state = std::make_shared<dense_mamba_state<float>>(c.batch, o);
    const auto plan = std::make_shared<dense_mamba_plan<float>>(o);
    s.compare({.op = "dense_mamba_block",
               .type = "f32",
               .shape = c.name(),
               .work = c.least(),
               .tolerance = 1e-4,
               .full = c.full})
        .naive(inputs{x, weights, decay, bias}, outputs{y},
               [=]<class U>(const U* from, const U* w, const U* a, const U* b, U* to) {
                   std::vector<reference::mamba_tensors<U>> layers;
                   for (const auto& l : cut<U>(c, w, a, b))
                       layers.push_back({l.norm, l.in_proj, l.conv_weight, l.conv_bias, l.x_proj, l.dt_proj, l.dt_bias,
                                         l.A, l.D, l.out_proj, l.sel1, l.sel2});
                   dense_mamba_state<U> own(c.batch, o);
                   std::vector<view<U, 3>> convs, scans;
                   for (index l = 0; l < c.layers; ++l) {
                       convs.push_back(own.conv(l));
                       scans.push_back(own.scan(l));
                   }
                   reference::dense_mamba_block<U>({from, c.rows()}, layers, {to, c.rows()}, convs, scans,
                                                   {c.window, false, o.eps});
               })
        .add("deft", [=] {
            state->reset();
            deft::dense_mamba_block<float>(as(x, c.rows()), cut<float>(c, weights.data(), decay.data(), bias.data()),
                                           as(y, c.rows()), *state, *plan);
        });
}

} // namespace

void benchmark_dense_mamba_block(suite& s) {
    run(s, {1, 64, 256, 3, 2, false});
    run(s, {4, 1, 256, 3, 2, false});
    for (const index window : {0, 1, 2}) // layers of the 130M model
        run(s, {1, 64, 768, 3, window, true});
    for (const index window : {0, 2})
        run(s, {1, 1, 768, 3, window, true});
}

} // namespace deft::bench

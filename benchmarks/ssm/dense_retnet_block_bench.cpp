// dense_retnet_block: prefill and a step of decoding, with and without what is fused.
#include "../support/suite.hpp"

#include <deft/reference/ssm/dense_retnet_block.hpp>
#include <deft/ssm/dense_retnet_block.hpp>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

namespace deft::bench {
namespace {

struct setup {
    index batch, tokens, width, heads, layers, window, middle;
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
    dense_retnet_options options() const {
        return {.width = width,
                .key_width = width / 2,
                .value_width = 2 * width,
                .heads = heads,
                .layers = layers,
                .window = window};
    }
    shape<3> rows() const {
        return {batch, tokens, width};
    }
    /// Of a token through a layer: the linear maps; the rest is a few percent of them.
    work least() const {
        const double d = double(width), maps = d * (d + 4 * d + 2 * d);
        return {.items = double(batch * tokens * layers), .flops = 2 * double(batch * tokens * layers) * maps};
    }
};

/// All tensors of all layers behind one pointer, as float or double.
template <class U>
std::vector<dense_retnet_layer<U>> cut(const setup& s, const U* at) {
    const index d = s.width, dk = d / 2, e = 2 * d;
    std::vector<dense_retnet_layer<U>> layers;
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
        layers.push_back({.input_norm = vector(d),
                          .wq = matrix(dk, d),
                          .wk = matrix(dk, d),
                          .wvg = matrix(2 * e, d),
                          .k_sel1 = matrix(s.middle, d),
                          .k_sel2 = matrix(dk, s.middle),
                          .v_sel1 = matrix(s.middle, d),
                          .v_sel2 = matrix(e, s.middle),
                          .k_norm = vector(dk),
                          .v_norm = vector(e),
                          .group_norm = vector(e / s.heads),
                          .wo = matrix(d, e)});
    return layers;
}

index weights_of(const setup& s) {
    const index d = s.width, dk = d / 2, e = 2 * d;
    return s.layers * (d + 2 * dk * d + 2 * e * d + s.middle * (2 * d + dk + e) + dk + e + e / s.heads + e * d);
}

void run(suite& s, const setup& c) {
    const index count = c.batch * c.tokens * c.width;
    const auto x = normal<float>(count), y = output<float>(count);
    const float range = 1.7f / std::sqrt(float(c.width));
    const auto weights = uniform<float>(weights_of(c), -range, range, 2);
    const auto state = std::make_shared<dense_retnet_state<float>>(c.batch, c.options());
    const auto plan = std::make_shared<dense_retnet_plan<float>>(c.options());
    s.compare({.op = "dense_retnet_block",
               .type = "f32",
               .shape = c.name(),
               .work = c.least(),
               .tolerance = 1e-4,
               .full = c.full})
        .naive(inputs{x, weights}, outputs{y},
               [=]<class U>(const U* from, const U* w, U* to) {
                   const dense_retnet_options o = c.options();
                   std::vector<reference::retnet_tensors<U>> layers;
                   for (const auto& l : cut<U>(c, w))
                       layers.push_back({l.input_norm, l.wq, l.wk, l.wvg, l.k_sel1, l.k_sel2, l.v_sel1, l.v_sel2,
                                         l.k_norm, l.v_norm, l.group_norm, l.wo});
                   std::vector<dense_retnet_state<U>> own(1, dense_retnet_state<U>(c.batch, o));
                   std::vector<view<U, 4>> states;
                   std::vector<view<U, 3>> keys;
                   for (index l = 0; l < c.layers; ++l) {
                       states.push_back(own[0].layer(l));
                       keys.push_back(own[0].keys(l));
                   }
                   reference::dense_retnet_block<U>({from, c.rows()}, layers, {to, c.rows()}, states, keys,
                                                    own[0].scale(), {c.heads, c.window, 0, o.eps, o.base, {}});
               })
        .add("deft", [=] {
            state->reset();
            deft::dense_retnet_block<float>(as(x, c.rows()), cut<float>(c, weights.data()), as(y, c.rows()), *state,
                                            *plan);
        });
}

} // namespace

void benchmark_dense_retnet_block(suite& s) {
    run(s, {1, 64, 256, 2, 3, 2, 8, false});
    run(s, {4, 1, 256, 2, 3, 2, 8, false});
    run(s, {1, 64, 1536, 2, 2, 1, 48, true}); // layers of the 350M model
    run(s, {1, 64, 2048, 2, 1, 0, 64, true}); // without fusion
    run(s, {1, 64, 2048, 2, 4, 2, 64, true});
    for (const index batch : {1, 6})
        run(s, {batch, 1, 1536, 2, 2, 1, 48, true});
}

} // namespace deft::bench

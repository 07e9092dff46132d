// fake_quantize of weights, its gradient, and dynamic quantisation of activations.
#include "../peers/quantization.hpp"
#include "../support/suite.hpp"

#include <deft/quantization/fake_quantize.hpp>
#include <deft/reference/quantization/fake_quantize.hpp>
#include <deft/reference/quantization/quant_params.hpp>

#include <string>
#include <vector>

namespace deft::bench {
namespace {

/// Steps are powers of two: no type rounds a quotient, and naive in double has the same codes.
buffer<float> quarter_steps(index n) {
    return {n, [](float* p, index count) { std::fill_n(p, count, 0.25f); }};
}

void weights(suite& s, index rows, index columns, int bits, index group, bool full) {
    const index count = rows * columns, groups = group > 0 ? columns / group : 1;
    const auto x = normal<float>(count), y = output<float>(count);
    const buffer<float> scale = quarter_steps(rows * groups);
    const buffer<quant_code> zero = output<quant_code>(rows * groups);
    const shape<2> size{rows, columns}, steps{rows, groups};
    const quant_format format{.bits = bits,
                              .granularity = group > 0 ? quant_granularity::per_group : quant_granularity::per_channel,
                              .group_size = group};
    const float most = float((1 << (bits - 1)) - 1);
    auto& rivals = s.compare({.op = "fake_quantize",
                              .type = "f32",
                              .shape = std::to_string(rows) + "x" + std::to_string(columns) + "_b" +
                                       std::to_string(bits) + (group > 0 ? "_g" + std::to_string(group) : ""),
                              .work = {.items = double(count), .bytes = 8 * double(count), .pattern = traffic::copy},
                              .full = full})
                       .naive(inputs{x}, outputs{y},
                              [=]<class U>(const U* from, U* to) {
                                  for (index i = 0; i < count; ++i) {
                                      const U code = std::nearbyint(from[i] / U(0.25));
                                      to[i] = U(0.25) * std::min(std::max(code, U(-most - 1)), U(most));
                                  }
                              })
                       .add("deft", [=] {
                           deft::fake_quantize(as(x, size), as(scale, steps), as(zero, steps), as(y, size), absent,
                                               {.format = format});
                       });
    if (group == 0)
        rivals.add("autovec", [=] { autovec::fake_quantize({x.data(), scale.data(), y.data(), rows, columns, most}); });
}

void backward(suite& s, index rows, index columns, bool full) {
    const index count = rows * columns;
    const auto x = normal<float>(count), g = normal<float>(count, 2), gx = output<float>(count),
               gs = output<float>(rows, 1);
    const buffer<float> scale = quarter_steps(rows);
    const buffer<quant_code> zero = output<quant_code>(rows);
    const shape<2> size{rows, columns}, steps{rows, 1};
    s.compare({.op = "fake_quantize_backward",
               .type = "f32",
               .shape = std::to_string(rows) + "x" + std::to_string(columns),
               .work = {.items = double(count), .bytes = 12 * double(count), .pattern = traffic::triad},
               .full = full})
        .naive(inputs{x, g}, outputs{gx, gs},
               [=]<class U>(const U* from, const U* grad, U* to, U* to_scale) {
                   for (index r = 0; r < rows; ++r) {
                       U sum = 0;
                       for (index c = 0; c < columns; ++c) {
                           const index i = r * columns + c;
                           const U u = from[i] / U(0.25), code = std::nearbyint(u);
                           const bool inside = code >= -8 && code <= 7;
                           to[i] = inside ? grad[i] : U(0);
                           sum += grad[i] * (std::min(std::max(code, U(-8)), U(7)) - (inside ? u : U(0)));
                       }
                       to_scale[r] = sum;
                   }
               })
        .add("deft", [=] {
            deft::fake_quantize_backward(as(x, size), as(scale, steps), as(zero, steps), as(g, size), as(gx, size),
                                         as(gs, steps), {.format = {.bits = 4}});
        });
}

void dynamic(suite& s, index tokens, index features, bool full) {
    const index count = tokens * features;
    const auto x = normal<float>(count), y = output<float>(count), scale = output<float>(tokens, 1);
    const buffer<quant_code> zero = output<quant_code>(tokens, 2);
    const shape<2> size{tokens, features}, steps{tokens, 1};
    const quant_params_options options{.format = {.bits = 8, .granularity = quant_granularity::per_token}};
    s.compare({.op = "fake_quantize_dynamic",
               .type = "f32",
               .shape = std::to_string(tokens) + "x" + std::to_string(features),
               // A quotient near a tie may be rounded to the other side: half a step of the largest value.
               .work = {.items = double(count), .bytes = 8 * double(count), .pattern = traffic::copy},
               .tolerance = 8e-3,
               .full = full})
        .naive(inputs{x}, outputs{y},
               [=]<class U>(const U* from, U* to) {
                   for (index t = 0; t < tokens; ++t) {
                       U peak = 0;
                       for (index c = 0; c < features; ++c)
                           peak = std::max(peak, std::abs(from[t * features + c]));
                       const U step = peak / 127;
                       for (index c = 0; c < features; ++c)
                           to[t * features + c] = step * std::nearbyint(from[t * features + c] / step);
                   }
               })
        .add("deft", [=] {
            deft::fake_quantize_dynamic(as(x, size), as(y, size), absent, as(scale, steps), as(zero, steps), options);
        });
}

} // namespace

void benchmark_fake_quantize(suite& s) {
    for (const int bits : {2, 4, 8}) {
        weights(s, 4096, 4096, bits, 0, bits != 4);
        weights(s, 4096, 4096, bits, 128, bits != 4);
        weights(s, 11008, 4096, bits, 0, true);
    }
    weights(s, 256, 256, 4, 0, false);
    backward(s, 512, 1024, false);
    backward(s, 4096, 4096, true);
}

void benchmark_fake_quantize_dynamic(suite& s) {
    dynamic(s, 1, 4096, false);
    dynamic(s, 32, 4096, false);
    dynamic(s, 2048, 4096, true);
}

} // namespace deft::bench

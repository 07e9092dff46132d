// twin_quantize: attention rows and activations after GELU.
#include "../support/suite.hpp"

#include <deft/quantization/twin_quantize.hpp>
#include <deft/reference/quantization/twin_quantize.hpp>

#include <algorithm>
#include <random>
#include <string>

namespace deft::bench {
namespace {

void softmax(suite& s, index rows_, index columns, bool full) {
    const index count = rows_ * columns;
    const buffer<float> x(count, [](float* to, index n) { // below 0.02; 127 x and x / step_low are exact: a tie is one
        std::minstd_rand generator(1);
        std::generate_n(to, n, [&] { return float(generator() % 5243) * 0x1p-18f; });
    });
    const auto y = output<float>(count);
    const shape<2> size{rows_, columns};
    s.compare({.op = "twin_quantize_softmax",
               .type = "f32",
               .shape = std::to_string(rows_) + "x" + std::to_string(columns),
               .work = {.items = double(count), .bytes = 8 * double(count), .pattern = traffic::copy},
               .full = full})
        .naive(inputs{x}, outputs{y},
               [=]<class U>(const U* from, U* to) {
                   reference::twin_quantize_softmax<U>(view<const U, 2>(from, size), view<U, 2>(to, size), 8, 0.0078125,
                                                       0x1p-14, false);
               })
        .add("deft", [=] {
            deft::twin_quantize_softmax(as(x, size), as(y, size), {.bits = 8, .split = 0.0078125, .step_low = 0x1p-14});
        });
}

void gelu(suite& s, index rows_, index columns) {
    const index count = rows_ * columns;
    const auto x = normal<float>(count), y = output<float>(count);
    const shape<2> size{rows_, columns};
    s.compare({.op = "twin_quantize_gelu",
               .type = "f32",
               .shape = std::to_string(rows_) + "x" + std::to_string(columns),
               .work = {.items = double(count), .bytes = 8 * double(count), .pattern = traffic::copy},
               .tolerance = 1e-2})
        .naive(inputs{x}, outputs{y},
               [=]<class U>(const U* from, U* to) {
                   reference::twin_quantize_gelu<U>(view<const U, 2>(from, size), view<U, 2>(to, size), 8, 0.03125,
                                                    0.0013279);
               })
        .add("deft", [=] {
            deft::twin_quantize_gelu(as(x, size), as(y, size), {.bits = 8, .step_pos = 0.03125, .step_neg = 0.0013279});
        });
}

} // namespace

void benchmark_twin_quantize_softmax(suite& s) {
    softmax(s, 64, 4096, false);
    softmax(s, 4096, 4096, true);
}

void benchmark_twin_quantize_gelu(suite& s) {
    gelu(s, 4096, 1280);
}

} // namespace deft::bench

// block_distance with its gradient, against separate passes.
#include "../peers/quantization.hpp"
#include "../support/suite.hpp"

#include <deft/quantization/cross_block_reconstruction.hpp>
#include <deft/reference/quantization/cross_block_reconstruction.hpp>

#include <algorithm>
#include <cmath>
#include <string>

namespace deft::bench {
namespace {

void distance(suite& s, index rows, index columns, bool full) {
    const index count = rows * columns;
    const auto target = normal<float>(count, 1), pred = normal<float>(count, 2), grad = output<float>(count),
               loss = output<float>(1, 1);
    const shape<2> size{rows, columns};
    s.compare({.op = "block_distance_backward",
               .type = "f32",
               .shape = std::to_string(rows) + "x" + std::to_string(columns),
               .work = {.items = double(count),
                        .bytes = 12 * double(count),
                        .pattern = traffic::triad,
                        .exps = 2 * double(count)},
               .tolerance = 1e-2, // naive and the rival sum the loss of all elements in float
               .full = full})
        .naive(inputs{target, pred}, outputs{grad, loss},
               [=]<class U>(const U* h1, const U* h2, U* to, U* sum) {
                   *sum = 0;
                   for (index r = 0; r < rows; ++r, h1 += columns, h2 += columns, to += columns) {
                       const U top1 = *std::max_element(h1, h1 + columns), top2 = *std::max_element(h2, h2 + columns);
                       U sum1 = 0, sum2 = 0;
                       for (index c = 0; c < columns; ++c) {
                           sum1 += std::exp(h1[c] - top1);
                           sum2 += std::exp(h2[c] - top2);
                       }
                       const U log1 = top1 + std::log(sum1), log2 = top2 + std::log(sum2);
                       for (index c = 0; c < columns; ++c) {
                           const U p = std::exp(h1[c] - log1), q = std::exp(h2[c] - log2), d = h2[c] - h1[c];
                           *sum += d * d / U(count) + p * (h1[c] - log1 - h2[c] + log2) / U(rows);
                           to[c] = 2 * d / U(count) + (q - p) / U(rows);
                       }
                   }
               })
        .add("deft",
             [=] {
                 *loss.data() =
                     float(deft::block_distance_backward(as(target, size), as(pred, size), 1, as(grad, size)));
             },
             {.tolerance = 1e-5})
        .add("eigen",
             [=] { *loss.data() = eigen::block_distance(target.data(), pred.data(), rows, columns, grad.data()); },
             {.tolerance = 1e-3});
}

} // namespace

void benchmark_block_distance(suite& s) {
    distance(s, 128, 4096, false);
    distance(s, 2048, 4096, false);
}

/// A step is products of the user's model and the gradient of lora_rounding, each timed elsewhere; what is left is
/// Adam.
void benchmark_cross_block_step(suite& s) {
    const index count = 5 * 4096;
    const auto g = normal<float>(count, 1), start = normal<float>(count, 2);
    const auto p = output<float>(count), m = output<float>(count, 1), v = output<float>(count, 2);
    s.compare({.op = "adam_step",
               .type = "f32",
               .shape = std::to_string(count),
               .work = {.items = double(count), .bytes = 28 * double(count), .pattern = traffic::triad}})
        .naive(inputs{g, start}, outputs{p, m, v},
               [=]<class U>(const U* gradient, const U* from, U* to, U* first, U* second) {
                   for (index i = 0; i < count; ++i) {
                       first[i] = U(0.1) * gradient[i];
                       second[i] = U(0.001) * gradient[i] * gradient[i];
                       to[i] = from[i] - U(0.01) * (first[i] * U(10)) / (std::sqrt(second[i] * U(1000)) + U(1e-8));
                   }
               })
        .add("deft", [=] {
            p.assign(start);
            m.fill(0);
            v.fill(0);
            deft::adam_step(as(g, shape<1>(count)), 1, as(p, shape<1>(count)), as(m, shape<1>(count)),
                            as(v, shape<1>(count)), {.rate = 0.01});
        });
}

/// Called once per window: here to show that it costs nothing.
void benchmark_window_schedule(suite& s) {
    constexpr index blocks = 80;
    const auto begins = output<double>(blocks - 1);
    s.compare({.op = "window_schedule", .type = "f64", .shape = "80_w2_o1", .work = {.items = double(blocks - 1)}})
        .naive(inputs{}, outputs{begins},
               [](double* to) {
                   for (const auto& [begin, end] : reference::window_schedule(blocks, 2, 1))
                       *to++ = double(begin);
               })
        .add("deft", [=] {
            for (index i = 0; i < blocks - 1; ++i)
                begins.data()[i] = double(deft::window_schedule(blocks, i, {}).begin);
        });
}

} // namespace deft::bench

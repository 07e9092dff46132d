// lora_rounding, soft and hard, and its gradient.
#include "../peers/quantization.hpp"
#include "../support/suite.hpp"

#include <deft/quantization/lora_rounding.hpp>

#include <algorithm>
#include <cmath>
#include <string>

namespace deft::bench {
namespace {

struct problem {
    index rows, columns, rank;
    buffer<float> w = normal<float>(rows * columns), a1 = normal<float>(rows * rank, 2),
                  a2 = normal<float>(rank * columns, 3);
    buffer<float> scale{rows, [](float* p, index n) { std::fill_n(p, n, 0.25f); }}; // quotients are exact
    buffer<quant_code> zero = output<quant_code>(rows);

    std::string name() const {
        return std::to_string(rows) + "x" + std::to_string(columns) + "_r" + std::to_string(rank);
    }
    shape<2> size() const {
        return {rows, columns};
    }
    shape<2> steps() const {
        return {rows, 1};
    }
    template <class U>
    U logit(const U* left, const U* right, index i, index j) const {
        U v = 0;
        for (index k = 0; k < rank; ++k)
            v += left[i * rank + k] * right[k * columns + j];
        return v;
    }
};

void forward(suite& s, index rows, index columns, index rank, bool full) {
    const problem p{rows, columns, rank};
    const index count = rows * columns;
    const auto w_hat = output<float>(count);
    s.compare({.op = "lora_rounding",
               .type = "f32",
               .shape = p.name(),
               .work = {.items = double(count), .bytes = 8 * double(count), .pattern = traffic::copy},
               .full = full})
        .naive(inputs{p.w, p.a1, p.a2}, outputs{w_hat},
               [=]<class U>(const U* w, const U* a1, const U* a2, U* to) {
                   for (index i = 0; i < rows; ++i)
                       for (index j = 0; j < columns; ++j) {
                           const U t = U(1.2) / (1 + std::exp(-p.logit(a1, a2, i, j))) - U(0.1);
                           const U code = std::floor(w[i * columns + j] / U(0.25)) + std::min(std::max(t, U(0)), U(1));
                           to[i * columns + j] = U(0.25) * std::min(std::max(code, U(-8)), U(7));
                       }
               })
        .add("deft",
             [=] {
                 deft::lora_rounding(as(p.w, p.size()), as(p.a1, shape<2>(rows, rank)),
                                     as(p.a2, shape<2>(rank, columns)), absent, as(p.scale, p.steps()),
                                     as(p.zero, p.steps()), as(w_hat, p.size()), absent, absent,
                                     {.format = {.bits = 4}});
             })
        .add("autovec",
             [=] {
                 autovec::lora_rounding(
                     {p.w.data(), p.a1.data(), p.a2.data(), p.scale.data(), w_hat.data(), rows, columns, rank, 7});
             })
        .add("eigen", [=] {
            eigen::lora_rounding(
                {p.w.data(), p.a1.data(), p.a2.data(), p.scale.data(), w_hat.data(), rows, columns, rank, 7});
        });
}

void hard(suite& s, index rows, index columns, index rank, bool full) {
    const problem p{rows, columns, rank};
    const index count = rows * columns;
    const auto w_hat = output<float>(count);
    s.compare({.op = "lora_rounding_hard",
               .type = "f32",
               .shape = p.name(),
               .work = {.items = double(count), .bytes = 8 * double(count), .pattern = traffic::copy},
               .tolerance = 0.2, // a logit near 0 may have the other sign: one step
               .full = full})
        .naive(inputs{p.w, p.a1, p.a2}, outputs{w_hat},
               [=]<class U>(const U* w, const U* a1, const U* a2, U* to) {
                   for (index i = 0; i < rows; ++i)
                       for (index j = 0; j < columns; ++j) {
                           const U code =
                               std::floor(w[i * columns + j] / U(0.25)) + (p.logit(a1, a2, i, j) >= 0 ? U(1) : U(0));
                           to[i * columns + j] = U(0.25) * std::min(std::max(code, U(-8)), U(7));
                       }
               })
        .add("deft", [=] {
            deft::lora_rounding(as(p.w, p.size()), as(p.a1, shape<2>(rows, rank)), as(p.a2, shape<2>(rank, columns)),
                                absent, as(p.scale, p.steps()), as(p.zero, p.steps()), as(w_hat, p.size()), absent,
                                absent, {.format = {.bits = 4}, .form = rounding_form::hard});
        });
}

void backward(suite& s, index rows, index columns, index rank, bool full) {
    const problem p{rows, columns, rank};
    const index count = rows * columns;
    const auto g = normal<float>(count, 4), g1 = output<float>(rows * rank, 1), g2 = output<float>(rank * columns, 2),
               gs = output<float>(rows, 3);
    s.compare({.op = "lora_rounding_backward",
               .type = "f32",
               .shape = p.name(),
               .work = {.items = double(count), .bytes = 8 * double(count), .pattern = traffic::read},
               .tolerance = 1e-4, // a slope that is clipped in one type and not in the other
               .full = full})
        .naive(inputs{p.w, p.a1, p.a2, g}, outputs{g1, g2, gs},
               [=]<class U>(const U* w, const U* a1, const U* a2, const U* grad, U* to1, U* to2, U* to_scale) {
                   std::fill_n(to1, rows * rank, U(0));
                   std::fill_n(to2, rank * columns, U(0));
                   for (index i = 0; i < rows; ++i) {
                       U sum = 0;
                       for (index j = 0; j < columns; ++j) {
                           const U sigma = 1 / (1 + std::exp(-p.logit(a1, a2, i, j))), t = U(1.2) * sigma - U(0.1);
                           const U u = w[i * columns + j] / U(0.25),
                                   code = std::floor(u) + std::min(std::max(t, U(0)), U(1));
                           const bool inside = code >= -8 && code <= 7;
                           const U to_grad = grad[i * columns + j];
                           sum += to_grad * (std::min(std::max(code, U(-8)), U(7)) - (inside ? u : U(0)));
                           const U slope = t >= 0 && t <= 1 ? U(1.2) * sigma * (1 - sigma) : U(0);
                           const U of_v = inside ? to_grad * U(0.25) * slope : U(0);
                           for (index k = 0; k < rank; ++k) {
                               to1[i * rank + k] += of_v * a2[k * columns + j];
                               to2[k * columns + j] += of_v * a1[i * rank + k];
                           }
                       }
                       to_scale[i] = sum;
                   }
               })
        .add("deft", [=] {
            deft::lora_rounding_backward(as(p.w, p.size()), as(p.a1, shape<2>(rows, rank)),
                                         as(p.a2, shape<2>(rank, columns)), absent, as(p.scale, p.steps()),
                                         as(p.zero, p.steps()), as(g, p.size()), as(g1, shape<2>(rows, rank)),
                                         as(g2, shape<2>(rank, columns)), as(gs, p.steps()), {.format = {.bits = 4}});
        });
}

} // namespace

void benchmark_lora_rounding(suite& s) {
    forward(s, 4096, 4096, 5, false);
    forward(s, 512, 1024, 5, false);
    for (const index rank : {1, 16})
        forward(s, 4096, 4096, rank, true);
    forward(s, 11008, 4096, 5, true);
    hard(s, 4096, 4096, 5, true);
    hard(s, 512, 1024, 5, false);
    backward(s, 512, 1024, 5, false);
    backward(s, 4096, 4096, 5, true);
}

} // namespace deft::bench

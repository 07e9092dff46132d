// rounding_loss: a power per weight.
#include "../support/suite.hpp"

#include <deft/quantization/rounding_loss.hpp>
#include <deft/reference/quantization/rounding_loss.hpp>

#include <string>

namespace deft::bench {
namespace {

void loss(suite& s, index rows, index columns, index rank) {
    const auto a1 = normal<float>(rows * rank, 2), a2 = normal<float>(rank * columns, 3), to = output<float>(1);
    const shape<2> left{rows, rank}, right{rank, columns};
    s.compare({.op = "rounding_loss",
               .type = "f32",
               .shape = std::to_string(rows) + "x" + std::to_string(columns) + "_r" + std::to_string(rank),
               .work = {.items = double(rows * columns), .exps = double(rows * columns)},
               .tolerance = 1e-3}) // naive sums in float
        .naive(inputs{a1, a2}, outputs{to},
               [=]<class U>(const U* l, const U* r, U* sum) {
                   *sum = reference::rounding_loss<U>({l, left}, {r, right}, absent, 8, 1.1, -0.1);
               })
        .add("deft",
             [=] { *to.data() = float(deft::rounding_loss<float>(as(a1, left), as(a2, right), absent, {.beta = 8})); },
             {.tolerance = 1e-5});
}

} // namespace

void benchmark_rounding_loss(suite& s) {
    loss(s, 256, 512, 5);
}

/// Called once per step of training: here to show that it costs nothing.
void benchmark_beta_schedule(suite& s) {
    constexpr index steps = 1000;
    const auto beta = output<double>(steps);
    s.compare({.op = "beta_schedule", .type = "f64", .shape = "cosine_1000", .work = {.items = double(steps)}})
        .naive(inputs{}, outputs{beta},
               [](double* to) {
                   for (index t = 1; t <= steps; ++t)
                       to[t - 1] = reference::beta_schedule(t, steps, 0.2, 20, 2, true).beta;
               })
        .add("deft", [=] {
            for (index t = 1; t <= steps; ++t)
                beta.data()[t - 1] = deft::beta_schedule(t, {.t_max = steps, .decay = beta_decay::cosine}).beta;
        });
}

} // namespace deft::bench

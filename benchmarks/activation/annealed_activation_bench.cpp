// annealed_activation, its gradient, and the schedule, against Eigen expressions and the compiler's vectoriser.
#include "../peers/series.hpp"
#include "../support/suite.hpp"

#include <deft/activation/annealed_activation.hpp>
#include <deft/reference/activation/annealed_activation.hpp>

#include <string>

namespace deft::bench {
namespace {

using enum activation;

struct setup {
    activation base;
    double lambda;
    std::string size_name;
    index size;
    bool in_place = false;
    bool full = false;

    std::string name() const {
        const std::string percent = std::to_string(static_cast<int>(lambda * 100));
        return (base == relu ? "relu_lambda" : "gelu_erf_lambda") + percent + '_' + size_name +
               (in_place ? "_in_place" : "");
    }
    work least(double tensors) const {
        const double n = double(size);
        return {.items = n,
                .bytes = tensors * sizeof(float) * n,
                .pattern = in_place      ? traffic::in_place
                           : tensors > 2 ? traffic::triad
                                         : traffic::copy,
                .erfs = base == gelu_erf && lambda < 1 ? n : 0};
    }
};

void forward(suite& s, const setup& c) {
    // In place a row meets its own results again: positive input stays what it is.
    const auto input = c.in_place ? uniform<float>(c.size, 0.0f, 1.0f) : normal<float>(c.size);
    const auto y = output<float>(c.size), x = c.in_place ? y : input;
    const action restore = c.in_place ? action([=] { y.assign(input); }) : action();
    const auto peer = [=] {
        return annealed<float>{.x = x.data(), .y = y.data(), .size = c.size, .base = c.base, .lambda = float(c.lambda)};
    };
    s.compare({.op = "annealed_activation", .type = "f32", .shape = c.name(), .work = c.least(2), .full = c.full})
        .naive(inputs{input}, outputs{y},
               [=]<class U>(const U* from, U* to) {
                   reference::annealed_activation<U>({from, {1, c.size}}, {to, {1, c.size}}, c.base, c.lambda);
               })
        .add("deft",
             [=] {
                 deft::annealed_activation(as(x, shape<1>(c.size)), as(y, shape<1>(c.size)),
                                           {.base = c.base, .lambda = c.lambda});
             },
             {.before = restore})
        .add("eigen", [=] { eigen::run(peer()); }, {.before = restore})
        .add("autovec", [=] { autovec::run(peer()); }, {.before = restore});
}

void backward(suite& s, const setup& c) {
    const auto x = normal<float>(c.size), grad_y = normal<float>(c.size, 4), grad_x = output<float>(c.size);
    s.compare(
         {.op = "annealed_activation_backward", .type = "f32", .shape = c.name(), .work = c.least(3), .full = c.full})
        .naive(inputs{x, grad_y}, outputs{grad_x},
               [=]<class U>(const U* from, const U* grad, U* to) {
                   reference::annealed_activation_backward<U>({from, {1, c.size}}, {grad, {1, c.size}},
                                                              {to, {1, c.size}}, c.base, c.lambda);
               })
        .add("deft", [=] {
            deft::annealed_activation_backward(as(x, shape<1>(c.size)), as(grad_y, shape<1>(c.size)),
                                               as(grad_x, shape<1>(c.size)), {.base = c.base, .lambda = c.lambda});
        });
}

} // namespace

void benchmark_annealed_activation(suite& s) {
    for (const bool gradient : {false, true}) {
        const auto add = gradient ? backward : forward;
        for (const double lambda : {0.0, 0.5, 1.0}) {
            add(s, {relu, lambda, "512x56x56", 512 * 56 * 56, false, true});
            add(s, {relu, lambda, "4096x7x7", 4096 * 7 * 7, false, lambda != 0.5});
            add(s, {relu, lambda, "10000000", 10000000, false, lambda != 0.5 || gradient});
        }
        add(s, {gelu_erf, 0.5, "512x56x56", 512 * 56 * 56, false, true});
        add(s, {gelu_erf, 0.5, "4096x7x7", 4096 * 7 * 7});
        add(s, {gelu_erf, 0.5, "10000000", 10000000, false, true});
    }
    forward(s, {relu, 0.5, "10000000", 10000000, true, true});
}

/// A schedule, called once an epoch: here to show that it costs nothing.
void benchmark_annealing_lambda(suite& s) {
    constexpr index epochs = 300;
    const buffer<double> epoch(epochs, [](double* data, index n) {
        for (index i = 0; i < n; ++i)
            data[i] = double(i);
    });
    const auto lambda = output<double>(epochs);
    s.compare({.op = "annealing_lambda", .type = "f64", .shape = "cosine_300", .work = {.items = double(epochs)}})
        .naive(inputs{epoch}, outputs{lambda},
               [](const double* from, double* to) {
                   for (index i = 0; i < epochs; ++i)
                       to[i] = reference::annealing_lambda(from[i], 100, true);
               })
        .add("deft", [=] {
            for (index i = 0; i < epochs; ++i)
                lambda.data()[i] = deft::annealing_lambda(epoch.data()[i], 100, annealing_schedule::cosine);
        });
}

} // namespace deft::bench

// augmented_shortcut_bottleneck against two products per path with separate passes.
#include "../peers/gemm.hpp"
#include "../support/suite.hpp"

#include <deft/reference/shortcut/augmented_shortcut_bottleneck.hpp>
#include <deft/shortcut/augmented_shortcut_bottleneck.hpp>

#include <Eigen/Core>
#include <unsupported/Eigen/SpecialFunctions>

#include <string>

namespace deft::bench {
namespace {

struct setup {
    index rows, d, hidden, paths;
    bool full = false;

    std::string name() const {
        return std::string("T") + std::to_string(paths) + "_k" + std::to_string(hidden) + '_' + std::to_string(rows) +
               'x' + std::to_string(d);
    }
    shape<2> size() const {
        return {rows, d};
    }
    shape<3> down() const {
        return {paths, d, hidden};
    }
    shape<3> up() const {
        return {paths, hidden, d};
    }
    index weights() const {
        return paths * d * hidden;
    }
    work least(double products) const {
        const double n = double(rows) * double(d), w = double(weights());
        return {.items = n,
                .bytes = 4 * (3 * n + products * w),
                .pattern = traffic::read,
                .flops = 2 * products * double(rows) * w};
    }
};

using array = Eigen::Array<float, Eigen::Dynamic, 1>;

/// The sequence that the operator replaces.
template <class Product>
void in_passes(const setup& c, const float* z, const float* main, const float* down, const float* up, float* u,
               float* v, float* y, Product product) {
    const index n = c.rows * c.d;
    Eigen::Map<array> sum(y, n);
    sum = Eigen::Map<const array>(main, n) + Eigen::Map<const array>(z, n);
    for (index i = 0; i < c.paths; ++i) {
        product({c.rows, c.d, c.hidden, z, down + i * c.d * c.hidden, u});
        Eigen::Map<array> h(u, c.rows * c.hidden);
        h = h * ((h * 0.70710678f).erf() * 0.5f + 0.5f);
        product({c.rows, c.hidden, c.d, u, up + i * c.d * c.hidden, v});
        sum += Eigen::Map<const array>(v, n);
    }
}

template <class U>
reference::bottleneck_weights<U> weights_of(const setup& c, const U* down, const U* up) {
    return {{down, c.down()}, {up, c.up()}, absent, absent, activation::gelu_erf, activation::identity, 0.01};
}

void forward(suite& s, const setup& c) {
    const auto z = normal<float>(c.rows * c.d, 1), main = normal<float>(c.rows * c.d, 2);
    const auto down = uniform<float>(c.weights(), -0.03f, 0.03f, 3), up = uniform<float>(c.weights(), -0.1f, 0.1f, 4);
    const auto y = output<float>(c.rows * c.d), v = output<float>(c.rows * c.d, 1);
    const auto u = output<float>(c.rows * c.hidden, 2);
    comparison& rivals = s.compare(
        {.op = "augmented_shortcut_bottleneck", .type = "f32", .shape = c.name(), .work = c.least(2), .full = c.full});
    rivals.naive(inputs{z, main, down, up}, outputs{y},
                 [=]<class U>(const U* x, const U* m, const U* to_hidden, const U* from_hidden, U* to) {
                     reference::augmented_shortcut_bottleneck<U>({x, c.size()}, {m, c.size()},
                                                                 weights_of(c, to_hidden, from_hidden), {x, c.size()},
                                                                 U(1), {to, c.size()});
                 });
    rivals.add("eigen", [=] {
        in_passes(c, z.data(), main.data(), down.data(), up.data(), u.data(), v.data(), y.data(), eigen::run);
    });
#if DEFT_PEER_OPENBLAS
    rivals.add("openblas", [=] {
        in_passes(c, z.data(), main.data(), down.data(), up.data(), u.data(), v.data(), y.data(), openblas::run);
    });
#endif
    rivals.add("deft", [=] {
        deft::augmented_shortcut_bottleneck(as(z, c.size()), as(main, c.size()), as(down, c.down()), as(up, c.up()),
                                            absent, absent, absent, as(y, c.size()));
    });
}

void backward(suite& s, const setup& c) {
    const auto z = normal<float>(c.rows * c.d, 1), g = normal<float>(c.rows * c.d, 2);
    const auto down = uniform<float>(c.weights(), -0.03f, 0.03f, 3), up = uniform<float>(c.weights(), -0.1f, 0.1f, 4);
    const auto grad_z = output<float>(c.rows * c.d), grad_main = output<float>(c.rows * c.d, 1);
    const auto grad_down = output<float>(c.weights(), 2), grad_up = output<float>(c.weights(), 3);
    s.compare({.op = "augmented_shortcut_bottleneck_backward",
               .type = "f32",
               .shape = c.name(),
               .work = c.least(5),
               .full = c.full})
        .naive(inputs{z, down, up, g}, outputs{grad_z, grad_main, grad_down, grad_up},
               [=]<class U>(const U* x, const U* to_hidden, const U* from_hidden, const U* grad, U* gz, U* gm, U* gd,
                            U* gu) {
                   reference::augmented_shortcut_bottleneck_backward<U>(
                       {x, c.size()}, weights_of(c, to_hidden, from_hidden), {grad, c.size()}, true, U(1),
                       {gz, c.size()}, {gm, c.size()}, absent, {{gd, c.down()}, {gu, c.up()}, absent, absent});
               })
        .add("deft", [=] {
            deft::augmented_shortcut_bottleneck_backward(as(z, c.size()), as(down, c.down()), as(up, c.up()), absent,
                                                         absent, as(g, c.size()), as(grad_z, c.size()),
                                                         as(grad_main, c.size()), as(grad_down, c.down()),
                                                         as(grad_up, c.up()), absent, absent, absent);
        });
}

} // namespace

void benchmark_augmented_shortcut_bottleneck(suite& s) {
    forward(s, {1, 4096, 128, 1});
    forward(s, {197, 384, 12, 1});
    forward(s, {128, 4096, 128, 1, true});
    forward(s, {512, 4096, 128, 1, true});
    forward(s, {512, 4096, 32, 1, true}); // the paper's case
    for (const index paths : {1, 2})
        forward(s, {512, 2048, 64, paths, true});
    forward(s, {197, 384, 12, 2, true});
    backward(s, {197, 384, 12, 2});
    backward(s, {128, 4096, 128, 1, true});
}

} // namespace deft::bench

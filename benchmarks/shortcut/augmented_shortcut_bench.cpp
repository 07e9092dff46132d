// augmented_shortcut against the products alone and against products with separate passes, and the linear layer in it
// (linalg::gemm) against Eigen and OpenBLAS.
#include "../peers/gemm.hpp"
#include "../peers/torch.hpp"
#include "../peers/xnnpack.hpp"
#include "../support/suite.hpp"

#include <deft/linalg.hpp>
#include <deft/reference/shortcut/augmented_shortcut.hpp>
#include <deft/shortcut/augmented_shortcut.hpp>

#include <Eigen/Core>
#include <unsupported/Eigen/SpecialFunctions>

#include <string>
#include <vector>

namespace deft::bench {
namespace {

struct setup {
    index rows, d, paths;
    weight_layout layout = weight_layout::in_out;
    bool full = false;

    bool swapped() const {
        return layout == weight_layout::out_in;
    }
    std::string name() const {
        return std::string("T") + std::to_string(paths) + (swapped() ? "_out_in_" : "_in_out_") + std::to_string(rows) +
               'x' + std::to_string(d);
    }
    shape<2> size() const {
        return {rows, d};
    }
    shape<3> weights() const {
        return {paths, d, d};
    }
    work least() const {
        const double n = double(rows) * double(d), w = double(paths) * double(d) * double(d);
        return {.items = n, .bytes = 4 * (3 * n + w), .pattern = traffic::read, .flops = 2 * double(rows) * w};
    }
};

/// The weights as the reference reads them, [in, out].
template <class U>
std::vector<U> in_out(const U* theta, const setup& c) {
    std::vector<U> result(theta, theta + c.paths * c.d * c.d);
    if (c.swapped())
        for (index i = 0; i < c.paths; ++i)
            for (index j = 0; j < c.d; ++j)
                for (index k = 0; k < c.d; ++k)
                    result[std::size_t((i * c.d + j) * c.d + k)] = theta[(i * c.d + k) * c.d + j];
    return result;
}

using array = Eigen::Array<float, Eigen::Dynamic, 1>;

/// y = main + z, then a product, a gelu and a sum per path: what the operator replaces.
template <class Product>
void in_passes(const setup& c, const float* z, const float* main, const float* theta, float* u, float* y,
               Product product) {
    const index n = c.rows * c.d;
    Eigen::Map<array> sum(y, n);
    sum = Eigen::Map<const array>(main, n) + Eigen::Map<const array>(z, n);
    for (index i = 0; i < c.paths; ++i) {
        product({c.rows, c.d, c.d, z, theta + i * c.d * c.d, u, c.swapped()});
        const Eigen::Map<const array> a(u, n);
        sum += a * ((a * 0.70710678f).erf() * 0.5f + 0.5f);
    }
}

void forward(suite& s, const setup& c) {
    const auto z = normal<float>(c.rows * c.d, 1), main = normal<float>(c.rows * c.d, 2);
    const auto theta = uniform<float>(c.paths * c.d * c.d, -0.03f, 0.03f, 3);
    const auto y = output<float>(c.rows * c.d), u = output<float>(c.rows * c.d, 1);
    const augmented_shortcut_options options{.weights = c.layout};
    comparison& rivals =
        s.compare({.op = "augmented_shortcut", .type = "f32", .shape = c.name(), .work = c.least(), .full = c.full});
    rivals.naive(inputs{z, main, theta}, outputs{y}, [=]<class U>(const U* x, const U* m, const U* t, U* to) {
        const std::vector<U> w = in_out(t, c);
        reference::augmented_shortcut<U>({x, c.size()}, {m, c.size()}, {w.data(), c.weights()}, absent, {to, c.size()},
                                         {activation::gelu_erf, 0.01, in<U, 2>(x, c.size()), U(1)});
    });
    rivals.add("eigen", [=] { in_passes(c, z.data(), main.data(), theta.data(), u.data(), y.data(), eigen::run); });
#if DEFT_PEER_OPENBLAS
    rivals.add("openblas",
               [=] { in_passes(c, z.data(), main.data(), theta.data(), u.data(), y.data(), openblas::run); });
#endif
    rivals.add("deft", [=] {
        deft::augmented_shortcut(as(z, c.size()), as(main, c.size()), as(theta, c.weights()), absent, absent,
                                 as(y, c.size()), options);
    });
    // Not the same result: the products alone, which bound the operator.
    s.compare(
         {.op = "augmented_shortcut_products", .type = "f32", .shape = c.name(), .work = c.least(), .full = c.full})
        .add("eigen", [=] {
            for (index i = 0; i < c.paths; ++i)
                eigen::run({c.rows, c.d, c.d, z.data(), theta.data() + i * c.d * c.d, u.data(), c.swapped()});
        });
}

void backward(suite& s, const setup& c) {
    const auto z = normal<float>(c.rows * c.d, 1), g = normal<float>(c.rows * c.d, 2);
    const auto theta = uniform<float>(c.paths * c.d * c.d, -0.03f, 0.03f, 3);
    const auto grad_z = output<float>(c.rows * c.d), grad_main = output<float>(c.rows * c.d, 1);
    const auto grad_theta = output<float>(c.paths * c.d * c.d, 2);
    work least = c.least();
    least.flops *= 3;
    s.compare({.op = "augmented_shortcut_backward", .type = "f32", .shape = c.name(), .work = least, .full = c.full})
        .naive(inputs{z, theta, g}, outputs{grad_z, grad_main, grad_theta},
               [=]<class U>(const U* x, const U* t, const U* grad, U* gz, U* gm, U* gt) {
                   reference::augmented_shortcut_backward<U>({x, c.size()}, {t, c.weights()}, absent, {grad, c.size()},
                                                             {gz, c.size()}, {gm, c.size()}, {gt, c.weights()}, absent,
                                                             absent, true, {activation::gelu_erf, 0.01, absent, U(1)});
               })
        .add("deft", [=] {
            deft::augmented_shortcut_backward(as(z, c.size()), as(theta, c.weights()), absent, as(g, c.size()),
                                              as(grad_z, c.size()), as(grad_main, c.size()),
                                              as(grad_theta, c.weights()), absent, absent);
        });
}

/// One product, as operators call it.
void product(suite& s, const setup& c) {
    const auto x = normal<float>(c.rows * c.d, 1);
    const auto w = uniform<float>(c.d * c.d, -0.03f, 0.03f, 3);
    const auto y = output<float>(c.rows * c.d);
    comparison& rivals = s.compare({.op = "gemm", .type = "f32", .shape = c.name(), .work = c.least(), .full = c.full});
    rivals.naive(inputs{x, w}, outputs{y}, [=]<class U>(const U* from, const U* weights, U* to) {
        for (index i = 0; i < c.rows * c.d; ++i)
            to[i] = 0;
        for (index i = 0; i < c.rows; ++i)
            for (index j = 0; j < c.d; ++j)
                for (index k = 0; k < c.d; ++k)
                    if (c.swapped())
                        to[i * c.d + j] += from[i * c.d + k] * weights[j * c.d + k];
                    else
                        to[i * c.d + k] += from[i * c.d + j] * weights[j * c.d + k];
    });
    const auto task = [=] { return linear{c.rows, c.d, c.d, x.data(), w.data(), y.data(), c.swapped()}; };
    rivals.add("eigen", [=] { eigen::run(task()); });
#if DEFT_PEER_OPENBLAS
    rivals.add("openblas", [=] { openblas::run(task()); });
#endif
#if DEFT_PEER_TORCH
    rivals.add("torch", [=] { torch::run(task()); });
#endif
#if DEFT_PEER_XNNPACK
    // Weights packed beforehand: less work than the others have.
    const lazy layer([=] { return xnnpack::linear_layer(task()); });
    rivals.add("xnnpack_packed", [=] { layer->run(); });
#endif
    rivals.add("deft", [=] {
        const linalg::matrix<const float> weights(view<const float, 2>(w.data(), {c.d, c.d}));
        linalg::gemm<float>(1, view<const float, 2>(x.data(), c.size()), c.swapped() ? weights.transposed() : weights,
                            0, as(y, c.size()));
    });
}

} // namespace

void benchmark_augmented_shortcut(suite& s) {
    constexpr auto in_out = weight_layout::in_out, out_in = weight_layout::out_in;
    for (const weight_layout layout : {in_out, out_in}) {
        for (const index rows : {1, 2, 4, 8, 128, 512})
            for (const index d : {2048, 4096})
                product(s, {rows, d, 1, layout, (rows != 1 && rows != 8) || d == 4096});
        forward(s, {512, 2048, 2, layout, true});
        forward(s, {1, 4096, 1, layout, true});
        forward(s, {128, 4096, 1, layout, true});
        for (const index d : {192, 384, 768})
            for (const index paths : {1, 2})
                forward(s, {197, d, paths, layout, d != 384 || layout == out_in || paths == 1});
    }
    backward(s, {197, 384, 1});
    backward(s, {197, 768, 2, in_out, true});
}

} // namespace deft::bench

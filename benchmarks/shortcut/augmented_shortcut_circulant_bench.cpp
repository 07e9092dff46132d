// augmented_shortcut_circulant against augmented_shortcut with the dense weights that it replaces.
#include "../support/suite.hpp"

#include <deft/reference/shortcut/augmented_shortcut_circulant.hpp>
#include <deft/shortcut/augmented_shortcut.hpp>
#include <deft/shortcut/augmented_shortcut_circulant.hpp>
#include <deft/shortcut/prepared_augmented_shortcut_circulant.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace deft::bench {
namespace {

constexpr index blocks = 4, paths = 2;

/// What transforms have to do: those of z are shared by the paths.
work transformed(index rows, index d) {
    const double m = double(d) / double(blocks);
    const double flops = (1 + paths) * blocks * 2.5 * m * std::log2(m) + paths * blocks * blocks * 8 * (m / 2 + 1);
    return {.items = double(rows * d), .flops = double(rows) * flops};
}

template <class T>
void forward(suite& s, index rows, index d, bool full) {
    const shape<2> size{rows, d}, biases{paths, d};
    const shape<4> generators{paths, blocks, blocks, d / blocks};
    const auto z = normal<T>(rows * d), main = normal<T>(rows * d, 2), bias = normal<T>(paths * d, 3);
    const auto c = uniform<T>(paths * blocks * d, -0.05f, 0.05f, 4), y = output<T>(rows * d);
    const buffer<T> theta(paths * d * d, [=](T* to, index n) {
        const std::vector<T> dense = reference::dense_weights<T>({c.data(), generators}, d);
        std::copy_n(dense.begin(), n, to);
    });
    const lazy layer(
        [=] { return prepared_augmented_shortcut_circulant<T>(as(c, generators), {}, circulant_algorithm::fft); });
    s.compare({.op = "augmented_shortcut_circulant",
               .type = type_name<T>,
               .shape = std::to_string(rows) + 'x' + std::to_string(d) + "_p4_T2",
               .work = {.items = double(rows * d), .flops = 2 * double(paths) * double(rows) * double(d) * double(d)},
               .full = full})
        .naive(inputs{z, main, c, bias}, outputs{y},
               [=]<class U>(const U* from, const U* beside, const U* g, const U* b, U* to) {
                   const in<U, 2> residual(from, size);
                   reference::augmented_shortcut_circulant<U>({from, size}, {beside, size}, {g, generators},
                                                              {b, biases}, {to, size},
                                                              {activation::gelu_erf, 0.01, residual, U(1)});
               })
        .add("dense",
             [=] {
                 deft::augmented_shortcut(as(z, size), as(main, size), as(theta, shape<3>(paths, d, d)),
                                          as(bias, biases), absent, as(y, size));
             })
        .add("direct",
             [=] {
                 deft::augmented_shortcut_circulant(as(z, size), as(main, size), as(c, generators), as(bias, biases),
                                                    absent, as(y, size));
             })
        .add("fft",
             [=] {
                 (*layer).set(as(c, generators));
                 (*layer)(as(z, size), as(main, size), as(bias, biases), absent, as(y, size));
             },
             {.work = transformed(rows, d)})
        .add("prepared_fft", [=] { (*layer)(as(z, size), as(main, size), as(bias, biases), absent, as(y, size)); },
             {.work = transformed(rows, d)});
}

} // namespace

void benchmark_augmented_shortcut_circulant(suite& s) {
    forward<float>(s, 197, 192, false);
    forward<float>(s, 197, 384, true);
    forward<float>(s, 197, 768, true);
    forward<double>(s, 197, 384, true);
    forward<float>(s, 1, 4096, true);
    forward<float>(s, 128, 4096, true);
}

} // namespace deft::bench

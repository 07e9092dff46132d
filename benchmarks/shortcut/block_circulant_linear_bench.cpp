// block_circulant_linear and its gradient, against the dense layer that it replaces, built beforehand.
#include "../support/suite.hpp"

#include <deft/linalg.hpp>
#include <deft/reference/shortcut/block_circulant_linear.hpp>
#include <deft/shortcut/block_circulant_linear.hpp>
#include <deft/shortcut/prepared_block_circulant.hpp>

#include <cmath>
#include <string>

namespace deft::bench {
namespace {

constexpr index blocks = 4;

std::string name(index rows, index d) {
    return std::to_string(rows) + 'x' + std::to_string(d) + "_p" + std::to_string(blocks);
}

/// The weight as the dense layer holds it, [out, in].
template <class T>
buffer<T> dense_weight(const buffer<T>& c, index d) {
    return {d * d, [=](T* to, index) {
                const in<T, 3> generators(c.data(), {blocks, blocks, d / blocks});
                for (index o = 0; o < d; ++o)
                    for (index j = 0; j < d; ++j)
                        to[o * d + j] = reference::circulant_entry(generators, o, j);
            }};
}

/// What transforms have to do: 2.5 m log2 m per block in and out, and a complex product per bin and pair of blocks.
work transformed(index rows, index d) {
    const double m = double(d) / double(blocks);
    const double flops = 2 * blocks * 2.5 * m * std::log2(m) + blocks * blocks * 8 * (m / 2 + 1);
    return {.items = double(rows * d), .flops = double(rows) * flops};
}

template <class T>
void forward(suite& s, index rows, index d, bool full) {
    const shape<2> size{rows, d};
    const shape<3> generators{blocks, blocks, d / blocks};
    const auto x = normal<T>(rows * d), c = normal<T>(blocks * d, 2), bias = normal<T>(d, 3), y = output<T>(rows * d);
    const auto weight = dense_weight(c, d);
    const lazy layer(
        [=] { return prepared_block_circulant<T>(as(c, generators), {.algorithm = circulant_algorithm::fft}); });
    s.compare({.op = "block_circulant_linear",
               .type = type_name<T>,
               .shape = name(rows, d),
               .work = {.items = double(rows * d), .flops = 2 * double(rows) * double(d) * double(d)},
               .full = full})
        .naive(inputs{x, c, bias}, outputs{y},
               [=]<class U>(const U* from, const U* g, const U* b, U* to) {
                   reference::block_circulant_linear<U>({from, size}, {g, generators}, {b, {d}}, {to, size});
               })
        .add("dense",
             [=] {
                 linalg::gemm<T>(T(1), view<const T, 2>(x.data(), size),
                                 linalg::matrix<const T>(view<const T, 2>(weight.data(), {d, d})).transposed(), T(0),
                                 view<T, 2>(y.data(), size));
                 for (index r = 0; r < rows; ++r)
                     for (index o = 0; o < d; ++o)
                         y.data()[r * d + o] += bias.data()[o];
             })
        .add("direct",
             [=] { deft::block_circulant_linear(as(x, size), as(c, generators), as(bias, shape<1>(d)), as(y, size)); })
        .add("fft",
             [=] {
                 (*layer).set(as(c, generators));
                 (*layer)(as(x, size), as(bias, shape<1>(d)), as(y, size));
             },
             {.work = transformed(rows, d)})
        .add("prepared_fft", [=] { (*layer)(as(x, size), as(bias, shape<1>(d)), as(y, size)); },
             {.work = transformed(rows, d)});
}

template <class T>
void backward(suite& s, index rows, index d) {
    const shape<2> size{rows, d};
    const shape<3> generators{blocks, blocks, d / blocks};
    const auto x = normal<T>(rows * d), c = normal<T>(blocks * d, 2), grad_y = normal<T>(rows * d, 4);
    const auto grad_x = output<T>(rows * d), grad_c = output<T>(blocks * d, 1), grad_bias = output<T>(d, 2);
    s.compare({.op = "block_circulant_linear_backward",
               .type = type_name<T>,
               .shape = name(rows, d),
               .work = {.items = double(rows * d), .flops = 4 * double(rows) * double(d) * double(d)}})
        .naive(inputs{x, c, grad_y}, outputs{grad_x, grad_c, grad_bias},
               [=]<class U>(const U* from, const U* g, const U* grad, U* to, U* to_c, U* to_bias) {
                   reference::block_circulant_linear_backward<U>({from, size}, {g, generators}, {grad, size},
                                                                 {to, size}, {to_c, generators}, {to_bias, {d}});
               })
        .add("direct", [=] {
            deft::block_circulant_linear_backward(as(x, size), as(c, generators), as(grad_y, size), as(grad_x, size),
                                                  as(grad_c, generators), as(grad_bias, shape<1>(d)));
        });
}

} // namespace

void benchmark_block_circulant_linear(suite& s) {
    forward<float>(s, 197, 192, false);
    forward<float>(s, 197, 384, false);
    forward<float>(s, 197, 768, true);
    forward<double>(s, 197, 384, true);
    forward<float>(s, 512, 768, true);
    forward<float>(s, 1, 4096, true);
    forward<float>(s, 128, 4096, true);
    backward<float>(s, 197, 384);
}

} // namespace deft::bench

// causal_conv1d and its gradient: Mamba's shapes, one token of a batch.
#include "../support/suite.hpp"

#include <deft/reference/ssm/causal_conv1d.hpp>
#include <deft/ssm/causal_conv1d.hpp>

#include <string>

namespace deft::bench {
namespace {

constexpr index taps = 4;

std::string name(const shape<3>& s) {
    return std::string("B") + std::to_string(s.extents[0]) + "_T" + std::to_string(s.extents[1]) + "_D" +
           std::to_string(s.extents[2]) + "_W" + std::to_string(taps);
}

/// The plain loop in a sane order: channels inside.
template <class U>
void loops(const U* x, const U* w, const U* bias, const U* before, U* y, U* after, const shape<3>& size) {
    const index batch = size.extents[0], tokens = size.extents[1], d = size.extents[2];
    for (index b = 0; b < batch; ++b) {
        const auto row = [&](index t) {
            return t < 0 ? before + (b * (taps - 1) + t + taps - 1) * d : x + (b * tokens + t) * d;
        };
        for (index t = 0; t < tokens; ++t)
            for (index c = 0; c < d; ++c) {
                U p = bias[c];
                for (index k = 0; k < taps; ++k)
                    p += w[c * taps + k] * row(t - taps + 1 + k)[c];
                y[(b * tokens + t) * d + c] = p / (1 + std::exp(-p));
            }
        for (index k = 0; k < taps - 1; ++k)
            std::copy_n(row(tokens - taps + 1 + k), d, after + (b * (taps - 1) + k) * d);
    }
}

template <class T>
void forward(suite& s, const shape<3>& size, bool full) {
    const index batch = size.extents[0], d = size.extents[2], count = batch * size.extents[1] * d,
                kept = batch * (taps - 1) * d;
    const shape<3> state_shape{batch, taps - 1, d};
    const auto x = normal<T>(count), weight = normal<T>(d * taps, 2), bias = normal<T>(d, 3),
               before = normal<T>(kept, 4);
    const auto y = output<T>(count), state = output<T>(kept, 1);
    s.compare({.op = "causal_conv1d",
               .type = type_name<T>,
               .shape = name(size),
               .work = {.items = double(count), .bytes = 2 * sizeof(T) * double(count)},
               .full = full})
        .naive(inputs{x, weight, bias, before}, outputs{y, state},
               [=]<class U>(const U* from, const U* w, const U* b, const U* old, U* to, U* kept_to) {
                   loops(from, w, b, old, to, kept_to, size);
               })
        .add("deft",
             [=] {
                 deft::causal_conv1d(as(x, size), as(weight, shape<2>(d, taps)), as(bias, shape<1>(d)), as(y, size),
                                     as(state, state_shape));
             },
             {.before = [=] { state.assign(before); }});
}

template <class T>
void backward(suite& s, const shape<3>& size, bool full) {
    const index d = size.extents[2], count = size.extents[0] * size.extents[1] * d;
    const auto x = normal<T>(count), weight = normal<T>(d * taps, 2), bias = normal<T>(d, 3),
               grad_y = normal<T>(count, 5);
    const auto grad_x = output<T>(count), grad_weight = output<T>(d * taps, 1), grad_bias = output<T>(d, 2);
    s.compare({.op = "causal_conv1d_backward",
               .type = type_name<T>,
               .shape = name(size),
               .work = {.items = double(count), .bytes = 3 * sizeof(T) * double(count), .pattern = traffic::triad},
               .full = full})
        .naive(inputs{x, weight, bias, grad_y}, outputs{grad_x, grad_weight, grad_bias},
               [=]<class U>(const U* from, const U* w, const U* b, const U* g, U* to_x, U* to_w, U* to_b) {
                   reference::causal_conv1d_backward<U>({from, size}, {w, {d, taps}}, {b, {d}}, absent, {g, size},
                                                        absent, {to_x, size}, {to_w, {d, taps}}, {to_b, {d}}, absent,
                                                        activation::silu);
               })
        .add("deft", [=] {
            deft::causal_conv1d_backward(as(x, size), as(weight, shape<2>(d, taps)), as(bias, shape<1>(d)), absent,
                                         as(grad_y, size), absent, as(grad_x, size), as(grad_weight, shape<2>(d, taps)),
                                         as(grad_bias, shape<1>(d)), absent);
        });
}

} // namespace

void benchmark_causal_conv1d(suite& s) {
    forward<float>(s, {1, 256, 2048}, false);
    forward<float>(s, {8, 1, 2048}, false);
    forward<float>(s, {1, 2048, 2048}, true);
    forward<float>(s, {1, 2048, 4096}, true);
    forward<double>(s, {1, 2048, 2048}, true);
    backward<float>(s, {1, 64, 2048}, false);
    backward<float>(s, {1, 2048, 2048}, true);
}

} // namespace deft::bench

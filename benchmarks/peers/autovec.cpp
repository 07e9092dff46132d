// This file alone is compiled with -ffast-math, so that the compiler may vectorise calls of the C library. Of the
// library it uses the names of the activations only.
#define DEFT_ALLOW_FAST_MATH
#include "dispatch.hpp"
#include "series.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace deft::bench::autovec {
namespace {

template <activation Base, class T>
T activate(T u) {
    if constexpr (Base == activation::relu)
        return u > 0 ? u : T(0);
    else if constexpr (Base == activation::silu)
        return u / (1 + std::exp(-u));
    else if constexpr (Base == activation::gelu_tanh)
        return u / (1 + std::exp(u * (u * u * T(-0.0713548162726) - T(1.5957691216057308))));
    else
        return u * T(0.5) * (1 + std::erf(u * T(0.7071067811865475)));
}

template <activation Base, bool Inner, bool PerChannel, int Terms, class T>
void sum_terms(const T* __restrict x, const T* a, const T* b, T* __restrict y, index size, index channels) {
    const index next_term = PerChannel ? channels : 1;
    for (index i = 0; i < size; ++i) {
        T sum = 0;
        DEFT_UNROLL
        for (int t = 0; t < Terms; ++t) {
            const index p = t * next_term + (PerChannel ? i : 0);
            sum += Inner ? activate<Base>(a[p] * x[i] + b[p]) : a[p] * activate<Base>(x[i] + b[p]);
        }
        y[i] = sum;
    }
}

template <class T>
void loops(const series<T>& s) {
    const index size = s.per_channel ? s.channels : s.rows * s.channels;
    choose_case(s, [&](auto base, auto inner, auto per_channel, auto terms) {
        for (index i = 0; i < s.rows * s.channels; i += size)
            sum_terms<base.value, inner.value, per_channel.value, terms.value>(s.x + i, s.a, s.b, s.y + i, size,
                                                                               s.channels);
    });
}

template <class T>
void anneal(const annealed<T>& s) {
    choose<activation::relu, activation::gelu_erf>(s.base, [&](auto base) {
        const T* __restrict x = s.x;
        T* __restrict y = s.y;
        const T lambda = s.lambda;
        for (index i = 0; i < s.size; ++i)
            y[i] = (1 - lambda) * activate<base.value>(x[i]) + lambda * x[i];
    });
}

template <int Taps>
void depthwise(const float* __restrict padded, const float* __restrict weight, float bias, float* __restrict y,
               index height, index width) {
    const index stride = width + Taps - 1;
    for (index i = 0; i < height; ++i)
        for (index j = 0; j < width; ++j) {
            float sum = bias;
            DEFT_UNROLL
            for (int p = 0; p < Taps; ++p)
                DEFT_UNROLL
            for (int q = 0; q < Taps; ++q)
                sum += weight[p * Taps + q] * padded[(i + p) * stride + j + q];
            y[i * width + j] = sum;
        }
}

} // namespace

void run(const series<float>& s) {
    loops(s);
}
void run(const series<double>& s) {
    loops(s);
}
void run(const annealed<float>& s) {
    anneal(s);
}
void run(const annealed<double>& s) {
    anneal(s);
}

void depthwise_relu(const float* x, const float* weight, const float* bias, float* y, index planes, index height,
                    index width, index taps) {
    static std::vector<float> padded;
    const index n = taps / 2, stride = width + 2 * n;
    padded.assign(static_cast<std::size_t>((height + 2 * n) * stride), 0.0f);
    for (index c = 0; c < planes; ++c) {
        for (index i = 0; i < height; ++i)
            std::transform(x + i * width, x + (i + 1) * width, padded.data() + (i + n) * stride + n,
                           [](float v) { return v > 0 ? v : 0.0f; });
        choose<3, 5, 7>(static_cast<int>(taps), [&](auto k) {
            depthwise<k.value>(padded.data(), weight + c * taps * taps, bias[c], y, height, width);
        });
        x += height * width;
        y += height * width;
    }
}

} // namespace deft::bench::autovec

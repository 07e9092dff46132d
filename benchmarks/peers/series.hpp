/// \file
/// Rivals of the elementwise activations, behind plain pointers: each is compiled in its own way.
#ifndef DEFT_BENCHMARKS_PEERS_SERIES_HPP
#define DEFT_BENCHMARKS_PEERS_SERIES_HPP

#include <deft/activation_kind.hpp>

namespace deft::bench {

/// series_activation of [rows, channels] with relu, gelu_erf, gelu_tanh or silu, and of the number of terms: outer with
/// scalars 1, 2, 3 or 8, outer per channel 3, inner 2.
template <class T>
struct series {
    const T *x, *a, *b; ///< a, b: [terms], or [terms, channels] if `per_channel`
    T* y;
    index rows, channels;
    int terms;
    bool per_channel, inner;
    activation base;
};

/// annealed_activation of `size` elements with relu or gelu_erf, 0 < lambda < 1.
template <class T>
struct annealed {
    const T* x;
    T* y;
    index size;
    activation base;
    T lambda;
};

namespace eigen {
/// One array expression over all terms.
void run(const series<float>& s);
void run(const series<double>& s);
/// One array expression per term, added up in y; outer with scalars only.
void run_passes(const series<float>& s);
void run_passes(const series<double>& s);
void run(const annealed<float>& s);
void run(const annealed<double>& s);
} // namespace eigen

namespace autovec {
/// Scalar loops with everything known at compile time but the length, vectorised by the compiler with -ffast-math.
void run(const series<float>& s);
void run(const series<double>& s);
void run(const annealed<float>& s);
void run(const annealed<double>& s);
/// y = depthwise convolution of relu(x) [planes, height, width], `taps` in {3, 5, 7}, weight [planes, taps, taps]:
/// the activated plane goes into a zero-padded buffer first.
void depthwise_relu(const float* x, const float* weight, const float* bias, float* y, index planes, index height,
                    index width, index taps);
} // namespace autovec

} // namespace deft::bench

#endif

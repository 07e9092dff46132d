/// \file
/// Rivals of the quantisation family, behind plain pointers: each is compiled in its own way.
#ifndef DEFT_BENCHMARKS_PEERS_QUANTIZATION_HPP
#define DEFT_BENCHMARKS_PEERS_QUANTIZATION_HPP

#include <deft/config.hpp>

namespace deft::bench {

/// Per channel, symmetric, codes -most - 1 .. most; scale [rows].
struct grid_matrix {
    const float *x, *scale;
    float* y;
    index rows, columns;
    float most;
};

/// The same with learned rounding, a1 [rows, rank], a2 [rank, columns].
struct rounding_matrix {
    const float *w, *a1, *a2, *scale;
    float* w_hat;
    index rows, columns, rank;
    float most;
};

namespace autovec {
/// One pass each, vectorised by the compiler under -O3 -ffast-math.
void fake_quantize(const grid_matrix& m);
void lora_rounding(const rounding_matrix& m);
} // namespace autovec

namespace eigen {
/// V by a product, then a pass over the matrix for each of sigmoid, clip, floor and clamp.
void lora_rounding(const rounding_matrix& m);
/// Softmax of both, logarithms, differences: a pass each. Means; returns the loss, grad by pred.
float block_distance(const float* target, const float* pred, index rows, index columns, float* grad);
} // namespace eigen

} // namespace deft::bench

#endif

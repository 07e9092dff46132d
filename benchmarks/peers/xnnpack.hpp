/// \file
/// XNNPACK (the macro DEFT_PEER_XNNPACK says whether it is there).
#ifndef DEFT_BENCHMARKS_PEERS_XNNPACK_HPP
#define DEFT_BENCHMARKS_PEERS_XNNPACK_HPP

#include "gemm.hpp"

#include <memory>
#include <vector>

struct xnn_operator;

namespace deft::bench::xnnpack {

/// Operators with weights that are packed and memory that is bound: what remains in run() is the work, in one thread.
class layer {
public:
    void run() const;

private:
    struct deleter {
        void operator()(xnn_operator* o) const;
    };
    std::vector<std::unique_ptr<xnn_operator, deleter>> operators_;

    friend layer linear_layer(const linear& l);
    friend layer sparse_product(index rows, index depth, index columns, const float* w, const float* bias,
                                const float* x, float* y);
    friend layer depthwise_relu(index batch, index channels, index height, index width, index taps, const float* weight,
                                const float* bias, const float* x, float* h, float* y);
};

layer linear_layer(const linear& l);

/// y [rows, columns] = w [rows, depth] x [depth, columns] + bias: a convolution of 1x1, in which zeros of w are left
/// out.
layer sparse_product(index rows, index depth, index columns, const float* w, const float* bias, const float* x,
                     float* y);

/// y = depthwise convolution of h = relu(x), plus bias, in NHWC; weight [channels, taps, taps].
layer depthwise_relu(index batch, index channels, index height, index width, index taps, const float* weight,
                     const float* bias, const float* x, float* h, float* y);

} // namespace deft::bench::xnnpack

#endif

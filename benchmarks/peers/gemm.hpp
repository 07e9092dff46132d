/// \file
/// y = x w of rivals: Eigen always, OpenBLAS where the build found it (the macro DEFT_PEER_OPENBLAS says so).
#ifndef DEFT_BENCHMARKS_PEERS_GEMM_HPP
#define DEFT_BENCHMARKS_PEERS_GEMM_HPP

#include <deft/config.hpp>

namespace deft::bench {

/// y [rows, to] = x [rows, from] w; w is [from, to], or [to, from] if `swapped`. All contiguous.
struct linear {
    index rows, from, to;
    const float* x;
    const float* w;
    float* y;
    bool swapped = false;
};

namespace eigen {
void run(const linear& l);
} // namespace eigen
namespace openblas {
void run(const linear& l); ///< one thread; a vector by gemv
} // namespace openblas

} // namespace deft::bench

#endif

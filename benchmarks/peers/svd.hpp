/// \file
/// Eigen's singular value decomposition by divide and conquer: in a file of its own, because it takes long to compile.
#ifndef DEFT_BENCHMARKS_PEERS_SVD_HPP
#define DEFT_BENCHMARKS_PEERS_SVD_HPP

#include <deft/config.hpp>

namespace deft::bench::eigen {

/// s: the min(m, n) singular values of w [m, n]. With `vectors`, thin factors are made too, and of them, unless null,
/// approx [m, n], the best approximation of rank k.
void bdcsvd(const float* w, index m, index n, float* s, bool vectors, index k = 0, float* approx = nullptr);
void bdcsvd(const double* w, index m, index n, double* s, bool vectors, index k = 0, double* approx = nullptr);

} // namespace deft::bench::eigen

#endif

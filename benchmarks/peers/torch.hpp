/// \file
/// PyTorch's library, eagerly: a pass over memory for each operation (the macro DEFT_PEER_TORCH says whether it is
/// there).
#ifndef DEFT_BENCHMARKS_PEERS_TORCH_HPP
#define DEFT_BENCHMARKS_PEERS_TORCH_HPP

#include "gemm.hpp"

namespace deft::bench {

template <class T>
struct series;

namespace torch {

void run(const series<float>& s);
void run(const series<double>& s);
void run(const linear& l);

} // namespace torch
} // namespace deft::bench

#endif

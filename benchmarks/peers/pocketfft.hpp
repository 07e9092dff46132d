/// \file
/// Discrete cosine transforms of pocketfft (the macro DEFT_PEER_POCKETFFT says whether it is there). It takes several
/// rows at a time, one per lane, as deft does.
#ifndef DEFT_BENCHMARKS_PEERS_POCKETFFT_HPP
#define DEFT_BENCHMARKS_PEERS_POCKETFFT_HPP

#include <deft/config.hpp>

namespace deft::bench::pocketfft {

/// Orthonormal, of the last axis of x [rows, n]; one thread. Its plans are kept between calls.
template <class T>
void dct(int kind, const T* x, T* y, index rows, index n);

} // namespace deft::bench::pocketfft

#endif

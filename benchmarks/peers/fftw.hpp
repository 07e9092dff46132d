/// \file
/// Discrete cosine transforms of FFTW in float (the macro DEFT_PEER_FFTW says whether it is there).
#ifndef DEFT_BENCHMARKS_PEERS_FFTW_HPP
#define DEFT_BENCHMARKS_PEERS_FFTW_HPP

#include <deft/config.hpp>

#include <memory>

namespace deft::bench::fftw {

/// From x to y [rows, n], planned by measuring. One thread.
class dct_plan {
public:
    dct_plan(int kind, const float* x, float* y, index rows, index n);
    void run();       ///< not orthonormal: the factors are left to the caller, who may fold them into something else
    void normalize(); ///< multiplies by them

private:
    struct parts;
    std::shared_ptr<parts> parts_;
};

} // namespace deft::bench::fftw

#endif

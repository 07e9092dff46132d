/// \file
/// Executor over OpenMP threads; compile with -fopenmp (CMake: OpenMP::OpenMP_CXX).
#ifndef DEFT_PARALLEL_OPENMP_HPP
#define DEFT_PARALLEL_OPENMP_HPP

#ifndef _OPENMP
#error "deft/parallel_openmp.hpp needs -fopenmp"
#endif

#include <deft/parallel.hpp>

#include <algorithm>

#include <omp.h>

namespace deft {

/// `openmp_executor{4}` uses up to four threads; without an argument, as many as OpenMP would.
/// Cuts the range into one piece per thread, so that a thread meets the same data in successive calls.
struct openmp_executor {
    int threads = omp_get_max_threads();

    template <class F>
    void parallel_for(index n, index grain, F&& f) const {
        if (n <= 0)
            return;
        const index pieces = std::min<index>(threads, (n + grain - 1) / std::max<index>(grain, 1));
        if (pieces <= 1) {
            f(index{0}, n);
            return;
        }
#pragma omp parallel for schedule(static, 1) num_threads(static_cast <int>(pieces))
        for (index piece = 0; piece < pieces; ++piece)
            f(n * piece / pieces, n * (piece + 1) / pieces);
    }
};

} // namespace deft

#endif

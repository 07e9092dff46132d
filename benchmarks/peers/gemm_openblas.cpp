#include "gemm.hpp"

#if DEFT_PEER_OPENBLAS

#include <cblas.h>

// OpenBLAS chooses its kernels when it is loaded, for the processor it finds. On one with AVX-512, a program built for
// AVX2 is compared fairly only under OPENBLAS_CORETYPE=Haswell.
namespace deft::bench::openblas {

void run(const linear& l) {
    static const bool once = (openblas_set_num_threads(1), true);
    static_cast<void>(once);
    const auto m = static_cast<blasint>(l.rows), n = static_cast<blasint>(l.to), k = static_cast<blasint>(l.from);
    const blasint ld = l.swapped ? k : n;
    if (m == 1) // OpenBLAS does not see by itself that a matrix is a vector
        cblas_sgemv(CblasRowMajor, l.swapped ? CblasNoTrans : CblasTrans, l.swapped ? n : k, ld, 1, l.w, ld, l.x, 1, 0,
                    l.y, 1);
    else
        cblas_sgemm(CblasRowMajor, CblasNoTrans, l.swapped ? CblasTrans : CblasNoTrans, m, n, k, 1, l.x, k, l.w, ld, 0,
                    l.y, n);
}

} // namespace deft::bench::openblas

#endif

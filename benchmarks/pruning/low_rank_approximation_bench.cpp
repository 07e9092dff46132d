// low_rank_approximation against the singular value decompositions of Eigen and of LAPACK in OpenBLAS.
#include "../peers/svd.hpp"
#include "../support/suite.hpp"

#include <deft/pruning/low_rank_approximation.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#if DEFT_PEER_OPENBLAS
#include <cblas.h>
extern "C" void sgesdd_(const char* job, const int* m, const int* n, float* a, const int* lda, float* s, float* u,
                        const int* ldu, float* vt, const int* ldvt, float* work, const int* lwork, int* iwork,
                        int* info);
#endif

namespace deft::bench {
namespace {

using row_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

#if DEFT_PEER_OPENBLAS
/// Thin factors of w [m, n]: column-major LAPACK sees the transpose. u_t is [r, m], v_t [r, n], both row-major.
void gesdd(const float* w, index m, index n, float* s, row_major& u_t, row_major& v_t) {
    static const bool once = (openblas_set_num_threads(1), true);
    static_cast<void>(once);
    const int rows = int(n), columns = int(m), r = std::min(rows, columns);
    std::vector<float> a(w, w + m * n), work(1);
    std::vector<int> integers(std::size_t(8 * r));
    u_t.resize(m, r); // V^T of the transpose, column-major [r, m] as LAPACK has it
    v_t.resize(r, n); // U of the transpose, column-major [n, r]
    int size = -1, info = 0;
    for (int pass = 0; pass < 2; ++pass) {
        sgesdd_("S", &rows, &columns, a.data(), &rows, s, v_t.data(), &rows, u_t.data(), &r, work.data(), &size,
                integers.data(), &info);
        size = int(work[0]);
        work.resize(std::size_t(size));
    }
}
#endif

/// k: the rank of the approximation; r: thin factors of full rank, and no approximation.
void compare(suite& s, index m, index n, index k, bool full) {
    const index r = std::min(m, n);
    const auto w = normal<float>(m * n), values = output<float>(k, 7), approx = output<float>(m * n, 8);
    const shape<2> size(m, n);
    const bool thin = k == r;
    struct outputs_of {
        std::vector<float> u, v;
    };
    const lazy factors([=] {
        return outputs_of{std::vector<float>(std::size_t(m * k)), std::vector<float>(std::size_t(n * k))};
    });
    const auto run = [=](low_rank_method method, double accuracy = 0) {
        const low_rank_options options{
            .rank = {.mode = rank_mode::k, .rank = k}, .method = method, .accuracy = accuracy, .power_iterations = 2};
        return [=] {
            if (thin)
                deft::low_rank_approximation<float>(as(w, size), absent, absent, {factors->u.data(), {m, k}},
                                                    as(values, shape<1>(k)), {factors->v.data(), {n, k}}, options);
            else
                deft::low_rank_approximation<float>(as(w, size), absent, as(approx, size), absent,
                                                    as(values, shape<1>(k)), absent, options);
        };
    };
    auto& rows = s.compare(
        {.op = "low_rank_approximation",
         .type = "f32",
         .shape = std::to_string(m) + 'x' + std::to_string(n) + "_k" + std::to_string(k),
         .work = {.items = double(m * n), .flops = 2 * double(r) * double(m) * double(n)},
         .tolerance = 1e-4, // of singular values; samples of noise, whose spectrum is flat, come as near as 0.06
         .full = full});
    rows.truth(inputs{w}, outputs{values}, [=]<class U>(const U* from, U* to) {
        const linalg::matrix<const U> a(view<const U, 2>(from, size)), t = a.transposed();
        std::vector<U> gram(static_cast<std::size_t>(r * r)), squares(static_cast<std::size_t>(r));
        linalg::gemm<U>(1, m <= n ? a : t, m <= n ? t : a, 0, view<U, 2>(gram.data(), {r, r}));
        linalg::symmetric_eigenvalues<U>({gram.data(), r, r, r, 1}, squares.data());
        for (index i = 0; i < k; ++i)
            to[i] = std::sqrt(std::max(squares[std::size_t(r - 1 - i)], U(0)));
    });
    rows.add("eigen_bdcsvd", [=] {
        std::vector<float> all(static_cast<std::size_t>(r));
        eigen::bdcsvd(w.data(), m, n, all.data(), true, k, thin ? nullptr : approx.data());
        std::copy_n(all.data(), k, values.data());
    });
#if DEFT_PEER_OPENBLAS
    rows.add("openblas_gesdd", [=] {
        std::vector<float> all(static_cast<std::size_t>(r));
        row_major u, v_t;
        gesdd(w.data(), m, n, all.data(), u, v_t);
        std::copy_n(all.data(), k, values.data());
        if (!thin)
            Eigen::Map<row_major>(approx.data(), m, n).noalias() =
                u.leftCols(k) * Eigen::Map<const Eigen::VectorXf>(all.data(), k).asDiagonal() * v_t.topRows(k);
    });
#endif
    rows.add("exact", run(low_rank_method::exact));
    if (!thin)
        rows.add("randomized", run(low_rank_method::randomized), {.tolerance = 0.1});
    if (!thin)
        rows.add("deft", run(low_rank_method::automatic, 0.05), {.tolerance = 0.1});
    else
        rows.add("deft", run(low_rank_method::automatic));
}

} // namespace

void benchmark_low_rank_approximation(suite& s) {
    compare(s, 128, 1152, 32, false);
    compare(s, 256, 2304, 64, true);
    compare(s, 512, 4608, 128, true);
    compare(s, 512, 4608, 512, true);
    compare(s, 512, 2048, 64, true);
    compare(s, 2048, 512, 128, true);
    compare(s, 1024, 1024, 64, true);
    compare(s, 1024, 1024, 256, true);
}

} // namespace deft::bench

#include "svd.hpp"

#include <Eigen/SVD>

#include <algorithm>

namespace deft::bench::eigen {
namespace {

template <class T>
void decompose(const T* w, index m, index n, T* s, bool vectors, index k, T* approx) {
    using row_major = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    using column_major = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>;
    const Eigen::BDCSVD<column_major> svd(Eigen::Map<const row_major>(w, m, n),
                                          vectors ? Eigen::ComputeThinU | Eigen::ComputeThinV : 0);
    std::copy_n(svd.singularValues().data(), std::min(m, n), s);
    if (approx != nullptr)
        Eigen::Map<row_major>(approx, m, n).noalias() = svd.matrixU().leftCols(k) *
                                                        svd.singularValues().head(k).asDiagonal() *
                                                        svd.matrixV().leftCols(k).transpose();
}

} // namespace

void bdcsvd(const float* w, index m, index n, float* s, bool vectors, index k, float* approx) {
    decompose(w, m, n, s, vectors, k, approx);
}
void bdcsvd(const double* w, index m, index n, double* s, bool vectors, index k, double* approx) {
    decompose(w, m, n, s, vectors, k, approx);
}

} // namespace deft::bench::eigen

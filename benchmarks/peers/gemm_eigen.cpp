#include "gemm.hpp"

#include <Eigen/Core>

namespace deft::bench::eigen {

void run(const linear& l) {
    using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const Eigen::Map<const matrix> x(l.x, l.rows, l.from);
    Eigen::Map<matrix> y(l.y, l.rows, l.to);
    if (l.swapped)
        y.noalias() = x * Eigen::Map<const matrix>(l.w, l.to, l.from).transpose();
    else
        y.noalias() = x * Eigen::Map<const matrix>(l.w, l.from, l.to);
}

} // namespace deft::bench::eigen

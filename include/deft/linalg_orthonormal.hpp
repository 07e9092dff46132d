/// \file
/// Orthonormal bases by Householder reflections: what is left of QR when a Cholesky factor of the Gram matrix breaks
/// down. Beside linalg.hpp, because Eigen takes long to compile.
#ifndef DEFT_LINALG_ORTHONORMAL_HPP
#define DEFT_LINALG_ORTHONORMAL_HPP

#include <deft/linalg.hpp>

#include <Eigen/QR>

namespace deft {
inline namespace DEFT_ISA {
namespace linalg {

/// The rows of a, [count, n] with count <= n, become an orthonormal basis of a space that contains them. Allocates.
template <class T>
void orthonormalise_rows(const matrix<T>& a) {
    using column_major = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>;
    DEFT_ASSERT(a.column_stride == 1);
    Eigen::Map<column_major, Eigen::Unaligned, Eigen::OuterStride<>> columns(a.data, a.columns, a.rows,
                                                                             Eigen::OuterStride<>(a.row_stride));
    const Eigen::HouseholderQR<column_major> qr(columns);
    columns = qr.householderQ() * column_major::Identity(a.columns, a.rows);
}

} // namespace linalg
} // namespace DEFT_ISA
} // namespace deft

#endif

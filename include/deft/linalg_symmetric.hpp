/// \file
/// Eigenvalues of symmetric matrices. Beside linalg.hpp, because Eigen's decompositions take long to compile.
#ifndef DEFT_LINALG_SYMMETRIC_HPP
#define DEFT_LINALG_SYMMETRIC_HPP

#include <deft/linalg.hpp>

#include <Eigen/Eigenvalues>

namespace deft {
inline namespace DEFT_ISA {
namespace linalg {

/// values[i] = eigenvalues of a, the smallest first; a is symmetric, finite and contiguous. Allocates.
template <class T>
void symmetric_eigenvalues(const matrix<const T>& a, T* values) {
    DEFT_ASSERT(a.rows == a.columns);
    if (a.rows == 0)
        return;
    const Eigen::SelfAdjointEigenSolver<detail::dense<T>> solver(detail::map_rows(a), Eigen::EigenvaluesOnly);
    Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, 1>>(values, a.rows) = solver.eigenvalues();
}

} // namespace linalg
} // namespace DEFT_ISA
} // namespace deft

#endif

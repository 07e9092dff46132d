/// \file
/// Eigenvalues and eigenvectors of symmetric matrices. Beside linalg.hpp, because Eigen takes long to compile.
#ifndef DEFT_LINALG_SYMMETRIC_HPP
#define DEFT_LINALG_SYMMETRIC_HPP

#include <deft/kernels/tridiagonal.hpp>
#include <deft/linalg.hpp>
#include <deft/simd/aligned_vector.hpp>

#include <Eigen/Eigenvalues>

#include <algorithm>
#include <numeric>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace linalg {

/// values[i] = eigenvalues of a, the smallest first; a is symmetric, finite and contiguous. Allocates.
template <class T>
void symmetric_eigenvalues(const matrix<const T>& a, T* values) {
    DEFT_ASSERT(a.rows == a.columns);
    if (a.rows == 0)
        return;
    using square = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>;
    const Eigen::SelfAdjointEigenSolver<square> solver(Eigen::Map<const square>(a.data, a.rows, a.rows),
                                                       Eigen::EigenvaluesOnly);
    Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, 1>>(values, a.rows) = solver.eigenvalues();
}

/// a = sum of values[i] v_i v_i^T, the largest value first, with v_i row i of `vectors` [n, n], contiguous; a is
/// symmetric, finite and contiguous, and may be `vectors`. Errors: a few eps times the largest value; vectors are
/// orthonormal to n eps. Eigen makes the matrix tridiagonal, the steps from there are those of kernels/tridiagonal.hpp.
/// Allocates.
template <class T>
void symmetric_eigenvectors(const matrix<const T>& a, T* values, T* vectors) {
    DEFT_ASSERT(a.rows == a.columns);
    using square = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>;
    const index n = a.rows;
    if (n == 0)
        return;
    const index batch = std::min<index>(1 << 15, 2 * n * n); // rotations kept before they are applied: half a megabyte
    std::vector<T> diagonal(std::size_t(n), T(0)), below(std::size_t(n), T(0));
    simd::aligned_vector<T> basis(std::size_t(n * n), T(1));
    Eigen::Map<square> q(basis.data(), n, n); // its columns are the rows of `basis`
    if (n == 1) {
        diagonal[0] = a.data[0];
    } else {
        const Eigen::Tridiagonalization<square> reduced(Eigen::Map<const square>(a.data, n, n));
        Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, 1>>(diagonal.data(), n) = reduced.diagonal();
        Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, 1>>(below.data(), n - 1) = reduced.subDiagonal();
        q = reduced.matrixQ();
    }
    T norm = 0;
    for (index i = 0; i < n; ++i)
        norm = std::max(norm, std::abs(diagonal[std::size_t(i)]) + std::abs(below[std::size_t(i)]));

    using arch = simd::default_arch;
    simd::aligned_vector<T> strip(std::size_t(n * kernels::strip_columns<arch, T>));
    std::vector<kernels::plane_rotation<T>> rotations(std::size_t(batch + n));
    std::vector<kernels::rotation_chain> chains;
    index kept = 0, start = 0, end = n - 1;
    const auto apply = [&] {
        kernels::rotate_rows<arch>(chains.data(), index(chains.size()), rotations.data(), basis.data(), n, n, n,
                                   strip.data());
        chains.clear();
        kept = 0;
    };
    // 30 steps per eigenvalue are never needed; should they be, what is left below the diagonal is lost.
    for (index step = 0; step < 30 * n && kernels::next_block(diagonal.data(), below.data(), norm, start, end);
         ++step) {
        const index count =
            kernels::tridiagonal_step(diagonal.data(), below.data(), start, end, rotations.data() + kept);
        chains.push_back({start, count});
        kept += count;
        if (kept >= batch)
            apply();
    }
    apply();
    std::vector<index> order(std::size_t(n), 0);
    std::iota(order.begin(), order.end(), index(0));
    std::stable_sort(order.begin(), order.end(),
                     [&](index i, index j) { return diagonal[std::size_t(i)] > diagonal[std::size_t(j)]; });
    for (index i = 0; i < n; ++i) {
        values[i] = diagonal[std::size_t(order[std::size_t(i)])];
        for (index j = 0; j < n; ++j)
            vectors[i * n + j] = basis[std::size_t(order[std::size_t(i)] * n + j)];
    }
}

} // namespace linalg
} // namespace DEFT_ISA
} // namespace deft

#endif

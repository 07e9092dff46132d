/// \file
/// Products of dense matrices. Operators use it; with the macro DEFT_BLAS (the CMake option of that name) products of
/// more than 8 rows and columns go to the CBLAS of the user.
///
/// Eigen's product, which stood here, reaches 0.6 to 0.8 of what the processor can; kernels/matrix_product.hpp 0.75 to
/// 0.9, compiles in a tenth of the time and allocates nothing.
#ifndef DEFT_LINALG_HPP
#define DEFT_LINALG_HPP

#include <deft/config.hpp>
#include <deft/kernels/matrix_product.hpp>
#include <deft/parallel.hpp>
#include <deft/view.hpp>

#if defined(DEFT_BLAS)
#include <cblas.h>
#endif

#include <algorithm>
#include <limits>

namespace deft {
inline namespace DEFT_ISA {
namespace linalg {

/// A matrix with any strides over memory of the caller; views of rank 2 convert. T is const for a factor.
template <class T>
struct matrix {
    T* data;
    index rows, columns, row_stride, column_stride;

    matrix(T* d, index r, index c, index rs, index cs) noexcept
        : data(d), rows(r), columns(c), row_stride(rs), column_stride(cs) {}
    matrix(const view<T, 2>& v) noexcept
        : data(v.data()), rows(v.extent(0)), columns(v.extent(1)), row_stride(v.stride(0)), column_stride(1) {}

    matrix transposed() const noexcept {
        return {data, columns, rows, column_stride, row_stride};
    }
};

/// A factor: takes no part in the deduction of T.
template <class T>
using factor = typename deft::detail::non_deduced<matrix<const T>>::type;

#if defined(DEFT_BLAS)
namespace detail {

inline void blas_gemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int m, int n, int k, float alpha, const float* a, int lda,
                      const float* b, int ldb, float beta, float* c, int ldc) {
    cblas_sgemm(CblasRowMajor, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
inline void blas_gemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int m, int n, int k, double alpha, const double* a,
                      int lda, const double* b, int ldb, double beta, double* c, int ldc) {
    cblas_dgemm(CblasRowMajor, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

/// False, and nothing is done, if BLAS does not take these matrices, or is slow with so few rows or columns.
template <class T>
bool blas_gemm(T alpha, const matrix<const T>& a, const matrix<const T>& b, T beta, const matrix<T>& c) {
    if (std::min(c.rows, c.columns) <= kernels::skinny_rows)
        return false;
    if (c.column_stride != 1 && c.row_stride == 1)
        return blas_gemm<T>(alpha, b.transposed(), a.transposed(), beta, c.transposed());
    constexpr index most = std::numeric_limits<int>::max();
    const auto leading = [](const matrix<const T>& m, index& stride) { // rows of neighbours, or columns
        const bool by_rows = m.column_stride == 1;
        stride = std::max<index>(by_rows ? m.row_stride : m.column_stride, 1);
        return (by_rows || m.row_stride == 1) && stride >= (by_rows ? m.columns : m.rows);
    };
    index lda = 0, ldb = 0;
    if (!leading(a, lda) || !leading(b, ldb) || c.column_stride != 1 || c.row_stride < c.columns || a.columns == 0 ||
        std::max({c.rows, c.columns, a.columns, lda, ldb, c.row_stride}) > most)
        return false;
    blas_gemm(a.column_stride == 1 ? CblasNoTrans : CblasTrans, b.column_stride == 1 ? CblasNoTrans : CblasTrans,
              static_cast<int>(c.rows), static_cast<int>(c.columns), static_cast<int>(a.columns), alpha, a.data,
              static_cast<int>(lda), b.data, static_cast<int>(ldb), beta, c.data, static_cast<int>(c.row_stride));
    return true;
}

} // namespace detail
#endif

/// c = alpha a b + beta c. With beta = 0, c is not read. c must not overlap a or b. Sums over nothing are 0. The same
/// bits for every executor. Never allocates. (A BLAS, where it is used, does as it likes.)
template <class T, executor Executor = serial_executor>
void gemm(T alpha, factor<T> a, factor<T> b, T beta, const matrix<T>& c, Executor&& executor = Executor()) {
    DEFT_ASSERT(a.rows == c.rows && b.columns == c.columns && a.columns == b.rows);
#if defined(DEFT_BLAS)
    if (detail::blas_gemm<T>(alpha, a, b, beta, c))
        return;
#endif
    using shape = kernels::tile_shape<simd::default_arch, T>;
    const kernels::strided_matrix<const T> left{a.data, a.row_stride, a.column_stride},
        right{b.data, b.row_stride, b.column_stride};
    const kernels::strided_matrix<T> to{c.data, c.row_stride, c.column_stride};
    const index height = shape::rows_for(c.rows);
    const index width = kernels::is_skinny(left, right, c.rows) ? shape::columns_for(c.rows) : 4 * shape::tile_columns;
    const index across = (c.columns + width - 1) / width, pieces = (c.rows + height - 1) / height * across;
    executor.parallel_for(pieces, 1, [&](index begin, index end) {
        for (index p = begin; p < end; ++p) {
            const index i = p / across * height, j = p % across * width;
            kernels::matrix_product<simd::default_arch, T>(alpha, left.at(i, 0), right.at(0, j), beta, to.at(i, j),
                                                           std::min(height, c.rows - i), std::min(width, c.columns - j),
                                                           a.columns);
        }
    });
}

} // namespace linalg
} // namespace DEFT_ISA
} // namespace deft

#endif

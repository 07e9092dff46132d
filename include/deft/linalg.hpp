/// \file
/// Dense linear algebra. The only header of deft that sees Eigen; operators use it, kernels do not.
///
/// Products go to Eigen, those with up to 8 rows to kernels/skinny_product.hpp, which reads a weight matrix once as
/// fast as memory gives it. With the macro DEFT_BLAS (the CMake option of that name) larger ones of float and double go
/// to the CBLAS of the user.
#ifndef DEFT_LINALG_HPP
#define DEFT_LINALG_HPP

#include <deft/config.hpp>
#include <deft/kernels/skinny_product.hpp>
#include <deft/view.hpp>

#include <Eigen/Core>

#if defined(DEFT_BLAS)
#include <cblas.h>
#endif

#include <algorithm>
#include <limits>
#include <type_traits>

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

namespace detail {

template <class T>
using dense = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Rows of neighbours in memory.
template <class T>
auto map_rows(const matrix<T>& m) noexcept {
    using type = std::conditional_t<std::is_const_v<T>, const dense<std::remove_const_t<T>>, dense<T>>;
    return Eigen::Map<type, Eigen::Unaligned, Eigen::OuterStride<>>(m.data, m.rows, m.columns,
                                                                    Eigen::OuterStride<>(m.row_stride));
}

/// Neither rows nor columns of neighbours in memory.
template <class T>
auto map_strided(const matrix<T>& m) noexcept {
    using type = std::conditional_t<std::is_const_v<T>, const dense<std::remove_const_t<T>>, dense<T>>;
    using stride = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
    return Eigen::Map<type, Eigen::Unaligned, stride>(m.data, m.rows, m.columns, stride(m.row_stride, m.column_stride));
}

/// f(m as an Eigen expression whose memory a product reads where it lies); a copy if m has rows and columns of
/// neighbours neither.
template <class T, class F>
void with_factor(const matrix<const T>& m, F&& f) {
    if (m.column_stride == 1 || m.columns <= 1)
        f(map_rows(m));
    else if (m.row_stride == 1 || m.rows <= 1)
        f(map_rows(m.transposed()).transpose());
    else
        f(map_rows(matrix<const T>(dense<T>(map_strided(m)).data(), m.rows, m.columns, m.columns, 1)));
}

/// c += alpha a b for c with rows of neighbours. A function of its own, so that a program of many files may compile
/// Eigen's products once: they are by far the slowest part of this header.
template <class T>
void add_product(T alpha, const matrix<const T>& a, const matrix<const T>& b, const matrix<T>& c) {
    with_factor<T>(a, [&](const auto& left) {
        with_factor<T>(b, [&](const auto& right) { map_rows(c).noalias() += alpha * left * right; });
    });
}

#if defined(DEFT_BLAS)
inline void blas_gemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int m, int n, int k, float alpha, const float* a, int lda,
                      const float* b, int ldb, float beta, float* c, int ldc) {
    cblas_sgemm(CblasRowMajor, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
inline void blas_gemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int m, int n, int k, double alpha, const double* a,
                      int lda, const double* b, int ldb, double beta, double* c, int ldc) {
    cblas_dgemm(CblasRowMajor, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

/// False, and nothing is done, if BLAS does not take these matrices.
template <class T>
bool blas_gemm(T alpha, const matrix<const T>& a, const matrix<const T>& b, T beta, const matrix<T>& c) {
    constexpr index most = std::numeric_limits<int>::max();
    const auto leading = [](const matrix<const T>& m, index& stride) { // rows of neighbours, or columns
        const bool by_rows = m.column_stride == 1;
        stride = std::max<index>(by_rows ? m.row_stride : m.column_stride, 1);
        return (by_rows || m.row_stride == 1) && stride >= (by_rows ? m.columns : m.rows);
    };
    index lda = 0, ldb = 0;
    if (!leading(a, lda) || !leading(b, ldb) || c.column_stride != 1 || c.row_stride < c.columns || a.columns == 0 ||
        c.rows == 0 || c.columns == 0 || std::max({c.rows, c.columns, a.columns, lda, ldb, c.row_stride}) > most)
        return false;
    blas_gemm(a.column_stride == 1 ? CblasNoTrans : CblasTrans, b.column_stride == 1 ? CblasNoTrans : CblasTrans,
              static_cast<int>(c.rows), static_cast<int>(c.columns), static_cast<int>(a.columns), alpha, a.data,
              static_cast<int>(lda), b.data, static_cast<int>(ldb), beta, c.data, static_cast<int>(c.row_stride));
    return true;
}
#endif

/// False, and nothing is done, if the product has more than a few rows or strides that want copies.
template <class T>
bool skinny_gemm(T alpha, const matrix<const T>& a, const matrix<const T>& b, T beta, const matrix<T>& c) noexcept {
    const kernels::strided_matrix<const T> left{a.data, a.row_stride, a.column_stride},
        right{b.data, b.row_stride, b.column_stride};
    if (c.column_stride != 1 || a.columns == 0 || !kernels::is_skinny(left, right, c.rows))
        return false;
    // Straight into c, or by pieces beside it.
    constexpr index piece = 512;
    if (alpha == T(1) && (beta == T(0) || beta == T(1))) {
        kernels::skinny_product<simd::default_arch, T>(left, right, c.rows, c.columns, a.columns, beta == T(1), c.data,
                                                       c.row_stride);
        return true;
    }
    T sums[std::size_t(kernels::skinny_rows * piece)];
    for (index j = 0; j < c.columns; j += piece) {
        const index count = std::min(piece, c.columns - j);
        kernels::skinny_product<simd::default_arch, T>(left, right.at(0, j), c.rows, count, a.columns, false, sums,
                                                       piece);
        for (index i = 0; i < c.rows; ++i) {
            T* const to = c.data + i * c.row_stride + j;
            for (index k = 0; k < count; ++k)
                to[k] = beta == T(0) ? alpha * sums[i * piece + k] : alpha * sums[i * piece + k] + beta * to[k];
        }
    }
    return true;
}

} // namespace detail

/// c = alpha a b + beta c. With beta = 0, c is not read. c must not overlap a or b. Sums over nothing are 0.
/// Eigen packs blocks of large factors: this allocates, unless c has at most 8 rows (or columns, if its columns are
/// consecutive) and no factor has to be copied.
template <class T>
void gemm(T alpha, factor<T> a, factor<T> b, T beta, const matrix<T>& c) {
    DEFT_ASSERT(a.rows == c.rows && b.columns == c.columns && a.columns == b.rows);
    if (c.column_stride != 1 && c.row_stride == 1)
        return gemm<T>(alpha, b.transposed(), a.transposed(), beta, c.transposed());
    if constexpr (std::is_floating_point_v<T>) {
        if (detail::skinny_gemm<T>(alpha, a, b, beta, c))
            return;
#if defined(DEFT_BLAS)
        if (detail::blas_gemm<T>(alpha, a, b, beta, c))
            return;
#endif
    }
    const auto multiply = [&](const matrix<T>& to) {
        if (beta == T(0))
            detail::map_rows(to).setZero();
        else if (beta != T(1))
            detail::map_rows(to) *= beta;
        detail::add_product<T>(alpha, a, b, to);
    };
    if (c.column_stride == 1)
        return multiply(c);
    detail::dense<T> result = detail::map_strided(c);
    multiply({result.data(), c.rows, c.columns, c.columns, 1});
    detail::map_strided(c) = result;
}

} // namespace linalg
} // namespace DEFT_ISA
} // namespace deft

#endif

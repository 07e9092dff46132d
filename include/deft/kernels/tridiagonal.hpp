/// \file
/// Eigenvalues of a symmetric tridiagonal matrix by QR steps, and their rotations applied to a basis. C++17.
///
/// Golub and Van Loan, Matrix Computations, 8.3: implicit steps with Wilkinson's shift. Applying each rotation at once
/// to two columns of the basis would stream the basis through the cache for every step; here the rotations of many
/// steps are kept, and then run over a strip of the basis, which stays in cache.
#ifndef DEFT_KERNELS_TRIDIAGONAL_HPP
#define DEFT_KERNELS_TRIDIAGONAL_HPP

#include <deft/simd/loop.hpp>

#include <cmath>
#include <limits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

template <class T>
struct plane_rotation {
    T c, s;
};

/// Rotations of neighbours (first, first + 1), (first + 1, first + 2), ... in this order.
struct rotation_chain {
    index first, count;
};

/// Columns of a strip: the memory for one is n x strip_columns.
template <class Arch, class T>
inline constexpr index strip_columns = 4 * simd::lanes<T, Arch>;

/// Rows of `basis`, [n, columns], are rotated: (x, y) <- (c x - s y, s x + c y). `strip` holds n x strip_columns.
template <class Arch, class T>
DEFT_NOINLINE void rotate_rows(const rotation_chain* chains, index chain_count, const plane_rotation<T>* rotations,
                               T* basis, index stride, index n, index columns, T* strip) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>, step = strip_columns<Arch, T>;
    constexpr int vectors = int(step / width);
    for (index j = 0; j < columns; j += step) {
        const index count = columns - j < step ? columns - j : step;
        for (index r = 0; r < n; ++r)
            for (index c = 0; c < step; ++c)
                strip[r * step + c] = c < count ? basis[r * stride + j + c] : T(0);
        const plane_rotation<T>* rotation = rotations;
        for (index chain = 0; chain < chain_count; ++chain) {
            T* row = strip + chains[chain].first * step;
            B x[std::size_t(vectors)];
            DEFT_UNROLL
            for (int v = 0; v < vectors; ++v)
                x[v] = simd::load<Arch>(row + v * width);
            for (index k = 0; k < chains[chain].count; ++k, ++rotation, row += step) {
                const B c(rotation->c), s(rotation->s);
                DEFT_UNROLL
                for (int v = 0; v < vectors; ++v) {
                    const B y = simd::load<Arch>(row + step + v * width);
                    simd::store<T>(row + v * width, simd::fnma(s, y, B(c * x[v])));
                    x[v] = simd::fma(s, x[v], B(c * y));
                }
            }
            DEFT_UNROLL
            for (int v = 0; v < vectors; ++v)
                simd::store<T>(row + v * width, x[v]);
        }
        for (index r = 0; r < n; ++r)
            for (index c = 0; c < count; ++c)
                basis[r * stride + j + c] = strip[r * step + c];
    }
}

/// c and s with s p + c q = 0, and c p - s q the length of (p, q).
template <class T>
DEFT_ALWAYS_INLINE plane_rotation<T> annihilate(T p, T q) noexcept {
    if (q == T(0))
        return {p < T(0) ? T(-1) : T(1), T(0)};
    if (p == T(0))
        return {T(0), q < T(0) ? T(1) : T(-1)};
    if (std::abs(p) > std::abs(q)) {
        const T t = q / p, u = p < T(0) ? -std::sqrt(1 + t * t) : std::sqrt(1 + t * t);
        return {1 / u, -t / u};
    }
    const T t = p / q, u = q < T(0) ? -std::sqrt(1 + t * t) : std::sqrt(1 + t * t);
    return {t / u, T(-1) / u};
}

/// One step on the rows `start` .. `end` of the matrix, whose subdiagonal there has no zero. Writes up to end - start
/// rotations and returns how many.
template <class T>
index tridiagonal_step(T* diagonal, T* below, index start, index end, plane_rotation<T>* rotations) noexcept {
    const T half = (diagonal[end - 1] - diagonal[end]) / 2, e = below[end - 1];
    const T root = std::hypot(half, e);
    T shift = diagonal[end];
    shift -= half == T(0) ? std::abs(e) : e / (half + (half > T(0) ? root : -root)) * e;
    T x = diagonal[start] - shift, z = below[start];
    index k = start;
    for (; k < end && z != T(0); ++k) {
        const plane_rotation<T> rotation = rotations[k - start] = annihilate(x, z);
        const T c = rotation.c, s = rotation.s;
        const T sd = s * diagonal[k] + c * below[k], dd = s * below[k] + c * diagonal[k + 1];
        diagonal[k] = c * (c * diagonal[k] - s * below[k]) - s * (c * below[k] - s * diagonal[k + 1]);
        diagonal[k + 1] = s * sd + c * dd;
        below[k] = c * sd - s * dd;
        if (k > start)
            below[k - 1] = c * below[k - 1] - s * z;
        x = below[k];
        if (k < end - 1) {
            z = -s * below[k + 1];
            below[k + 1] = c * below[k + 1];
        }
    }
    return k - start;
}

/// Splits off what has converged: the last block without a zero in its subdiagonal, as its first row in `start` and its
/// last in `end`. False if there is none left.
template <class T>
bool next_block(const T* diagonal, T* below, T norm, index& start, index& end) noexcept {
    constexpr T epsilon = std::numeric_limits<T>::epsilon();
    const auto negligible = [&](index i) {
        const T size = std::abs(below[i]);
        return size <= epsilon * (std::abs(diagonal[i]) + std::abs(diagonal[i + 1])) || size <= epsilon / 16 * norm;
    };
    while (end > 0 && negligible(end - 1))
        below[--end] = T(0);
    if (end == 0)
        return false;
    start = end - 1;
    while (start > 0 && !negligible(start - 1))
        --start;
    if (start > 0)
        below[start - 1] = T(0);
    return true;
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

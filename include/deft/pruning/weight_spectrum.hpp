/// \file
/// Singular values and vectors of a weight: what low_rank_approximation, rank_loss, rank_metrics and rank_analysis
/// share.
///
/// W [m, n] is taken as a wide matrix A [r, l], r = min(m, n), times a power of two. Its Gram matrix A A^T = Q^T
/// diag(s^2) Q is built and decomposed in double:
///
///     float     s and Q err by eps(double) s_1^2 / s_i, which is below the rounding of A down to s_i = 1e-8 s_1: as
///               exact as a decomposition of A in float
///     double    accurate as long as s_r > 1e-5 s_1; below, or where full accuracy is asked for, the rows of Q A, which
///               are orthogonal but for that error, are made so by one-sided Jacobi rotations. For usual weights no
///               or few pairs of rows need one: this costs two more products instead of a bidiagonalisation.
#ifndef DEFT_PRUNING_WEIGHT_SPECTRUM_HPP
#define DEFT_PRUNING_WEIGHT_SPECTRUM_HPP

#include <deft/kernels/jacobi.hpp>
#include <deft/linalg_symmetric.hpp>
#include <deft/pruning/rank_choice.hpp>
#include <deft/shortcut/augmented_shortcut_paths.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace detail {

/// g = A A^T, [r, r], in double, for A [r, l] contiguous.
template <class T>
void gram_matrix(const T* a, index r, index l, double* g) {
    using arch = simd::default_arch;
    using shape = kernels::tile_shape<arch, double>;
    constexpr index depth = 256;
    std::vector<double> chunk(std::size_t(r * depth));
    std::fill_n(g, r * r, 0.0);
    for (index p = 0; p < l; p += depth) {
        const index count = std::min(depth, l - p);
        for (index i = 0; i < r; ++i)
            for (index j = 0; j < count; ++j)
                chunk[std::size_t(i * depth + j)] = double(a[i * l + p + j]);
        for (index i = 0; i < r; i += shape::tile_rows) {
            const index rows = std::min(shape::tile_rows, r - i);
            // below the diagonal, and across it
            kernels::matrix_product<arch, double>(1.0, {chunk.data() + i * depth, depth, 1}, {chunk.data(), 1, depth},
                                                  1.0, {g + i * r, r, 1}, rows, i + rows, count);
        }
    }
    for (index i = 0; i < r; ++i)
        for (index j = i + 1; j < r; ++j)
            g[i * r + j] = g[j * r + i];
}

/// out [count, l] = rows [count, r] A, A [r, l]; all contiguous.
template <class T>
void multiply_rows(const T* rows, index count, const T* a, index r, index l, T* out) {
    serial_executor here;
    multiply<T>({rows, r, 1}, {a, l, 1}, r, false, view<T, 2>(out, {count, l}), here);
}

template <class T>
class weight_spectrum {
public:
    /// A copy of W, wide and scaled; nothing is decomposed yet. Entries that are not finite make is_finite() false.
    explicit weight_spectrum(const view<const T, 2>& w)
        : m(w.extent(0)), n(w.extent(1)), r(std::min(m, n)), l(std::max(m, n)), is_tall(m > n), a(std::size_t(r * l)) {
        T largest = 0;
        bool finite = true;
        for (index i = 0; i < m; ++i)
            for (index j = 0; j < n; ++j) {
                const T v = std::abs(w(i, j));
                finite &= v <= std::numeric_limits<T>::max();
                largest = v > largest ? v : largest;
            }
        is_finite_ = finite;
        if (finite && largest > T(0)) {
            int exponent = 0;
            static_cast<void>(std::frexp(largest, &exponent));
            // A subnormal matrix is scaled up as far as the scale itself is a number.
            scale = std::ldexp(T(1), std::min(-exponent, std::numeric_limits<T>::max_exponent - 2));
        }
        copy_wide(w, scale, a.data());
    }

    bool is_finite() const noexcept {
        return is_finite_;
    }

    /// W, or a tensor of its shape, as a wide matrix [r, l].
    void copy_wide(const view<const T, 2>& w, T factor, T* to) const {
        if (!is_tall) {
            for (index i = 0; i < r; ++i)
                for (index j = 0; j < l; ++j)
                    to[i * l + j] = w(i, j) * factor;
            return;
        }
        constexpr index block = 16; // a line of either matrix
        for (index i = 0; i < l; i += block)
            for (index j = 0; j < r; ++j)
                for (index k = i; k < std::min(i + block, l); ++k)
                    to[j * l + k] = w(k, j) * factor;
    }

    /// Fills in s and q; `exact` asks for full accuracy in double.
    void decompose(bool exact) {
        std::vector<double> gram(std::size_t(r * r));
        s.assign(std::size_t(r), 0.0);
        q.assign(std::size_t(r * r), 0.0);
        gram_matrix(a.data(), r, l, gram.data());
        linalg::symmetric_eigenvectors<double>({gram.data(), r, r, r, 1}, s.data(), q.data());
        for (double& v : s)
            v = std::sqrt(std::max(v, 0.0));
        if constexpr (std::is_same_v<T, double>)
            if (r > 0 && (exact || s.back() < 1e-5 * s[0]))
                refine();
    }

    /// Rows first .. first + count - 1 of Q, in T.
    std::vector<T> left_rows(index first, index count) const {
        std::vector<T> rows(std::size_t(count * r));
        for (std::size_t i = 0; i < rows.size(); ++i)
            rows[i] = T(q[std::size_t(first * r) + i]);
        return rows;
    }
    /// The same rows of Q A: s_i times the right singular vectors.
    std::vector<T> scaled_rows(index first, index count) const {
        std::vector<T> rows(std::size_t(count * l));
        if (!refined.empty()) {
            for (std::size_t i = 0; i < rows.size(); ++i)
                rows[i] = refined[std::size_t(first * l) + i];
            return rows;
        }
        multiply_rows(left_rows(first, count).data(), count, a.data(), r, l, rows.data());
        return rows;
    }
    /// Below this a singular value is rounding.
    double noise() const noexcept {
        return r == 0 ? 0.0 : double(r) * double(std::numeric_limits<T>::epsilon()) * s[0];
    }

    index m, n, r, l;
    bool is_tall;
    T scale = 1;            ///< A = scale W, a power of two
    std::vector<T> a;       ///< [r, l]
    std::vector<double> s;  ///< of A, the largest first
    std::vector<double> q;  ///< [r, r]: row i is the singular vector of s_i on the short side
    std::vector<T> refined; ///< Q A, if it was made orthogonal

private:
    void refine() {
        using arch = simd::default_arch;
        constexpr double eps = std::numeric_limits<double>::epsilon();
        constexpr int most_rounds = 40; // Jacobi converges in less than ten
        refined.resize(std::size_t(r * l));
        multiply_rows(q.data(), r, a.data(), r, l, refined.data());
        // Dot products err like this, so less cannot be asked for.
        const double tolerance = 4 * eps * (1 + std::sqrt(double(l)) / 16);
        std::vector<double> products(std::size_t(r * r));
        for (int round = 0;; ++round) {
            gram_matrix(refined.data(), r, l, products.data());
            double largest = 0;
            for (index i = 0; i < r; ++i) {
                s[std::size_t(i)] = std::sqrt(products[std::size_t(i * r + i)]);
                largest = std::max(largest, s[std::size_t(i)]);
            }
            if (round == most_rounds)
                break;
            const double least = eps * largest;
            std::vector<index> active;
            for (index i = 0; i < r; ++i)
                for (index j = 0; j < r; ++j) {
                    const double si = s[std::size_t(i)], sj = s[std::size_t(j)];
                    if (i != j && si > least && sj > least &&
                        std::abs(products[std::size_t(i * r + j)]) > tolerance * si * sj) {
                        active.push_back(i);
                        break;
                    }
                }
            if (active.empty())
                break;
            for (std::size_t x = 0; x < active.size(); ++x)
                for (std::size_t y = x + 1; y < active.size(); ++y) {
                    double* const p = refined.data() + active[x] * l;
                    double* const o = refined.data() + active[y] * l;
                    const auto pair = kernels::multiply_pair<arch>(p, o, l);
                    if (!(std::abs(pair.pq) > tolerance / 2 * std::sqrt(pair.pp) * std::sqrt(pair.qq)) ||
                        std::sqrt(std::min(pair.pp, pair.qq)) <= least)
                        continue;
                    const auto rotation = kernels::orthogonalising(pair);
                    kernels::rotate_pair<arch>(p, o, l, rotation);
                    kernels::rotate_pair<arch>(q.data() + active[x] * r, q.data() + active[y] * r, r, rotation);
                }
        }
        std::vector<index> order(std::size_t(r), 0);
        std::iota(order.begin(), order.end(), index(0));
        std::stable_sort(order.begin(), order.end(),
                         [&](index i, index j) { return s[std::size_t(i)] > s[std::size_t(j)]; });
        const auto sort_rows = [&](std::vector<double>& rows, index width) {
            std::vector<double> sorted(rows.size());
            for (index i = 0; i < r; ++i)
                for (index j = 0; j < width; ++j)
                    sorted[std::size_t(i * width + j)] = rows[std::size_t(order[std::size_t(i)] * width + j)];
            rows.swap(sorted);
        };
        sort_rows(refined, l);
        sort_rows(q, r);
        sort_rows(s, 1);
    }

    bool is_finite_ = true;
};

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

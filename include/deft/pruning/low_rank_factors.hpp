/// \file
/// Truncated factors of a weight, W_k = X^T Y, from its spectrum or from a random sample of its range.
#ifndef DEFT_PRUNING_LOW_RANK_FACTORS_HPP
#define DEFT_PRUNING_LOW_RANK_FACTORS_HPP

#include <deft/linalg_orthonormal.hpp>
#include <deft/pruning/weight_spectrum.hpp>

#include <cstdint>

namespace deft {
inline namespace DEFT_ISA {
namespace detail {

/// scale W_k = left^T right: left [k, m], right [k, n]. One of them is orthonormal, the rows of the other are s_i long.
template <class T>
struct low_rank_factors {
    index k = 0, m = 0, n = 0;
    bool left_is_scaled = false;
    double scale = 1;
    double noise = 0; ///< singular values below are rounding
    std::vector<T> left, right;
    std::vector<double> s;
};

/// Rows first .. first + count - 1 of the decomposition.
template <class T>
low_rank_factors<T> spectrum_factors(const weight_spectrum<T>& w, index first, index count) {
    low_rank_factors<T> f{count, w.m, w.n, w.is_tall, double(w.scale), w.noise(), {}, {}, {}};
    f.s.assign(w.s.begin() + first, w.s.begin() + first + count);
    f.left = w.is_tall ? w.scaled_rows(first, count) : w.left_rows(first, count);
    f.right = w.is_tall ? w.left_rows(first, count) : w.scaled_rows(first, count);
    return f;
}

/// Numbers of mean 0 and variance 1, nearly normal, the same everywhere to the last bit: sums of the four 16-bit parts
/// of splitmix64. (Box and Muller's took a quarter of the time of a decomposition.)
class random_sequence {
public:
    explicit random_sequence(std::uint64_t seed) noexcept : state_(seed) {}
    double next() noexcept {
        constexpr double mean = 2 * 65535.0, deviation = 37837.22723720648; // sqrt(4 (2^32 - 1) / 12)
        std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        const std::uint64_t sum = (z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48);
        return (double(sum) - mean) / deviation;
    }

private:
    std::uint64_t state_;
};

/// The rows of y, [count, l], become an orthonormal basis of their span (of a larger space, if they are dependent): by
/// the Cholesky factor of their Gram matrix, which costs products only; a second pass removes what the first leaves.
template <class T>
void orthonormalise(std::vector<T>& y, index count, index l, int passes) {
    std::vector<double> g(std::size_t(count * count)), inverse(g.size());
    std::vector<T> narrow(g.size()), result(y.size());
    for (int pass = 0; pass < passes; ++pass) {
        gram_matrix(y.data(), count, l, g.data());
        // g = R^T R, R in the upper triangle, and its inverse; a pivot that is all rounding ends it.
        bool broken = false;
        for (index i = 0; i < count && !broken; ++i) {
            double* const row = g.data() + i * count;
            const double before = row[i];
            for (index k = 0; k < i; ++k) {
                const double* const upper = g.data() + k * count;
                for (index j = i; j < count; ++j)
                    row[j] -= upper[i] * upper[j];
            }
            broken = !(row[i] > 1e-13 * before);
            const double pivot = std::sqrt(row[i]);
            for (index j = i; j < count; ++j)
                row[j] /= pivot;
        }
        if (broken) {
            std::vector<double> wide(y.begin(), y.end());
            linalg::orthonormalise_rows<double>({wide.data(), count, l, l, 1});
            y.assign(wide.begin(), wide.end());
            return;
        }
        // Rows of R^-T: y := R^-T y. Row i of it is (e_i - sum_{k < i} R_ki row k) / R_ii.
        for (index i = 0; i < count; ++i) {
            double* const row = inverse.data() + i * count;
            std::fill_n(row, count, 0.0);
            row[i] = 1;
            for (index k = 0; k < i; ++k)
                for (index j = 0; j <= k; ++j)
                    row[j] -= g[std::size_t(k * count + i)] * inverse[std::size_t(k * count + j)];
            for (index j = 0; j <= i; ++j)
                row[j] /= g[std::size_t(i * count + i)];
        }
        narrow.assign(inverse.begin(), inverse.end());
        multiply_rows(narrow.data(), count, y.data(), count, l, result.data());
        y.swap(result);
    }
}

/// Halko, Martinsson and Tropp (arXiv:0909.4061), algorithms 4.4 and 5.1; omega is [n, samples].
template <class T>
low_rank_factors<T> random_factors(const weight_spectrum<T>& w, kernels::strided_matrix<const T> omega, index samples,
                                   index k, index power_iterations) {
    serial_executor here;
    // A is W or its transpose, and the factors of a product may be transposed for free.
    const kernels::strided_matrix<const T> a{w.a.data(), w.l, 1};
    const auto matrix = w.is_tall ? a.transposed() : a; // scale W, [m, n]
    std::vector<T> range(std::size_t(samples * w.m)), back(std::size_t(samples * w.n));
    for (index c = 0; c < samples; ++c) // rows of neighbours, which any product takes
        for (index j = 0; j < w.n; ++j)
            back[std::size_t(c * w.n + j)] = omega.data[j * omega.row_stride + c * omega.column_stride];
    multiply<T>({back.data(), w.n, 1}, matrix.transposed(), w.n, false, view<T, 2>(range.data(), {samples, w.m}), here);
    for (index i = 0; i < power_iterations; ++i) {
        orthonormalise(range, samples, w.m, 1);
        multiply<T>({range.data(), w.m, 1}, matrix, w.m, false, view<T, 2>(back.data(), {samples, w.n}), here);
        orthonormalise(back, samples, w.n, 1);
        multiply<T>({back.data(), w.n, 1}, matrix.transposed(), w.n, false, view<T, 2>(range.data(), {samples, w.m}),
                    here);
    }
    orthonormalise(range, samples, w.m, 2);
    multiply<T>({range.data(), w.m, 1}, matrix, w.m, false, view<T, 2>(back.data(), {samples, w.n}), here);

    weight_spectrum<T> small(view<const T, 2>(back.data(), {samples, w.n}));
    small.decompose(true);
    low_rank_factors<T> f{k, w.m, w.n, false, double(w.scale) * double(small.scale), small.noise(), {}, {}, {}};
    f.s.assign(small.s.begin(), small.s.begin() + k);
    f.right = small.scaled_rows(0, k);
    f.left.resize(std::size_t(k * w.m));
    multiply_rows(small.left_rows(0, k).data(), k, range.data(), samples, w.m, f.left.data());
    return f;
}

/// approx = W_k of its factors, or W less that of the tail's.
template <class T>
void write_approximation(const low_rank_factors<T>& f, const view<const T, 2>& weight, bool is_tail,
                         const view<T, 2>& approx) {
    serial_executor here;
    multiply<T>({f.left.data(), 1, f.m}, {f.right.data(), f.n, 1}, f.k, false, approx, here);
    const T factor = T(1 / f.scale);
    for (index i = 0; i < f.m; ++i)
        for (index j = 0; j < f.n; ++j)
            approx(i, j) = is_tail ? weight(i, j) - approx(i, j) * factor : approx(i, j) * factor;
}

/// Makes row c of `rows`, [.., l], a unit vector orthogonal to the rows before it.
template <class T>
void complete_basis(std::vector<T>& rows, index c, index l) {
    std::vector<double> best(std::size_t(l), 0.0), trial(best.size());
    double longest = 0;
    for (index axis = 0; axis < l && longest < 0.5; ++axis) {
        std::fill(trial.begin(), trial.end(), 0.0);
        trial[std::size_t(axis)] = 1;
        for (int pass = 0; pass < 2; ++pass)
            for (index i = 0; i < c; ++i) {
                double along = 0;
                for (index j = 0; j < l; ++j)
                    along += double(rows[std::size_t(i * l + j)]) * trial[std::size_t(j)];
                for (index j = 0; j < l; ++j)
                    trial[std::size_t(j)] -= along * double(rows[std::size_t(i * l + j)]);
            }
        double square = 0;
        for (const double v : trial)
            square += v * v;
        if (std::sqrt(square) > longest) {
            longest = std::sqrt(square);
            best = trial;
        }
    }
    for (index j = 0; j < l; ++j)
        rows[std::size_t(c * l + j)] = T(best[std::size_t(j)] / longest);
}

/// Both factors orthonormal, each pair with its sign: the largest entry of a column of u is positive, the first of
/// equal ones.
template <class T>
void normalise(low_rank_factors<T>& f) {
    std::vector<T>& scaled = f.left_is_scaled ? f.left : f.right;
    const index l = f.left_is_scaled ? f.m : f.n;
    for (index c = 0; c < f.k; ++c) {
        const double length = f.s[std::size_t(c)];
        if (length <= f.noise)
            complete_basis(scaled, c, l);
        else
            for (index j = 0; j < l; ++j)
                scaled[std::size_t(c * l + j)] = T(double(scaled[std::size_t(c * l + j)]) / length);
        T* const left = f.left.data() + c * f.m;
        T* const right = f.right.data() + c * f.n;
        const T pivot = *std::max_element(left, left + f.m, [](T a, T b) { return std::abs(a) < std::abs(b); });
        if (pivot < T(0)) {
            std::transform(left, left + f.m, left, [](T x) { return -x; });
            std::transform(right, right + f.n, right, [](T x) { return -x; });
        }
    }
}

/// to = rows^T with column c times factor(c); columns of `to` behind the last row are 0. `to` may be absent.
template <class T, class F>
void write_columns(const std::vector<T>& rows, index k, const view<T, 2>& to, F&& factor) {
    const index l = to.extent(0);
    for (index i = 0; i < l; ++i)
        for (index c = 0; c < to.extent(1); ++c)
            to(i, c) = c < k ? T(double(rows[std::size_t(c * l + i)]) * factor(c)) : T(0);
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

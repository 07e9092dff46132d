/// \file
/// Naive reference of low_rank_approximation: a full decomposition, cut off (arXiv:2311.17493); with a random matrix,
/// the decomposition of W projected on the span of W omega (arXiv:0909.4061), by Gram and Schmidt.
#ifndef DEFT_REFERENCE_PRUNING_LOW_RANK_APPROXIMATION_HPP
#define DEFT_REFERENCE_PRUNING_LOW_RANK_APPROXIMATION_HPP

#include <deft/reference/pruning/singular_values.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// An orthonormal basis of the span of `columns`; dependent ones are left out.
inline void orthonormalise(std::vector<std::vector<double>>& columns) {
    std::vector<std::vector<double>> basis;
    for (std::vector<double>& x : columns) {
        const double before = std::sqrt(dot(x, x));
        for (int pass = 0; pass < 2; ++pass)
            for (const std::vector<double>& b : basis) {
                const double along = dot(b, x);
                for (std::size_t i = 0; i < x.size(); ++i)
                    x[i] -= along * b[i];
            }
        const double length = std::sqrt(dot(x, x));
        if (length <= 1e-14 * before || length == 0)
            continue;
        for (double& value : x)
            value /= length;
        basis.push_back(x);
    }
    columns = basis;
}

/// The decomposition of Q Q^T W, Q from W omega and power iterations; W [m, n], omega [n, samples].
template <class T>
decomposition random_decomposition(in<T, 2> w, in<T, 2> omega, index power_iterations) {
    const index m = w.extent(0), n = w.extent(1);
    const auto multiply = [&](const std::vector<std::vector<double>>& columns, bool transposed) {
        std::vector<std::vector<double>> result;
        for (const std::vector<double>& x : columns) {
            result.emplace_back(std::size_t(transposed ? n : m), 0.0);
            for (index i = 0; i < m; ++i)
                for (index j = 0; j < n; ++j)
                    result.back()[std::size_t(transposed ? j : i)] +=
                        double(w(i, j)) * x[std::size_t(transposed ? i : j)];
        }
        return result;
    };
    std::vector<std::vector<double>> q;
    for (index c = 0; c < omega.extent(1); ++c) {
        q.emplace_back();
        for (index j = 0; j < n; ++j)
            q.back().push_back(double(omega(j, c)));
    }
    q = multiply(q, false);
    orthonormalise(q);
    for (index i = 0; i < power_iterations; ++i) {
        q = multiply(q, true);
        orthonormalise(q);
        q = multiply(q, false);
        orthonormalise(q);
    }
    std::vector<double> projected(q.size() * std::size_t(n), 0.0); // Q^T W
    const std::vector<std::vector<double>> rows = multiply(q, true);
    for (std::size_t c = 0; c < rows.size(); ++c)
        std::copy(rows[c].begin(), rows[c].end(), projected.begin() + index(c) * n);
    decomposition d = singular_values<double>(view<const double, 2>(projected.data(), {index(q.size()), n}));
    for (std::size_t i = 0; i < d.u.size(); ++i) {
        std::vector<double> wide(std::size_t(m), 0.0);
        for (std::size_t c = 0; c < q.size(); ++c)
            for (std::size_t row = 0; row < wide.size(); ++row)
                wide[row] += d.u[i][c] * q[c][row];
        std::size_t pivot = 0;
        for (std::size_t row = 1; row < wide.size(); ++row)
            pivot = std::abs(wide[row]) > std::abs(wide[pivot]) ? row : pivot;
        const double sign = wide[pivot] < 0 ? -1 : 1;
        for (double& x : wide)
            x *= sign;
        for (double& x : d.v[i])
            x *= sign;
        d.u[i] = wide;
    }
    return d;
}

/// ||W - W_k||^2.
template <class T>
double truncation_error(in<T, 2> w, const decomposition& d, index k) {
    double sum = 0;
    for (index i = 0; i < w.extent(0); ++i)
        for (index j = 0; j < w.extent(1); ++j) {
            const double difference = double(w(i, j)) - truncated(d, k, i, j);
            sum += difference * difference;
        }
    return sum;
}

/// The formula term by term, for s_k > s_{k+1}.
template <class T>
void low_rank_approximation_backward(in<T, 2> w, in<T, 2> g, view<T, 2> grad, index k) {
    const decomposition d = singular_values<T>(w);
    const index m = w.extent(0), n = w.extent(1), r = index(d.s.size());
    const auto at = [](const std::vector<double>& x, index i) { return x[std::size_t(i)]; };
    std::vector<std::vector<double>> product(static_cast<std::size_t>(r), std::vector<double>(std::size_t(r), 0.0));
    std::vector<std::vector<double>> left(product.size(), std::vector<double>(std::size_t(n), 0.0));  // u_i^T G
    std::vector<std::vector<double>> right(product.size(), std::vector<double>(std::size_t(m), 0.0)); // G v_i
    for (std::size_t c = 0; c < product.size(); ++c)
        for (index i = 0; i < m; ++i)
            for (index j = 0; j < n; ++j) {
                left[c][std::size_t(j)] += at(d.u[c], i) * double(g(i, j));
                right[c][std::size_t(i)] += double(g(i, j)) * at(d.v[c], j);
            }
    for (std::size_t a = 0; a < product.size(); ++a)
        for (std::size_t b = 0; b < product.size(); ++b)
            product[a][b] = dot(left[a], d.v[b]);
    for (index i = 0; i < m; ++i)
        for (index j = 0; j < n; ++j) {
            double sum = 0;
            for (std::size_t a = 0; a < std::size_t(k); ++a) {
                sum += at(d.u[a], i) * at(left[a], j) + at(right[a], i) * at(d.v[a], j);
                for (std::size_t b = 0; b < std::size_t(k); ++b)
                    sum -= at(d.u[a], i) * product[a][b] * at(d.v[b], j);
                for (std::size_t b = std::size_t(k); b < std::size_t(r); ++b) {
                    const double gap = (d.s[a] - d.s[b]) * (d.s[a] + d.s[b]);
                    const double x = d.s[b] / gap * d.s[b], y = d.s[a] / gap * d.s[b];
                    sum += (x * product[a][b] + y * product[b][a]) * at(d.u[a], i) * at(d.v[b], j);
                    sum += (x * product[b][a] + y * product[a][b]) * at(d.u[b], i) * at(d.v[a], j);
                }
            }
            grad(i, j) = T(k >= r ? double(g(i, j)) : sum);
        }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

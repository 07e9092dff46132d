/// \file
/// Naive singular value decomposition, in double, by one-sided Jacobi rotations (Hestenes), and the ways to choose a
/// rank from it (arXiv:2311.17493, rank_kit.py).
#ifndef DEFT_REFERENCE_PRUNING_SINGULAR_VALUES_HPP
#define DEFT_REFERENCE_PRUNING_SINGULAR_VALUES_HPP

#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// W = sum of s[i] u[i] v[i]^T, s descending; u[i] has m entries, v[i] n. Vectors of s[i] = 0 may be 0.
struct decomposition {
    std::vector<std::vector<double>> u, v;
    std::vector<double> s;
};

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
        sum += a[i] * b[i];
    return sum;
}

template <class T>
decomposition singular_values(in<T, 2> w) {
    const index m = w.extent(0), n = w.extent(1), r = std::min(m, n), l = std::max(m, n);
    double largest = 0; // squares must neither overflow nor vanish
    for (index i = 0; i < m; ++i)
        for (index j = 0; j < n; ++j)
            largest = std::max(largest, std::abs(double(w(i, j))));
    const double scale = largest == 0 ? 1 : largest;
    // Rows of the wide matrix become orthogonal; `turns` collects the rotations.
    std::vector<std::vector<double>> rows(static_cast<std::size_t>(r), std::vector<double>(std::size_t(l)));
    std::vector<std::vector<double>> turns(rows.size(), std::vector<double>(rows.size(), 0.0));
    for (index i = 0; i < r; ++i) {
        turns[std::size_t(i)][std::size_t(i)] = 1;
        for (index j = 0; j < l; ++j)
            rows[std::size_t(i)][std::size_t(j)] = double(m <= n ? w(i, j) : w(j, i)) / scale;
    }
    bool rotated = true;
    for (int sweep = 0; rotated && sweep < 60; ++sweep) {
        rotated = false;
        for (std::size_t p = 0; p < rows.size(); ++p)
            for (std::size_t q = p + 1; q < rows.size(); ++q) {
                const double pp = dot(rows[p], rows[p]), qq = dot(rows[q], rows[q]), pq = dot(rows[p], rows[q]);
                if (!(std::abs(pq) > 1e-15 * std::sqrt(pp * qq)))
                    continue;
                rotated = true;
                const double zeta = (qq - pp) / (2 * pq);
                const double t = (zeta >= 0 ? 1 : -1) / (std::abs(zeta) + std::sqrt(1 + zeta * zeta));
                const double c = 1 / std::sqrt(1 + t * t), s = c * t;
                for (auto* const vectors : {&rows, &turns})
                    for (std::size_t i = 0; i < (*vectors)[p].size(); ++i) {
                        const double x = (*vectors)[p][i], y = (*vectors)[q][i];
                        (*vectors)[p][i] = c * x - s * y;
                        (*vectors)[q][i] = s * x + c * y;
                    }
            }
    }
    std::vector<double> lengths;
    for (const std::vector<double>& row : rows)
        lengths.push_back(std::sqrt(dot(row, row)));
    std::vector<std::size_t> order(rows.size());
    std::iota(order.begin(), order.end(), std::size_t(0));
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return lengths[a] > lengths[b]; });
    decomposition result;
    for (const std::size_t i : order) {
        std::vector<double> unit = rows[i];
        for (double& x : unit)
            x = lengths[i] > 0 ? x / lengths[i] : 0;
        std::vector<double>& left = m <= n ? turns[i] : unit;
        std::vector<double>& right = m <= n ? unit : turns[i];
        std::size_t pivot = 0;
        for (std::size_t k = 1; k < left.size(); ++k)
            pivot = std::abs(left[k]) > std::abs(left[pivot]) ? k : pivot;
        if (left[pivot] < 0)
            for (auto* const side : {&left, &right})
                for (double& x : *side)
                    x = -x;
        result.s.push_back(lengths[i] * scale);
        result.u.push_back(left);
        result.v.push_back(right);
    }
    return result;
}

/// Entry (i, j) of the truncation to rank k.
inline double truncated(const decomposition& d, index k, index i, index j) {
    double sum = 0;
    for (std::size_t c = 0; c < std::size_t(k); ++c)
        sum += d.s[c] * d.u[c][std::size_t(i)] * d.v[c][std::size_t(j)];
    return sum;
}

inline double total_energy(const std::vector<double>& s) {
    double total = 0;
    for (const double v : s)
        total += (v / s[0]) * (v / s[0]);
    return s.empty() || s[0] == 0 ? 0 : total;
}

/// The smallest k whose head has the given share of the energy.
inline index energy_rank(const std::vector<double>& s, double energy) {
    const double total = total_energy(s);
    double head = 0;
    index k = 0;
    while (total != 0 && k < index(s.size()) && head < energy * total) {
        head += (s[std::size_t(k)] / s[0]) * (s[std::size_t(k)] / s[0]);
        ++k;
    }
    return k;
}

/// The tail, of at least one value, whose share is closest to the given one. eps: of the type of the weight.
inline index tail_rank(const std::vector<double>& s, double tail_energy, double eps) {
    const index r = index(s.size());
    const auto square = [&](index i) {
        const double v = s[std::size_t(i)];
        return v > double(r) * eps * s[0] ? (v / s[0]) * (v / s[0]) : 0.0;
    };
    double total = 0, tail = 0, best = std::numeric_limits<double>::infinity();
    for (index i = 0; i < r; ++i)
        total += square(i);
    index rank = 0;
    for (index k = r - 1; total != 0 && k >= 0; --k) {
        tail += square(k) / total;
        if (std::abs(tail - tail_energy) < best) {
            best = std::abs(tail - tail_energy);
            rank = k;
        }
    }
    return rank;
}

/// mode: "k", "energy" or "tail", with its value.
inline index choose_rank(const std::vector<double>& s, const std::string& mode, double value, double eps) {
    if (mode == "k")
        return std::min(index(value), index(s.size()));
    return mode == "energy" ? energy_rank(s, value) : tail_rank(s, value, eps);
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

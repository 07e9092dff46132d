/// \file
/// Naive reference of effective_dimension: singular values of the centred rows by one-sided Jacobi rotations.
///
/// share_k = sum_{i <= k} s_i^2 / sum_i s_i^2; the smallest k with share_k >= epsilon (arXiv:2312.17276, section 5.2)
#ifndef DEFT_REFERENCE_SHORTCUT_EFFECTIVE_DIMENSION_HPP
#define DEFT_REFERENCE_SHORTCUT_EFFECTIVE_DIMENSION_HPP

#include <deft/reference/shortcut/feature_diversity.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// h is [1, N, d], share [min(N, d)].
template <class T>
index effective_dimension(in<T, 3> h, view<T, 1> share, double epsilon) {
    // The centred matrix, or its transpose: as few vectors as possible, which rotations make orthogonal.
    const index rows = h.extent(1), columns = h.extent(2);
    const bool by_row = rows <= columns;
    std::vector<std::vector<double>> vectors(std::size_t(std::min(rows, columns)),
                                             std::vector<double>(std::size_t(std::max(rows, columns))));
    for (index c = 0; c < columns; ++c) {
        const double mean = column_mean<T>(h, 0, c);
        for (index r = 0; r < rows; ++r)
            (by_row ? vectors[std::size_t(r)][std::size_t(c)] : vectors[std::size_t(c)][std::size_t(r)]) =
                double(h(0, r, c)) - mean;
    }
    const auto dot = [](const std::vector<double>& a, const std::vector<double>& b) {
        double sum = 0;
        for (std::size_t i = 0; i < a.size(); ++i)
            sum += a[i] * b[i];
        return sum;
    };
    bool rotated = true;
    for (int sweep = 0; rotated && sweep < 60; ++sweep) {
        rotated = false;
        for (std::size_t p = 0; p < vectors.size(); ++p)
            for (std::size_t q = p + 1; q < vectors.size(); ++q) {
                const double pp = dot(vectors[p], vectors[p]), qq = dot(vectors[q], vectors[q]);
                const double pq = dot(vectors[p], vectors[q]);
                if (!(std::abs(pq) > 1e-15 * std::sqrt(pp * qq)))
                    continue;
                rotated = true;
                const double zeta = (qq - pp) / (2 * pq);
                const double t = (zeta >= 0 ? 1 : -1) / (std::abs(zeta) + std::sqrt(1 + zeta * zeta));
                const double cosine = 1 / std::sqrt(1 + t * t), sine = cosine * t;
                for (std::size_t i = 0; i < vectors[p].size(); ++i) {
                    const double x = vectors[p][i], y = vectors[q][i];
                    vectors[p][i] = cosine * x - sine * y;
                    vectors[q][i] = sine * x + cosine * y;
                }
            }
    }
    std::vector<double> squares;
    double total = 0, sum = 0;
    for (const std::vector<double>& v : vectors) {
        squares.push_back(dot(v, v));
        total += squares.back();
    }
    std::sort(squares.begin(), squares.end(), std::greater<>());
    index dimension = total == 0 ? 0 : index(squares.size());
    for (std::size_t k = squares.size(); k-- > 0;) {
        sum = 0;
        for (std::size_t i = 0; i <= k; ++i)
            sum += squares[i];
        const double part = total == 0 ? 0.0 : sum / total;
        share(index(k)) = T(part);
        if (part >= epsilon)
            dimension = index(k) + 1;
    }
    return dimension;
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

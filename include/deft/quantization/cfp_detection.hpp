/// \file
/// The detection that the operators of cfp_outliers.hpp share; formulas there.
#ifndef DEFT_QUANTIZATION_CFP_DETECTION_HPP
#define DEFT_QUANTIZATION_CFP_DETECTION_HPP

#include <deft/kernels/magnitudes.hpp>
#include <deft/simd/batch.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

namespace deft {

/// Q1 and Q3: the elements n / 4 and 3 n / 4, or interpolated between those around (n - 1) / 4 and 3 (n - 1) / 4.
enum class cfp_quartile : unsigned char { by_index, linear };

struct cfp_options {
    double lambda1 = 1.5;
    double lambda2 = 1.0;
    cfp_quartile quartile = cfp_quartile::by_index;
};

struct cfp_result {
    double threshold;   ///< T
    double boundary;    ///< the greatest magnitude that is no outlier
    double outlier_min; ///< the least that is one
    index candidates;   ///< magnitudes above T
    index split;        ///< of these, how many are kept
    index outliers;
};

inline namespace DEFT_ISA {
namespace detail {

template <class T>
kernels::magnitude_rows<T> magnitudes(const view<const T, 2>& x) noexcept {
    return {x.data(), x.stride(0), x.extent(0), x.extent(1)};
}

inline void check_cfp(const char* op, const cfp_options& o) {
    check(o.lambda1 >= 0 && std::isfinite(o.lambda1), op, "lambda1", "must be finite and not negative", o.lambda1);
    check(o.lambda2 >= 0 && std::isfinite(o.lambda2), op, "lambda2", "must be finite and not negative", o.lambda2);
}

template <class T>
void check_finite(const char* op, const char* name, const view<const T, 2>& x) {
    static_assert(std::is_floating_point_v<T>, "deft looks for outliers of float and double");
    check(x.size() > 0, op, name, "its number of elements: there must be some", double(x.size()));
    if (kernels::all_finite<simd::default_arch>(magnitudes(x)))
        return;
    for (index r = 0; r < x.extent(0); ++r)
        for (index c = 0; c < x.extent(1); ++c)
            check(std::isfinite(x(r, c)), op, name, "all its elements must be finite", double(x(r, c)));
}

/// Q1 and Q3 by interpolation or not.
template <class T>
void find_quartiles(kernels::magnitude_rows<T> x, cfp_quartile method, double& q1, double& q3) {
    const index n = x.rows * x.columns;
    if (method == cfp_quartile::by_index) {
        const index ranks[2] = {n / 4, 3 * n / 4};
        T values[2];
        kernels::select_magnitudes(x, ranks, 2, values);
        q1 = double(values[0]);
        q3 = double(values[1]);
        return;
    }
    const double positions[2] = {double(n - 1) * 0.25, double(n - 1) * 0.75};
    index ranks[4];
    for (int i = 0; i < 2; ++i) {
        ranks[2 * i] = static_cast<index>(std::floor(positions[i]));
        ranks[2 * i + 1] = std::min(ranks[2 * i] + 1, n - 1);
    }
    T values[4], sorted[4];
    index order[4] = {ranks[0], ranks[1], ranks[2], ranks[3]};
    std::sort(order, order + 4); // those of Q1 and Q3 may cross where there are few elements
    kernels::select_magnitudes(x, order, 4, sorted);
    for (int i = 0; i < 4; ++i)
        values[i] = sorted[std::find(order, order + 4, ranks[i]) - order];
    const auto between = [&](int i) {
        return double(values[2 * i]) +
               (double(values[2 * i + 1]) - double(values[2 * i])) * (positions[i] - double(ranks[2 * i]));
    };
    q1 = between(0);
    q3 = between(1);
}

/// The detection over finite elements, at least one of them.
template <class T>
cfp_result detect_outliers(kernels::magnitude_rows<T> x, const cfp_options& o) {
    double q1 = 0, q3 = 0;
    find_quartiles(x, o.quartile, q1, q3);
    cfp_result found{q3 + o.lambda1 * (q3 - q1), 0, 0, 0, 0, 0};
    std::vector<T> candidates;
    const T rest = kernels::for_each_above(x, found.threshold, [&](T size) { candidates.push_back(size); });
    found.candidates = static_cast<index>(candidates.size());
    found.boundary = found.outlier_min = double(rest);
    if (candidates.empty())
        return found;
    std::sort(candidates.begin(), candidates.end());
    double best = 0, mean = 0, squares = 0, last = found.threshold; // Welford's sums of what is kept
    for (index i = 0; i < found.candidates; ++i) {
        const double value = double(candidates[std::size_t(i)]), gap = value - last;
        const double score = gap * gap - o.lambda2 * (i > 1 ? squares / double(i) : 0.0);
        if (i == 0 || score > best) {
            best = score;
            found.split = i;
        }
        const double from_mean = value - mean;
        mean += from_mean / double(i + 1);
        squares += from_mean * (value - mean);
        last = value;
    }
    found.outliers = found.candidates - found.split;
    found.outlier_min = double(candidates[std::size_t(found.split)]);
    index below = found.split;
    while (below > 0 && !(double(candidates[std::size_t(below - 1)]) < found.outlier_min))
        --below;
    found.boundary = below > 0 ? double(candidates[std::size_t(below - 1)]) : double(rest);
    return found;
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

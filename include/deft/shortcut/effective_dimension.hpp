/// \file
/// Effective dimension: how many principal components explain a given share of the variance of token features.
///
/// The measure by which PanGu-pi (arXiv:2312.17276, section 5.2) reports feature collapse per layer, at epsilon = 0.8.
/// H is N tokens x d features, s_1 >= s_2 >= ... the singular values of H less its mean row:
///
///     share_k = sum_{i <= k} s_i^2 / sum_i s_i^2          dimension = smallest k with share_k >= epsilon
///
/// h: `[N, d]`, N >= 1; share: `[min(N, d)]`. Elements are float or double. Forward only.
#ifndef DEFT_SHORTCUT_EFFECTIVE_DIMENSION_HPP
#define DEFT_SHORTCUT_EFFECTIVE_DIMENSION_HPP

#include <deft/kernels/row_spread.hpp>
#include <deft/linalg_symmetric.hpp>
#include <deft/shortcut/feature_diversity.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace deft {

struct effective_dimension_options {
    double epsilon = 0.8; ///< in (0, 1]
};

inline namespace DEFT_ISA {
namespace detail {

/// h less its mean row, times a power of two, in double; equal rows give exactly 0.
template <class T>
std::vector<double> centred_rows(const view<const T, 2>& h) {
    const index rows = h.extent(0), columns = h.extent(1);
    const double scale = normalising_scale<T>(h);
    std::vector<double> offset(static_cast<std::size_t>(columns)), centred(static_cast<std::size_t>(rows * columns));
    kernels::column_offsets(h.data(), h.stride(0), rows, columns, h.data(), scale, offset.data());
    for (index r = 0; r < rows; ++r)
        for (index c = 0; c < columns; ++c)
            centred[std::size_t(r * columns + c)] =
                (double(h(r, c)) * scale - double(h(0, c)) * scale) - offset[std::size_t(c)];
    return centred;
}

} // namespace detail

/// Writes the shares and returns the dimension: min(N, d) if rounding keeps every share below epsilon, 0 and shares of
/// 0 if all rows are equal. Entries that are not finite make every share NaN, and the dimension min(N, d).
///
/// Uses the eigenvalues of the smaller Gram matrix, in double: shares err by 1e-14 and their rounding to T. Allocates
/// N d + min(N, d)^2 doubles. Throws std::invalid_argument before anything is written if N = 0, share does not have
/// min(N, d) elements, or epsilon lies outside (0, 1].
template <class T = void, class S = view<T, 1>>
index effective_dimension(in<element_t<T, S>, 2> h, S&& share_out, const effective_dimension_options& options = {}) {
    using E = element_t<T, S>;
    const view<E, 1> share(share_out);
    const char* const op = "effective_dimension";
    const index rows = h.extent(0), columns = h.extent(1), least = std::min(rows, columns);
    detail::check_diversity_rows<E>(op, "h", rows);
    detail::check_extent(op, "share", share, 0, least, "the smaller extent of h");
    detail::check(options.epsilon > 0 && options.epsilon <= 1, op, "epsilon", "must lie in (0, 1]", options.epsilon);

    const std::vector<double> centred = detail::centred_rows<E>(h);
    const linalg::matrix<const double> c(centred.data(), rows, columns, columns, 1);
    const linalg::matrix<const double> wide = rows <= columns ? c : c.transposed();
    std::vector<double> gram(static_cast<std::size_t>(least * least)), values(static_cast<std::size_t>(least));
    linalg::gemm<double>(1, wide, wide.transposed(), 0, {gram.data(), least, least, least, 1});
    if (std::all_of(gram.begin(), gram.end(), [](double g) { return std::isfinite(g); }))
        linalg::symmetric_eigenvalues<double>({gram.data(), least, least, least, 1}, values.data());
    else
        std::fill(values.begin(), values.end(), std::numeric_limits<double>::quiet_NaN());

    double total = 0, sum = 0;
    for (double& v : values)
        total += v = std::max(v, 0.0 * v); // rounding may leave a small eigenvalue negative; NaN stays
    index dimension = total == 0 ? 0 : least;
    for (index k = 0; k < least; ++k) {
        sum += values[std::size_t(least - 1 - k)];
        const double part = total == 0 ? 0.0 : sum / total;
        share(k) = E(part);
        if (part >= options.epsilon && k + 1 < dimension)
            dimension = k + 1;
    }
    return dimension;
}

} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// What rank the bias of a task needs: the rank analysis of Instruct-IPT (arXiv:2407.00676), on delta = W_task - W, and
/// the factors with which low_rank_modulated_linear starts from a weight that was tuned as a whole.
///
///     cumulative_energy[i] = sum_{j <= i} s_j^2 / sum s^2            1 for a zero delta
///     ranks[e] = the smallest k >= 0 with that share >= energies[e]
///     relative_error[k] = sqrt(sum_{i > k} s_i^2 / sum s^2)          k = 0 .. r; 0 for a zero delta
///     up = U_k sqrt(S_k) [m, k], down = sqrt(S_k) V_k^T [k, n]: up down is the best approximation of rank k
///
/// delta: [m, n], r = min(m, n). In each column of up the entry of largest magnitude is positive. Elements are float or
/// double.
#ifndef DEFT_PRUNING_RANK_ANALYSIS_HPP
#define DEFT_PRUNING_RANK_ANALYSIS_HPP

#include <deft/pruning/low_rank_approximation.hpp>

#include <span>

namespace deft {
inline namespace DEFT_ISA {

/// singular_values [r], cumulative_energy [r], relative_error [r + 1], up and down may be absent, the last two
/// together; k, the extent they share, is at most r. An energy that equals a share to rounding may give either rank.
/// Throws std::invalid_argument before anything is written if an extent of delta is 0, an entry is not finite, an
/// energy lies outside of [0, 1], or shapes do not fit. Allocates a few matrices of the size of delta. Errors: 1e-14
/// (double), 1e-7 (float).
template <class T>
void rank_analysis(in<T, 2> delta, std::span<const double> energies, out<T, 1> singular_values,
                   out<T, 1> cumulative_energy, out<T, 1> relative_error, std::span<index> ranks, out<T, 2> up,
                   out<T, 2> down) {
    const char* const op = "rank_analysis";
    const index m = delta.extent(0), n = delta.extent(1), r = std::min(m, n), k = up.is_given() ? up.extent(1) : 0;
    detail::check_weight<T>(op, "delta", delta);
    for (const double energy : energies)
        detail::check(energy >= 0 && energy <= 1, op, "energies", "must lie in [0, 1]", energy);
    detail::check(ranks.size() == energies.size(), op, "ranks", "elements, must be one per energy",
                  double(ranks.size()));
    const char* const least = "the smaller extent of delta";
    if (singular_values.is_given())
        detail::check_extent(op, "singular_values", singular_values, 0, r, least);
    if (cumulative_energy.is_given())
        detail::check_extent(op, "cumulative_energy", cumulative_energy, 0, r, least);
    if (relative_error.is_given())
        detail::check_extent(op, "relative_error", relative_error, 0, r + 1, "1 more than the smaller extent of delta");
    detail::check(up.is_given() == down.is_given(), op, "down", "must be given (1) exactly where up is",
                  down.is_given() ? 1 : 0);
    if (up.is_given()) {
        detail::check_extent(op, "up", up, 0, m, "extent 0 of delta");
        detail::check(k <= r, op, "up", "columns, must not exceed the smaller extent of delta", double(k));
        detail::check_extent(op, "down", down, 0, k, "extent 1 of up");
        detail::check_extent(op, "down", down, 1, n, "extent 1 of delta");
    }
    auto spectrum = detail::checked_spectrum<T>(op, "delta", delta);
    spectrum.decompose(true);
    const std::vector<double>& s = spectrum.s;
    const double scale = double(spectrum.scale);
    std::vector<double> tails(std::size_t(r + 1), 0.0); // from the smallest on: sums of small numbers keep their digits
    for (index i = r; i-- > 0;)
        tails[std::size_t(i)] = tails[std::size_t(i + 1)] + s[std::size_t(i)] * s[std::size_t(i)];
    const double total = tails[0];
    double head = 0;
    for (index i = 0; i <= r; ++i) {
        if (relative_error.is_given())
            relative_error(i) = T(total > 0 ? std::sqrt(tails[std::size_t(i)] / total) : 0.0);
        if (i == r)
            break;
        head += s[std::size_t(i)] * s[std::size_t(i)];
        if (singular_values.is_given())
            singular_values(i) = T(s[std::size_t(i)] / scale);
        if (cumulative_energy.is_given())
            cumulative_energy(i) = T(total > 0 ? std::min(head / total, 1.0) : 1.0);
    }
    for (std::size_t e = 0; e < energies.size(); ++e)
        ranks[e] = detail::rank_of_energy(s, energies[e]);
    if (k == 0)
        return;
    detail::low_rank_factors<T> factors = detail::spectrum_factors(spectrum, 0, k);
    detail::normalise(factors);
    const auto root = [&](index c) { return std::sqrt(s[std::size_t(c)] / scale); };
    detail::write_columns(factors.left, k, up, root);
    for (index c = 0; c < k; ++c)
        for (index j = 0; j < n; ++j)
            down(c, j) = T(double(factors.right[std::size_t(c * n + j)]) * root(c));
}

} // namespace DEFT_ISA
} // namespace deft

#endif

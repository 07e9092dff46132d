/// \file
/// Naive reference of rank_analysis (arXiv:2407.00676): direct sums over singular values.
#ifndef DEFT_REFERENCE_PRUNING_RANK_ANALYSIS_HPP
#define DEFT_REFERENCE_PRUNING_RANK_ANALYSIS_HPP

#include <deft/reference/pruning/singular_values.hpp>

#include <cstdint>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

template <class T>
void rank_analysis(in<T, 2> delta, const std::vector<double>& energies, view<T, 1> values, view<T, 1> cumulative,
                   view<T, 1> relative, std::vector<index>& ranks, view<T, 2> up, view<T, 2> down) {
    const decomposition d = singular_values<T>(delta);
    const index r = index(d.s.size());
    const double total = total_energy(d.s);
    const auto share = [&](index from, index to) {
        double sum = 0;
        for (index i = to; i-- > from;)
            sum += (d.s[std::size_t(i)] / d.s[0]) * (d.s[std::size_t(i)] / d.s[0]);
        return sum / total;
    };
    for (index i = 0; i <= r; ++i) {
        relative(i) = T(total == 0 ? 0 : std::sqrt(share(i, r)));
        if (i == r)
            break;
        values(i) = T(d.s[std::size_t(i)]);
        cumulative(i) = T(total == 0 ? 1 : share(0, i + 1));
    }
    ranks.clear();
    for (const double energy : energies)
        ranks.push_back(energy_rank(d.s, energy));
    for (index c = 0; c < up.extent(1); ++c) {
        const double root = std::sqrt(d.s[std::size_t(c)]);
        for (index i = 0; i < up.extent(0); ++i)
            up(i, c) = T(d.u[std::size_t(c)][std::size_t(i)] * root);
        for (index j = 0; j < down.extent(1); ++j)
            down(c, j) = T(d.v[std::size_t(c)][std::size_t(j)] * root);
    }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

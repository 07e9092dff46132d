/// \file
/// Naive reference of rank_metrics: direct sums over singular values (arXiv:2311.17493; Roy and Vetterli 2007).
#ifndef DEFT_REFERENCE_PRUNING_RANK_METRICS_HPP
#define DEFT_REFERENCE_PRUNING_RANK_METRICS_HPP

#include <deft/reference/pruning/singular_values.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

struct rank_metrics_values {
    std::vector<double> s;
    double frobenius = 0, spectral = 0, nuclear = 0, stable_rank = 0, effective_rank = 0;
    index numerical_rank = 0, delta_rank = 0, tail_rank = 0;
};

template <class T>
rank_metrics_values rank_metrics(in<T, 2> w, double delta, double rtol) {
    rank_metrics_values result;
    result.s = singular_values<T>(w).s;
    const std::vector<double>& s = result.s;
    result.spectral = s[0];
    if (s[0] == 0)
        return result;
    const double energy = total_energy(s);
    result.frobenius = s[0] * std::sqrt(energy);
    result.stable_rank = energy;
    double entropy = 0;
    for (const double v : s)
        result.nuclear += v;
    for (const double v : s) {
        const double p = v / result.nuclear;
        entropy -= p > 0 ? p * std::log(p) : 0;
        result.numerical_rank += v > rtol * s[0];
    }
    result.effective_rank = std::exp(entropy);
    for (index k = index(s.size()); k >= 0; --k) {
        double tail = 0;
        for (std::size_t i = s.size(); i-- > std::size_t(k);)
            tail += (s[i] / s[0]) * (s[i] / s[0]);
        if (tail <= delta * energy)
            result.delta_rank = k;
    }
    result.tail_rank = tail_rank(s, delta, double(std::numeric_limits<T>::epsilon()));
    return result;
}

/// For a weight of full rank.
template <class T>
void rank_metrics_backward(in<T, 2> w, double g_nuclear, double g_stable, double g_effective, view<T, 2> grad) {
    const decomposition d = singular_values<T>(w);
    const rank_metrics_values values = rank_metrics<T>(w, 0, 0);
    const double squares = values.frobenius * values.frobenius, entropy = std::log(values.effective_rank);
    for (index i = 0; i < w.extent(0); ++i)
        for (index j = 0; j < w.extent(1); ++j) {
            double sum = 0;
            for (std::size_t c = 0; c < d.s.size(); ++c) {
                double factor = g_nuclear + g_stable * 2 * d.s[c] / (d.s[0] * d.s[0]);
                if (c == 0)
                    factor -= g_stable * 2 * squares / (d.s[0] * d.s[0] * d.s[0]);
                factor -= g_effective * values.effective_rank * (std::log(d.s[c] / values.nuclear) + entropy) /
                          values.nuclear;
                sum += factor * d.u[c][std::size_t(i)] * d.v[c][std::size_t(j)];
            }
            grad(i, j) = T(sum);
        }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Naive reference of sparsity_schedule and layer_densities: the formulas, one function each (arXiv:2311.17493,
/// arXiv:1710.01878, arXiv:1911.11134).
#ifndef DEFT_REFERENCE_PRUNING_SPARSITY_SCHEDULE_HPP
#define DEFT_REFERENCE_PRUNING_SPARSITY_SCHEDULE_HPP

#include <deft/view.hpp>

#include <cmath>
#include <set>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

inline constexpr double schedule_pi = 3.14159265358979323846;

inline double exponential_density(double t, double density, double updates) {
    return t >= updates ? density : std::exp(std::log(density) * t / updates);
}

inline double warm_exponential_density(double t, double density, double updates, double warmup) {
    const double product = updates * warmup;
    double warm = std::floor(product + 0.5); // half integers go to even
    if (product - std::floor(product) == 0.5 && std::fmod(warm, 2) != 0)
        warm -= 1;
    return t < warm ? 1.0 : exponential_density(t - warm, density, updates - warm);
}

inline double cosine_density(double t, double density, double end) {
    return t >= end ? density : density + (1 - density) * (1 + std::cos(schedule_pi * t / end)) / 2;
}

inline double cubic_density(double t, double initial, double final, double begin, double end) {
    if (t <= begin)
        return 1 - initial;
    if (t >= end)
        return 1 - final;
    return 1 - (final + (initial - final) * std::pow(1 - (t - begin) / (end - begin), 3));
}

inline double drop_fraction(double t, double alpha, double end) {
    return alpha * (1 + std::cos(schedule_pi * t / end)) / 2;
}

/// Densities raw[l] epsilon, where epsilon makes the layers that are not dense hold what is left of the budget.
inline std::vector<double> proportional_densities(const std::vector<double>& sizes, const std::vector<double>& raw,
                                                  double density, std::set<std::size_t> dense) {
    for (;;) {
        double budget = 0, divisor = 0, top = 0;
        for (std::size_t i = 0; i < sizes.size(); ++i) {
            const bool is_dense = dense.count(i) != 0;
            budget += is_dense ? -double(index(sizes[i] * (1 - density))) : double(index(sizes[i] * density));
            divisor += is_dense ? 0 : raw[i] * sizes[i];
            top = is_dense || raw[i] < top ? top : raw[i];
        }
        if (dense.size() == sizes.size())
            return std::vector<double>(sizes.size(), 1.0);
        const double epsilon = budget / divisor;
        if (top * epsilon <= 1) {
            std::vector<double> result;
            for (std::size_t i = 0; i < sizes.size(); ++i)
                result.push_back(dense.count(i) != 0 ? 1.0 : epsilon * raw[i]);
            return result;
        }
        for (std::size_t i = 0; i < sizes.size(); ++i)
            if (raw[i] == top)
                dense.insert(i);
    }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

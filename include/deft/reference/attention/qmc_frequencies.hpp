/// \file
/// Naive reference of qmc_frequencies: the inverse of a distribution function by halving an interval.
#ifndef DEFT_REFERENCE_ATTENTION_QMC_FREQUENCIES_HPP
#define DEFT_REFERENCE_ATTENTION_QMC_FREQUENCIES_HPP

#include <deft/view.hpp>

#include <cmath>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// P(a, x), Q(a, x), the regularised incomplete gamma functions, the smaller of them directly.
inline void gamma_tails(double a, double x, double& p, double& q) {
    p = 0;
    q = 1;
    if (x <= 0)
        return;
    const double front = std::exp(a * std::log(x) - x - std::lgamma(a));
    if (x < a + 1) {
        double term = 1 / a, total = term;
        for (double denominator = a + 1; term > total * 1e-18; ++denominator) {
            term *= x / denominator;
            total += term;
        }
        p = front * total;
        q = 1 - p;
        return;
    }
    double b = x + 1 - a, c = 1e300, d = 1 / b, h = d, delta = 0;
    for (int i = 1; i < 100000 && std::abs(delta - 1) >= 1e-16; ++i) {
        const double numerator = -i * (i - a);
        b += 2;
        d = 1 / (numerator * d + b);
        c = b + numerator / c;
        delta = d * c;
        h *= delta;
    }
    q = front * h;
    p = 1 - q;
}

/// F^-1(u), 0 < u < 1, of the standard normal distribution.
inline double normal_quantile(double u) {
    if (u > 0.5)
        return -normal_quantile(1 - u);
    double low = -40, high = 0;
    for (int step = 0; step < 200; ++step) {
        const double middle = 0.5 * (low + high);
        (0.5 * std::erfc(-middle / std::sqrt(2.0)) < u ? low : high) = middle;
    }
    return u == 0.5 ? 0 : 0.5 * (low + high);
}

/// F^-1(u), 0 < u < 1, of the length of a vector of d standard normal components.
inline double chi_quantile(double u, index d) {
    double low = 0, high = std::sqrt(double(d)) + 45;
    for (int step = 0; step < 1200; ++step) { // so many for radii of 1e-300
        const double middle = 0.5 * (low + high);
        double p = 0, q = 0;
        gamma_tails(0.5 * double(d), 0.5 * middle * middle, p, q);
        ((u <= 0.5 ? p < u : q > 1 - u) ? low : high) = middle;
    }
    return 0.5 * (low + high);
}

/// t = F^-1(u), 0 where that is infinite. dimension: of chi; 0 means the normal distribution.
inline void qmc_frequencies(in<double, 1> u, view<double, 1> t, index dimension) {
    for (index i = 0; i < u.extent(0); ++i)
        t(i) = u(i) <= 0 || u(i) >= 1 ? 0 : dimension > 0 ? chi_quantile(u(i), dimension) : normal_quantile(u(i));
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

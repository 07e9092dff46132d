/// \file
/// The radii t of DiJiang's positive fixed features (arXiv:2403.19928, theorem 3.2, eq. 9, 12, 16): one per feature,
/// drawn once per layer when a model is converted, then frozen.
///
///     t_j = F^-1(u_j), and 0 where that is infinite
///     normal:   F the standard normal distribution (the paper's code)
///     chi:      F that of |w|, w ~ N(0, I_d)       (the radial law of the paper's proof)
///
/// "Quasi-Monte Carlo" in the paper means that the directions (rows of the DCT) are deterministic; it draws u at random
/// and names no sequence. Those below are deft's, deterministic stand-ins:
///
///     midpoint:         u_i = (i + 1/2) / m, i = 0 .. m - 1; ties small t to the middle rows of the transform
///     van_der_corput:   the radical inverse of i + 1 in base 2
///     golden:           frac(1/2 + (i + 1) 0.6180339887498949)
///
/// To import the t of a checkpoint of the code: t = diag(C^T proj_matrix), C the matrix of dct2.
#ifndef DEFT_ATTENTION_QMC_FREQUENCIES_HPP
#define DEFT_ATTENTION_QMC_FREQUENCIES_HPP

#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

namespace deft {

enum class qmc_sequence : unsigned char { midpoint, van_der_corput, golden };
enum class radial_distribution : unsigned char { normal, chi };

struct qmc_frequencies_options {
    radial_distribution distribution = radial_distribution::normal;
    index dimension = 0; ///< d, for chi
};

inline namespace DEFT_ISA {
namespace detail {

/// Inverse of the standard normal distribution for 0 < u < 1: Acklam's rational start (1e-9), then a step of Halley's
/// method, which cubes the error. With the tail that is smaller, or the distance from 1/2, so that no digit is lost.
inline double normal_quantile(double u) noexcept {
    const auto ratio = [](double x, const auto& p, const auto& q) {
        double above = 0, below = 0;
        for (const double c : p)
            above = above * x + c;
        for (const double c : q)
            below = below * x + c;
        return above / below;
    };
    constexpr double centre_p[] = {-3.969683028665376e+01, 2.209460984245205e+02,  -2.759285104469687e+02,
                                   1.383577518672690e+02,  -3.066479806614716e+01, 2.506628277459239e+00};
    constexpr double centre_q[] = {-5.447609879822406e+01, 1.615858368580409e+02,  -1.556989798598866e+02,
                                   6.680131188771972e+01,  -1.328068155288572e+01, 1};
    constexpr double tail_p[] = {-7.784894002430293e-03, -3.223964580411365e-01, -2.400758277161838e+00,
                                 -2.549732539343734e+00, 4.374664141464968e+00,  2.938163982698783e+00};
    constexpr double tail_q[] = {7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00,
                                 3.754408661907416e+00, 1};
    constexpr double root_half = 0.70710678118654752440, root_two_pi = 2.50662827463100050242;
    const double p = std::min(u, 1 - u), centred = p - 0.5;
    const bool is_tail = p < 0.02425;
    double x = is_tail ? ratio(std::sqrt(-2 * std::log(p)), tail_p, tail_q)
                       : centred * ratio(centred * centred, centre_p, centre_q);
    const double error = is_tail ? 0.5 * std::erfc(-x * root_half) - p : 0.5 * std::erf(x * root_half) - centred;
    const double step = error * root_two_pi * std::exp(0.5 * x * x);
    x -= step / (1 + 0.5 * x * step);
    return u > 0.5 ? -x : x;
}

/// The regularised incomplete gamma function P(a, x), or Q = 1 - P; its relative error is small where the other is not
/// smaller.
inline double gamma_tail(double a, double x, bool upper) noexcept {
    if (x <= 0)
        return upper ? 1 : 0;
    const double front = std::exp(a * std::log(x) - x - std::lgamma(a));
    if (x < a + 1) { // a power series of P
        double term = 1 / a, sum = term;
        for (double n = a + 1; term > sum * 1e-17; ++n) {
            term *= x / n;
            sum += term;
        }
        return upper ? 1 - front * sum : front * sum;
    }
    double b = x + 1 - a, c = 1e300, d = 1 / b, h = d; // a continued fraction of Q (Lentz)
    for (int i = 1; i < 100000; ++i) {
        const double numerator = -i * (i - a);
        b += 2;
        d = 1 / (numerator * d + b);
        c = b + numerator / c;
        h *= d * c;
        if (std::abs(d * c - 1) < 3e-15)
            break;
    }
    return upper ? front * h : 1 - front * h;
}

/// Inverse of the distribution of |w|, w ~ N(0, I_d), for 0 < u < 1. Newton's method on the logarithm of the smaller
/// tail: both are concave in the radius, so that from the second step on the error shrinks from one side.
inline double chi_quantile(double u, index d) noexcept {
    const double a = 0.5 * double(d), target = std::min(u, 1 - u);
    const bool upper = u > 0.5;
    // Wilson and Hilferty; for the smallest u the first term of the series.
    const double spread = 2 / (9 * double(d)), root = 1 - spread + normal_quantile(u) * std::sqrt(spread);
    double r = root > 0.3 ? std::sqrt(double(d) * root * root * root)
                          : std::exp((std::log(u) + std::lgamma(a + 1)) / (2 * a)) * std::sqrt(2.0);
    if (r < 1e-8) // the next term of the series is r^2 times smaller
        return r;
    const double log_density = (1 - a) * std::log(2.0) - std::lgamma(a);
    for (int step = 0; step < 60; ++step) {
        const double tail = gamma_tail(a, 0.5 * r * r, upper);
        const double density = std::exp(log_density + (double(d) - 1) * std::log(r) - 0.5 * r * r);
        const double move = std::log(tail / target) * tail / density;
        const double next = std::max(r - (upper ? -move : move), 0.1 * r);
        const bool done = std::abs(next - r) <= 1e-9 * r; // the next step would be its square
        r = next;
        if (done)
            break;
    }
    return r;
}

inline double radical_inverse(index i) noexcept {
    double value = 0, weight = 0.5;
    for (; i > 0; i /= 2, weight /= 2)
        value += weight * double(i % 2);
    return value;
}

} // namespace detail

/// The points u of a sequence, in (0, 1).
inline void qmc_points(view<double, 1> u, qmc_sequence sequence) {
    const index m = u.extent(0);
    detail::check(sequence <= qmc_sequence::golden, "qmc_points", "sequence",
                  "must be midpoint, van_der_corput or golden", double(sequence));
    for (index i = 0; i < m; ++i)
        u(i) = sequence == qmc_sequence::midpoint         ? (double(i) + 0.5) / double(m)
               : sequence == qmc_sequence::van_der_corput ? detail::radical_inverse(i + 1)
                                                          : std::fmod(0.5 + double(i + 1) * 0.6180339887498949, 1.0);
}

/// t = F^-1(u); formulas at the top of this file. u: [m], in double, because 1 - u is what counts near 1; t: [m].
///
/// t may be u. u = 0 and u = 1 give 0. Throws std::invalid_argument before anything is written if shapes do not fit, a
/// u lies outside of [0, 1] or is NaN, or chi has a dimension below 1. Relative error 1e-14 in double, for u down to
/// 1e-300 and d up to 512.
template <class T = void, class Y = view<double, 1>>
void qmc_frequencies(in<double, 1> u, Y&& t_out, const qmc_frequencies_options& options = {}) {
    using S = element_t<T, Y>;
    const view<S, 1> t(t_out);
    const char* const op = "qmc_frequencies";
    const bool chi = options.distribution == radial_distribution::chi;
    detail::check_same_shape(op, "t", t, "u", u);
    detail::check(options.distribution <= radial_distribution::chi, op, "distribution", "must be normal or chi",
                  double(options.distribution));
    detail::check(!chi || options.dimension >= 1, op, "dimension", "must be at least 1", double(options.dimension));
    for (index i = 0; i < u.extent(0); ++i)
        detail::check(u(i) >= 0 && u(i) <= 1, op, "u", "must lie in [0, 1]", u(i));
    for (index i = 0; i < u.extent(0); ++i) {
        const double value = u(i);
        t(i) = value == 0 || value == 1 ? S(0)
               : chi                    ? S(detail::chi_quantile(value, options.dimension))
                                        : S(detail::normal_quantile(value));
    }
}

} // namespace DEFT_ISA
} // namespace deft

#endif

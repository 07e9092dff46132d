/// \file
/// How far a weight is from full rank: numbers by which pruning that keeps the rank (RPG, arXiv:2311.17493) is watched.
///
/// s_1 >= ... >= s_r are the singular values of W [m, n], r = min(m, n), p_i = s_i / nuclear:
///
///     frobenius      sqrt(sum s_i^2)               spectral    s_1                  nuclear    sum s_i
///     stable_rank    sum s_i^2 / s_1^2             effective_rank    exp(-sum p_i log p_i)  (Roy and Vetterli 2007)
///     numerical_rank the number of s_i > rtol s_1
///     delta_rank     the smallest k with sum_{i > k} s_i^2 <= delta sum s_i^2
///     tail_rank      k of RPG's closest tail with tail_energy = delta (weight_spectrum.hpp), which its code records
///
/// All are 0 for the zero matrix. Elements are float or double.
#ifndef DEFT_PRUNING_RANK_METRICS_HPP
#define DEFT_PRUNING_RANK_METRICS_HPP

#include <deft/pruning/weight_spectrum.hpp>

#include <optional>

namespace deft {

struct rank_metrics_options {
    required<double> delta;          ///< in [0, 1]
    std::optional<double> rtol = {}; ///< max(m, n) eps of the element type if not given
};

struct rank_metrics_result {
    double frobenius = 0, spectral = 0, nuclear = 0, stable_rank = 0, effective_rank = 0;
    index numerical_rank = 0, delta_rank = 0, tail_rank = 0;
};

/// Cotangents of the metrics that have a gradient.
struct rank_metrics_cotangents {
    double frobenius = 0, spectral = 0, nuclear = 0, stable_rank = 0, effective_rank = 0;
};

inline namespace DEFT_ISA {
namespace detail {

template <class T>
weight_spectrum<T> metrics_spectrum(const char* op, const view<const T, 2>& weight) {
    static_assert(std::is_floating_point_v<T>, "weights are float or double");
    check(weight.extent(0) >= 1, op, "weight", "its extent 0, must be at least 1", double(weight.extent(0)));
    check(weight.extent(1) >= 1, op, "weight", "its extent 1, must be at least 1", double(weight.extent(1)));
    weight_spectrum<T> w(weight);
    check(w.is_finite(), op, "weight", "must be finite", std::numeric_limits<double>::quiet_NaN());
    w.decompose(true);
    return w;
}

struct spectrum_sums {
    double squares = 0, nuclear = 0, entropy = 0;

    explicit spectrum_sums(const std::vector<double>& s) {
        for (std::size_t i = s.size(); i-- > 0;) {
            squares += s[i] * s[i];
            nuclear += s[i];
        }
        for (const double v : s)
            if (v > 0)
                entropy -= v / nuclear * std::log(v / nuclear);
    }
};

} // namespace detail

/// The metrics of one weight; singular_values, [min(m, n)], may be absent. Throws std::invalid_argument before anything
/// is written if an extent is 0, an entry is not finite, delta lies outside of [0, 1], rtol is negative, or
/// singular_values has another length. Allocates a few matrices of the size of W. Errors relative to s_1: 1e-14
/// (double), 1e-7 (float); noise below that counts in the effective rank.
template <class T>
rank_metrics_result rank_metrics(in<T, 2> weight, out<T, 1> singular_values, const rank_metrics_options& options) {
    const char* const op = "rank_metrics";
    detail::check(options.delta >= 0 && options.delta <= 1, op, "delta", "must lie in [0, 1]", options.delta);
    detail::check(!options.rtol || *options.rtol >= 0, op, "rtol", "must not be negative", options.rtol.value_or(0));
    if (singular_values.is_given())
        detail::check_extent(op, "singular_values", singular_values, 0, std::min(weight.extent(0), weight.extent(1)),
                             "the smaller extent of weight");
    const auto w = detail::metrics_spectrum<T>(op, weight);
    constexpr double eps = double(std::numeric_limits<T>::epsilon());
    const double scale = double(w.scale), largest = w.s[0];
    for (index i = 0; i < singular_values.extent(0); ++i)
        singular_values(i) = T(w.s[std::size_t(i)] / scale);
    rank_metrics_result result;
    if (largest == 0)
        return result;
    const detail::spectrum_sums sums(w.s);
    result.frobenius = std::sqrt(sums.squares) / scale;
    result.spectral = largest / scale;
    result.nuclear = sums.nuclear / scale;
    result.stable_rank = sums.squares / (largest * largest);
    result.effective_rank = std::exp(sums.entropy);
    const double rtol = options.rtol.value_or(double(w.l) * eps);
    for (const double v : w.s)
        result.numerical_rank += v > rtol * largest ? 1 : 0;
    result.delta_rank = w.r;
    for (double tail = 0; result.delta_rank > 0; --result.delta_rank) {
        const double v = w.s[std::size_t(result.delta_rank - 1)];
        tail += v * v;
        if (!(tail <= options.delta * sums.squares))
            break;
    }
    result.tail_rank = detail::rank_of_tail(w.s, options.delta, eps);
    return result;
}

/// grad_weight for cotangents g of the metrics, H the entropy:
///
///     frobenius W / ||W||_F      spectral u_1 v_1^T      nuclear U V^T
///     stable_rank 2 W / s_1^2 - 2 ||W||_F^2 / s_1^3 u_1 v_1^T
///     effective_rank U diag(-exp(H) (log p_i + H) / nuclear) V^T
///
/// For a weight of full rank with s_1 > s_2; directions of singular values that are 0 get 0. The metrics that count
/// have no gradient. grad_weight must not overlap weight. Throws like rank_metrics, and if shapes do not fit.
/// Allocates.
template <class T>
void rank_metrics_backward(in<T, 2> weight, const rank_metrics_cotangents& g, view<T, 2> grad_weight) {
    const char* const op = "rank_metrics_backward";
    detail::check_same_shape(op, "grad_weight", grad_weight, "weight", weight);
    const auto w = detail::metrics_spectrum<T>(op, weight);
    const detail::spectrum_sums sums(w.s);
    const double scale = double(w.scale), largest = w.s[0];
    const index r = w.r, l = w.l;
    const std::vector<T> q = w.left_rows(0, r);
    std::vector<T> rows = w.scaled_rows(0, r), grad(rows.size());
    for (index i = 0; i < r; ++i) {
        const double s = w.s[std::size_t(i)];
        double factor = 0;
        if (s > w.noise()) {
            // Of the scaled matrix, whose metrics but the first three do not change with the scale.
            factor = g.frobenius * s / std::sqrt(sums.squares) + (i == 0 ? g.spectral : 0.0) + g.nuclear;
            factor += scale * g.stable_rank * 2 / (largest * largest) * (s - (i == 0 ? sums.squares / largest : 0.0));
            factor -= scale * g.effective_rank * std::exp(sums.entropy) * (std::log(s / sums.nuclear) + sums.entropy) /
                      sums.nuclear;
            factor /= s;
        }
        for (index j = 0; j < l; ++j)
            rows[std::size_t(i * l + j)] = T(double(rows[std::size_t(i * l + j)]) * factor);
    }
    serial_executor here;
    detail::multiply<T>({q.data(), 1, r}, {rows.data(), l, 1}, r, false, view<T, 2>(grad.data(), {r, l}), here);
    for (index i = 0; i < weight.extent(0); ++i)
        for (index j = 0; j < weight.extent(1); ++j)
            grad_weight(i, j) = grad[std::size_t(w.is_tall ? j * l + i : i * l + j)];
}

} // namespace DEFT_ISA
} // namespace deft

#endif

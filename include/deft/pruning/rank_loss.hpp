/// \file
/// The rank objective of RPG: the distance of a weight to its best approximation of low rank, to be maximised, so that
/// what pruning leaves keeps a high rank.
///
/// RPG (arXiv:2311.17493; rank_kit.py `get_sing_loss`, `get_loss_para` of huawei-noah's code). W [m, n], N = ||W||_F:
///
///     A = rank-k truncation of W / N, k as rank_choice says (weight_spectrum.hpp), R = W / N - A, t = ||R||_F^2
///     loss = -t, in [-1, 0]                  grad_weight = (2 / N) (t W / N - R)
///     bound b: d = loss - b; value d^2 and gradient 2 d grad_weight where d < 0, else both 0
///
/// Holding A constant changes nothing: R is orthogonal to every direction in which A can move. <grad_weight, W> = 0:
/// the loss does not depend on scale. A zero weight has loss 0, rank 0, gradient 0.
///
/// The loss of a model is the mean over the layers that count: their share of exact zeros is at least
/// sparsity_threshold, and their loss is not 0. The official training adds lambda (0.5 to 4) times it to the task's
/// loss in the iteration before a mask update, whose gradient then scores what prune_and_regrow grows.
///
/// Cost per layer: a Gram matrix and its eigenvectors, and two products with the smaller of head and tail. Elements are
/// float or double. These allocate a few matrices of the size of W.
#ifndef DEFT_PRUNING_RANK_LOSS_HPP
#define DEFT_PRUNING_RANK_LOSS_HPP

#include <deft/pruning/weight_spectrum.hpp>

#include <optional>
#include <span>

namespace deft {

struct rank_loss_options {
    rank_choice rank;
    std::optional<double> bound = {};
    double sparsity_threshold = 0; ///< of model_rank_loss, which skips layers with fewer zeros
};

struct rank_loss_result {
    double loss; ///< bounded, if there is a bound
    index rank;  ///< k
    double tail; ///< t
};

inline namespace DEFT_ISA {
namespace detail {

inline void check_rank_loss(const char* op, const rank_loss_options& options) {
    check_rank_choice(op, options.rank);
    check(!options.bound || !std::isnan(*options.bound), op, "bound", "must be a number", options.bound.value_or(0));
    check(!std::isnan(options.sparsity_threshold), op, "sparsity_threshold", "must be a number",
          options.sparsity_threshold);
}

template <class T>
void check_loss_weight(const char* op, const char* name, const view<const T, 2>& weight) {
    static_assert(std::is_floating_point_v<T>, "weights are float or double");
    check(weight.extent(0) >= 1, op, name, "its extent 0, must be at least 1", double(weight.extent(0)));
    check(weight.extent(1) >= 1, op, name, "its extent 1, must be at least 1", double(weight.extent(1)));
    bool finite = true;
    for (index i = 0; i < weight.extent(0); ++i)
        for (index j = 0; j < weight.extent(1); ++j)
            finite &= std::abs(weight(i, j)) <= std::numeric_limits<T>::max();
    check(finite, op, name, "must be finite", std::numeric_limits<double>::quiet_NaN());
}

/// The loss, and what grad_weight is a multiple of: t W / N - R = (t W - (W - W_k)) / N.
template <class T>
struct rank_loss_terms {
    rank_loss_result result{0, 0, 0};
    weight_spectrum<T> w;
    double factor = 0; ///< grad_weight = factor grad_loss (t A - (A - A_k)) of the scaled A

    rank_loss_terms(const view<const T, 2>& weight, const rank_loss_options& options) : w(weight) {
        w.decompose(false);
        double total = 0, tail = 0;
        for (std::size_t i = w.s.size(); i-- > 0;)
            total += w.s[i] * w.s[i];
        if (total == 0)
            return;
        result.rank = choose_rank<T>(w.s, options.rank);
        for (index i = w.r; i-- > result.rank;)
            tail += w.s[std::size_t(i)] * w.s[std::size_t(i)];
        result.tail = result.rank == 0 ? 1.0 : tail / total;
        result.loss = -result.tail;
        factor = 2 * double(w.scale) / total;
        if (options.bound) {
            const double d = std::min(result.loss - *options.bound, 0.0);
            result.loss = d * d;
            factor *= 2 * d;
        }
    }

    void write_gradient(double grad_loss, const view<T, 2>& grad) const {
        const index k = result.rank, r = w.r, l = w.l;
        const bool is_flat = factor == 0 || k == 0 || k == r; // the loss is constant around there
        const bool by_head = k <= r - k;
        std::vector<T> part(std::size_t(is_flat ? 0 : r * l));
        if (!is_flat) {
            serial_executor here;
            const index first = by_head ? 0 : k, count = by_head ? k : r - k;
            const std::vector<T> left = w.left_rows(first, count), right = w.scaled_rows(first, count);
            multiply<T>({left.data(), 1, r}, {right.data(), l, 1}, count, false, view<T, 2>(part.data(), {r, l}), here);
        }
        // t A - R, with R = A - head or R = tail.
        const double of_a = by_head ? result.tail - 1 : result.tail, of_part = by_head ? 1 : -1;
        const double scale = factor * grad_loss;
        for (index i = 0; i < grad.extent(0); ++i)
            for (index j = 0; j < grad.extent(1); ++j) {
                const auto at = std::size_t(w.is_tall ? j * l + i : i * l + j);
                grad(i, j) = is_flat ? T(0) : T(scale * (of_a * double(w.a[at]) + of_part * double(part[at])));
            }
    }
};

template <class T>
bool has_zeros(const view<const T, 2>& weight, double threshold) noexcept {
    index zeros = 0;
    for (index i = 0; i < weight.extent(0); ++i)
        for (index j = 0; j < weight.extent(1); ++j)
            zeros += weight(i, j) == T(0) ? 1 : 0;
    return !(double(zeros) / double(weight.size()) < threshold);
}

template <class T>
void check_model(const char* op, std::span<const view<const T, 2>> weights, std::span<index> ranks,
                 const rank_loss_options& options) {
    check(ranks.size() == weights.size(), op, "ranks", "elements, must be one per layer", double(ranks.size()));
    check_rank_loss(op, options);
    for (const view<const T, 2>& weight : weights)
        check_loss_weight(op, "weights", weight);
}

/// f(layer, terms) for the layers that count; returns the loss and writes the ranks.
template <class T, class F>
double for_each_counted(std::span<const view<const T, 2>> weights, std::span<index> ranks,
                        const rank_loss_options& options, index& counted, F&& f) {
    double sum = 0;
    counted = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        ranks[i] = -1;
        if (!has_zeros(weights[i], options.sparsity_threshold))
            continue;
        const rank_loss_terms<T> terms(weights[i], options);
        ranks[i] = terms.result.rank;
        if (terms.result.loss == 0)
            continue;
        sum += terms.result.loss;
        ++counted;
        f(i, terms);
    }
    return counted == 0 ? 0.0 : sum / double(counted);
}

} // namespace detail

/// The loss of one weight; formulas at the top of this file. Throws std::invalid_argument if an extent is 0, an entry
/// is not finite, rank is negative, or energy or tail_energy lies outside of [0, 1]. Errors: 1e-14, in float 1e-7.
template <class T>
rank_loss_result rank_loss(in<T, 2> weight, const rank_loss_options& options) {
    detail::check_rank_loss("rank_loss", options);
    detail::check_loss_weight<T>("rank_loss", "weight", weight);
    return detail::rank_loss_terms<T>(weight, options).result;
}

/// grad_weight for the cotangent grad_loss of loss; returns what rank_loss does, at no further cost. For equal singular
/// values at the cut any of the valid gradients. grad_weight must not overlap weight. Throws like rank_loss, before
/// anything is written, and if shapes do not fit.
template <class T>
rank_loss_result rank_loss_backward(in<T, 2> weight, double grad_loss, view<T, 2> grad_weight,
                                    const rank_loss_options& options) {
    const char* const op = "rank_loss_backward";
    detail::check_rank_loss(op, options);
    detail::check_same_shape(op, "grad_weight", grad_weight, "weight", weight);
    detail::check_loss_weight<T>(op, "weight", weight);
    const detail::rank_loss_terms<T> terms(weight, options);
    terms.write_gradient(grad_loss, grad_weight);
    return terms.result;
}

/// The mean over the layers that count, 0 if none does; ranks[i] is k of every layer with enough zeros, -1 of others.
/// Throws like rank_loss, before anything is written, and if ranks does not have one element per layer.
template <class T>
double model_rank_loss(std::span<const view<const T, 2>> weights, std::span<index> ranks,
                       const rank_loss_options& options) {
    detail::check_model<T>("model_rank_loss", weights, ranks, options);
    index counted = 0;
    return detail::for_each_counted<T>(weights, ranks, options, counted, [](std::size_t, const auto&) {});
}

/// grad_weights[i] for the cotangent grad_loss of that mean: 0 for layers that do not count. Returns the loss, and
/// writes the ranks. Throws like model_rank_loss, and if gradients do not fit their weights.
template <class T>
double model_rank_loss_backward(std::span<const view<const T, 2>> weights, double grad_loss,
                                std::span<const view<T, 2>> grad_weights, std::span<index> ranks,
                                const rank_loss_options& options) {
    const char* const op = "model_rank_loss_backward";
    detail::check(grad_weights.size() == weights.size(), op, "grad_weights", "must be one per layer",
                  double(grad_weights.size()));
    for (std::size_t i = 0; i < weights.size(); ++i)
        detail::check_same_shape(op, "grad_weights", grad_weights[i], "weights", weights[i]);
    detail::check_model<T>(op, weights, ranks, options);
    const auto multiply_by = [](const view<T, 2>& x, double factor) {
        for (index i = 0; i < x.extent(0); ++i)
            for (index j = 0; j < x.extent(1); ++j)
                x(i, j) = factor == 0 ? T(0) : T(double(x(i, j)) * factor);
    };
    for (const view<T, 2>& grad : grad_weights)
        multiply_by(grad, 0);
    index counted = 0;
    const double loss = detail::for_each_counted<T>(
        weights, ranks, options, counted,
        [&](std::size_t i, const detail::rank_loss_terms<T>& terms) { terms.write_gradient(1, grad_weights[i]); });
    for (const view<T, 2>& grad : grad_weights)
        multiply_by(grad, counted == 0 ? 0.0 : grad_loss / double(counted));
    return loss;
}

} // namespace DEFT_ISA
} // namespace deft

#endif

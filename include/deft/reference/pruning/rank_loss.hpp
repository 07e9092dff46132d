/// \file
/// Naive reference of rank_loss and model_rank_loss (arXiv:2311.17493, rank_kit.py): the explicit residual of an
/// explicit truncation of the normalised weight.
#ifndef DEFT_REFERENCE_PRUNING_RANK_LOSS_HPP
#define DEFT_REFERENCE_PRUNING_RANK_LOSS_HPP

#include <deft/reference/pruning/singular_values.hpp>

#include <string>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

struct rank_loss_case {
    std::string mode; ///< of choose_rank
    double value = 0;
    bool is_bounded = false;
    double bound = 0, sparsity_threshold = 0;
};

struct rank_loss_values {
    double loss = 0, tail = 0;
    index rank = 0;
    std::vector<double> gradient; ///< row-major
};

template <class T>
rank_loss_values rank_loss(in<T, 2> w, const rank_loss_case& c) {
    const index m = w.extent(0), n = w.extent(1);
    rank_loss_values result;
    result.gradient.assign(std::size_t(m * n), 0.0);
    const decomposition d = singular_values<T>(w);
    if (d.s[0] == 0)
        return result;
    const double norm = d.s[0] * std::sqrt(total_energy(d.s));
    result.rank = choose_rank(d.s, c.mode, c.value, double(std::numeric_limits<T>::epsilon()));
    std::vector<double> residual;
    for (index i = 0; i < m; ++i)
        for (index j = 0; j < n; ++j) {
            residual.push_back((double(w(i, j)) - truncated(d, result.rank, i, j)) / norm);
            result.tail += residual.back() * residual.back();
        }
    result.loss = -result.tail;
    double factor = 2 / norm;
    if (c.is_bounded) {
        const double difference = result.loss - c.bound;
        result.loss = difference < 0 ? difference * difference : 0;
        factor *= difference < 0 ? 2 * difference : 0;
    }
    for (index i = 0; i < m; ++i)
        for (index j = 0; j < n; ++j)
            result.gradient[std::size_t(i * n + j)] =
                factor * (result.tail * double(w(i, j)) / norm - residual[std::size_t(i * n + j)]);
    return result;
}

struct model_rank_loss_values {
    double loss = 0;
    std::vector<index> ranks;
    std::vector<std::vector<double>> gradients;
};

template <class T>
model_rank_loss_values model_rank_loss(const std::vector<view<const T, 2>>& weights, const rank_loss_case& c) {
    model_rank_loss_values result;
    double counted = 0;
    for (const view<const T, 2>& w : weights) {
        index zeros = 0;
        for (index i = 0; i < w.extent(0); ++i)
            for (index j = 0; j < w.extent(1); ++j)
                zeros += w(i, j) == T(0);
        result.gradients.emplace_back(std::size_t(w.size()), 0.0);
        result.ranks.push_back(-1);
        if (double(zeros) / double(w.size()) < c.sparsity_threshold)
            continue;
        const rank_loss_values one = rank_loss<T>(w, c);
        result.ranks.back() = one.rank;
        if (one.loss == 0)
            continue;
        result.loss += one.loss;
        result.gradients.back() = one.gradient;
        counted += 1;
    }
    if (counted > 0) {
        result.loss /= counted;
        for (std::vector<double>& gradient : result.gradients)
            for (double& g : gradient)
                g /= counted;
    }
    return result;
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

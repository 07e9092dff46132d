/// \file
/// Naive reference of prune_and_regrow and pruning_step (arXiv:2311.17493, arXiv:1911.11134): stable sorts per layer.
#ifndef DEFT_REFERENCE_PRUNING_PRUNE_AND_REGROW_HPP
#define DEFT_REFERENCE_PRUNING_PRUNE_AND_REGROW_HPP

#include <deft/reference/pruning/magnitude_mask.hpp>

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// The elements of a matrix, row-major.
template <class T>
std::vector<T> elements(in<T, 2> x) {
    std::vector<T> all;
    for (index r = 0; r < x.extent(0); ++r)
        for (index c = 0; c < x.extent(1); ++c)
            all.push_back(x(r, c));
    return all;
}

/// Updates mask, weight, grad and momentum, all of one size; momentum may be empty.
template <class T>
void prune_and_regrow(std::vector<T>& weight, std::vector<T>& grad, std::vector<std::uint8_t>& mask,
                      std::vector<T>& momentum, index n_keep, index n_grow) {
    std::vector<T> score;
    for (const T w : weight)
        score.push_back(std::abs(w));
    const std::vector<std::uint8_t> keep = top_mask(score, n_keep);
    for (std::size_t i = 0; i < grad.size(); ++i)
        score[i] = keep[i] != 0 ? T(-1) : std::abs(grad[i]);
    const std::vector<std::uint8_t> grow = top_mask(score, n_grow);
    for (std::size_t i = 0; i < weight.size(); ++i) {
        const bool stays = keep[i] != 0 || grow[i] != 0, is_new = grow[i] != 0 && mask[i] == 0;
        mask[i] = stays ? 1 : 0;
        weight[i] = stays && !is_new ? weight[i] : T(0);
        grad[i] = stays ? grad[i] : T(0);
        if (!momentum.empty())
            momentum[i] = stays ? momentum[i] : T(0);
    }
}

/// (n_keep, n_grow) of a layer of `size` weights, `kept` of which survive.
inline std::pair<index, index> regrow_counts(index size, index kept, double drop_fraction, bool exact) {
    if (exact) {
        const index grown = index(std::floor(double(kept) * drop_fraction));
        return {kept - grown, grown};
    }
    const double sparsity = double(size - kept) / double(size);
    const index grown = index((1 - sparsity) * double(size) * drop_fraction);
    return {index((1 - sparsity) * double(size)) - grown, grown};
}

/// weights and masks of all layers, one after the other; weights are updated.
template <class T>
std::vector<std::uint8_t> pruning_step(std::vector<std::vector<T>>& weights, const std::vector<std::vector<T>>& grads,
                                       double density, double drop_fraction, bool exact_rule, bool exact_counts) {
    std::vector<view<const T, 2>> layers;
    for (const std::vector<T>& w : weights)
        layers.push_back({w.data(), {1, index(w.size())}});
    const std::vector<std::uint8_t> all = magnitude_mask<T>(layers, 1 - density, exact_rule);
    std::vector<std::uint8_t> result;
    std::size_t at = 0;
    for (std::size_t layer = 0; layer < weights.size(); ++layer) {
        std::vector<T>& w = weights[layer];
        std::vector<std::uint8_t> mask(all.begin() + index(at), all.begin() + index(at + w.size()));
        at += w.size();
        index kept = 0;
        for (std::size_t i = 0; i < w.size(); ++i) {
            kept += mask[i];
            w[i] = mask[i] != 0 ? w[i] : T(0);
        }
        if (kept != index(w.size())) {
            const auto [n_keep, n_grow] = regrow_counts(index(w.size()), kept, drop_fraction, exact_counts);
            std::vector<T> grad = grads[layer], none;
            prune_and_regrow(w, grad, mask, none, n_keep, n_grow);
        }
        result.insert(result.end(), mask.begin(), mask.end());
    }
    return result;
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Naive reference of magnitude_mask (arXiv:2311.17493): stable sorts.
///
///     exact: the N - c largest |w|, c = round_half_even(sparsity N)      threshold: |w| >= the c-th smallest
///     N:M: the N largest of every M columns      blocks: those of the largest sums of squares
#ifndef DEFT_REFERENCE_PRUNING_MAGNITUDE_MASK_HPP
#define DEFT_REFERENCE_PRUNING_MAGNITUDE_MASK_HPP

#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// Which of the scores are the `count` largest; the lower position first on ties.
template <class T>
std::vector<std::uint8_t> top_mask(const std::vector<T>& scores, index count) {
    std::vector<std::size_t> order(scores.size());
    std::iota(order.begin(), order.end(), std::size_t(0));
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
    std::vector<std::uint8_t> mask(scores.size(), 0);
    for (index i = 0; i < count; ++i)
        mask[order[std::size_t(i)]] = 1;
    return mask;
}

inline index round_half_even(double x) {
    const double below = std::floor(x);
    const index whole = index(below);
    return x - below > 0.5 || (x - below == 0.5 && whole % 2 != 0) ? whole + 1 : whole;
}

template <class T>
std::vector<T> magnitudes(const std::vector<view<const T, 2>>& weights) {
    std::vector<T> all;
    for (const view<const T, 2>& w : weights)
        for (index r = 0; r < w.extent(0); ++r)
            for (index c = 0; c < w.extent(1); ++c)
                all.push_back(std::abs(w(r, c)));
    return all;
}

/// One mask over all layers, one after the other.
template <class T>
std::vector<std::uint8_t> magnitude_mask(const std::vector<view<const T, 2>>& weights, double sparsity, bool exact) {
    const std::vector<T> scores = magnitudes<T>(weights);
    const index size = index(scores.size()), cut = round_half_even(sparsity * double(size));
    if (exact)
        return top_mask(scores, size - cut);
    std::vector<T> sorted = scores;
    std::sort(sorted.begin(), sorted.end());
    const T threshold = cut == 0 ? T(0) : sorted[std::size_t(cut - 1)];
    std::vector<std::uint8_t> mask;
    for (const T score : scores)
        mask.push_back(score >= threshold ? 1 : 0);
    return mask;
}

template <class T>
std::vector<std::uint8_t> nm_mask(in<T, 2> w, index n, index m) {
    std::vector<std::uint8_t> mask;
    for (index r = 0; r < w.extent(0); ++r)
        for (index c = 0; c < w.extent(1); c += m) {
            std::vector<T> group;
            for (index j = c; j < std::min(c + m, w.extent(1)); ++j)
                group.push_back(std::abs(w(r, j)));
            const std::vector<std::uint8_t> kept = top_mask(group, std::min(n, index(group.size())));
            mask.insert(mask.end(), kept.begin(), kept.end());
        }
    return mask;
}

template <class T>
std::vector<std::uint8_t> block_mask(in<T, 2> w, double sparsity, index height, index width) {
    const index across = (w.extent(1) + width - 1) / width, down = (w.extent(0) + height - 1) / height;
    std::vector<double> scores(std::size_t(across * down), 0.0);
    for (index r = 0; r < w.extent(0); ++r)
        for (index c = 0; c < w.extent(1); ++c)
            scores[std::size_t(r / height * across + c / width)] += double(w(r, c)) * double(w(r, c));
    const index count = across * down;
    const std::vector<std::uint8_t> kept = top_mask(scores, count - round_half_even(sparsity * double(count)));
    std::vector<std::uint8_t> mask;
    for (index r = 0; r < w.extent(0); ++r)
        for (index c = 0; c < w.extent(1); ++c)
            mask.push_back(kept[std::size_t(r / height * across + c / width)]);
    return mask;
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

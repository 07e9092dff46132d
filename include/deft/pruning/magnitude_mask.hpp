/// \file
/// Masks of weights by magnitude: the pruning half of RPG (arXiv:2311.17493; RigL.py of huawei-noah's code), and masks
/// with a structure that sparse_matmul runs faster.
///
///     magnitude    N scores |w| are ranked, c = round_half_even(sparsity N) of them pruned
///       exact      the N - c largest are kept, equal ones in order of position: N - c ones
///       threshold  |w| >= the c-th smallest is kept (the official code): one more without ties, and more with ties
///     N:M          the N largest of every M neighbouring columns of a row; a short last group of q keeps min(N, q)
///     blocks       score of a block = sum of its squares; B - round_half_even(sparsity B) of B blocks are kept
///
/// Layers are [d0, rest]: a convolution [c_out, c_in, kh, kw] is [c_out, c_in kh kw]. Under a global scope one ranking
/// runs over all layers in their order, without a copy: three passes over memory in float, up to five in double. Masks
/// are bits (bit_mask.hpp). Elements are float or double. The gradient of the masked weight is apply_mask of its
/// cotangent. All of these allocate tables of some 100 KB.
#ifndef DEFT_PRUNING_MAGNITUDE_MASK_HPP
#define DEFT_PRUNING_MAGNITUDE_MASK_HPP

#include <deft/pruning/select_largest.hpp>

#include <cmath>
#include <type_traits>

namespace deft {

enum class mask_scope : unsigned char { global, layer };
enum class mask_rule : unsigned char { exact, threshold };

struct magnitude_mask_options {
    required<double> sparsity; ///< in [0, 1]
    mask_scope scope = mask_scope::global;
    mask_rule rule = mask_rule::exact;
};

struct block_mask_options {
    required<double> sparsity; ///< in [0, 1], of blocks
    required<index> block_rows;
    required<index> block_columns;
};

inline namespace DEFT_ISA {
namespace detail {

template <class Weights>
void check_masks(const char* op, const Weights& weights, std::span<const view<std::uint64_t, 1>> masks) {
    check(masks.size() == weights.size(), op, "masks", "must be one per layer", double(masks.size()));
    for (std::size_t i = 0; i < weights.size(); ++i)
        check_mask(op, "masks", masks[i], weights[i].size());
}

inline void check_sparsity(const char* op, double sparsity) {
    check(sparsity >= 0 && sparsity <= 1, op, "sparsity", "must lie in [0, 1]", sparsity);
}

template <class T>
void reject_nan(const char* op, const char* name, bool has_none) {
    check(has_none, op, name, "scores must be numbers", std::numeric_limits<double>::quiet_NaN());
}

/// The threshold that a rule asks for.
template <class T>
kernels::magnitude_threshold<T> rule_threshold(const char* op, magnitude_selector<T>& selector,
                                               std::span<const view<const T, 2>> layers,
                                               const magnitude_mask_options& options) {
    index size = 0;
    for (const view<const T, 2>& layer : layers)
        size += layer.size();
    const index pruned = pruned_count(options.sparsity, size);
    const bool exact = options.rule == mask_rule::exact;
    kernels::magnitude_threshold<T> threshold{};
    const bool finite = selector.find(layers, exact || pruned == 0 ? size - pruned : size - pruned + 1, threshold);
    reject_nan<T>(op, "weights", finite);
    if (!exact)
        threshold.ties = size;
    return threshold;
}

} // namespace detail

/// Throws std::invalid_argument before anything is written if there is not one mask of the right size per layer,
/// sparsity lies outside of [0, 1], or a weight is NaN. Infinities rank highest. No layers are valid.
template <class T>
void magnitude_mask(std::span<const view<const T, 2>> weights, std::span<const view<std::uint64_t, 1>> masks,
                    const magnitude_mask_options& options) {
    static_assert(std::is_floating_point_v<T>, "weights are float or double");
    const char* const op = "magnitude_mask";
    detail::check_masks(op, weights, masks);
    detail::check_sparsity(op, options.sparsity);
    detail::magnitude_selector<T> selector;
    if (options.scope == mask_scope::global) {
        auto threshold = detail::rule_threshold<T>(op, selector, weights, options);
        for (std::size_t i = 0; i < weights.size(); ++i)
            detail::mark_largest(weights[i], threshold, masks[i]);
        return;
    }
    std::vector<kernels::magnitude_threshold<T>> thresholds; // all of them first: a NaN must be met before the writes
    for (std::size_t i = 0; i < weights.size(); ++i)
        thresholds.push_back(detail::rule_threshold<T>(op, selector, weights.subspan(i, 1), options));
    for (std::size_t i = 0; i < weights.size(); ++i)
        detail::mark_largest(weights[i], thresholds[i], masks[i]);
}

/// The same for one layer: `deft::magnitude_mask<float>(weight, mask, {.sparsity = 0.9})`.
template <class T>
void magnitude_mask(in<T, 2> weight, view<std::uint64_t, 1> mask, const magnitude_mask_options& options) {
    const view<const T, 2> weights[] = {weight};
    const view<std::uint64_t, 1> masks[] = {mask};
    magnitude_mask<T>(std::span<const view<const T, 2>>(weights), std::span<const view<std::uint64_t, 1>>(masks),
                      options);
}

/// N:M mask of one layer: the n largest of every m columns, the lower column first on ties. Throws like magnitude_mask,
/// and if m < 1, n < 0 or n > m.
template <class T>
void nm_mask(in<T, 2> weight, view<std::uint64_t, 1> mask, index n, index m) {
    const char* const op = "nm_mask";
    detail::check_mask(op, "mask", mask, weight.size());
    detail::check(m >= 1, op, "m", "must be at least 1", double(m));
    detail::check(n >= 0 && n <= m, op, "n", "must lie in [0, m]", double(n));
    const index columns = weight.extent(1);
    bool has_nan = false;
    for (index r = 0; r < weight.extent(0); ++r)
        for (index c = 0; c < columns; ++c)
            has_nan |= weight(r, c) != weight(r, c);
    detail::reject_nan<T>(op, "weight", !has_nan);
    for (index w = 0; w < mask.extent(0); ++w)
        mask(w) = 0;
    const auto mark_group = [&](const T* group, index first, auto size) {
        for (index j = 0; j < size; ++j) {
            const auto key = kernels::key_of(group[j]);
            index before = 0; // entries of the group that rank higher
            for (index i = 0; i < size; ++i) {
                const auto other = kernels::key_of(group[i]);
                before += i < j ? other >= key : other > key;
            }
            const index at = first + j;
            mask(at / 64) |= std::uint64_t(before < n) << (at % 64);
        }
    };
    for (index r = 0; r < weight.extent(0); ++r) {
        const T* const row = weight.data() + r * weight.stride(0);
        for (index c = 0; c < columns; c += m) {
            const index size = std::min(m, columns - c);
            if (size == 4) // as in 2:4 and 1:4: six times faster where the number is known
                mark_group(row + c, r * columns + c, std::integral_constant<index, 4>{});
            else
                mark_group(row + c, r * columns + c, size);
        }
    }
}

/// Block mask of one layer, ties to the lower block in row-major order; blocks at the edges may be short. Scores are
/// summed in double. Throws like magnitude_mask, and if a block is less than 1 high or wide.
template <class T>
void block_mask(in<T, 2> weight, view<std::uint64_t, 1> mask, const block_mask_options& options) {
    const char* const op = "block_mask";
    const index height = options.block_rows, width = options.block_columns;
    detail::check_mask(op, "mask", mask, weight.size());
    detail::check_sparsity(op, options.sparsity);
    detail::check(height >= 1, op, "block_rows", "must be at least 1", double(height));
    detail::check(width >= 1, op, "block_columns", "must be at least 1", double(width));
    const index rows = weight.extent(0), columns = weight.extent(1);
    const index across = (columns + width - 1) / width, blocks = (rows + height - 1) / height * across;
    std::vector<double> scores(std::size_t(blocks), 0.0);
    for (index r = 0; r < rows; ++r)
        for (index c = 0; c < columns; ++c)
            scores[std::size_t(r / height * across + c / width)] += double(weight(r, c)) * double(weight(r, c));
    const view<const double, 2> layer[] = {{scores.data(), {1, blocks}}};
    kernels::magnitude_threshold<double> threshold{};
    detail::magnitude_selector<double> selector;
    detail::reject_nan<T>(op, "weight",
                          selector.find(layer, blocks - detail::pruned_count(options.sparsity, blocks), threshold));
    std::vector<std::uint64_t> kept(std::size_t(mask_words(blocks)));
    detail::mark_largest(layer[0], threshold, view<std::uint64_t, 1>(kept));
    for (index w = 0; w < mask.extent(0); ++w)
        mask(w) = 0;
    for (index r = 0; r < rows; ++r)
        for (index c = 0; c < columns; ++c)
            mask((r * columns + c) / 64) |= std::uint64_t(mask_bit(kept, r / height * across + c / width))
                                            << ((r * columns + c) % 64);
}

} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// The mask update of RPG (arXiv:2311.17493; RigL.py `_rigl_step` of huawei-noah's code): the smallest weights go, and
/// positions of the largest gradient come back, as in RigL (arXiv:1911.11134). The gradient is that of the task plus
/// lambda times rank_loss: here is where the rank acts.
///
/// One layer, counts given:
///
///     keep         = the n_keep largest |w|, of all positions        ties: the lower position first
///     grow         = the n_grow largest |g| outside of keep
///     new_mask     = keep or grow
///     new_weight   = 0 where grow and not mask, w elsewhere in new_mask, 0 outside
///     new_grad     = g in new_mask, 0 outside                        new_momentum likewise
///
/// A survivor that is dropped and grown again keeps its value; what was masked starts at 0. Not differentiable.
///
/// A whole model at density D, fraction f of survivors dropped: masks by magnitude over all layers at sparsity 1 - D, w
/// masked; then for each layer that lost a weight, with `kept` ones left, n_grow = floor(kept f) and n_keep = kept -
/// n_grow. counts `truncated` is the official code, whose round trip through the sparsity of the layer can lose one.
///
/// Layers are [d0, rest], masks are bits (bit_mask.hpp), elements float or double. These allocate tables of some 100 KB
/// and a mask.
#ifndef DEFT_PRUNING_PRUNE_AND_REGROW_HPP
#define DEFT_PRUNING_PRUNE_AND_REGROW_HPP

#include <deft/pruning/magnitude_mask.hpp>
#include <deft/pruning/sparsity_schedule.hpp>

namespace deft {

struct prune_and_regrow_options {
    required<index> n_keep;
    required<index> n_grow;
};

enum class regrow_counts : unsigned char { exact, truncated };

struct pruning_step_options {
    required<double> density;       ///< in (0, 1]
    required<double> drop_fraction; ///< in [0, 1]
    mask_rule rule = mask_rule::exact;
    regrow_counts counts = regrow_counts::exact;
};

inline namespace DEFT_ISA {
namespace detail {

/// new_mask = keep or grow. False, and nothing is written, if w or g has a NaN.
template <class T>
bool select_regrown(magnitude_selector<T>& selector, const view<const T, 2>& weight, const view<const T, 2>& grad,
                    const prune_and_regrow_options& counts, std::vector<std::uint64_t>& keep,
                    std::vector<std::uint64_t>& grow) {
    const auto only = [](const view<const T, 2>& layer) { return std::span<const view<const T, 2>>(&layer, 1); };
    kernels::magnitude_threshold<T> threshold{};
    if (!selector.find(only(weight), counts.n_keep, threshold))
        return false;
    keep.assign(std::size_t(mask_words(weight.size())), 0);
    mark_largest(weight, threshold, view<std::uint64_t, 1>(keep));
    if (!selector.find(only(grad), counts.n_grow, threshold, keep.data()))
        return false;
    grow.assign(keep.size(), 0);
    mark_largest(grad, threshold, view<std::uint64_t, 1>(grow), keep.data());
    return true;
}

template <class T>
bool has_nan(const view<const T, 2>& x) noexcept {
    bool found = false;
    for_each_run(x, [&](const T* from, index n, index) {
        bool here = false;
        for (index i = 0; i < n; ++i)
            here |= from[i] != from[i];
        found |= here;
    });
    return found;
}

/// The first error of counts; positions are `size`.
inline void check_counts(const char* op, const prune_and_regrow_options& options, index size) {
    check(options.n_keep >= 0, op, "n_keep", "must not be negative", double(options.n_keep));
    check(options.n_grow >= 0, op, "n_grow", "must not be negative", double(options.n_grow));
    check(options.n_keep <= size - options.n_grow, op, "n_keep", "and n_grow must not exceed the weights",
          double(options.n_keep));
}

/// How many of the `kept` survivors of a layer stay, and how many positions are grown.
inline prune_and_regrow_options layer_counts(index size, index kept, const pruning_step_options& options) noexcept {
    const double drop = options.drop_fraction;
    if (options.counts == regrow_counts::exact) {
        const index grown = index(std::floor(double(kept) * drop));
        return {.n_keep = kept - grown, .n_grow = grown};
    }
    const double density = 1 - double(size - kept) / double(size);
    const index budget = index(density * double(size)), grown = index(density * double(size) * drop);
    return {.n_keep = budget - grown, .n_grow = grown};
}

/// new_weight, new_grad, new_momentum from masks; outputs may be absent, or be their inputs.
template <class T>
void write_regrown(const view<const T, 2>& from, const std::uint64_t* kept, const std::uint64_t* fresh,
                   const view<T, 2>& to) {
    if (!to.is_given())
        return;
    const index columns = to.extent(1);
    for (index r = 0; r < to.extent(0); ++r)
        for (index c = 0, i = r * columns; c < columns; ++c, ++i) {
            const std::uint64_t word = fresh == nullptr ? kept[i / 64] : kept[i / 64] & ~fresh[i / 64];
            to(r, c) = (word >> (i % 64) & 1u) != 0 ? from(r, c) : T(0);
        }
}

} // namespace detail

/// One layer; formulas at the top of this file. momentum, new_grad and new_momentum may be absent. Outputs may be the
/// inputs of their name, new_mask may be mask. Throws std::invalid_argument before anything is written if shapes do not
/// fit, counts are negative or exceed the weights together, or weight or grad holds a NaN.
template <class T>
void prune_and_regrow(in<T, 2> weight, in<T, 2> grad, in<std::uint64_t, 1> mask, in<T, 2> momentum,
                      view<T, 2> new_weight, out<std::uint64_t, 1> new_mask, out<T, 2> new_grad, out<T, 2> new_momentum,
                      const prune_and_regrow_options& options) {
    using detail::check_same_shape;
    const char* const op = "prune_and_regrow";
    check_same_shape(op, "grad", grad, "weight", weight);
    check_same_shape(op, "new_weight", new_weight, "weight", weight);
    detail::check_mask(op, "mask", mask, weight.size());
    detail::check_mask(op, "new_mask", new_mask, weight.size());
    if (new_grad.is_given())
        check_same_shape(op, "new_grad", new_grad, "weight", weight);
    detail::check(new_momentum.is_given() == momentum.is_given(), op, "new_momentum",
                  "must be given (1) exactly where momentum is", new_momentum.is_given() ? 1 : 0);
    if (momentum.is_given()) {
        check_same_shape(op, "momentum", momentum, "weight", weight);
        check_same_shape(op, "new_momentum", new_momentum, "weight", weight);
    }
    detail::check_counts(op, options, weight.size());
    detail::magnitude_selector<T> selector;
    std::vector<std::uint64_t> keep, grow;
    const bool finite = detail::select_regrown<T>(selector, weight, grad, options, keep, grow);
    detail::reject_nan<T>(op, "weight", finite || !detail::has_nan<T>(weight));
    detail::reject_nan<T>(op, "grad", finite);
    for (std::size_t w = 0; w < keep.size(); ++w) {
        keep[w] |= grow[w];
        grow[w] &= ~mask(index(w)); // these start at 0
        new_mask(index(w)) = keep[w];
    }
    detail::write_regrown<T>(weight, keep.data(), grow.data(), new_weight);
    detail::write_regrown<T>(grad, keep.data(), nullptr, new_grad);
    detail::write_regrown<T>(momentum, keep.data(), nullptr, new_momentum);
}

/// A step of the recipe over a whole model; formulas at the top of this file. weights are updated in place, masks are
/// written. Throws std::invalid_argument before anything is written if the lists or shapes do not fit, density lies
/// outside of (0, 1] or drop_fraction outside of [0, 1], or a weight or gradient is NaN.
template <class T>
void pruning_step(std::span<const view<T, 2>> weights, std::span<const view<const T, 2>> grads,
                  std::span<const view<std::uint64_t, 1>> masks, const pruning_step_options& options) {
    const char* const op = "pruning_step";
    detail::check_masks(op, weights, masks);
    detail::check(grads.size() == weights.size(), op, "grads", "must be one per layer", double(grads.size()));
    for (std::size_t i = 0; i < weights.size(); ++i)
        detail::check_same_shape(op, "grads", grads[i], "weights", weights[i]);
    detail::check_density(op, options.density);
    detail::check_fraction(op, "drop_fraction", options.drop_fraction);
    for (const view<const T, 2>& grad : grads)
        detail::reject_nan<T>(op, "grads", !detail::has_nan(grad));

    detail::magnitude_selector<T> selector;
    const std::vector<view<const T, 2>> layers(weights.begin(), weights.end());
    auto threshold =
        detail::rule_threshold<T>(op, selector, layers, {.sparsity = 1 - options.density, .rule = options.rule});
    std::vector<std::uint64_t> keep, grow;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        detail::mark_largest(layers[i], threshold, masks[i]);
        const index size = layers[i].size(), kept = count_mask(masks[i]);
        if (kept == size)
            continue;
        apply_mask<T>(masks[i], weights[i]);
        const prune_and_regrow_options counts = detail::layer_counts(size, kept, options);
        detail::select_regrown<T>(selector, layers[i], grads[i], counts, keep, grow);
        for (std::size_t w = 0; w < keep.size(); ++w) {
            const std::uint64_t chosen = keep[w] | grow[w];
            grow[w] &= ~masks[i](index(w));
            masks[i](index(w)) = chosen;
        }
        detail::write_regrown<T>(layers[i], masks[i].data(), grow.data(), weights[i]);
    }
}

} // namespace DEFT_ISA
} // namespace deft

#endif

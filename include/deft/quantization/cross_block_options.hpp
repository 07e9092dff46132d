/// \file
/// Options of cross_block, and what it tells while it runs.
#ifndef DEFT_QUANTIZATION_CROSS_BLOCK_OPTIONS_HPP
#define DEFT_QUANTIZATION_CROSS_BLOCK_OPTIONS_HPP

#include <deft/quantization/cross_block_archive.hpp>
#include <deft/quantization/cross_block_window.hpp>
#include <deft/quantization/layer_options.hpp>

#include <cmath>
#include <cstdint>

namespace deft::quantization {

struct cross_block_options {
    layer_options layer;
    window_options windows = {};
    window_objective objective = {.com_reduction = loss_reduction::mean};
    learning_rates rates = {};
    index epochs = 3; ///< 0: round to nearest, after CFP if it is asked for
    index batch = 1;  ///< samples of a step
    double warmup = 0.2;
    double beta_start = 20;
    double beta_end = 2;
    beta_decay decay = beta_decay::linear;
    std::uint64_t seed = 0;
};

struct cross_block_progress {
    block_window blocks;
    index window, windows; ///< which one, of how many
    index step, steps;     ///< of the window; step of steps is done
    window_losses losses;  ///< before that step
    bool stepped;          ///< false: the loss was not finite, and nothing was changed
};

enum class reply : unsigned char { proceed, stop };

inline namespace DEFT_ISA {
namespace detail {

inline void check_options(index blocks, const cross_block_options& options) {
    const char* const op = "cross_block";
    const auto positive = [&](double v, const char* name) {
        deft::detail::check(v >= 0 && std::isfinite(v), op, name, "must be finite and not negative", v);
    };
    deft::detail::check_windows(op, blocks, options.windows);
    deft::detail::check_format(op, options.layer.weights);
    deft::detail::check_format(op, {.bits = options.layer.activation_bits});
    deft::detail::check_cfp(op, options.layer.cfp);
    deft::detail::check(options.layer.rank >= 1, op, "rank", "must be at least 1", double(options.layer.rank));
    deft::detail::check(options.epochs >= 0, op, "epochs", "must not be negative", double(options.epochs));
    deft::detail::check(options.batch >= 1, op, "batch", "must be at least 1", double(options.batch));
    deft::detail::check_beta(op, options.beta_start);
    deft::detail::check_beta(op, options.beta_end);
    positive(options.rates.rounding, "rates.rounding");
    positive(options.rates.weight_scale, "rates.weight_scale");
    positive(options.rates.activation_scale, "rates.activation_scale");
    positive(options.objective.homologous_weight, "homologous_weight");
    positive(options.objective.com_weight, "com_weight");
}

/// A saved state goes on with the options that it began with: those of the steps to come too, or the result would be
/// that of neither run.
inline void same_options(archive& a, const cross_block_options& o) {
    const layer_options& layer = o.layer;
    a.same(o.windows.window, "window");
    a.same(o.windows.overlap, "overlap");
    a.same(layer.weights.bits.value, "bits");
    a.same(layer.weights.symmetry, "symmetry");
    a.same(layer.weights.granularity, "granularity");
    a.same(layer.weights.group_size, "group_size");
    a.same(layer.activations, "activations");
    a.same(layer.activation_bits, "activation_bits");
    a.same(layer.rank, "rank");
    a.same(layer.origin, "origin");
    a.same(layer.pass, "pass");
    a.same(layer.stretch.zeta, "zeta");
    a.same(layer.stretch.gamma, "gamma");
    a.same(layer.floor, "floor");
    a.same(layer.truncate, "truncate");
    a.same(layer.scale, "scale");
    a.same(layer.cfp.lambda1, "lambda1");
    a.same(layer.cfp.lambda2, "lambda2");
    a.same(layer.cfp.quartile, "quartile");
    a.same(o.objective.distance.kl_weight, "kl_weight");
    a.same(o.objective.distance.reduction, "reduction");
    a.same(o.objective.homologous_weight, "homologous_weight");
    a.same(o.objective.com_weight, "com_weight");
    a.same(o.objective.com_reduction, "com_reduction");
    a.same(o.rates.rounding, "rates.rounding");
    a.same(o.rates.weight_scale, "rates.weight_scale");
    a.same(o.rates.activation_scale, "rates.activation_scale");
    a.same(o.rates.unit, "rates.unit");
    a.same(o.epochs, "epochs");
    a.same(o.batch, "batch");
    a.same(o.warmup, "warmup");
    a.same(o.beta_start, "beta_start");
    a.same(o.beta_end, "beta_end");
    a.same(o.decay, "decay");
    a.same(o.seed, "seed");
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft::quantization

#endif

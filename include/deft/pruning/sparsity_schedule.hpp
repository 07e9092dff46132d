/// \file
/// How dense a network is at a step of training, and how its layers share that: the schedules of RPG (arXiv:2311.17493;
/// math_policies.py and RigL.py of huawei-noah's code), the cubic one of Zhu and Gupta (arXiv:1710.01878, equation 1),
/// ERK of RigL (arXiv:1911.11134).
///
///     exponential       d^(t/T) for t < T, else d                         t = mask updates done, T = updates
///     warm_exponential  1 for t < q, else exponential at t - q of T - q   q = round_half_even(T warmup)
///     cosine            d + (1 - d)/2 (1 + cos(pi t / E)) for t < E, else d         t = step, E = end_step
///     cubic             1 - [s1 + (s0 - s1)(1 - f)^3], f = (t - begin)/(end - begin) clamped to [0, 1]
///     drop_cosine       alpha/2 (1 + cos(pi t / E)): the fraction of survivors to drop and regrow
///
/// All but drop_cosine are densities. In double only: rounding d^(t/T) to float would move counts of weights.
///
/// The recipe of RPG: an update every 100 steps; update u (from 0), at step t = 100 (u + 1) < E, has density
/// exponential(u) and drops drop_cosine(t), with T = floor(0.9 I) / 100 and E = floor(0.901 I) for I steps in all.
#ifndef DEFT_PRUNING_SPARSITY_SCHEDULE_HPP
#define DEFT_PRUNING_SPARSITY_SCHEDULE_HPP

#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>
#include <vector>

namespace deft {

enum class schedule_kind : unsigned char { exponential, warm_exponential, cosine, cubic, drop_cosine };

/// Each kind reads the fields that its formula names.
struct sparsity_schedule_options {
    required<schedule_kind> kind;
    double density = 1;          ///< d, in (0, 1]: of the end
    index updates = 0;           ///< T
    double warmup = 0;           ///< in [0, 1): part of the updates
    double initial_sparsity = 0; ///< s0, in [0, 1]
    double final_sparsity = 0;   ///< s1, in [0, 1]
    index begin_step = 0;        ///< cubic
    index end_step = 0;          ///< E, and the end of cubic
    double alpha = 0.3;          ///< in [0, 1]
};

/// alluniform: `density` everywhere. uniform: the first of several layers and the linear ones are dense. erk,
/// erk_matrix and er: density proportional to (sum of extents) / numel, (d0 + numel/d0) / numel, (d0 + d1) / (d0 d1),
/// with layers that this would make denser than dense made dense one after the other.
enum class density_kind : unsigned char { alluniform, uniform, erk, erk_matrix, er };

struct layer_densities_options {
    required<density_kind> kind;
    required<double> density;                  ///< in (0, 1]: of all weights together for the last three
    std::span<const index> linear_layers = {}; ///< uniform: which layers are linear
    bool dense_first = false;                  ///< the last three: these start as dense ones
    bool dense_last = false;
};

inline namespace DEFT_ISA {
namespace detail {

inline double round_half_even(double x) noexcept {
    const double below = std::floor(x), rest = x - below;
    return rest > 0.5 || (rest == 0.5 && std::fmod(below, 2) != 0) ? below + 1 : below;
}

inline void check_fraction(const char* op, const char* name, double value) {
    check(value >= 0 && value <= 1, op, name, "must lie in [0, 1]", value);
}

inline void check_density(const char* op, double density) {
    check(density > 0 && density <= 1, op, "density", "must lie in (0, 1]", density);
}

} // namespace detail

/// The density, or drop fraction, at a step; formulas at the top of this file. A step behind the end has the density of
/// the end; drop_cosine follows its formula. Throws std::invalid_argument if step < 0, density lies outside of (0, 1],
/// a sparsity or alpha outside of [0, 1], warmup outside of [0, 1), updates, end_step or the updates after warming up
/// are less than 1, or cubic does not end after it begins.
inline double sparsity_schedule(index step, const sparsity_schedule_options& options) {
    using detail::check;
    const char* const op = "sparsity_schedule";
    check(step >= 0, op, "step", "must not be negative", double(step));
    const double t = double(step), d = options.density, end = double(options.end_step);
    switch (options.kind) {
    case schedule_kind::exponential:
    case schedule_kind::warm_exponential: {
        detail::check_density(op, d);
        check(options.updates >= 1, op, "updates", "must be at least 1", double(options.updates));
        double warm = 0;
        if (options.kind == schedule_kind::warm_exponential) {
            check(options.warmup >= 0 && options.warmup <= 1, op, "warmup", "must lie in [0, 1)", options.warmup);
            warm = detail::round_half_even(double(options.updates) * options.warmup);
        }
        const double total = double(options.updates) - warm;
        check(total >= 1, op, "warmup", "leaves less than 1 update", options.warmup);
        return t < warm ? 1.0 : t - warm < total ? std::pow(d, (t - warm) / total) : d;
    }
    case schedule_kind::cosine:
        detail::check_density(op, d);
        check(options.end_step >= 1, op, "end_step", "must be at least 1", end);
        return t < end ? d + (1 - d) / 2 * (1 + std::cos(std::numbers::pi * t / end)) : d;
    case schedule_kind::cubic: {
        detail::check_fraction(op, "initial_sparsity", options.initial_sparsity);
        detail::check_fraction(op, "final_sparsity", options.final_sparsity);
        check(options.end_step > options.begin_step, op, "end_step", "must lie behind begin_step", end);
        const double begin = double(options.begin_step);
        const double rest = 1 - std::clamp((t - begin) / (end - begin), 0.0, 1.0);
        const double s0 = options.initial_sparsity, s1 = options.final_sparsity;
        return 1 - (s1 + (s0 - s1) * rest * rest * rest);
    }
    case schedule_kind::drop_cosine:
        detail::check_fraction(op, "alpha", options.alpha);
        check(options.end_step >= 1, op, "end_step", "must be at least 1", end);
        return options.alpha / 2 * (1 + std::cos(std::numbers::pi * t / end));
    }
    detail::fail(op, "kind", "is none of the kinds", double(schedule_kind(options.kind)));
}

/// density[l] of every layer, given their shapes; kinds above. Throws std::invalid_argument before anything is written
/// if density does not have one element per layer, the option density lies outside of (0, 1], a shape is empty or has
/// an extent less than 1, or er is asked of a shape with one axis.
inline void layer_densities(std::span<const std::vector<index>> shapes, view<double, 1> density,
                            const layer_densities_options& options) {
    using detail::check;
    const char* const op = "layer_densities";
    const std::size_t count = shapes.size();
    check(density.extent(0) == index(count), op, "density", "elements, must be one per layer",
          double(density.extent(0)));
    detail::check_density(op, options.density);
    const double d = options.density;
    const density_kind kind = options.kind;
    const std::size_t least_rank = kind == density_kind::er ? 2 : 1;
    std::vector<double> sizes, raw;
    for (const std::vector<index>& shape : shapes) {
        check(shape.size() >= least_rank, op, "shapes", "axes, too few", double(shape.size()));
        double size = 1, sum = 0;
        for (const index extent : shape) {
            check(extent >= 1, op, "shapes", "an extent, must be at least 1", double(extent));
            size *= double(extent);
            sum += double(extent);
        }
        const double d0 = double(shape[0]);
        sizes.push_back(size);
        raw.push_back(kind == density_kind::erk          ? sum / size
                      : kind == density_kind::erk_matrix ? (d0 + std::floor(size / d0)) / size
                      : kind == density_kind::er         ? (d0 + double(shape[1])) / (d0 * double(shape[1]))
                                                         : 0.0);
    }
    std::vector<bool> dense(count, false);
    double scale = 0; // density = scale raw, of layers that are not dense
    if (kind == density_kind::uniform) {
        for (std::size_t i = 0; i < count; ++i)
            dense[i] = (i == 0 && count > 1) || std::find(options.linear_layers.begin(), options.linear_layers.end(),
                                                          index(i)) != options.linear_layers.end();
    } else if (kind != density_kind::alluniform && count > 0) {
        dense[0] = options.dense_first;
        dense[count - 1] = dense[count - 1] || options.dense_last;
        for (;;) {
            double wanted = 0, divisor = 0, top = 0;
            for (std::size_t i = 0; i < count; ++i)
                if (dense[i]) {
                    wanted -= std::trunc(sizes[i] * (1 - d));
                } else {
                    wanted += std::trunc(sizes[i] * d);
                    divisor += raw[i] * sizes[i];
                    top = std::max(top, raw[i]);
                }
            scale = wanted / divisor;
            if (divisor == 0 || top * scale <= 1)
                break;
            for (std::size_t i = 0; i < count; ++i)
                dense[i] = dense[i] || raw[i] == top;
        }
    }
    const bool scaled = kind != density_kind::alluniform && kind != density_kind::uniform;
    for (std::size_t i = 0; i < count; ++i)
        density(index(i)) = dense[i] ? 1.0 : scaled ? scale * raw[i] : d;
}

} // namespace DEFT_ISA
} // namespace deft

#endif

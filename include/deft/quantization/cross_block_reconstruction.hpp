/// \file
/// The parts of CBQ's reconstruction of several blocks together (arXiv:2312.07950, section 3): the sliding window, the
/// distance between the outputs of a full-precision and a quantised window, and the optimiser's step. What uses them on
/// a model: cross_block.hpp.
///
/// Windows of w of B blocks that overlap by o: [k (w - o), k (w - o) + w); the last is shifted back to end at B; w >= B
/// gives one window. Distance, softmax over features, h1 the target and h2 the prediction, both `[R, C]`:
///
///     E(h1, h2) = c2 ||h1 - h2||^2 + kl_weight ck KL(softmax h1 || softmax h2)
///     mean: c2 = 1 / (R C), ck = 1 / R      sum: both 1
///
/// Elements are float or double.
#ifndef DEFT_QUANTIZATION_CROSS_BLOCK_RECONSTRUCTION_HPP
#define DEFT_QUANTIZATION_CROSS_BLOCK_RECONSTRUCTION_HPP

#include <deft/kernels/block_distance.hpp>
#include <deft/parallel.hpp>
#include <deft/quantization/quant_format.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <type_traits>

namespace deft {

/// Blocks [begin, end).
struct block_window {
    index begin, end;
};

struct window_options {
    index window = 2; ///< blocks that are learned together
    index overlap = 1;
};

enum class loss_reduction : unsigned char { mean, sum };

struct block_distance_options {
    double kl_weight = 1;
    loss_reduction reduction = loss_reduction::mean;
};

struct adam_options {
    double rate = 1e-3;
    double beta1 = 0.9;
    double beta2 = 0.999;
    double epsilon = 1e-8;
};

inline namespace DEFT_ISA {
namespace detail {

inline void check_windows(const char* op, index blocks, const window_options& o) {
    check(blocks > 0, op, "blocks", "must be positive", double(blocks));
    check(o.window > 0, op, "window", "must be positive", double(o.window));
    check(o.overlap >= 0 && o.overlap < o.window, op, "overlap", "must be below window and not negative",
          double(o.overlap));
}

template <class T, class Executor>
double measure_distance(const char* op, const view<const T, 2>& target, const view<const T, 2>& pred, double grad_loss,
                        const view<T, 2>& grad_pred, const block_distance_options& o, Executor& executor) {
    static_assert(std::is_floating_point_v<T>, "block_distance takes float or double");
    check_same_shape(op, "pred", pred, "target", target);
    check(std::isfinite(o.kl_weight), op, "kl_weight", "must be finite", o.kl_weight);
    const index rows = target.extent(0), columns = target.extent(1);
    const bool mean = o.reduction == loss_reduction::mean && target.size() > 0;
    const double c2 = mean ? 1 / (double(rows) * double(columns)) : 1, ck = mean ? 1 / double(rows) : 1;
    double totals[std::size_t(quant_row_spans)] = {};
    const auto run = [&](auto divergence) {
        for_each_row_span(rows, 4 * columns, executor, [&](index span, index begin, index end) {
            for (index r = begin; r < end; ++r) {
                const kernels::row_distance d = kernels::block_distance<divergence.value, simd::default_arch, T>(
                    target.data() + r * target.stride(0), pred.data() + r * pred.stride(0), columns, T(grad_loss * c2),
                    T(grad_loss * o.kl_weight * ck),
                    grad_pred.is_given() ? grad_pred.data() + r * grad_pred.stride(0) : nullptr);
                totals[span] += c2 * d.squares + o.kl_weight * ck * d.divergence;
            }
        });
    };
    if (o.kl_weight != 0)
        run(std::true_type{});
    else
        run(std::false_type{});
    for (index span = 1; span < quant_row_spans; ++span)
        totals[0] += totals[span];
    return totals[0];
}

} // namespace detail

/// How many windows there are. Throws std::invalid_argument if blocks or window is not positive, or overlap is not in
/// [0, window).
inline index window_count(index blocks, const window_options& options) {
    detail::check_windows("window_schedule", blocks, options);
    if (options.window >= blocks)
        return 1;
    const index stride = options.window - options.overlap;
    return 1 + (blocks - options.window + stride - 1) / stride;
}

/// Window `i` of window_count(blocks, options); throws like it, and if there is no such window.
inline block_window window_schedule(index blocks, index i, const window_options& options) {
    const index count = window_count(blocks, options);
    detail::check(i >= 0 && i < count, "window_schedule", "i", "must be below the number of windows", double(i));
    if (options.window >= blocks)
        return {0, blocks};
    const index begin = i + 1 == count ? blocks - options.window : i * (options.window - options.overlap);
    return {begin, begin + options.window};
}

/// E(target, pred). Entries of any size are valid: maxima are subtracted. NaN and infinities give a loss that is not
/// finite: report it, and do not step. Throws std::invalid_argument if shapes do not fit or kl_weight is not finite.
/// Sums in blocks of T, then in double. The same bits for every executor.
template <class T, executor Executor = serial_executor>
double block_distance(in<T, 2> target, in<T, 2> pred, const block_distance_options& options = {},
                      Executor&& executor = Executor()) {
    return detail::measure_distance<T>("block_distance", target, pred, 1, absent, options, executor);
}

/// The gradient of block_distance by pred for the cotangent grad_loss, and, since it is known then, the loss:
///
///     grad_pred = grad_loss (2 c2 (h2 - h1) + kl_weight ck (softmax h2 - softmax h1))
///
/// grad_pred overlaps nothing. Throws like block_distance, before anything is written.
template <class T = void, class G = view<T, 2>, executor Executor = serial_executor>
double block_distance_backward(in<element_t<T, G>, 2> target, in<element_t<T, G>, 2> pred, double grad_loss,
                               G&& grad_pred_out, const block_distance_options& options = {},
                               Executor&& executor = Executor()) {
    using S = element_t<T, G>;
    const view<S, 2> grad_pred(grad_pred_out);
    detail::check_same_shape("block_distance_backward", "grad_pred", grad_pred, "target", target);
    return detail::measure_distance<S>("block_distance_backward", target, pred, grad_loss, grad_pred, options,
                                       executor);
}

/// Step t = 1, 2, ... of Adam (arXiv:1412.6980) without weight decay: updates the parameters and their two moments,
/// which are 0 before the first step. All have one size. Throws std::invalid_argument if they do not, or t < 1.
template <class T = void, class P = view<T, 1>>
void adam_step(in<element_t<T, P>, 1> gradient, index t, P&& parameters_out, out<element_t<T, P>, 1> first_moment,
               out<element_t<T, P>, 1> second_moment, const adam_options& options = {}) {
    using S = element_t<T, P>;
    const char* const op = "adam_step";
    const view<S, 1> parameters(parameters_out);
    detail::check(t >= 1, op, "t", "must be at least 1", double(t));
    detail::check_same_shape(op, "gradient", gradient, "parameters", parameters);
    detail::check_same_shape(op, "first_moment", first_moment, "parameters", parameters);
    detail::check_same_shape(op, "second_moment", second_moment, "parameters", parameters);
    kernels::adam_step<simd::default_arch, S>(
        gradient.data(), gradient.extent(0), S(options.beta1), S(1 - options.beta1), S(options.beta2),
        S(1 - options.beta2), S(1 / (1 - std::pow(options.beta1, double(t)))),
        S(1 / (1 - std::pow(options.beta2, double(t)))), S(options.rate), S(options.epsilon), parameters.data(),
        first_moment.data(), second_moment.data());
}

} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// The regulariser that drives learned roundings to 0 or 1, and the schedule of its exponent: AdaRound
/// (arXiv:2004.10568, eq. 24) over the logits of CBQ (arXiv:2312.07950), V = A1 A2 (+ V0):
///
///     L_com = sum over i, j of (1 - |2h - 1|^beta),    h = clip(sigma(V) (zeta - gamma) + gamma, 0, 1)
///
/// a1: `[O, r]`; a2: `[r, I]`; v0: `[O, I]` or absent; r >= 1. Elements are float or double. A sum: its weight must
/// shrink with the matrix. lora_rounding_backward adds its gradient in the same pass.
#ifndef DEFT_QUANTIZATION_ROUNDING_LOSS_HPP
#define DEFT_QUANTIZATION_ROUNDING_LOSS_HPP

#include <deft/quantization/rounding_logits.hpp>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace deft {

struct rounding_loss_options {
    double beta = 2; ///< at least 1
    rounding_stretch stretch = {};
};

/// How beta falls between its ends. BRECQ documents a cosine and implements a line: the default.
enum class beta_decay : unsigned char { linear, cosine };

struct beta_schedule_options {
    required<index> t_max;
    double warmup = 0.2; ///< share of the steps before the regulariser starts
    double beta_start = 20;
    double beta_end = 2;
    beta_decay decay = beta_decay::linear;
};

struct beta_step {
    double beta;
    bool is_active; ///< the regulariser counts
};

inline namespace DEFT_ISA {
namespace detail {

inline void check_beta(const char* op, double beta) {
    check(beta >= 1 && std::isfinite(beta), op, "beta", "must be at least 1 and finite", beta);
}

} // namespace detail

/// L_com. Throws std::invalid_argument if shapes do not fit, r = 0, zeta <= 1, gamma >= 0 or beta < 1. Sums in blocks
/// of T, then in double. The same bits for every executor.
template <class T, executor Executor = serial_executor>
double rounding_loss(in<T, 2> a1, in<T, 2> a2, in<T, 2> v0, const rounding_loss_options& options = {},
                     Executor&& executor = Executor()) {
    const char* const op = "rounding_loss";
    const auto logits = detail::checked_logits<T>(op, a1, a2, v0, options.stretch);
    detail::check_beta(op, options.beta);
    double totals[std::size_t(detail::quant_row_spans)] = {};
    detail::with_soft(logits, [&](auto kind) {
        detail::for_each_row_span(logits.rows(), logits.columns(), executor, [&](index span, index begin, index end) {
            for (index r = begin; r < end; ++r)
                totals[span] += kernels::rounding_loss<kind.value, simd::default_arch, T>(
                    logits.row(r), 0, logits.columns(), logits.curve, T(options.beta));
        });
    });
    for (index span = 1; span < detail::quant_row_spans; ++span)
        totals[0] += totals[span];
    return totals[0];
}

/// Gradients of rounding_loss for the cotangent grad_loss:
///
///     grad_V = -2 beta grad_loss |2h - 1|^(beta - 1) sign(2h - 1) dh/dV      0 where h is 0, 1/2 or 1
///     grad_a1 = grad_V a2^T      grad_a2 = a1^T grad_V
///
/// Outputs overlap nothing. Throws like rounding_loss. The same bits for every executor.
template <class T = void, class G = view<T, 2>, executor Executor = serial_executor>
void rounding_loss_backward(in<element_t<T, G>, 2> a1, in<element_t<T, G>, 2> a2, in<element_t<T, G>, 2> v0,
                            double grad_loss, G&& grad_a1_out, out<element_t<T, G>, 2> grad_a2,
                            const rounding_loss_options& options = {}, Executor&& executor = Executor()) {
    using S = element_t<T, G>;
    const char* const op = "rounding_loss_backward";
    const view<S, 2> grad_a1(grad_a1_out);
    const auto logits = detail::checked_logits<S>(op, a1, a2, v0, options.stretch);
    detail::check_beta(op, options.beta);
    detail::check_same_shape(op, "grad_a1", grad_a1, "a1", a1);
    detail::check_same_shape(op, "grad_a2", grad_a2, "a2", a2);
    const kernels::rounding_cotangent<S> from{nullptr, S(grad_loss), S(options.beta), false, false};
    detail::with_soft(logits, [&](auto kind) {
        detail::rounding_factor_gradients<S>(
            logits, grad_a1, grad_a2, executor, [&](index, index r, index c, index count, S* to, auto) {
                kernels::lora_round_gradient<kind.value, simd::default_arch, S>(
                    nullptr, logits.row(r), c, count, {S(1), S(0), S(0), S(0)}, logits.curve, from, to);
            });
    });
}

/// beta at step t = 1, 2, ..., t_max, and whether the regulariser counts: not before start = warmup t_max, where beta
/// is beta_start; from there to beta_end, with rel = min(1, (t - start) / (t_max - start)),
///
///     linear: beta_end + (beta_start - beta_end) (1 - rel)      cosine: ... (1 + cos(pi rel)) / 2
///
/// Throws std::invalid_argument if t_max <= 0.
inline beta_step beta_schedule(index t, const beta_schedule_options& options) {
    const double t_max = double(options.t_max.value), start = options.warmup * t_max;
    detail::check(t_max > 0, "beta_schedule", "t_max", "must be positive", t_max);
    if (double(t) < start)
        return {options.beta_start, false};
    const double rel = t_max > start ? std::min(1.0, (double(t) - start) / (t_max - start)) : 1.0;
    const double share = options.decay == beta_decay::linear ? 1 - rel : 0.5 * (1 + std::cos(std::numbers::pi * rel));
    return {options.beta_end + (options.beta_start - options.beta_end) * share, true};
}

} // namespace DEFT_ISA
} // namespace deft

#endif

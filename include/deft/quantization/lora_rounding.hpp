/// \file
/// LoRA-Rounding of CBQ (arXiv:2312.07950, section 3): whether each weight is rounded down or up is learned, through
/// logits that are a product of two thin factors. AdaRound (arXiv:2004.10568) learns a logit per weight.
///
///     V = A1 A2 (+ V0)      h = clip(sigma(V) (zeta - gamma) + gamma, 0, 1)      hard: h = 1 if V >= 0, else 0
///     c = floor(w / s) + h + z      q = clip(c, qmin, qmax)      w_hat = s (q - z)
///
/// w, w_hat: `[O, I]`; a1: `[O, r]`; a2: `[r, I]`, r >= 1; v0, h: `[O, I]` or absent; q: `[O, I]` of integers, hard
/// form only, or absent; scale s, zero_point z: see quant_format.hpp. Elements are float or double.
///
/// The factors start as A1 random, A2 = 0. Without V0, as in the paper, h is 1/2 everywhere then; with V0 of
/// rounding_start, w_hat = w, as in AdaRound. V and h never lie in memory.
#ifndef DEFT_QUANTIZATION_LORA_ROUNDING_HPP
#define DEFT_QUANTIZATION_LORA_ROUNDING_HPP

#include <deft/quantization/fake_quantize.hpp>
#include <deft/quantization/rounding_logits.hpp>
#include <deft/quantization/rounding_loss.hpp>

#include <cmath>
#include <type_traits>

namespace deft {

enum class rounding_form : unsigned char { soft, hard };

/// The derivative of floor(w / s) by w / s: 1 (straight through, which learns step sizes better), or 0 (what it is).
enum class floor_gradient : unsigned char { ste, zero };

struct lora_rounding_options {
    quant_format format;
    rounding_stretch stretch = {};
    rounding_form form = rounding_form::soft;
    floor_gradient floor = floor_gradient::ste;
    double loss_weight = 0; ///< backward: of rounding_loss, whose gradient is added in the same pass
    double beta = 2;        ///< of rounding_loss
};

inline namespace DEFT_ISA {
namespace detail {

template <class T>
rounding_logits<T> checked_rounding(const char* op, const view<const T, 2>& w, const view<const T, 2>& a1,
                                    const view<const T, 2>& a2, const view<const T, 2>& v0,
                                    const view<const T, 2>& scale, const view<const quant_code, 2>& zero_point,
                                    const lora_rounding_options& options) {
    check_format(op, options.format);
    check_extent(op, "a1", a1, 0, w.extent(0), "extent 0 of w");
    check_extent(op, "a2", a2, 1, w.extent(1), "extent 1 of w");
    const rounding_logits<T> logits = checked_logits<T>(op, a1, a2, v0, options.stretch);
    check_scale<T>(op, scale, zero_point, w, options.format);
    return logits;
}

} // namespace detail

/// w_hat, h unless absent, and for the hard form the codes q unless absent; formulas and shapes at the top of this
/// file.
///
/// w_hat may be w. |V| of any size is valid. Throws std::invalid_argument before anything is written if a shape does
/// not fit, r = 0, zeta <= 1, gamma >= 0, a step is not positive and finite, bits is not 2 .. 8, or q is given for the
/// soft form. Error of h: 2e-7 (float), 1e-15 (double), besides that of V. The same bits for every executor.
template <class T = void, class W = view<T, 2>, executor Executor = serial_executor>
void lora_rounding(in<element_t<T, W>, 2> w, in<element_t<T, W>, 2> a1, in<element_t<T, W>, 2> a2,
                   in<element_t<T, W>, 2> v0, in<element_t<T, W>, 2> scale, view<const quant_code, 2> zero_point,
                   W&& w_hat_out, out<element_t<T, W>, 2> h, view<quant_code, 2> q,
                   const lora_rounding_options& options, Executor&& executor = Executor()) {
    using S = element_t<T, W>;
    using kernels::rounding_kind;
    const char* const op = "lora_rounding";
    const view<S, 2> w_hat(w_hat_out);
    const auto logits = detail::checked_rounding<S>(op, w, a1, a2, v0, scale, zero_point, options);
    detail::check_same_shape(op, "w_hat", w_hat, "w", w);
    if (h.is_given())
        detail::check_same_shape(op, "h", h, "w", w);
    if (q.is_given())
        detail::check_same_shape(op, "q", q, "w", w);
    detail::check(!q.is_given() || options.form == rounding_form::hard, op, "q", "there are no codes of the soft form",
                  double(q.is_given()));
    const detail::quant_levels levels = detail::levels_of(options.format);
    const detail::quant_blocks blocks(w.extent(0), w.extent(1), options.format);
    const auto run = [&](auto kind, auto streaming) {
        executor.parallel_for(w.extent(0), detail::rows_per_task(w.extent(1)), [&](index begin, index end) {
            for (index r = begin; r < end; ++r)
                blocks.for_each_group(0, w.extent(1), [&](index g, index c, index count) {
                    const index sr = blocks.scale_row(r);
                    const detail::quant_step<S> step{scale(sr, g), zero_point(sr, g)};
                    kernels::lora_round<kind.value, simd::default_arch, streaming.value, S>(
                        w.data() + r * w.stride(0), logits.row(r), c, count, step.grid(levels), logits.curve,
                        w_hat.data() + r * w_hat.stride(0), h.is_given() ? h.data() + r * h.stride(0) : nullptr,
                        q.is_given() ? q.data() + r * q.stride(0) : nullptr);
                });
            if constexpr (streaming.value)
                simd::stream_end();
        });
    };
    detail::with_streaming<S>(w, w_hat, [&](auto streaming) {
        if (options.form == rounding_form::hard)
            run(std::integral_constant<rounding_kind, rounding_kind::hard>{}, streaming);
        else
            detail::with_soft(logits, [&](auto kind) { run(kind, streaming); });
    });
}

/// Gradients for the cotangent grad_w_hat = G, with m = 1 where qmin <= c <= qmax, else 0, and dh/dV
/// taken as 0 where h is clipped:
///
///     grad_V = G s m dh/dV (+ loss_weight times that of rounding_loss)      grad_a1 = grad_V a2^T
///     grad_a2 = a1^T grad_V      grad_s = sum over the elements of s of G ((q - z) - m w / s)   (ste)
///                                         sum of G (q - z)                                      (zero)
///
/// For the hard form c and q are its own, and dh/dV is still that of the soft one: straight through the step at V = 0.
/// Outputs overlap nothing. Throws like lora_rounding, and if beta < 1. The same bits for every executor.
template <class T = void, class G = view<T, 2>, executor Executor = serial_executor>
void lora_rounding_backward(in<element_t<T, G>, 2> w, in<element_t<T, G>, 2> a1, in<element_t<T, G>, 2> a2,
                            in<element_t<T, G>, 2> v0, in<element_t<T, G>, 2> scale,
                            view<const quant_code, 2> zero_point, in<element_t<T, G>, 2> grad_w_hat, G&& grad_a1_out,
                            out<element_t<T, G>, 2> grad_a2, out<element_t<T, G>, 2> grad_scale,
                            const lora_rounding_options& options, Executor&& executor = Executor()) {
    using S = element_t<T, G>;
    const char* const op = "lora_rounding_backward";
    const view<S, 2> grad_a1(grad_a1_out);
    const auto logits = detail::checked_rounding<S>(op, w, a1, a2, v0, scale, zero_point, options);
    detail::check_beta(op, options.beta);
    detail::check_same_shape(op, "grad_w_hat", grad_w_hat, "w", w);
    detail::check_same_shape(op, "grad_a1", grad_a1, "a1", a1);
    detail::check_same_shape(op, "grad_a2", grad_a2, "a2", a2);
    detail::check_same_shape(op, "grad_scale", grad_scale, "scale", scale);
    const detail::quant_levels levels = detail::levels_of(options.format);
    const detail::quant_blocks blocks(w.extent(0), w.extent(1), options.format);
    double totals[std::size_t(detail::quant_row_spans)] = {}; // per_tensor
    for (index r = 0; r < grad_scale.extent(0); ++r)
        std::fill_n(grad_scale.data() + r * grad_scale.stride(0), grad_scale.extent(1), S(0));
    detail::with_soft(logits, [&](auto kind) {
        detail::rounding_factor_gradients<S>(
            logits, grad_a1, grad_a2, executor,
            [&](index span, index r, index c, index count, S* to, auto wants_scale) {
                const kernels::rounding_cotangent<S> from{
                    grad_w_hat.data() + r * grad_w_hat.stride(0), S(options.loss_weight), S(options.beta),
                    options.floor == floor_gradient::ste, options.form == rounding_form::hard};
                blocks.for_each_group(c, c + count, [&](index g, index at, index n) {
                    const index sr = blocks.scale_row(r);
                    const detail::quant_step<S> step{scale(sr, g), zero_point(sr, g)};
                    const double sum = kernels::lora_round_gradient<kind.value, simd::default_arch, S>(
                        w.data() + r * w.stride(0), logits.row(r), at, n, step.grid(levels), logits.curve, from,
                        to + (at - c));
                    if (!wants_scale.value)
                        return;
                    if (blocks.per_tensor)
                        totals[span] += sum;
                    else
                        grad_scale(r, g) += S(sum);
                });
            });
    });
    if (!blocks.per_tensor)
        return;
    for (index span = 1; span < detail::quant_row_spans; ++span)
        totals[0] += totals[span];
    grad_scale(0, 0) = S(totals[0]);
}

/// The constant V0 with which h is the fraction of w / s, and so w_hat = w, as long as A2 = 0:
/// V0 = -log((zeta - gamma) / (frac(w / s) - gamma) - 1). Throws like lora_rounding.
template <class T = void, class V = view<T, 2>, executor Executor = serial_executor>
void rounding_start(in<element_t<T, V>, 2> w, in<element_t<T, V>, 2> scale, view<const quant_code, 2> zero_point,
                    V&& v0_out, const quant_format& format, const rounding_stretch& stretch = {},
                    Executor&& executor = Executor()) {
    using S = element_t<T, V>;
    const char* const op = "rounding_start";
    const view<S, 2> v0(v0_out);
    detail::check_format(op, format);
    detail::check_scale<S>(op, scale, zero_point, w, format);
    detail::check_same_shape(op, "v0", v0, "w", w);
    detail::check(stretch.zeta > 1 && stretch.gamma < 0, op, "zeta", "must be above 1, and gamma negative",
                  stretch.zeta);
    const detail::quant_blocks blocks(w.extent(0), w.extent(1), format);
    const S span = S(stretch.zeta - stretch.gamma), gamma = S(stretch.gamma);
    executor.parallel_for(w.extent(0), detail::rows_per_task(16 * w.extent(1)), [&](index begin, index end) {
        for (index r = begin; r < end; ++r)
            blocks.for_each_group(0, w.extent(1), [&](index g, index c, index count) {
                const S s = scale(blocks.scale_row(r), g);
                for (index j = c; j < c + count; ++j) {
                    const S u = w(r, j) / s;
                    v0(r, j) = -std::log(span / (u - std::floor(u) - gamma) - 1);
                }
            });
    });
}

} // namespace DEFT_ISA
} // namespace deft

#endif

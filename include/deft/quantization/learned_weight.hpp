/// \file
/// A weight matrix whose rounding and step sizes are being learned: the half of learned_linear.hpp that knows nothing
/// of activations.
///
///     W_hat = lora_rounding(clip(W) c),   c: channel scales of CFP, or 1
///
/// Memory while it is learned: the weight, W_hat, its gradient and the start V0; once frozen, codes of a byte.
#ifndef DEFT_QUANTIZATION_LEARNED_WEIGHT_HPP
#define DEFT_QUANTIZATION_LEARNED_WEIGHT_HPP

#include <deft/quantization/cfp_outliers.hpp>
#include <deft/quantization/cross_block_archive.hpp>
#include <deft/quantization/cross_block_reconstruction.hpp>
#include <deft/quantization/layer_options.hpp>
#include <deft/quantization/lora_rounding.hpp>
#include <deft/quantization/rounding_loss.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

namespace deft::quantization {

inline namespace DEFT_ISA {

/// Something learned: values, gradient, the moments of Adam.
template <class T>
struct parameter {
    std::vector<T> value, gradient, first, second;

    void resize(std::size_t n) {
        for (std::vector<T>* v : {&value, &gradient, &first, &second})
            v->assign(n, T(0));
    }
    void forget() {
        std::fill(first.begin(), first.end(), T(0));
        std::fill(second.begin(), second.end(), T(0));
    }
    void step(index t, double rate) {
        deft::adam_step<T>(gradient, t, value, first, second, {.rate = rate});
    }
    /// For step sizes: one that would not stay positive is halved instead, down to 1e-5.
    void step_positive(index t, double rate) {
        const std::vector<T> before = value;
        step(t, rate);
        for (std::size_t i = 0; i < before.size(); ++i)
            if (!(value[i] > T(0)))
                value[i] = std::max(before[i] / T(2), T(1e-5)); // quant_params has the same floor
    }
};

template <class T>
class learned_weight {
public:
    layer_options options;
    index outputs, inputs;
    bool is_frozen = false;
    double scale_unit = 1;                    ///< the mean step at the start: what a relative rate is relative to
    std::vector<T> weight, v0, channel_scale; ///< weight: after CFP; the other two may be empty
    parameter<T> a1, a2, scale;
    std::vector<quant_code> zero_point;
    std::vector<std::uint8_t> codes; ///< once frozen

    learned_weight(const view<const T, 2>& w, const layer_options& o)
        : options(o), outputs(w.extent(0)), inputs(w.extent(1)), original_(w) {}

    const view<const T, 2>& original() const {
        return original_;
    }
    /// What lora_rounding makes of the factors, or the codes stand for; since begin_step().
    view<T, 2> w_hat() {
        return matrix(w_hat_);
    }
    /// Its gradient, which a backward pass adds to.
    view<T, 2> grad_w_hat() {
        return matrix(grad_w_hat_);
    }

    /// Memory of everything that is learned, zero.
    void allocate() {
        a1.resize(std::size_t(outputs * options.rank));
        a2.resize(std::size_t(options.rank * inputs));
        const deft::detail::quant_blocks b = blocks();
        scale.resize(std::size_t(b.scale_rows * b.scale_columns));
        zero_point.assign(scale.value.size(), 0);
    }
    /// The weight as it is learned from, before CFP.
    void copy_weight() {
        weight.resize(std::size_t(outputs * inputs));
        for (index o = 0; o < outputs; ++o)
            std::copy_n(original_.data() + o * original_.stride(0), inputs, weight.data() + o * inputs);
    }

    /// CFP, step sizes by min-max, random A1 and A2 = 0, after allocate(). `origin` fills V0.
    void prepare(std::uint64_t seed) {
        copy_weight();
        if (options.truncate != cfp_weights::none) {
            std::vector<T> clip(std::size_t(options.truncate == cfp_weights::row ? outputs : 1));
            deft::cfp_truncate_weight<T>(matrix(weight), matrix(weight), clip,
                                         options.truncate == cfp_weights::row ? cfp_scope::row : cfp_scope::matrix,
                                         options.cfp);
        }
        // After truncation, which would take the columns that grow for outliers.
        for (std::size_t i = 0; !channel_scale.empty() && i < weight.size(); ++i)
            weight[i] *= channel_scale[i % channel_scale.size()];
        deft::quant_params<T>(matrix(weight), scales(scale.value), zeros(), {.format = options.weights});
        scale_unit = std::accumulate(scale.value.begin(), scale.value.end(), 0.0) / double(scale.value.size());
        std::mt19937_64 engine(seed);
        for (T& v : a1.value)
            v = T(normal(engine));
        if (options.origin == rounding_origin::fraction) {
            v0.resize(weight.size());
            deft::rounding_start<T>(matrix(weight), scales(scale.value), zeros(), matrix(v0), options.weights,
                                    options.stretch);
        }
    }

    /// W_hat, and gradients 0: before the samples of a step.
    void begin_step() {
        w_hat_.resize(std::size_t(outputs * inputs));
        if (is_frozen)
            return dequantise();
        deft::lora_rounding<T>(matrix(weight), factor1(a1.value), factor2(a2.value), start(), scales(scale.value),
                               zeros(), matrix(w_hat_), absent, absent, rounding());
        grad_w_hat_.assign(w_hat_.size(), T(0));
    }

    /// Gradients of the factors and steps from that of W_hat; loss_weight 0: without the regulariser.
    void finish_step(double loss_weight, double beta) {
        lora_rounding_options o = rounding();
        o.loss_weight = loss_weight;
        o.beta = beta;
        deft::lora_rounding_backward<T>(matrix(weight), factor1(a1.value), factor2(a2.value), start(),
                                        scales(scale.value), zeros(), matrix(grad_w_hat_), factor1(a1.gradient),
                                        factor2(a2.gradient), scales(scale.gradient), o);
    }
    double rounding_loss(double beta) const {
        return deft::rounding_loss<T>(in<T, 2>(a1.value.data(), {outputs, options.rank}),
                                      in<T, 2>(a2.value.data(), {options.rank, inputs}), start(),
                                      {.beta = beta, .stretch = options.stretch});
    }

    /// Step t of Adam.
    void step(index t, double rate_rounding, double rate_scale) {
        a1.step(t, rate_rounding);
        a2.step(t, rate_rounding);
        scale.step_positive(t, rate_scale);
    }
    void forget_moments() {
        for (parameter<T>* p : {&a1, &a2, &scale})
            p->forget();
    }

    /// Rounds for good; of what was learned, codes and steps remain.
    void freeze() {
        lora_rounding_options o = rounding();
        o.form = rounding_form::hard;
        std::vector<quant_code> q(weight.size());
        w_hat_.resize(weight.size());
        deft::lora_rounding<T>(matrix(weight), factor1(a1.value), factor2(a2.value), start(), scales(scale.value),
                               zeros(), matrix(w_hat_), absent, {q.data(), {outputs, inputs}}, o);
        const quant_code shift = code_shift();
        codes.resize(q.size());
        std::transform(q.begin(), q.end(), codes.begin(), [=](quant_code c) { return std::uint8_t(c + shift); });
        is_frozen = true;
        for (std::vector<T>* v : {&weight, &v0, &w_hat_, &grad_w_hat_, &a1.value, &a2.value})
            std::vector<T>().swap(*v);
        for (parameter<T>* p : {&a1, &a2, &scale})
            for (std::vector<T>* v : {&p->gradient, &p->first, &p->second})
                std::vector<T>().swap(*v);
    }
    /// W_hat, which only a running block needs.
    void release_pass() {
        std::vector<T>().swap(w_hat_);
    }

    /// Added to a code it is the byte in `codes`.
    quant_code code_shift() const {
        return quant_code(-deft::detail::levels_of(options.weights).least);
    }

private:
    deft::detail::quant_blocks blocks() const {
        return {outputs, inputs, options.weights};
    }
    lora_rounding_options rounding() const {
        return {.format = options.weights,
                .stretch = options.stretch,
                .form = options.pass == rounding_pass::hard ? rounding_form::hard : rounding_form::soft,
                .floor = options.floor};
    }
    view<T, 2> matrix(std::vector<T>& v) const {
        return {v.data(), {outputs, inputs}};
    }
    view<T, 2> factor1(std::vector<T>& v) const {
        return {v.data(), {outputs, options.rank}};
    }
    view<T, 2> factor2(std::vector<T>& v) const {
        return {v.data(), {options.rank, inputs}};
    }
    view<T, 2> scales(std::vector<T>& v) const {
        return {v.data(), {blocks().scale_rows, blocks().scale_columns}};
    }
    view<quant_code, 2> zeros() {
        return {zero_point.data(), {blocks().scale_rows, blocks().scale_columns}};
    }
    in<T, 2> start() const {
        return v0.empty() ? in<T, 2>(absent) : in<T, 2>(v0.data(), {outputs, inputs});
    }

    void dequantise() {
        const deft::detail::quant_blocks all = blocks();
        for (index o = 0; o < outputs; ++o)
            all.for_each_group(0, inputs, [&](index g, index c, index count) {
                const std::size_t s = std::size_t(all.scale_row(o) * all.scale_columns + g);
                const quant_code zero = zero_point[s] + code_shift();
                for (std::size_t i = std::size_t(o * inputs + c), end = i + std::size_t(count); i < end; ++i)
                    w_hat_[i] = scale.value[s] * T(quant_code(codes[i]) - zero);
            });
    }

    /// Box and Muller's; the standard's distributions differ between libraries.
    static double normal(std::mt19937_64& engine) {
        const auto uniform = [&] { return (double(engine() >> 11) + 0.5) * 0x1p-53; };
        const double radius = std::sqrt(-2 * std::log(uniform()));
        return radius * std::cos(6.283185307179586 * uniform());
    }

    view<const T, 2> original_;
    std::vector<T> w_hat_, grad_w_hat_;
};

} // namespace DEFT_ISA
} // namespace deft::quantization

#endif

/// \file
/// A linear layer whose quantisation is being learned: rounding factors, step sizes of weights and activations, their
/// gradients and moments. The unit that cross_block.hpp is made of.
///
///     y = Q(x / c) W_hat^T,   W_hat = lora_rounding(clip(W) c)      c: channel scales of CFP, or 1
///
/// Memory per layer while it is learned: the weight, W_hat, its gradient and the start V0; once frozen, codes of a
/// byte.
#ifndef DEFT_QUANTIZATION_LEARNED_LINEAR_HPP
#define DEFT_QUANTIZATION_LEARNED_LINEAR_HPP

#include <deft/linalg.hpp>
#include <deft/quantization/block.hpp>
#include <deft/quantization/cfp_outliers.hpp>
#include <deft/quantization/cross_block_archive.hpp>
#include <deft/quantization/cross_block_reconstruction.hpp>
#include <deft/quantization/fake_quantize.hpp>
#include <deft/quantization/layer_options.hpp>
#include <deft/quantization/lora_rounding.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <string>
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
};

template <class T>
class learned_linear {
public:
    layer_options options;
    std::string name;
    index outputs, inputs;
    bool is_prepared = false, is_frozen = false;
    double scale_unit = 1, activation_unit = 1; ///< mean steps at the start: what relative rates are relative to
    std::vector<T> weight, v0, channel_scale;   ///< weight: after CFP; the other two may be empty
    std::vector<T> least, greatest;             ///< of the channels of the input, over the calibration data
    parameter<T> a1, a2, scale, activation_scale;
    std::vector<quant_code> zero_point;
    std::vector<std::uint8_t> codes; ///< once frozen

    learned_linear(const layer<T>& l, const layer_options& o)
        : options(o), name(l.name), outputs(l.weight.extent(0)), inputs(l.weight.extent(1)), original_(l.weight) {}

    /// y = x W^T for the original weight.
    void full_precision(in<T, 2> x, view<T, 2> y) const {
        linalg::gemm<T>(T(1), x, linalg::matrix<const T>(original_).transposed(), T(0), y);
    }

    /// Channel ranges of the input, which prepare() needs.
    void observe(in<T, 2> x) {
        if (least.empty()) {
            least.assign(std::size_t(inputs), T(0));
            greatest = least;
        }
        for (index t = 0; t < x.extent(0); ++t)
            for (index c = 0; c < inputs; ++c) {
                least[std::size_t(c)] = std::min(least[std::size_t(c)], x(t, c));
                greatest[std::size_t(c)] = std::max(greatest[std::size_t(c)], x(t, c));
            }
    }

    /// CFP, step sizes by min-max, random A1 and A2 = 0. `origin` fills V0.
    void prepare(std::uint64_t seed) {
        allocate();
        copy_weight();
        const bool is_observed = !least.empty();
        if (options.truncate != cfp_weights::none) {
            std::vector<T> clip(std::size_t(options.truncate == cfp_weights::row ? outputs : 1));
            deft::cfp_truncate_weight<T>(matrix(weight), matrix(weight), clip,
                                         options.truncate == cfp_weights::row ? cfp_scope::row : cfp_scope::matrix,
                                         options.cfp);
        }
        if (options.scale == cfp_activations::channels && is_observed)
            scale_channels(); // after truncation, which would take the columns that grow for outliers
        deft::quant_params<T>(matrix(weight), scales(scale.value), zeros(), {.format = options.weights});
        if (options.activations == activation_steps::learned) {
            double peak = 0;
            for (std::size_t c = 0; c < least.size(); ++c)
                peak = std::max(peak, double(std::max(greatest[c], -least[c])) / double(channel(c)));
            activation_scale.value[0] =
                T(std::min(std::max(peak / double((1 << (options.activation_bits - 1)) - 1), 1e-5), 1e4));
        }
        scale_unit = std::accumulate(scale.value.begin(), scale.value.end(), 0.0) / double(scale.value.size());
        activation_unit = double(activation_scale.value[0]);
        std::mt19937_64 engine(seed);
        for (T& v : a1.value)
            v = T(normal(engine));
        if (options.origin == rounding_origin::fraction) {
            v0.resize(weight.size());
            deft::rounding_start<T>(matrix(weight), scales(scale.value), zeros(), matrix(v0), options.weights,
                                    options.stretch);
        }
        is_prepared = true;
    }

    /// Memory of everything that is learned, zero.
    void allocate() {
        const auto count = [](index n) { return std::size_t(n); };
        a1.resize(count(outputs * options.rank));
        a2.resize(count(options.rank * inputs));
        const deft::detail::quant_blocks blocks = detail_blocks();
        scale.resize(count(blocks.scale_rows * blocks.scale_columns));
        zero_point.assign(scale.value.size(), 0);
        activation_scale.resize(1);
        activation_scale.value[0] = 1;
    }
    /// The weight as it is learned from, before CFP.
    void copy_weight() {
        weight.resize(std::size_t(outputs * inputs));
        for (index o = 0; o < outputs; ++o)
            std::copy_n(original_.data() + o * original_.stride(0), inputs, weight.data() + o * inputs);
    }

    /// W_hat, from factors or codes, and gradients 0: before the samples of a step.
    void begin_step() {
        w_hat_.resize(std::size_t(outputs * inputs));
        if (is_frozen)
            return dequantise();
        deft::lora_rounding<T>(matrix(weight), factor1(a1.value), factor2(a2.value), start(), scales(scale.value),
                               zeros(), matrix(w_hat_), absent, absent, rounding());
        grad_w_hat_.assign(w_hat_.size(), T(0));
        std::fill(activation_scale.gradient.begin(), activation_scale.gradient.end(), T(0));
    }

    void forward(in<T, 2> x, view<T, 2> y) {
        tokens_ = x.extent(0);
        x_.resize(std::size_t(tokens_ * inputs));
        for (index t = 0; t < tokens_; ++t)
            for (index c = 0; c < inputs; ++c)
                x_[std::size_t(t * inputs + c)] = x(t, c) / channel(std::size_t(c));
        x_hat_.resize(x_.size());
        const view<T, 2> from = tokens(x_), to = tokens(x_hat_);
        if (options.activations == activation_steps::learned) {
            deft::fake_quantize<T>(from, {activation_scale.value.data(), {1, 1}}, {&no_zero, {1, 1}}, to, absent,
                                   {.format = activation_format()});
        } else if (options.activations == activation_steps::dynamic) {
            token_scale_.resize(std::size_t(tokens_));
            token_zero_.resize(std::size_t(tokens_));
            deft::fake_quantize_dynamic<T>(from, to, absent, {token_scale_.data(), {tokens_, 1}},
                                           {token_zero_.data(), {tokens_, 1}}, {.format = activation_format()});
        } else {
            x_hat_ = x_;
        }
        linalg::gemm<T>(T(1), view<const T, 2>(to), linalg::matrix<const T>(matrix(w_hat_)).transposed(), T(0), y);
    }

    void backward(in<T, 2> grad_y, view<T, 2> grad_x) {
        linalg::gemm<T>(T(1), linalg::matrix<const T>(grad_y).transposed(), linalg::matrix<const T>(tokens(x_hat_)),
                        T(1), matrix(grad_w_hat_));
        linalg::gemm<T>(T(1), grad_y, linalg::matrix<const T>(matrix(w_hat_)), T(0), grad_x);
        if (options.activations == activation_steps::learned) {
            T of_scale = 0;
            deft::fake_quantize_backward<T>(tokens(x_), {activation_scale.value.data(), {1, 1}}, {&no_zero, {1, 1}},
                                            grad_x, grad_x, {&of_scale, {1, 1}}, {.format = activation_format()});
            activation_scale.gradient[0] += of_scale;
        } else if (options.activations == activation_steps::dynamic) {
            deft::fake_quantize_dynamic_backward<T>(tokens(x_), grad_x, grad_x, {.format = activation_format()});
        }
        if (!channel_scale.empty())
            for (index t = 0; t < tokens_; ++t)
                for (index c = 0; c < inputs; ++c)
                    grad_x(t, c) /= channel(std::size_t(c));
    }

    /// Gradients of the factors and steps from what backward() has gathered; loss_weight 0: without the regulariser.
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

    /// Step t of Adam. A step size that would not stay positive is halved instead, down to 1e-5.
    void step(index t, double rate_rounding, double rate_scale, double rate_activation) {
        a1.step(t, rate_rounding);
        a2.step(t, rate_rounding);
        step_positive(scale, t, rate_scale);
        if (options.activations == activation_steps::learned)
            step_positive(activation_scale, t, rate_activation);
    }
    void forget_moments() {
        for (parameter<T>* p : {&a1, &a2, &scale, &activation_scale})
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
        release();
    }
    void release() {
        for (std::vector<T>* v : {&weight, &v0, &least, &greatest, &w_hat_, &grad_w_hat_, &a1.value, &a2.value})
            std::vector<T>().swap(*v);
        for (parameter<T>* p : {&a1, &a2, &scale})
            for (std::vector<T>* v : {&p->gradient, &p->first, &p->second})
                std::vector<T>().swap(*v);
    }
    /// W_hat and activations, which only a running block needs.
    void release_pass() {
        for (std::vector<T>* v : {&w_hat_, &x_, &x_hat_})
            std::vector<T>().swap(*v);
    }

    /// Saves or loads all of it but the original weight. Nothing is kept of a layer that is not reached yet.
    void exchange(archive& a) {
        const index all = outputs * inputs;
        a.same(outputs, "outputs of a layer");
        a.same(inputs, "inputs of a layer");
        std::uint8_t flags[2] = {is_prepared, is_frozen};
        a(flags[0]);
        a(flags[1]);
        a(scale_unit);
        a(activation_unit);
        is_prepared = flags[0] == 1;
        is_frozen = flags[1] == 1;
        for (std::vector<T>* v : {&weight, &v0, &channel_scale})
            a(*v, all);
        for (parameter<T>* p : {&a1, &a2, &scale, &activation_scale})
            for (std::vector<T>* v : {&p->value, &p->gradient, &p->first, &p->second})
                a(*v, std::max(all, std::max(outputs, inputs) * options.rank));
        a(zero_point, all);
        a(codes, all);
    }

    quantized_layer<T> result() const {
        quantized_layer<T> r{name,
                             outputs,
                             inputs,
                             options.weights,
                             codes,
                             scale.value,
                             zero_point,
                             channel_scale,
                             options.activations,
                             options.activation_bits,
                             activation_scale.value[0]};
        for (quant_code& z : r.zero_point)
            z += code_shift();
        return r;
    }

private:
    static constexpr quant_code no_zero = 0;

    deft::detail::quant_blocks detail_blocks() const {
        return {outputs, inputs, options.weights};
    }
    quant_code code_shift() const {
        return quant_code(-deft::detail::levels_of(options.weights).least);
    }
    quant_format activation_format() const {
        return {.bits = options.activation_bits,
                .granularity = options.activations == activation_steps::learned ? quant_granularity::per_tensor
                                                                                : quant_granularity::per_token};
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
        const deft::detail::quant_blocks blocks = detail_blocks();
        return {v.data(), {blocks.scale_rows, blocks.scale_columns}};
    }
    view<quant_code, 2> zeros() {
        const deft::detail::quant_blocks blocks = detail_blocks();
        return {zero_point.data(), {blocks.scale_rows, blocks.scale_columns}};
    }
    view<T, 2> tokens(std::vector<T>& v) const {
        return {v.data(), {tokens_, inputs}};
    }
    in<T, 2> start() const {
        return v0.empty() ? in<T, 2>(absent) : in<T, 2>(v0.data(), {outputs, inputs});
    }
    T channel(std::size_t c) const {
        return channel_scale.empty() ? T(1) : channel_scale[c];
    }

    void scale_channels() {
        channel_scale.resize(std::size_t(inputs));
        for (std::size_t c = 0; c < channel_scale.size(); ++c)
            channel_scale[c] = std::max(greatest[c], -least[c]);
        deft::cfp_scale<T>(channel_scale, channel_scale, options.cfp);
        for (index o = 0; o < outputs; ++o)
            for (index c = 0; c < inputs; ++c)
                weight[std::size_t(o * inputs + c)] *= channel_scale[std::size_t(c)];
    }

    void dequantise() {
        const deft::detail::quant_blocks blocks = detail_blocks();
        for (index o = 0; o < outputs; ++o)
            blocks.for_each_group(0, inputs, [&](index g, index c, index count) {
                const std::size_t s = std::size_t(blocks.scale_row(o) * blocks.scale_columns + g);
                const quant_code zero = zero_point[s] + code_shift();
                for (std::size_t i = std::size_t(o * inputs + c), end = i + std::size_t(count); i < end; ++i)
                    w_hat_[i] = scale.value[s] * T(quant_code(codes[i]) - zero);
            });
    }

    void step_positive(parameter<T>& p, index t, double rate) {
        previous_ = p.value;
        p.step(t, rate);
        for (std::size_t i = 0; i < previous_.size(); ++i)
            if (!(p.value[i] > T(0)))
                p.value[i] = std::max(previous_[i] / T(2), T(1e-5)); // quant_params has the same floor
    }

    /// Box and Muller's; the standard's distributions differ between libraries.
    static double normal(std::mt19937_64& engine) {
        const auto uniform = [&] { return (double(engine() >> 11) + 0.5) * 0x1p-53; };
        const double radius = std::sqrt(-2 * std::log(uniform()));
        return radius * std::cos(6.283185307179586 * uniform());
    }

    view<const T, 2> original_;
    index tokens_ = 0;
    std::vector<T> w_hat_, grad_w_hat_, x_, x_hat_, token_scale_, previous_;
    std::vector<quant_code> token_zero_;
};

} // namespace DEFT_ISA
} // namespace deft::quantization

#endif

/// \file
/// A linear layer whose quantisation is being learned: its weight (learned_weight.hpp) and the step size of its
/// activations, their gradients and moments. The unit that cross_block.hpp is made of.
///
///     y = Q(x / c) W_hat^T,   c: channel scales of CFP, or 1
#ifndef DEFT_QUANTIZATION_LEARNED_LINEAR_HPP
#define DEFT_QUANTIZATION_LEARNED_LINEAR_HPP

#include <deft/linalg.hpp>
#include <deft/quantization/block.hpp>
#include <deft/quantization/fake_quantize.hpp>
#include <deft/quantization/learned_weight.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace deft::quantization {

inline namespace DEFT_ISA {

template <class T>
class learned_linear : public learned_weight<T> {
    using base = learned_weight<T>;

public:
    using base::channel_scale, base::inputs, base::is_frozen, base::options, base::outputs;

    std::string name;
    bool is_prepared = false;
    double activation_unit = 1;     ///< the step at the start: what a relative rate is relative to
    std::vector<T> least, greatest; ///< of the channels of the input, over the calibration data
    parameter<T> activation_scale;

    learned_linear(const layer<T>& l, const layer_options& o) : base(l.weight, o), name(l.name) {}

    /// y = x W^T for the original weight.
    void full_precision(in<T, 2> x, view<T, 2> y) const {
        linalg::gemm<T>(T(1), x, linalg::matrix<const T>(base::original()).transposed(), T(0), y);
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

    /// Memory of everything that is learned, zero.
    void allocate() {
        base::allocate();
        activation_scale.resize(1);
        activation_scale.value[0] = 1;
    }
    /// CFP and the starts of all that is learned.
    void prepare(std::uint64_t seed) {
        allocate();
        if (options.scale == cfp_activations::channels && !least.empty()) {
            channel_scale.resize(std::size_t(inputs));
            for (std::size_t c = 0; c < channel_scale.size(); ++c)
                channel_scale[c] = std::max(greatest[c], -least[c]);
            deft::cfp_scale<T>(channel_scale, channel_scale, options.cfp);
        }
        base::prepare(seed);
        if (options.activations == activation_steps::learned) {
            double peak = 0;
            for (std::size_t c = 0; c < least.size(); ++c)
                peak = std::max(peak, double(std::max(greatest[c], -least[c])) / double(channel(c)));
            activation_scale.value[0] =
                T(std::min(std::max(peak / double((1 << (options.activation_bits - 1)) - 1), 1e-5), 1e4));
        }
        activation_unit = double(activation_scale.value[0]);
        is_prepared = true;
    }

    /// W_hat, and gradients 0: before the samples of a step.
    void begin_step() {
        base::begin_step();
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
        linalg::gemm<T>(T(1), view<const T, 2>(to), linalg::matrix<const T>(base::w_hat()).transposed(), T(0), y);
    }

    void backward(in<T, 2> grad_y, view<T, 2> grad_x) {
        linalg::gemm<T>(T(1), linalg::matrix<const T>(grad_y).transposed(), linalg::matrix<const T>(tokens(x_hat_)),
                        T(1), base::grad_w_hat());
        linalg::gemm<T>(T(1), grad_y, linalg::matrix<const T>(base::w_hat()), T(0), grad_x);
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

    /// Step t of Adam.
    void step(index t, double rate_rounding, double rate_scale, double rate_activation) {
        base::step(t, rate_rounding, rate_scale);
        if (options.activations == activation_steps::learned)
            activation_scale.step_positive(t, rate_activation);
    }
    void forget_moments() {
        base::forget_moments();
        activation_scale.forget();
    }

    /// Rounds for good; of what was learned, codes and steps remain.
    void freeze() {
        base::freeze();
        for (std::vector<T>* v : {&least, &greatest})
            std::vector<T>().swap(*v);
    }
    /// W_hat and activations, which only a running block needs.
    void release_pass() {
        base::release_pass();
        for (std::vector<T>* v : {&x_, &x_hat_})
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
        a(base::scale_unit);
        a(activation_unit);
        is_prepared = flags[0] == 1;
        is_frozen = flags[1] == 1;
        for (std::vector<T>* v : {&this->weight, &this->v0, &channel_scale})
            a(*v, all);
        for (parameter<T>* p : {&this->a1, &this->a2, &this->scale, &activation_scale})
            for (std::vector<T>* v : {&p->value, &p->gradient, &p->first, &p->second})
                a(*v, std::max(all, std::max(outputs, inputs) * options.rank));
        a(this->zero_point, all);
        a(this->codes, all);
    }

    quantized_layer<T> result() const {
        quantized_layer<T> r{name,
                             outputs,
                             inputs,
                             options.weights,
                             this->codes,
                             this->scale.value,
                             this->zero_point,
                             channel_scale,
                             options.activations,
                             options.activation_bits,
                             activation_scale.value[0]};
        for (quant_code& z : r.zero_point)
            z += base::code_shift();
        return r;
    }

private:
    static constexpr quant_code no_zero = 0;

    quant_format activation_format() const {
        return {.bits = options.activation_bits,
                .granularity = options.activations == activation_steps::learned ? quant_granularity::per_tensor
                                                                                : quant_granularity::per_token};
    }
    view<T, 2> tokens(std::vector<T>& v) const {
        return {v.data(), {tokens_, inputs}};
    }
    T channel(std::size_t c) const {
        return channel_scale.empty() ? T(1) : channel_scale[c];
    }

    index tokens_ = 0;
    std::vector<T> x_, x_hat_, token_scale_;
    std::vector<quant_code> token_zero_;
};

} // namespace DEFT_ISA
} // namespace deft::quantization

#endif

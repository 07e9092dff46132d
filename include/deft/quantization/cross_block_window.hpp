/// \file
/// Several neighbouring blocks whose quantisation is learned together: the objective of CBQ (arXiv:2312.07950, section
/// 3) on some samples, its gradients, and a step of Adam. With F the window in full precision, G as it is quantised, x
/// its input in the original model and x' its input from the part that is quantised already:
///
///     L = E(F(x), G(x')) + homologous_weight E(F(x'), G(x')) + com_weight sum over layers of L_com
///
/// E: block_distance; L_com: rounding_loss, per layer its sum or its mean. The first term stops errors that add up over
/// blocks, the second compares both maps on the same input.
#ifndef DEFT_QUANTIZATION_CROSS_BLOCK_WINDOW_HPP
#define DEFT_QUANTIZATION_CROSS_BLOCK_WINDOW_HPP

#include <deft/quantization/block.hpp>
#include <deft/quantization/cross_block_reconstruction.hpp>
#include <deft/quantization/learned_linear.hpp>
#include <deft/quantization/rounding_loss.hpp>
#include <deft/view.hpp>

#include <utility>
#include <vector>

namespace deft::quantization {

struct window_objective {
    block_distance_options distance = {};
    double homologous_weight = 1;
    double com_weight = 0.01;
    loss_reduction com_reduction = loss_reduction::sum; ///< mean: a weight that fits layers of all sizes
};

/// Rates of step sizes are what they say, or are multiples of a layer's mean step size at its start: with these, one
/// number fits layers of all scales and all numbers of bits.
enum class rate_unit : unsigned char { absolute, relative };

/// Rates of Adam: of A1 and A2, of step sizes of weights, and of activations.
struct learning_rates {
    double rounding = 1e-2;
    double weight_scale = 1e-3;
    double activation_scale = 1e-3;
    rate_unit unit = rate_unit::relative;
};

/// Means over the samples; reconstruction and homologous without weights, rounding = sum of L_com without its weight.
struct window_losses {
    double reconstruction = 0, homologous = 0, rounding = 0, total = 0;
};

/// One sample of a window: x', and what the full-precision window makes of x and of x'.
template <class T>
struct window_sample {
    view<const T, 2> input, target, homologous_target; ///< the last is not read where its weight is 0
};

inline namespace DEFT_ISA {

/// A block and its layers.
template <class T>
struct learned_block {
    const quantization::block<T>* block;
    std::vector<learned_linear<T>> layers;
};

/// Runs the layers of one block in full precision, or as they are quantised; observes their inputs if asked to.
template <class T>
class layer_runner final : public linear_runner<T> {
public:
    enum class mode { full_precision, observe, quantised };

    layer_runner(std::vector<learned_linear<T>>& layers, mode m) : layers_(layers), mode_(m) {}

    void forward(index layer, in<T, 2> x, view<T, 2> y) override {
        learned_linear<T>& l = at(layer);
        deft::detail::check_extent("cross_block", l.name.c_str(), x, 1, l.inputs, "inputs of the layer");
        deft::detail::check_extent("cross_block", l.name.c_str(), y, 1, l.outputs, "outputs of the layer");
        if (mode_ == mode::quantised)
            return l.forward(x, y);
        if (mode_ == mode::observe)
            l.observe(x);
        l.full_precision(x, y);
    }
    void backward(index layer, in<T, 2> grad_y, view<T, 2> grad_x) override {
        at(layer).backward(grad_y, grad_x);
    }

private:
    learned_linear<T>& at(index layer) {
        deft::detail::check(layer >= 0 && layer < index(layers_.size()), "cross_block", "layer",
                            "the block has no such layer", double(layer));
        return layers_[std::size_t(layer)];
    }

    std::vector<learned_linear<T>>& layers_;
    mode mode_;
};

template <class T>
class window_learner {
public:
    using mode = typename layer_runner<T>::mode;

    window_learner(std::vector<learned_block<T>>& blocks, index begin, index end, const window_objective& objective)
        : blocks_(blocks), begin_(begin), end_(end), objective_(objective) {}

    /// y of block `b` alone.
    static void run_block(learned_block<T>& b, mode m, view<const T, 2> x, view<T, 2> y) {
        layer_runner<T> runner(b.layers, m);
        b.block->forward(x, y, runner);
    }

    /// The losses of these samples and the gradients of everything that is learned. The regulariser counts, and has a
    /// gradient, if it is active. Gradients are in the layers.
    window_losses gradients(const std::vector<window_sample<T>>& samples, const beta_step& beta) {
        for_each_layer([](learned_linear<T>& l) { l.begin_step(); });
        window_losses losses;
        const double share = 1 / double(samples.size());
        for (const window_sample<T>& sample : samples)
            add_sample(sample, share, losses);
        for_each_layer([&](learned_linear<T>& l) {
            const double weight = com_weight(l);
            if (weight != 0)
                losses.rounding += l.rounding_loss(beta.beta) * weight / objective_.com_weight;
            l.finish_step(beta.is_active ? weight : 0.0, beta.beta);
        });
        losses.total = losses.reconstruction + objective_.homologous_weight * losses.homologous +
                       (beta.is_active ? objective_.com_weight * losses.rounding : 0.0);
        return losses;
    }

    /// Step t of Adam, counted from 1 in each window.
    void step(index t, const learning_rates& rates) {
        const bool relative = rates.unit == rate_unit::relative;
        for_each_layer([&](learned_linear<T>& l) {
            l.step(t, rates.rounding, rates.weight_scale * (relative ? l.scale_unit : 1.0),
                   rates.activation_scale * (relative ? l.activation_unit : 1.0));
        });
    }

    template <class F>
    void for_each_layer(F&& f) {
        for (index b = begin_; b < end_; ++b)
            for (learned_linear<T>& l : blocks_[std::size_t(b)].layers)
                f(l);
    }

private:
    double com_weight(const learned_linear<T>& l) const {
        const bool mean = objective_.com_reduction == loss_reduction::mean;
        return objective_.com_weight / (mean ? double(l.outputs * l.inputs) : 1.0);
    }

    void add_sample(const window_sample<T>& sample, double share, window_losses& losses) {
        const index tokens = sample.input.extent(0);
        view<const T, 2> x = sample.input;
        view<T, 2> y;
        for (index b = begin_; b < end_; ++b, x = y) {
            y = space(buffers_[(b - begin_) % 2], tokens, block(b).outputs);
            run_block(blocks_[std::size_t(b)], mode::quantised, x, y);
        }
        view<T, 2> grad = space(gradients_[0], tokens, block(end_ - 1).outputs);
        losses.reconstruction +=
            share * deft::block_distance_backward<T>(sample.target, y, share, grad, objective_.distance);
        if (objective_.homologous_weight != 0) {
            const view<T, 2> more = space(gradients_[1], tokens, block(end_ - 1).outputs);
            losses.homologous += share * deft::block_distance_backward<T>(sample.homologous_target, y,
                                                                          share * objective_.homologous_weight, more,
                                                                          objective_.distance);
            for (index t = 0; t < tokens; ++t)
                for (index c = 0; c < grad.extent(1); ++c)
                    grad(t, c) += more(t, c);
        }
        for (index b = end_ - 1; b >= begin_; --b) {
            const view<T, 2> before = space(gradients_[(end_ - b) % 2], tokens, block(b).inputs);
            layer_runner<T> runner(blocks_[std::size_t(b)].layers, mode::quantised);
            block(b).backward(grad, before, runner);
            grad = before;
        }
    }

    const quantization::block<T>& block(index b) const {
        return *blocks_[std::size_t(b)].block;
    }
    static view<T, 2> space(std::vector<T>& memory, index rows, index columns) {
        memory.resize(std::size_t(rows * columns));
        return {memory.data(), {rows, columns}};
    }

    std::vector<learned_block<T>>& blocks_;
    index begin_, end_;
    window_objective objective_;
    std::vector<T> buffers_[2], gradients_[2];
};

} // namespace DEFT_ISA
} // namespace deft::quantization

#endif

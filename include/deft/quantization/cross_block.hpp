/// \file
/// CBQ (arXiv:2312.07950): post-training quantisation of a model by cross-block reconstruction, on any model that can
/// be cut into blocks. A window slides over the blocks; in each, step sizes and roundings of its blocks are learned
/// together, so that the quantised window reproduces the original one. For each window:
///
///     targets F(x), F(x') over all samples; new blocks: CFP, step sizes by min-max, factors of the roundings
///     epochs x batches: a step of Adam on the objective (cross_block_window.hpp), the schedule of rounding_loss
///     blocks that the next window does not hold: rounded, frozen, packed; x and x' advance past them
///
/// Parameters of a block continue in its second window; moments of Adam and the schedule start anew in each.
///
///     std::vector<quantization::block<float>> model = ...;
///     quantization::cross_block<float> method(model, {.layer = {.weights = {.bits = 4}}});
///     method.run({samples.data(), {count, tokens, features}}, [&](const auto& at) {
///         std::ofstream file("state"); method.save(file);        // resume: load() before run()
///         return quantization::reply::proceed;
///     });
///     const auto layers = method.result(0);                      // codes, steps, zero points of block 0
///
/// Memory: the layers of one window (learned_linear.hpp), inputs and targets of all samples at one window, codes of
/// what is done. One thread, but for a BLAS. The result depends on the options, the data and the seed alone.
#ifndef DEFT_QUANTIZATION_CROSS_BLOCK_HPP
#define DEFT_QUANTIZATION_CROSS_BLOCK_HPP

#include <deft/quantization/cross_block_archive.hpp>
#include <deft/quantization/cross_block_options.hpp>
#include <deft/quantization/cross_block_window.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <istream>
#include <numeric>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace deft::quantization {

inline namespace DEFT_ISA {

template <class T>
class cross_block {
public:
    using progress_callback = std::function<reply(const cross_block_progress&)>;

    /// The blocks must outlive the method. Throws std::invalid_argument if there are none, one has no function or does
    /// not take what the one before gives, a weight is empty or not finite, or an option is out of range.
    cross_block(const std::vector<block<T>>& blocks, const cross_block_options& options) : options_(options) {
        detail::check_options(index(blocks.size()), options);
        for (const block<T>& b : blocks) {
            check_block(b, blocks_.empty() ? b.inputs : blocks_.back().block->outputs);
            learned_block<T> learned{&b, {}};
            for (const layer<T>& l : b.layers)
                learned.layers.emplace_back(l, options.layer);
            blocks_.push_back(std::move(learned));
        }
    }

    /// From where the state is to the end; true when all blocks are done, false if the callback stopped it: run again
    /// to go on. The callback comes after each step, when the state may be saved. samples: `[count, tokens, inputs]`,
    /// all of one length. Throws std::invalid_argument, naming block and sample, if a sample, or what a block of the
    /// original model makes of it, is not finite.
    bool run(in<T, 3> samples, const progress_callback& progress = {}) {
        deft::detail::check_extent("cross_block", "samples", samples, 2, blocks_[0].block->inputs, "inputs of block 0");
        deft::detail::check(samples.extent(0) > 0 && samples.extent(1) > 0, "cross_block", "samples",
                            "its number of tokens: there must be some", double(samples.extent(0) * samples.extent(1)));
        load_samples(samples);
        for (; window_ < window_count(count(), options_.windows); ++window_, step_ = 0)
            if (!learn_window(progress))
                return false;
        return true;
    }

    bool is_complete() const {
        return window_ >= window_count(count(), options_.windows);
    }
    /// The layers of block `b`; throws std::invalid_argument while it is not done.
    std::vector<quantized_layer<T>> result(index b) const {
        deft::detail::check(b >= 0 && b < count(), "cross_block", "b", "there is no such block", double(b));
        std::vector<quantized_layer<T>> layers;
        for (const learned_linear<T>& l : blocks_[std::size_t(b)].layers) {
            deft::detail::check(l.is_frozen, "cross_block", "b", "the block is not quantised yet", double(b));
            layers.push_back(l.result());
        }
        return layers;
    }

    /// y of block `b` as it is quantised, x as it comes from the blocks before. Throws like result().
    void forward(index b, in<T, 2> x, view<T, 2> y) {
        for (learned_linear<T>& l : checked_layers(b))
            l.begin_step();
        window_learner<T>::run_block(blocks_[std::size_t(b)], mode::quantised, x, y);
        for (learned_linear<T>& l : blocks_[std::size_t(b)].layers)
            l.release_pass();
    }

    /// The state between two steps: frozen blocks, and parameters and moments of the window. A run that is continued
    /// from it gives the same bits as one that never stopped.
    void save(std::ostream& to) const {
        archive a(to);
        const_cast<cross_block*>(this)->exchange(a);
    }
    /// Throws std::invalid_argument if the state is damaged or belongs to another model or other options; the method
    /// must be made anew then.
    void load(std::istream& from) {
        archive a(from);
        exchange(a);
    }

private:
    using mode = typename layer_runner<T>::mode;

    index count() const {
        return index(blocks_.size());
    }
    std::vector<learned_linear<T>>& checked_layers(index b) {
        result(b);
        return blocks_[std::size_t(b)].layers;
    }

    static void check_block(const block<T>& b, index inputs) {
        const char* const op = "cross_block";
        deft::detail::check(b.forward && b.backward, op, b.name.c_str(), "it needs forward and backward", 0);
        deft::detail::check(b.inputs == inputs && b.inputs > 0 && b.outputs > 0, op, b.name.c_str(),
                            "its inputs must be the outputs of the block before", double(b.inputs));
        for (const layer<T>& l : b.layers)
            deft::detail::check_finite<T>(op, l.name.c_str(), l.weight);
    }

    /// x and x' of all samples at the first block of the window.
    void load_samples(in<T, 3> samples) {
        samples_ = samples.extent(0);
        tokens_ = samples.extent(1);
        at_ = 0;
        x_.resize(std::size_t(samples.size()));
        for (index n = 0; n < samples_; ++n)
            for (index t = 0; t < tokens_; ++t)
                std::copy_n(&samples(n, t, 0), samples.extent(2), x_.data() + (n * tokens_ + t) * samples.extent(2));
        check_activations(x_, 0, samples.extent(2), "the input");
        x_quantised_ = x_;
        if (!is_complete())
            advance(window_schedule(count(), window_, options_.windows).begin);
    }

    view<T, 2> sample(std::vector<T>& all, index n, index width) const {
        return {all.data() + n * tokens_ * width, {tokens_, width}};
    }

    void check_activations(std::vector<T>& all, index b, index width, const char* what) const {
        for (index n = 0; n < samples_; ++n) {
            const view<const T, 2> x = sample(all, n, width);
            if (kernels::all_finite<simd::default_arch>(deft::detail::magnitudes(x)))
                continue;
            char text[256];
            std::snprintf(text, sizeof text, "deft::cross_block: %s of block %td (%s) is not finite for sample %td",
                          what, b, blocks_[std::size_t(b)].block->name.c_str(), n);
            deft::detail::throw_invalid(text);
        }
    }

    /// `all` through block `b`.
    void pass(index b, mode m, std::vector<T>& all) {
        learned_block<T>& here = blocks_[std::size_t(b)];
        std::vector<T> next(std::size_t(samples_ * tokens_ * here.block->outputs));
        for (index n = 0; n < samples_; ++n)
            window_learner<T>::run_block(here, m, sample(all, n, here.block->inputs),
                                         sample(next, n, here.block->outputs));
        all.swap(next);
        if (m != mode::quantised)
            check_activations(all, b, here.block->outputs, "the output");
    }

    /// x and x' past the frozen blocks before `begin`.
    void advance(index begin) {
        for (; at_ < begin; ++at_) {
            pass(at_, mode::full_precision, x_);
            for (learned_linear<T>& l : blocks_[std::size_t(at_)].layers)
                l.begin_step();
            pass(at_, mode::quantised, x_quantised_);
            for (learned_linear<T>& l : blocks_[std::size_t(at_)].layers)
                l.release_pass();
        }
    }

    /// Order of the samples in an epoch.
    std::vector<index> order_of(index epoch) const {
        std::vector<index> order(static_cast<std::size_t>(samples_));
        std::iota(order.begin(), order.end(), index{0});
        std::mt19937_64 engine(options_.seed + std::uint64_t(1000003 * window_ + epoch + 1));
        for (std::size_t i = order.size(); i > 1; --i) // the standard's shuffle differs between libraries
            std::swap(order[i - 1], order[std::size_t(engine() % i)]);
        return order;
    }

    bool learn_window(const progress_callback& progress) {
        const block_window w = window_schedule(count(), window_, options_.windows);
        const index outputs = blocks_[std::size_t(w.end - 1)].block->outputs;
        const index per_epoch = (samples_ + options_.batch - 1) / options_.batch, steps = options_.epochs * per_epoch;
        std::vector<T> target = x_, homologous;
        for (index b = w.begin; b < w.end; ++b)
            pass(b,
                 blocks_[std::size_t(b)].layers.empty() || blocks_[std::size_t(b)].layers[0].is_prepared
                     ? mode::full_precision
                     : mode::observe,
                 target);
        if (options_.objective.homologous_weight != 0 && steps > 0) {
            homologous = x_quantised_;
            for (index b = w.begin; b < w.end; ++b)
                pass(b, mode::full_precision, homologous);
        }
        prepare(w);
        window_learner<T> learner(blocks_, w.begin, w.end, options_.objective);
        if (step_ == 0)
            learner.for_each_layer([](learned_linear<T>& l) { l.forget_moments(); });
        const index inputs = blocks_[std::size_t(w.begin)].block->inputs;
        while (step_ < steps) {
            const std::vector<index> order = order_of(step_ / per_epoch);
            std::vector<window_sample<T>> batch;
            for (index i = step_ % per_epoch * options_.batch; i < samples_ && index(batch.size()) < options_.batch;
                 ++i) {
                const index n = order[std::size_t(i)];
                batch.push_back({sample(x_quantised_, n, inputs), sample(target, n, outputs),
                                 homologous.empty() ? view<const T, 2>() : sample(homologous, n, outputs)});
            }
            ++step_;
            const beta_step beta = deft::beta_schedule(step_, {.t_max = steps,
                                                               .warmup = options_.warmup,
                                                               .beta_start = options_.beta_start,
                                                               .beta_end = options_.beta_end,
                                                               .decay = options_.decay});
            const window_losses losses = learner.gradients(batch, beta);
            const bool stepped = std::isfinite(losses.total);
            if (stepped)
                learner.step(step_, options_.rates);
            if (progress && progress({w, window_, window_count(count(), options_.windows), step_, steps, losses,
                                      stepped}) == reply::stop)
                return false;
        }
        finish(w);
        return true;
    }

    void prepare(const block_window& w) {
        for (index b = w.begin; b < w.end; ++b)
            for (std::size_t i = 0; i < blocks_[std::size_t(b)].layers.size(); ++i) {
                learned_linear<T>& l = blocks_[std::size_t(b)].layers[i];
                if (!l.is_prepared)
                    l.prepare(options_.seed * 7919 + std::uint64_t(b) * 104729 + i);
            }
    }

    /// Freezes what the next window does not hold, and goes there.
    void finish(const block_window& w) {
        const bool is_last = window_ + 1 == window_count(count(), options_.windows);
        const index next = is_last ? w.end : window_schedule(count(), window_ + 1, options_.windows).begin;
        for (index b = w.begin; b < next; ++b)
            for (learned_linear<T>& l : blocks_[std::size_t(b)].layers)
                l.freeze();
        if (!is_last)
            advance(next);
    }

    void exchange(archive& a) {
        a.same(std::uint64_t(0x62637466656401), "kind of the file");
        a.same(std::uint64_t(sizeof(T)), "size of an element");
        a.same(count(), "number of blocks");
        a.same(options_.windows.window, "window");
        a.same(options_.windows.overlap, "overlap");
        a.same(options_.layer.rank, "rank");
        a.same(options_.layer.weights.bits.value, "bits");
        a.same(options_.layer.weights.symmetry, "symmetry");
        a.same(options_.layer.weights.granularity, "granularity");
        a.same(options_.layer.weights.group_size, "group_size");
        a.same(options_.layer.activations, "activations");
        a.same(options_.layer.activation_bits, "activation_bits");
        a.same(options_.epochs, "epochs");
        a.same(options_.batch, "batch");
        a.same(options_.seed, "seed");
        a(window_);
        a(step_);
        deft::detail::check(window_ >= 0 && window_ <= window_count(count(), options_.windows) && step_ >= 0,
                            "cross_block", "saved window", "is none of this run", double(window_));
        for (learned_block<T>& b : blocks_)
            for (learned_linear<T>& l : b.layers)
                l.exchange(a);
        a.checksum();
    }

    cross_block_options options_;
    std::vector<learned_block<T>> blocks_;
    index window_ = 0, step_ = 0; ///< where the state is
    index samples_ = 0, tokens_ = 0, at_ = 0;
    std::vector<T> x_, x_quantised_; ///< at block at_
};

} // namespace DEFT_ISA
} // namespace deft::quantization

#endif

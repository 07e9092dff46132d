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

#include <deft/quantization/calibration.hpp>
#include <deft/quantization/cross_block_archive.hpp>
#include <deft/quantization/cross_block_options.hpp>
#include <deft/quantization/cross_block_window.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
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

    cross_block(const cross_block&) = delete;
    cross_block& operator=(const cross_block&) = delete;

    /// From where the state is to the end; true when all blocks are done, false if the callback stopped it: run again
    /// to go on. The callback comes after each step, when the state may be saved. samples: `[count, tokens, inputs]`,
    /// all of one length. Throws std::invalid_argument, naming block and sample, if a sample, or what a block of the
    /// original model makes of it, is not finite.
    bool run(in<T, 3> samples, const progress_callback& progress = {}) {
        deft::detail::check_extent("cross_block", "samples", samples, 2, blocks_[0].block->inputs, "inputs of block 0");
        deft::detail::check(samples.extent(0) > 0 && samples.extent(1) > 0, "cross_block", "samples",
                            "its number of tokens: there must be some", double(samples.extent(0) * samples.extent(1)));
        data_.load(samples);
        if (!is_complete())
            data_.advance(window_schedule(count(), window_, options_.windows).begin);
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

    /// Order of the samples in an epoch.
    std::vector<index> order_of(index epoch) const {
        std::vector<index> order(static_cast<std::size_t>(data_.samples));
        std::iota(order.begin(), order.end(), index{0});
        std::mt19937_64 engine(options_.seed + std::uint64_t(1000003 * window_ + epoch + 1));
        for (std::size_t i = order.size(); i > 1; --i) // the standard's shuffle differs between libraries
            std::swap(order[i - 1], order[std::size_t(engine() % i)]);
        return order;
    }

    bool learn_window(const progress_callback& progress) {
        const block_window w = window_schedule(count(), window_, options_.windows);
        const index outputs = blocks_[std::size_t(w.end - 1)].block->outputs;
        const index per_epoch = (data_.samples + options_.batch - 1) / options_.batch,
                    steps = options_.epochs * per_epoch;
        std::vector<T> target = data_.x, homologous;
        for (index b = w.begin; b < w.end; ++b)
            data_.pass(b,
                       blocks_[std::size_t(b)].layers.empty() || blocks_[std::size_t(b)].layers[0].is_prepared
                           ? mode::full_precision
                           : mode::observe,
                       target);
        if (options_.objective.homologous_weight != 0 && steps > 0) {
            homologous = data_.x_quantised;
            for (index b = w.begin; b < w.end; ++b)
                data_.pass(b, mode::full_precision, homologous);
        }
        prepare(w);
        window_learner<T> learner(blocks_, w.begin, w.end, options_.objective);
        if (step_ == 0)
            learner.for_each_layer([](learned_linear<T>& l) { l.forget_moments(); });
        const index inputs = blocks_[std::size_t(w.begin)].block->inputs;
        while (step_ < steps) {
            const std::vector<index> order = order_of(step_ / per_epoch);
            std::vector<window_sample<T>> batch;
            for (index i = step_ % per_epoch * options_.batch;
                 i < data_.samples && index(batch.size()) < options_.batch; ++i) {
                const index n = order[std::size_t(i)];
                batch.push_back({data_.sample(data_.x_quantised, n, inputs), data_.sample(target, n, outputs),
                                 homologous.empty() ? view<const T, 2>() : data_.sample(homologous, n, outputs)});
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
            data_.advance(next);
    }

    void exchange(archive& a) {
        a.same(std::uint64_t(0x62637466656401), "kind of the file");
        a.same(std::uint64_t(sizeof(T)), "size of an element");
        a.same(count(), "number of blocks");
        detail::same_options(a, options_);
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
    calibration<T> data_{blocks_};
};

} // namespace DEFT_ISA
} // namespace deft::quantization

#endif

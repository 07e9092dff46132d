/// \file
/// What a window of cross_block learns from: all samples as they arrive at one block, in the original model and in the
/// part that is quantised already.
#ifndef DEFT_QUANTIZATION_CALIBRATION_HPP
#define DEFT_QUANTIZATION_CALIBRATION_HPP

#include <deft/kernels/magnitudes.hpp>
#include <deft/quantization/cross_block_window.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cstdio>
#include <vector>

namespace deft::quantization {

inline namespace DEFT_ISA {

template <class T>
class calibration {
public:
    using mode = typename layer_runner<T>::mode;

    index samples = 0, tokens = 0;
    std::vector<T> x, x_quantised; ///< [samples, tokens, inputs of the block that they have arrived at]

    explicit calibration(std::vector<learned_block<T>>& blocks) : blocks_(blocks) {}

    /// The input of block 0.
    void load(in<T, 3> from) {
        samples = from.extent(0);
        tokens = from.extent(1);
        at_ = 0;
        x.resize(std::size_t(from.size()));
        for (index n = 0; n < samples; ++n)
            for (index t = 0; t < tokens; ++t)
                std::copy_n(&from(n, t, 0), from.extent(2), x.data() + (n * tokens + t) * from.extent(2));
        check(x, 0, from.extent(2), "the input");
        x_quantised = x;
    }

    /// Sample n of `all`, which is `width` wide.
    view<T, 2> sample(std::vector<T>& all, index n, index width) const {
        return {all.data() + n * tokens * width, {tokens, width}};
    }

    /// `all` through block b. Throws std::invalid_argument if what the original model makes of a sample is not finite.
    void pass(index b, mode m, std::vector<T>& all) {
        learned_block<T>& here = blocks_[std::size_t(b)];
        std::vector<T> next(std::size_t(samples * tokens * here.block->outputs));
        for (index n = 0; n < samples; ++n)
            window_learner<T>::run_block(here, m, sample(all, n, here.block->inputs),
                                         sample(next, n, here.block->outputs));
        all.swap(next);
        if (m != mode::quantised)
            check(all, b, here.block->outputs, "the output");
    }

    /// Past the frozen blocks before `begin`.
    void advance(index begin) {
        for (; at_ < begin; ++at_) {
            std::vector<learned_linear<T>>& layers = blocks_[std::size_t(at_)].layers;
            pass(at_, mode::full_precision, x);
            for (learned_linear<T>& l : layers)
                l.begin_step();
            pass(at_, mode::quantised, x_quantised);
            for (learned_linear<T>& l : layers)
                l.release_pass();
        }
    }

private:
    void check(std::vector<T>& all, index b, index width, const char* what) const {
        for (index n = 0; n < samples; ++n) {
            const view<const T, 2> one = sample(all, n, width);
            if (kernels::all_finite<simd::default_arch>(deft::detail::magnitudes(one)))
                continue;
            char text[256];
            std::snprintf(text, sizeof text, "deft::cross_block: %s of block %td (%s) is not finite for sample %td",
                          what, b, blocks_[std::size_t(b)].block->name.c_str(), n);
            deft::detail::throw_invalid(text);
        }
    }

    std::vector<learned_block<T>>& blocks_;
    index at_ = 0; ///< the block that the samples have arrived at
};

} // namespace DEFT_ISA
} // namespace deft::quantization

#endif

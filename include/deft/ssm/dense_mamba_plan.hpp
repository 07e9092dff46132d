/// \file
/// Shape, tensors, states and working memory of a stack of DenseMamba layers; formulas in dense_mamba_block.hpp.
#ifndef DEFT_SSM_DENSE_MAMBA_PLAN_HPP
#define DEFT_SSM_DENSE_MAMBA_PLAN_HPP

#include <deft/simd/aligned_vector.hpp>
#include <deft/ssm/layer_rows.hpp>
#include <deft/ssm/selective_scan_hidden.hpp>

#include <algorithm>
#include <span>

namespace deft {

struct dense_mamba_options {
    index width = 0;    ///< D
    index channels = 0; ///< E
    index states = 16;  ///< N
    index rank = 1;     ///< R, of dt
    index taps = 4;     ///< W, of the convolution
    index layers = 1;   ///< L
    index window = 0;   ///< m: earlier layers that a layer sees; 0: plain Mamba
    fusion_point point = fusion_point::readout;
    double eps = 1e-5;
    index chunk = 64; ///< tokens that go through all layers at a time
};

/// Tensors of a layer. conv_bias, dt_bias and D may be absent, and so may sel1 and sel2 where nothing is fused: in the
/// first layer, and without a window.
template <class T>
struct dense_mamba_layer {
    view<const T, 1> norm;
    view<const T, 2> in_proj, conv_weight;
    view<const T, 1> conv_bias = {};
    view<const T, 2> x_proj, dt_proj;
    view<const T, 1> dt_bias = {};
    view<const T, 2> A; ///< -exp(A_log)
    view<const T, 1> D = {};
    view<const T, 2> out_proj;
    view<const T, 2> sel1 = {}, sel2 = {};
};

inline namespace DEFT_ISA {

/// What a stack carries from token to token, for `batch` sequences. It begins empty; a copy is a snapshot.
template <class T>
class dense_mamba_state {
public:
    dense_mamba_state(index batch, const dense_mamba_options& o)
        : batch_(batch), channels_(o.channels), states_(o.states), kept_(o.taps - 1),
          scans_(std::size_t(o.layers * batch * channels_ * states_)),
          inputs_(std::size_t(o.layers * batch * kept_ * channels_)) {}

    /// Back to no tokens.
    void reset() noexcept {
        std::fill(scans_.begin(), scans_.end(), T(0));
        std::fill(inputs_.begin(), inputs_.end(), T(0));
    }
    index batch() const noexcept {
        return batch_;
    }
    /// h of a layer, `[B, E, N]`.
    view<T, 3> scan(index l) noexcept {
        return {scans_.data() + l * batch_ * channels_ * states_, {batch_, channels_, states_}};
    }
    /// The last inputs of the convolution of a layer, `[B, W - 1, E]`.
    view<T, 3> conv(index l) noexcept {
        return {inputs_.data() + l * batch_ * kept_ * channels_, {batch_, kept_, channels_}};
    }
    std::size_t bytes() const noexcept {
        return (scans_.size() + inputs_.size()) * sizeof(T);
    }

private:
    index batch_, channels_, states_, kept_;
    simd::aligned_vector<T> scans_, inputs_;
};

/// Working memory of stacks of one shape, which grows with the largest call so far, at most to that of a chunk of
/// tokens. One object serves one call at a time.
template <class T>
class dense_mamba_plan {
public:
    /// Throws std::invalid_argument if a number is out of range.
    explicit dense_mamba_plan(const dense_mamba_options& options)
        : options_(checked(options)), nothing_(std::size_t(seen() > 0 ? options.channels * options.states : 0)) {}

    const dense_mamba_options& options() const noexcept {
        return options_;
    }
    /// Zeros, as many as a token has states, if any are fused.
    const T* nothing() const noexcept {
        return nothing_.data();
    }

    /// Rows of a chunk: what layers work on, and states of the last layers, `[window, rows, E, N]`.
    struct memory {
        T *normed, *x_and_z, *u, *projected, *delta, *added, *window;
    };
    memory reserve(index rows) {
        const dense_mamba_options& o = options_;
        const index states = o.channels * o.states;
        const index sizes[] = {o.width,    2 * o.channels,          o.channels,     o.rank + 2 * o.states,
                               o.channels, seen() > 0 ? states : 0, seen() * states};
        index total = 0;
        for (const index size : sizes)
            total += rows * size;
        if (index(work_.size()) < total)
            work_.resize(std::size_t(total));
        T* at = work_.data();
        auto next = [&, i = 0]() mutable {
            T* const here = at;
            at += rows * sizes[i++];
            return here;
        };
        // In the order written: braces evaluate from left to right.
        return {next(), next(), next(), next(), next(), next(), next()};
    }

private:
    index seen() const noexcept {
        return std::min(options_.window, options_.layers - 1);
    }
    static const dense_mamba_options& checked(const dense_mamba_options& o) {
        const auto at_least = [](const char* name, index value, index least) {
            detail::check(value >= least, "dense_mamba_plan", name,
                          least == 0 ? "must not be negative"
                                     : "must be at "
                                       "least 1",
                          double(value));
        };
        at_least("width", o.width, 1);
        at_least("channels", o.channels, 1);
        at_least("states", o.states, 1);
        at_least("rank", o.rank, 1);
        at_least("taps", o.taps, 1);
        at_least("layers", o.layers, 1);
        at_least("window", o.window, 0);
        at_least("chunk", o.chunk, 1);
        detail::check(o.states <= kernels::selective_scan_states, "dense_mamba_plan", "states", "must be at most 512",
                      double(o.states));
        detail::check(o.taps <= 256, "dense_mamba_plan", "taps", "must be at most 256", double(o.taps));
        detail::check(o.eps >= 0, "dense_mamba_plan", "eps", "must not be negative", o.eps);
        return o;
    }

    dense_mamba_options options_;
    simd::aligned_vector<T> nothing_, work_;
};

namespace detail {

template <class T>
void check_dense_mamba(const char* op, const view<const T, 3>& x, std::span<const dense_mamba_layer<T>> layers,
                       dense_mamba_state<T>& state, const dense_mamba_options& o) {
    const char* const plan = "the plan";
    check_extent(op, "x", x, 2, o.width, "the width of the plan");
    check(index(layers.size()) == o.layers, op, "layers", "must be as many as the plan has", double(layers.size()));
    check_layer(op, "state", state.scan(0), plan, x.extent(0), o.channels, o.states);
    check_layer(op, "state", state.conv(0), plan, x.extent(0), o.taps - 1, o.channels);
    bool is_first = true;
    for (const dense_mamba_layer<T>& l : layers) {
        const auto optional = [&](const char* name, const view<const T, 1>& v) {
            if (v.is_given())
                check_layer(op, name, v, plan, o.channels);
        };
        check_layer(op, "norm", l.norm, plan, o.width);
        check_layer(op, "in_proj", l.in_proj, plan, 2 * o.channels, o.width);
        check_layer(op, "conv_weight", l.conv_weight, plan, o.channels, o.taps);
        optional("conv_bias", l.conv_bias);
        check_layer(op, "x_proj", l.x_proj, "rank + 2 states of the plan", o.rank + 2 * o.states, o.channels);
        check_layer(op, "dt_proj", l.dt_proj, plan, o.channels, o.rank);
        optional("dt_bias", l.dt_bias);
        check_layer(op, "A", l.A, plan, o.channels, o.states);
        optional("D", l.D);
        check_layer(op, "out_proj", l.out_proj, plan, o.width, o.channels);
        if (!is_first && o.window > 0) {
            check_layer(op, "sel1", l.sel1, plan, l.sel1.extent(0), o.width);
            check_layer(op, "sel2", l.sel2, plan, o.channels, l.sel1.extent(0));
        }
        is_first = false;
    }
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

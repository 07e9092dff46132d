/// \file
/// Shape, tensors, states and working memory of a stack of DenseRetNet layers; formulas in dense_retnet_block.hpp.
#ifndef DEFT_SSM_DENSE_RETNET_PLAN_HPP
#define DEFT_SSM_DENSE_RETNET_PLAN_HPP

#include <deft/simd/aligned_vector.hpp>
#include <deft/ssm/layer_rows.hpp>
#include <deft/ssm/retention.hpp>

#include <algorithm>
#include <limits>
#include <span>
#include <vector>

namespace deft {

struct dense_retnet_options {
    index width = 0;       ///< D
    index key_width = 0;   ///< Dk, of all heads
    index value_width = 0; ///< E, of all heads
    index heads = 1;       ///< H
    index layers = 1;      ///< L
    index window = 1;      ///< m: earlier layers that a layer sees
    double eps = 1e-6;
    double base = 10000; ///< of rotary positions
    retention_row_norm row_norm = retention_row_norm::none;
    double clamp_max = std::numeric_limits<double>::infinity();
    index chunk = 256; ///< tokens that go through all layers at a time; abs_sum takes all of them
};

/// Tensors of a layer. The first one has no use for k_sel1 .. v_norm, which may be absent there.
template <class T>
struct dense_retnet_layer {
    view<const T, 1> input_norm;
    view<const T, 2> wq, wk, wvg;
    view<const T, 2> k_sel1 = {}, k_sel2 = {}, v_sel1 = {}, v_sel2 = {};
    view<const T, 1> k_norm = {}, v_norm = {};
    view<const T, 1> group_norm;
    view<const T, 2> wo;
};

inline namespace DEFT_ISA {

/// What a stack carries from token to token, for `batch` sequences. It begins empty; a copy is a snapshot.
template <class T>
class dense_retnet_state {
public:
    dense_retnet_state(index batch, const dense_retnet_options& o)
        : batch_(batch), heads_(o.heads), key_width_(o.key_width / o.heads), value_width_(o.value_width / o.heads),
          states_(std::size_t(o.layers * batch * heads_ * key_width_ * value_width_)),
          keys_(std::size_t(o.layers * batch * heads_ * key_width_)), scale_(std::size_t(o.heads)) {}

    /// Back to no tokens.
    void reset() noexcept {
        std::fill(states_.begin(), states_.end(), T(0));
        std::fill(keys_.begin(), keys_.end(), T(0));
        std::fill(scale_.begin(), scale_.end(), 0.0);
        position = 0;
    }
    index batch() const noexcept {
        return batch_;
    }
    /// S of a layer, `[B, H, Dk / H, E / H]`.
    view<T, 4> layer(index l) noexcept {
        const index size = batch_ * heads_ * key_width_ * value_width_;
        return {states_.data() + l * size, {batch_, heads_, key_width_, value_width_}};
    }
    /// z of a layer, `[B, H, Dk / H]`, of row_norm sum_abs.
    view<T, 3> keys(index l) noexcept {
        return {keys_.data() + l * batch_ * heads_ * key_width_, {batch_, heads_, key_width_}};
    }
    /// c, `[H]`, of all layers.
    view<double, 1> scale() noexcept {
        return {scale_.data(), {heads_}};
    }
    std::size_t bytes() const noexcept {
        return (states_.size() + keys_.size()) * sizeof(T) + scale_.size() * sizeof(double);
    }

    index position = 0; ///< of the next token

private:
    index batch_, heads_, key_width_, value_width_;
    simd::aligned_vector<T> states_, keys_;
    std::vector<double> scale_;
};

/// Decays and working memory of stacks of one shape; the memory grows with the largest call so far, at most to that of
/// a chunk of tokens. One object serves one call at a time.
template <class T>
class dense_retnet_plan {
public:
    /// Throws std::invalid_argument if heads do not divide D, Dk and E, Dk / H is odd, there is no layer, there are
    /// several and no window, or a number is out of range.
    explicit dense_retnet_plan(const dense_retnet_options& options)
        : options_(checked(options)), gamma_(std::size_t(options.heads)), scale_(std::size_t(2 * options.heads)) {
        fill_retention_decay(gamma_, retention_decay::retnet);
    }

    const dense_retnet_options& options() const noexcept {
        return options_;
    }
    view<const double, 1> gamma() const noexcept {
        return gamma_;
    }
    /// c before the tokens of a block, and room for a layer to update it.
    view<double, 1> scale(index which) noexcept {
        return {scale_.data() + which * options_.heads, {options_.heads}};
    }
    retention_options retention() const noexcept {
        return {.row_norm = options_.row_norm, .clamp_max = options_.clamp_max};
    }

    /// Rows of a chunk: what layers work on, and k and v of the last layers, each `[window, rows, ..]`.
    struct memory {
        T *normed, *q, *k, *v_and_gate, *fused_k, *fused_v, *o, *window_k, *window_v;
    };
    memory reserve(index rows) {
        const dense_retnet_options& o = options_;
        const index seen = std::min(o.window, o.layers - 1);
        const index sizes[] = {o.width,       o.key_width,   o.key_width,        2 * o.value_width,   o.key_width,
                               o.value_width, o.value_width, seen * o.key_width, seen * o.value_width};
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
        return {next(), next(), next(), next(), next(), next(), next(), next(), next()};
    }

private:
    static const dense_retnet_options& checked(const dense_retnet_options& o) {
        const char* const op = "dense_retnet_plan";
        detail::check(o.heads >= 1, op, "heads", "must be at least 1", double(o.heads));
        const auto divides = [&](const char* name, index width) {
            detail::check(width >= 1 && width % o.heads == 0, op, name, "must be a multiple of heads", double(width));
        };
        divides("width", o.width);
        divides("key_width", o.key_width);
        divides("value_width", o.value_width);
        detail::check(o.key_width / o.heads % 2 == 0, op, "key_width", "must be even for each head",
                      double(o.key_width));
        detail::check(o.layers >= 1, op, "layers", "must be at least 1", double(o.layers));
        detail::check(o.window >= (o.layers > 1 ? 1 : 0), op, "window", "must be at least 1 for several layers",
                      double(o.window));
        detail::check(o.eps >= 0, op, "eps", "must not be negative", o.eps);
        detail::check(o.base > 0, op, "base", "must be positive", o.base);
        detail::check(o.clamp_max >= 1, op, "clamp_max", "must be at least 1", o.clamp_max);
        detail::check(o.chunk >= 1, op, "chunk", "must be at least 1", double(o.chunk));
        return o;
    }

    dense_retnet_options options_;
    std::vector<double> gamma_, scale_;
    simd::aligned_vector<T> work_;
};

namespace detail {

template <class T>
void check_dense_retnet(const char* op, const view<const T, 3>& x, std::span<const dense_retnet_layer<T>> layers,
                        dense_retnet_state<T>& state, const dense_retnet_options& o) {
    check_extent(op, "x", x, 2, o.width, "the width of the plan");
    check(index(layers.size()) == o.layers, op, "layers", "must be as many as the plan has", double(layers.size()));
    check(state.batch() == x.extent(0), op, "state", "must be of as many sequences as x", double(state.batch()));
    const auto shaped = [&](const auto& expected) {
        for (int axis = 0; axis < 4; ++axis)
            check_extent(op, "state", state.layer(0), axis, expected[axis], "the plan");
    };
    const index head[4] = {x.extent(0), o.heads, o.key_width / o.heads, o.value_width / o.heads};
    shaped(head);
    if (o.row_norm == retention_row_norm::abs_sum)
        check(state.position == 0, op, "state", "abs_sum begins with an empty state", double(state.position));
    bool is_first = true;
    for (const dense_retnet_layer<T>& l : layers) {
        const char* const plan = "the plan";
        check_layer(op, "input_norm", l.input_norm, plan, o.width);
        check_layer(op, "wq", l.wq, plan, o.key_width, o.width);
        check_layer(op, "wk", l.wk, plan, o.key_width, o.width);
        check_layer(op, "wvg", l.wvg, plan, 2 * o.value_width, o.width);
        check_layer(op, "group_norm", l.group_norm, plan, o.value_width / o.heads);
        check_layer(op, "wo", l.wo, plan, o.width, o.value_width);
        if (!is_first) {
            check_layer(op, "k_sel1", l.k_sel1, plan, l.k_sel1.extent(0), o.width);
            check_layer(op, "k_sel2", l.k_sel2, plan, o.key_width, l.k_sel1.extent(0));
            check_layer(op, "v_sel1", l.v_sel1, plan, l.v_sel1.extent(0), o.width);
            check_layer(op, "v_sel2", l.v_sel2, plan, o.value_width, l.v_sel1.extent(0));
            check_layer(op, "k_norm", l.k_norm, plan, o.key_width);
            check_layer(op, "v_norm", l.v_norm, plan, o.value_width);
        }
        is_first = false;
    }
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

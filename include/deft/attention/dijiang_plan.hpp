/// \file
/// Shape, tensors and working memory of a DiJiang layer, and how its tokens are cut into blocks; formulas in
/// dijiang_layer.hpp.
#ifndef DEFT_ATTENTION_DIJIANG_PLAN_HPP
#define DEFT_ATTENTION_DIJIANG_PLAN_HPP

#include <deft/attention/dct_feature_map.hpp>
#include <deft/attention/linear_attention.hpp>
#include <deft/attention/token_range.hpp>
#include <deft/kernels/gated_group_norm.hpp>
#include <deft/linalg.hpp>
#include <deft/simd/aligned_vector.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace deft {

struct dijiang_layer_options {
    index heads = 1;  ///< H
    index rotary = 0; ///< R, even; 0: no rotation
    index groups = 1; ///< of the norm
    double rope_base = 10000;
    double norm_eps = 1e-5;
    index threads = 1; ///< that feature maps can use: each needs working memory
};

/// The tensors of a layer; T is const for weights, not for their gradients.
template <class T>
struct dijiang_weights {
    view<T, 2> w_qkv = {};
    view<T, 1> b_qkv = {};
    view<T, 1> t = {};
    view<T, 2> w_gate = {};
    view<T, 1> gn_weight = {}, gn_bias = {};
    view<T, 2> w_out = {};
    view<T, 1> b_out = {};
    attention_decay<T> decay = {};
    view<T, 2> q_scale = {};
};

inline namespace DEFT_ISA {

/// Tables and working memory of layers of one shape; grows with the largest call so far, at most to that of a block of
/// tokens. One object serves one call at a time.
template <class T>
class dijiang_plan {
public:
    /// Throws std::invalid_argument if heads do not divide E, groups do not, rotary is odd or more than E / H, or a
    /// number is not positive (norm_eps may be 0).
    dijiang_plan(index embedding, const dijiang_layer_options& options)
        : options_(checked(embedding, options)), embedding_(embedding), width_(embedding / options.heads),
          features_(width_, width_, {.threads = options.threads}) {
        for (index c = 0; 2 * c < options.rotary; ++c)
            frequencies_.push_back(std::pow(options.rope_base, -2.0 * double(c) / double(options.rotary)));
    }

    const dijiang_layer_options& options() const noexcept {
        return options_;
    }
    index embedding() const noexcept {
        return embedding_;
    }
    index width() const noexcept {
        return width_;
    }
    dct_feature_plan<T>& features() noexcept {
        return features_;
    }
    kernels::gated_group_norm<T> norm(const dijiang_weights<const T>& w) const noexcept {
        return {embedding_, options_.groups, options_.norm_eps, w.gn_weight.data(), w.gn_bias.data()};
    }
    /// At least `count` numbers.
    T* memory(index count) {
        if (index(work_.size()) < count)
            work_.resize(std::size_t(count));
        return work_.data();
    }

    /// Turns q and k of a row of 3E by the angle of `position`, or back.
    void rotate(T* row, index position, bool back) const noexcept {
        const index half = options_.rotary / 2;
        for (index c = 0; c < half; ++c) {
            const double angle = double(position) * frequencies_[std::size_t(c)];
            const T cosine = T(std::cos(angle)), sine = T(back ? -std::sin(angle) : std::sin(angle));
            for (index h = 0; h < options_.heads; ++h)
                for (T* const p : {row + 3 * h * width_ + c, row + (3 * h + 1) * width_ + c}) {
                    const T a = p[0], b = p[half];
                    p[0] = a * cosine - b * sine;
                    p[half] = b * cosine + a * sine;
                }
        }
    }

private:
    static const dijiang_layer_options& checked(index embedding, const dijiang_layer_options& o) {
        const char* const op = "dijiang_plan";
        detail::check(embedding >= 1, op, "embedding", "must be at least 1", double(embedding));
        detail::check(o.heads >= 1 && embedding % o.heads == 0, op, "heads", "must divide the embedding",
                      double(o.heads));
        detail::check(o.groups >= 1 && embedding % o.groups == 0, op, "groups", "must divide the embedding",
                      double(o.groups));
        detail::check(o.rotary >= 0 && o.rotary % 2 == 0 && o.rotary <= embedding / o.heads, op, "rotary",
                      "must be even and at most the width of a head", double(o.rotary));
        detail::check(o.rope_base > 0, op, "rope_base", "must be positive", o.rope_base);
        detail::check(o.norm_eps >= 0, op, "norm_eps", "must not be negative", o.norm_eps);
        return o;
    }

    dijiang_layer_options options_;
    index embedding_, width_;
    dct_feature_plan<T> features_;
    std::vector<double> frequencies_;
    simd::aligned_vector<T> work_;
};

namespace detail {

template <class T, class W>
void check_dijiang_weights(const char* op, const dijiang_plan<T>& plan, const dijiang_weights<W>& w) {
    const index e = plan.embedding();
    const auto vector = [&](const char* name, const view<W, 1>& v, index expected, const char* source) {
        check_extent(op, name, v, 0, expected, source);
    };
    const auto matrix = [&](const char* name, const view<W, 2>& v, index rows) {
        check_extent(op, name, v, 0, rows, rows == e ? "the embedding" : "three times the embedding");
        check_extent(op, name, v, 1, e, "the embedding");
    };
    matrix("w_qkv", w.w_qkv, 3 * e);
    vector("b_qkv", w.b_qkv, 3 * e, "three times the embedding");
    vector("t", w.t, plan.width(), "the width of a head");
    matrix("w_gate", w.w_gate, e);
    vector("gn_weight", w.gn_weight, e, "the embedding");
    vector("gn_bias", w.gn_bias, e, "the embedding");
    matrix("w_out", w.w_out, e);
    vector("b_out", w.b_out, e, "the embedding");
}

template <class T>
void check_dijiang(const char* op, const dijiang_plan<T>& plan, const view<const T, 3>& x,
                   const dijiang_weights<const T>& w, const view<const T, 4>& state) {
    const index heads = plan.options().heads, d = plan.width();
    check_extent(op, "x", x, 2, plan.embedding(), "the embedding");
    check_dijiang_weights(op, plan, w);
    check_decay<T>(op, w.decay, x.extent(0), heads, x.extent(1));
    if (w.q_scale.is_given()) {
        check_extent(op, "q_scale", w.q_scale, 0, heads, "heads");
        check_extent(op, "q_scale", w.q_scale, 1, x.extent(1), "extent 1 of x");
    }
    const index expected[4] = {x.extent(0), heads, d, d};
    for (int axis = 0; axis < 4; ++axis)
        check_extent(op, "state", state, axis, expected[axis], "batches, heads, width of a head");
}

/// A few tokens of a few batches, of which there is only one or of each batch only one token: rows evenly spaced.
struct dijiang_block {
    index batch, batches, token, tokens;

    index rows() const noexcept {
        return batches * tokens;
    }
    template <class T>
    view<T, 2> of(const view<T, 3>& x) const noexcept {
        return {x.data() + batch * x.stride(0) + token * x.stride(1),
                {rows(), x.extent(2)},
                {tokens > 1 ? x.stride(1) : x.stride(0), index{1}}};
    }
    /// Columns [first, first + d) of every `stride`-th column on as heads of rows of `columns`.
    template <class T>
    view<T, 4> heads(T* rows_at, index columns, index count, index stride, index d) const noexcept {
        return {rows_at, {batches, count, tokens, d}, {tokens * columns, stride, columns, index{1}}};
    }
};

/// y = x W (+ bias): w is [in, out].
template <class T, class Executor>
void project(const view<const T, 2>& x, const linalg::matrix<const T>& w, const view<const T, 1>& bias,
             const view<T, 2>& y, Executor& executor) {
    for (index r = 0; r < y.extent(0) && bias.is_given(); ++r)
        std::copy_n(bias.data(), y.extent(1), y.data() + r * y.stride(0));
    linalg::gemm<T>(T(1), x, w, bias.is_given() ? T(1) : T(0), y, executor);
}

/// q scaled by q_scale, from phi(q); rows of `columns`, heads `stride` apart. The two may be the same.
template <class T>
void scale_queries(const view<const T, 2>& q_scale, const dijiang_block& block, index heads, index d, const T* phi,
                   index columns, index stride, T* to, index to_columns, index to_stride) {
    for (index r = 0; r < block.rows(); ++r)
        for (index h = 0; h < heads; ++h)
            for (index c = 0; c < d; ++c)
                to[r * to_columns + h * to_stride + c] =
                    q_scale(h, block.token + r % block.tokens) * phi[r * columns + h * stride + c];
}

template <class T>
view<T, 2> head_matrix(T* first, index rows, index heads, index d) noexcept { // of rows of 3 heads d
    return {first, {rows * heads, d}, {3 * d, index{1}}};
}

template <class T>
attention_decay<T> decay_of(const attention_decay<T>& decay, const dijiang_block& block) {
    return decay_range(decay, block.batch, block.batches, block.token, block.tokens);
}

template <class T>
view<T, 4> state_of(const view<T, 4>& s, const dijiang_block& block) noexcept {
    return {s.data() + block.batch * s.stride(0),
            {block.batches, s.extent(1), s.extent(2), s.extent(3)},
            {s.stride(0), s.stride(1), s.stride(2), index{1}}};
}

/// f(block) in order of the tokens of each batch.
template <class F>
void for_each_dijiang_block(index batches, index tokens, index most, F&& f) {
    if (tokens == 1) {
        f(dijiang_block{0, batches, 0, 1});
        return;
    }
    for (index b = 0; b < batches; ++b)
        for (index i = 0; i < tokens; i += most)
            f(dijiang_block{b, 1, i, std::min(most, tokens - i)});
}

} // namespace detail

} // namespace DEFT_ISA
} // namespace deft

#endif

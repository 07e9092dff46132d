/// \file
/// The attention of DiJiang (arXiv:2403.19928, eq. 4 and 13, Algorithm 1): linear attention over discrete cosine
/// features of queries and keys, which it makes a block of tokens at a time.
///
///     o = linear_attention(phi(q), phi(k), v, decay),  phi = dct_feature_map with one t and D for all heads
///
/// q: `[B, H, nq, d]`, k: `[B, G, n, d]`, v: `[B, G, n, e]`, o: `[B, H, nq, e]`, H a multiple of G; t, D: `[m]`, m = r
/// d; decay as of linear_attention. float or double. With stabilizer max (exp features, normalize sum, eps 0) it is
/// linear_attention_log over log|D| + u - c |x'|^2, which no input can make overflow. Options of both parts: see
/// dct_feature_map.hpp and linear_attention.hpp. One call with many tokens is prefill, with one token a step of
/// decoding; a sequence may be cut into calls anywhere.
///
/// The state is `[B, G, m, e]`, with a norm `[B, G, m]` for normalize sum, and log_scale `[B, G, m]` for stabilizer
/// max; what is not needed may be absent.
///
/// On random input no choice of features comes closer to softmax attention than a plain running mean by more than a few
/// percent: models are fine-tuned with this attention.
#ifndef DEFT_ATTENTION_DCT_LINEAR_ATTENTION_HPP
#define DEFT_ATTENTION_DCT_LINEAR_ATTENTION_HPP

#include <deft/attention/dct_feature_map.hpp>
#include <deft/attention/linear_attention_backward.hpp>
#include <deft/attention/linear_attention_log.hpp>
#include <deft/attention/token_range.hpp>
#include <deft/simd/aligned_vector.hpp>

#include <algorithm>
#include <limits>
#include <type_traits>

namespace deft {

struct dct_linear_attention_options {
    dct_feature_options features = {};
    attention_normalize normalize = attention_normalize::none;
    attention_mask mask = attention_mask::causal;
    double eps = 0;
};

inline namespace DEFT_ISA {

/// Tables and working memory; grows with the largest call so far: forward at most to the features of a block of tokens,
/// backward to those of all. One object serves one call at a time.
template <class T>
class dct_linear_attention_plan {
public:
    /// Throws like dct_feature_plan, and if eps is negative, features are logarithms, or a stabilizer comes without
    /// normalize sum or with an eps.
    dct_linear_attention_plan(index d, index m, const dct_linear_attention_options& options = {})
        : options_(checked(options)), features_(d, m, feature_options()) {}

    const dct_linear_attention_options& options() const noexcept {
        return options_;
    }
    bool is_stable() const noexcept {
        return options_.features.stabilizer == feature_stabilizer::max;
    }
    dct_feature_plan<T>& features() noexcept {
        return features_;
    }
    linear_attention_options attention() const noexcept {
        return {.normalize = options_.normalize, .mask = options_.mask, .eps = options_.eps};
    }
    /// At least `count` numbers.
    T* memory(index count) {
        if (index(work_.size()) < count)
            work_.resize(std::size_t(count));
        return work_.data();
    }

private:
    static const dct_linear_attention_options& checked(const dct_linear_attention_options& o) {
        const char* const op = "dct_linear_attention_plan";
        const bool stable = o.features.stabilizer == feature_stabilizer::max;
        detail::check(o.features.activation != feature_activation::log, op, "activation",
                      "must be softmax or exp, with stabilizer max for logarithms", double(o.features.activation));
        detail::check(o.eps >= 0, op, "eps", "must not be negative", o.eps);
        detail::check(!stable || o.eps == 0, op, "eps", "must be 0 with stabilizer max", o.eps);
        detail::check(!stable || o.normalize == attention_normalize::sum, op, "normalize",
                      "must be sum with stabilizer max", double(o.normalize));
        return o;
    }
    /// The stable form takes logarithms, whose scales linear_attention_log finds itself.
    dct_feature_options feature_options() const noexcept {
        dct_feature_options f = options_.features;
        if (f.stabilizer == feature_stabilizer::max && f.activation == feature_activation::exp) {
            f.activation = feature_activation::log;
            f.stabilizer = feature_stabilizer::none;
        }
        return f;
    }

    dct_linear_attention_options options_;
    dct_feature_plan<T> features_;
    simd::aligned_vector<T> work_;
};

namespace detail {

/// f(rows of x, rows of others...): those of a head, or with one token of a batch, which are as many as heads.
template <class X, class... Y, class F>
void for_each_head_rows(F&& f, const view<X, 4>& x, const view<Y, 4>&... y) {
    const int axis = x.extent(2) == 1 ? 1 : 2;
    const auto rows = [axis](const auto& v, index b, index h) {
        using type = std::remove_reference_t<decltype(*v.data())>;
        return view<type, 2>(v.data() + b * v.stride(0) + h * v.stride(1), {v.extent(axis), v.extent(3)},
                             {v.stride(axis), index{1}});
    };
    for (index b = 0; b < x.extent(0); ++b)
        for (index h = 0; h < (axis == 1 ? std::min<index>(x.extent(1), 1) : x.extent(1)); ++h)
            f(rows(x, b, h), rows(y, b, h)...);
}

template <class T>
void check_dct_attention(const char* op, dct_linear_attention_plan<T>& plan, const view<const T, 4>& q,
                         const view<const T, 4>& k, const view<const T, 4>& v, const view<const T, 1>& t,
                         const view<const T, 1>& weight, const attention_decay<const T>& decay) {
    const index d = plan.features().length(), m = plan.features().features();
    check_extent(op, "q", q, 3, d, "width of the plan");
    check_extent(op, "t", t, 0, m, "features of the plan");
    if (weight.is_given())
        check_extent(op, "weight", weight, 0, m, "features of the plan");
    check_attention<T>(op, q, k, v, decay, plan.attention());
}

/// The features of x in `to`.
template <class T, class Executor>
view<const T, 4> features_of(dct_linear_attention_plan<T>& plan, const view<const T, 4>& x, const view<const T, 1>& t,
                             const view<const T, 1>& weight, T* to, Executor& executor) {
    const view<T, 4> phi(to, {x.extent(0), x.extent(1), x.extent(2), plan.features().features()});
    for_each_head_rows(
        [&](const view<const T, 2>& from, const view<T, 2>& rows) {
            deft::dct_feature_map(from, t, weight, rows, absent, plan.features(), executor);
        },
        x, phi);
    return phi;
}

/// linear_attention or linear_attention_log, over features.
template <class T, class Executor>
void attend(const dct_linear_attention_plan<T>& plan, const view<const T, 4>& q, const view<const T, 4>& k,
            const view<const T, 4>& v, const attention_decay<const T>& decay, const view<T, 4>& o,
            const linear_attention_log_state_view<T>& state, Executor& executor) {
    if (plan.is_stable())
        deft::linear_attention_log<T>(q, k, v, decay, o, state, {.mask = plan.options().mask}, executor);
    else
        deft::linear_attention<T>(q, k, v, decay, o, linear_attention_state_view<T>(state.state, state.norm),
                                  plan.attention(), executor);
}

} // namespace detail

/// Formulas, shapes and types at the top of this file. weight, D, may be absent.
///
/// o overlaps nothing. Throws std::invalid_argument before anything is written if shapes do not fit, and as the two
/// parts do. Without causal mask all keys enter the state before the first query is answered. The same bits for every
/// executor. Allocates only what the plan does not hold yet.
template <class T = void, class O = view<float, 4>, executor Executor = serial_executor>
void dct_linear_attention(in<element_t<T, O>, 4> q, in<element_t<T, O>, 4> k, in<element_t<T, O>, 4> v,
                          in<element_t<T, O>, 1> t, in<element_t<T, O>, 1> weight, in_decay<element_t<T, O>> decay,
                          O&& o_out, in_scaled_state<element_t<T, O>, 3> state,
                          dct_linear_attention_plan<element_t<T, O>>& plan, Executor&& executor = Executor()) {
    using S = element_t<T, O>;
    constexpr index most = 256; // tokens
    const char* const op = "dct_linear_attention";
    const view<S, 4> o(o_out);
    detail::check_dct_attention<S>(op, plan, q, k, v, t, weight, decay);
    detail::check_output(op, "o", o, q, v);
    const index m = plan.features().features(), n = k.extent(2), queries = q.extent(2);
    const view<const S, 4> keys(nullptr, {k.extent(0), k.extent(1), n, m});
    if (plan.is_stable())
        detail::check_scaled_state<S>(op, state, keys, v);
    else
        detail::check_state(op, "state", "norm", state.state, state.norm, keys, v, plan.options().normalize);

    const index block = std::min(most, std::max(n, queries)), size = k.extent(0) * m * block;
    S *const phi_q = plan.memory(size * (q.extent(1) + k.extent(1))), *const phi_k = phi_q + size * q.extent(1);
    // `asked` queries from i on, and `given` keys from j on.
    const auto run = [&](index i, index asked, index j, index given) {
        const view<const S, 4> from_q = detail::token_range<const S>(q, i, asked);
        const view<const S, 4> from_k = detail::token_range<const S>(k, j, given);
        detail::attend<S>(
            plan, detail::features_of(plan, from_q, t, weight, phi_q, executor),
            detail::features_of(plan, from_k, t, weight, phi_k, executor), detail::token_range<const S>(v, j, given),
            detail::decay_range(decay, 0, k.extent(0), j, given), detail::token_range(o, i, asked), state, executor);
    };
    if (plan.options().mask == attention_mask::causal) {
        for (index i = 0; i < n; i += block)
            run(i, std::min(block, n - i), i, std::min(block, n - i));
        return;
    }
    for (index j = 0; j < n; j += block)
        run(0, 0, j, std::min(block, n - j));
    for (index i = 0; i < queries; i += block)
        run(i, std::min(block, queries - i), 0, 0);
}

/// Gradients of dct_linear_attention, of one call from the empty state, for the cotangent grad_o: those of
/// linear_attention (with stabilizer max of linear_attention_log, quadratic in n) through those of the features. t and
/// D get the sum of both sides and of all heads. weight, grad_weight and grad_decay may be absent; no output overlaps
/// another or an input. Throws and runs like dct_linear_attention.
template <class T = void, class GQ = view<float, 4>, executor Executor = serial_executor>
void dct_linear_attention_backward(in<element_t<T, GQ>, 4> q, in<element_t<T, GQ>, 4> k, in<element_t<T, GQ>, 4> v,
                                   in<element_t<T, GQ>, 1> t, in<element_t<T, GQ>, 1> weight,
                                   in_decay<element_t<T, GQ>> decay, in<element_t<T, GQ>, 4> grad_o, GQ&& grad_q_out,
                                   out<element_t<T, GQ>, 4> grad_k, out<element_t<T, GQ>, 4> grad_v,
                                   out<element_t<T, GQ>, 1> grad_t, out<element_t<T, GQ>, 1> grad_weight,
                                   out_decay<element_t<T, GQ>> grad_decay,
                                   dct_linear_attention_plan<element_t<T, GQ>>& plan,
                                   Executor&& executor = Executor()) {
    using S = element_t<T, GQ>;
    const char* const op = "dct_linear_attention_backward";
    const view<S, 4> grad_q(grad_q_out);
    detail::check_dct_attention<S>(op, plan, q, k, v, t, weight, decay);
    detail::check_output(op, "grad_o", grad_o, q, v);
    detail::check_same_shape(op, "grad_q", grad_q, "q", q);
    detail::check_same_shape(op, "grad_k", grad_k, "k", k);
    detail::check_same_shape(op, "grad_v", grad_v, "v", v);
    detail::check_same_shape(op, "grad_t", grad_t, "t", t);
    if (grad_weight.is_given())
        detail::check_same_shape(op, "grad_weight", grad_weight, "weight", weight);
    detail::check_decay_gradient<S>(op, grad_decay, decay, k.extent(0), k.extent(1), k.extent(2));

    const index batch = q.extent(0), m = plan.features().features(), e = v.extent(3);
    const index of_q = batch * q.extent(1) * q.extent(2), of_k = batch * k.extent(1) * k.extent(2);
    const index of_state = batch * k.extent(1) * m;
    S* const phi_q = plan.memory(2 * (of_q + of_k) * m + of_q * (e + 1) + of_state * (e + 2) + 2 * m);
    S *const phi_k = phi_q + of_q * m, *const to_q = phi_k + of_k * m, *const to_k = to_q + of_q * m;
    S *const o_at = to_k + of_k * m, *const denominators = o_at + of_q * e, *const sums = denominators + of_q;
    S* const parameters = sums + of_state * (e + 2);
    std::fill_n(sums, of_state * (e + 1), S(0));
    std::fill_n(sums + of_state * (e + 1), of_state, -std::numeric_limits<S>::infinity());
    const shape<4> q_shape(batch, q.extent(1), q.extent(2), m), k_shape(batch, k.extent(1), k.extent(2), m);
    const shape<3> norm_shape(batch, k.extent(1), m);
    const view<S, 4> o(o_at, {batch, q.extent(1), q.extent(2), e});
    const linear_attention_log_state_view<S> state{
        {sums, {batch, k.extent(1), m, e}}, {sums + of_state * e, norm_shape}, {sums + of_state * (e + 1), norm_shape}};
    const view<const S, 4> features_q = detail::features_of<S>(plan, q, t, weight, phi_q, executor);
    const view<const S, 4> features_k = detail::features_of<S>(plan, k, t, weight, phi_k, executor);
    detail::attend<S>(plan, features_q, features_k, v, decay, o, state, executor);
    const view<S, 4> through_q(to_q, q_shape), through_k(to_k, k_shape);
    if (plan.is_stable())
        deft::linear_attention_log_backward<S>(features_q, features_k, v, decay, o, grad_o, through_q, through_k,
                                               grad_v, grad_decay, {.mask = plan.options().mask}, executor);
    else
        deft::linear_attention_backward<S>(
            features_q, features_k, v, decay, absent, o, grad_o, through_q, through_k, grad_v, grad_decay, absent,
            {denominators, {batch, q.extent(1), q.extent(2)}}, plan.attention(), executor);

    for (index j = 0; j < m; ++j) {
        grad_t(j) = S(0);
        if (grad_weight.is_given())
            grad_weight(j) = S(0);
    }
    const view<S, 1> part_t(parameters, {m});
    const view<S, 1> part_weight = grad_weight.is_given() ? view<S, 1>(parameters + m, {m}) : view<S, 1>(absent);
    const auto features_backward = [&](const view<const S, 4>& x, const view<S, 4>& grad_phi,
                                       const view<S, 4>& grad_x) {
        detail::for_each_head_rows(
            [&](const view<const S, 2>& from, const view<S, 2>& through, const view<S, 2>& to) {
                deft::dct_feature_map_backward(from, t, weight, through, absent, to, part_t, part_weight,
                                               plan.features(), executor);
                for (index j = 0; j < m; ++j) {
                    grad_t(j) += part_t(j);
                    if (grad_weight.is_given())
                        grad_weight(j) += part_weight(j);
                }
            },
            x, grad_phi, grad_x);
    };
    features_backward(q, through_q, grad_q);
    features_backward(k, through_k, grad_k);
}

} // namespace DEFT_ISA
} // namespace deft

#endif

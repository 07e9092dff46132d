/// \file
/// What the adapters of linear_attention_scaled and linear_attention_log share: `Op` names the tensors and calls the
/// operator.
#ifndef DEFT_TESTS_CONFORMANCE_ATTENTION_WEIGHTED_ATTENTION_CASE_HPP
#define DEFT_TESTS_CONFORMANCE_ATTENTION_WEIGHTED_ATTENTION_CASE_HPP

#include "linear_attention_case.hpp"
#include "support/generate.hpp"

#include <deft/attention/linear_attention_scaled_state.hpp>
#include <deft/attention/weighted_attention.hpp>
#include <deft/reference/attention/linear_attention_scaled.hpp>

#include <algorithm>
#include <cmath>

namespace deft::testing {

/// Exponents in the thousands have a spacing of 5e-4 in float.
template <class T>
tolerance weighted_tolerance(const call<T>& c, std::initializer_list<const char*> logarithms) {
    double largest = 0;
    for (const char* name : logarithms)
        if (c.has(name))
            for (const double x : c.given(name).values)
                largest = std::isfinite(x) ? std::max(largest, std::abs(x)) : largest;
    return by_type<T>({.of_largest = largest > 300 ? 5e-3 : 2e-5}, {.of_largest = 1e-12});
}

template <class T>
struct weighted_sequence {
    weighted_attention_options options;
    view<const T, 4> q, k, v;
    decay_case<T> decay;
    tolerance bound;

    weighted_sequence(call<T>& c, const char* q_name, const char* k_name, const tolerance& allowed)
        : options{.mask = c.number("causal", 1) != 0 ? attention_mask::causal : attention_mask::full},
          q(c.input(rank<4>, q_name)), k(c.input(rank<4>, k_name)), v(c.input(rank<4>, "in.v")),
          decay(c, c.shape(k_name)), bound(allowed) {}

    bool causal() const {
        return options.mask == attention_mask::causal;
    }
    extents o_shape() const {
        return {q.extent(0), q.extent(1), q.extent(2), v.extent(3)};
    }
    reference::linear_attention_inputs<T> reference() const {
        return {q, k, v, decay.reference()};
    }
};

/// The state of a case: outputs that begin with the inputs, or empty.
template <class T, int ScaleRank>
struct weighted_state {
    view<const T, 4> first_state = absent;
    view<const T, 3> first_norm = absent;
    view<const T, ScaleRank> first_scale = absent;
    scaled_attention_state_view<T, ScaleRank> now;

    weighted_state(call<T>& c, const weighted_sequence<T>& s, const std::string& scale) {
        const extents shape{s.k.extent(0), s.k.extent(1), s.k.extent(3), s.v.extent(3)};
        first_state = c.optional_input(rank<4>, "in.state");
        first_norm = c.optional_input(rank<3>, "in.norm");
        first_scale = c.optional_input(rank<ScaleRank>, "in." + scale);
        now.state = c.output(rank<4>, "out.state", shape, {.bound = s.bound});
        now.norm = c.output(rank<3>, "out.norm", {shape[0], shape[1], shape[2]}, {.bound = s.bound});
        now.log_scale = c.output(rank<ScaleRank>, "out." + scale, extents(shape.begin(), shape.begin() + ScaleRank),
                                 {.bound = s.bound});
    }
    void start() const {
        fill_with(now.state, T(0));
        fill_with(now.norm, T(0));
        fill_with(now.log_scale, -std::numeric_limits<T>::infinity());
        if (first_state.is_given())
            copy_to(first_state, now.state);
        if (first_norm.is_given())
            copy_to(first_norm, now.norm);
        if (first_scale.is_given())
            copy_to(first_scale, now.log_scale);
    }
};

/// Calls run(begin, end, o, options, executor) in the usual forms.
template <class T, int ScaleRank, class Run>
void bind_weighted_forward(call<T>& c, const weighted_sequence<T>& s, const weighted_state<T, ScaleRank>& state,
                           const view<T, 4>& o, Run run) {
    const index n = s.k.extent(2);
    for (const index chunk : {0, 1, 2, 3, 16})
        if (chunk < n || chunk == 0)
            c.forward(chunk == 0 ? std::string("chosen chunk") : "chunk " + std::to_string(chunk),
                      [=](any_executor& e) {
                          weighted_attention_options options = s.options;
                          options.chunk = chunk;
                          state.start();
                          run(0, n, o, options, e);
                      });
    if (s.causal())
        c.forward("two calls", [=](any_executor& e) {
            state.start();
            run(0, n / 2, o, s.options, e);
            run(n / 2, n, o, s.options, e);
        });
}

} // namespace deft::testing

#endif

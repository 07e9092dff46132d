/// \file
/// The algebra of linear attention's states: a sequence cut over chunks, threads or machines.
///
/// A span of tokens is (A, S, z): the product of its decays, and state and norm computed from empty ones. The span 1
/// followed by the span 2 (arXiv:2403.19928, section 4.4, after RetNet) is
///
///     (A1, S1, z1) . (A2, S2, z2) = (A1 A2, A2 S1 + S2, A2 z1 + z2)        nothing: (1, 0, 0)
///
/// associative, not commutative. With scales (the states of linear_attention_scaled), l = log A:
///
///     l = l1 + l2,  c = max(c1 + l2, c2),  S = exp(c1 + l2 - c) S1 + exp(c2 - c) S2,  z likewise    nothing: (0, -inf,
///     0)
///
/// decay, log_decay, log_scale: `[N]`; state: `[N, m, e]`; norm: `[N, m]`, or absent; N is whatever is combined at
/// once, batches times heads. Elements are float or double.
#ifndef DEFT_ATTENTION_LINEAR_ATTENTION_COMBINE_HPP
#define DEFT_ATTENTION_LINEAR_ATTENTION_COMBINE_HPP

#include <deft/kernels/linear_attention_combine.hpp>
#include <deft/parallel.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace deft {

template <class T>
struct linear_attention_span {
    view<T, 1> decay = {};
    view<T, 3> state = {};
    view<T, 2> norm = {};
};
template <class T>
struct linear_attention_scaled_span {
    view<T, 1> log_decay = {}, log_scale = {};
    view<T, 3> state = {};
    view<T, 2> norm = {};
};

inline namespace DEFT_ISA {
namespace detail {

template <class In, class Out>
void check_span(const char* name, const In& span, const Out& of) {
    const char* const op = "linear_attention_combine";
    check_same_shape(op, name, span.state, "the state of out", of.state);
    check_extent(op, name, of.norm, 0, of.norm.is_given() ? of.state.extent(0) : 0, "extent 0 of the state of out");
    check_extent(op, name, of.norm, 1, of.norm.is_given() ? of.state.extent(1) : 0, "extent 1 of the state of out");
    check_same_shape(op, name, span.norm, "the norm of out", of.norm);
}

template <class T, class In, class Out>
void combine_states(const In& first, const In& second, const Out& out, index i, T of_first, T of_second) noexcept {
    const auto row = [](const auto& x, index f) { return x.data() + f; };
    for (index f = 0; f < out.state.extent(1); ++f) {
        const auto at = [&](const auto& s) { return s.data() + i * s.stride(0) + f * s.stride(1); };
        kernels::combine_rows<simd::default_arch, T>(of_first, at(first.state), of_second, at(second.state),
                                                     at(out.state), out.state.extent(2));
    }
    if (out.norm.is_given())
        kernels::combine_rows<simd::default_arch, T>(of_first, row(first.norm, i * first.norm.stride(0)), of_second,
                                                     row(second.norm, i * second.norm.stride(0)),
                                                     row(out.norm, i * out.norm.stride(0)), out.norm.extent(1));
}

} // namespace detail

/// out = first . second; formulas and shapes at the top of this file. out may be first or second. Throws
/// std::invalid_argument before anything is written if shapes differ.
template <class T, executor Executor = serial_executor>
void linear_attention_combine(const typename detail::non_deduced<linear_attention_span<const T>>::type& first,
                              const typename detail::non_deduced<linear_attention_span<const T>>::type& second,
                              const linear_attention_span<T>& out, Executor&& executor = Executor()) {
    const char* const op = "linear_attention_combine";
    detail::check_span("first", first, out);
    detail::check_span("second", second, out);
    for (const index n : {first.decay.extent(0), second.decay.extent(0), out.decay.extent(0)})
        if (n != out.state.extent(0))
            detail::fail_extent(op, "decay", 0, n, out.state.extent(0), "extent 0 of state");
    executor.parallel_for(out.decay.extent(0), 1, [&](index begin, index end) {
        for (index i = begin; i < end; ++i) {
            const T a1 = first.decay(i), a2 = second.decay(i);
            detail::combine_states<T>(first, second, out, i, a2, T(1));
            out.decay(i) = a1 * a2;
        }
    });
}

/// The same for spans that carry logarithms of scales.
template <class T, executor Executor = serial_executor>
void linear_attention_combine(const typename detail::non_deduced<linear_attention_scaled_span<const T>>::type& first,
                              const typename detail::non_deduced<linear_attention_scaled_span<const T>>::type& second,
                              const linear_attention_scaled_span<T>& out, Executor&& executor = Executor()) {
    const char* const op = "linear_attention_combine";
    detail::check_span("first", first, out);
    detail::check_span("second", second, out);
    for (const index n : {first.log_decay.extent(0), second.log_decay.extent(0), out.log_decay.extent(0),
                          first.log_scale.extent(0), second.log_scale.extent(0), out.log_scale.extent(0)})
        if (n != out.state.extent(0))
            detail::fail_extent(op, "log_decay or log_scale", 0, n, out.state.extent(0), "extent 0 of state");
    executor.parallel_for(out.log_decay.extent(0), 1, [&](index begin, index end) {
        for (index i = begin; i < end; ++i) {
            constexpr T none = -std::numeric_limits<T>::infinity();
            const T l1 = first.log_decay(i), l2 = second.log_decay(i), kept = first.log_scale(i) + l2;
            const T scale2 = second.log_scale(i), scale = std::max(kept, scale2);
            const auto factor = [&](T x) { return x == none ? T(0) : std::exp(x - scale); };
            detail::combine_states<T>(first, second, out, i, factor(kept), factor(scale2));
            out.log_decay(i) = l1 + l2;
            out.log_scale(i) = scale;
        }
    });
}

} // namespace DEFT_ISA
} // namespace deft

#endif

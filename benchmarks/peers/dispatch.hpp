/// \file
/// From run-time choices to compile-time ones, for rivals whose loops want constants.
#ifndef DEFT_BENCHMARKS_PEERS_DISPATCH_HPP
#define DEFT_BENCHMARKS_PEERS_DISPATCH_HPP

#include "series.hpp"

#include <stdexcept>
#include <type_traits>

namespace deft::bench {

/// Calls `f(std::integral_constant<V, v>)` with the one of `Choices` that equals `value`.
template <auto... Choices, class V, class F>
void choose(V value, F&& f) {
    const bool found = ((value == Choices && (f(std::integral_constant<V, Choices>{}), true)) || ...);
    if (!found)
        throw std::invalid_argument("rival does not implement this case");
}

/// Calls `f(base, inner, per_channel, terms)`, all of them constants.
template <class T, class F>
void choose_case(const series<T>& s, F&& f) {
    using enum activation;
    choose<relu, gelu_erf, gelu_tanh, silu>(s.base, [&](auto base) {
        choose<false, true>(s.inner, [&](auto inner) {
            choose<false, true>(s.per_channel, [&](auto per_channel) {
                const auto with = [&](auto terms) { f(base, inner, per_channel, terms); };
                if constexpr (inner)
                    choose<2>(s.terms, with);
                else if constexpr (per_channel)
                    choose<3>(s.terms, with);
                else
                    choose<1, 2, 3, 8>(s.terms, with);
            });
        });
    });
}

} // namespace deft::bench

#endif

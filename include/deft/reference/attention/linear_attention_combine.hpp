/// \file
/// Naive reference of linear_attention_combine: (A1, S1, z1) . (A2, S2, z2) = (A1 A2, A2 S1 + S2, A2 z1 + z2).
#ifndef DEFT_REFERENCE_ATTENTION_LINEAR_ATTENTION_COMBINE_HPP
#define DEFT_REFERENCE_ATTENTION_LINEAR_ATTENTION_COMBINE_HPP

#include <deft/view.hpp>

#include <cmath>
#include <limits>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// to = a x + b y of one span, state [N, m, e] and norm [N, m].
template <class T>
void combine_states(index i, T a, in<T, 3> state1, in<T, 2> norm1, T b, in<T, 3> state2, in<T, 2> norm2,
                    view<T, 3> state, out<T, 2> norm) {
    for (index f = 0; f < state.extent(1); ++f) {
        for (index c = 0; c < state.extent(2); ++c)
            state(i, f, c) = a * state1(i, f, c) + b * state2(i, f, c);
        norm(i, f) = a * norm1(i, f) + b * norm2(i, f);
    }
}

/// With scales, l = log A: l = l1 + l2, c = max(c1 + l2, c2); the factors are those of the states.
template <class T>
void combine_scales(T log_scale1, T log_decay2, T log_scale2, T& log_scale, T& factor1, T& factor2) {
    constexpr T none = -std::numeric_limits<T>::infinity();
    const T kept = log_scale1 + log_decay2;
    log_scale = kept > log_scale2 ? kept : log_scale2;
    factor1 = kept == none ? T(0) : std::exp(kept - log_scale);
    factor2 = log_scale2 == none ? T(0) : std::exp(log_scale2 - log_scale);
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

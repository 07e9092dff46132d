/// \file
/// States of linear attention that carry logarithms of scales, so that they can neither overflow nor vanish.
#ifndef DEFT_ATTENTION_LINEAR_ATTENTION_SCALED_STATE_HPP
#define DEFT_ATTENTION_LINEAR_ATTENTION_SCALED_STATE_HPP

#include <deft/attention/linear_attention_state.hpp>

#include <algorithm>
#include <limits>
#include <vector>

namespace deft {

/// state `[B, G, m, e]` and norm `[B, G, m]` count exp(log_scale) times; log_scale is `[B, G]` (ScaleRank 2) or
/// `[B, G, m]` (ScaleRank 3), -inf where nothing was seen.
template <class T, int ScaleRank>
struct scaled_attention_state_view {
    view<T, 4> state = {};
    view<T, 3> norm = {};
    view<T, ScaleRank> log_scale = {};
};
template <class T>
using linear_attention_scaled_state_view = scaled_attention_state_view<T, 2>;
template <class T>
using linear_attention_log_state_view = scaled_attention_state_view<T, 3>;

inline namespace DEFT_ISA {

/// Such a state with memory of its own. It begins empty; a copy is a snapshot.
template <class T, int ScaleRank>
class scaled_attention_state {
public:
    explicit scaled_attention_state(const linear_attention_state_shape& shape)
        : sums_(shape), log_scale_(std::size_t(shape.batch * shape.heads * (ScaleRank == 3 ? shape.features : 1))) {
        reset();
    }

    void reset() noexcept {
        sums_.reset();
        std::fill(log_scale_.begin(), log_scale_.end(), -std::numeric_limits<T>::infinity());
    }

    deft::view<T, ScaleRank> log_scale() noexcept {
        const linear_attention_state_shape& s = sums_.shape();
        if constexpr (ScaleRank == 3)
            return {log_scale_.data(), {s.batch, s.heads, s.features}};
        else
            return {log_scale_.data(), {s.batch, s.heads}};
    }
    scaled_attention_state_view<T, ScaleRank> view() noexcept {
        return {sums_.state(), sums_.norm(), log_scale()};
    }
    operator scaled_attention_state_view<T, ScaleRank>() noexcept {
        return view();
    }

private:
    linear_attention_state<T> sums_;
    std::vector<T> log_scale_;
};
template <class T>
using linear_attention_scaled_state = scaled_attention_state<T, 2>;
template <class T>
using linear_attention_log_state = scaled_attention_state<T, 3>;

} // namespace DEFT_ISA
} // namespace deft

#endif

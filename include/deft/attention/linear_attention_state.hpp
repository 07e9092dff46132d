/// \file
/// What linear attention carries from token to token: S `[B, G, m, e]` and z `[B, G, m]` of G key/value heads, m
/// features and e columns. Constant size: 4 (m e + m) bytes per head in float, however long the sequence.
#ifndef DEFT_ATTENTION_LINEAR_ATTENTION_STATE_HPP
#define DEFT_ATTENTION_LINEAR_ATTENTION_STATE_HPP

#include <deft/config.hpp>
#include <deft/simd/aligned_vector.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <type_traits>

namespace deft {

/// A state in memory of the caller. norm may be absent where outputs are not normalised. T is the type that everything
/// is computed in: with T = double, sums over a million float tokens without decay keep their digits.
template <class T>
struct linear_attention_state_view {
    view<T, 4> state = {};
    view<T, 3> norm = {};

    DEFT_ALWAYS_INLINE constexpr linear_attention_state_view() noexcept = default;
    DEFT_ALWAYS_INLINE constexpr linear_attention_state_view(absent_t) noexcept {}
    DEFT_ALWAYS_INLINE constexpr linear_attention_state_view(const view<T, 4>& s, const view<T, 3>& z = {}) noexcept
        : state(s), norm(z) {}
    template <class U, class = std::enable_if_t<std::is_same_v<const U, T>>>
    DEFT_ALWAYS_INLINE constexpr linear_attention_state_view(const linear_attention_state_view<U>& other) noexcept
        : state(other.state), norm(other.norm) {}
};

struct linear_attention_state_shape {
    index batch = 1;
    index heads = 1; ///< of keys and values
    index features = 0;
    index width = 0;
};

inline namespace DEFT_ISA {

/// A state that owns its memory. It begins empty; a copy is a snapshot. Only construction and copying allocate.
template <class T>
class linear_attention_state {
public:
    explicit linear_attention_state(const linear_attention_state_shape& shape)
        : shape_(checked(shape)), state_(std::size_t(rows() * shape.width)), norm_(std::size_t(rows())) {}

    /// Back to no tokens.
    void reset() noexcept {
        std::fill(state_.begin(), state_.end(), T(0));
        std::fill(norm_.begin(), norm_.end(), T(0));
    }

    linear_attention_state_view<T> view() noexcept {
        return {state(), norm()};
    }
    operator linear_attention_state_view<T>() noexcept {
        return view();
    }
    operator linear_attention_state_view<const T>() const noexcept {
        return {state(), norm()};
    }
    deft::view<T, 4> state() noexcept {
        return {state_.data(), {shape_.batch, shape_.heads, shape_.features, shape_.width}};
    }
    deft::view<const T, 4> state() const noexcept {
        return {state_.data(), {shape_.batch, shape_.heads, shape_.features, shape_.width}};
    }
    deft::view<T, 3> norm() noexcept {
        return {norm_.data(), {shape_.batch, shape_.heads, shape_.features}};
    }
    deft::view<const T, 3> norm() const noexcept {
        return {norm_.data(), {shape_.batch, shape_.heads, shape_.features}};
    }
    const linear_attention_state_shape& shape() const noexcept {
        return shape_;
    }

private:
    static linear_attention_state_shape checked(const linear_attention_state_shape& s) {
        const auto check = [](const char* name, index extent) {
            detail::check(extent >= 0, "linear_attention_state", name, "it must not be negative", double(extent));
        };
        check("batch", s.batch);
        check("heads", s.heads);
        check("features", s.features);
        check("width", s.width);
        return s;
    }
    index rows() const noexcept {
        return shape_.batch * shape_.heads * shape_.features;
    }

    linear_attention_state_shape shape_;
    simd::aligned_vector<T> state_, norm_;
};

namespace detail {

// T of whatever converts to a state.
template <class T>
T state_element(const linear_attention_state_view<T>&);
template <class T>
T state_element(const linear_attention_state<T>&);

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// What retention carries from token to token: S `[B, H, dk, dv]`, the decayed count c `[H]` of tokens and, where rows
/// are divided by their sum, z `[B, H, dk]`, the decayed sum of keys.
///
/// The published code keeps S^T / sqrt(c) and c; S and c are rounded less. Spans of a sequence combine as
/// linear_attention_combine does it, with the decay gamma^length, and so do c and z.
#ifndef DEFT_SSM_RETENTION_STATE_HPP
#define DEFT_SSM_RETENTION_STATE_HPP

#include <deft/config.hpp>
#include <deft/simd/aligned_vector.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <type_traits>
#include <vector>

namespace deft {

/// A state in memory of the caller. scale, c, may be absent without roots of it, key_state, z, without row_norm
/// sum_abs. T is the type that everything is computed in: a gamma above 0.9999 needs double to keep its horizon.
template <class T>
struct retention_state_view {
    view<T, 4> state = {};
    view<std::conditional_t<std::is_const_v<T>, const double, double>, 1> scale = {};
    view<T, 3> key_state = {};

    DEFT_ALWAYS_INLINE constexpr retention_state_view() noexcept = default;
    DEFT_ALWAYS_INLINE constexpr retention_state_view(absent_t) noexcept {}
    DEFT_ALWAYS_INLINE constexpr retention_state_view(
        const view<T, 4>& s, const view<std::conditional_t<std::is_const_v<T>, const double, double>, 1>& c = {},
        const view<T, 3>& z = {}) noexcept
        : state(s), scale(c), key_state(z) {}
    template <class U, class = std::enable_if_t<std::is_same_v<const U, T>>>
    DEFT_ALWAYS_INLINE constexpr retention_state_view(const retention_state_view<U>& other) noexcept
        : state(other.state), scale(other.scale), key_state(other.key_state) {}
};

struct retention_state_shape {
    index batch = 1;
    index heads = 1;
    index key_width = 0;   ///< dk
    index value_width = 0; ///< dv
};

inline namespace DEFT_ISA {

/// A state that owns its memory. It begins empty; a copy is a snapshot. Only construction and copying allocate.
template <class T>
class retention_state {
public:
    explicit retention_state(const retention_state_shape& shape)
        : shape_(checked(shape)), state_(std::size_t(rows() * shape.value_width)), key_state_(std::size_t(rows())),
          scale_(std::size_t(shape.heads)) {}

    /// Back to no tokens.
    void reset() noexcept {
        std::fill(state_.begin(), state_.end(), T(0));
        std::fill(key_state_.begin(), key_state_.end(), T(0));
        std::fill(scale_.begin(), scale_.end(), 0.0);
    }

    retention_state_view<T> view() noexcept {
        return {state(), scale(), key_state()};
    }
    operator retention_state_view<T>() noexcept {
        return view();
    }
    operator retention_state_view<const T>() const noexcept {
        return {state(), scale(), key_state()};
    }
    deft::view<T, 4> state() noexcept {
        return {state_.data(), {shape_.batch, shape_.heads, shape_.key_width, shape_.value_width}};
    }
    deft::view<const T, 4> state() const noexcept {
        return {state_.data(), {shape_.batch, shape_.heads, shape_.key_width, shape_.value_width}};
    }
    deft::view<double, 1> scale() noexcept {
        return {scale_.data(), {shape_.heads}};
    }
    deft::view<const double, 1> scale() const noexcept {
        return {scale_.data(), {shape_.heads}};
    }
    deft::view<T, 3> key_state() noexcept {
        return {key_state_.data(), {shape_.batch, shape_.heads, shape_.key_width}};
    }
    deft::view<const T, 3> key_state() const noexcept {
        return {key_state_.data(), {shape_.batch, shape_.heads, shape_.key_width}};
    }
    const retention_state_shape& shape() const noexcept {
        return shape_;
    }

private:
    static retention_state_shape checked(const retention_state_shape& s) {
        const auto check = [](const char* name, index extent) {
            detail::check(extent >= 0, "retention_state", name, "it must not be negative", double(extent));
        };
        check("batch", s.batch);
        check("heads", s.heads);
        check("key_width", s.key_width);
        check("value_width", s.value_width);
        return s;
    }
    index rows() const noexcept {
        return shape_.batch * shape_.heads * shape_.key_width;
    }

    retention_state_shape shape_;
    simd::aligned_vector<T> state_, key_state_;
    std::vector<double> scale_;
};

namespace detail {

// T of whatever converts to a state.
template <class T>
T state_element(const retention_state_view<T>&);
template <class T>
T state_element(const retention_state<T>&);

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

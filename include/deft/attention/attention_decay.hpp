/// \file
/// Decays of an attention's state: none, one per head, or one per token. And their checks.
#ifndef DEFT_ATTENTION_ATTENTION_DECAY_HPP
#define DEFT_ATTENTION_ATTENTION_DECAY_HPP

#include <deft/config.hpp>
#include <deft/view.hpp>

#include <cmath>
#include <type_traits>

namespace deft {

/// `absent` (1 everywhere), `[G]`, or `[B, G, n]`: whatever converts to a view of rank 1 or 3.
template <class T>
class attention_decay {
    template <int Rank, class S>
    static constexpr bool converts = std::is_convertible_v<S&&, view<T, Rank>>;

public:
    DEFT_ALWAYS_INLINE constexpr attention_decay() noexcept = default;
    DEFT_ALWAYS_INLINE constexpr attention_decay(absent_t) noexcept {}
    /// Contiguous: `{pointer, {G}}` and `{pointer, {B, G, n}}`.
    DEFT_ALWAYS_INLINE constexpr attention_decay(T* data, shape<1> extents) noexcept
        : attention_decay(view<T, 1>(data, extents)) {}
    DEFT_ALWAYS_INLINE constexpr attention_decay(T* data, shape<3> extents) noexcept
        : attention_decay(view<T, 3>(data, extents)) {}

    template <class S, class = std::enable_if_t<(converts<1, S> || converts<3, S>)&&!std::is_same_v<
                           std::remove_cv_t<std::remove_reference_t<S>>, attention_decay>>>
    DEFT_ALWAYS_INLINE constexpr attention_decay(S&& source) noexcept {
        if constexpr (std::is_same_v<std::remove_cv_t<std::remove_reference_t<S>>, absent_t>) {
        } else if constexpr (converts<1, S>) {
            const view<T, 1> v(source);
            set(v.is_given() ? 1 : 0, v.data(), 1, v.extent(0), 1, 0, 1, 0);
        } else {
            const view<T, 3> v(source);
            set(v.is_given() ? 3 : 0, v.data(), v.extent(0), v.extent(1), v.extent(2), v.stride(0), v.stride(1), 1);
        }
    }

    DEFT_ALWAYS_INLINE constexpr bool is_given() const noexcept {
        return rank_ != 0;
    }
    DEFT_ALWAYS_INLINE constexpr bool is_per_token() const noexcept {
        return rank_ == 3;
    }
    DEFT_ALWAYS_INLINE constexpr int rank() const noexcept {
        return rank_;
    }
    /// B, G, n; 1 where there is no such axis.
    DEFT_ALWAYS_INLINE constexpr index extent(int axis) const noexcept {
        return extent_[axis];
    }
    /// The decay of the first token; that of the next is step() behind. Null if absent.
    DEFT_ALWAYS_INLINE constexpr T* at(index batch, index head) const noexcept {
        return rank_ == 0 ? nullptr : data_ + batch * stride_[0] + head * stride_[1];
    }
    DEFT_ALWAYS_INLINE constexpr index step() const noexcept {
        return step_;
    }

private:
    DEFT_ALWAYS_INLINE constexpr void set(int rank, T* data, index b, index g, index n, index batch_stride,
                                          index head_stride, index step) noexcept {
        rank_ = rank;
        data_ = data;
        extent_[0] = b;
        extent_[1] = g;
        extent_[2] = n;
        stride_[0] = batch_stride;
        stride_[1] = head_stride;
        step_ = step;
    }

    T* data_ = nullptr;
    index extent_[3] = {1, 1, 1}, stride_[2] = {0, 0}, step_ = 0;
    int rank_ = 0;
};

template <class T>
using in_decay = typename detail::non_deduced<attention_decay<const T>>::type;
template <class T>
using out_decay = typename detail::non_deduced<attention_decay<T>>::type;

inline namespace DEFT_ISA {
namespace detail {

/// Shape, for B batches of G heads and n tokens.
template <class T>
void check_decay_shape(const char* op, const char* name, const attention_decay<T>& a, index batch, index heads,
                       index tokens) {
    const auto extent = [&](int axis, int of, index expected, const char* source) {
        if (a.extent(axis) != expected)
            fail_extent(op, name, of, a.extent(axis), expected, source);
    };
    if (a.rank() == 1)
        extent(1, 0, heads, "extent 1 of k");
    if (a.rank() != 3)
        return;
    extent(0, 0, batch, "extent 0 of k");
    extent(1, 1, heads, "extent 1 of k");
    extent(2, 2, tokens, "extent 2 of k");
}

/// Also that no decay is NaN: as many numbers as tokens, of which each costs thousands of operations.
template <class T>
void check_decay(const char* op, const attention_decay<const T>& a, index batch, index heads, index tokens) {
    check_decay_shape(op, "decay", a, batch, heads, tokens);
    for (index b = 0; b < a.extent(0) && a.is_given(); ++b)
        for (index g = 0; g < a.extent(1); ++g)
            for (index i = 0; i < (a.is_per_token() ? a.extent(2) : 1); ++i)
                check(!std::isnan(a.at(b, g)[i]), op, "decay", "it must be a number", double(a.at(b, g)[i]));
}

/// The gradient is given only where the decay is, and has its shape.
template <class T>
void check_decay_gradient(const char* op, const attention_decay<T>& grad, const attention_decay<const T>& a,
                          index batch, index heads, index tokens) {
    if (!grad.is_given())
        return;
    check(grad.rank() == a.rank(), op, "grad_decay", "its rank must be that of decay", grad.rank());
    check_decay_shape(op, "grad_decay", grad, batch, heads, tokens);
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// What describes a series activation: its form, its terms and their parameters; shared by series_activation and
/// prepared_series_activation.
#ifndef DEFT_ACTIVATION_SERIES_TERMS_HPP
#define DEFT_ACTIVATION_SERIES_TERMS_HPP

#include <deft/activation_kind.hpp>
#include <deft/kernels/series.hpp>
#include <deft/view.hpp>

#include <cmath>
#include <type_traits>

namespace deft {

/// Where the scale a_i stands; see the top of this file. VanillaNet: outer. PanGu-pi: inner.
enum class series_form : unsigned char { outer, inner };

struct series_activation_options {
    required<series_form> form;
    /// One base activation for all terms, or one per term.
    activation_list base;
    /// Slope of leaky_relu for negative arguments.
    double negative_slope = 0.01;
};

/// a or b of a series: `[n]`, one value per term, or `[n, C]`, one per term and channel. Built from whatever converts
/// to a view of rank 1 or 2.
template <class T>
class term_parameters {
public:
    DEFT_ALWAYS_INLINE constexpr term_parameters(T* data, shape<1> extents) noexcept
        : term_parameters(view<T, 1>(data, extents)) {}
    DEFT_ALWAYS_INLINE constexpr term_parameters(T* data, shape<2> extents) noexcept
        : term_parameters(view<T, 2>(data, extents)) {}

    template <class S, class = std::enable_if_t<std::is_convertible_v<S&&, view<T, 1>> ||
                                                std::is_convertible_v<S&&, view<T, 2>>>>
    DEFT_ALWAYS_INLINE constexpr term_parameters(S&& source) {
        if constexpr (std::is_convertible_v<S&&, view<T, 1>>) {
            const view<T, 1> v(source);
            data_ = v.data();
            terms_ = v.extent(0);
        } else {
            const view<T, 2> v(source);
            data_ = v.data();
            terms_ = v.extent(0);
            channels_ = v.extent(1);
            stride_ = v.stride(0);
        }
    }

    DEFT_ALWAYS_INLINE constexpr T* data() const noexcept {
        return data_;
    }
    DEFT_ALWAYS_INLINE constexpr index terms() const noexcept {
        return terms_;
    }
    /// Shape `[n]`: the same values for every channel.
    DEFT_ALWAYS_INLINE constexpr bool is_shared() const noexcept {
        return channels_ < 0;
    }
    /// C, or -1 if is_shared().
    DEFT_ALWAYS_INLINE constexpr index channels() const noexcept {
        return channels_;
    }
    /// Distance of terms, in elements.
    DEFT_ALWAYS_INLINE constexpr index stride() const noexcept {
        return stride_;
    }

private:
    T* data_ = nullptr;
    index terms_ = 0;
    index channels_ = -1;
    index stride_ = 1;
};

template <class T>
using in_terms = typename detail::non_deduced<term_parameters<const T>>::type;

inline namespace DEFT_ISA {
namespace detail {

template <class T, class U>
void check_terms(const char* op, const char* name, const term_parameters<T>& p, const term_parameters<U>& a,
                 index channels) {
    if (p.terms() != a.terms())
        fail_extent(op, name, 0, p.terms(), a.terms(), "extent 0 of a");
    check(p.is_shared() == a.is_shared(), op, name, "the rank of it must be that of a", p.is_shared() ? 1 : 2);
    if (!p.is_shared() && p.channels() != channels)
        fail_extent(op, name, 1, p.channels(), channels, "last extent of x");
}

template <class T>
kernels::series_terms<T> checked_terms(const char* op, index channels, const term_parameters<const T>& a,
                                       const term_parameters<const T>& b, const series_activation_options& options) {
    check(a.terms() >= 1, op, "a", "it must have at least one term", double(a.terms()));
    check_terms(op, "a", a, a, channels);
    check_terms(op, "b", b, a, channels);
    const index kinds = options.base.size();
    check(kinds == 1 || kinds == a.terms(), op, "base", "the number of activations must be 1 or that of the terms of a",
          double(kinds));
    for (index i = 0; i < kinds; ++i)
        check_base(op, options.base[i]);
    check(!std::isnan(options.negative_slope), op, "negative_slope", "it must be a number", options.negative_slope);
    // The kernels take one stride for both; a single term may have any.
    check(a.stride() == b.stride() || a.terms() == 1, op, "b", "the stride of its terms must be that of a",
          double(b.stride()));
    return {.a = a.data(),
            .b = b.data(),
            .stride = a.stride(),
            .count = a.terms(),
            .shared = a.is_shared(),
            .inner = options.form == series_form::inner,
            .base = options.base,
            .slope = static_cast<T>(options.negative_slope)};
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

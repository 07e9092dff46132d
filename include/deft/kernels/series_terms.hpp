/// \file
/// The terms of a sum of activations, and how a row of it may be computed. C++17.
#ifndef DEFT_KERNELS_SERIES_TERMS_HPP
#define DEFT_KERNELS_SERIES_TERMS_HPP

#include <deft/activation_kind.hpp>
#include <deft/config.hpp>

#include <cmath>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// The terms of a series. Term i has a[i * stride + c] and b[i * stride + c] at channel c, or, if all channels share
/// them, a[i * stride] and b[i * stride].
template <class T>
struct series_terms {
    const T* a;
    const T* b;
    index stride;
    index count;
    bool shared;
    bool inner;
    activation_list base;
    T slope;
};

/// How the terms of a row are summed.
enum class series_method {
    /// A pass for each term.
    separate,
    /// relu and leaky_relu: one pass for all.
    together,
    /// relu, outer form, a and b shared, in one pass: a max(x + b, 0) = a max(x, -b) + a b, one operation less per
    /// term.
    /// The rounding is relative to |a b|: only for sum |a_i b_i| <= 8.
    hinges,
    /// silu and sigmoid, outer form, a and b shared: exp(-(x + b_i)) = exp(-x) exp(-b_i), so that one exponential
    /// serves all terms. Only for |b_i| <= 16: then exp(-x) saturates only where every term has.
    shared_exponential
};

template <class T>
series_method choose_series_method(const series_terms<T>& terms) noexcept {
    const activation kind = terms.base[0];
    const bool is_logistic = kind == activation::silu || kind == activation::sigmoid;
    const bool is_piecewise_linear = kind == activation::relu || kind == activation::leaky_relu;
    if (!is_logistic && !is_piecewise_linear)
        return series_method::separate;
    for (index i = 1; i < terms.count; ++i)
        if (terms.base[i] != kind)
            return series_method::separate;
    const bool may_share = terms.shared && !terms.inner && terms.count > 1;
    T shift = 0, offset = 0;
    for (index i = 0; may_share && i < terms.count; ++i) {
        const T b = std::abs(terms.b[i * terms.stride]);
        shift = b <= shift ? shift : b; // NaN, too
        offset += std::abs(terms.a[i * terms.stride]) * b;
    }
    if (is_piecewise_linear)
        return may_share && kind == activation::relu && offset <= T(8) ? series_method::hinges
                                                                       : series_method::together;
    return may_share && shift <= T(16) ? series_method::shared_exponential : series_method::separate;
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

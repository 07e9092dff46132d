/// \file
/// Sums of shifted or scaled activations, y = sum_i a_i sigma_i(x + b_i) or sum_i sigma_i(a_i x + b_i), over the
/// channels of one row. C++17.
///
/// Contract: any length, any alignment; y may be x, nothing else may overlap. Elements of type S are loaded as
/// T = compute_t<S>, in which everything is computed.
///
/// A row is taken in blocks that stay in the first cache, and a block term by term. A loop over the terms of each
/// vector was no faster: it needs an instance per activation and number of terms, and spills the constants of the
/// polynomials.
#ifndef DEFT_KERNELS_SERIES_HPP
#define DEFT_KERNELS_SERIES_HPP

#include <deft/kernels/activations.hpp>
#include <deft/kernels/series_terms.hpp>
#include <deft/simd/loop.hpp>

#include <cmath>
#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Elements of a block: its x, y, sum and exponentials take 8 KB each and fit the first cache together.
template <class T>
inline constexpr index series_block = 8192 / static_cast<index>(sizeof(T));

/// What a term is added to: the sums of the terms before it, or zeros for the first. A mask instead of a type, so that
/// there is one loop for both.
template <class T>
struct sum_before {
    const T* sums;
    index mask; ///< of the position: all ones, or 0 to read the same zeros again
};
template <class T>
DEFT_ALWAYS_INLINE sum_before<T> sums_so_far(const T* sums) noexcept {
    return {sums, ~index{0}};
}
template <class T>
DEFT_ALWAYS_INLINE sum_before<T> no_terms() noexcept {
    alignas(64) static constexpr T zeros[256 / sizeof(T)] = {}; // as many vectors as a loop has in flight
    return {zeros, 0};
}

/// out[k] = term(k, x[k], sum[k], extent) for the n elements of a block.
template <class Arch, int Unroll, class T, class S, class Out, class Term>
DEFT_ALWAYS_INLINE void for_each_element(const S* x, sum_before<T> sum, Out* out, index n, Term&& term) noexcept {
    constexpr index width = simd::lanes<T, Arch>;
    simd::for_each_vector<T, Arch, Unroll>(n, [&](index k, auto count, auto extent) DEFT_INLINE_LAMBDA {
        const T* const start = sum.sums + (k & sum.mask);
        DEFT_UNROLL
        for (int v = 0; v < decltype(count)::value; ++v)
            simd::store<Out>(out + k + v * width,
                             term(k + v * width, simd::load<Arch>(x + k + v * width, extent),
                                  simd::load<Arch>(start + v * width, extent), extent),
                             extent);
    });
}

/// Adds term i of a block that begins at channel c. Both forms are outer sigma(inner x + b) with inner = 1 or outer =
/// 1: multiplying by 1 costs nothing, because it is an FMA instead of an addition.
template <class Arch, bool Shared, class T, class S, class Out>
void add_activation(const series_terms<T>& terms, index i, index c, const S* x, sum_before<T> sum, Out* out,
                    index n) noexcept {
    using B = simd::batch<T, Arch>;
    const T* const a = terms.a + i * terms.stride + (Shared ? 0 : c);
    const T* const b = terms.b + i * terms.stride + (Shared ? 0 : c);
    const B slope(terms.slope), one(T(1));
    const auto is_inner = B(T(terms.inner)) > B(T(0));
    dispatch_activation(terms.base[i], [&](auto base) DEFT_INLINE_LAMBDA {
        if constexpr (Shared) {
            const B inner(terms.inner ? *a : T(1)), shift(*b), outer(terms.inner ? T(1) : *a);
            for_each_element<Arch, 2, T>(
                x, sum, out, n, [&](index, const B& u, const B& start, auto) DEFT_INLINE_LAMBDA {
                    return simd::fma(outer, base.value(simd::fma(inner, u, shift), slope), start);
                });
        } else {
            for_each_element<Arch, 2, T>(
                x, sum, out, n, [&](index at, const B& u, const B& start, auto extent) DEFT_INLINE_LAMBDA {
                    const B scale = simd::load<Arch>(a + at, extent), shift = simd::load<Arch>(b + at, extent);
                    const B inner = simd::select(is_inner, scale, one), outer = simd::select(is_inner, one, scale);
                    return simd::fma(outer, base.value(simd::fma(inner, u, shift), slope), start);
                });
        }
    });
}

/// Adds term i by series_method::shared_exponential; Kind is silu or sigmoid.
template <class Arch, activation Kind, class T, class S, class Out>
void add_shared_exponential(const series_terms<T>& terms, index i, const T* exp_x, const S* x, sum_before<T> sum,
                            Out* out, index n) noexcept {
    using B = simd::batch<T, Arch>;
    const T shift = terms.b[i * terms.stride];
    const B a(terms.a[i * terms.stride]), b(shift), exp_b(std::exp(-shift)), one(T(1));
    for_each_element<Arch, 2, T>(x, sum, out, n,
                                 [&](index at, const B& u, const B& start, auto extent) DEFT_INLINE_LAMBDA {
                                     const B denominator = simd::fma(simd::load<Arch>(exp_x + at, extent), exp_b, one);
                                     return start + (Kind == activation::silu ? a * (u + b) : a) / denominator;
                                 });
}

namespace detail {

// y = -off + sum over all terms, the loop over terms inside: for activations so short that a pass for each would be
// spent on loading and storing. add(i, at, extent, u, sum) adds term i at the vectors u from element `at` on.
template <class Arch, class T, class S, class Add>
DEFT_ALWAYS_INLINE void sum_together(index terms, const S* x, S* y, index n, const simd::batch<T, Arch>& off,
                                     Add&& add) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    const auto sum_all = [&](auto term_count) DEFT_INLINE_LAMBDA {
        simd::for_each_vector<T, Arch, 4>(n, [&](index at, auto count, auto extent) DEFT_INLINE_LAMBDA {
            constexpr auto V = static_cast<std::size_t>(decltype(count)::value);
            B u[V], sum[V];
            DEFT_UNROLL
            for (std::size_t v = 0; v < V; ++v) {
                u[v] = simd::load<Arch>(x + at + index(v) * width, extent);
                sum[v] = B(T(0));
            }
            for (index i = 0; i < term_count; ++i)
                add(i, at, extent, u, sum);
            DEFT_UNROLL
            for (std::size_t v = 0; v < V; ++v)
                simd::store<S>(y + at + index(v) * width, sum[v] - off, extent);
        });
    };
    switch (terms) { // few terms take less time than counting them
    case 1:
        return sum_all(std::integral_constant<index, 1>{});
    case 2:
        return sum_all(std::integral_constant<index, 2>{});
    case 3:
        return sum_all(std::integral_constant<index, 3>{});
    default:
        return sum_all(terms);
    }
}

// series_method::hinges. off is what the sum of all terms gives where every one is off, computed in the same steps, so
// that such elements are exactly 0.
template <class Arch, class T, class S>
void sum_hinges(const series_terms<T>& terms, const S* x, S* y, index n) noexcept {
    using B = simd::batch<T, Arch>;
    const T* const a = terms.a;
    const T* const b = terms.b;
    const index stride = terms.stride;
    B off(T(0));
    for (index i = 0; i < terms.count; ++i)
        off = simd::fma(B(a[i * stride]), B(-b[i * stride]), off);
    sum_together<Arch, T>(terms.count, x, y, n, off,
                          [=](index i, index, auto, const auto& u, auto& sum) DEFT_INLINE_LAMBDA {
                              const B weight(a[i * stride]), hinge(-b[i * stride]);
                              DEFT_UNROLL
                              for (std::size_t v = 0; v < std::extent_v<std::remove_reference_t<decltype(u)>>; ++v)
                                  sum[v] = simd::fma(weight, simd::at_least(hinge, u[v]), sum[v]);
                          });
}

// series_method::together.
template <class Arch, bool Shared, class T, class S>
void sum_piecewise_linear(const series_terms<T>& terms, index c, const S* x, S* y, index n) noexcept {
    using B = simd::batch<T, Arch>;
    const T* const a = terms.a + (Shared ? 0 : c);
    const T* const b = terms.b + (Shared ? 0 : c);
    const index stride = terms.stride;
    const bool inner = terms.inner;
    const B slope(terms.slope), one(T(1));
    const auto is_inner = B(T(inner)) > B(T(0));
    const auto sum_all = [&](auto base) DEFT_INLINE_LAMBDA {
        sum_together<Arch, T>(
            terms.count, x, y, n, B(T(0)),
            [=](index i, index at, auto extent, const auto& u, auto& sum) DEFT_INLINE_LAMBDA {
                DEFT_UNROLL
                for (std::size_t v = 0; v < std::extent_v<std::remove_reference_t<decltype(u)>>; ++v) {
                    B scale(a[i * stride]), shift(b[i * stride]);
                    if constexpr (!Shared) {
                        const index k = i * stride + at + index(v) * simd::lanes<T, Arch>;
                        scale = simd::load<Arch>(a + k, extent);
                        shift = simd::load<Arch>(b + k, extent);
                    }
                    const B in = simd::select(is_inner, scale, one), out = simd::select(is_inner, one, scale);
                    sum[v] = simd::fma(out, base.value(simd::fma(in, u[v], shift), slope), sum[v]);
                }
            });
    };
    if (terms.base[0] == activation::relu)
        sum_all(base_activation<activation::relu>{});
    else
        sum_all(base_activation<activation::leaky_relu>{});
}

// All terms of a block that begins at channel c, a pass for each.
template <class Arch, class T, class S>
void sum_activations(const series_terms<T>& terms, const T* exp_x, index c, const S* x, T* sums, S* y,
                     index n) noexcept {
    const auto add = [&](index i, sum_before<T> sum, auto* out) {
        if (exp_x != nullptr && terms.base[i] == activation::silu)
            add_shared_exponential<Arch, activation::silu>(terms, i, exp_x, x, sum, out, n);
        else if (exp_x != nullptr)
            add_shared_exponential<Arch, activation::sigmoid>(terms, i, exp_x, x, sum, out, n);
        else if (terms.shared)
            add_activation<Arch, true>(terms, i, c, x, sum, out, n);
        else
            add_activation<Arch, false>(terms, i, c, x, sum, out, n);
    };
    if (terms.count == 1)
        return add(0, no_terms<T>(), y);
    add(0, no_terms<T>(), sums);
    for (index i = 1; i + 1 < terms.count; ++i)
        add(i, sums_so_far<T>(sums), sums);
    add(terms.count - 1, sums_so_far<T>(sums), y);
}

} // namespace detail

/// y[c] for channels first .. first + n of a row; x and y point to channel `first`.
template <class Arch, class S>
void series_forward(const series_terms<compute_t<S>>& terms, index first, const S* x, S* y, index n) noexcept {
    using T = compute_t<S>;
    using B = simd::batch<T, Arch>;
    const series_method method = choose_series_method(terms);
    if (method == series_method::hinges)
        return detail::sum_hinges<Arch>(terms, x, y, n);
    if (method == series_method::together && terms.shared)
        return detail::sum_piecewise_linear<Arch, true>(terms, first, x, y, n);
    if (method == series_method::together)
        return detail::sum_piecewise_linear<Arch, false>(terms, first, x, y, n);

    const index block = terms.count == 1 ? n : series_block<T>; // one term needs no sums
    alignas(64) T sums[static_cast<std::size_t>(series_block<T>)], exp_x[static_cast<std::size_t>(series_block<T>)];
    for (index at = 0; at < n; at += block) {
        const index size = n - at < block ? n - at : block;
        const bool shares = method == series_method::shared_exponential;
        if (shares)
            for_each_element<Arch, 2, T>(x + at, no_terms<T>(), exp_x, size,
                                         [](index, const B& u, const B&, auto)
                                             DEFT_INLINE_LAMBDA { return simd::exp_saturating(-u); });
        detail::sum_activations<Arch>(terms, shares ? exp_x : nullptr, first + at, x + at, sums, y + at, size);
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

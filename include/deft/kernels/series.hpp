/// \file
/// Sums of shifted or scaled activations, y = sum_i a_i sigma_i(x + b_i) or sum_i sigma_i(a_i x + b_i), over the
/// channels of one row. C++17.
///
/// Contract: any length, any alignment; y may be x, nothing else may overlap. Elements of type S are loaded as
/// T = compute_t<S>, in which everything is computed.
///
/// A row is taken in blocks that stay in the first cache, and a block term by term. A loop over the terms of each
/// vector was no faster: it needs an instance per activation and number of terms, and spills the constants of the
/// polynomials. Where terms are short it is faster: piecewise linear ones, and logistic ones that share an exponential,
/// which computes beside their divisions (1.2 to 1.4 times, two to eight terms).
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

/// Elements of a block: its x, y and sum take 8 KB each and fit the first cache together.
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
        simd::ask_ahead<T, Arch, decltype(count)::value>(x + k);
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
            // Four vectors hide the latency of a polynomial: 1.1 times faster than two. With a and b loaded for each,
            // as below, it made no difference.
            for_each_element<Arch, 4, T>(
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

/// Terms of series_method::shared_exponential in one pass: enough that computing the exponential again does not show.
inline constexpr index exponential_terms = 8;

/// Adds the terms [first, first + count) by series_method::shared_exponential, at most exponential_terms; Kind is silu
/// or sigmoid.
template <class Arch, activation Kind, class T, class S, class Out>
void add_shared_exponential(const series_terms<T>& terms, index first, index count, const S* x, sum_before<T> sum,
                            Out* out, index n) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    constexpr auto most = static_cast<std::size_t>(exponential_terms);
    B a[most], b[most], exp_b[most];
    for (index i = 0; i < count; ++i) {
        const T shift = terms.b[(first + i) * terms.stride];
        a[i] = B(terms.a[(first + i) * terms.stride]);
        b[i] = B(shift);
        exp_b[i] = B(std::exp(-shift));
    }
    const B one(T(1));
    simd::for_each_vector<T, Arch, 4>(n, [&](index k, auto vectors, auto extent) DEFT_INLINE_LAMBDA {
        constexpr auto V = static_cast<std::size_t>(decltype(vectors)::value);
        const T* const start = sum.sums + (k & sum.mask);
        B u[V], exp_x[V], total[V];
        simd::ask_ahead<T, Arch, int(V)>(x + k);
        DEFT_UNROLL
        for (std::size_t v = 0; v < V; ++v) {
            u[v] = simd::load<Arch>(x + k + index(v) * width, extent);
            exp_x[v] = simd::exp_saturating(-u[v]);
            total[v] = simd::load<Arch>(start + index(v) * width, extent);
        }
        for (index i = 0; i < count; ++i) {
            DEFT_UNROLL
            for (std::size_t v = 0; v < V; ++v) {
                const B numerator = Kind == activation::silu ? a[i] * (u[v] + b[i]) : a[i];
                total[v] = total[v] + numerator / simd::fma(exp_x[v], exp_b[i], one);
            }
        }
        DEFT_UNROLL
        for (std::size_t v = 0; v < V; ++v)
            simd::store<Out>(out + k + index(v) * width, total[v], extent);
    });
}

namespace detail {

// One term in registers: add() gives sum + term at the elements u, from element `at` on.
template <class Arch, class T>
struct hinge_term {
    using B = simd::batch<T, Arch>;
    B weight, hinge;

    DEFT_ALWAYS_INLINE void take(const series_terms<T>& terms, index, index i) noexcept {
        weight = B(terms.a[i * terms.stride]);
        hinge = -B(terms.b[i * terms.stride]); // a scalar negation would cost a shuffle, where the FMAs run
    }
    template <class Extent>
    DEFT_ALWAYS_INLINE B add(index, const B& u, const B& sum, Extent) const noexcept {
        return simd::fma(weight, simd::at_least(hinge, u), sum);
    }
};

template <class Arch, activation Kind, class T>
struct shared_term {
    using B = simd::batch<T, Arch>;
    B in, shift, out, slope;

    DEFT_ALWAYS_INLINE void take(const series_terms<T>& terms, index, index i) noexcept {
        const T scale = terms.a[i * terms.stride];
        in = B(terms.inner ? scale : T(1));
        out = B(terms.inner ? T(1) : scale);
        shift = B(terms.b[i * terms.stride]);
        slope = B(terms.slope);
    }
    template <class Extent>
    DEFT_ALWAYS_INLINE B add(index, const B& u, const B& sum, Extent) const noexcept {
        return simd::fma(out, base_activation<Kind>{}.value(simd::fma(in, u, shift), slope), sum);
    }
};

template <class Arch, activation Kind, class T>
struct channel_term {
    using B = simd::batch<T, Arch>;
    const T *a, *b;
    bool inner;
    B slope;

    DEFT_ALWAYS_INLINE void take(const series_terms<T>& terms, index c, index i) noexcept {
        a = terms.a + i * terms.stride + c;
        b = terms.b + i * terms.stride + c;
        inner = terms.inner;
        slope = B(terms.slope);
    }
    template <class Extent>
    DEFT_ALWAYS_INLINE B add(index at, const B& u, const B& sum, Extent extent) const noexcept {
        const B scale = simd::load<Arch>(a + at, extent), shift = simd::load<Arch>(b + at, extent), one(T(1));
        const auto is_inner = B(T(inner)) > B(T(0));
        const B in = simd::select(is_inner, scale, one), out = simd::select(is_inner, one, scale);
        return simd::fma(out, base_activation<Kind>{}.value(simd::fma(in, u, shift), slope), sum);
    }
};

// y = -off + sum over all terms, the loop over terms inside: for activations so short that a pass for each would be
// spent on loading and storing.
template <class Arch, class Term, class T, class S>
DEFT_ALWAYS_INLINE void sum_together(const series_terms<T>& terms, index c, const S* x, S* y, index n,
                                     bool beyond_cache, const simd::batch<T, Arch>& off) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    // `taken` terms stay in registers; more are taken anew for every six vectors, which hides the additions' latency.
    const auto sum_all = [&](auto taken) DEFT_INLINE_LAMBDA {
        constexpr int in_registers = decltype(taken)::value;
        Term term[std::size_t(in_registers > 0 ? in_registers : 1)];
        DEFT_UNROLL
        for (int i = 0; i < in_registers; ++i)
            term[i].take(terms, c, i);
        simd::for_each_vector<T, Arch, in_registers == 0 ? 6 : 4>(
            n, [&](index at, auto count, auto extent) DEFT_INLINE_LAMBDA {
                constexpr auto V = static_cast<std::size_t>(decltype(count)::value);
                B u[V], sum[V];
                if (beyond_cache) // in the first cache the requests alone take up to a tenth of the time
                    simd::ask_ahead<T, Arch, int(V)>(x + at);
                DEFT_UNROLL
                for (std::size_t v = 0; v < V; ++v) {
                    u[v] = simd::load<Arch>(x + at + index(v) * width, extent);
                    sum[v] = B(T(0));
                }
                const auto add = [&](const Term& one) DEFT_INLINE_LAMBDA {
                    DEFT_UNROLL
                    for (std::size_t v = 0; v < V; ++v)
                        sum[v] = one.add(at + index(v) * width, u[v], sum[v], extent);
                };
                DEFT_UNROLL
                for (int i = 0; i < in_registers; ++i)
                    add(term[i]);
                if constexpr (in_registers == 0)
                    for (index i = 0; i < terms.count; ++i) {
                        term[0].take(terms, c, i);
                        add(term[0]);
                    }
                DEFT_UNROLL
                for (std::size_t v = 0; v < V; ++v)
                    simd::store<S>(y + at + index(v) * width, sum[v] - off, extent);
            });
    };
    switch (terms.count) {
    case 1:
        return sum_all(std::integral_constant<int, 1>{});
    case 2:
        return sum_all(std::integral_constant<int, 2>{});
    case 3:
        return sum_all(std::integral_constant<int, 3>{});
    default:
        return sum_all(std::integral_constant<int, 0>{});
    }
}

// series_method::hinges. off is what the sum of all terms gives where every one is off, computed in the same steps, so
// that such elements are exactly 0.
template <class Arch, class T, class S>
void sum_hinges(const series_terms<T>& terms, const S* x, S* y, index n, bool beyond_cache) noexcept {
    using B = simd::batch<T, Arch>;
    B off(T(0));
    for (index i = 0; i < terms.count; ++i)
        off = simd::fnma(B(terms.a[i * terms.stride]), B(terms.b[i * terms.stride]), off);
    sum_together<Arch, hinge_term<Arch, T>>(terms, 0, x, y, n, beyond_cache, off);
}

// y = a sigma(x + b), a and b shared. Not by FMAs as below: Zen 3 took 1.4 times as long for a maximum and an FMA as
// for an addition, a maximum and a product, which keep pace with copying.
template <class Arch, activation Kind, class T, class S>
DEFT_ALWAYS_INLINE void scale_activation(T a, T b, T negative_slope, const S* x, S* y, index n,
                                         bool beyond_cache) noexcept {
    using B = simd::batch<T, Arch>;
    const B factor(a), shift(b), slope(negative_slope);
    simd::for_each_vector<T, Arch, 4>(n, [&](index at, auto count, auto extent) DEFT_INLINE_LAMBDA {
        if (beyond_cache)
            simd::ask_ahead<T, Arch, decltype(count)::value>(x + at);
        DEFT_UNROLL
        for (int v = 0; v < decltype(count)::value; ++v, at += simd::lanes<T, Arch>)
            simd::store<S>(y + at,
                           factor * base_activation<Kind>{}.value(simd::load<Arch>(x + at, extent) + shift, slope),
                           extent);
    });
}

// series_method::together.
template <class Arch, activation Kind, class T, class S>
void sum_piecewise_linear(const series_terms<T>& terms, index c, const S* x, S* y, index n,
                          bool beyond_cache) noexcept {
    const simd::batch<T, Arch> off(T(0));
    if (terms.shared && !terms.inner && terms.count == 1)
        scale_activation<Arch, Kind>(*terms.a, *terms.b, terms.slope, x, y, n, beyond_cache);
    else if (terms.shared)
        sum_together<Arch, shared_term<Arch, Kind, T>>(terms, 0, x, y, n, beyond_cache, off);
    else
        sum_together<Arch, channel_term<Arch, Kind, T>>(terms, c, x, y, n, beyond_cache, off);
}

// All terms of a block that begins at channel c, in as many passes as they need.
template <class Arch, class T, class S>
void sum_activations(const series_terms<T>& terms, bool shares_exponential, index c, const S* x, T* sums, S* y,
                     index n) noexcept {
    const index step = shares_exponential ? exponential_terms : 1;
    const auto add = [&](index i, sum_before<T> sum, auto* out) {
        const index count = terms.count - i < step ? terms.count - i : step;
        if (shares_exponential && terms.base[i] == activation::silu)
            add_shared_exponential<Arch, activation::silu>(terms, i, count, x, sum, out, n);
        else if (shares_exponential)
            add_shared_exponential<Arch, activation::sigmoid>(terms, i, count, x, sum, out, n);
        else if (terms.shared)
            add_activation<Arch, true>(terms, i, c, x, sum, out, n);
        else
            add_activation<Arch, false>(terms, i, c, x, sum, out, n);
    };
    if (terms.count <= step)
        return add(0, no_terms<T>(), y);
    add(0, no_terms<T>(), sums);
    index i = step;
    for (; i + step < terms.count; i += step)
        add(i, sums_so_far<T>(sums), sums);
    add(i, sums_so_far<T>(sums), y);
}

} // namespace detail

/// y[c] for channels first .. first + n of a row; x and y point to channel `first`. beyond_cache: whether x is more
/// than the first caches hold.
template <class Arch, class S>
void series_forward(const series_terms<compute_t<S>>& terms, index first, const S* x, S* y, index n,
                    bool beyond_cache) noexcept {
    using T = compute_t<S>;
    const series_method method = choose_series_method(terms);
    if (method == series_method::hinges)
        return detail::sum_hinges<Arch>(terms, x, y, n, beyond_cache);
    if (method == series_method::together && terms.base[0] == activation::relu)
        return detail::sum_piecewise_linear<Arch, activation::relu>(terms, first, x, y, n, beyond_cache);
    if (method == series_method::together)
        return detail::sum_piecewise_linear<Arch, activation::leaky_relu>(terms, first, x, y, n, beyond_cache);

    const index block = terms.count == 1 ? n : series_block<T>; // one term needs no sums
    alignas(64) T sums[static_cast<std::size_t>(series_block<T>)];
    for (index at = 0; at < n; at += block)
        detail::sum_activations<Arch>(terms, method == series_method::shared_exponential, first + at, x + at, sums,
                                      y + at, n - at < block ? n - at : block);
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

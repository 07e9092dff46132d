/// \file
/// Gradients of the sums of kernels/series.hpp. C++17.
///
/// Contract: any length, any alignment; grad_x overlaps nothing. Sums over positions are taken in T over at most
/// gradient_run vectors, then in double, in an order that depends on the shape alone.
#ifndef DEFT_KERNELS_SERIES_GRADIENT_HPP
#define DEFT_KERNELS_SERIES_GRADIENT_HPP

#include <deft/kernels/activations.hpp>
#include <deft/kernels/series_terms.hpp>

#include <cmath>
#include <limits>
#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Vectors that a sum in T covers before it moves on into double.
inline constexpr index gradient_run = 128;

/// Positions of a gradient: vectors `step` elements apart, along a row or down a column of channels.
template <class T>
struct gradient_strip {
    const T* x;
    index x_step;
    const T* g;
    index g_step;
    T* grad_x;
    index grad_x_step;
    index count;     ///< at most gradient_run
    index ahead = 0; ///< elements behind each that the next strips read, and memory is asked for; 0: none
};

/// Sums of one term over positions: outer form, of g sigma and g sigma'; inner form, of g sigma' x and g sigma'.
template <class T, class Arch>
struct term_sums {
    simd::batch<T, Arch> a, b;
};

/// step(x, g, grad_x, position, which): grad_x to be, for every vector of a strip; `which` alternates between 0 and 1,
/// so that sums need not wait for each other. The first terms (First) find zeros in grad_x.
template <class Arch, bool First, class T, class Step>
DEFT_ALWAYS_INLINE void for_each_position(const gradient_strip<T>& strip, Step&& step) noexcept {
    using B = simd::batch<T, Arch>;
    // Copies: vector stores may alias anything, and the strip would be read again after each.
    const gradient_strip<T> at = strip;
    const auto one = [&](index p, auto which) DEFT_INLINE_LAMBDA {
        const T *const x = at.x + p * at.x_step, *const g = at.g + p * at.g_step;
        T* const grad_x = at.grad_x + p * at.grad_x_step;
        if (First && at.ahead != 0) { // later terms find it there
            simd::prefetch(x + at.ahead);
            simd::prefetch(g + at.ahead);
            simd::prefetch(grad_x + at.ahead);
        }
        B before(T(0));
        if constexpr (!First)
            before = simd::load<Arch>(grad_x);
        simd::store<T>(grad_x, step(simd::load<Arch>(x), simd::load<Arch>(g), before, p, which));
    };
    index p = 0;
    for (; p + 2 <= at.count; p += 2) {
        one(p, std::integral_constant<int, 0>{});
        one(p + 1, std::integral_constant<int, 1>{});
    }
    if (p < at.count)
        one(p, std::integral_constant<int, 0>{});
}

/// Gradient of one term with coefficients a and b over a strip: adds a g sigma' to grad_x, and returns the sums.
/// a and b are the same in all lanes or one per channel; both(u, position) is sigma and sigma'.
template <class Arch, bool First, class T, class Both>
DEFT_ALWAYS_INLINE term_sums<T, Arch> term_gradient(bool inner, const simd::batch<T, Arch>& a,
                                                    const simd::batch<T, Arch>& b, const gradient_strip<T>& strip,
                                                    Both&& both) noexcept {
    using B = simd::batch<T, Arch>;
    const B zero(T(0)), scale = inner ? a : B(T(1)), weight(a), shift(b);
    B a_sum[2] = {zero, zero}, b_sum[2] = {zero, zero};
    for_each_position<Arch, First>(
        strip, [&](const B& x, const B& g, const B& before, index p, auto which) DEFT_INLINE_LAMBDA {
            constexpr int k = decltype(which)::value;
            const auto sigma = both(simd::fma(scale, x, shift), p);
            const B d = g * sigma.derivative;
            a_sum[k] = inner ? simd::fma(d, x, a_sum[k]) : simd::fma(g, sigma.value, a_sum[k]);
            b_sum[k] = b_sum[k] + d;
            return simd::fma(weight, d, before);
        });
    return {a_sum[0] + a_sum[1], b_sum[0] + b_sum[1]};
}

/// Any activation.
template <class Arch, bool First, class T>
DEFT_NOINLINE term_sums<T, Arch> activation_gradient(activation kind, bool inner, const simd::batch<T, Arch>& a,
                                                     const simd::batch<T, Arch>& b, T negative_slope,
                                                     const gradient_strip<T>& strip) noexcept {
    using B = simd::batch<T, Arch>;
    const B slope(negative_slope);
    return dispatch_activation(kind, [&](auto base) DEFT_INLINE_LAMBDA {
        return term_gradient<Arch, First>(inner, a, b, strip,
                                          [&](const B& u, index) DEFT_INLINE_LAMBDA { return base.both(u, slope); });
    });
}

/// series_method::shared_exponential, Kind silu or sigmoid: exp_x holds exp(-x) of the strip.
template <class Arch, activation Kind, bool First, class T>
DEFT_NOINLINE term_sums<T, Arch> shared_exponential_gradient(T a, T b, const T* exp_x,
                                                             const gradient_strip<T>& strip) noexcept {
    using B = simd::batch<T, Arch>;
    const B exp_b(std::exp(-b)), one(T(1));
    return term_gradient<Arch, First>(false, B(a), B(b), strip, [&](const B& u, index p) DEFT_INLINE_LAMBDA {
        const B denominator = simd::fma(simd::load<Arch>(exp_x + p * simd::lanes<T, Arch>), exp_b, one);
        return base_activation<Kind>::both_from_sigmoid(u, one / denominator);
    });
}

/// relu, outer form: Count terms of coefficients a and b, so that x and grad_x are read and written once for all.
template <class Arch, int Count, bool First, class T>
DEFT_NOINLINE void relu_gradient(const simd::batch<T, Arch>* of_a, const simd::batch<T, Arch>* of_b,
                                 const gradient_strip<T>& strip, term_sums<T, Arch>* sums) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr auto terms_at_once = static_cast<std::size_t>(Count);
    const B zero(T(0)), lowest(std::numeric_limits<T>::lowest());
    B a[terms_at_once], b[terms_at_once], a_sum[terms_at_once], b_sum[terms_at_once];
    DEFT_UNROLL
    for (int k = 0; k < Count; ++k) {
        a[k] = of_a[k];
        b[k] = of_b[k];
        a_sum[k] = b_sum[k] = zero;
    }
    for_each_position<Arch, First>(strip, [&](const B& x, const B& g, const B& before, index, auto) DEFT_INLINE_LAMBDA {
        const B finite = simd::at_least(lowest, x); // times a gradient of 0
        B grad_x = before;
        DEFT_UNROLL
        for (int k = 0; k < Count; ++k) {
            const B u = finite + b[k];
            const B d = simd::keep_if(u > zero, g);
            a_sum[k] = simd::fma(d, u, a_sum[k]);
            b_sum[k] = b_sum[k] + d;
            grad_x = simd::fma(a[k], d, grad_x);
        }
        return grad_x;
    });
    DEFT_UNROLL
    for (int k = 0; k < Count; ++k)
        sums[k] = {a_sum[k], b_sum[k]};
}

inline constexpr index most_relus = 4; // at once: their sums and coefficients fill the registers

/// Terms from i on that relu_gradient takes together.
template <class T>
index count_relus(const series_terms<T>& terms, index i, index last) noexcept {
    index count = 0;
    while (!terms.inner && count < most_relus && i + count < last && terms.base[i + count] == activation::relu)
        ++count;
    return count;
}
template <class Arch, bool First, class T>
void relu_gradients(index count, const simd::batch<T, Arch>* a, const simd::batch<T, Arch>* b,
                    const gradient_strip<T>& strip, term_sums<T, Arch>* sums) noexcept {
    switch (count) {
    case 1:
        return relu_gradient<Arch, 1, First>(a, b, strip, sums);
    case 2:
        return relu_gradient<Arch, 2, First>(a, b, strip, sums);
    case 3:
        return relu_gradient<Arch, 3, First>(a, b, strip, sums);
    default:
        return relu_gradient<Arch, 4, First>(a, b, strip, sums);
    }
}

namespace detail {

// Terms [first, last) over a strip, the very first of which sets grad_x. load(i, a, b) gives the coefficients of term
// i, other(i, a, b, is_first) the sums of a term that is no relu, and keep(i, sums) takes them.
template <class Arch, class T, class Load, class Other, class Keep>
DEFT_ALWAYS_INLINE void add_gradients(const series_terms<T>& terms, index first, index last,
                                      const gradient_strip<T>& strip, Load&& load, Other&& other,
                                      Keep&& keep) noexcept {
    using B = simd::batch<T, Arch>;
    const auto add = [&](index i, auto is_first) -> index { // how many terms it has done
        const index relus = count_relus(terms, i, last), count = relus > 0 ? relus : 1;
        B a[std::size_t(most_relus)], b[std::size_t(most_relus)];
        term_sums<T, Arch> run[std::size_t(most_relus)];
        for (index k = 0; k < count; ++k)
            load(i + k, a[k], b[k]);
        if (relus > 0)
            relu_gradients<Arch, decltype(is_first)::value>(relus, a, b, strip, run);
        else
            run[0] = other(i, a[0], b[0], is_first);
        for (index k = 0; k < count; ++k)
            keep(i + k, run[k]);
        return count;
    };
    index i = first;
    if (i == 0)
        i += add(i, std::true_type{});
    while (i < last)
        i += add(i, std::false_type{});
}

// The same along a row.
template <class Arch, class T>
void add_shared_gradients(const series_terms<T>& terms, series_method method, index first, index last,
                          const gradient_strip<T>& strip, double* sums) noexcept {
    using B = simd::batch<T, Arch>;
    T exp_x[static_cast<std::size_t>(gradient_run * simd::lanes<T, Arch>)];
    if (method == series_method::shared_exponential)
        for (index p = 0; p < strip.count; ++p)
            simd::store<T>(exp_x + p * simd::lanes<T, Arch>,
                           simd::exp_saturating(-simd::load<Arch>(strip.x + p * strip.x_step)));
    add_gradients<Arch>(
        terms, first, last, strip,
        [&](index i, B& a, B& b) {
            a = B(terms.a[i * terms.stride]);
            b = B(terms.b[i * terms.stride]);
        },
        [&](index i, const B& a, const B& b, auto is_first) {
            constexpr bool First = decltype(is_first)::value;
            const T scale = terms.a[i * terms.stride], shift = terms.b[i * terms.stride];
            return method != series_method::shared_exponential
                       ? activation_gradient<Arch, First, T>(terms.base[i], terms.inner, a, b, terms.slope, strip)
                   : terms.base[i] == activation::silu
                       ? shared_exponential_gradient<Arch, activation::silu, First>(scale, shift, exp_x, strip)
                       : shared_exponential_gradient<Arch, activation::sigmoid, First>(scale, shift, exp_x, strip);
        },
        [&](index i, const term_sums<T, Arch>& run) {
            sums[2 * (i - first)] += static_cast<double>(simd::reduce_add(run.a));
            sums[2 * (i - first) + 1] += static_cast<double>(simd::reduce_add(run.b));
        });
}

} // namespace detail

/// a and b shared: gradient over n consecutive elements; adds the sums of term i to sums[2 (i - first)] and [... + 1]
/// for the terms [first, last). Sets grad_x if first is 0, else adds to it.
template <class Arch, class T>
void series_backward_shared(const series_terms<T>& terms, index first, index last, index n, const T* x, const T* g,
                            T* grad_x, double* sums) noexcept {
    constexpr index width = simd::lanes<T, Arch>;
    const series_method method = choose_series_method(terms);
    index at = 0;
    while (n - at >= width) {
        const index count = (n - at) / width < gradient_run ? (n - at) / width : gradient_run;
        detail::add_shared_gradients<Arch, T>(terms, method, first, last,
                                              {x + at, width, g + at, width, grad_x + at, width, count}, sums);
        at += count * width;
    }
    if (at < n) { // g = 0 in the lanes behind the end: they add nothing
        const simd::partial rest{n - at};
        T padded[3][static_cast<std::size_t>(width)];
        simd::store<T>(padded[0], simd::load<Arch>(x + at, rest));
        simd::store<T>(padded[1], simd::load<Arch>(g + at, rest));
        simd::store<T>(padded[2], simd::load<Arch>(grad_x + at, rest));
        detail::add_shared_gradients<Arch, T>(terms, method, first, last,
                                              {padded[0], width, padded[1], width, padded[2], width, 1}, sums);
        simd::store<T>(grad_x + at, simd::load<Arch>(padded[2]), rest);
    }
}

/// One a and b per channel: gradient over the rows of `rows` at the vector of channels c, of which `channels` exist;
/// c's elements of the first row are where `rows` points to. Adds to sums[(2 (i - first) + which) lanes + lane] for the
/// terms [first, last). Sets grad_x if first is 0, else adds to it.
template <class Arch, class T>
void series_backward_channels(const series_terms<T>& terms, index first, index last, index c, index channels,
                              const gradient_strip<T>& rows, double* sums) noexcept {
    constexpr index width = simd::lanes<T, Arch>;
    const simd::partial part{channels};
    const bool is_full = channels == width;
    // The last channels are copied where whole vectors fit.
    T x[static_cast<std::size_t>(gradient_run * width)], g[static_cast<std::size_t>(gradient_run * width)],
        grad_x[static_cast<std::size_t>(gradient_run * width)];
    for (index r = 0; !is_full && r < rows.count; ++r) {
        simd::store<T>(x + r * width, simd::load<Arch>(rows.x + r * rows.x_step, part));
        simd::store<T>(g + r * width, simd::load<Arch>(rows.g + r * rows.g_step, part));
        simd::store<T>(grad_x + r * width, simd::load<Arch>(rows.grad_x + r * rows.grad_x_step, part));
    }
    gradient_strip<T> strip{x, width, g, width, grad_x, width, rows.count};
    if (is_full) {
        strip = rows;
        strip.ahead = 64 / index(sizeof(T)); // rows lie pages apart: without, relu took 1.6 times as long
    }
    using B = simd::batch<T, Arch>;
    detail::add_gradients<Arch>(
        terms, first, last, strip,
        [&](index i, B& a, B& b) {
            a = simd::load<Arch>(terms.a + i * terms.stride + c, part);
            b = simd::load<Arch>(terms.b + i * terms.stride + c, part);
        },
        [&](index i, const B& a, const B& b, auto is_first) {
            return activation_gradient<Arch, decltype(is_first)::value, T>(terms.base[i], terms.inner, a, b,
                                                                           terms.slope, strip);
        },
        [&](index i, const term_sums<T, Arch>& run) {
            double* const to = sums + 2 * (i - first) * width;
            T lanes_a[static_cast<std::size_t>(width)], lanes_b[static_cast<std::size_t>(width)];
            simd::store<T>(lanes_a, run.a);
            simd::store<T>(lanes_b, run.b);
            for (index lane = 0; lane < width; ++lane) {
                to[lane] += static_cast<double>(lanes_a[lane]);
                to[width + lane] += static_cast<double>(lanes_b[lane]);
            }
        });
    for (index r = 0; !is_full && r < rows.count; ++r)
        simd::store<T>(rows.grad_x + r * rows.grad_x_step, simd::load<Arch>(grad_x + r * width), part);
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

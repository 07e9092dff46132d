/// \file
/// Squared distance and Kullback-Leibler divergence of two rows as logits, with the gradient by the second, and a step
/// of Adam. C++17.
///
/// Contract: any length, any alignment; grad may be null, and overlaps neither row.
///
/// Three passes over rows that are in cache: maxima; sums of exponentials, whose second ones wait in grad; gradient.
#ifndef DEFT_KERNELS_BLOCK_DISTANCE_HPP
#define DEFT_KERNELS_BLOCK_DISTANCE_HPP

#include <deft/simd/loop.hpp>
#include <deft/simd/math.hpp>

#include <cmath>
#include <limits>
#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

struct row_distance {
    double squares;    ///< ||h1 - h2||^2
    double divergence; ///< KL(softmax h1 || softmax h2)
};

namespace detail {

/// The greatest of n elements; NaN is passed over or taken.
template <class Arch, class T>
DEFT_ALWAYS_INLINE T greatest(const T* x, index n) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    T most = -std::numeric_limits<T>::infinity();
    index i = 0;
    if (n >= 2 * width) {
        B first = simd::load<Arch>(x), second = simd::load<Arch>(x + width);
        for (i = 2 * width; i + 2 * width <= n; i += 2 * width) {
            first = simd::max(first, simd::load<Arch>(x + i));
            second = simd::max(second, simd::load<Arch>(x + i + width));
        }
        alignas(64) T lanes[std::size_t(width)];
        simd::max(first, second).store_aligned(lanes);
        for (index k = 0; k < width; ++k)
            most = lanes[k] > most ? lanes[k] : most;
    }
    for (; i < n; ++i)
        most = x[i] > most ? x[i] : most;
    return most;
}

} // namespace detail

/// With grad: of_squares 2 (h2 - h1) + of_divergence (softmax h2 - softmax h1) into it.
template <bool Divergence, class Arch, class T>
DEFT_NOINLINE row_distance block_distance(const T* h1, const T* h2, index n, T of_squares, T of_divergence,
                                          T* grad) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    constexpr int unroll = 2;
    constexpr index block = 64 * width; // of sums in T
    const T top1 = Divergence ? detail::greatest<Arch>(h1, n) : T(0);
    const T top2 = Divergence ? detail::greatest<Arch>(h2, n) : T(0);
    double squares = 0, sum1 = 0, sum2 = 0, cross = 0; // cross: of e1 ((h1 - top1) - (h2 - top2))
    for (index first = 0; first < n; first += block) {
        const B none(T(0));
        B squared[2] = {none, none}, of_e1[2] = {none, none}, of_e2[2] = {none, none}, crossed[2] = {none, none};
        simd::for_each_vector<T, Arch, unroll>(
            n - first < block ? n - first : block, [&](index at, auto count, auto extent) DEFT_INLINE_LAMBDA {
                DEFT_UNROLL
                for (int v = 0; v < decltype(count)::value; ++v) {
                    const index i = first + at + v * width;
                    const B a = simd::load<Arch>(h1 + i, extent), b = simd::load<Arch>(h2 + i, extent);
                    const B difference = b - a;
                    squared[v] = simd::fma(difference, difference, squared[v]);
                    if constexpr (Divergence) {
                        const B x1 = a - B(top1), x2 = b - B(top2);
                        const B e1 = simd::only(simd::exp_saturating(x1), extent),
                                e2 = simd::only(simd::exp_saturating(x2), extent);
                        of_e1[v] += e1;
                        of_e2[v] += e2;
                        crossed[v] = simd::fma(e1, B(x1 - x2), crossed[v]);
                        if (grad != nullptr)
                            simd::store(grad + i, e2, extent);
                    }
                }
            });
        squares += double(simd::reduce_add(B(squared[0] + squared[1])));
        if constexpr (Divergence) {
            sum1 += double(simd::reduce_add(B(of_e1[0] + of_e1[1])));
            sum2 += double(simd::reduce_add(B(of_e2[0] + of_e2[1])));
            cross += double(simd::reduce_add(B(crossed[0] + crossed[1])));
        }
    }
    if (grad != nullptr) {
        // softmax h2 - softmax h1 = (e2 - e1 sum2 / sum1) / sum2: exactly 0 for equal rows, however it is rounded
        const B twice(of_squares + of_squares), ratio(T(sum2 / sum1)), share(T(double(of_divergence) / sum2));
        simd::for_each_vector<T, Arch, unroll>(n, [&](index at, auto count, auto extent) DEFT_INLINE_LAMBDA {
            DEFT_UNROLL
            for (int v = 0; v < decltype(count)::value; ++v) {
                const index i = at + v * width;
                const B a = simd::load<Arch>(h1 + i, extent);
                B g = twice * (simd::load<Arch>(h2 + i, extent) - a);
                if constexpr (Divergence)
                    g = simd::fma(
                        simd::fnma(simd::exp_saturating(B(a - B(top1))), ratio, simd::load<Arch>(grad + i, extent)),
                        share, g);
                simd::store(grad + i, g, extent);
            }
        });
    }
    return {squares, Divergence && n > 0 ? cross / sum1 + (std::log(sum2) - std::log(sum1)) : 0.0};
}

/// Adam, for n parameters: m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, p -= rate m / (sqrt(v) + eps) with
/// m and v corrected for their start (factors correct1, correct2). rest = 1 - b: in float 1 - 0.999 has five digits.
template <class Arch, class T>
DEFT_NOINLINE void adam_step(const T* g, index n, T beta1, T rest1, T beta2, T rest2, T correct1, T correct2, T rate,
                             T epsilon, T* p, T* m, T* v) noexcept {
    using B = simd::batch<T, Arch>;
    simd::for_each_vector<T, Arch, 1>(n, [&](index i, auto, auto extent) DEFT_INLINE_LAMBDA {
        const B gradient = simd::load<Arch>(g + i, extent);
        const B first = simd::fma(B(beta1), simd::load<Arch>(m + i, extent), B(B(rest1) * gradient));
        const B second = simd::fma(B(beta2), simd::load<Arch>(v + i, extent), B(B(rest2) * gradient * gradient));
        const B change = first * B(correct1) / (simd::sqrt(B(second * B(correct2))) + B(epsilon));
        simd::store(m + i, first, extent);
        simd::store(v + i, second, extent);
        simd::store(p + i, simd::fnma(B(rate), change, simd::load<Arch>(p + i, extent)), extent);
    });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// A norm over a row, gated: y = (o - mean) r w act(gate), with its gradients. C++17.
///
/// Contract: any length, any alignment; w may be null: ones. y may be o or gate.
#ifndef DEFT_KERNELS_GATED_NORM_HPP
#define DEFT_KERNELS_GATED_NORM_HPP

#include <deft/kernels/activations.hpp>
#include <deft/simd/loop.hpp>

#include <cmath>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// mean, 0 for the root mean square norm, r = 1 / sqrt(mean((o - mean)^2) + eps), and eps r^2, which is what
/// mean(((o - mean) r)^2) lacks to 1.
template <class T>
struct row_norm {
    T mean, scale, rest;
};

namespace detail {

// f(u) summed over the row, u = o - mean; in eight vectors of partial sums.
template <class Arch, class T, class F>
DEFT_ALWAYS_INLINE T sum_row(index n, F&& f) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr int group = 4;
    B sums[std::size_t(group)];
    DEFT_UNROLL
    for (int v = 0; v < group; ++v)
        sums[v] = B(T(0));
    simd::for_each_vector<T, Arch, group>(n, [&](index i, auto count, auto extent) DEFT_INLINE_LAMBDA {
        DEFT_UNROLL
        for (int v = 0; v < decltype(count)::value; ++v)
            sums[v] += f(i + v * simd::lanes<T, Arch>, extent);
    });
    return simd::reduce_add((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// x, and 0 behind the end of the row.
template <class T, class Arch>
DEFT_ALWAYS_INLINE simd::batch<T, Arch> inside(const simd::batch<T, Arch>& x, simd::full) noexcept {
    return x;
}
template <class T, class Arch>
DEFT_ALWAYS_INLINE simd::batch<T, Arch> inside(const simd::batch<T, Arch>& x, simd::partial part) noexcept {
    alignas(64) T lanes[std::size_t(simd::lanes<T, Arch>)];
    x.store_aligned(lanes);
    return simd::load<Arch>(lanes, part);
}

} // namespace detail

/// The mean is taken twice, the second time of what is left: rows of equal values have exactly no spread.
template <class Arch, class T>
DEFT_NOINLINE row_norm<T> measure_row(const T* o, index n, bool has_mean, double eps) noexcept {
    using B = simd::batch<T, Arch>;
    T mean = 0;
    for (int turn = 0; has_mean && turn < 2; ++turn) {
        const B from(mean);
        mean += detail::sum_row<Arch, T>(n,
                                         [=](index i, auto extent) DEFT_INLINE_LAMBDA {
                                             return detail::inside(simd::load<Arch>(o + i, extent) - from, extent);
                                         }) /
                T(n);
    }
    const B from(mean);
    const T squares = detail::sum_row<Arch, T>(n, [=](index i, auto extent) DEFT_INLINE_LAMBDA {
        const B u = detail::inside(simd::load<Arch>(o + i, extent) - from, extent);
        return u * u;
    });
    const double variance = static_cast<double>(squares) / static_cast<double>(n) + eps;
    return {mean, static_cast<T>(1 / std::sqrt(variance)), static_cast<T>(eps / variance)};
}

/// y = (o - mean) r w act(gate).
template <class Arch, class Gate, class T>
DEFT_NOINLINE void gate_row(const T* o, row_norm<T> norm, const T* w, const T* gate, T* y, index n) noexcept {
    using B = simd::batch<T, Arch>;
    const B mean(norm.mean), scale(norm.scale);
    simd::for_each_vector<T, Arch, 1>(n, [&](index i, auto, auto extent) DEFT_INLINE_LAMBDA {
        B value = (simd::load<Arch>(o + i, extent) - mean) * scale;
        if (w != nullptr)
            value *= simd::load<Arch>(w + i, extent);
        simd::store(y + i, value * Gate::value(simd::load<Arch>(gate + i, extent), B(T(0))), extent);
    });
}

/// What each element of a row adds to the gradient of w: grad_y act(gate) (o - mean) r.
template <class Arch, class Gate, class T>
DEFT_NOINLINE void gate_row_weights(const T* o, row_norm<T> norm, const T* gate, const T* grad_y, T* grad_w,
                                    index n) noexcept {
    using B = simd::batch<T, Arch>;
    const B mean(norm.mean), scale(norm.scale);
    simd::for_each_vector<T, Arch, 1>(n, [&](index i, auto, auto extent) DEFT_INLINE_LAMBDA {
        const B e = simd::load<Arch>(grad_y + i, extent) * Gate::value(simd::load<Arch>(gate + i, extent), B(T(0)));
        simd::store(grad_w + i, e * ((simd::load<Arch>(o + i, extent) - mean) * scale), extent);
    });
}

/// With e = grad_y act(gate) w, u = o - mean and g = r (e - u r^2 mean(e u)): grad_o = g, less its mean if the norm has
/// one; grad_gate = grad_y u r w act'(gate).
template <class Arch, class Gate, class T>
DEFT_NOINLINE void gate_row_gradient(const T* o, row_norm<T> norm, bool has_mean, const T* w, const T* gate,
                                     const T* grad_y, T* grad_o, T* grad_gate, index n) noexcept {
    using B = simd::batch<T, Arch>;
    const B mean(norm.mean), scale(norm.scale);
    const auto weighted = [=](const B& x, index i, auto extent)
                              DEFT_INLINE_LAMBDA { return w == nullptr ? x : x * simd::load<Arch>(w + i, extent); };
    // e r waits in grad_o. u r has about unit size, which e u may not have.
    T sum = 0;
    const T through =
        detail::sum_row<Arch, T>(n,
                                 [&](index i, auto extent) DEFT_INLINE_LAMBDA {
                                     const auto act = Gate::both(simd::load<Arch>(gate + i, extent), B(T(0)));
                                     const B g = weighted(simd::load<Arch>(grad_y + i, extent), i, extent);
                                     const B v = (simd::load<Arch>(o + i, extent) - mean) * scale,
                                             e = g * act.value * scale;
                                     simd::store(grad_gate + i, g * v * act.derivative, extent);
                                     simd::store(grad_o + i, e, extent);
                                     return detail::inside(e * v, extent);
                                 }) /
        T(n);
    if (has_mean)
        sum = detail::sum_row<Arch, T>(n, [=](index i, auto extent)
                                              DEFT_INLINE_LAMBDA { return simd::load<Arch>(grad_o + i, extent); }) /
              T(n);
    if (n == 1) { // e r (1 - v^2): what is left of it is eps alone
        grad_o[0] *= has_mean ? T(0) : norm.rest;
        return;
    }
    const B part(through), less(sum);
    simd::for_each_vector<T, Arch, 1>(n, [&](index i, auto, auto extent) DEFT_INLINE_LAMBDA {
        const B v = (simd::load<Arch>(o + i, extent) - mean) * scale;
        simd::store(grad_o + i, simd::fma(-v, part, simd::load<Arch>(grad_o + i, extent)) - less, extent);
    });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

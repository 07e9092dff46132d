/// \file
/// Learned rounding whose logits are a product of two thin factors, V = A1 A2 (+ V0): a run of one row at a time, V and
/// the rounding h in registers, never in memory. C++17.
///
/// Contract: any length, any alignment; nothing that is written overlaps anything that is read, but for w_hat = w.
///
/// h(V) = clip(stretch sigma(V) + offset, 0, 1). In float, where it saturates before |V| = 2.5, sigma is a polynomial
/// there, with neither exp nor division: with them the soft form was bound by arithmetic, not by memory.
#ifndef DEFT_KERNELS_LORA_ROUNDING_HPP
#define DEFT_KERNELS_LORA_ROUNDING_HPP

#include <deft/kernels/fake_quantize.hpp>
#include <deft/kernels/streamed_blocks.hpp>
#include <deft/simd/loop.hpp>
#include <deft/simd/math.hpp>

#include <cstdint>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// What makes the logits of one row: a1 has `rank` elements, a2 `rank` rows; v0 may be null.
template <class T>
struct rounding_factors {
    const T* a1;
    const T* a2;
    const T* v0;
    index a2_stride, rank;
};

/// zeta - gamma, gamma, and zeta + gamma - 1.
template <class T>
struct rounding_curve {
    T stretch, offset, centre;
};

/// How h is made of V: by the polynomial, by exp, or 1 where V >= 0.
enum class rounding_kind { narrow, wide, hard };

/// The widest |V| that the polynomial takes.
inline constexpr double rounding_narrow_limit = 2.5;

namespace detail {

template <class T, class Arch>
struct rounding_value {
    simd::batch<T, Arch> h, slope; ///< dh/dV, 0 where h is clipped
    simd::batch<T, Arch> centred;  ///< 2h - 1 without the digits that h has lost near 1/2
    simd::batch<T, Arch> logits;
};

template <rounding_kind Kind, class T, class Arch>
DEFT_ALWAYS_INLINE rounding_value<T, Arch> round_logits(const simd::batch<T, Arch>& logits,
                                                        const rounding_curve<T>& curve) noexcept {
    using B = simd::batch<T, Arch>;
    const B zero(T(0)), one(T(1));
    if constexpr (Kind == rounding_kind::hard) {
        const B h = simd::keep_if(logits >= zero, one);
        return {h, zero, h + h - one, logits};
    } else {
        B s, c; // sigma and 2 sigma - 1
        if constexpr (Kind == rounding_kind::narrow) {
            // (sigma(v) - 1/2) / v in v^2 up to 6.25; error of sigma 7e-8
            const B v =
                simd::at_least(B(T(-rounding_narrow_limit)), simd::at_most(B(T(rounding_narrow_limit)), logits));
            const B p = simd::polynomial<T, Arch>(v * v, T(0.25), T(-0.0208332706), T(0.002083058), T(-0.000210343685),
                                                  T(2.09456994e-05), T(-1.95413668e-06), T(1.52360499e-07),
                                                  T(-8.2160474e-09), T(2.16242468e-10));
            const B from_half = v * p;
            s = from_half + B(T(0.5));
            c = from_half + from_half;
        } else {
            s = simd::sigmoid(logits);
            c = simd::tanh(B(logits * B(T(0.5))));
        }
        const B stretch(curve.stretch), t = simd::fma(s, stretch, B(curve.offset));
        const auto inside = t >= zero && t <= one;
        const B centred = simd::fma(c, stretch, B(curve.centre));
        return {simd::at_least(zero, simd::at_most(one, t)), simd::keep_if(inside, B(stretch * s * (one - s))),
                simd::at_least(-one, simd::at_most(one, centred)), logits};
    }
}

/// f(position, h and slope, extent) for the elements [c, c + n) of a row.
template <rounding_kind Kind, class Arch, int Unroll, class T, class F>
DEFT_ALWAYS_INLINE void for_each_rounding(const rounding_factors<T>& row, index c, index n, rounding_curve<T> curve,
                                          F&& f) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    simd::for_each_vector<T, Arch, Unroll>(n, [&](index at, auto count, auto extent) DEFT_INLINE_LAMBDA {
        constexpr int vectors = decltype(count)::value;
        B v[std::size_t(vectors)];
        DEFT_UNROLL
        for (int i = 0; i < vectors; ++i)
            v[i] = row.v0 == nullptr ? B(T(0)) : simd::load<Arch>(row.v0 + c + at + i * width, extent);
        const T* a2 = row.a2 + c + at;
        for (index k = 0; k < row.rank; ++k, a2 += row.a2_stride) {
            const B left(row.a1[k]);
            DEFT_UNROLL
            for (int i = 0; i < vectors; ++i)
                v[i] = simd::fma(left, simd::load<Arch>(a2 + i * width, extent), v[i]);
        }
        DEFT_UNROLL
        for (int i = 0; i < vectors; ++i)
            f(c + at + i * width, round_logits<Kind>(v[i], curve), i, extent);
    });
}

/// |t|^p for |t| <= 1, 0 at t = 0 whatever p.
template <class T, class Arch>
DEFT_ALWAYS_INLINE simd::batch<T, Arch> power_below_one(const simd::batch<T, Arch>& t, T p) noexcept {
    using B = simd::batch<T, Arch>;
    const B size = simd::abs(t);
    return simd::keep_if(size > B(T(0)), simd::exp_saturating(B(B(p) * simd::log(size))));
}

} // namespace detail

/// w_hat = step clip(floor(w / step) + h) for the elements [c, c + n) of a row whose pointers are given whole; h and
/// the codes q (of the hard form) unless null.
template <rounding_kind Kind, class Arch, bool Streaming, class T>
DEFT_ALWAYS_INLINE void lora_round(const T* w, const rounding_factors<T>& row, index c, index n, quant_grid<T> grid,
                                   rounding_curve<T> curve, T* w_hat, T* h, std::int32_t* q) noexcept {
    using B = simd::batch<T, Arch>;
    const B step(grid.step), least(grid.least), greatest(grid.greatest), zero(grid.zero_point);
    stream_from_line<Streaming>(w_hat + c, n, [&](auto past_caches, index begin, index end) DEFT_INLINE_LAMBDA {
        detail::for_each_rounding<Kind, Arch, 4>(
            row, c + begin, end - begin, curve,
            [&](index j, const auto& rounding, int, auto extent) DEFT_INLINE_LAMBDA {
                const B code = simd::at_least(
                    least,
                    simd::at_most(greatest, B(simd::floor(B(simd::load<Arch>(w + j, extent) / step)) + rounding.h)));
                store_past(past_caches, w_hat + j, B(code * step), extent);
                if (h != nullptr)
                    simd::store(h + j, rounding.h, extent);
                if (Kind == rounding_kind::hard && q != nullptr)
                    store_codes<T, Arch>(q + j, B(code + zero), extent);
            });
    });
}

/// What a run of the backward pass reads besides w: cotangent, or null; weight and exponent of the regulariser.
template <class T>
struct rounding_cotangent {
    const T* grad_w_hat;
    T loss_weight, beta;
    bool through_floor; ///< the derivative of floor(u) is taken for 1
    bool hard;          ///< codes are those of the hard form, straight through its step
};

/// grad_V of the elements [c, c + n) of a row into grad_v[0 .. n); returns the gradient of the step.
template <rounding_kind Kind, class Arch, class T>
DEFT_ALWAYS_INLINE double lora_round_gradient(const T* w, const rounding_factors<T>& row, index c, index n,
                                              quant_grid<T> grid, rounding_curve<T> curve,
                                              const rounding_cotangent<T>& from, T* grad_v) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr int unroll = 2;
    const B step(grid.step), least(grid.least), greatest(grid.greatest);
    B sums[unroll] = {B(T(0)), B(T(0))};
    detail::for_each_rounding<Kind, Arch, unroll>(
        row, c, n, curve, [&](index j, const auto& rounding, int i, auto extent) DEFT_INLINE_LAMBDA {
            B of_h(T(0));
            if (from.grad_w_hat != nullptr) {
                const B g = simd::load<Arch>(from.grad_w_hat + j, extent);
                const B u = simd::load<Arch>(w + j, extent) / step,
                        up = from.hard ? simd::keep_if(rounding.logits >= B(T(0)), B(T(1))) : rounding.h,
                        code = simd::floor(u) + up;
                const auto inside = code >= least && code <= greatest;
                const B clipped = simd::at_least(least, simd::at_most(greatest, code));
                of_h = simd::keep_if(inside, B(g * step));
                sums[i] = simd::fma(g, from.through_floor ? B(clipped - simd::keep_if(inside, u)) : clipped, sums[i]);
            }
            if (from.loss_weight != T(0)) {
                const B t = rounding.centred;
                const B size =
                    B(from.loss_weight * T(2) * from.beta) * detail::power_below_one<T, Arch>(t, from.beta - T(1));
                of_h = simd::select(t > B(T(0)), B(of_h - size), B(of_h + size));
            }
            simd::store(grad_v + (j - c), B(of_h * rounding.slope), extent);
        });
    return double(simd::reduce_add(B(sums[0] + sums[1])));
}

/// Sum over the elements [c, c + n) of a row of 1 - |2h - 1|^beta.
template <rounding_kind Kind, class Arch, class T>
DEFT_ALWAYS_INLINE double rounding_loss(const rounding_factors<T>& row, index c, index n, rounding_curve<T> curve,
                                        T beta) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    constexpr index block = 64 * width; // of sums in T
    double total = 0;
    for (index first = 0; first < n; first += block) {
        B sums[2] = {B(T(0)), B(T(0))};
        const index count = n - first < block ? n - first : block;
        detail::for_each_rounding<Kind, Arch, 2>(
            row, c + first, count, curve, [&](index, const auto& rounding, int i, auto extent) DEFT_INLINE_LAMBDA {
                const B power = detail::power_below_one<T, Arch>(rounding.centred, beta);
                sums[i] += simd::only(B(B(T(1)) - power), extent);
            });
        total += double(simd::reduce_add(B(sums[0] + sums[1])));
    }
    return total;
}

/// Rows of a tile of grad_V, and its columns: 16 KB of float, half of the first cache.
inline constexpr index rounding_tile_rows = 16;
inline constexpr index rounding_tile_columns = 256;

/// grad_a1[i][k] += sum over columns of grad_v[i][.] a2[k][.].
template <class Arch, class T>
DEFT_NOINLINE void add_grad_a1(const T* grad_v, index rows, index columns, const T* a2, index a2_stride, index rank,
                               T* grad_a1, index grad_stride) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    for (index i = 0; i < rows; ++i)
        for (index k = 0; k < rank; ++k) {
            B sums[4] = {B(T(0)), B(T(0)), B(T(0)), B(T(0))};
            simd::for_each_vector<T, Arch, 4>(columns, [&](index j, auto count, auto extent) DEFT_INLINE_LAMBDA {
                DEFT_UNROLL
                for (int v = 0; v < decltype(count)::value; ++v)
                    sums[v] = simd::fma(simd::load<Arch>(grad_v + i * rounding_tile_columns + j + v * width, extent),
                                        simd::load<Arch>(a2 + k * a2_stride + j + v * width, extent), sums[v]);
            });
            grad_a1[i * grad_stride + k] += simd::reduce_add(B((sums[0] + sums[1]) + (sums[2] + sums[3])));
        }
}

/// grad_a2[k][j] += sum over rows of a1[.][k] grad_v[.][j]: the rows of a tile first, so that roundings do not pile up.
template <class Arch, class T>
DEFT_NOINLINE void add_grad_a2(const T* grad_v, index rows, index columns, const T* a1, index a1_stride, index rank,
                               T* grad_a2, index grad_stride) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    for (index k = 0; k < rank; ++k)
        simd::for_each_vector<T, Arch, 4>(columns, [&](index j, auto count, auto extent) DEFT_INLINE_LAMBDA {
            constexpr int vectors = decltype(count)::value;
            B sums[std::size_t(vectors)];
            DEFT_UNROLL
            for (int v = 0; v < vectors; ++v)
                sums[v] = B(T(0));
            for (index i = 0; i < rows; ++i) {
                const B left(a1[i * a1_stride + k]);
                DEFT_UNROLL
                for (int v = 0; v < vectors; ++v)
                    sums[v] = simd::fma(
                        left, simd::load<Arch>(grad_v + i * rounding_tile_columns + j + v * width, extent), sums[v]);
            }
            DEFT_UNROLL
            for (int v = 0; v < vectors; ++v) {
                T* const to = grad_a2 + k * grad_stride + j + v * width;
                simd::store(to, B(simd::load<Arch>(to, extent) + sums[v]), extent);
            }
        });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

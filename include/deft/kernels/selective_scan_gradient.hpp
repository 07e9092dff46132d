/// \file
/// Gradients of the selective scan (kernels/selective_scan.hpp) over one tile of tokens, for a block of channels.
/// C++17.
///
/// With e = grad_y silu(z) and l the adjoint of the state, from the last token to the first:
///
///     l += C_t e,    grad_C_t = sum e h_t,    grad_B_t = sum l phi u,    grad_u = e D + sum l phi B_t
///     grad_d = sum l h_{t-1} a A + l B_t u phi',    grad_A = sum l h_{t-1} a d + l B_t u phi'_A,    l = a l
///
/// with phi' = 1, phi'_A = 0 (euler) or a, d^2 psi(d A) (zoh). h_t is computed again from the state before the tile, a
/// few states at a time, and stays in the first cache.
#ifndef DEFT_KERNELS_SELECTIVE_SCAN_GRADIENT_HPP
#define DEFT_KERNELS_SELECTIVE_SCAN_GRADIENT_HPP

#include <deft/kernels/activations.hpp>
#include <deft/kernels/selective_scan.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// What the gradients of a block read and write besides `scan`, whose y is not used; tokens are those of the tile.
template <class T>
struct selective_scan_cotangents {
    const T* grad_y;
    index grad_y_stride;
    T *grad_u, *grad_delta, *grad_z; ///< grad_z is null without z
    index grad_u_stride, grad_delta_stride, grad_z_stride;
    T *grad_b, *grad_c; ///< `states` consecutive elements per token
    index grad_b_stride, grad_c_stride;
    bool is_first;         ///< grad_b and grad_c are set; else they are added to
    T *grad_d, *grad_bias; ///< added to; each may be null
};

/// Tokens of a tile: half of the states of a channel and more, so that two rows per token have room for the states
/// before the tile.
constexpr index selective_scan_gradient_tokens(index states) noexcept {
    constexpr index least = 32;
    return (states + 1) / 2 > least ? (states + 1) / 2 : least;
}

namespace detail {

inline constexpr int gradient_states = 4; // at a time
inline constexpr index gradient_tokens = selective_scan_gradient_tokens(selective_scan_states);

// (x e^x - (e^x - 1)) / x^2 = sum_k (k + 1) x^k / (k + 2)!; the quotient cancels near 0.
template <class T, class Arch>
DEFT_ALWAYS_INLINE simd::batch<T, Arch> zoh_slope(const simd::batch<T, Arch>& x, const simd::batch<T, Arch>& exp,
                                                  const simd::batch<T, Arch>& exp_less1) noexcept {
    using B = simd::batch<T, Arch>;
    const B near = simd::at_least(B(T(-1)), simd::at_most(B(T(1)), x));
    B series;
    if constexpr (std::is_same_v<T, float>)
        series = simd::polynomial<T, Arch>(near, 0.5f, 1.0f / 3, 0.125f, 1.0f / 30, 1.0f / 144, 1.0f / 840, 1.0f / 5760,
                                           1.0f / 45360, 1.0f / 403200, 1.0f / 3991680);
    else
        series = simd::polynomial<T, Arch>(near, 0.5, 1.0 / 3, 0.125, 1.0 / 30, 1.0 / 144, 1.0 / 840, 1.0 / 5760,
                                           1.0 / 45360, 1.0 / 403200, 1.0 / 3991680, 1.0 / 43545600, 1.0 / 518918400,
                                           1.0 / 6706022400.0, 1.0 / 93405312000.0, 1.0 / 1394852659200.0,
                                           1.0 / 22230464256000.0, 1.0 / 376610217984000.0);
    return simd::select(simd::abs(x) < B(T(1)), series, (x * exp - exp_less1) / (x * x));
}

// Rows of a tile, [vector of channels][token][width].
template <class Arch, class T>
struct gradient_tile {
    static constexpr index width = simd::lanes<T, Arch>;
    static constexpr std::size_t size = std::size_t(selective_scan_shape<Arch, T>::tile_size);
    alignas(64) T d[size], u[size], e[size], y[size], grad_u[size], grad_d[size];
    // States of one vector along the tile, and sums of grad_B and grad_C over the vectors of the block.
    static constexpr std::size_t states = std::size_t(gradient_tokens * gradient_states * width);
    alignas(64) T h[states], a[states], phi[states], sum_b[states], sum_c[states];
    index tokens;

    index at(index channel, index token) const noexcept {
        return channel * tokens + token * width;
    }
};

// States [n, n + States) of a vector of channels: forwards from h, then backwards from the adjoint l. grad_a, h and l
// are [n][width].
template <class Arch, int States, bool IsZoh, class T>
DEFT_ALWAYS_INLINE void scan_gradient_of_states(const selective_scan_channels<T>& scan, index n, const T* log2,
                                                const T* inverse, const T* before, T* l, T* grad_a, index at,
                                                gradient_tile<Arch, T>& tile) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    constexpr T ln2 = T(0.69314718055994530942);
    const index b_stride = scan.b_stride, c_stride = scan.c_stride, tokens = tile.tokens;
    const T *const b = scan.b + n, *const c = scan.c + n;
    B a[std::size_t(States)], state[std::size_t(States)], adjoint[std::size_t(States)], sum[std::size_t(States)];
    DEFT_UNROLL
    for (int j = 0; j < States; ++j) {
        a[j] = simd::load<Arch>(log2 + (n + j) * width);
        state[j] = simd::load<Arch>(before + (n + j) * width);
    }
    for (index t = 0; t < tokens; ++t) {
        const B d = simd::load<Arch>(tile.d + at + t * width), u = simd::load<Arch>(tile.u + at + t * width);
        B y = simd::load<Arch>(tile.y + at + t * width);
        DEFT_UNROLL
        for (int j = 0; j < States; ++j) {
            const index to = (t * States + j) * width;
            const B x = d * a[j], decay = simd::exp2(x);
            B phi = d;
            if constexpr (IsZoh) {
                const B inv = simd::load<Arch>(inverse + (n + j) * width);
                phi = simd::select(inv == B(T(0)), d, simd::exp2_less1(x) * inv);
                simd::store(tile.phi + to, phi);
            }
            simd::store(tile.h + to, state[j]); // before token t
            simd::store(tile.a + to, decay);
            state[j] = simd::fma(decay, state[j], phi * B(b[t * b_stride + j]) * u);
            y = simd::fma(B(c[t * c_stride + j]), state[j], y);
        }
        simd::store(tile.y + at + t * width, y);
    }
    DEFT_UNROLL
    for (int j = 0; j < States; ++j) {
        adjoint[j] = simd::load<Arch>(l + (n + j) * width);
        sum[j] = B(T(0));
    }
    for (index t = tokens - 1; t >= 0; --t) {
        const B d = simd::load<Arch>(tile.d + at + t * width), u = simd::load<Arch>(tile.u + at + t * width);
        const B e = simd::load<Arch>(tile.e + at + t * width);
        B grad_u = simd::load<Arch>(tile.grad_u + at + t * width),
          grad_d = simd::load<Arch>(tile.grad_d + at + t * width);
        DEFT_UNROLL
        for (int j = 0; j < States; ++j) {
            const index to = (t * States + j) * width;
            const B decay = simd::load<Arch>(tile.a + to), h = simd::load<Arch>(tile.h + to);
            const B phi = IsZoh ? simd::load<Arch>(tile.phi + to) : d, from(b[t * b_stride + j]);
            adjoint[j] = simd::fma(B(c[t * c_stride + j]), e, adjoint[j]);
            const B through = adjoint[j] * decay * h, of_input = adjoint[j] * from,
                    after = simd::fma(decay, h, phi * from * u);
            simd::store(tile.sum_c + to, simd::fma(e, after, simd::load<Arch>(tile.sum_c + to)));
            simd::store(tile.sum_b + to, simd::fma(adjoint[j] * phi, u, simd::load<Arch>(tile.sum_b + to)));
            grad_u = simd::fma(of_input, phi, grad_u);
            grad_d = simd::fma(through, a[j] * B(ln2), grad_d);
            sum[j] = simd::fma(through, d, sum[j]);
            if constexpr (IsZoh) {
                const B x = d * a[j], slope = zoh_slope(x * B(ln2), decay, simd::exp2_less1(x));
                grad_d = simd::fma(of_input * u, decay, grad_d);
                sum[j] = simd::fma(of_input * u, d * d * slope, sum[j]);
            } else {
                grad_d = simd::fma(of_input, u, grad_d);
            }
            adjoint[j] *= decay;
        }
        simd::store(tile.grad_u + at + t * width, grad_u);
        simd::store(tile.grad_d + at + t * width, grad_d);
    }
    DEFT_UNROLL
    for (int j = 0; j < States; ++j) {
        simd::store(l + (n + j) * width, adjoint[j]);
        simd::store(grad_a + (n + j) * width, simd::load<Arch>(grad_a + (n + j) * width) + sum[j]);
    }
}

// States [n, n + States) of all channels of the block.
template <class Arch, int States, bool IsZoh, class T>
DEFT_NOINLINE void scan_gradient_of_block(const selective_scan_channels<T>& scan,
                                          const selective_scan_cotangents<T>& to, index n,
                                          const selective_scan_decay<Arch, T>& decay, const T* h, T* l, T* grad_a,
                                          gradient_tile<Arch, T>& tile) noexcept {
    constexpr index width = simd::lanes<T, Arch>;
    for (index i = 0; i < tile.tokens * States * width; ++i)
        tile.sum_b[i] = tile.sum_c[i] = T(0);
    for (index c = 0; c < scan.channels; c += width) {
        const index block = c * scan.states;
        scan_gradient_of_states<Arch, States, IsZoh>(scan, n, decay.log2 + block, decay.inverse + block, h + block,
                                                     l + block, grad_a + block, tile.at(c, 0), tile);
    }
    for (index t = 0; t < tile.tokens; ++t)
        for (int j = 0; j < States; ++j) {
            T& grad_b = to.grad_b[t * to.grad_b_stride + n + j];
            T& grad_c = to.grad_c[t * to.grad_c_stride + n + j];
            const T b = simd::reduce_add(simd::load<Arch>(tile.sum_b + (t * States + j) * width));
            const T c = simd::reduce_add(simd::load<Arch>(tile.sum_c + (t * States + j) * width));
            grad_b = to.is_first ? b : grad_b + b;
            grad_c = to.is_first ? c : grad_c + c;
        }
}

} // namespace detail

/// One tile. h is the state before it; the adjoint l and grad_a of the block are updated.
template <class Arch, class T>
DEFT_NOINLINE void
selective_scan_backward(const selective_scan_channels<T>& scan, const selective_scan_cotangents<T>& to,
                        const selective_scan_decay<Arch, T>& decay, const T* h, T* l, T* grad_a) noexcept {
    using B = simd::batch<T, Arch>;
    detail::gradient_tile<Arch, T> tile;
    tile.tokens = scan.tokens;
    for (index t = 0; t < scan.tokens; ++t)
        simd::for_each_vector<T, Arch, 1>(scan.channels, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
            const index at = tile.at(c, t);
            B d = simd::load<Arch>(scan.delta + t * scan.delta_stride + c, extent);
            if (scan.bias != nullptr)
                d += simd::load<Arch>(scan.bias + c, extent);
            B e = simd::load<Arch>(to.grad_y + t * to.grad_y_stride + c, extent);
            if (scan.z != nullptr)
                e *= simd::silu(simd::load<Arch>(scan.z + t * scan.z_stride + c, extent));
            const B u = simd::load<Arch>(scan.u + t * scan.u_stride + c, extent);
            B skip(T(0));
            if (scan.d != nullptr)
                skip = simd::load<Arch>(scan.d + c, extent);
            simd::store(tile.d + at, scan.has_softplus ? simd::softplus(d) : d);
            simd::store(tile.u + at, u);
            simd::store(tile.e + at, e);
            simd::store(tile.y + at, skip * u);
            simd::store(tile.grad_u + at, skip * e);
            simd::store(tile.grad_d + at, B(T(0)));
        });
    const auto run = [&](index n, auto states, auto is_zoh) {
        detail::scan_gradient_of_block<Arch, decltype(states)::value, decltype(is_zoh)::value>(scan, to, n, decay, h, l,
                                                                                               grad_a, tile);
    };
    const auto all_states = [&](auto is_zoh) {
        constexpr int group = detail::gradient_states;
        index n = 0;
        for (; n + group <= scan.states; n += group)
            run(n, std::integral_constant<int, group>{}, is_zoh);
        for (; n < scan.states; ++n)
            run(n, std::integral_constant<int, 1>{}, is_zoh);
    };
    if (scan.is_zoh)
        all_states(std::true_type{});
    else
        all_states(std::false_type{});
    simd::for_each_vector<T, Arch, 1>(scan.channels, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
        B sum_d(T(0)), sum_bias(T(0));
        for (index t = 0; t < scan.tokens; ++t) {
            const index at = tile.at(c, t);
            B grad = simd::load<Arch>(tile.grad_d + at);
            if (scan.has_softplus) {
                B s = simd::load<Arch>(scan.delta + t * scan.delta_stride + c, extent);
                if (scan.bias != nullptr)
                    s += simd::load<Arch>(scan.bias + c, extent);
                grad *= simd::sigmoid(s);
            }
            sum_d = simd::fma(simd::load<Arch>(tile.e + at), simd::load<Arch>(tile.u + at), sum_d);
            sum_bias += grad;
            simd::store(to.grad_u + t * to.grad_u_stride + c, simd::load<Arch>(tile.grad_u + at), extent);
            simd::store(to.grad_delta + t * to.grad_delta_stride + c, grad, extent);
            if (to.grad_z != nullptr) {
                const B z = simd::load<Arch>(scan.z + t * scan.z_stride + c, extent);
                const B g = simd::load<Arch>(to.grad_y + t * to.grad_y_stride + c, extent);
                const B slope = base_activation<activation::silu>::both(z, B(T(0))).derivative;
                simd::store(to.grad_z + t * to.grad_z_stride + c, g * simd::load<Arch>(tile.y + at) * slope, extent);
            }
        }
        if (to.grad_d != nullptr)
            simd::store(to.grad_d + c, simd::load<Arch>(to.grad_d + c, extent) + sum_d, extent);
        if (to.grad_bias != nullptr)
            simd::store(to.grad_bias + c, simd::load<Arch>(to.grad_bias + c, extent) + sum_bias, extent);
    });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

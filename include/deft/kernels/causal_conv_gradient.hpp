/// \file
/// Gradients of the depthwise causal convolution (kernels/causal_conv.hpp) for a block of channels. C++17.
///
///     e_t = grad_y_t act'(p_t),     grad_x_{t - W + 1 + k} = sum_k weight_k e_t,
///     grad_weight_k = sum_t e_t x_{t - W + 1 + k},     grad_bias = sum_t e_t
///
/// One walk over the tokens: e_t waits in row t of grad_x until the W rows of e that its gradient needs are there.
#ifndef DEFT_KERNELS_CAUSAL_CONV_GRADIENT_HPP
#define DEFT_KERNELS_CAUSAL_CONV_GRADIENT_HPP

#include <deft/kernels/causal_conv.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// A block of channels of one sequence; what is null is absent, and zeros where it is read.
template <class T>
struct causal_conv_gradient {
    const T* x;
    index x_stride;
    const T* weight;
    index weight_stride;
    const T* bias;
    const T* state; ///< the inputs before the first token
    index state_stride;
    const T* grad_y;
    index grad_y_stride;
    const T* grad_last; ///< cotangent of the state after the last token
    index grad_last_stride;
    T* grad_x;
    index grad_x_stride;
    T* grad_state;
    index grad_state_stride;
    index tokens, channels, taps;
    bool is_silu;
};

namespace detail {

// Where terms of this size cancel, act' would show their rounding in float.
inline constexpr double exact_from = 64;

template <class T, class Arch>
DEFT_ALWAYS_INLINE index count_of(simd::full) noexcept {
    return simd::lanes<T, Arch>;
}
template <class T, class Arch>
DEFT_ALWAYS_INLINE index count_of(simd::partial part) noexcept {
    return part.count;
}

// p_t, summed in double.
template <class Arch, class T, class Extent>
DEFT_NOINLINE simd::batch<T, Arch> exact_sums(const T* weights, index width, index taps, const T* const* in, index c,
                                              const T* bias, Extent extent) noexcept {
    alignas(64) T p[std::size_t(simd::lanes<T, Arch>)] = {};
    for (index i = 0; i < count_of<T, Arch>(extent); ++i) {
        double sum = bias == nullptr ? 0.0 : double(bias[c + i]);
        for (index k = 0; k < taps; ++k)
            sum += double(weights[k * width + i]) * double(in[k][c + i]);
        p[i] = T(sum);
    }
    return simd::load<Arch>(p);
}

template <int Taps, class F>
DEFT_ALWAYS_INLINE void for_each_tap(index taps, F&& f) noexcept {
    if constexpr (Taps != 0) {
        DEFT_UNROLL
        for (int k = 0; k < Taps; ++k)
            f(index(k));
    } else {
        for (index k = 0; k < taps; ++k)
            f(k);
    }
}

template <class Arch, int Taps, class T>
DEFT_NOINLINE void convolve_backward(const causal_conv_gradient<T>& conv, double* sums) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index run = 128;
    const index taps = Taps == 0 ? conv.taps : Taps, past = taps - 1, tokens = conv.tokens,
                width = causal_conv_channels<T>(taps);
    constexpr std::size_t row = std::size_t(causal_conv_channels<T>(1));
    alignas(64) T weights[conv_buffer<T>];
    alignas(64) T partial[conv_buffer<T> + row] = {};
    alignas(64) const T zeros[row] = {};
    const T* in[std::size_t(causal_conv_taps)];  // the inputs of token t
    const T* out[std::size_t(causal_conv_taps)]; // e_{t - k}
    pack_taps(conv.weight, conv.weight_stride, conv.channels, taps, width, weights);
    for (index t = 0; t < tokens + past; ++t) { // behind the last token there are only rows of grad_x to finish
        const index first = t < tokens ? 0 : t - tokens + 1, last = t < past ? t : past;
        for (index k = 0; k < taps; ++k) {
            const index r = t - past + k;
            in[k] = r >= 0                  ? conv.x + (t < tokens ? r : 0) * conv.x_stride
                    : conv.state != nullptr ? conv.state + (r + past) * conv.state_stride
                                            : zeros;
        }
        for (index k = first; k <= last; ++k)
            out[k] = conv.grad_x + (t - k) * conv.grad_x_stride;
        const T* const bias = conv.bias;
        const bool is_silu = conv.is_silu, is_whole = first == 0 && last == past;
        const T* const grad_y = t < tokens ? conv.grad_y + t * conv.grad_y_stride : nullptr;
        T* const e_row = t < tokens ? conv.grad_x + t * conv.grad_x_stride : nullptr;
        const T* const carried =
            t >= tokens && conv.grad_last != nullptr ? conv.grad_last + (t - tokens) * conv.grad_last_stride : nullptr;
        T* const to = t >= past                    ? conv.grad_x + (t - past) * conv.grad_x_stride
                      : conv.grad_state != nullptr ? conv.grad_state + t * conv.grad_state_stride
                                                   : nullptr;
        simd::for_each_vector<T, Arch, 1>(conv.channels, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
            if (e_row != nullptr) {
                B p = bias == nullptr ? B(T(0)) : simd::load<Arch>(bias + c, extent), size = simd::abs(p);
                for_each_tap<Taps>(taps, [&](index k) DEFT_INLINE_LAMBDA {
                    const B w = simd::load<Arch>(weights + k * width + c), u = simd::load<Arch>(in[k] + c, extent);
                    p = simd::fma(w, u, p);
                    size = simd::fma(simd::abs(w), simd::abs(u), size);
                });
                if (sizeof(T) == sizeof(float) && is_silu && xsimd::any(size > B(T(exact_from))))
                    p = exact_sums<Arch>(weights + c, width, taps, in, c, bias, extent);
                B e = simd::load<Arch>(grad_y + c, extent);
                if (is_silu)
                    e *= base_activation<activation::silu>::both(p, B(T(0))).derivative;
                simd::store(e_row + c, e, extent);
                for_each_tap<Taps>(taps, [&](index k) DEFT_INLINE_LAMBDA {
                    T* const of_tap = partial + k * width + c;
                    simd::store(of_tap, simd::fma(e, simd::load<Arch>(in[k] + c, extent), simd::load<Arch>(of_tap)));
                });
                simd::store(partial + taps * width + c, simd::load<Arch>(partial + taps * width + c) + e);
            }
            if (to == nullptr)
                return;
            B sum = carried == nullptr ? B(T(0)) : simd::load<Arch>(carried + c, extent);
            const auto add = [&](index k) DEFT_INLINE_LAMBDA {
                sum = simd::fma(simd::load<Arch>(weights + k * width + c), simd::load<Arch>(out[k] + c, extent), sum);
            };
            if (is_whole)
                for_each_tap<Taps>(taps, add);
            else
                for (index k = first; k <= last; ++k)
                    add(k);
            simd::store(to + c, sum, extent);
        });
        if (t % run == run - 1 || t == tokens + past - 1)
            for (index i = 0; i < (taps + 1) * width; ++i) {
                sums[i] += static_cast<double>(partial[i]);
                partial[i] = T(0);
            }
    }
}

} // namespace detail

/// Adds the sums over this sequence to sums[k * width + c], for k = taps those of the bias; width =
/// causal_conv_channels(taps). Sums over a run of tokens are in T. grad_x overlaps no input.
template <class Arch, class T>
DEFT_ALWAYS_INLINE void causal_conv_backward(const causal_conv_gradient<T>& conv, double* sums) noexcept {
    with_taps(conv.taps, [&](auto taps) { detail::convolve_backward<Arch, decltype(taps)::value>(conv, sums); });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

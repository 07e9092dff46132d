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

// The gradient of p from that of y.
template <class Arch, class T, class Extent, class Rows>
DEFT_ALWAYS_INLINE simd::batch<T, Arch>
through_silu(const simd::batch<T, Arch>& grad_y, simd::batch<T, Arch> p, const simd::batch<T, Arch>& size,
             const T* weights, index width, index taps, const T* bias, index c, Extent extent, Rows&& rows) noexcept {
    using B = simd::batch<T, Arch>;
    if (sizeof(T) == sizeof(float) && xsimd::any(size > B(T(exact_from))))
        p = exact_sums<Arch>(weights + c, width, taps, rows(), c, bias, extent);
    return grad_y * base_activation<activation::silu>::both(p, B(T(0))).derivative;
}

// A token, or one of the last rows of grad_x to finish behind the last token. grad_x holds e, the gradient of p, until
// all tokens that see an input are done.
template <class Arch, int Taps, class T>
DEFT_ALWAYS_INLINE void token_backward(const causal_conv_gradient<T>& conv, index t, const T* weights, index width,
                                       T* partial) noexcept {
    using B = simd::batch<T, Arch>;
    alignas(64) static constexpr T zeros[std::size_t(causal_conv_channels<T>(1))] = {};
    const index taps = Taps == 0 ? conv.taps : Taps, past = taps - 1, tokens = conv.tokens;
    const index first = t < tokens ? 0 : t - tokens + 1, last = t < past ? t : past;
    const T* in[std::size_t(causal_conv_taps)];  // the inputs of token t
    const T* out[std::size_t(causal_conv_taps)]; // e_{t - k}
    for (index k = 0; k < taps; ++k) {
        const index r = t - past + k;
        in[k] = r >= 0                  ? conv.x + (t < tokens ? r : 0) * conv.x_stride
                : conv.state != nullptr ? conv.state + (r + past) * conv.state_stride
                                        : zeros;
    }
    for (index k = first; k <= last; ++k)
        out[k] = conv.grad_x + (t - k) * conv.grad_x_stride;
    const T* const bias = conv.bias;
    const bool is_silu = conv.is_silu;
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
            for (index k = 0; k < taps; ++k) {
                const B w = simd::load<Arch>(weights + k * width + c), u = simd::load<Arch>(in[k] + c, extent);
                p = simd::fma(w, u, p);
                size = simd::fma(simd::abs(w), simd::abs(u), size);
            }
            B e = simd::load<Arch>(grad_y + c, extent);
            if (is_silu)
                e = through_silu<Arch>(e, p, size, weights, width, taps, bias, c, extent,
                                       [&]() DEFT_INLINE_LAMBDA { return in; });
            simd::store(e_row + c, e, extent);
            for (index k = 0; k < taps; ++k) {
                T* const of_tap = partial + k * width + c;
                simd::store(of_tap, simd::fma(e, simd::load<Arch>(in[k] + c, extent), simd::load<Arch>(of_tap)));
            }
            simd::store(partial + taps * width + c, simd::load<Arch>(partial + taps * width + c) + e);
        }
        if (to == nullptr)
            return;
        B sum = carried == nullptr ? B(T(0)) : simd::load<Arch>(carried + c, extent);
        for (index k = first; k <= last; ++k)
            sum = simd::fma(simd::load<Arch>(weights + k * width + c), simd::load<Arch>(out[k] + c, extent), sum);
        simd::store(to + c, sum, extent);
    });
}

// The same for tokens [t, t + Tokens), whose inputs are all tokens of the call: what they share stays in registers.
template <class Arch, int Taps, int Tokens, class T>
DEFT_ALWAYS_INLINE void tokens_backward(const causal_conv_gradient<T>& conv, index t, const T* weights, index width,
                                        T* partial) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr int past = Taps - 1, rows = past + Tokens;
    const index x_stride = conv.x_stride, grad_y_stride = conv.grad_y_stride, grad_x_stride = conv.grad_x_stride;
    const T* const x = conv.x + (t - past) * x_stride;
    const T* const grad_y = conv.grad_y + t * grad_y_stride;
    T* const grad_x = conv.grad_x + (t - past) * grad_x_stride;
    const T* const bias = conv.bias;
    const bool is_silu = conv.is_silu;
    simd::for_each_vector<T, Arch, 1>(conv.channels, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
        B w[std::size_t(Taps)], in[std::size_t(rows)], e[std::size_t(rows)];
        DEFT_UNROLL
        for (int k = 0; k < Taps; ++k)
            w[k] = simd::load<Arch>(weights + k * width + c);
        DEFT_UNROLL
        for (int r = 0; r < rows; ++r)
            in[r] = simd::load<Arch>(x + r * x_stride + c, extent);
        DEFT_UNROLL
        for (int r = 0; r < past; ++r)
            e[r] = simd::load<Arch>(grad_x + r * grad_x_stride + c, extent);
        const B start = bias == nullptr ? B(T(0)) : simd::load<Arch>(bias + c, extent);
        DEFT_UNROLL
        for (int i = 0; i < Tokens; ++i) {
            e[past + i] = simd::load<Arch>(grad_y + i * grad_y_stride + c, extent);
            if (!is_silu)
                continue;
            B p = start, size = simd::abs(start);
            DEFT_UNROLL
            for (int k = 0; k < Taps; ++k) {
                p = simd::fma(w[k], in[i + k], p);
                size = simd::fma(simd::abs(w[k]), simd::abs(in[i + k]), size);
            }
            const T* of_token[std::size_t(Taps)];
            e[past + i] = through_silu<Arch>(e[past + i], p, size, weights, width, Taps, bias, c, extent,
                                             [&]() DEFT_INLINE_LAMBDA {
                                                 for (int k = 0; k < Taps; ++k)
                                                     of_token[k] = x + (i + k) * x_stride;
                                                 return of_token;
                                             });
        }
        DEFT_UNROLL
        for (int k = 0; k <= Taps; ++k) {
            T* const of_tap = partial + k * width + c;
            B sum = simd::load<Arch>(of_tap);
            DEFT_UNROLL
            for (int i = 0; i < Tokens; ++i)
                sum = k < Taps ? simd::fma(e[past + i], in[i + k], sum) : sum + e[past + i];
            simd::store(of_tap, sum);
        }
        DEFT_UNROLL
        for (int i = 0; i < Tokens; ++i) {
            B sum(T(0));
            DEFT_UNROLL
            for (int k = 0; k < Taps; ++k)
                sum = simd::fma(w[k], e[past + i - k], sum);
            simd::store(grad_x + i * grad_x_stride + c, sum, extent);
        }
        DEFT_UNROLL
        for (int r = Tokens; r < rows; ++r)
            simd::store(grad_x + r * grad_x_stride + c, e[r], extent);
    });
}

template <class Arch, int Taps, class T>
DEFT_NOINLINE void convolve_backward(const causal_conv_gradient<T>& conv, double* sums) noexcept {
    constexpr index run = 128, group = 4;
    const index taps = Taps == 0 ? conv.taps : Taps, past = taps - 1, width = causal_conv_channels<T>(taps);
    alignas(64) T weights[conv_buffer<T>];
    alignas(64) T partial[conv_buffer<T> + std::size_t(causal_conv_channels<T>(1))] = {};
    pack_taps<Arch, Taps>(conv.weight, conv.weight_stride, conv.channels, taps, width, weights);
    const index end = conv.tokens + past;
    for (index t = 0, next = 0; t < end; t = next) {
        next = t + 1;
        if constexpr (Taps != 0)
            if (t >= past && t + group <= conv.tokens)
                next = t + group;
        if (next == t + 1)
            token_backward<Arch, Taps>(conv, t, weights, width, partial);
        else if constexpr (Taps != 0)
            tokens_backward<Arch, Taps, int(group)>(conv, t, weights, width, partial);
        if (next / run != t / run || next == end)
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

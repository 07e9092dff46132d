/// \file
/// What linear attention does with a single token or a single row: update and read the state in memory, add to z and
/// read it, divide and write an output. C++17.
#ifndef DEFT_KERNELS_LINEAR_ATTENTION_STEP_HPP
#define DEFT_KERNELS_LINEAR_ATTENTION_STEP_HPP

#include <deft/kernels/token_block.hpp>
#include <deft/simd/loop.hpp>

#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Vectors of columns that step_state takes at a time. Whole rows of S, if they fit, are worth more than sums that all
/// stay in registers: 128 columns at once take 0.83 of the time of twice 64, 80 take 0.9 of that of 64 and 16.
inline constexpr index step_vectors = 16;

namespace detail {

template <class Arch, class T, int Vectors, bool Update, class Extent>
DEFT_ALWAYS_INLINE void step_columns(T* state, index row_stride, index rows, T decay, const T* k, const T* q,
                                     const T* v, T* out, Extent extent) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    B sum[std::size_t(Vectors)];
    DEFT_UNROLL
    for (int w = 0; w < Vectors; ++w)
        sum[w] = simd::load<Arch>(out + w * width, extent);
    const B a(decay);
    for (index f = 0; f < rows; ++f, state += row_stride) {
        const B key(k[f]), query(q[f]);
        DEFT_UNROLL
        for (int w = 0; w < Vectors; ++w) {
            B s = simd::load<Arch>(state + w * width, extent);
            if constexpr (Update) {
                s = simd::fma(a, s, key * simd::load<Arch>(v + w * width, extent));
                simd::store(state + w * width, s, extent);
            }
            sum[w] = simd::fma(query, s, sum[w]);
        }
    }
    DEFT_UNROLL
    for (int w = 0; w < Vectors; ++w)
        simd::store(out + w * width, sum[w], extent);
}

} // namespace detail

/// S = decay S + k v^T if Update, then out += q S, for `width` <= step_vectors vectors of columns of S in memory.
template <class Arch, class T, bool Update>
DEFT_NOINLINE void step_state(T* state, index row_stride, index rows, index width, T decay, const T* k, const T* q,
                              const T* v, T* out) noexcept {
    constexpr index lanes = simd::lanes<T, Arch>;
    if (Update && decay == T(0)) { // forgets also what is not finite
        for (index f = 0; f < rows; ++f)
            for (index c = 0; c < width; ++c)
                state[f * row_stride + c] = T(0);
        decay = T(1);
    }
    const auto columns = [&](index c, auto vectors, auto extent) DEFT_INLINE_LAMBDA {
        detail::step_columns<Arch, T, decltype(vectors)::value, Update>(state + c, row_stride, rows, decay, k, q, v + c,
                                                                        out + c, extent);
    };
    if (width == step_vectors * lanes)
        columns(0, std::integral_constant<int, int(step_vectors)>{}, simd::full{});
    else if (width == 10 * lanes)
        columns(0, std::integral_constant<int, 10>{}, simd::full{});
    else if (width == 8 * lanes)
        columns(0, std::integral_constant<int, 8>{}, simd::full{});
    else
        simd::for_each_vector<T, Arch, 2>(width, columns);
}

/// z = factor z; a factor of 0 forgets.
template <class Arch, class T>
void scale_row(T* z, index rows, T factor) noexcept {
    using B = simd::batch<T, Arch>;
    const B f(factor);
    simd::for_each_vector<T, Arch, 1>(rows, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
        simd::store(z + c, factor == T(0) ? f : simd::load<Arch>(z + c, extent) * f, extent);
    });
}

/// z += factor k if Update; q z if Read, else 0.
template <class Arch, class T, bool Update, bool Read>
DEFT_ALWAYS_INLINE T add_and_read(T* z, const T* k, const T* q, index rows, T factor = T(1)) noexcept {
    using B = simd::batch<T, Arch>;
    B sum(T(0));
    simd::for_each_vector<T, Arch, 1>(rows, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
        B state = simd::load<Arch>(z + c, extent);
        if constexpr (Update) {
            state = simd::fma(B(factor), simd::load<Arch>(k + c, extent), state);
            simd::store(z + c, state, extent);
        }
        if constexpr (Read)
            sum = simd::fma(simd::load<Arch>(q + c, extent), state, sum);
    });
    return Read ? simd::reduce_add(sum) : T(0);
}

/// Sum of products.
template <class Arch, class T>
T dot(const T* x, const T* y, index n) noexcept {
    using B = simd::batch<T, Arch>;
    B sum(T(0)), sum2(T(0));
    constexpr index width = simd::lanes<T, Arch>;
    index i = 0;
    for (; i + 2 * width <= n; i += 2 * width) {
        sum = simd::fma(simd::load<Arch>(x + i), simd::load<Arch>(y + i), sum);
        sum2 = simd::fma(simd::load<Arch>(x + i + width), simd::load<Arch>(y + i + width), sum2);
    }
    simd::for_each_vector<T, Arch, 1>(n - i, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
        sum = simd::fma(simd::load<Arch>(x + i + c, extent), simd::load<Arch>(y + i + c, extent), sum);
    });
    return simd::reduce_add(sum + sum2);
}

/// |x| within [1, most]; NaN stays.
template <class T>
DEFT_ALWAYS_INLINE T bounded_denominator(T x, T most) noexcept {
    const T size = x < T(0) ? -x : x;
    return size < T(1) ? T(1) : size > most ? most : size;
}

/// to = factor from, divided by *denominator unless that is null: 0 where it is 0.
template <class Arch, class T, class S>
DEFT_ALWAYS_INLINE void write_row(const T* from, index width, const T* denominator, S* to, T factor = T(1)) noexcept {
    using B = simd::batch<T, Arch>;
    const bool is_zero = denominator != nullptr && *denominator == T(0);
    const B divisor(denominator == nullptr || is_zero ? T(1) : *denominator);
    simd::for_each_vector<T, Arch, 1>(width, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
        B x = B(factor) * simd::load<Arch>(from + c, extent);
        if (denominator != nullptr)
            x = is_zero ? B(T(0)) : x / divisor;
        store_as<T, Arch>(to + c, x, extent);
    });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

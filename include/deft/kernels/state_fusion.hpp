/// \file
/// Hidden-state fusion on rows: f = c + g s, s a sum of past states, its norm, and the gradients of both. C++17.
///
/// Contract: any length, any alignment; a row that is written may be one that is read at the same place.
#ifndef DEFT_KERNELS_STATE_FUSION_HPP
#define DEFT_KERNELS_STATE_FUSION_HPP

#include <deft/kernels/activations.hpp>
#include <deft/kernels/finished_product.hpp>
#include <deft/simd/loop.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// `count` rows of past states at one place, oldest first.
template <class T>
struct past_rows {
    T* data;
    index stride, count;
};

namespace detail {

// f(base_activation) of a gate: silu, sigmoid or identity.
template <class F>
DEFT_ALWAYS_INLINE void dispatch_gate(activation kind, F&& f) {
    if (kind == activation::silu)
        return f(base_activation<activation::silu>{});
    if (kind == activation::sigmoid)
        return f(base_activation<activation::sigmoid>{});
    DEFT_ASSERT(kind == activation::identity);
    f(base_activation<activation::identity>{});
}

template <class Arch, class T, class Extent>
DEFT_ALWAYS_INLINE simd::batch<T, Arch> sum_of_past(const past_rows<const T>& past, index i, Extent extent) noexcept {
    simd::batch<T, Arch> sum = simd::load<Arch>(past.data + i, extent);
    for (index k = 1; k < past.count; ++k)
        sum += simd::load<Arch>(past.data + k * past.stride + i, extent);
    return sum;
}

} // namespace detail

/// g = act(u).
template <class Arch, class T>
DEFT_NOINLINE void gate_values(activation kind, const T* u, T* g, index n) noexcept {
    detail::dispatch_gate(kind, [&](auto base) {
        simd::for_each_vector<T, Arch, 2>(n, [&](index i, auto count, auto extent) DEFT_INLINE_LAMBDA {
            DEFT_UNROLL
            for (int v = 0; v < decltype(count)::value; ++v) {
                const index at = i + v * simd::lanes<T, Arch>;
                simd::store(g + at, decltype(base)::value(simd::load<Arch>(u + at, extent), simd::batch<T, Arch>(T(0))),
                            extent);
            }
        });
    });
}

/// e = e act'(u).
template <class Arch, class T>
DEFT_NOINLINE void times_gate_slopes(activation kind, const T* u, T* e, index n) noexcept {
    using B = simd::batch<T, Arch>;
    detail::dispatch_gate(kind, [&](auto base) {
        simd::for_each_vector<T, Arch, 1>(n, [&](index i, auto, auto extent) DEFT_INLINE_LAMBDA {
            const B slope = decltype(base)::both(simd::load<Arch>(u + i, extent), B(T(0))).derivative;
            simd::store(e + i, slope * simd::load<Arch>(e + i, extent), extent);
        });
    });
}

/// f = c + g s; returns the sum of f^2. Without past states f = c.
template <class Arch, class T>
DEFT_NOINLINE T fuse_row(const T* c, const T* g, past_rows<const T> past, T* f, index n) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr int group = 4;
    constexpr index width = simd::lanes<T, Arch>;
    B squares[std::size_t(group)];
    DEFT_UNROLL
    for (int v = 0; v < group; ++v)
        squares[v] = B(T(0));
    simd::for_each_vector<T, Arch, group>(n, [&](index i, auto count, auto extent) DEFT_INLINE_LAMBDA {
        DEFT_UNROLL
        for (int v = 0; v < decltype(count)::value; ++v) {
            const index at = i + v * width;
            B sum = simd::load<Arch>(c + at, extent);
            if (past.count > 0)
                sum = simd::fma(simd::load<Arch>(g + at, extent), detail::sum_of_past<Arch>(past, at, extent), sum);
            squares[v] = simd::fma(sum, sum, squares[v]);
            simd::store(f + at, sum, extent);
        }
    });
    return simd::reduce_add((squares[0] + squares[1]) + (squares[2] + squares[3]));
}

namespace detail {

template <class T, class Arch>
DEFT_ALWAYS_INLINE simd::batch<T, Arch> zeros_behind(const simd::batch<T, Arch>& x, simd::full) noexcept {
    return x;
}
template <class T, class Arch>
DEFT_ALWAYS_INLINE simd::batch<T, Arch> zeros_behind(const simd::batch<T, Arch>& x, simd::partial extent) noexcept {
    T values[std::size_t(simd::lanes<T, Arch>)] = {};
    simd::store(values, x, extent);
    return simd::load<Arch>(values);
}

} // namespace detail

/// A block of rows: row i of each lies i strides behind the first.
template <class T>
struct fused_rows {
    const T* c;
    index c_stride;
    past_rows<const T> past;
    index past_stride;
    T* f;
    index f_stride;
    T* gates; ///< room for u, the gates before their activation; null: they are not kept
    index gates_stride;
};

namespace detail {

template <bool Keep, class Arch, class Base, class T>
DEFT_NOINLINE void fuse_product(Base, const strided_matrix<const T>& h, const strided_matrix<const T>& w, index depth,
                                const fused_rows<T>& at, index rows, index n, double* squares) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    alignas(64) T parts[std::size_t(tile_shape<Arch, T>::tile_rows * width)] = {};
    T* const sums = parts;
    const fused_rows<T> to = at; // a copy: vector stores may alias anything, and it would be read again after each
    // [=]: what a lambda in a lambda has by reference g++ 12 reads again after every store, 1.1 to 1.4 times slower.
    finished_product<Arch, T>(
        h, w, rows, n, depth, long_piece, [=](index i, index j, auto extent, const B& u) DEFT_INLINE_LAMBDA {
            const past_rows<const T> past{to.past.data + i * to.past_stride, to.past.stride, to.past.count};
            const B sum = simd::fma(Base::value(u, B(T(0))), sum_of_past<Arch>(past, j, extent),
                                    simd::load<Arch>(to.c + i * to.c_stride + j, extent));
            if constexpr (Keep)
                simd::store(to.gates + i * to.gates_stride + j, u, extent);
            simd::store(to.f + i * to.f_stride + j, sum, extent);
            const B part = zeros_behind(sum, extent);
            simd::store(sums + i * width, simd::fma(part, part, simd::load<Arch>(sums + i * width)));
        });
    for (index i = 0; i < rows; ++i)
        squares[i] = static_cast<double>(simd::reduce_add(simd::load<Arch>(parts + i * width)));
}

} // namespace detail

/// The same for a block of up to tile_rows rows, with g = act(u), u = h w straight out of the product's registers;
/// squares[i] becomes the sum of row i.
template <class Arch, class T>
void fuse_product(activation kind, const strided_matrix<const T>& h, const strided_matrix<const T>& w, index depth,
                  const fused_rows<T>& at, index rows, index n, double* squares) noexcept {
    detail::dispatch_gate(kind, [&](auto base) {
        if (at.gates != nullptr)
            detail::fuse_product<true, Arch>(base, h, w, depth, at, rows, n, squares);
        else
            detail::fuse_product<false, Arch>(base, h, w, depth, at, rows, n, squares);
    });
}

/// y = r w y; w may be null: ones.
template <class Arch, class T>
DEFT_NOINLINE void scale_row(T r, const T* w, T* y, index n) noexcept {
    using B = simd::batch<T, Arch>;
    const B factor(r);
    simd::for_each_vector<T, Arch, 1>(n, [&](index i, auto, auto extent) DEFT_INLINE_LAMBDA {
        B scaled = factor * simd::load<Arch>(y + i, extent);
        if (w != nullptr)
            scaled *= simd::load<Arch>(w + i, extent);
        simd::store(y + i, scaled, extent);
    });
}

/// sum of grad_y w f, w null: ones.
template <class Arch, class T>
DEFT_NOINLINE T norm_cotangent(const T* grad_y, const T* w, const T* f, index n) noexcept {
    using B = simd::batch<T, Arch>;
    B sum(T(0));
    simd::for_each_vector<T, Arch, 1>(n, [&](index i, auto, auto extent) DEFT_INLINE_LAMBDA {
        B g = simd::load<Arch>(grad_y + i, extent);
        if (w != nullptr)
            g *= simd::load<Arch>(w + i, extent);
        sum = simd::fma(g, simd::load<Arch>(f + i, extent), sum);
    });
    return simd::reduce_add(sum);
}

/// f becomes its gradient r (grad_y w - f through), through = r^2 mean(grad_y w f); grad_w += grad_y f r, if not null.
template <class Arch, class T>
DEFT_NOINLINE void norm_gradient(const T* grad_y, const T* w, T r, T through, T* f, T* grad_w, index n) noexcept {
    using B = simd::batch<T, Arch>;
    const B scale(r), part(through);
    simd::for_each_vector<T, Arch, 1>(n, [&](index i, auto, auto extent) DEFT_INLINE_LAMBDA {
        const B g = simd::load<Arch>(grad_y + i, extent), value = simd::load<Arch>(f + i, extent);
        if (grad_w != nullptr)
            simd::store(grad_w + i, simd::fma(g, value * scale, simd::load<Arch>(grad_w + i, extent)), extent);
        const B weighted = w == nullptr ? g : g * simd::load<Arch>(w + i, extent);
        simd::store(f + i, scale * simd::fma(-value, part, weighted), extent);
    });
}

/// grad_g = grad_f s; grad_s = grad_f g into every row of `to`.
template <class Arch, class T>
DEFT_NOINLINE void fusion_gradient(const T* grad_f, const T* g, past_rows<const T> past, T* grad_g, past_rows<T> to,
                                   index n) noexcept {
    using B = simd::batch<T, Arch>;
    simd::for_each_vector<T, Arch, 1>(n, [&](index i, auto, auto extent) DEFT_INLINE_LAMBDA {
        const B grad = simd::load<Arch>(grad_f + i, extent);
        simd::store(grad_g + i, grad * detail::sum_of_past<Arch>(past, i, extent), extent);
        const B of_states = grad * simd::load<Arch>(g + i, extent);
        for (index k = 0; k < to.count; ++k)
            simd::store(to.data + k * to.stride + i, of_states, extent);
    });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Gradients of softmax attention of one head, a block of queries at a time. C++17.
///
///     dP = dO V^T,  dS = P (dP - rowsum(P dP)),  dQ = scale dS K,  dK += scale dS^T Q,  dV += P^T dO
///
/// Two rounds over the keys: maxima, sums and rowsum(P dP), then the gradients. The rowsum is taken of the same P and
/// dP as dS: where one key has all the weight dS is then exactly 0, however large K.
#ifndef DEFT_KERNELS_SOFTMAX_ATTENTION_BACKWARD_HPP
#define DEFT_KERNELS_SOFTMAX_ATTENTION_BACKWARD_HPP

#include <deft/kernels/matrix_product.hpp>
#include <deft/kernels/softmax_attention.hpp>
#include <deft/simd/loop.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

template <class T>
struct softmax_attention_gradients {
    const T* grad_o;
    T *grad_q, *grad_k, *grad_v; ///< grad_k and grad_v are added to
    index grad_o_row, grad_q_row, grad_k_row, grad_v_row;
};

namespace detail {

// p x, but 0 where p is, whatever x.
template <class Arch, class T>
DEFT_ALWAYS_INLINE simd::batch<T, Arch> weighted(const simd::batch<T, Arch>& p,
                                                 const simd::batch<T, Arch>& x) noexcept {
    return simd::keep_if(p != simd::batch<T, Arch>(T(0)), p * x);
}

} // namespace detail

template <class Arch, class T>
DEFT_NOINLINE void softmax_attention_gradient_block(const softmax_attention_head<T>& head, index first,
                                                    const softmax_attention_gradients<T>& g) noexcept {
    using rows_type = detail::softmax_rows<Arch, T>;
    using B = simd::batch<T, Arch>;
    constexpr index stride = rows_type::stride;
    rows_type rows(head, first);
    alignas(64) T products[std::size_t(rows_type::padded_rows * stride)] = {}; // dP, then dS
    T delta[std::size_t(softmax_queries)] = {};
    const index end = rows.keys(), count = rows.rows;
    const strided_matrix<const T> grad_o{g.grad_o + first * g.grad_o_row, g.grad_o_row, 1};
    const auto multiply = [&](index j, index keys) {
        tile_product<Arch, T>(grad_o, {head.v + j * head.v_row, 1, head.v_row}, count, keys, head.width, false,
                              products, stride);
    };
    for (index j = 0; j < end; j += softmax_keys) {
        const index keys = end - j < softmax_keys ? end - j : softmax_keys;
        rows.scores(j, keys);
        rows.exponentials();
        multiply(j, keys);
        for (index r = 0; r < count; ++r) {
            const T *const p = rows.tile + r * stride, *const d = products + r * stride;
            B sum(T(0));
            simd::for_each_vector<T, Arch, 1>(keys, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
                sum = sum + detail::weighted<Arch, T>(simd::load<Arch>(p + c, extent), simd::load<Arch>(d + c, extent));
            });
            delta[r] = delta[r] * rows.before[r] + simd::reduce_add(sum);
        }
    }
    T* const grad_q = g.grad_q + first * g.grad_q_row;
    for (index r = 0; r < count; ++r)
        for (index f = 0; f < head.features; ++f)
            grad_q[r * g.grad_q_row + f] = T(0);
    for (index j = 0; j < end; j += softmax_keys) {
        const index keys = end - j < softmax_keys ? end - j : softmax_keys;
        rows.scores(j, keys);
        multiply(j, keys);
        for (index r = 0; r < count; ++r) {
            const bool sees = rows.largest[r] != rows_type::none;
            const T inverse = sees ? 1 / rows.sum[r] : T(0), origin = sees ? rows.largest[r] : T(0);
            T *const p = rows.tile + r * stride, *const d = products + r * stride;
            const B middle(delta[r] * inverse);
            for (index c = 0; c < stride; c += simd::lanes<T, Arch>) {
                const B weight = simd::exp(simd::load<Arch>(p + c) - B(origin)) * B(inverse);
                simd::store(p + c, weight);
                simd::store(d + c, detail::weighted<Arch, T>(weight, simd::load<Arch>(d + c) - middle));
            }
        }
        const strided_matrix<const T> p{rows.tile, stride, 1}, ds{products, stride, 1};
        matrix_product<Arch, T>(T(1), p.transposed(), grad_o, T(1), {g.grad_v + j * g.grad_v_row, g.grad_v_row, 1},
                                keys, head.width, count);
        matrix_product<Arch, T>(head.scale, ds.transposed(), {head.q + first * head.q_row, head.q_row, 1}, T(1),
                                {g.grad_k + j * g.grad_k_row, g.grad_k_row, 1}, keys, head.features, count);
        matrix_product<Arch, T>(head.scale, ds, {head.k + j * head.k_row, head.k_row, 1}, T(1),
                                {grad_q, g.grad_q_row, 1}, count, head.features, keys);
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

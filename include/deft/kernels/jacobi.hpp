/// \file
/// What one-sided Jacobi rotations (Hestenes) do to a pair of rows. C++17.
#ifndef DEFT_KERNELS_JACOBI_HPP
#define DEFT_KERNELS_JACOBI_HPP

#include <deft/kernels/tridiagonal.hpp>
#include <deft/simd/loop.hpp>

#include <cmath>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

template <class T>
struct pair_products {
    T pp, qq, pq;
};

/// p . p, q . q and p . q.
template <class Arch, class T>
DEFT_NOINLINE pair_products<T> multiply_pair(const T* p, const T* q, index n) noexcept {
    using B = simd::batch<T, Arch>;
    B pp(T(0)), qq(T(0)), pq(T(0));
    simd::for_each_vector<T, Arch, 1>(n, [&](index i, auto, auto extent) DEFT_INLINE_LAMBDA {
        const B x = simd::load<Arch>(p + i, extent), y = simd::load<Arch>(q + i, extent);
        pp = simd::fma(x, x, pp);
        qq = simd::fma(y, y, qq);
        pq = simd::fma(x, y, pq);
    });
    return {simd::reduce_add(pp), simd::reduce_add(qq), simd::reduce_add(pq)};
}

/// The rotation after which rows with these products, p . q != 0, are orthogonal.
template <class T>
plane_rotation<T> orthogonalising(const pair_products<T>& products) noexcept {
    const T zeta = (products.qq - products.pp) / (2 * products.pq);
    const T t = (zeta < T(0) ? T(-1) : T(1)) / (std::abs(zeta) + std::hypot(T(1), zeta));
    const T c = 1 / std::hypot(T(1), t);
    return {c, c * t};
}

/// (p, q) <- (c p - s q, s p + c q).
template <class Arch, class T>
DEFT_NOINLINE void rotate_pair(T* p, T* q, index n, const plane_rotation<T>& rotation) noexcept {
    using B = simd::batch<T, Arch>;
    const B c(rotation.c), s(rotation.s);
    simd::for_each_vector<T, Arch, 2>(n, [&](index i, auto count, auto extent) DEFT_INLINE_LAMBDA {
        DEFT_UNROLL
        for (int v = 0; v < decltype(count)::value; ++v) {
            const index at = i + v * simd::lanes<T, Arch>;
            const B x = simd::load<Arch>(p + at, extent), y = simd::load<Arch>(q + at, extent);
            simd::store<T>(p + at, simd::fnma(s, y, B(c * x)), extent);
            simd::store<T>(q + at, simd::fma(s, x, B(c * y)), extent);
        }
    });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// A function of one variable as polynomials on pieces of equal width between two straight ends. C++17.
///
/// Piece k covers [(first + k) width, (first + k + 1) width) by c_0 + c_1 d + c_2 d^2 + ..., d the distance from its
/// middle. Pieces 0 and count - 1 are straight (c_2 = c_3 = ... = 0) and reach to infinity.
///
/// Contract: any length, any alignment; y may be x. NaN gives NaN; an infinity counts as the greatest finite number.
#ifndef DEFT_KERNELS_PIECEWISE_POLYNOMIAL_HPP
#define DEFT_KERNELS_PIECEWISE_POLYNOMIAL_HPP

#include <deft/simd/gather_rows.hpp>
#include <deft/simd/look_up.hpp>
#include <deft/simd/loop.hpp>

#include <limits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

template <class T>
struct polynomial_pieces {
    const T* coefficients;
    index count;
    T first; ///< a multiple of 1/16: then first + k is exact, and the distances are
    T width;
};

/// y[i] = f(x[i]), where evaluate(k, d) is the value of the pieces k, whole numbers, at the distances d.
template <class Arch, class T, class Evaluate>
DEFT_ALWAYS_INLINE void evaluate_pieces(const T* x, T* y, index n, const polynomial_pieces<T>& f,
                                        Evaluate&& evaluate) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr T greatest = std::numeric_limits<T>::max();
    const B inverse_width(T(1) / f.width), width(f.width), first(f.first), middle(f.first + T(0.5)),
        last(static_cast<T>(f.count - 1));
    simd::for_each_vector<T, Arch, 2>(n, [&](index i, auto count, auto extent) DEFT_INLINE_LAMBDA {
        constexpr auto V = static_cast<std::size_t>(decltype(count)::value);
        // All loads before any store: a load waits for a store before it whose address differs by a multiple of 4 KB.
        B u[V];
        simd::ask_ahead<T, Arch, int(V)>(x + i);
        DEFT_UNROLL
        for (std::size_t v = 0; v < V; ++v)
            u[v] = simd::load<Arch>(x + i + index(v) * simd::lanes<T, Arch>, extent);
        DEFT_UNROLL
        for (std::size_t v = 0; v < V; ++v) {
            // The operands stand so that NaN selects a piece inside the table; it comes back through d.
            const B t = simd::min(simd::max(simd::fma(u[v], inverse_width, -first), B(T(0))), last);
            const B k = simd::trunc(t);
            const B d = simd::at_least(B(-greatest), simd::at_most(B(greatest), simd::fma(middle + k, -width, u[v])));
            u[v] = evaluate(k, d);
        }
        DEFT_UNROLL
        for (std::size_t v = 0; v < V; ++v)
            simd::store<T>(y + i + index(v) * simd::lanes<T, Arch>, u[v], extent);
    });
}

/// Degree 3, coefficients [count, 4]: any number of pieces, a row of the table for each element.
template <class Arch, class T>
void piecewise_cubic(const T* x, T* y, index n, const polynomial_pieces<T>& f) noexcept {
    using B = simd::batch<T, Arch>;
    const T* const table = f.coefficients;
    evaluate_pieces<Arch>(x, y, n, f, [table](const B& k, const B& d) DEFT_INLINE_LAMBDA {
        const auto c = simd::gather_rows(table, k);
        return simd::fma(simd::fma(simd::fma(c.c3, d, c.c2), d, c.c1), d, c.c0);
    });
}

/// Any degree, coefficients [Degree + 1, lanes]: as many pieces as a vector has lanes, so that registers hold the table
/// and nothing is gathered. Only where simd::can_look_up.
template <class Arch, std::size_t Degree, class T>
void polynomials_in_lanes(const T* x, T* y, index n, const polynomial_pieces<T>& f) noexcept {
    using B = simd::batch<T, Arch>;
    B c[Degree + 1];
    DEFT_UNROLL
    for (std::size_t j = 0; j <= Degree; ++j)
        c[j] = simd::load<Arch>(f.coefficients + index(j) * simd::lanes<T, Arch>);
    evaluate_pieces<Arch>(x, y, n, f, [&c](const B& k, const B& d) DEFT_INLINE_LAMBDA {
        const auto lane = xsimd::to_int(k);
        B value = simd::look_up(c[Degree], lane);
        DEFT_UNROLL
        for (std::size_t j = Degree; j > 0; --j)
            value = simd::fma(value, d, simd::look_up(c[j - 1], lane));
        return value;
    });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

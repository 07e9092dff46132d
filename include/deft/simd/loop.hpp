/// \file
/// Main loop and tail of an elementwise kernel, from one body. C++17.
#ifndef DEFT_SIMD_LOOP_HPP
#define DEFT_SIMD_LOOP_HPP

#include <deft/simd/batch.hpp>

#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace simd {

/// Covers [0, n): calls `body(i, std::integral_constant<int, V>{}, extent)` with V = Unroll and `full{}` as long as so
/// many vectors of T remain, then with V = 1 and `partial{rest}` for what is left. Hand extent to load() and store().
template <class T, class Arch, int Unroll, class Body>
DEFT_ALWAYS_INLINE void for_each_vector(index n, Body&& body) noexcept {
    constexpr index width = lanes<T, Arch>;
    index i = 0;
    for (; i + Unroll * width <= n; i += Unroll * width)
        body(i, std::integral_constant<int, Unroll>{}, full{});
    if constexpr (Unroll > 1) {
        for (; i + width <= n; i += width)
            body(i, std::integral_constant<int, 1>{}, full{});
    }
    if (i < n)
        body(i, std::integral_constant<int, 1>{}, partial{n - i});
}

/// Asks for the memory that a loop over consecutive elements reads 2 KB after p, where it is about to read `Vectors`
/// vectors: beyond the caches, what the processor asks for by itself does not keep ahead of a body of some length.
/// Loops over two tensors (gradients) gain less, and lose up to a tenth in cache: they do not ask.
template <class T, class Arch, int Vectors, class S>
DEFT_ALWAYS_INLINE void ask_ahead(const S* p) noexcept {
    constexpr index line = 64, ahead = 2048, bytes = lanes<T, Arch> * Vectors * index(sizeof(S));
    DEFT_UNROLL
    for (index at = 0; at < bytes; at += line)
        prefetch(reinterpret_cast<const char*>(p) + ahead + at);
}

} // namespace simd
} // namespace DEFT_ISA
} // namespace deft

#endif

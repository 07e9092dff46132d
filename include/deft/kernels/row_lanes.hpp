/// \file
/// A few rows of a matrix, one per lane of a vector, and back: the layout in which a kernel that mixes the columns of a
/// row needs no shuffle. C++17.
///
/// Contract: any alignment, nothing outside of the rows and columns is touched, count is 1 .. lanes. at(t) is where the
/// vector of column t lies. Rows may be of a 16-bit storage type, the vectors are of its compute type.
#ifndef DEFT_KERNELS_ROW_LANES_HPP
#define DEFT_KERNELS_ROW_LANES_HPP

#include <deft/simd/transpose.hpp>

#include <algorithm>
#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Columns [0, n) of `count` rows at x. Lanes without a row hold 0.
template <class Arch, class S, class At>
DEFT_ALWAYS_INLINE void load_lanes(const S* x, index stride, index count, index n, At&& at) noexcept {
    using T = compute_t<S>;
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>, line = 64 / index(sizeof(T));
    index t = 0;
    if (std::is_same_v<S, T> && count == width)
        for (; t + width <= n; t += width) {
            B square[std::size_t(width)];
            if (t % line < width) // of the rows that come next: what is computed meanwhile hides the memory
                for (index r = 0; r < width; ++r)
                    simd::prefetch(x + (width + r) * stride + t);
            if constexpr (std::is_same_v<S, T>)
                simd::load_transposed(x + t, stride, square);
            DEFT_UNROLL
            for (index i = 0; i < width; ++i)
                simd::store<T>(at(t + i), square[i]);
        }
    for (; t < n; t += width) {
        const index columns = std::min(width, n - t);
        B square[std::size_t(width)];
        for (index r = 0; r < width; ++r)
            square[r] = r >= count         ? B(T(0))
                        : columns == width ? simd::load<Arch>(x + r * stride + t)
                                           : simd::load<Arch>(x + r * stride + t, simd::partial{columns});
        simd::transpose(square);
        for (index i = 0; i < columns; ++i)
            simd::store<T>(at(t + i), square[i]);
    }
}

/// The reverse: value(t) gives the vector of column t, and is called once for each column.
template <class Arch, class S, class Value>
DEFT_ALWAYS_INLINE void store_lanes(S* x, index stride, index count, index n, Value&& value) noexcept {
    using T = compute_t<S>;
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    index t = 0;
    if (std::is_same_v<S, T> && count == width)
        for (; t + width <= n; t += width) {
            B square[std::size_t(width)];
            DEFT_UNROLL
            for (index i = 0; i < width; ++i)
                square[i] = value(t + i);
            if constexpr (std::is_same_v<S, T>)
                simd::store_transposed(square, x + t, stride);
        }
    for (; t < n; t += width) {
        const index columns = std::min(width, n - t);
        B square[std::size_t(width)];
        for (index i = 0; i < width; ++i)
            square[i] = i < columns ? value(t + i) : B(T(0));
        simd::transpose(square);
        for (index r = 0; r < count; ++r)
            if (columns == width)
                simd::store<S>(x + r * stride + t, square[r]);
            else
                simd::store<S>(x + r * stride + t, square[r], simd::partial{columns});
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Order statistics of magnitudes without a copy or a sort, magnitudes above a threshold, and the greatest magnitude of
/// each column. C++17.
///
/// Contract: any length, any alignment; inputs are not written.
///
/// Bit patterns of non-negative floats sort like the floats. A rank is found from the top digit down: count how often
/// each digit occurs among the elements that begin with the digits found so far. Three passes over float, six over
/// double, each as fast as counting; nth_element on a copy took four times as long.
#ifndef DEFT_KERNELS_MAGNITUDES_HPP
#define DEFT_KERNELS_MAGNITUDES_HPP

#include <deft/simd/loop.hpp>

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Rows of a matrix.
template <class T>
struct magnitude_rows {
    const T* data;
    index stride, rows, columns;
};

/// No element is NaN or infinite.
template <class Arch, class T>
DEFT_NOINLINE bool all_finite(magnitude_rows<T> x) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    B sums[4] = {B(T(0)), B(T(0)), B(T(0)), B(T(0))}; // of x - x: 0, or NaN from then on
    for (index r = 0; r < x.rows; ++r)
        simd::for_each_vector<T, Arch, 4>(x.columns, [&](index c, auto count, auto extent) DEFT_INLINE_LAMBDA {
            DEFT_UNROLL
            for (int v = 0; v < decltype(count)::value; ++v) {
                const B value = simd::load<Arch>(x.data + r * x.stride + c + v * width, extent);
                sums[v] += value - value;
            }
        });
    return simd::reduce_add(B((sums[0] + sums[1]) + (sums[2] + sums[3]))) == T(0);
}

/// peaks[c] = max(peaks[c], |x[.][c]|), NaN passed over.
template <class Arch, class T>
DEFT_NOINLINE void column_peaks(magnitude_rows<T> x, T* peaks) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    for (index r = 0; r < x.rows; ++r)
        simd::for_each_vector<T, Arch, 4>(x.columns, [&](index c, auto count, auto extent) DEFT_INLINE_LAMBDA {
            DEFT_UNROLL
            for (int v = 0; v < decltype(count)::value; ++v) {
                const B size = simd::abs(simd::load<Arch>(x.data + r * x.stride + c + v * width, extent));
                simd::store(peaks + c + v * width,
                            simd::at_least(size, simd::load<Arch>(peaks + c + v * width, extent)), extent);
            }
        });
}

namespace detail {

template <class T>
using magnitude_bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

template <class T>
DEFT_ALWAYS_INLINE magnitude_bits<T> bits_of_magnitude(T x) noexcept {
    magnitude_bits<T> bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits & static_cast<magnitude_bits<T>>(~magnitude_bits<T>(0) >> 1);
}

} // namespace detail

inline constexpr int most_ranks = 4;

/// values[i] = the ranks[i]-th least magnitude, counted from 0; ranks ascend and are below the number of elements,
/// which are finite.
template <class T>
DEFT_NOINLINE void select_magnitudes(magnitude_rows<T> x, const index* ranks, int count, T* values) noexcept {
    using bits = detail::magnitude_bits<T>;
    constexpr int digit_bits = 11, all_bits = int(8 * sizeof(T)) - 1;
    constexpr index digits = index{1} << digit_bits;
    bits found[most_ranks] = {};
    index rank[most_ranks] = {};
    for (int i = 0; i < count; ++i)
        rank[i] = ranks[i];
    for (int done = 0; done < all_bits; done += digit_bits) {
        const int width = all_bits - done < digit_bits ? all_bits - done : digit_bits, shift = all_bits - done - width;
        const bits low = static_cast<bits>((bits(1) << width) - 1);
        for (int i = 0; i < count;) {
            int next = i + 1; // ranks that begin alike share a count
            while (next < count && found[next] == found[i])
                ++next;
            index counts[std::size_t(digits)] = {};
            const bits prefix = found[i];
            for (index r = 0; r < x.rows; ++r) {
                const T* const row = x.data + r * x.stride;
                if (done == 0)
                    for (index c = 0; c < x.columns; ++c)
                        ++counts[detail::bits_of_magnitude(row[c]) >> shift];
                else
                    for (index c = 0; c < x.columns; ++c) {
                        const bits value = static_cast<bits>(detail::bits_of_magnitude(row[c]) >> shift);
                        counts[value & low] += (value >> width) == prefix; // no branch: quartiles are not rare
                    }
            }
            index below = 0;
            bits digit = 0;
            for (; i < next; ++i) {
                while (below + counts[digit] <= rank[i])
                    below += counts[digit++];
                found[i] = static_cast<bits>((prefix << width) | digit);
                rank[i] -= below;
            }
        }
    }
    for (int i = 0; i < count; ++i)
        std::memcpy(values + i, found + i, sizeof(T));
}

/// Calls above(|x|) for the magnitudes beyond `threshold`; returns the greatest of the others, 0 if there is none.
template <class T, class F>
DEFT_ALWAYS_INLINE T for_each_above(magnitude_rows<T> x, double threshold, F&& above) {
    T rest = 0;
    for (index r = 0; r < x.rows; ++r)
        for (index c = 0; c < x.columns; ++c) {
            const T value = x.data[r * x.stride + c], size = value < T(0) ? -value : value;
            if (double(size) > threshold)
                above(size);
            else if (size > rest)
                rest = size;
        }
    return rest;
}

/// y = clip(x, -bound, bound) for n elements; y may be x.
template <class Arch, class T>
DEFT_ALWAYS_INLINE void clip_magnitudes(const T* x, index n, T bound, T* y) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    simd::for_each_vector<T, Arch, 4>(n, [&](index c, auto count, auto extent) DEFT_INLINE_LAMBDA {
        DEFT_UNROLL
        for (int v = 0; v < decltype(count)::value; ++v)
            simd::store(y + c + v * width,
                        simd::at_least(B(-bound), simd::at_most(B(bound), simd::load<Arch>(x + c + v * width, extent))),
                        extent);
    });
}

/// y = x / s or x s, elementwise, for n elements; y may be x.
template <bool Divide, class Arch, class T>
DEFT_ALWAYS_INLINE void scale_columns(const T* x, const T* s, index n, T* y) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    simd::for_each_vector<T, Arch, 4>(n, [&](index c, auto count, auto extent) DEFT_INLINE_LAMBDA {
        DEFT_UNROLL
        for (int v = 0; v < decltype(count)::value; ++v) {
            const B value = simd::load<Arch>(x + c + v * width, extent),
                    by = simd::load<Arch>(s + c + v * width, extent);
            simd::store(y + c + v * width, Divide ? B(value / by) : B(value * by), extent);
        }
    });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

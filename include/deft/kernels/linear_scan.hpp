/// \file
/// The recurrence h_t = a_t h_{t-1} + b_t over rows of a block of columns, its adjoint, and the fold of its elements
/// (a, b): h -> a h + b. C++17.
///
/// With MinusOne, rows and totals hold a - 1, and nothing is lost where a is close to 1: h += (a - 1) h + b.
///
/// Contract: any alignment; only outputs and the caller's rows of `columns` elements are written. Strides may be
/// negative, which scans from the last row to the first. Each row is read before its result is written. At most
/// scan_most_columns columns at a time: memory is met in long pieces, and the caller's rows stay in the first cache.
#ifndef DEFT_KERNELS_LINEAR_SCAN_HPP
#define DEFT_KERNELS_LINEAR_SCAN_HPP

#include <deft/simd/loop.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

inline constexpr index scan_most_columns = 2048;

/// Rows in the order of the scan.
template <class T>
struct scan_rows {
    T* data;
    index stride;
    DEFT_ALWAYS_INLINE T* row(index t) const noexcept {
        return data + t * stride;
    }
};

namespace detail {

// a h, for a given as it is or as a - 1.
template <bool MinusOne, class T, class Arch>
DEFT_ALWAYS_INLINE simd::batch<T, Arch> decayed(const simd::batch<T, Arch>& a, const simd::batch<T, Arch>& h) noexcept {
    if constexpr (MinusOne)
        return simd::fma(a, h, h);
    else
        return a * h;
}
// a h + b.
template <bool MinusOne, class T, class Arch>
DEFT_ALWAYS_INLINE simd::batch<T, Arch> apply(const simd::batch<T, Arch>& a, const simd::batch<T, Arch>& b,
                                              const simd::batch<T, Arch>& h) noexcept {
    if constexpr (MinusOne)
        return h + simd::fma(a, h, b); // the small terms first
    else
        return simd::fma(a, h, b);
}
// total becomes its product with a decay, as it is or less 1. Less 1, a total is near -1 while the product vanishes:
// `rest` carries what its sum has lost, or the roundings of all steps would remain in it.
template <bool MinusOne, class T, class Arch>
DEFT_ALWAYS_INLINE void multiply(simd::batch<T, Arch>& total, simd::batch<T, Arch>& rest,
                                 const simd::batch<T, Arch>& a) noexcept {
    if constexpr (MinusOne) {
        const simd::batch<T, Arch> change = simd::fma(total, a, a) + (rest + rest * a), sum = total + change;
        rest = change - (sum - total);
        total = sum;
    } else {
        total *= a;
    }
}

// step(t, c, extent, rows...) for all rows and vectors of columns, where `rows` are rows of the caller's that each step
// updates. Wide blocks go row by row, as memory likes it; in narrow ones the caller's rows stay in registers.
template <class Arch, int Rows, class T, class Step>
DEFT_ALWAYS_INLINE void for_each_step(index tokens, index columns, T* const (&rows)[std::size_t(Rows)],
                                      Step&& step) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>, narrow = 8;
    constexpr index cached = 1024; // elements of each operand that groups of columns share lines of
    constexpr int group = 4;       // independent recurrences hide the latency of each other
    const auto run = [&](index first, index last) DEFT_INLINE_LAMBDA {
        simd::for_each_vector<T, Arch, group>(columns, [&](index c, auto count, auto extent) DEFT_INLINE_LAMBDA {
            constexpr int vectors = decltype(count)::value;
            B kept[std::size_t(Rows)][std::size_t(vectors)];
            DEFT_UNROLL
            for (int r = 0; r < Rows; ++r) {
                DEFT_UNROLL
                for (int v = 0; v < vectors; ++v)
                    kept[r][v] = simd::load<Arch>(rows[r] + c + v * width, extent);
            }
            for (index t = first; t < last; ++t) {
                DEFT_UNROLL
                for (int v = 0; v < vectors; ++v) {
                    B now[std::size_t(Rows)];
                    DEFT_UNROLL
                    for (int r = 0; r < Rows; ++r)
                        now[r] = kept[r][v];
                    step(t, c + v * width, extent, now);
                    DEFT_UNROLL
                    for (int r = 0; r < Rows; ++r)
                        kept[r][v] = now[r];
                }
            }
            DEFT_UNROLL
            for (int r = 0; r < Rows; ++r) {
                DEFT_UNROLL
                for (int v = 0; v < vectors; ++v)
                    simd::store(rows[r] + c + v * width, kept[r][v], extent);
            }
        });
    };
    const index at_once = columns > 0 && columns <= narrow * width ? cached / columns : 1;
    for (index t = 0; t < tokens; t += at_once)
        run(t, t + at_once < tokens ? t + at_once : tokens);
}

} // namespace detail

/// h_t into `out`, from and into the row `h`.
template <class Arch, bool MinusOne, class T>
DEFT_NOINLINE void scan_states(scan_rows<const T> a, scan_rows<const T> b, index tokens, index columns, T* h,
                               scan_rows<T> out) noexcept {
    detail::for_each_step<Arch, 1, T>(
        tokens, columns, {h}, [=](index t, index c, auto extent, auto& now) DEFT_INLINE_LAMBDA {
            now[0] = detail::apply<MinusOne>(simd::load<Arch>(a.row(t) + c, extent),
                                             simd::load<Arch>(b.row(t) + c, extent), now[0]);
            simd::store(out.row(t) + c, now[0], extent);
        });
}

/// The element of the rows, appended to the element in the rows `total_a` and `total_b`.
template <class Arch, bool MinusOne, class T>
DEFT_NOINLINE void scan_element(scan_rows<const T> a, scan_rows<const T> b, index tokens, index columns, T* total_a,
                                T* total_b) noexcept {
    T rest[std::size_t(scan_most_columns)] = {};
    detail::for_each_step<Arch, 3, T>(
        tokens, columns, {total_a, total_b, rest}, [=](index t, index c, auto extent, auto& now) DEFT_INLINE_LAMBDA {
            const auto decay = simd::load<Arch>(a.row(t) + c, extent);
            detail::multiply<MinusOne>(now[0], now[2], decay);
            now[1] = detail::apply<MinusOne>(decay, simd::load<Arch>(b.row(t) + c, extent), now[1]);
        });
}

/// scan_states and scan_element in one walk.
template <class Arch, bool MinusOne, class T>
DEFT_NOINLINE void scan_states_and_element(scan_rows<const T> a, scan_rows<const T> b, index tokens, index columns,
                                           T* h, T* total_a, T* total_b, scan_rows<T> out) noexcept {
    T rest[std::size_t(scan_most_columns)] = {};
    detail::for_each_step<Arch, 4, T>(tokens, columns, {h, total_a, total_b, rest},
                                      [=](index t, index c, auto extent, auto& now) DEFT_INLINE_LAMBDA {
                                          const auto decay = simd::load<Arch>(a.row(t) + c, extent);
                                          const auto input = simd::load<Arch>(b.row(t) + c, extent);
                                          now[0] = detail::apply<MinusOne>(decay, input, now[0]);
                                          detail::multiply<MinusOne>(now[1], now[3], decay);
                                          now[2] = detail::apply<MinusOne>(decay, input, now[2]);
                                          simd::store(out.row(t) + c, now[0], extent);
                                      });
}

/// The fold of elements in order: the element before each of them into prefix_a and prefix_b, that of all into the rows
/// total_a and total_b, which hold the identity at first.
template <class Arch, bool MinusOne, class T>
DEFT_NOINLINE void scan_prefixes(scan_rows<const T> a, scan_rows<const T> b, index spans, index columns, T* total_a,
                                 T* total_b, scan_rows<T> prefix_a, scan_rows<T> prefix_b) noexcept {
    T rest[std::size_t(scan_most_columns)] = {};
    detail::for_each_step<Arch, 3, T>(spans, columns, {total_a, total_b, rest},
                                      [=](index k, index c, auto extent, auto& now) DEFT_INLINE_LAMBDA {
                                          const auto decay = simd::load<Arch>(a.row(k) + c, extent);
                                          const auto input = simd::load<Arch>(b.row(k) + c, extent);
                                          simd::store(prefix_a.row(k) + c, now[0], extent);
                                          simd::store(prefix_b.row(k) + c, now[1], extent);
                                          detail::multiply<MinusOne>(now[0], now[2], decay);
                                          now[1] = detail::apply<MinusOne>(decay, input, now[1]);
                                      });
}

/// The adjoint m_t = a_t l_t, l_t = grad_h_t + m_{t+1}, from the last row to the first, from and into the row `m`.
/// grad_b_t = l_t and grad_a_t = l_t h_{t-1}; grad_a holds h_t at first, and `before` is the state before the first
/// row.
template <class Arch, bool MinusOne, class T>
DEFT_NOINLINE void scan_adjoint(scan_rows<const T> a, scan_rows<const T> grad_h, index tokens, index columns,
                                const T* before, T* m, scan_rows<T> grad_a, scan_rows<T> grad_b) noexcept {
    detail::for_each_step<Arch, 1, T>(
        tokens, columns, {m}, [=](index i, index c, auto extent, auto& now) DEFT_INLINE_LAMBDA {
            const index t = tokens - 1 - i;
            const auto adjoint = simd::load<Arch>(grad_h.row(t) + c, extent) + now[0];
            const auto earlier = simd::load<Arch>((t > 0 ? grad_a.row(t - 1) : before) + c, extent);
            now[0] = detail::decayed<MinusOne>(simd::load<Arch>(a.row(t) + c, extent), adjoint);
            simd::store(grad_a.row(t) + c, adjoint * earlier, extent);
            simd::store(grad_b.row(t) + c, adjoint, extent);
        });
}

/// The element of m under scan_adjoint: its decay and its value from m = 0, appended to total_a and total_m.
template <class Arch, bool MinusOne, class T>
DEFT_NOINLINE void scan_adjoint_element(scan_rows<const T> a, scan_rows<const T> grad_h, index tokens, index columns,
                                        T* total_a, T* total_m) noexcept {
    T rest[std::size_t(scan_most_columns)] = {};
    detail::for_each_step<Arch, 3, T>(
        tokens, columns, {total_a, total_m, rest}, [=](index i, index c, auto extent, auto& now) DEFT_INLINE_LAMBDA {
            const index t = tokens - 1 - i;
            const auto decay = simd::load<Arch>(a.row(t) + c, extent);
            detail::multiply<MinusOne>(now[0], now[2], decay);
            now[1] = detail::decayed<MinusOne>(decay, simd::load<Arch>(grad_h.row(t) + c, extent) + now[1]);
        });
}

/// The gradient of the fold: grad_a and grad_b hold the prefixes at first; `suffix` is a row of ones.
template <class Arch, bool MinusOne, class T>
DEFT_NOINLINE void scan_prefixes_adjoint(scan_rows<const T> a, index spans, index columns, const T* grad_total_a,
                                         const T* grad_total_b, T* suffix, scan_rows<T> grad_a,
                                         scan_rows<T> grad_b) noexcept {
    detail::for_each_step<Arch, 1, T>(
        spans, columns, {suffix}, [=](index i, index c, auto extent, auto& now) DEFT_INLINE_LAMBDA {
            const index k = spans - 1 - i;
            const auto ga = simd::load<Arch>(grad_total_a + c, extent), gb = simd::load<Arch>(grad_total_b + c, extent);
            const auto prefix_a = simd::load<Arch>(grad_a.row(k) + c, extent);
            const auto prefix_b = simd::load<Arch>(grad_b.row(k) + c, extent);
            const auto through = simd::fma(gb, prefix_b, detail::decayed<MinusOne>(prefix_a, ga));
            simd::store(grad_a.row(k) + c, now[0] * through, extent);
            simd::store(grad_b.row(k) + c, now[0] * gb, extent);
            now[0] = detail::decayed<MinusOne>(simd::load<Arch>(a.row(k) + c, extent), now[0]);
        });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

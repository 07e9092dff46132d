/// \file
/// Complex Fourier transforms of any length, one per lane: rows of a batch lie across a vector, so that no butterfly
/// needs a shuffle. C++17.
///
///     X[k] = sum_t x[t] exp(-2 pi i k t / n)          (the inverse, unscaled: read X in the order 0, n - 1, .. 1)
///
/// Mixed radix (8, 4, 2, 3, 5, and any other prime by its sums), Stockham's order: passes alternate between two buffers
/// and the result is in natural order. A prime factor r costs about r^2 operations per r elements: lengths whose
/// factors are small are fast, all are right. What two buffers do not fit the first cache can be transformed in place,
/// to and from another order of X (fft_to, fft_from). Error, of the largest |X|: 1.5e-7 (float), 4e-16 (double) at n =
/// 1024; 6e-7, 1.4e-15 at the prime 1009.
///
/// Why not pocketfft, which also takes rows in lanes: current distributions do not package it, it gathers rows and
/// allocates on every call, and deft's transforms go on to products, activations and transposes in the same registers.
#ifndef DEFT_KERNELS_FFT_HPP
#define DEFT_KERNELS_FFT_HPP

#include <deft/simd/batch.hpp>

#include <algorithm>
#include <cmath>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// The passes of a transform of length n. The twiddle factors exp(-2 pi i j / n), j = 0 .. n - 1, are the caller's
/// memory: n pairs of cosine and -sine.
template <class T>
struct fft_plan {
    index n = 1;
    int passes = 0;
    index radix[64] = {};
    const T* twiddles = nullptr;
    index twiddle_step = 1; ///< they are those of a transform that is as many times as long

    fft_plan() = default;
    /// Writes 2 n numbers to `memory`, which must stay as long as the plan is used; null: the factors alone. n >= 1.
    fft_plan(index length, T* memory) noexcept : n(length), twiddles(memory) {
        constexpr double two_pi = 6.283185307179586476925;
        for (index j = 0; memory != nullptr && j < n; ++j) {
            memory[2 * j] = T(std::cos(two_pi * double(j) / double(n)));
            memory[2 * j + 1] = T(-std::sin(two_pi * double(j) / double(n)));
        }
        index rest = n;
        for (; rest % 8 == 0 && rest % 32 != 16; rest /= 8) // 16 is two fours
            radix[passes++] = 8;
        for (const index r : {index{4}, index{2}, index{3}, index{5}})
            for (; rest % r == 0; rest /= r)
                radix[passes++] = r;
        for (index r = 7; rest > 1; r += 2)
            for (; rest % r == 0; rest /= r)
                radix[passes++] = r;
        if (n % 2 == 1 && passes > 1) { // the greatest first: fft_real needs a quarter of the first pass
            const index greatest = radix[passes - 1];
            for (int pass = passes - 1; pass > 0; --pass)
                radix[pass] = radix[pass - 1];
            radix[0] = greatest;
        }
    }
    /// Of a block of fft_block_order.
    fft_plan eighth() const noexcept {
        fft_plan part(n / 8, nullptr);
        part.twiddles = twiddles;
        part.twiddle_step = 8 * twiddle_step;
        return part;
    }
};

/// Whether a pass of radix r is straight-line code; else it costs r sums of r terms.
constexpr bool is_small_radix(index r) noexcept {
    return r <= 5 || r == 8;
}

namespace detail {

template <class T, class Arch>
struct complex_batch {
    simd::batch<T, Arch> re, im;

    friend DEFT_ALWAYS_INLINE complex_batch operator+(const complex_batch& a, const complex_batch& b) noexcept {
        return {a.re + b.re, a.im + b.im};
    }
    friend DEFT_ALWAYS_INLINE complex_batch operator-(const complex_batch& a, const complex_batch& b) noexcept {
        return {a.re - b.re, a.im - b.im};
    }
    /// this - i b, this + i b.
    DEFT_ALWAYS_INLINE complex_batch minus_i(const complex_batch& b) const noexcept {
        return {re + b.im, im - b.re};
    }
    DEFT_ALWAYS_INLINE complex_batch plus_i(const complex_batch& b) const noexcept {
        return {re - b.im, im + b.re};
    }
    /// this + factor b.
    DEFT_ALWAYS_INLINE complex_batch plus(T factor, const complex_batch& b) const noexcept {
        const simd::batch<T, Arch> f(factor);
        return {simd::fma(f, b.re, re), simd::fma(f, b.im, im)};
    }
    /// this - i factor b.
    DEFT_ALWAYS_INLINE complex_batch minus_i(T factor, const complex_batch& b) const noexcept {
        const simd::batch<T, Arch> f(factor);
        return {simd::fma(f, b.im, re), simd::fnma(f, b.re, im)};
    }
    /// Times w[0] + i w[1].
    DEFT_ALWAYS_INLINE complex_batch times(const T* w) const noexcept {
        const simd::batch<T, Arch> c(w[0]), s(w[1]);
        return {simd::fnma(im, s, re * c), simd::fma(re, s, im * c)};
    }
};

// Element t of a buffer: a vector of real parts, then one of imaginary parts.
template <class Arch, class T>
DEFT_ALWAYS_INLINE T* element(T* buffer, index t) noexcept {
    return buffer + 2 * t * simd::lanes<std::remove_const_t<T>, Arch>;
}
template <class Arch, class T>
DEFT_ALWAYS_INLINE complex_batch<T, Arch> load_complex(const T* buffer, index t) noexcept {
    constexpr index width = simd::lanes<T, Arch>;
    const T* const p = element<Arch>(buffer, t);
    return {simd::load<Arch>(p), simd::load<Arch>(p + width)};
}
template <class Arch, class T>
DEFT_ALWAYS_INLINE void store_complex(T* buffer, index t, const complex_batch<T, Arch>& x) noexcept {
    constexpr index width = simd::lanes<T, Arch>;
    T* const p = element<Arch>(buffer, t);
    simd::store<T>(p, x.re);
    simd::store<T>(p + width, x.im);
}

/// x = its discrete Fourier transform.
template <class T, class Arch>
DEFT_ALWAYS_INLINE void small_dft(complex_batch<T, Arch> (&x)[2]) noexcept {
    const auto a = x[0], b = x[1];
    x[0] = a + b;
    x[1] = a - b;
}
template <class T, class Arch>
DEFT_ALWAYS_INLINE void small_dft(complex_batch<T, Arch> (&x)[3]) noexcept {
    const auto sum = x[1] + x[2], difference = x[1] - x[2];
    const auto middle = x[0].plus(T(-0.5), sum);
    x[0] = x[0] + sum;
    x[1] = middle.minus_i(T(0.86602540378443864676), difference);
    x[2] = middle.minus_i(T(-0.86602540378443864676), difference);
}
template <class T, class Arch>
DEFT_ALWAYS_INLINE void small_dft(complex_batch<T, Arch> (&x)[4]) noexcept {
    const auto a = x[0] + x[2], b = x[0] - x[2], c = x[1] + x[3], d = x[1] - x[3];
    x[0] = a + c;
    x[1] = b.minus_i(d);
    x[2] = a - c;
    x[3] = b.plus_i(d);
}
template <class T, class Arch>
DEFT_ALWAYS_INLINE void small_dft(complex_batch<T, Arch> (&x)[5]) noexcept {
    constexpr T c1 = T(0.30901699437494742410), c2 = T(-0.80901699437494742410);
    constexpr T s1 = T(0.95105651629515357212), s2 = T(0.58778525229247312917);
    const auto p = x[1] + x[4], q = x[2] + x[3], r = x[1] - x[4], s = x[2] - x[3];
    const auto a = x[0].plus(c1, p).plus(c2, q), b = x[0].plus(c2, p).plus(c1, q);
    const complex_batch<T, Arch> zero{simd::batch<T, Arch>(T(0)), simd::batch<T, Arch>(T(0))};
    const auto d = zero.plus(s1, r).plus(s2, s), e = zero.plus(s2, r).plus(-s1, s);
    x[0] = x[0] + p + q;
    x[1] = a.minus_i(d);
    x[2] = b.minus_i(e);
    x[3] = b.plus_i(e);
    x[4] = a.plus_i(d);
}

template <class T, class Arch>
DEFT_ALWAYS_INLINE void small_dft(complex_batch<T, Arch> (&x)[8]) noexcept {
    complex_batch<T, Arch> even[4] = {x[0], x[2], x[4], x[6]}, odd[4] = {x[1], x[3], x[5], x[7]};
    small_dft(even);
    small_dft(odd);
    constexpr T root_half = T(0.70710678118654752440);
    const auto first = odd[1].minus_i(odd[1]), third = odd[3].plus_i(odd[3]); // (1 - i) and (1 + i), over root_half
    x[0] = even[0] + odd[0];
    x[1] = even[1].plus(root_half, first);
    x[2] = even[2].minus_i(odd[2]);
    x[3] = even[3].plus(-root_half, third);
    x[4] = even[0] - odd[0];
    x[5] = even[1].plus(-root_half, first);
    x[6] = even[2].plus_i(odd[2]);
    x[7] = even[3].plus(root_half, third);
}

// The groups of a pass that are computed: the first `kept` of each `period`.
struct fft_groups {
    index count, period, kept;

    static constexpr fft_groups all(index count) noexcept {
        return {count, count, count};
    }
    /// f(k) for those; with R even it is all: fft_real has odd lengths.
    template <int R, class F>
    DEFT_ALWAYS_INLINE void for_each(F&& f) const noexcept {
        if constexpr (R % 2 == 0) {
            for (index k = 0; k < count; ++k)
                f(k);
        } else {
            for (index first = 0; first < count; first += period)
                for (index k = first; k < first + kept; ++k)
                    f(k);
        }
    }
};

// Where a pass multiplies by twiddle factors; the last one has none.
enum class fft_twiddles : unsigned char { none, before, after };

// One pass: `groups` transforms of the factors before are combined R at a time; from[i + span (b + R k)] goes to
// to[i + span (k + groups b)], for i < span, k < groups. With one group both may be the same.
template <class Arch, int R, fft_twiddles Twiddles, class T>
DEFT_NOINLINE void fft_pass(const fft_plan<T>& plan, const fft_groups& needed, index span, const T* from,
                            T* to) noexcept {
    const T* const twiddles = plan.twiddles;
    const index groups = needed.count, ahead = groups * span, turn = 2 * groups * plan.twiddle_step;
    needed.for_each<R>([=](index k) DEFT_INLINE_LAMBDA {
        for (index i = 0; i < span; ++i) {
            complex_batch<T, Arch> x[std::size_t(R)];
            const T *p = element<Arch>(from, i + span * R * k), *w = twiddles;
            DEFT_UNROLL
            for (int b = 0; b < R; ++b, p = element<Arch>(p, span), w += turn * i) {
                x[b] = load_complex<Arch>(p, 0);
                if (Twiddles == fft_twiddles::before && b > 0)
                    x[b] = x[b].times(w);
            }
            small_dft(x);
            T* q = element<Arch>(to, i + span * k);
            w = twiddles;
            DEFT_UNROLL
            for (int b = 0; b < R; ++b, q = element<Arch>(q, ahead), w += turn * i)
                store_complex<Arch>(q, 0, Twiddles == fft_twiddles::after && b > 0 ? x[b].times(w) : x[b]);
        }
    });
}
template <class Arch, int R, class T>
DEFT_ALWAYS_INLINE void fft_pass(const fft_plan<T>& plan, const fft_groups& groups, index span, const T* from,
                                 T* to) noexcept {
    if (span == 1)
        fft_pass<Arch, R, fft_twiddles::none>(plan, groups, index{1}, from, to);
    else
        fft_pass<Arch, R, fft_twiddles::after>(plan, groups, span, from, to);
}

// The same for any odd r: y_b = x_0 + sum_j (x_j + x_{r-j}) cos(2 pi j b / r) - i (x_j - x_{r-j}) sin(...), which
// y_{r-b} shares. The sums are read again for every b: r is a prime that is not small, and this pass a last resort.
template <class Arch, class T>
DEFT_NOINLINE void fft_pass_any(const fft_plan<T>& plan, index r, const fft_groups& needed, index span, const T* from,
                                T* to) noexcept {
    const index n = plan.n, unit = 2 * plan.twiddle_step, step = n / r, groups = needed.count;
    const T* const twiddles = plan.twiddles;
    needed.for_each<1>([&](index k) DEFT_INLINE_LAMBDA {
        for (index i = 0; i < span; ++i) {
            const auto at = [&](index b)
                                DEFT_INLINE_LAMBDA { return load_complex<Arch>(from, i + span * (b + r * k)); };
            auto total = at(0);
            for (index j = 1; j < r; ++j)
                total = total + at(j);
            store_complex<Arch>(to, i + span * k, total);
            for (index b = 1; 2 * b < r; ++b) {
                auto even = at(0);
                complex_batch<T, Arch> odd{simd::batch<T, Arch>(T(0)), simd::batch<T, Arch>(T(0))};
                for (index j = 1, angle = b; 2 * j < r; ++j, angle = angle + b < r ? angle + b : angle + b - r) {
                    const T* const w = twiddles + unit * step * angle;
                    even = even.plus(w[0], at(j) + at(r - j));
                    odd = odd.plus(-w[1], at(j) - at(r - j));
                }
                store_complex<Arch>(to, i + span * (k + groups * b),
                                    even.minus_i(odd).times(twiddles + unit * (b * groups * i % n)));
                store_complex<Arch>(to, i + span * (k + groups * (r - b)),
                                    even.plus_i(odd).times(twiddles + unit * ((r - b) * groups * i % n)));
            }
        }
    });
}

// The first pass over real vectors, for odd r: outputs 0 .. r / 2, the others being what is conjugate to them. R is r,
// or 0; from is overwritten.
template <class Arch, int R, class T>
DEFT_NOINLINE void fft_pass_real(const fft_plan<T>& plan, index r, T* from, T* to) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    constexpr int group = R > 0 ? R / 2 : 4; // outputs that share what is loaded
    const index n = plan.n, span = n / r, half = (R > 0 ? R : r) / 2;
    const T* const twiddles = plan.twiddles;
    const auto for_each_pair = [&](auto&& body) DEFT_INLINE_LAMBDA { // inputs j and r - j
        if constexpr (R > 0) {
            DEFT_UNROLL
            for (index j = 1; j <= R / 2; ++j)
                body(j);
        } else {
            for (index j = 1; j <= half; ++j)
                body(j);
        }
    };
    for (index i = 0; i < span; ++i) {
        T* const x = from + i * width;
        const index step = span * width;
        const B first = simd::load<Arch>(x);
        B total = first;
        for_each_pair([&](index j) DEFT_INLINE_LAMBDA {
            const B a = simd::load<Arch>(x + j * step), b = simd::load<Arch>(x + (r - j) * step), sum = a + b;
            simd::store<T>(x + j * step, sum);
            simd::store<T>(x + (r - j) * step, a - b);
            total = total + sum;
        });
        store_complex<Arch, T>(to, i, {total, B(T(0))});
        for (index b = 1; b <= half; b += group) {
            complex_batch<T, Arch> y[std::size_t(group)];
            index angle[std::size_t(group)], turn[std::size_t(group)];
            DEFT_UNROLL
            for (int g = 0; g < group; ++g) {
                y[g] = {first, B(T(0))};
                angle[g] = turn[g] = b + g <= half ? b + g : half;
            }
            for_each_pair([&](index j) DEFT_INLINE_LAMBDA {
                const B even = simd::load<Arch>(x + j * step), odd = simd::load<Arch>(x + (r - j) * step);
                DEFT_UNROLL
                for (int g = 0; g < group; ++g) {
                    const T* const w = twiddles + 2 * span * angle[g];
                    y[g].re = simd::fma(B(w[0]), even, y[g].re);
                    y[g].im = simd::fma(B(w[1]), odd, y[g].im);
                    angle[g] = angle[g] + turn[g] < r ? angle[g] + turn[g] : angle[g] + turn[g] - r;
                }
            });
            for (int g = 0; g < group && b + g <= half; ++g)
                store_complex<Arch>(to, i + span * (b + g), y[g].times(twiddles + 2 * (b + g) * i));
        }
    }
}

// Passes `first` and on.
template <class Arch, class T>
T* fft_passes(const fft_plan<T>& plan, int first, fft_groups groups, T* buffer, T* other) noexcept {
    for (int pass = first; pass < plan.passes; ++pass) {
        const index r = plan.radix[pass], span = plan.n / (groups.count * r);
        if (r == 8)
            fft_pass<Arch, 8>(plan, groups, span, buffer, other);
        else if (r == 4)
            fft_pass<Arch, 4>(plan, groups, span, buffer, other);
        else if (r == 2)
            fft_pass<Arch, 2>(plan, groups, span, buffer, other);
        else if (r == 3)
            fft_pass<Arch, 3>(plan, groups, span, buffer, other);
        else if (r == 5)
            fft_pass<Arch, 5>(plan, groups, span, buffer, other);
        else
            fft_pass_any<Arch>(plan, r, groups, span, buffer, other);
        T* const result = other;
        other = buffer;
        buffer = result;
        const bool is_all = groups.kept == groups.count;
        groups = {groups.count * r, is_all ? groups.count * r : groups.period, is_all ? groups.count * r : groups.kept};
    }
    return buffer;
}

} // namespace detail

/// Transforms n complex vectors; both buffers hold 2 n lanes numbers. Returns the one with the result, the other is
/// overwritten too.
template <class Arch, class T>
T* fft(const fft_plan<T>& plan, T* buffer, T* other) noexcept {
    return detail::fft_passes<Arch>(plan, 0, detail::fft_groups::all(1), buffer, other);
}

/// Where element k of x or X is: in its place.
struct fft_natural_order {
    DEFT_ALWAYS_INLINE index operator()(index k) const noexcept {
        return k;
    }
};
/// The same in eight blocks, each of every eighth element.
struct fft_block_order {
    index block;

    DEFT_ALWAYS_INLINE index operator()(index k) const noexcept {
        return k % 8 * block + k / 8;
    }
};

/// Whether two buffers of n complex vectors do not fit the first cache but two blocks do: then fft_to and fft_from with
/// fft_block_order are faster, n = 512 of eight floats 1.7 times. (Without blocks, all passes but the last in place and
/// that one to where its outputs belong, was slower than two buffers where the last radix was small.)
template <class Arch, class T>
bool prefers_blocks(index n) noexcept {
    constexpr index first_cache = 49152, size = 4 * simd::lanes<T, Arch> * index(sizeof(T));
    return n % 8 == 0 && n * size >= first_cache && n * size < 8 * first_cache;
}

namespace detail {

template <class Arch, class T>
void fft_of_blocks(const fft_plan<T>& plan, T* buffer, T* scratch) noexcept {
    const fft_plan<T> part = plan.eighth();
    const index size = 2 * part.n * simd::lanes<T, Arch>;
    for (T* block = buffer; block != buffer + 8 * size; block += size) {
        const T* const result = fft<Arch>(part, block, scratch);
        if (result != block)
            std::copy_n(result, size, block);
    }
}

} // namespace detail

/// fft of x in natural order; X is left in that of the first argument: blocks in place, for n a multiple of 16.
template <class Arch, class T>
T* fft_to(fft_natural_order, const fft_plan<T>& plan, T* buffer, T* other) noexcept {
    return fft<Arch>(plan, buffer, other);
}
template <class Arch, class T>
T* fft_to(fft_block_order order, const fft_plan<T>& plan, T* buffer, T* other) noexcept {
    detail::fft_pass<Arch, 8, detail::fft_twiddles::after>(plan, detail::fft_groups::all(1), order.block, buffer,
                                                           buffer);
    detail::fft_of_blocks<Arch>(plan, buffer, other);
    return buffer;
}
/// fft of x in the order of the first argument; X is left in natural order.
template <class Arch, class T>
T* fft_from(fft_natural_order, const fft_plan<T>& plan, T* buffer, T* other) noexcept {
    return fft<Arch>(plan, buffer, other);
}
template <class Arch, class T>
T* fft_from(fft_block_order order, const fft_plan<T>& plan, T* buffer, T* other) noexcept {
    detail::fft_of_blocks<Arch>(plan, buffer, other);
    detail::fft_pass<Arch, 8, detail::fft_twiddles::before>(plan, detail::fft_groups::all(1), order.block, buffer,
                                                            buffer);
    return buffer;
}

/// Transforms n real vectors at `other`, n odd; buffers and result as of fft. Of X[k] and X[n - k], which are
/// conjugate, it leaves one: that for which has_real_bin is true.
template <class Arch, class T>
T* fft_real(const fft_plan<T>& plan, T* buffer, T* other) noexcept {
    DEFT_ASSERT(plan.n % 2 == 1);
    const index r = plan.n == 1 ? 1 : plan.radix[0];
    if (r == 3)
        detail::fft_pass_real<Arch, 3>(plan, r, other, buffer);
    else if (r == 5)
        detail::fft_pass_real<Arch, 5>(plan, r, other, buffer);
    else if (r == 7)
        detail::fft_pass_real<Arch, 7>(plan, r, other, buffer);
    else
        detail::fft_pass_real<Arch, 0>(plan, r, other, buffer);
    return detail::fft_passes<Arch>(plan, 1, {r, r, r / 2 + 1}, buffer, other);
}
template <class T>
bool has_real_bin(const fft_plan<T>& plan, index k) noexcept {
    return plan.n == 1 || k % plan.radix[0] <= plan.radix[0] / 2;
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

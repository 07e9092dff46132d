/// \file
/// Orthonormal discrete cosine transforms of any length, one row per lane. C++17.
///
///     DCT-II:   y_k = s_k sum_j x_j cos(pi (2j+1) k / 2n),   s_0 = sqrt(1/n), else s = sqrt(2/n)
///     DCT-III:  its transpose and inverse
///     DCT-IV:   y_k = s sum_j x_j cos(pi (2j+1) (2k+1) / 4n)
///
/// Three ways, chosen when the tables are made. Even n: one complex transform of length h = n/2 between rotations
/// (Makhoul for II and III). Odd n: one of length n, of real numbers forward. Dense: the matrix.
/// (One transform for two rows, as its real and imaginary part, would let a NaN in one row spoil the other.)
#ifndef DEFT_KERNELS_DCT_HPP
#define DEFT_KERNELS_DCT_HPP

#include <deft/kernels/fft.hpp>

#include <cmath>
#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Rows in lanes, their elements in the order of a transform: even ones and odd ones are two arithmetic sequences.
template <class T>
struct dct_elements {
    T* even;
    index even_step;
    T* odd;
    index odd_step;

    DEFT_ALWAYS_INLINE T* operator()(index j) const noexcept {
        return j % 2 == 0 ? even + (j >> 1) * even_step : odd + (j >> 1) * odd_step;
    }
};

/// Where those sequences begin, and their steps, in vectors.
struct dct_order {
    index even, even_step, odd, odd_step;

    template <class Arch, class T>
    dct_elements<T> of(T* lanes) const noexcept {
        constexpr index width = simd::lanes<std::remove_const_t<T>, Arch>;
        return {lanes + even * width, even_step * width, lanes + odd * width, odd_step * width};
    }
    static constexpr dct_order natural() noexcept {
        return {0, 2, 1, 2};
    }
};

/// Rows that are written next: a transform asks for them line by line while it computes. All at once, or between the
/// stores of other rows, they cost more than they save; like this 512 rows of 128 in the second cache take 0.87 of the
/// time, 100000 rows of 64 0.83.
class dct_rows_ahead {
public:
    /// A block of `count` rows of n elements, `stride` apart, of `all` rows. None if those are all in the first cache,
    /// or, with vectors as long as lines, which are written whole, in the second; and none if the block would drive out
    /// of the first cache what is transformed.
    template <class Arch, class S>
    static dct_rows_ahead of(const S* rows, index count, index stride, index n, index all) noexcept {
        constexpr index size = sizeof(S), most = 16384;
        constexpr index in_cache = simd::lanes<compute_t<S>, Arch> * size == 64 ? 1 << 20 : 1 << 15;
        dct_rows_ahead ahead;
        if (count * n * size <= most && all * n * size > in_cache) {
            ahead.row_ = reinterpret_cast<const char*>(rows);
            ahead.rows_ = count;
            ahead.stride_ = stride * size;
            ahead.size_ = n * size;
        }
        return ahead;
    }

    /// About `Numbers` of type T of as many rows as lanes.
    template <class Arch, class T, index Numbers>
    DEFT_ALWAYS_INLINE void ask() noexcept {
        constexpr index line = 64, bytes = simd::lanes<T, Arch> * Numbers * index(sizeof(T));
        for (index i = 0; i < bytes && rows_ > 0; i += line) {
            simd::prefetch(row_ + at_);
            at_ += line;
            if (at_ >= size_) {
                at_ = 0;
                row_ += stride_;
                --rows_;
            }
        }
    }

private:
    const char* row_ = nullptr;
    index rows_ = 0, stride_ = 0, size_ = 0, at_ = 0;
};

enum class dct_method : unsigned char { even, odd, dense };

/// Tables of the transform of kind 2 or 4 of length n; kind 3 is the transpose of kind 2. Memory is the caller's.
template <class T>
struct dct_tables {
    index n = 0;
    bool fourth = false; // kind 4
    dct_method method = dct_method::dense;
    fft_plan<T> plan;
    const T* factors = nullptr;   // even, odd: rotations; dense: the matrix
    const index* slots = nullptr; // odd: element j goes to slots[j], output k comes from slots[n + k], or from what is
                                  // conjugate to it at slots[2 n + k]

    /// Numbers at `factors`.
    index factor_count() const noexcept {
        return method == dct_method::dense ? n * n : method == dct_method::odd ? 3 * n : fourth ? n : 6 * (n / 4 + 1);
    }
    index slot_count() const noexcept {
        return method == dct_method::odd ? 3 * n : 0;
    }
    /// Length of the complex transform.
    index fft_length() const noexcept {
        return method == dct_method::dense ? 1 : method == dct_method::odd ? n : n / 2;
    }
    /// Numbers of working memory that dct_lanes takes.
    template <class Arch>
    index work_count() const noexcept {
        return (method == dct_method::odd ? 5 : 2) * n * simd::lanes<T, Arch>;
    }
    /// Where dct_lanes expects its input, from the beginning of the working memory.
    dct_order input(bool transposed) const noexcept {
        return method != dct_method::even || (transposed && !fourth) ? dct_order::natural() : permuted();
    }
    /// Where it leaves the result, from the pointer that it returns.
    dct_order output(bool transposed) const noexcept {
        return method != dct_method::even || !(transposed || fourth) ? dct_order::natural() : permuted();
    }

    /// Writes the tables; angles are reduced as integers, in double.
    void fill(T* to, index* to_slots) noexcept {
        factors = to;
        slots = to_slots;
        if (method == dct_method::dense)
            fill_dense(to);
        else if (method == dct_method::odd) {
            fourth ? fill_odd_fourth(to, to_slots) : fill_odd(to, to_slots);
            for (index k = 0; k < n; ++k)
                to_slots[2 * n + k] = has_real_bin(plan, to_slots[n + k]) ? to_slots[n + k] : n - to_slots[n + k];
        } else
            fourth ? fill_even_fourth(to) : fill_even(to);
    }

private:
    static constexpr double pi = 3.14159265358979323846;

    dct_order permuted() const noexcept {
        return fourth ? dct_order{0, 2, n - 1, -2} : dct_order{0, 1, n - 1, -1};
    }
    double scale() const noexcept {
        return std::sqrt(2.0 / double(n));
    }
    // cos(2 pi a / period)
    static double cosine(index a, index period) noexcept {
        return std::cos(2 * pi * double(a % period) / double(period));
    }
    static double sine(index a, index period) noexcept {
        return std::sin(2 * pi * double(a % period) / double(period));
    }

    void fill_dense(T* to) const noexcept {
        for (index k = 0; k < n; ++k)
            for (index j = 0; j < n; ++j)
                *to++ = T(fourth   ? scale() * cosine((2 * j + 1) * (2 * k + 1) % (8 * n), 8 * n)
                          : k == 0 ? std::sqrt(1.0 / double(n))
                                   : scale() * cosine((2 * j + 1) * k % (4 * n), 4 * n));
    }
    // For bins k and h - k: W^k, and half the scale times the rotations by pi k / 2n and pi (h - k) / 2n.
    void fill_even(T* to) const noexcept {
        const double half = 0.5 * scale();
        for (index k = 0; k <= n / 4; ++k, to += 6) {
            to[0] = T(cosine(k, n));
            to[1] = T(sine(k, n));
            to[2] = T(half * cosine(k, 4 * n));
            to[3] = T(half * sine(k, 4 * n));
            to[4] = T(half * cosine(n / 2 - k, 4 * n));
            to[5] = T(half * sine(n / 2 - k, 4 * n));
        }
    }
    // The rotation by pi (8 t + 1) / 8 n, before and after.
    void fill_even_fourth(T* to) const noexcept {
        const double root = std::sqrt(scale());
        for (index t = 0; t < n / 2; ++t) {
            to[2 * t] = T(root * cosine(8 * t + 1, 16 * n));
            to[2 * t + 1] = T(-root * sine(8 * t + 1, 16 * n));
        }
    }
    // y_k = p_k Re V[slot] + q_k Im V[slot], V the transform of g_j x_j at their slots: n pairs p, q, then n signs g.
    void fill_odd(T* to, index* slot) const noexcept {
        for (index k = 0; k < n; ++k) {
            slot[k] = k % 2 == 0 ? k / 2 : n - 1 - k / 2;
            slot[n + k] = k;
            to[2 * k] = T(k == 0 ? std::sqrt(1.0 / double(n)) : scale() * cosine(k, 4 * n));
            to[2 * k + 1] = T(k == 0 ? 0.0 : scale() * sine(k, 4 * n));
            to[2 * n + k] = T(1);
        }
    }
    // Odd n, kind 4: 1 / 8n = alpha / 8 + beta / n (mod 1) with alpha = n mod 8, beta = 1/8 mod n. Of the four angles
    // +-a, 4n +- a that give +- the same cosines as a = 2j + 1, one is 1 modulo 8; its residue modulo n is the slot.
    // Then the product of two of them is alpha / 8 + beta r s / n: a plain Fourier transform.
    void fill_odd_fourth(T* to, index* slot) const noexcept {
        index beta = 0;
        while (8 * beta % n != 1 % n)
            ++beta;
        for (index j = 0; j < n; ++j) {
            const index angles[4] = {2 * j + 1, 8 * n - (2 * j + 1), 4 * n + 2 * j + 1, 4 * n - (2 * j + 1)};
            int which = 0;
            while (angles[which] % 8 != 1)
                ++which;
            const double sign = which < 2 ? 1 : -1;
            slot[j] = angles[which] % n;
            slot[n + j] = slot[j] * beta % n;
            to[2 * j] = T(sign * scale() * cosine(n % 8, 8));
            to[2 * j + 1] = T(sign * scale() * sine(n % 8, 8));
            to[2 * n + j] = T(sign);
        }
    }
};

namespace detail {

// Bins k and h - k of the complex transform z of even and odd elements -> y_k, y_{n-k}, y_{h-k}, y_{h+k}.
template <class Arch, class Order, class T>
DEFT_NOINLINE void rotate_bins(const dct_tables<T>& tables, dct_rows_ahead ahead, Order bin, const T* z,
                               T* y) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    const index n = tables.n, h = n / 2;
    const T* f = tables.factors;
    const B a = simd::load<Arch>(z), b = simd::load<Arch>(z + width), scale(f[2] * T(1.4142135623730950488));
    simd::store<T>(y, scale * (a + b));
    simd::store<T>(y + h * width, scale * (a - b));
    for (index k = 1; 2 * k <= h; ++k) {
        ahead.ask<Arch, T, 4>();
        f += 6;
        const auto p = load_complex<Arch>(z, bin(k)), q = load_complex<Arch>(z, bin(h - k));
        const complex_batch<T, Arch> even{p.re + q.re, p.im - q.im}, odd{p.im + q.im, q.re - p.re};
        const B wc(f[0]), ws(f[1]);
        const complex_batch<T, Arch> turned{simd::fma(odd.re, wc, odd.im * ws), simd::fnma(odd.re, ws, odd.im * wc)};
        const auto v = even + turned, u = even - turned; // u: the conjugate of bin h - k
        const B c(f[2]), s(f[3]), c2(f[4]), s2(f[5]);
        simd::store<T>(y + k * width, simd::fma(v.re, c, v.im * s));
        simd::store<T>(y + (n - k) * width, simd::fnma(v.im, c, v.re * s));
        simd::store<T>(y + (h - k) * width, simd::fnma(u.im, s2, u.re * c2));
        simd::store<T>(y + (h + k) * width, simd::fma(u.re, s2, u.im * c2));
    }
}

// The transpose; bins in reverse order, so that the transform that follows goes back.
template <class Arch, class Order, class T>
DEFT_NOINLINE void unrotate_bins(const dct_tables<T>& tables, dct_rows_ahead ahead, const T* y, Order bin,
                                 T* z) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    const index n = tables.n, h = n / 2;
    const T* f = tables.factors;
    const B a = simd::load<Arch>(y), b = simd::load<Arch>(y + h * width), scale(f[2] * T(1.4142135623730950488));
    store_complex<Arch, T>(z, 0, {scale * (a + b), scale * (a - b)});
    for (index k = 1; 2 * k <= h; ++k) {
        ahead.ask<Arch, T, 4>();
        f += 6;
        const B c(f[2]), s(f[3]), c2(f[4]), s2(f[5]);
        const B y0 = simd::load<Arch>(y + k * width), y1 = simd::load<Arch>(y + (n - k) * width);
        const B y2 = simd::load<Arch>(y + (h - k) * width), y3 = simd::load<Arch>(y + (h + k) * width);
        const complex_batch<T, Arch> v{simd::fma(c, y0, s * y1), simd::fnma(c, y1, s * y0)};
        const complex_batch<T, Arch> u{simd::fma(c2, y2, s2 * y3), simd::fnma(s2, y2, c2 * y3)};
        const auto even = v + u, difference = v - u;
        const B wc(f[0]), ws(f[1]);
        const complex_batch<T, Arch> odd{simd::fnma(ws, difference.im, wc * difference.re),
                                         simd::fma(wc, difference.im, ws * difference.re)};
        store_complex<Arch, T>(z, bin(h - k), {even.re - odd.im, even.im + odd.re});
        store_complex<Arch, T>(z, bin(k), {even.re + odd.im, odd.re - even.im});
    }
}

// Factors times bins, the imaginary parts with the sign of `sign`: in place, or from blocks into the natural order of
// `other`. Returns where they are. (Two pointers for what is one take 4 % of a transform.)
template <class Arch, class Order, class T>
DEFT_NOINLINE T* rotate_all(const T* factors, index count, dct_rows_ahead ahead, T sign, Order bin, T* z,
                            T* other) noexcept {
    T* const y = std::is_same_v<Order, fft_natural_order> ? z : other;
    for (index t = 0; t < count; ++t) {
        ahead.ask<Arch, T, 2>();
        const auto v = load_complex<Arch>(z, bin(t)).times(factors + 2 * t);
        store_complex<Arch, T>(y, t, {v.re, simd::batch<T, Arch>(sign) * v.im});
    }
    return y;
}

// dct_lanes of even length, through bins in an order of fft.hpp.
template <class Arch, class T, class Order>
DEFT_ALWAYS_INLINE T* dct_even(const dct_tables<T>& tables, bool transposed, T* work, dct_rows_ahead ahead,
                               Order bin) noexcept {
    T* const other = work + tables.n * simd::lanes<T, Arch>;
    const index h = tables.n / 2;
    if (transposed && !tables.fourth) {
        unrotate_bins<Arch>(tables, ahead, work, bin, other);
        return fft_from<Arch>(bin, tables.plan, other, work);
    }
    if (tables.fourth)
        rotate_all<Arch>(tables.factors, h, {}, T(1), fft_natural_order{}, work, other);
    T* const z = fft_to<Arch>(bin, tables.plan, work, other);
    T* const y = z == work ? other : work;
    if (tables.fourth)
        return rotate_all<Arch>(tables.factors, h, ahead, T(-1), bin, z, y);
    rotate_bins<Arch>(tables, ahead, bin, z, y);
    return y;
}

template <class Arch, class T>
DEFT_NOINLINE void dct_odd(const dct_tables<T>& tables, bool transposed, T* x) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    const index n = tables.n, *const from = tables.slots, *const to = from + n, *const bin = to + n;
    const T *const f = tables.factors, *const signs = f + 2 * n;
    T *const z = x + n * width, *const other = z + 2 * n * width;
    if (transposed) {
        for (index j = 0; j < n; ++j) {
            const B v = simd::load<Arch>(x + j * width);
            store_complex<Arch, T>(z, to[j], {B(f[2 * j]) * v, B(-f[2 * j + 1]) * v});
        }
        const T* const result = fft<Arch>(tables.plan, z, other);
        for (index k = 0; k < n; ++k)
            simd::store<T>(x + k * width, B(signs[k]) * load_complex<Arch>(result, from[k]).re);
        return;
    }
    for (index j = 0; j < n; ++j)
        simd::store<T>(other + from[j] * width, B(signs[j]) * simd::load<Arch>(x + j * width));
    const T* const result = fft_real<Arch>(tables.plan, z, other);
    for (index k = 0; k < n; ++k) {
        const auto v = load_complex<Arch>(result, bin[k]);
        const T q = bin[k] == to[k] ? f[2 * k + 1] : -f[2 * k + 1];
        simd::store<T>(x + k * width, simd::fma(B(f[2 * k]), v.re, B(q) * v.im));
    }
}

// y = M x or M^T x, 8 elements of y at a time in registers.
template <class Arch, class T>
DEFT_NOINLINE void dct_dense(const dct_tables<T>& tables, bool transposed, const T* x, T* y) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    constexpr int block = 8;
    const index n = tables.n, across = transposed ? 1 : n, along = transposed ? n : 1;
    for (index k = 0; k < n; k += block) {
        const T* row[std::size_t(block)];
        B sum[std::size_t(block)];
        DEFT_UNROLL
        for (int i = 0; i < block; ++i) {
            row[i] = tables.factors + (k + i < n ? k + i : n - 1) * across;
            sum[i] = B(T(0));
        }
        for (index j = 0, at = 0; j < n; ++j, at += along) {
            const B v = simd::load<Arch>(x + j * width);
            DEFT_UNROLL
            for (int i = 0; i < block; ++i)
                sum[i] = simd::fma(B(row[i][at]), v, sum[i]);
        }
        DEFT_UNROLL
        for (int i = 0; i < block; ++i)
            if (k + i < n)
                simd::store<T>(y + (k + i) * width, sum[i]);
    }
}

} // namespace detail

/// Transforms n vectors at `work`, in the order of tables.input(); returns where the result is, in the order of
/// tables.output(): in `work`, whose other numbers up to work_count are overwritten. Even n asks for `ahead`.
template <class Arch, class T>
T* dct_lanes(const dct_tables<T>& tables, bool transposed, T* work, dct_rows_ahead ahead = {}) noexcept {
    constexpr index width = simd::lanes<T, Arch>;
    T* const other = work + tables.n * width;
    if (tables.method == dct_method::dense) {
        detail::dct_dense<Arch>(tables, transposed, work, other);
        return other;
    }
    if (tables.method == dct_method::odd) {
        detail::dct_odd<Arch>(tables, transposed && !tables.fourth, work);
        return work;
    }
    if (prefers_blocks<Arch, T>(tables.plan.n))
        return detail::dct_even<Arch>(tables, transposed, work, ahead, fft_block_order{tables.plan.n / 8});
    return detail::dct_even<Arch>(tables, transposed, work, ahead, fft_natural_order{});
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

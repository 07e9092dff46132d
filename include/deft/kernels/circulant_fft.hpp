/// \file
/// Products with a block-circulant matrix through Fourier transforms, for as many rows at a time as a vector has lanes.
/// C++17.
///
///     block i of u = IFFT( sum_j FFT(c_ij) FFT(x_j) )
///
/// Two neighbouring blocks of a row share a complex transform, as its real and imaginary part; two rows do not, so that
/// a NaN stays in its row. Only the m / 2 + 1 bins that a real signal needs are multiplied.
#ifndef DEFT_KERNELS_CIRCULANT_FFT_HPP
#define DEFT_KERNELS_CIRCULANT_FFT_HPP

#include <deft/kernels/fft.hpp>
#include <deft/kernels/row_lanes.hpp>

#include <algorithm>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Transformed generators: for each pair of output blocks, bin and input block, four numbers, the spectra of both, with
/// the scales of the transforms in them. With an odd number of outputs the last pair's second is 0.
template <class T>
struct circulant_spectra {
    index blocks_out = 0, blocks_in = 0;
    fft_plan<T> plan; // of length m
    const T* weights = nullptr;

    index bins() const noexcept {
        return plan.n / 2 + 1;
    }
    index pairs_out() const noexcept {
        return (blocks_out + 1) / 2;
    }
    index weight_count() const noexcept {
        return pairs_out() * bins() * blocks_in * 4;
    }
    template <class Arch>
    index buffer_count() const noexcept { // of one transform
        return 2 * plan.n * simd::lanes<T, Arch>;
    }
    /// Numbers of working memory that circulant_fft takes.
    template <class Arch>
    index work_count() const noexcept {
        return 2 * buffer_count<Arch>() + 2 * bins() * blocks_in * simd::lanes<T, Arch>;
    }
};

/// The spectrum of the generator of block (i, j) into `weights`; work as of circulant_fft. generator(k) gives c_ij[k].
template <class Arch, class T, class Generator>
void transform_generator(const circulant_spectra<T>& s, index i, index j, Generator&& generator, T* weights,
                         T* work) noexcept {
    constexpr index width = simd::lanes<T, Arch>;
    const index m = s.plan.n;
    std::fill_n(work, s.template buffer_count<Arch>(), T(0));
    for (index t = 0; t < m; ++t)
        work[2 * t * width] = generator(t); // in lane 0
    const T* const result = fft<Arch>(s.plan, work, work + s.template buffer_count<Arch>());
    const T scale = T(0.5 / double(m)); // of two blocks in one transform, and of the inverse
    for (index k = 0; k < s.bins(); ++k) {
        T* const to = weights + ((i / 2 * s.bins() + k) * s.blocks_in + j) * 4 + i % 2 * 2;
        to[0] = scale * result[2 * k * width];
        to[1] = scale * result[2 * k * width + width];
    }
}

namespace detail {

// Columns [0, m) of `count` rows at x into one part of a complex buffer, or with x null zeros.
template <class Arch, class T>
DEFT_NOINLINE void gather_signal(const T* x, index stride, index count, index m, T* part) noexcept {
    constexpr index width = simd::lanes<T, Arch>;
    if (x != nullptr)
        load_lanes<Arch>(x, stride, count, m, [&](index t) DEFT_INLINE_LAMBDA { return part + 2 * t * width; });
    else
        for (index t = 0; t < m; ++t)
            simd::store(part + 2 * t * width, simd::batch<T, Arch>(T(0)));
}

// The reverse: one part of a complex buffer into rows of m columns; all lanes are rows.
template <class Arch, class T>
DEFT_NOINLINE void scatter_signal(const T* part, index m, T* rows, index stride) noexcept {
    constexpr index width = simd::lanes<T, Arch>;
    store_lanes<Arch>(rows, stride, width, m,
                      [&](index t) DEFT_INLINE_LAMBDA { return simd::load<Arch>(part + 2 * t * width); });
}

// The spectra of two real signals, twice as large, from that of first + i second: X[k] +- conj X[-k].
template <class Arch, class T>
DEFT_NOINLINE void separate(const T* z, index m, index bins, index blocks_in, bool both, T* spectra) noexcept {
    constexpr index width = simd::lanes<T, Arch>;
    for (index k = 0; k < bins; ++k, spectra += 2 * blocks_in * width) {
        const auto a = load_complex<Arch>(z, k);
        const auto b = load_complex<Arch>(z, k == 0 ? 0 : m - k);
        store_complex<Arch, T>(spectra, 0, {a.re + b.re, a.im - b.im});
        if (both)
            store_complex<Arch, T>(spectra, 1, {a.im + b.im, b.re - a.re});
    }
}

// z[-k] = first + i second for the sums over input blocks of two output blocks: in reverse order, so that the transform
// that follows goes back.
template <class Arch, class T>
DEFT_NOINLINE void multiply_spectra(const T* spectra, const T* weights, index m, index bins, index blocks_in,
                                    T* z) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    for (index k = 0; k < bins; ++k) {
        B re0(T(0)), im0(T(0)), re1(T(0)), im1(T(0));
        for (index j = 0; j < blocks_in; ++j, weights += 4, spectra += 2 * width) {
            const B re = simd::load<Arch>(spectra), im = simd::load<Arch>(spectra + width);
            const B c0(weights[0]), s0(weights[1]), c1(weights[2]), s1(weights[3]);
            re0 = simd::fma(-s0, im, simd::fma(c0, re, re0));
            im0 = simd::fma(s0, re, simd::fma(c0, im, im0));
            re1 = simd::fma(-s1, im, simd::fma(c1, re, re1));
            im1 = simd::fma(s1, re, simd::fma(c1, im, im1));
        }
        store_complex<Arch, T>(z, k == 0 ? 0 : m - k, {re0 - im1, im0 + re1});
        if (k != 0 && 2 * k != m)
            store_complex<Arch, T>(z, k, {re0 + im1, re1 - im0});
    }
}

} // namespace detail

/// `count` <= lanes rows at x: calls f(u, stride, column, columns) for every pair of output blocks in order; row r of u
/// holds columns [column, column + columns) of the product. u is in `work` and lasts for the call.
template <class Arch, class T, class F>
void circulant_fft(const circulant_spectra<T>& s, const T* x, index x_stride, index count, T* work, F&& f) noexcept {
    constexpr index width = simd::lanes<T, Arch>;
    const index m = s.plan.n, bins = s.bins(), buffer = s.template buffer_count<Arch>();
    T *const first = work, *const second = work + buffer, *const spectra = second + buffer;
    for (index j = 0; j < s.blocks_in; j += 2) {
        const bool both = j + 1 < s.blocks_in;
        detail::gather_signal<Arch>(x + j * m, x_stride, count, m, first);
        detail::gather_signal<Arch>(both ? x + (j + 1) * m : nullptr, x_stride, count, m, first + width);
        const T* const z = fft<Arch>(s.plan, first, second);
        detail::separate<Arch>(z, m, bins, s.blocks_in, both, spectra + 2 * j * width);
    }
    for (index i = 0; i < s.blocks_out; i += 2) {
        detail::multiply_spectra<Arch>(spectra, s.weights + i / 2 * bins * s.blocks_in * 4, m, bins, s.blocks_in,
                                       first);
        const T* const z = fft<Arch>(s.plan, first, second);
        T* const u = z == first ? second : first;
        detail::scatter_signal<Arch>(z, m, u, 2 * m);
        detail::scatter_signal<Arch>(z + width, m, u + m, 2 * m);
        f(u, 2 * m, i * m, i + 1 < s.blocks_out ? 2 * m : m);
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

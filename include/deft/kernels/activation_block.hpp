/// \file
/// What stands around a matrix product, on blocks of rows x columns that are in cache: activations of u + bias, their
/// derivatives, and sums. C++17.
///
/// Contract: rows of a block lie `stride` apart, each of consecutive elements; any length, any alignment. bias, one
/// value per column, may be null: 0. A block that is written may be one that is read.
#ifndef DEFT_KERNELS_ACTIVATION_BLOCK_HPP
#define DEFT_KERNELS_ACTIVATION_BLOCK_HPP

#include <deft/kernels/activations.hpp>
#include <deft/kernels/finished_product.hpp>
#include <deft/simd/loop.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Rows of consecutive elements.
template <class T>
struct row_block {
    T* data;
    index stride;

    DEFT_ALWAYS_INLINE T* row(index r) const noexcept {
        return data + r * stride;
    }
};

struct block_size {
    index rows, columns;
};

/// sigma by name, with the slope of leaky_relu.
template <class T>
struct activation_choice {
    activation kind;
    T slope;
};

namespace detail {

/// f(row, column, extent) for every vector of a block.
template <class T, class Arch, class F>
DEFT_ALWAYS_INLINE void for_each_block_vector(block_size size, F&& f) noexcept {
    for (index r = 0; r < size.rows; ++r)
        simd::for_each_vector<T, Arch, 2>(size.columns, [&](index c, auto count, auto extent) DEFT_INLINE_LAMBDA {
            DEFT_UNROLL
            for (int v = 0; v < decltype(count)::value; ++v)
                f(r, c + v * simd::lanes<T, Arch>, extent);
        });
}

/// u + bias.
template <class Arch, class T, class Extent>
DEFT_ALWAYS_INLINE simd::batch<T, Arch> with_bias(const T* u, const T* bias, index c, Extent extent) noexcept {
    const simd::batch<T, Arch> x = simd::load<Arch>(u + c, extent);
    return bias == nullptr ? x : x + simd::load<Arch>(bias + c, extent);
}

} // namespace detail

/// y = scale (first + second); second.data may be null: 0.
template <class Arch, class T>
DEFT_NOINLINE void add_blocks(row_block<const T> first, row_block<const T> second, T scale, row_block<T> y,
                              block_size size) noexcept {
    using B = simd::batch<T, Arch>;
    detail::for_each_block_vector<T, Arch>(size, [&](index r, index c, auto extent) DEFT_INLINE_LAMBDA {
        B sum = simd::load<Arch>(first.row(r) + c, extent);
        if (second.data != nullptr)
            sum = sum + simd::load<Arch>(second.row(r) + c, extent);
        simd::store<T>(y.row(r) + c, B(scale) * sum, extent);
    });
}

/// y = scale (first + second + sigma(u + bias)); second.data may be null: 0. In one pass: what add_blocks writes is
/// often gone from the caches when it is read again, rows of a tile being a power of two apart.
template <class Arch, class T>
DEFT_NOINLINE void add_activated(activation_choice<T> sigma, row_block<const T> u, const T* bias,
                                 row_block<const T> first, row_block<const T> second, T scale, row_block<T> y,
                                 block_size size) noexcept {
    using B = simd::batch<T, Arch>;
    dispatch_any_activation(sigma.kind, [&](auto base) {
        const B slope(sigma.slope), factor(scale);
        detail::for_each_block_vector<T, Arch>(size, [&](index r, index c, auto extent) DEFT_INLINE_LAMBDA {
            const B value = decltype(base)::value(detail::with_bias<Arch>(u.row(r), bias, c, extent), slope);
            B before = simd::load<Arch>(first.row(r) + c, extent);
            if (second.data != nullptr)
                before += simd::load<Arch>(second.row(r) + c, extent);
            simd::store<T>(y.row(r) + c, factor * (before + value), extent);
        });
    });
}

/// y = scale (first + second + a b + bias), b with `depth` rows; second.data may be null: 0. y is neither factor.
template <class Arch, class T>
DEFT_NOINLINE void add_product(const strided_matrix<const T>& a, const strided_matrix<const T>& b, index depth,
                               const T* bias, row_block<const T> first, row_block<const T> second, T scale,
                               row_block<T> y, block_size size) noexcept {
    using B = simd::batch<T, Arch>;
    const B factor(scale);
    finished_product<Arch, T>(a, b, size.rows, size.columns, depth, long_piece,
                              [&](index r, index c, auto extent, const B& sum) DEFT_INLINE_LAMBDA {
                                  const B value = bias == nullptr ? sum : sum + simd::load<Arch>(bias + c, extent);
                                  B before = simd::load<Arch>(first.row(r) + c, extent);
                                  if (second.data != nullptr)
                                      before += simd::load<Arch>(second.row(r) + c, extent);
                                  simd::store<T>(y.row(r) + c, factor * (before + value), extent);
                              });
}

/// h = sigma(u + bias).
template <class Arch, class T>
DEFT_NOINLINE void activate(activation_choice<T> sigma, row_block<const T> u, const T* bias, row_block<T> h,
                            block_size size) noexcept {
    using B = simd::batch<T, Arch>;
    dispatch_any_activation(sigma.kind, [&](auto base) {
        const B slope(sigma.slope);
        detail::for_each_block_vector<T, Arch>(size, [&](index r, index c, auto extent) DEFT_INLINE_LAMBDA {
            simd::store<T>(h.row(r) + c,
                           decltype(base)::value(detail::with_bias<Arch>(u.row(r), bias, c, extent), slope), extent);
        });
    });
}

/// e = scale g sigma'(u + bias).
template <class Arch, class T>
DEFT_NOINLINE void times_derivative(activation_choice<T> sigma, row_block<const T> u, const T* bias,
                                    row_block<const T> g, T scale, row_block<T> e, block_size size) noexcept {
    using B = simd::batch<T, Arch>;
    dispatch_any_activation(sigma.kind, [&](auto base) {
        const B slope(sigma.slope), factor(scale);
        detail::for_each_block_vector<T, Arch>(size, [&](index r, index c, auto extent) DEFT_INLINE_LAMBDA {
            const B at = detail::with_bias<Arch>(u.row(r), bias, c, extent);
            simd::store<T>(e.row(r) + c,
                           factor * simd::load<Arch>(g.row(r) + c, extent) * decltype(base)::both(at, slope).derivative,
                           extent);
        });
    });
}

/// totals[c] += sum over rows of x(r, c), in double so that many rows lose nothing.
template <class T>
DEFT_NOINLINE void add_column_sums(row_block<const T> x, double* totals, block_size size) noexcept {
    for (index r = 0; r < size.rows; ++r)
        for (index c = 0; c < size.columns; ++c)
            totals[c] += static_cast<double>(x.row(r)[c]);
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

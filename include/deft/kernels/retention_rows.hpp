/// \file
/// Retention of one head as rows of a matrix that are divided by the sum of their magnitudes: no state can carry that
/// sum, so that the work grows with the square of the tokens. C++17.
///
///     w_nm = (q_n . k_m) gamma^(n-m) / sqrt(c_n),  m <= n,     o_n = sum_m w_nm v_m / rho_n,
///     rho_n = sum_m |w_nm| within [1, most]
///
/// Tiles of weights stay in cache. In the tiles below the diagonal gamma^(n-m) is the product of a power for the row
/// and one for the column, both at most 1: what underflows is nothing. Those on it are done row by row, so that a NaN
/// reaches no token before it. Contract: any strides but the last, which is 1; o overlaps nothing.
#ifndef DEFT_KERNELS_RETENTION_ROWS_HPP
#define DEFT_KERNELS_RETENTION_ROWS_HPP

#include <deft/kernels/linear_attention.hpp>
#include <deft/kernels/tile_product.hpp>

#include <cmath>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

template <class S>
struct retention_head {
    head_rows<const S> q, k, v; ///< of one head
    head_rows<S> o;
    double gamma;
    bool has_roots; ///< of the decayed count c
    double most;
    index tokens, features, width;
    compute_t<S>* denominator = nullptr; ///< of each token; receives sqrt(c) rho
};

namespace detail {

template <class Arch, class S>
class retention_rows_run {
    using T = compute_t<S>;
    static constexpr index edge = 32; // tokens of a tile either way
    static constexpr index depth = 256;
    // Columns of v at a time: a tile of them with its rows rounded up has the size that tile_product takes.
    static constexpr index piece = tile_shape<Arch, T>::tile_size / (edge + tile_shape<Arch, T>::kernel_rows) / 64 * 64;

public:
    explicit retention_rows_run(const retention_head<S>& given) noexcept : g(given) {
        for (index i = 0; i < edge; ++i)
            power[i] = std::pow(g.gamma, double(i));
    }

    /// Without o, the denominators only.
    void run() noexcept {
        const index width = g.o.data == nullptr ? 0 : g.width;
        for (index n = 0; n < g.tokens; n += edge) {
            first = n;
            rows = g.tokens - n < edge ? g.tokens - n : edge;
            for (index i = 0; i < edge; ++i) {
                sums[i] = T(0);
                root[i] = 1;
            }
            if (g.has_roots)
                decayed_count{0, g.gamma}.for_each(n, rows, [&](index i, double c) { root[i] = 1 / std::sqrt(c); });
            for (index c = 0; c == 0 || c < width; c += piece)
                columns(c, width - c < piece ? width - c : piece);
            if (g.denominator != nullptr)
                for (index i = 0; i < rows; ++i)
                    g.denominator[n + i] = T(double(bounded_denominator(sums[i], T(g.most))) / root[i]);
        }
    }

private:
    void columns(index c, index count) noexcept {
        for (index i = 0; i < edge * piece; ++i)
            out[i] = T(0);
        for (index m = 0; m <= first; m += edge) {
            const index keys = m < first ? edge : rows;
            weigh(m, keys);
            for (index i = 0; i < rows && c == 0; ++i)
                for (index j = 0; j < keys; ++j)
                    sums[i] += std::abs(weights[i * edge + j]);
            if (count == 0)
                continue;
            for (index j = 0; j < keys; ++j)
                pack_row<Arch>(g.v.at(0, m + j) + c, count, T(1), values + j * piece);
            if (m < first)
                tile_product<Arch, T>({weights, edge, 1}, {values, piece, 1}, rows, count, keys, true, out, piece);
            else
                for (index i = 0; i < rows; ++i)
                    for (index j = 0; j <= i; ++j)
                        add_scaled(values + j * piece, count, weights[i * edge + j], out + i * piece);
        }
        for (index i = 0; i < rows && count > 0; ++i) {
            const T divisor = bounded_denominator(sums[i], T(g.most));
            write_row<Arch>(out + i * piece, count, &divisor, g.o.at(0, first + i) + c);
        }
    }

    // The tile of tokens [first, first + rows) over [m, m + keys); zeros above the diagonal.
    void weigh(index m, index keys) noexcept {
        for (index i = 0; i < edge * padded; ++i)
            products[i] = T(0);
        for (index d = 0; d < g.features; d += depth) {
            const index count = g.features - d < depth ? g.features - d : depth;
            for (index i = 0; i < rows; ++i)
                pack_row<Arch>(g.q.at(0, first + i) + d, count, T(1), query + i * depth);
            for (index j = 0; j < keys; ++j)
                pack_row<Arch>(g.k.at(0, m + j) + d, count, T(1), key + j * depth);
            tile_product<Arch, T>({query, depth, 1}, {key, 1, depth}, rows, keys, count, true, products, padded);
        }
        double column[std::size_t(edge)];
        for (index j = 0; j < keys && m < first; ++j)
            column[j] = std::pow(g.gamma, double(first - m - j));
        for (index i = 0; i < rows; ++i)
            for (index j = 0; j < keys; ++j) {
                const bool below = m < first, inside = below || j <= i;
                const double decay = below ? power[i] * column[j] : inside ? power[i - j] : 0.0;
                weights[i * edge + j] = inside ? T(double(products[i * padded + j]) * (decay * root[i])) : T(0);
            }
    }

    static void add_scaled(const T* from, index count, T factor, T* to) noexcept {
        using B = simd::batch<T, Arch>;
        simd::for_each_vector<T, Arch, 1>(count, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
            simd::store(to + c,
                        simd::fma(B(factor), simd::load<Arch>(from + c, extent), simd::load<Arch>(to + c, extent)),
                        extent);
        });
    }

    static constexpr index padded = 64; // rows of products: tile_product writes whole panels

    const retention_head<S> g;
    index first = 0, rows = 0;
    double power[std::size_t(edge)], root[std::size_t(edge)]; // root: 1 / sqrt(c)
    T sums[std::size_t(edge)];
    alignas(64) T weights[std::size_t(edge * edge)], products[std::size_t((edge + 12) * padded)];
    alignas(64) T query[std::size_t(edge * depth)], key[std::size_t(edge * depth)];
    alignas(64) T values[std::size_t(edge * piece)], out[std::size_t((edge + 12) * piece)];
};

} // namespace detail

/// Outputs and denominators, of which either may be missing.
template <class Arch, class S>
DEFT_NOINLINE void retention_rows(const retention_head<S>& head) noexcept {
    detail::retention_rows_run<Arch, S>(head).run();
}

/// sqrt(c_i) |q_i z_i / sqrt(c_i)| within [1, most] of every token, or with most = 0 sqrt(c_i); z, absent or of
/// `features` numbers, is left as it is.
template <class Arch, class T>
DEFT_NOINLINE void retention_denominators(const head_rows<const T>& q, const head_rows<const T>& k, const T* z,
                                          const decayed_count& count, bool has_roots, double most, index tokens,
                                          index features, T* denominator) noexcept {
    using shape = panel_shape<Arch, T>;
    alignas(64) T sum[std::size_t(shape::rows)], key[std::size_t(shape::rows)], query[std::size_t(shape::rows)];
    block_factors<T> factors;
    for (index i = 0; i < tokens; ++i)
        denominator[i] = T(0);
    for (index f = 0; f < features && most > 0; f += shape::rows) {
        const index rows = features - f < shape::rows ? features - f : shape::rows;
        for (index i = 0; i < rows; ++i)
            sum[i] = z == nullptr ? T(0) : z[f + i];
        for (index s = 0; s < tokens; s += shape::tokens) {
            const index block = tokens - s < shape::tokens ? tokens - s : shape::tokens;
            find_factors<T>(
                block, [&](index) { return count.gamma; }, factors);
            for (index i = 0; i < block; ++i) {
                if (factors.before[i] != T(1))
                    scale_row<Arch>(sum, rows, factors.before[i]);
                pack_row<Arch>(k.at(0, s + i) + f, rows, factors.key[i], key);
                pack_row<Arch>(q.at(0, s + i) + f, rows, factors.query[i], query);
                denominator[s + i] += add_and_read<Arch, T, true, true>(sum, key, query, rows);
            }
            scale_row<Arch>(sum, rows, factors.after);
        }
    }
    for (index s = 0; s < tokens; s += shape::tokens) {
        const index block = tokens - s < shape::tokens ? tokens - s : shape::tokens;
        count.for_each(s, block, [&](index i, double c) {
            T& d = denominator[s + i];
            const double root = has_roots ? std::sqrt(c) : 1;
            d = T(root * (most > 0 ? double(bounded_denominator(T(double(d) / root), T(most))) : 1.0));
        });
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// y = x W^T + bias with W in 2, 4 or 8 bits: what a model quantised by CBQ (arXiv:2312.07950) runs.
///
/// Codes u [O, K], scales s and zero points z [O, G], g(k) the group of column k (packed_weights.hpp). W2A16, W4A16,
/// W8A16 take x as it is:
///
///     y[t, o] = bias[o] + sum_k x[t, k] s[o, g(k)] (u[o, k] - z[o, g(k)])
///
/// W4A8, W4A4, W8A8, W2A8 take x as codes a with scale sx and zero point zx (quantized_activation.hpp), and multiply
/// integers (arXiv:1712.05877, section 2):
///
///     acc[t, o, g] = sum_{k in g} (a[t, k] - zx) (u[o, k] - z[o, g])     exact
///     y[t, o] = bias[o] + sum_g sx[t or t, g] s[o, g] acc[t, o, g]
///
/// x [T, K]; y [T, O]; bias [O] or absent. One call serves one token or many; the sums over g run in the order of g, so
/// that with integers a token has the same bits in any company. Elements are float or double.
///
///     const deft::prepared_weights<float> w(packed);    // once per layer
///     deft::quantized_matmul(x, w, bias, y);            // A16
///     deft::quantized_activation<float> a({.columns = k, .group_size = 128, .max_tokens = 32});
///     deft::quantize_activation(x, a);
///     deft::quantized_matmul(a, w, bias, y);            // A8
#ifndef DEFT_QUANTIZATION_QUANTIZED_MATMUL_HPP
#define DEFT_QUANTIZATION_QUANTIZED_MATMUL_HPP

#include <deft/kernels/quantized_product.hpp>
#include <deft/kernels/weight_only_product.hpp>
#include <deft/parallel.hpp>
#include <deft/quantization/prepared_weights.hpp>
#include <deft/quantization/quantized_activation.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cstdint>

namespace deft {
inline namespace DEFT_ISA {
namespace detail {

/// f(tile, first token, tokens) for all rows of W and all tokens. Tokens outside, so that a block of them stays in the
/// second cache while W streams by.
template <class T, class Executor, class F>
void for_each_product_tile(const prepared_weights<T>& w, index tokens, Executor& executor, F&& f) {
    const index tiles = w.tiles(), blocks = (tokens + kernels::token_block - 1) / kernels::token_block;
    constexpr index least_task = index(1) << 20; // multiply-adds: some microseconds of work
    const index work = 16 * std::min(tokens, kernels::token_block) * (w.format().columns + 1);
    executor.parallel_for(tiles * blocks, least_task / (work + 1) + 1, [&](index begin, index end) {
        for (index i = begin; i < end; ++i) {
            const index token = i / tiles * kernels::token_block;
            f(i % tiles, token, std::min(kernels::token_block, tokens - token));
        }
    });
}

template <class T>
void check_product(const char* op, const prepared_weights<T>& w, const view<const T, 1>& bias, const rows<T>& y,
                   index tokens) {
    check_extent(op, "y", y, 0, tokens, "tokens");
    check_extent(op, "y", y, 1, w.format().rows, "rows of w");
    if (bias.is_given())
        check_extent(op, "bias", bias, 0, w.format().rows, "rows of w");
}

template <class T>
void check_same_groups(const char* op, const prepared_weights<T>& w, const quantized_activation<T>& a) {
    check(a.options().columns == w.format().columns, op, "the number of columns of a", "must be that of w",
          double(a.options().columns));
    check(a.options().group_size == w.format().group_size, op, "the group_size of a", "must be that of w",
          double(a.options().group_size));
}

} // namespace detail

/// Weight-only (A16). y must not overlap an input. Throws std::invalid_argument before anything is written if shapes do
/// not fit. Does not allocate. NaN in a row of x makes that row of y NaN and no other. The same bits for every
/// executor. Error: that of K / 256 sums of sums of 256 products (128 in double), and of rounding s (u - z).
template <class T = void, class Y = rows<T>, executor Executor = serial_executor>
void quantized_matmul(in_rows<element_t<T, Y>> x, const prepared_weights<element_t<T, Y>>& w,
                      in<element_t<T, Y>, 1> bias, Y&& y_out, Executor&& executor = Executor()) {
    using S = element_t<T, Y>;
    const rows<S> y(y_out);
    const char* const op = "quantized_matmul";
    detail::check_extent(op, "x", x, 1, w.format().columns, "columns of w");
    detail::check_product<S>(op, w, bias, y, x.extent(0));
    const kernels::tiled_weights<S> weights = w.tiled();
    const kernels::product_output<S> to{y.data(), y.stride(0), bias.data()};
    detail::for_each_product_tile(w, x.extent(0), executor, [&](index tile, index token, index tokens) {
        kernels::weight_only_product(weights, x.data(), x.stride(0), tile, token, tokens, to);
    });
}

/// Integer product of what quantize_activation() left in a. Throws std::invalid_argument before anything is written if
/// shapes or group sizes do not fit. Does not allocate. The same bits for every executor. The integers are exact for
/// groups of any length; the error is that of the sum over groups (pieces of 512 columns, of longer groups).
template <class T = void, class Y = rows<T>, executor Executor = serial_executor>
void quantized_matmul(const quantized_activation<element_t<T, Y>>& a, const prepared_weights<element_t<T, Y>>& w,
                      in<element_t<T, Y>, 1> bias, Y&& y_out, Executor&& executor = Executor()) {
    using S = element_t<T, Y>;
    const rows<S> y(y_out);
    const char* const op = "quantized_matmul";
    detail::check_same_groups<S>(op, w, a);
    detail::check_product<S>(op, w, bias, y, a.tokens());
    const kernels::tiled_weights<S> weights = w.tiled();
    const kernels::coded_activation<S> codes = a.coded();
    const kernels::product_output<S> to{y.data(), y.stride(0), bias.data()};
    detail::for_each_product_tile(w, a.tokens(), executor, [&](index tile, index token, index tokens) {
        kernels::coded_product(weights, codes, tile, token, tokens, to);
    });
}

/// The exact integers alone: acc [T, O, G], for a runtime that scales them itself, and for tests.
/// Throws std::invalid_argument before anything is written if shapes or group sizes do not fit, or a group is so long
/// that its sum could leave 32 bits.
template <class T, executor Executor = serial_executor>
void quantized_sums(const quantized_activation<T>& a, const prepared_weights<T>& w, view<std::int32_t, 3> acc,
                    Executor&& executor = Executor()) {
    const char* const op = "quantized_sums";
    const packed_format& f = w.format();
    detail::check_same_groups<T>(op, w, a);
    detail::check_extent(op, "acc", acc, 0, a.tokens(), "tokens of a");
    detail::check_extent(op, "acc", acc, 1, f.rows, "rows of w");
    detail::check_extent(op, "acc", acc, 2, f.groups(), "groups of w");
    const int reach = a.options().range == code_range::symmetric ? a.options().bits - 1 : a.options().bits;
    const index columns = f.group_size == 0 ? f.columns : std::min(f.group_size, f.columns);
    const double most = double(columns) * double(1 << reach) * double((1 << f.bits) - 1);
    detail::check(most < 2147483648.0, op, "the length of a group", "may overflow 32 bits", double(columns));
    const kernels::tiled_weights<T> weights = w.tiled();
    const kernels::coded_activation<T> codes = a.coded();
    const auto& segments = w.segments();
    constexpr index tile_rows = kernels::tile_order::rows;
    detail::for_each_product_tile(w, a.tokens(), executor, [&](index tile, index token, index tokens) {
        const index row = tile * tile_rows, count = std::min(tile_rows, f.rows - row);
        for (index t = token; t < token + tokens; ++t)
            for (index s = 0; s < segments.count(); ++s) {
                std::int32_t sums[std::size_t(tile_rows)];
                kernels::coded_sums(weights, codes, tile, t, s, sums);
                const index g = segments.group[std::size_t(s)];
                const bool is_first = s == 0 || segments.group[std::size_t(s - 1)] != g;
                for (index i = 0; i < count; ++i)
                    acc(t, row + i, g) = (is_first ? 0 : acc(t, row + i, g)) + sums[i];
            }
    });
}

} // namespace DEFT_ISA
} // namespace deft

#endif

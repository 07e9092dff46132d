/// \file
/// How a matrix is quantised: bits, range of codes, and which elements share a step size.
///
/// Codes of b bits: symmetric -2^(b-1) .. 2^(b-1)-1 with zero point 0 (two's complement), asymmetric 0 .. 2^b-1.
/// The step sizes (`scale`) and zero points of a matrix `[R, C]` have shape `[1, 1]` per_tensor, `[R, 1]` per_channel
/// and per_token (two names of one thing: rows of a weight, rows of an activation), and `[R, ceil(C / group_size)]`
/// per_group: groups run along the row, the last one may be short, nothing is padded.
#ifndef DEFT_QUANTIZATION_QUANT_FORMAT_HPP
#define DEFT_QUANTIZATION_QUANT_FORMAT_HPP

#include <deft/view.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>

namespace deft {

enum class quant_symmetry : unsigned char { symmetric, asymmetric };
enum class quant_granularity : unsigned char { per_tensor, per_channel, per_token, per_group };

struct quant_format {
    required<int> bits; ///< 2 .. 8
    quant_symmetry symmetry = quant_symmetry::symmetric;
    quant_granularity granularity = quant_granularity::per_channel;
    index group_size = 0; ///< of per_group
};

/// Type of zero points and of codes in a matrix of their own; packing makes them small.
using quant_code = std::int32_t;

inline namespace DEFT_ISA {
namespace detail {

struct quant_levels {
    index least, greatest;
};
constexpr quant_levels levels_of(const quant_format& f) noexcept {
    const index half = index{1} << (f.bits - 1);
    return f.symmetry == quant_symmetry::symmetric ? quant_levels{-half, half - 1} : quant_levels{0, 2 * half - 1};
}

/// The blocks of a matrix [rows, columns] whose elements share a step size.
struct quant_blocks {
    index rows, columns;
    bool per_tensor;
    index group, scale_rows, scale_columns;

    quant_blocks(index r, index c, const quant_format& f) noexcept
        : rows(r), columns(c), per_tensor(f.granularity == quant_granularity::per_tensor),
          group(f.granularity == quant_granularity::per_group ? f.group_size : c), scale_rows(per_tensor ? 1 : r),
          scale_columns(f.granularity == quant_granularity::per_group ? (c + group - 1) / group : 1) {}

    index scale_row(index r) const noexcept {
        return per_tensor ? 0 : r;
    }
    /// f(group, first column, number of columns) for the groups of a row, as far as they lie in [begin, end).
    template <class F>
    DEFT_ALWAYS_INLINE void for_each_group(index begin, index end, F&& f) const {
        for (index c = begin; c < end;) {
            const index g = group > 0 ? c / group : 0, stop = std::min(end, (g + 1) * group);
            f(g, c, stop - c);
            c = stop;
        }
    }
};

inline void check_format(const char* op, const quant_format& f) {
    check(f.bits >= 2 && f.bits <= 8, op, "bits", "must lie in 2 .. 8", f.bits);
    check(f.granularity != quant_granularity::per_group || f.group_size > 0, op, "group_size", "must be positive",
          double(f.group_size));
}

/// Throws unless `v`, of step sizes or zero points, has the shape that x and the format ask for.
template <class V, class X>
void check_scale_shape(const char* op, const char* name, const V& v, const X& x, const quant_format& f) {
    const quant_blocks blocks(x.extent(0), x.extent(1), f);
    check_extent(op, name, v, 0, blocks.scale_rows, "rows of scale that the granularity asks for");
    check_extent(op, name, v, 1, blocks.scale_columns, "groups of a row");
}

/// The same, and that all step sizes are positive and finite. They are read once, many times fewer than elements.
template <class T, class X>
void check_scale(const char* op, const view<const T, 2>& scale, const view<const quant_code, 2>& zero_point, const X& x,
                 const quant_format& f) {
    check_scale_shape(op, "scale", scale, x, f);
    check_scale_shape(op, "zero_point", zero_point, x, f);
    for (index r = 0; r < scale.extent(0); ++r)
        for (index g = 0; g < scale.extent(1); ++g) {
            const T s = scale.data()[r * scale.stride(0) + g];
            check(s > T(0) && s <= std::numeric_limits<T>::max(), op, "scale", "must be positive and finite",
                  double(s));
        }
}

/// Sums that threads share: one slot for a span of rows, added in order.
inline constexpr index quant_row_spans = 64;

/// Rows of a task: enough work to be worth a call.
inline index rows_per_task(index columns) noexcept {
    return 1 + 16384 / (columns + 1);
}

/// f(span, first row, last row): as quant_row_spans spans of rows, fixed whatever the executor does.
template <class Executor, class F>
void for_each_row_span(index rows, index columns, Executor& executor, F&& f) {
    executor.parallel_for(quant_row_spans, 1 + quant_row_spans * rows_per_task(columns) / (rows + 1),
                          [&](index begin, index end) {
                              for (index s = begin; s < end; ++s)
                                  f(s, rows * s / quant_row_spans, rows * (s + 1) / quant_row_spans);
                          });
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

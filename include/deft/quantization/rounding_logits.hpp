/// \file
/// What lora_rounding and rounding_loss share: the factors of their logits, checked, and the loops over tiles.
#ifndef DEFT_QUANTIZATION_ROUNDING_LOGITS_HPP
#define DEFT_QUANTIZATION_ROUNDING_LOGITS_HPP

#include <deft/kernels/lora_rounding.hpp>
#include <deft/parallel.hpp>
#include <deft/quantization/quant_format.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <type_traits>

namespace deft {

/// The stretched logistic function h(V) = clip(sigma(V) (zeta - gamma) + gamma, 0, 1) of AdaRound.
struct rounding_stretch {
    double zeta = 1.1;
    double gamma = -0.1;
};

inline namespace DEFT_ISA {
namespace detail {

/// V = A1 A2 (+ V0): [rows, rank] times [rank, columns].
template <class T>
struct rounding_logits {
    view<const T, 2> a1, a2, v0;
    kernels::rounding_curve<T> curve;
    kernels::rounding_kind soft; ///< narrow if h saturates where the polynomial ends

    index rows() const noexcept {
        return a1.extent(0);
    }
    index columns() const noexcept {
        return a2.extent(1);
    }
    index rank() const noexcept {
        return a1.extent(1);
    }
    kernels::rounding_factors<T> row(index r) const noexcept {
        return {a1.data() + r * a1.stride(0), a2.data(), v0.is_given() ? v0.data() + r * v0.stride(0) : nullptr,
                a2.stride(0), rank()};
    }
};

template <class T>
rounding_logits<T> checked_logits(const char* op, const view<const T, 2>& a1, const view<const T, 2>& a2,
                                  const view<const T, 2>& v0, const rounding_stretch& stretch) {
    static_assert(std::is_floating_point_v<T>, "deft rounds float and double");
    check(a1.extent(1) >= 1, op, "a1", "its extent 1, the rank, must be at least 1", double(a1.extent(1)));
    check_extent(op, "a2", a2, 0, a1.extent(1), "extent 1 of a1, the rank");
    if (v0.is_given()) {
        check_extent(op, "v0", v0, 0, a1.extent(0), "extent 0 of a1");
        check_extent(op, "v0", v0, 1, a2.extent(1), "extent 1 of a2");
    }
    check(stretch.zeta > 1 && std::isfinite(stretch.zeta), op, "zeta", "must be above 1 and finite", stretch.zeta);
    check(stretch.gamma < 0 && std::isfinite(stretch.gamma), op, "gamma", "must be negative and finite", stretch.gamma);
    const double upper = std::log((1 - stretch.gamma) / (stretch.zeta - 1)),
                 lower = std::log(stretch.zeta / -stretch.gamma);
    // The polynomial's end must lie where h is saturated in T as well.
    const bool narrow = sizeof(T) == sizeof(float) && std::max(upper, lower) < kernels::rounding_narrow_limit - 0.02;
    return {a1,
            a2,
            v0,
            {T(stretch.zeta - stretch.gamma), T(stretch.gamma), T(stretch.zeta + stretch.gamma - 1)},
            narrow ? kernels::rounding_kind::narrow : kernels::rounding_kind::wide};
}

/// f(the kind as a constant).
template <class T, class F>
void with_soft(const rounding_logits<T>& logits, F&& f) {
    using kernels::rounding_kind;
    if constexpr (sizeof(T) == sizeof(float))
        if (logits.soft == rounding_kind::narrow)
            return f(std::integral_constant<rounding_kind, rounding_kind::narrow>{});
    f(std::integral_constant<rounding_kind, rounding_kind::wide>{});
}

/// grad_a1 and grad_a2 of what fill(row, first column, count, to) writes as grad_V, tile by tile; finish(span) after
/// the rows of each span. A serial run makes each tile once; threads make it twice, once for either factor, so that
/// nobody needs memory for partial sums. The order of summation is the same.
template <class T, class Executor, class Fill>
void rounding_factor_gradients(const rounding_logits<T>& logits, const view<T, 2>& grad_a1, const view<T, 2>& grad_a2,
                               Executor& executor, Fill&& fill) {
    using arch = simd::default_arch;
    constexpr index tile_rows = kernels::rounding_tile_rows, tile_columns = kernels::rounding_tile_columns;
    constexpr bool is_serial = std::is_same_v<std::remove_const_t<Executor>, serial_executor>;
    const index rows = logits.rows(), columns = logits.columns(), rank = logits.rank();
    const index blocks = (rows + tile_rows - 1) / tile_rows, panels = (columns + tile_columns - 1) / tile_columns;
    const auto clear = [](const view<T, 2>& m, index begin, index end, index c, index count) {
        for (index r = begin; r < end; ++r)
            std::fill_n(m.data() + r * m.stride(0) + c, count, T(0));
    };
    const auto tile = [&](index span, index block, index panel, auto first, auto second) {
        alignas(64) T grad_v[std::size_t(tile_rows * tile_columns)];
        const index r = block * tile_rows, row_count = std::min(tile_rows, rows - r);
        const index c = panel * tile_columns, count = std::min(tile_columns, columns - c);
        for (index i = 0; i < row_count; ++i)
            fill(span, r + i, c, count, grad_v + i * tile_columns, first);
        if constexpr (first.value)
            kernels::add_grad_a1<arch, T>(grad_v, row_count, count, logits.a2.data() + c, logits.a2.stride(0), rank,
                                          grad_a1.data() + r * grad_a1.stride(0), grad_a1.stride(0));
        if constexpr (second.value)
            kernels::add_grad_a2<arch, T>(grad_v, row_count, count, logits.a1.data() + r * logits.a1.stride(0),
                                          logits.a1.stride(0), rank, grad_a2.data() + c, grad_a2.stride(0));
    };
    if constexpr (is_serial)
        clear(grad_a2, 0, rank, 0, columns);
    executor.parallel_for(
        quant_row_spans, 1 + quant_row_spans * 16384 / (rows * columns + 1), [&](index begin, index end) {
            for (index span = begin; span < end; ++span)
                for (index b = blocks * span / quant_row_spans; b < blocks * (span + 1) / quant_row_spans; ++b) {
                    clear(grad_a1, b * tile_rows, std::min(rows, (b + 1) * tile_rows), 0, rank);
                    for (index p = 0; p < panels; ++p)
                        tile(span, b, p, std::true_type{}, std::bool_constant<is_serial>{});
                }
        });
    if constexpr (!is_serial)
        executor.parallel_for(panels, 1 + 64 / (rows + 1), [&](index begin, index end) {
            for (index p = begin; p < end; ++p) {
                clear(grad_a2, 0, rank, p * tile_columns, std::min(tile_columns, columns - p * tile_columns));
                for (index b = 0; b < blocks; ++b)
                    tile(0, b, p, std::false_type{}, std::true_type{});
            }
        });
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

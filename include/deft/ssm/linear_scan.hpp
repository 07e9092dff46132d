/// \file
/// The first-order linear recurrence under retention, selective scans, moving averages and gated linear networks, and
/// the associative operation that lets it be cut (arXiv:2312.00752, section 3.3.2):
///
///     h_t = a_t h_{t-1} + b_t,   h_0 = h0        the element of a span (a, b): h -> a h + b
///     (a1, b1) then (a2, b2) = (a2 a1, a2 b1 + b2),   identity (1, 0)
///
/// a, b, h: `[T, C]`, rows any distance apart; h0, a_total, b_total: `[C]`. Elements are float or double. In reverse
/// order h0 enters at the last row, h_t uses h_{t+1}, and spans are folded in that order; h_t stands in row t.
///
/// Accuracy in float against double on the same inputs: eps / (1 - a) at worst, with eps the roundings of 2^-24. Closer
/// to 1 than about 1e-3 a float cannot hold 1 - a; give a - 1 itself (expm1 of the exponent) with decay = a_minus_one:
/// 2e-5 for positive inputs however close to 1.
///
/// Cost: three streams of memory. With options.chunk a scan of few columns is cut into spans of rows that threads
/// share; its inputs are then read twice.
#ifndef DEFT_SSM_LINEAR_SCAN_HPP
#define DEFT_SSM_LINEAR_SCAN_HPP

#include <deft/ssm/linear_scan_spans.hpp>

namespace deft {

struct linear_scan_options {
    scan_decay decay = scan_decay::a; ///< what a, a_total and the gradient of a are about
    scan_order order = scan_order::forward;
    index chunk = 0; ///< rows of a span; 0: rows are not cut, threads share columns
};

inline namespace DEFT_ISA {
namespace detail {

/// A row of the state: h0, or zeros.
template <class T>
void start_row(const view<const T, 1>& h0, index c, index columns, T* h) noexcept {
    if (h0.is_given())
        std::copy_n(h0.data() + c, columns, h);
    else
        std::fill_n(h, columns, T(0));
}

template <class A, class V>
void check_scan_row(const char* op, const char* name, const V& row, const A& a) {
    if (row.is_given())
        check_extent(op, name, row, 0, a.extent(1), "extent 1 of a");
}

inline void check_scan_chunk(const char* op, index chunk) {
    check(chunk >= 0, op, "chunk", "must not be negative", double(chunk));
}

/// h of columns [c, c + columns), and their element where it is wanted (not null).
template <bool MinusOne, class T, class Executor>
void scan_block(const view<const T, 2>& a, const view<const T, 2>& b, const view<const T, 1>& h0, const view<T, 2>& h,
                index c, index columns, T* a_total, T* b_total, const linear_scan_options& options,
                Executor& executor) {
    using arch = simd::default_arch;
    T state[std::size_t(scan_columns)];
    start_row(h0, c, columns, state);
    if (a_total != nullptr) {
        std::fill_n(a_total, columns, MinusOne ? T(0) : T(1));
        std::fill_n(b_total, columns, T(0));
    }
    const auto from = [&](const auto& v, index first) { return ordered_rows(v, options.order, first, c); };
    if (options.chunk == 0) {
        if (a_total != nullptr)
            return kernels::scan_states_and_element<arch, MinusOne, T>(from(a, 0), from(b, 0), a.extent(0), columns,
                                                                       state, a_total, b_total, from(h, 0));
        return kernels::scan_states<arch, MinusOne, T>(from(a, 0), from(b, 0), a.extent(0), columns, state, from(h, 0));
    }
    scan_by_spans<MinusOne, T>(
        a.extent(0), options.chunk, columns, false, state, executor,
        [&](index first, index spans) { // before h may overwrite b
            const index begin = first * options.chunk, end = std::min(a.extent(0), begin + spans * options.chunk);
            if (a_total != nullptr)
                kernels::scan_element<arch, MinusOne, T>(from(a, begin), from(b, begin), end - begin, columns, a_total,
                                                         b_total);
        },
        [&](index first, index rows, T* span_a, T* span_b) {
            kernels::scan_element<arch, MinusOne, T>(from(a, first), from(b, first), rows, columns, span_a, span_b);
        },
        [&](index first, index rows, index, T* start) {
            kernels::scan_states<arch, MinusOne, T>(from(a, first), from(b, first), rows, columns, start,
                                                    from(h, first));
        });
}

} // namespace detail

/// h, and the element of the whole span without h0 into a_total and b_total (absent: not wanted).
///
/// h may be b; h0 may be absent: zeros. Throws std::invalid_argument before anything is written if shapes do not fit,
/// only one of the totals is given, or chunk is negative. T = 0 gives the element (1, 0). Zero, negative and large a
/// are IEEE arithmetic; products of decays that underflow to 0 are right. The same bits for every executor; a chunk
/// changes roundings.
template <class T = void, class H = view<T, 2>, executor Executor = serial_executor>
void linear_scan(in<element_t<T, H>, 2> a, in<element_t<T, H>, 2> b, in<element_t<T, H>, 1> h0, H&& h_out,
                 out<element_t<T, H>, 1> a_total, out<element_t<T, H>, 1> b_total,
                 const linear_scan_options& options = {}, Executor&& executor = Executor()) {
    using S = element_t<T, H>;
    static_assert(std::is_floating_point_v<S>, "linear_scan takes float or double");
    const view<S, 2> h(h_out);
    const char* const op = "linear_scan";
    detail::check_same_shape(op, "b", b, "a", a);
    detail::check_same_shape(op, "h", h, "a", a);
    detail::check_scan_row(op, "h0", h0, a);
    detail::check_scan_row(op, "a_total", a_total, a);
    detail::check_scan_row(op, "b_total", b_total, a);
    detail::check(a_total.is_given() == b_total.is_given(), op, "b_total", "must be given (1) together with a_total",
                  b_total.is_given());
    detail::check_scan_chunk(op, options.chunk);
    detail::with_decay(options.decay, [&](auto minus_one) {
        detail::for_each_column_block(a.extent(1), options.chunk > 0, executor, [&](index c, index columns) {
            S* const to_a = a_total.is_given() ? a_total.data() + c : nullptr;
            S* const to_b = b_total.is_given() ? b_total.data() + c : nullptr;
            detail::scan_block<minus_one.value, S>(a, b, h0, h, c, columns, to_a, to_b, options, executor);
        });
    });
}

/// Gradients of linear_scan for the cotangent grad_h of h, l_t its adjoint:
///
///     l_t = grad_h_t + a_{t+1} l_{t+1}        grad_a_t = l_t h_{t-1}        grad_b_t = l_t        grad_h0 = a_1 l_1
///
/// a, b, h0: inputs of the forward call; h is computed again, into grad_a. grad_h0 may be absent. Outputs may not
/// overlap inputs. Throws like linear_scan. The same bits for every executor.
template <class T = void, class GA = view<T, 2>, executor Executor = serial_executor>
void linear_scan_backward(in<element_t<T, GA>, 2> a, in<element_t<T, GA>, 2> b, in<element_t<T, GA>, 1> h0,
                          in<element_t<T, GA>, 2> grad_h, GA&& grad_a_out, out<element_t<T, GA>, 2> grad_b,
                          out<element_t<T, GA>, 1> grad_h0, const linear_scan_options& options = {},
                          Executor&& executor = Executor()) {
    using S = element_t<T, GA>;
    using arch = simd::default_arch;
    const view<S, 2> grad_a(grad_a_out);
    const char* const op = "linear_scan_backward";
    detail::check_same_shape(op, "b", b, "a", a);
    detail::check_scan_row(op, "h0", h0, a);
    detail::check_same_shape(op, "grad_h", grad_h, "a", a);
    detail::check_same_shape(op, "grad_a", grad_a, "a", a);
    detail::check_same_shape(op, "grad_b", grad_b, "a", a);
    detail::check_scan_row(op, "grad_h0", grad_h0, a);
    detail::check_scan_chunk(op, options.chunk);
    const index tokens = a.extent(0), chunk = options.chunk;
    const auto block = [&](auto decay, index c, index columns) {
        constexpr bool minus_one = decltype(decay)::value;
        detail::scan_block<minus_one, S>(a, b, h0, grad_a, c, columns, nullptr, nullptr, options, executor);
        S m[std::size_t(detail::scan_columns)] = {}, start[std::size_t(detail::scan_columns)];
        detail::start_row(h0, c, columns, start);
        const auto from = [&](const auto& v, index first) { return detail::ordered_rows(v, options.order, first, c); };
        const auto adjoint = [&](index first, index rows, const S* before, S* state) {
            kernels::scan_adjoint<arch, minus_one, S>(from(a, first), from(grad_h, first), rows, columns, before, state,
                                                      from(grad_a, first), from(grad_b, first));
        };
        if (chunk == 0) {
            adjoint(0, tokens, start, m);
        } else {
            S before[std::size_t(detail::scan_spans)][std::size_t(detail::scan_span_columns)];
            index first_span = 0;
            detail::scan_by_spans<minus_one, S>(
                tokens, chunk, columns, true, m, executor,
                [&](index first, index spans) { // h before each span, which its neighbour is about to overwrite
                    first_span = first;
                    for (index s = 0; s < spans; ++s)
                        std::copy_n(first + s == 0 ? start : from(grad_a, (first + s) * chunk - 1).data, columns,
                                    before[s]);
                },
                [&](index first, index rows, S* span_a, S* span_m) {
                    kernels::scan_adjoint_element<arch, minus_one, S>(from(a, first), from(grad_h, first), rows,
                                                                      columns, span_a, span_m);
                },
                [&](index first, index rows, index span, S* state) {
                    adjoint(first, rows, before[span - first_span], state);
                });
        }
        if (grad_h0.is_given())
            std::copy_n(m, columns, grad_h0.data() + c);
    };
    detail::with_decay(options.decay, [&](auto minus_one) {
        detail::for_each_column_block(a.extent(1), chunk > 0, executor,
                                      [&](index c, index columns) { block(minus_one, c, columns); });
    });
}

} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// The fold of K elements of linear scans in order, and what comes before each of them: how spans of a sequence that
/// threads or machines have scanned from zero meet (arXiv:2312.00752, section 3.3.2):
///
///     (a1, b1) then (a2, b2) = (a2 a1, a2 b1 + b2),   identity (1, 0)
///
/// a, b, prefix_a, prefix_b: `[K, C]`, K >= 1; a_total, b_total: `[C]`. Row k of the prefixes is the fold of the
/// elements before k, row 0 the identity: the state of span k starts at prefix_a h0 + prefix_b. Elements are float or
/// double.
#ifndef DEFT_SSM_SCAN_COMBINE_HPP
#define DEFT_SSM_SCAN_COMBINE_HPP

#include <deft/ssm/linear_scan_spans.hpp>

namespace deft {

struct scan_combine_options {
    scan_decay decay = scan_decay::a; ///< what a, a_total, prefix_a and the gradient of a are about
};

inline namespace DEFT_ISA {
namespace detail {

template <class A, class B>
void check_elements(const char* op, const A& a, const B& b) {
    check(a.extent(0) >= 1, op, "a", "spans, its extent 0, must be at least 1", double(a.extent(0)));
    check_same_shape(op, "b", b, "a", a);
}

} // namespace detail

/// The totals and the prefixes; formulas and shapes at the top of this file.
///
/// The prefixes may be a and b. Throws std::invalid_argument before anything is written if shapes do not fit or K = 0.
/// The same bits for every executor.
template <class T = void, class A = view<T, 1>, executor Executor = serial_executor>
void scan_combine(in<element_t<T, A>, 2> a, in<element_t<T, A>, 2> b, A&& a_total_out, out<element_t<T, A>, 1> b_total,
                  out<element_t<T, A>, 2> prefix_a, out<element_t<T, A>, 2> prefix_b,
                  const scan_combine_options& options = {}, Executor&& executor = Executor()) {
    using S = element_t<T, A>;
    const view<S, 1> a_total(a_total_out);
    const char* const op = "scan_combine";
    detail::check_elements(op, a, b);
    detail::check_extent(op, "a_total", a_total, 0, a.extent(1), "extent 1 of a");
    detail::check_extent(op, "b_total", b_total, 0, a.extent(1), "extent 1 of a");
    detail::check_same_shape(op, "prefix_a", prefix_a, "a", a);
    detail::check_same_shape(op, "prefix_b", prefix_b, "a", a);
    detail::with_decay(options.decay, [&](auto minus_one) {
        detail::for_each_column_block(a.extent(1), false, executor, [&](index c, index columns) {
            const auto from = [&](const auto& v) { return detail::ordered_rows(v, scan_order::forward, 0, c); };
            std::fill_n(a_total.data() + c, columns, minus_one.value ? S(0) : S(1));
            std::fill_n(b_total.data() + c, columns, S(0));
            kernels::scan_prefixes<simd::default_arch, minus_one.value, S>(from(a), from(b), a.extent(0), columns,
                                                                           a_total.data() + c, b_total.data() + c,
                                                                           from(prefix_a), from(prefix_b));
        });
    });
}

/// Gradients of the totals of scan_combine for their cotangents, with (A_k, B_k) the prefix of element k and S_k the
/// product of the decays behind it:
///
///     grad_a_k = S_k (grad_a_total A_k + grad_b_total B_k)        grad_b_k = S_k grad_b_total
///
/// Outputs may not overlap inputs. Throws like scan_combine. The same bits for every executor.
template <class T = void, class GA = view<T, 2>, executor Executor = serial_executor>
void scan_combine_backward(in<element_t<T, GA>, 2> a, in<element_t<T, GA>, 2> b, in<element_t<T, GA>, 1> grad_a_total,
                           in<element_t<T, GA>, 1> grad_b_total, GA&& grad_a_out, out<element_t<T, GA>, 2> grad_b,
                           const scan_combine_options& options = {}, Executor&& executor = Executor()) {
    using S = element_t<T, GA>;
    using arch = simd::default_arch;
    const view<S, 2> grad_a(grad_a_out);
    const char* const op = "scan_combine_backward";
    detail::check_elements(op, a, b);
    detail::check_extent(op, "grad_a_total", grad_a_total, 0, a.extent(1), "extent 1 of a");
    detail::check_extent(op, "grad_b_total", grad_b_total, 0, a.extent(1), "extent 1 of a");
    detail::check_same_shape(op, "grad_a", grad_a, "a", a);
    detail::check_same_shape(op, "grad_b", grad_b, "a", a);
    detail::with_decay(options.decay, [&](auto minus_one) {
        detail::for_each_column_block(a.extent(1), false, executor, [&](index c, index columns) {
            const auto from = [&](const auto& v) { return detail::ordered_rows(v, scan_order::forward, 0, c); };
            S total_a[std::size_t(detail::scan_columns)], total_b[std::size_t(detail::scan_columns)] = {};
            std::fill_n(total_a, columns, minus_one.value ? S(0) : S(1));
            kernels::scan_prefixes<arch, minus_one.value, S>(from(a), from(b), a.extent(0), columns, total_a, total_b,
                                                             from(grad_a), from(grad_b));
            std::fill_n(total_a, columns, S(1));
            kernels::scan_prefixes_adjoint<arch, minus_one.value, S>(from(a), a.extent(0), columns,
                                                                     grad_a_total.data() + c, grad_b_total.data() + c,
                                                                     total_a, from(grad_a), from(grad_b));
        });
    });
}

} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// How linear_scan and its gradient are cut: into blocks of columns, and a long scan of few columns also into spans of
/// rows.
#ifndef DEFT_SSM_LINEAR_SCAN_SPANS_HPP
#define DEFT_SSM_LINEAR_SCAN_SPANS_HPP

#include <deft/kernels/linear_scan.hpp>
#include <deft/parallel.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <type_traits>

namespace deft {

/// What the input a of a scan is.
enum class scan_decay : unsigned char {
    a,          ///< the decay itself
    a_minus_one ///< the decay less 1, as of expm1: exact however close to 1 the decay is
};

enum class scan_order : unsigned char { forward, reverse };

inline namespace DEFT_ISA {
namespace detail {

/// Columns of a block, the least of a task, and those of a scan that is cut into spans, whose elements are kept between
/// the phases, for some spans at a time.
inline constexpr index scan_columns = kernels::scan_most_columns, scan_task_columns = 256, scan_span_columns = 64,
                       scan_spans = 32;

/// Columns [c, ...) of the rows of v in the order of the scan, from row `first` of that order on.
template <class E>
kernels::scan_rows<E> ordered_rows(const view<E, 2>& v, scan_order order, index first, index c) noexcept {
    if (v.data() == nullptr)
        return {nullptr, 0};
    const bool reverse = order == scan_order::reverse;
    return {v.data() + (reverse ? v.extent(0) - 1 - first : first) * v.stride(0) + c,
            reverse ? -v.stride(0) : v.stride(0)};
}

/// f(std::bool_constant<MinusOne>).
template <class F>
void with_decay(scan_decay decay, F&& f) {
    if (decay == scan_decay::a_minus_one)
        f(std::true_type{});
    else
        f(std::false_type{});
}

/// f(first column, columns) for blocks of columns; in the calling thread if rows are cut too.
template <class Executor, class F>
void for_each_column_block(index columns, bool spans, Executor& executor, F&& f) {
    const auto run = [&](index begin, index end, index most) {
        for (index c = begin; c < end; c += most)
            f(c, std::min(most, end - c));
    };
    if (spans)
        run(0, columns, scan_span_columns);
    else
        executor.parallel_for((columns + scan_task_columns - 1) / scan_task_columns, 1, [&](index begin, index end) {
            run(begin * scan_task_columns, std::min(end * scan_task_columns, columns), scan_columns);
        });
}

/// A scan over `tokens` rows of a few columns in spans of `chunk` rows. In groups of spans: the element of every span
/// in parallel, `element(first, rows, a, b)`; their fold in order, which gives each its state; the states of every span
/// in parallel, `states(first, rows, h)`. `backwards` takes groups and spans from the last to the first. h is the state
/// at the start and at the end; `before_group(first span, spans)` is called before a group.
template <bool MinusOne, class T, class Executor, class BeforeGroup, class Element, class States>
void scan_by_spans(index tokens, index chunk, index columns, bool backwards, T* h, Executor& executor,
                   BeforeGroup&& before_group, Element&& element, States&& states) {
    const index spans = (tokens + chunk - 1) / chunk, groups = (spans + scan_spans - 1) / scan_spans;
    const auto rows_of = [&](index span) { return std::min(chunk, tokens - span * chunk); };
    T a[std::size_t(scan_spans)][std::size_t(scan_span_columns)],
        b[std::size_t(scan_spans)][std::size_t(scan_span_columns)];
    for (index g = 0; g < groups; ++g) {
        const index first = (backwards ? groups - 1 - g : g) * scan_spans, count = std::min(scan_spans, spans - first);
        before_group(first, count);
        executor.parallel_for(count, 1, [&](index begin, index end) {
            for (index s = begin; s < end; ++s) {
                std::fill_n(a[s], columns, MinusOne ? T(0) : T(1));
                std::fill_n(b[s], columns, T(0));
                element((first + s) * chunk, rows_of(first + s), a[s], b[s]);
            }
        });
        for (index i = 0; i < count; ++i) {
            const index s = backwards ? count - 1 - i : i;
            for (index c = 0; c < columns; ++c) {
                const T start = h[c], through = a[s][c] * start;
                h[c] = MinusOne ? start + (through + b[s][c]) : through + b[s][c];
                b[s][c] = start;
            }
        }
        executor.parallel_for(count, 1, [&](index begin, index end) {
            for (index s = begin; s < end; ++s)
                states((first + s) * chunk, rows_of(first + s), first + s, b[s]);
        });
    }
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// How operators share work over threads: an executor that the caller passes, serial by default.
///
/// An executor has `parallel_for(n, grain, f)`: it calls `f(begin, end)` on ranges that together cover [0, n) once, in
/// any order, on any threads, and returns when all calls have returned. `grain` is the least number of items worth a
/// call of its own. Operators give the same bits for every executor and every way of cutting the range.
/// Adapters: deft/parallel_openmp.hpp; any other pool needs only this one function.
#ifndef DEFT_PARALLEL_HPP
#define DEFT_PARALLEL_HPP

#include <deft/config.hpp>

#include <concepts>
#include <type_traits>

namespace deft {

template <class E>
concept executor = requires(std::remove_reference_t<E>& e, void (*f)(index, index)) {
    e.parallel_for(index{0}, index{1}, f);
};

/// Runs everything in the calling thread, in one call.
struct serial_executor {
    template <class F>
    DEFT_ALWAYS_INLINE void parallel_for(index n, index /*grain*/, F&& f) const {
        if (n > 0)
            f(index{0}, n);
    }
};

inline namespace DEFT_ISA {
namespace detail {

// Cuts an elementwise operator over rows x channels into tasks: calls f(row, first channel, number of channels).
// flat: the rows touch and all channels are alike, so that everything is one row. (Several rows for a block of channels
// at a time, whose parameters would stay in the first cache, were slower: memory is read in pieces too short.)
template <class Executor, class F>
void for_each_piece(index row_count, index channels, bool flat, Executor& executor, F&& f) {
    constexpr index least_task = 16384; // elements; some microseconds of work, more than waking a thread costs
    if (flat)
        executor.parallel_for(row_count * channels, least_task,
                              [&](index begin, index end) { f(index{0}, begin, end - begin); });
    else
        executor.parallel_for(row_count, least_task / (channels + 1) + 1, [&](index begin, index end) {
            for (index r = begin; r < end; ++r)
                f(r, index{0}, channels);
        });
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

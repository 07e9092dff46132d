/// \file
/// The largest magnitudes of many tensors under one count, without a sort and without a copy of the tensors.
#ifndef DEFT_PRUNING_SELECT_LARGEST_HPP
#define DEFT_PRUNING_SELECT_LARGEST_HPP

#include <deft/kernels/select_magnitudes.hpp>
#include <deft/pruning/bit_mask.hpp>

#include <algorithm>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace detail {

/// f(pointer, count, position of the first) for the runs of neighbours of a matrix, in order.
template <class T, class F>
void for_each_run(const view<const T, 2>& x, F&& f) {
    const index rows = x.extent(0), columns = x.extent(1);
    if (x.size() == 0)
        return;
    if (rows == 1 || x.stride(0) == columns)
        return f(x.data(), rows * columns, index{0});
    for (index r = 0; r < rows; ++r)
        f(x.data() + r * x.stride(0), columns, r * columns);
}

/// Finds thresholds; owns the tables that it counts in.
template <class T>
class magnitude_selector {
public:
    /// The threshold that keeps the `count` largest of all layers, at most as many as there are. Elements whose bit in
    /// `skip` is 1 do not take part; it is for a single layer. False, and `result` is not set, if there is a NaN.
    bool find(std::span<const view<const T, 2>> layers, index count, kernels::magnitude_threshold<T>& result,
              const std::uint64_t* skip = nullptr) {
        using key = kernels::magnitude_key<T>;
        int shift = int(sizeof(T)) * 8 - 1 - kernels::first_digit;
        bool has_nan = false;
        start();
        for (const view<const T, 2>& layer : layers)
            for_each_run(layer, [&](const T* x, index n, index first) {
                in_pieces(x, n, first, [&](const T* from, index m, index at) {
                    has_nan |= kernels::count_first_digit(from, m, skip, at, table_.data());
                });
            });
        flush(2);
        if (has_nan)
            return false;
        result = {std::numeric_limits<key>::max(), 0};
        if (count <= 0)
            return true;
        key prefix = 0;
        for (;;) {
            index digit = index(totals_.size()) - 1;
            for (; digit > 0 && index(totals_[std::size_t(digit)]) < count; --digit)
                count -= index(totals_[std::size_t(digit)]);
            const bool all_of_digit = index(totals_[std::size_t(digit)]) == count;
            prefix = key(prefix << kernels::next_digit) | key(digit);
            if (shift == 0) {
                result = {prefix, count};
                return true;
            }
            if (all_of_digit && prefix != 0) { // every key from here on is kept, whatever digits follow
                result = {key((prefix << shift) - 1), 0};
                return true;
            }
            shift -= kernels::next_digit;
            start();
            for (const view<const T, 2>& layer : layers)
                for_each_run(layer, [&](const T* x, index n, index first) {
                    in_pieces(x, n, first, [&](const T* from, index m, index at) {
                        kernels::count_next_digit(from, m, skip, at, shift, prefix, table_.data());
                    });
                });
            flush(1);
        }
    }

private:
    void start() {
        totals_.assign(std::size_t(kernels::digit_values), 0);
        table_.assign(std::size_t(kernels::digit_values), 0);
        pending_ = 0;
    }
    // Counters of 32 bits, two tables of which fit the second cache, are added up before they can overflow.
    template <class F>
    void in_pieces(const T* x, index n, index first, F&& f) {
        constexpr index most = index(1) << 30;
        for (index i = 0; i < n; i += most) {
            const index m = std::min(most, n - i);
            if (pending_ + m > index(1) << 31) {
                for (std::size_t d = 0; d < table_.size(); ++d)
                    totals_[d] += std::uint64_t(std::exchange(table_[d], 0u));
                pending_ = 0;
            }
            f(x + i, m, first + i);
            pending_ += m;
        }
    }
    /// The counters into the totals; neighbours belong to one digit if there are two tables.
    void flush(std::size_t tables) {
        for (std::size_t d = 0; d < table_.size(); ++d)
            totals_[d] += std::uint64_t(table_[d]);
        if (tables == 2) {
            for (std::size_t d = 0; d < totals_.size() / 2; ++d)
                totals_[d] = totals_[2 * d] + totals_[2 * d + 1];
            totals_.resize(totals_.size() / 2);
        }
    }

    std::vector<std::uint32_t> table_;
    std::vector<std::uint64_t> totals_;
    index pending_ = 0;
};

/// mask = the elements that the threshold keeps; its ties are counted down.
template <class T>
void mark_largest(const view<const T, 2>& layer, kernels::magnitude_threshold<T>& threshold,
                  const view<std::uint64_t, 1>& mask, const std::uint64_t* skip = nullptr) {
    for (index w = 0; w < mask.extent(0); ++w)
        mask(w) = 0;
    for_each_run(layer, [&](const T* x, index n, index first) {
        kernels::mark_magnitudes<simd::default_arch>(x, n, skip, first, threshold, mask.data());
    });
}

/// sparsity times the number of scores, half integers to even.
inline index pruned_count(double sparsity, index size) noexcept {
    const double exact = sparsity * double(size), below = double(index(exact));
    const index whole = index(exact);
    const double rest = exact - below;
    return rest > 0.5 || (rest == 0.5 && whole % 2 == 1) ? whole + 1 : whole;
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

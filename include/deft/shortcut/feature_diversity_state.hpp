/// \file
/// feature_diversity of rows that come in blocks, in O(d) memory: sequences too long to keep, or kept elsewhere.
#ifndef DEFT_SHORTCUT_FEATURE_DIVERSITY_STATE_HPP
#define DEFT_SHORTCUT_FEATURE_DIVERSITY_STATE_HPP

#include <deft/shortcut/feature_diversity.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {

/// Number of rows, their mean, and the sum of squared distances from it (Chan's update), in double.
///
///     deft::feature_diversity_state<float> state(d);
///     for (...) state.add(block);                      // [rows, d], any number of rows, also none
///     double value = state.value({.normalize = deft::diversity_norm::frobenius});
///
/// The value is that of feature_diversity over all rows, to rounding, however they are cut; 0 exactly while all are
/// equal. States of parts of a sequence can be merged. A copy is a snapshot. Squares of float entries neither overflow
/// nor vanish; double entries must have squares in the range of double. Only the constructor allocates.
template <class T>
class feature_diversity_state {
public:
    explicit feature_diversity_state(index features)
        : origin_(std::size_t(checked(features))), offset_(std::size_t(features)) {}

    /// Back to no rows.
    void reset() noexcept {
        count_ = 0;
        spread_ = 0;
        std::fill(offset_.begin(), offset_.end(), 0.0);
    }

    /// Throws std::invalid_argument if `block` does not have d columns.
    void add(in<T, 2> block) {
        detail::check_extent("feature_diversity_state", "block", block, 1, features(), "features of the state");
        const index rows = block.extent(0), columns = features();
        if (rows == 0)
            return;
        if (count_ == 0)
            std::copy_n(block.data(), columns, origin_.begin());
        for (index c = 0; c < columns; c += kernels::spread_chunk) {
            const index n = std::min(kernels::spread_chunk, columns - c);
            const T *const from = block.data() + c, *const origin = origin_.data() + c;
            double offset[std::size_t(kernels::spread_chunk)];
            kernels::column_offsets(from, block.stride(0), rows, n, origin, 1.0, offset);
            const double spread = kernels::spread_about(from, block.stride(0), rows, n, origin, 1.0, offset);
            merge_columns(c, n, rows, spread, [&](index i) { return offset[i]; });
        }
        count_ += rows;
    }

    /// As if the rows of `other` had been added. Throws std::invalid_argument if it has another number of features.
    void merge(const feature_diversity_state& other) {
        const view<const T, 1> theirs(other.origin_);
        detail::check_extent("feature_diversity_state", "other", theirs, 0, features(), "features of the state");
        if (other.count_ == 0)
            return;
        if (count_ == 0) {
            *this = other; // of the same size: does not allocate
            return;
        }
        merge_columns(0, features(), other.count_, other.spread_, [&](index i) {
            return (double(other.origin_[std::size_t(i)]) - double(origin_[std::size_t(i)])) +
                   other.offset_[std::size_t(i)];
        });
        count_ += other.count_;
    }

    /// Throws std::invalid_argument if there are no rows yet.
    double value(const feature_diversity_options& options = {}) const {
        detail::check_diversity_rows<T>("feature_diversity_state", "count", count_);
        double mean_square = 0;
        for (index c = 0; c < features(); ++c)
            mean_square += mean(c) * mean(c);
        return detail::matrix_diversity{std::sqrt(spread_), std::sqrt(spread_ + double(count_) * mean_square), 1.0}
            .value(options.normalize);
    }

    index features() const noexcept {
        return index(origin_.size());
    }
    index count() const noexcept {
        return count_;
    }
    /// Mean of feature `c` over the rows so far.
    double mean(index c) const noexcept {
        return double(origin_[std::size_t(c)]) + offset_[std::size_t(c)];
    }
    /// Sum of squared distances from the mean row.
    double spread() const noexcept {
        return spread_;
    }

private:
    static index checked(index features) {
        detail::check(features >= 0, "feature_diversity_state", "features", "must not be negative", double(features));
        return features;
    }

    // `rows` more rows with the given spread about mean origin + offset(i) in columns c + i.
    template <class Offset>
    void merge_columns(index c, index n, index rows, double spread, Offset&& offset) noexcept {
        const double into_mean = double(rows) / double(count_ + rows), into_spread = double(count_) * into_mean;
        for (index i = 0; i < n; ++i) {
            double& mine = offset_[std::size_t(c + i)];
            const double delta = offset(i) - mine;
            spread += delta * delta * into_spread;
            mine += delta * into_mean;
        }
        spread_ += spread;
    }

    std::vector<T> origin_; // the first row ever added; means are relative to it
    std::vector<double> offset_;
    double spread_ = 0;
    index count_ = 0;
};

} // namespace DEFT_ISA
} // namespace deft

#endif

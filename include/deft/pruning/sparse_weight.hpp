/// \file
/// A pruned weight made ready for sparse_matmul: packed once, run many times.
///
///     deft::sparse_weight<float> w(dense);                       // entries that are not 0, as CSR
///     deft::sparse_weight<float> w(dense, mask, {.backward = true});
///     w.set(dense);                                              // new values, same entries: a step of training
///     deft::sparse_matmul(w, x, bias, y, {.layout = deft::sparse_layout::cn});
///
/// Formats: `csr` for any mask; `bcsr` for masks of blocks, whose rows share the loads of the dense operand; `nm`, N of
/// every M, which is checked when packed and runs as csr without the zeros that fill it up. A weight with
/// `backward` also holds its transpose, for gradients.
#ifndef DEFT_PRUNING_SPARSE_WEIGHT_HPP
#define DEFT_PRUNING_SPARSE_WEIGHT_HPP

#include <deft/pruning/sparse_engine.hpp>

#include <algorithm>
#include <utility>
#include <vector>

namespace deft {

enum class sparse_format : unsigned char { csr, bcsr, nm };

struct sparse_packing {
    sparse_format format = sparse_format::csr;
    index block_rows = 1, block_columns = 1; ///< bcsr
    index n = 1, m = 1;                      ///< nm
    bool backward = false;                   ///< the transpose too, which sparse_matmul_backward needs
};

inline namespace DEFT_ISA {

/// A weight W [rows, columns] that is run by sparse_matmul. A copy is independent; any number of calls may use one
/// object at a time.
template <class T>
class sparse_weight {
public:
    /// Of the entries of a dense weight that are kept: those that are not 0, or those of the mask (bit_mask.hpp).
    /// Throws std::invalid_argument if the mask, blocks or groups do not fit; see sparse_formats.hpp.
    explicit sparse_weight(in<T, 2> dense, in<std::uint64_t, 1> mask = absent, const sparse_packing& packing = {}) {
        if (packing.format == sparse_format::nm)
            static_cast<void>(to_nm<T>(dense, packing.n, packing.m, mask));
        if (packing.format == sparse_format::bcsr)
            set_blocks(to_bcsr<T>(dense, packing.block_rows, packing.block_columns, mask));
        csr_matrix<T> entries = to_csr<T>(dense, mask);
        stored_ = index(entries.values.size());
        if (packing.backward || engine_.has_blocks())
            kept_ = detail::make_engine(detail::transposed(entries));
        if (packing.format != sparse_format::bcsr)
            engine_ = detail::make_engine(std::move(entries));
        has_backward_ = packing.backward;
    }

    /// Of packed arrays, for products only. Throws std::invalid_argument if pointers do not ascend to the number of
    /// entries, indices lie outside or do not ascend in a row, or sizes do not fit. Explicit zeros are entries.
    explicit sparse_weight(csr_matrix<T> w) {
        const char* const op = "sparse_weight";
        detail::check_compressed(op, w.row_ptr, "row_ptr", w.col_idx, "col_idx", w.rows, w.columns);
        detail::check_count(op, "values", w.values.size(), index(w.col_idx.size()));
        stored_ = index(w.values.size());
        engine_ = detail::make_engine(std::move(w));
    }
    explicit sparse_weight(bcsr_matrix<T> w) {
        const char* const op = "sparse_weight";
        detail::check(w.block_rows >= 1, op, "block_rows", "must be at least 1", double(w.block_rows));
        detail::check(w.block_columns >= 1, op, "block_columns", "must be at least 1", double(w.block_columns));
        detail::check_compressed(op, w.block_ptr, "block_ptr", w.block_col, "block_col",
                                 (w.rows + w.block_rows - 1) / w.block_rows,
                                 (w.columns + w.block_columns - 1) / w.block_columns);
        detail::check_count(op, "values", w.values.size(), index(w.block_col.size()) * w.block_rows * w.block_columns);
        stored_ = index(w.values.size());
        set_blocks(std::move(w));
    }
    /// Slots that hold 0 are not entries.
    explicit sparse_weight(const nm_matrix<T>& w) : sparse_weight(to_entries(w)) {}

    /// Other values of the same entries; `dense` is read where they are. Throws std::invalid_argument if its shape is
    /// not that of the weight, or the weight was built from packed blocks. Does not allocate.
    void set(in<T, 2> dense) {
        const char* const op = "sparse_weight";
        detail::check_extent(op, "dense", dense, 0, rows(), "rows of the weight");
        detail::check_extent(op, "dense", dense, 1, columns(), "columns of the weight");
        for (index c = 0; c < kept_.row_count(); ++c)
            for (index k = kept_.begin_of(c); k < kept_.begin_of(c + 1); ++k)
                kept_.values[std::size_t(k)] = dense(kept_.columns[std::size_t(k)], c);
        if (engine_.has_blocks())
            return set_block_values();
        for (index r = 0; r < rows(); ++r)
            for (index k = engine_.begin_of(r); k < engine_.begin_of(r + 1); ++k)
                engine_.values[std::size_t(k)] = dense(r, engine_.columns[std::size_t(k)]);
    }

    index rows() const noexcept {
        return engine_.row_count();
    }
    index columns() const noexcept {
        return engine_.column_count();
    }
    /// Entries kept; of packed blocks, all they hold.
    index stored() const noexcept {
        return stored_;
    }
    bool has_backward() const noexcept {
        return has_backward_;
    }

    const detail::sparse_engine<T>& engine() const noexcept {
        return engine_;
    }
    /// The transpose, entries only.
    const detail::sparse_engine<T>& transposed_engine() const noexcept {
        return kept_;
    }

private:
    void set_blocks(bcsr_matrix<T> w) {
        constexpr index most = detail::sparse_engine<T>::most_block;
        const char* const op = "sparse_weight";
        detail::check(w.block_rows <= most, op, "block_rows", "too many to be run as blocks", double(w.block_rows));
        detail::check(w.block_columns <= most, op, "block_columns", "too many to be run as blocks",
                      double(w.block_columns));
        block_rows_ = w.block_rows;
        block_columns_ = w.block_columns;
        engine_ = {
            w.rows, w.columns, w.block_rows, w.block_columns, w.block_ptr, std::move(w.block_col), std::move(w.values)};
    }
    /// Blocks from the entries of the transpose: what lies beside them stays 0.
    void set_block_values() {
        detail::check(kept_.row_count() == columns(), "sparse_weight", "dense",
                      "not for a weight of packed blocks, whose padding is unknown", double(columns()));
        for (index c = 0; c < columns(); ++c)
            for (index k = kept_.begin_of(c); k < kept_.begin_of(c + 1); ++k) {
                const index r = kept_.columns[std::size_t(k)], b = r / block_rows_;
                const auto first = engine_.columns.begin() + engine_.begin_of(b);
                const auto last = engine_.columns.begin() + engine_.begin_of(b + 1);
                const index block = std::lower_bound(first, last, c / block_columns_) - engine_.columns.begin();
                engine_.values[std::size_t((block * block_rows_ + r % block_rows_) * block_columns_ +
                                           c % block_columns_)] = kept_.values[std::size_t(k)];
            }
    }
    static csr_matrix<T> to_entries(const nm_matrix<T>& w) {
        const char* const op = "sparse_weight";
        detail::check(w.m >= 1, op, "m", "must be at least 1", double(w.m));
        detail::check(w.n >= 0 && w.n <= w.m, op, "n", "must lie in [0, m]", double(w.n));
        const index groups = (w.columns + w.m - 1) / w.m;
        detail::check_count(op, "values", w.values.size(), w.rows * groups * w.n);
        detail::check_count(op, "offset", w.offset.size(), w.rows * groups * w.n);
        csr_matrix<T> result{w.rows, w.columns, {0}, {}, {}};
        for (index r = 0; r < w.rows; ++r) {
            for (index slot = r * groups * w.n; slot < (r + 1) * groups * w.n; ++slot) {
                const std::int32_t offset = w.offset[std::size_t(slot)];
                detail::check(offset >= 0 && offset < w.m, op, "offset", "must lie in [0, m)", double(offset));
                if (w.values[std::size_t(slot)] == T(0))
                    continue;
                result.col_idx.push_back(std::int32_t((slot / w.n % groups) * w.m + offset));
                result.values.push_back(w.values[std::size_t(slot)]);
            }
            result.row_ptr.push_back(index(result.values.size()));
        }
        return result;
    }

    detail::sparse_engine<T> engine_, kept_;
    index stored_ = 0, block_rows_ = 1, block_columns_ = 1;
    bool has_backward_ = false;
};

} // namespace DEFT_ISA
} // namespace deft

#endif

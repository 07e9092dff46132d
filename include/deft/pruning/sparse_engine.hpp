/// \file
/// How products of sparse weights run: rows cut into segments of columns and chunks of rows, tiles of the dense operand
/// packed where that pays. What sparse_weight is made of.
#ifndef DEFT_PRUNING_SPARSE_ENGINE_HPP
#define DEFT_PRUNING_SPARSE_ENGINE_HPP

#include <deft/kernels/sparse_blocks.hpp>
#include <deft/kernels/sparse_tokens.hpp>
#include <deft/parallel.hpp>
#include <deft/pruning/sparse_formats.hpp>

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace detail {

/// Sparse rows, or rows of blocks, cut into segments and chunks, and how a product runs over them.
template <class T>
class sparse_engine {
    using arch = simd::default_arch;

public:
    sparse_engine() = default;

    /// Rows of blocks of block_rows x block_columns; 1 x 1 is CSR.
    sparse_engine(index m, index n, index block_rows, index block_columns, const std::vector<index>& pointers,
                  std::vector<std::int32_t> entry_columns, std::vector<T> entry_values)
        : values(std::move(entry_values)), columns(std::move(entry_columns)), rows_(m), columns_(n),
          block_rows_(block_rows), block_columns_(block_columns) {
        cut_columns();
        cut_rows(pointers);
    }

    index row_count() const noexcept {
        return rows_;
    }
    index column_count() const noexcept {
        return columns_;
    }
    bool has_blocks() const noexcept {
        return block_rows_ != 1 || block_columns_ != 1;
    }
    index begin_of(index row) const noexcept {
        return bounds_[std::size_t(row * segments())];
    }
    kernels::sparse_rows<T> entries() const noexcept {
        return {values.data(), columns.data(), bounds_.data(), segments()};
    }

    /// y = W x, x [columns, n].
    template <class Executor>
    void multiply(const view<const T, 2>& x, const kernels::sparse_finish<T>& finish, const view<T, 2>& y,
                  Executor& executor) const {
        constexpr index width = simd::lanes<T, arch>, panel = kernels::sparse_panel<arch, T>;
        const index n = x.extent(1);
        if (n == 1 && x.stride(0) == 1)
            return multiply_vector(x.data(), finish, y.data(), y.stride(0), executor);
        // Tiles of about equal width: one that is a vector wide costs as much as three.
        const index vectors = (n + width - 1) / width, tiles = (n + panel - 1) / panel;
        if (tiles == 0)
            return;
        const index tile = (vectors + tiles - 1) / tiles * width, step = tiles_together(n) * tile;
        const index blocks = (n + step - 1) / step, groups = std::min(chunks(), std::max<index>(1, 8 / blocks));
        executor.parallel_for(blocks * groups, 1, [&](index first_task, index last_task) {
            for (index task = first_task; task < last_task;) { // those of a block of columns share what is packed
                const index block = task / groups, end = std::min(last_task, (block + 1) * groups);
                const index first_chunk = (task - block * groups) * chunks() / groups;
                const index last_chunk = (end - block * groups) * chunks() / groups;
                multiply_columns(block * step, std::min(n, (block + 1) * step), tile, first_chunk, last_chunk, x,
                                 finish, y);
                task = end;
            }
        });
    }

    /// y = x W^T, x [n, columns].
    template <class Executor>
    void multiply_tokens(const view<const T, 2>& x, const kernels::sparse_finish<T>& finish, const view<T, 2>& y,
                         Executor& executor) const {
        constexpr index tile = simd::lanes<T, arch> * kernels::token_vectors;
        const index n = x.extent(0);
        if (n == 1)
            return multiply_vector(x.data(), finish, y.data(), 1, executor);
        executor.parallel_for((n + tile - 1) / tile * chunks(), 1, [&](index begin, index end) {
            for (index task = begin; task < end; ++task) {
                const index t = task / chunks() * tile, chunk = task % chunks(), row = chunk * chunk_rows();
                run(chunk, [&](const auto& w, index first, index last) {
                    kernels::sparse_token_product<arch, T>(
                        w, segments(), segment_begin_.data(), first, last, row, std::min(chunk_rows(), rows_ - row),
                        x.data() + t * x.stride(0), x.stride(0), std::min(tile, n - t), finish,
                        y.data() + t * y.stride(0), y.stride(0));
                });
            }
        });
    }

    std::vector<T> values;
    std::vector<std::int32_t> columns; ///< of entries, or of blocks

private:
    static constexpr index packed_size = 131072 / index(sizeof(T)); ///< a quarter of the second cache
    static constexpr index packing_pays = 4;                        ///< entries per column
    static constexpr index most_columns =
        std::min(kernels::segment_columns, packed_size / kernels::sparse_panel<arch, T>);

public:
    /// Blocks may not be larger: a segment and a chunk of rows hold whole ones.
    static constexpr index most_block = std::min(most_columns, kernels::sparse_chunk);

private:
    index segments() const noexcept {
        return index(segment_begin_.size()) - 1;
    }
    index chunk_rows() const noexcept {
        return std::max<index>(1, kernels::sparse_chunk / block_rows_) * block_rows_;
    }
    index chunks() const noexcept {
        return (rows_ + chunk_rows() - 1) / chunk_rows();
    }

    /// f(kernel operand, first, last row of the chunk, or block row).
    template <class F>
    void run(index chunk, F&& f) const {
        const index step = chunk_rows() / block_rows_, block_rows = (rows_ + block_rows_ - 1) / block_rows_;
        const index first = chunk * step, last = std::min(first + step, block_rows);
        if (has_blocks())
            f(kernels::sparse_blocks<T>{entries(), block_rows_, block_columns_, rows_, columns_}, first, last);
        else
            f(entries(), first, last);
    }

    template <class Executor>
    void multiply_vector(const T* x, const kernels::sparse_finish<T>& finish, T* y, index y_stride,
                         Executor& executor) const {
        executor.parallel_for(chunks(), 1, [&](index begin, index end) {
            for (index chunk = begin; chunk < end; ++chunk)
                run(chunk, [&](const auto& w, index first, index last) {
                    kernels::sparse_vector_product<arch, T>(w, first, last, x, finish, y, y_stride);
                });
        });
    }

    /// Tiles that some rows of y meet before the next rows do: one, unless writing y is most of the work, with few
    /// entries in a row and y beyond the second cache. Memory is slow in pieces of a tile, each on a page of its own:
    /// 256x64x3136 with 95 % zeros takes 0.75 of the time. With more entries, or y in cache, it would take 1.1 to 1.3.
    index tiles_together(index n) const noexcept {
        constexpr index second_cache = (index{2} << 20) / index(sizeof(T)), most = 8;
        if (index(columns.size()) >= 4 * index(bounds_.size()) || rows_ * n <= second_cache)
            return 1;
        const index fit = packed_size / (std::max<index>(1, segment_begin_[1]) * kernels::sparse_panel<arch, T>);
        return std::clamp<index>(fit, 1, most);
    }

    /// Columns [begin, end) of y = W x, those rows of it that some chunks hold.
    void multiply_columns(index begin, index end, index tile, index first_chunk, index last_chunk,
                          const view<const T, 2>& x, const kernels::sparse_finish<T>& finish,
                          const view<T, 2>& y) const {
        constexpr index panel = kernels::sparse_panel<arch, T>;
        alignas(64) T packed[std::size_t(packed_size)];
        // Rows of x lie pages apart, and on any alignment: where each is read often, tiles of them are packed.
        const bool packs = index(values.size()) >= packing_pays * columns_;
        const index rows_together = end - begin > tile ? std::max<index>(1, 16 / block_rows_) : rows_;
        for (index s = 0; s < segments(); ++s) {
            const index row = segment_begin_[std::size_t(s)], rows = segment_begin_[std::size_t(s + 1)] - row;
            const auto packed_tile = [&](index j) { return packed + (j - begin) / tile * rows * panel; };
            for (index j = begin; packs && j < end; j += tile)
                kernels::pack_panel<arch>(x.data() + row * x.stride(0) + j, x.stride(0), rows, std::min(tile, end - j),
                                          packed_tile(j));
            const auto operand = [&](index j) -> kernels::sparse_operand<T> {
                if (packs)
                    return {packed_tile(j), row, panel};
                return {x.data() + j, 0, x.stride(0)};
            };
            for (index chunk = first_chunk; chunk < last_chunk; ++chunk)
                run(chunk, [&](const auto& w, index first, index last) {
                    for (index r = first; r < last; r += rows_together)
                        for (index j = begin; j < end; j += tile)
                            kernels::sparse_product<arch, T>(w, r, std::min(r + rows_together, last), s, operand(j),
                                                             std::min(tile, end - j), finish,
                                                             {y.data() + j, 0, y.stride(0)});
                });
        }
    }

    /// Narrow enough for the rows of x to stay in the first cache, wide enough for some dozen entries of a row to pay
    /// for taking up its sums again.
    index widest_segment() const noexcept {
        const double entries = double(columns.size()) * double(block_columns_);
        const double density =
            entries / std::max(1.0, double(rows_ + block_rows_ - 1) / double(block_rows_) * double(columns_));
        return index(std::clamp(12 / std::max(density, 1e-3), 96.0, double(most_columns)));
    }
    void cut_columns() {
        const index most = std::max<index>(1, widest_segment() / block_columns_) * block_columns_;
        const index count = std::max<index>(1, (columns_ + most - 1) / most);
        const index width = ((columns_ + count - 1) / count + block_columns_ - 1) / block_columns_ * block_columns_;
        segment_begin_.clear();
        for (index s = 0; s <= count; ++s)
            segment_begin_.push_back(std::min(s * width, columns_));
    }

    void cut_rows(const std::vector<index>& pointers) {
        const index count = index(pointers.size()) - 1;
        bounds_.clear();
        bounds_.reserve(std::size_t(count * segments() + 1));
        for (index r = 0; r < count; ++r) {
            index k = pointers[std::size_t(r)];
            for (index s = 0; s < segments(); ++s) {
                bounds_.push_back(k);
                while (k < pointers[std::size_t(r + 1)] &&
                       columns[std::size_t(k)] * block_columns_ < segment_begin_[std::size_t(s + 1)])
                    ++k;
            }
        }
        bounds_.push_back(pointers.back());
    }

    index rows_ = 0, columns_ = 0, block_rows_ = 1, block_columns_ = 1;
    std::vector<index> segment_begin_{0, 0}, bounds_{0};
};

template <class T>
sparse_engine<T> make_engine(csr_matrix<T> w) {
    return {w.rows, w.columns, 1, 1, w.row_ptr, std::move(w.col_idx), std::move(w.values)};
}

template <class T>
csr_matrix<T> transposed(const csr_matrix<T>& w) {
    csr_matrix<T> t{w.columns, w.rows, {}, {}, {}};
    t.row_ptr.assign(std::size_t(w.columns + 1), 0);
    for (const std::int32_t c : w.col_idx)
        ++t.row_ptr[std::size_t(c) + 1];
    std::partial_sum(t.row_ptr.begin(), t.row_ptr.end(), t.row_ptr.begin());
    std::vector<index> next(t.row_ptr.begin(), t.row_ptr.end() - 1);
    t.col_idx.resize(w.col_idx.size());
    t.values.resize(w.values.size());
    for (index r = 0; r < w.rows; ++r)
        for (index k = w.row_ptr[std::size_t(r)]; k < w.row_ptr[std::size_t(r + 1)]; ++k) {
            const auto to = std::size_t(next[std::size_t(w.col_idx[std::size_t(k)])]++);
            t.col_idx[to] = std::int32_t(r);
            t.values[to] = w.values[std::size_t(k)];
        }
    return t;
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// How a pruned weight is written down: CSR, blocked CSR and N:M, as files and other libraries have them.
///
///     csr    row_ptr [rows + 1], col_idx [nnz] ascending in a row, values [nnz]
///     bcsr   block_ptr [block rows + 1], block_col ascending in a block row, values [blocks, block_rows,
///            block_columns], zero padded at the edges; a block is stored if any of its entries is kept
///     nm     N of every M neighbouring columns: values and offset, both [rows, ceil(columns / M), N]; offsets ascend;
///            groups with fewer entries are filled up with zeros at the lowest free offsets, which in a short last
///            group may point behind the last column
///
/// An entry is kept if it is not 0, or, with a mask, if its bit is 1: a weight that was regrown starts at 0 and trains.
/// With a mask, what lies outside of it counts as 0.
#ifndef DEFT_PRUNING_SPARSE_FORMATS_HPP
#define DEFT_PRUNING_SPARSE_FORMATS_HPP

#include <deft/pruning/bit_mask.hpp>

#include <cstdint>
#include <limits>
#include <vector>

namespace deft {

template <class T>
struct csr_matrix {
    index rows = 0, columns = 0;
    std::vector<index> row_ptr;
    std::vector<std::int32_t> col_idx;
    std::vector<T> values;
};

template <class T>
struct bcsr_matrix {
    index rows = 0, columns = 0, block_rows = 1, block_columns = 1;
    std::vector<index> block_ptr;
    std::vector<std::int32_t> block_col;
    std::vector<T> values;
};

template <class T>
struct nm_matrix {
    index rows = 0, columns = 0, n = 1, m = 1;
    std::vector<T> values;
    std::vector<std::int32_t> offset;
};

inline namespace DEFT_ISA {
namespace detail {

/// A dense weight and which of its entries are kept.
template <class T>
struct pruned {
    view<const T, 2> dense;
    view<const std::uint64_t, 1> mask;

    bool keeps(index r, index c) const noexcept {
        return mask.is_given() ? mask_bit(mask, r * dense.extent(1) + c) : dense(r, c) != T(0);
    }
};

template <class T>
pruned<T> check_pruned(const char* op, const view<const T, 2>& dense, const view<const std::uint64_t, 1>& mask) {
    static_assert(std::is_floating_point_v<T>, "sparse weights are float or double");
    constexpr double most = std::numeric_limits<std::int32_t>::max();
    check(double(dense.extent(0)) <= most, op, "dense", "its extent 0 must fit 32 bits", double(dense.extent(0)));
    check(double(dense.extent(1)) <= most, op, "dense", "its extent 1 must fit 32 bits", double(dense.extent(1)));
    if (mask.is_given())
        check_mask(op, "mask", mask, dense.size());
    return {dense, mask};
}

} // namespace detail

/// Throws std::invalid_argument if the mask does not have one bit per weight. All of these allocate.
template <class T>
csr_matrix<T> to_csr(in<T, 2> dense, in<std::uint64_t, 1> mask = absent) {
    const detail::pruned<T> w = detail::check_pruned<T>("to_csr", dense, mask);
    csr_matrix<T> result{dense.extent(0), dense.extent(1), {0}, {}, {}};
    result.row_ptr.reserve(std::size_t(result.rows + 1));
    for (index r = 0; r < result.rows; ++r) {
        for (index c = 0; c < result.columns; ++c)
            if (w.keeps(r, c)) {
                result.col_idx.push_back(std::int32_t(c));
                result.values.push_back(dense(r, c));
            }
        result.row_ptr.push_back(index(result.values.size()));
    }
    return result;
}

/// Throws also if block_rows or block_columns is less than 1.
template <class T>
bcsr_matrix<T> to_bcsr(in<T, 2> dense, index block_rows, index block_columns, in<std::uint64_t, 1> mask = absent) {
    const char* const op = "to_bcsr";
    const detail::pruned<T> w = detail::check_pruned<T>(op, dense, mask);
    detail::check(block_rows >= 1, op, "block_rows", "must be at least 1", double(block_rows));
    detail::check(block_columns >= 1, op, "block_columns", "must be at least 1", double(block_columns));
    bcsr_matrix<T> result{dense.extent(0), dense.extent(1), block_rows, block_columns, {0}, {}, {}};
    std::vector<T> block(std::size_t(block_rows * block_columns));
    for (index r = 0; r < result.rows; r += block_rows) {
        for (index c = 0; c < result.columns; c += block_columns) {
            bool any = false;
            for (index i = 0; i < block_rows; ++i)
                for (index j = 0; j < block_columns; ++j) {
                    const bool kept = r + i < result.rows && c + j < result.columns && w.keeps(r + i, c + j);
                    block[std::size_t(i * block_columns + j)] = kept ? dense(r + i, c + j) : T(0);
                    any |= kept;
                }
            if (any) {
                result.block_col.push_back(std::int32_t(c / block_columns));
                result.values.insert(result.values.end(), block.begin(), block.end());
            }
        }
        result.block_ptr.push_back(index(result.block_col.size()));
    }
    return result;
}

/// Throws also if m < 1, n < 0, n > m, or a group keeps more than n entries.
template <class T>
nm_matrix<T> to_nm(in<T, 2> dense, index n, index m, in<std::uint64_t, 1> mask = absent) {
    const char* const op = "to_nm";
    const detail::pruned<T> w = detail::check_pruned<T>(op, dense, mask);
    detail::check(m >= 1, op, "m", "must be at least 1", double(m));
    detail::check(n >= 0 && n <= m, op, "n", "must lie in [0, m]", double(n));
    nm_matrix<T> result{dense.extent(0), dense.extent(1), n, m, {}, {}};
    for (index r = 0; r < result.rows; ++r)
        for (index c = 0; c < result.columns; c += m) {
            index kept = 0;
            for (index j = 0; j < m && c + j < result.columns; ++j)
                kept += w.keeps(r, c + j) ? 1 : 0;
            detail::check(kept <= n, op, "dense", "entries in a group of m, more than n", double(kept));
            index fill = n - kept;
            for (index j = 0; j < m; ++j) {
                const bool keeps = c + j < result.columns && w.keeps(r, c + j);
                if (keeps || fill > 0) {
                    fill -= keeps ? 0 : 1;
                    result.offset.push_back(std::int32_t(j));
                    result.values.push_back(keeps ? dense(r, c + j) : T(0));
                }
            }
        }
    return result;
}

namespace detail {

/// Pointers ascend from 0 to the number of entries, and the columns of a row ascend below `columns`.
inline void check_compressed(const char* op, const std::vector<index>& pointers, const char* pointers_name,
                             const std::vector<std::int32_t>& indices, const char* indices_name, index rows,
                             index columns) {
    check(index(pointers.size()) == rows + 1, op, pointers_name, "elements, must be one more than rows",
          double(pointers.size()));
    check(pointers[0] == 0, op, pointers_name, "its first element, must be 0", double(pointers[0]));
    check(pointers[std::size_t(rows)] == index(indices.size()), op, pointers_name,
          "its last element, must be the number of entries", double(pointers[std::size_t(rows)]));
    for (index r = 0; r < rows; ++r) {
        const index begin = pointers[std::size_t(r)], end = pointers[std::size_t(r + 1)];
        check(begin <= end && end <= index(indices.size()), op, pointers_name, "it must ascend", double(end));
        for (index k = begin; k < end; ++k) {
            const std::int32_t c = indices[std::size_t(k)];
            check(c >= 0 && c < columns, op, indices_name, "lies outside of the matrix", double(c));
            check(k == begin || indices[std::size_t(k - 1)] < c, op, indices_name, "must ascend in a row", double(c));
        }
    }
}

inline void check_count(const char* op, const char* name, std::size_t count, index expected) {
    check(index(count) == expected, op, name, "elements: their number does not fit the others", double(count));
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Naive reference of sparse_matmul and of its formats (arXiv:1911.09723, section 3): a triple loop over the entries of
/// a dense weight that are kept.
///
///     cn: y [m, p] = clamp(W x + bias 1^T), x [n, p]        nc: y [p, m] = clamp(x W^T + 1 bias^T), x [p, n]
#ifndef DEFT_REFERENCE_PRUNING_SPARSE_MATMUL_HPP
#define DEFT_REFERENCE_PRUNING_SPARSE_MATMUL_HPP

#include <deft/view.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// An entry is kept where the mask is 1, or, without a mask, where the weight is not 0.
template <class T>
bool keeps(in<T, 2> weight, in<std::uint8_t, 2> mask, index i, index j) {
    return mask.is_given() ? mask(i, j) != 0 : weight(i, j) != T(0);
}

struct clamp_range {
    bool clamps = false;
    double low = 0, high = 0;
};

template <class T>
void sparse_matmul(in<T, 2> weight, in<std::uint8_t, 2> mask, in<T, 2> x, in<T, 1> bias, view<T, 2> y, bool cn,
                   const clamp_range& range) {
    const index m = weight.extent(0), n = weight.extent(1), p = x.extent(cn ? 1 : 0);
    for (index i = 0; i < m; ++i)
        for (index t = 0; t < p; ++t) {
            T sum = bias.is_given() ? bias(i) : T(0);
            for (index j = 0; j < n; ++j)
                if (keeps<T>(weight, mask, i, j))
                    sum += weight(i, j) * (cn ? x(j, t) : x(t, j));
            if (range.clamps)
                sum = sum < T(range.low) ? T(range.low) : sum > T(range.high) ? T(range.high) : sum;
            (cn ? y(i, t) : y(t, i)) = sum;
        }
}

/// grad_weight is 0 where no entry is kept; grad_bias may be absent.
template <class T>
void sparse_matmul_backward(in<T, 2> weight, in<std::uint8_t, 2> mask, in<T, 2> x, in<T, 1> bias, in<T, 2> grad_y,
                            view<T, 2> grad_x, view<T, 2> grad_weight, view<T, 1> grad_bias, bool cn,
                            const clamp_range& range) {
    const index m = weight.extent(0), n = weight.extent(1), p = x.extent(cn ? 1 : 0);
    std::vector<T> values(std::size_t(m * p));
    const view<T, 2> y(values.data(), cn ? shape<2>(m, p) : shape<2>(p, m));
    sparse_matmul<T>(weight, mask, x, bias, y, cn, {});
    const auto g = [&](index i, index t) {
        const T value = cn ? y(i, t) : y(t, i);
        const bool passes = !range.clamps || (value > T(range.low) && value < T(range.high));
        return passes ? (cn ? grad_y(i, t) : grad_y(t, i)) : T(0);
    };
    for (index j = 0; j < n; ++j)
        for (index t = 0; t < p; ++t) {
            T sum = 0;
            for (index i = 0; i < m; ++i)
                if (keeps<T>(weight, mask, i, j))
                    sum += weight(i, j) * g(i, t);
            (cn ? grad_x(j, t) : grad_x(t, j)) = sum;
        }
    for (index i = 0; i < m; ++i) {
        for (index j = 0; j < n; ++j) {
            T sum = 0;
            if (keeps<T>(weight, mask, i, j))
                for (index t = 0; t < p; ++t)
                    sum += g(i, t) * (cn ? x(j, t) : x(t, j));
            grad_weight(i, j) = sum;
        }
        if (grad_bias.is_given()) {
            grad_bias(i) = 0;
            for (index t = 0; t < p; ++t)
                grad_bias(i) += g(i, t);
        }
    }
}

/// The arrays of a format: pointers, columns or offsets, values, in the order of the file format.
template <class T>
struct packed_arrays {
    std::vector<std::int64_t> pointers, indices;
    std::vector<T> values;
};

template <class T>
packed_arrays<T> pack_bcsr(in<T, 2> weight, in<std::uint8_t, 2> mask, index block_rows, index block_columns) {
    packed_arrays<T> packed;
    packed.pointers.push_back(0);
    for (index r = 0; r < weight.extent(0); r += block_rows) {
        for (index c = 0; c < weight.extent(1); c += block_columns) {
            bool any = false;
            for (index i = r; i < std::min(r + block_rows, weight.extent(0)); ++i)
                for (index j = c; j < std::min(c + block_columns, weight.extent(1)); ++j)
                    any = any || keeps<T>(weight, mask, i, j);
            if (!any)
                continue;
            packed.indices.push_back(c / block_columns);
            for (index i = r; i < r + block_rows; ++i)
                for (index j = c; j < c + block_columns; ++j)
                    packed.values.push_back(i < weight.extent(0) && j < weight.extent(1) && keeps<T>(weight, mask, i, j)
                                                ? weight(i, j)
                                                : T(0));
        }
        packed.pointers.push_back(std::int64_t(packed.indices.size()));
    }
    return packed;
}

template <class T>
packed_arrays<T> pack_csr(in<T, 2> weight, in<std::uint8_t, 2> mask) {
    return pack_bcsr<T>(weight, mask, 1, 1);
}

/// Groups hold at most n entries.
template <class T>
packed_arrays<T> pack_nm(in<T, 2> weight, in<std::uint8_t, 2> mask, index n, index m) {
    packed_arrays<T> packed;
    for (index r = 0; r < weight.extent(0); ++r)
        for (index c = 0; c < weight.extent(1); c += m) {
            std::vector<index> chosen;
            const auto is_entry = [&](index j) { return c + j < weight.extent(1) && keeps<T>(weight, mask, r, c + j); };
            for (index j = 0; j < m; ++j)
                if (is_entry(j))
                    chosen.push_back(j);
            for (index j = 0; index(chosen.size()) < n; ++j)
                if (!is_entry(j))
                    chosen.push_back(j);
            std::sort(chosen.begin(), chosen.end());
            for (const index j : chosen) {
                packed.indices.push_back(j);
                packed.values.push_back(is_entry(j) ? weight(r, c + j) : T(0));
            }
        }
    return packed;
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Softmax attention of a block of queries, a block of keys at a time, with running maxima and sums. C++17.
///
///     m' = max(m, max_j s_j),  l' = exp(m - m') l + sum_j exp(s_j - m'),  O' = exp(m - m') O + sum_j exp(s_j - m') v_j
///
/// Contract: any strides but the last, which is 1; outputs overlap nothing. Scores exist as a tile of 64 x 64 only; the
/// products are those of tile_product.hpp. Values of more than `softmax_columns` columns are taken in parts, for which
/// the scores are computed again.
#ifndef DEFT_KERNELS_SOFTMAX_ATTENTION_HPP
#define DEFT_KERNELS_SOFTMAX_ATTENTION_HPP

#include <deft/kernels/tile_product.hpp>
#include <deft/simd/loop.hpp>
#include <deft/simd/math.hpp>

#include <cmath>
#include <cstdint>
#include <limits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

inline constexpr index softmax_queries = 64, softmax_keys = 64, softmax_columns = 256;

/// One query head and the head of keys and values that it reads. Query i sees key j if j < seen(i) and its mask is not
/// 0.
template <class T>
struct softmax_attention_head {
    const T *q, *k, *v;
    index q_row, k_row, v_row;
    const std::uint8_t* mask; ///< null: all keys are visible
    index queries, tokens, features, width;
    T scale;
    bool causal;

    DEFT_ALWAYS_INLINE index seen(index i) const noexcept {
        const index count = causal ? i + 1 + tokens - queries : tokens;
        return count < 0 ? 0 : count;
    }
};

namespace detail {

template <class Arch, class T>
class softmax_rows {
    using B = simd::batch<T, Arch>;
    static constexpr index width = simd::lanes<T, Arch>;

public:
    static constexpr index stride = softmax_keys;
    static constexpr index padded_rows =
        (softmax_queries / tile_shape<Arch, T>::kernel_rows + 1) * tile_shape<Arch, T>::kernel_rows;
    static constexpr T none = -std::numeric_limits<T>::infinity();

    softmax_rows(const softmax_attention_head<T>& head, index first_query) noexcept
        : h(head), first(first_query),
          rows(head.queries - first_query < softmax_queries ? head.queries - first_query : softmax_queries) {
        for (index r = 0; r < rows; ++r) {
            largest[r] = none;
            sum[r] = 0;
        }
    }

    /// Keys that some query of the block can see.
    index keys() const noexcept {
        return rows == 0 ? 0 : h.seen(first + rows - 1);
    }

    /// tile = scores of the block with keys [j, j + count); none for what is not visible.
    void scores(index j, index count) noexcept {
        tile_product<Arch, T>({h.q + first * h.q_row, h.q_row, 1}, {h.k + j * h.k_row, 1, h.k_row}, rows, count,
                              h.features, false, tile, stride);
        const B scale(h.scale);
        for (index r = 0; r < rows; ++r) {
            T* const row = tile + r * stride;
            B size(T(0));
            for (index c = 0; c < stride; c += width) {
                const B s = scale * simd::load<Arch>(row + c);
                simd::store(row + c, s);
                size = simd::max(size, simd::abs(s));
            }
            if (sizeof(T) == sizeof(float) && xsimd::any(size > B(T(exact_from))))
                make_exact(first + r, j, count, row);
            const index seen = h.seen(first + r) - j;
            for (index c = seen < 0 ? 0 : seen; c < stride; ++c)
                row[c] = none;
            for (index c = count; c < stride; ++c)
                row[c] = none;
            if (h.mask != nullptr)
                for (index c = 0; c < count; ++c)
                    row[c] = h.mask[j + c] == 0 ? none : row[c];
        }
    }

    /// tile = exp(tile - maximum so far); returns by what earlier sums of row r are to be multiplied in `before`.
    void exponentials() noexcept {
        for (index r = 0; r < rows; ++r) {
            T* const row = tile + r * stride;
            B top(none);
            for (index c = 0; c < stride; c += width)
                top = simd::max(top, simd::load<Arch>(row + c));
            alignas(64) T lane[std::size_t(width)];
            simd::store(lane, top);
            T now = largest[r];
            for (const T x : lane)
                now = x > now || std::isnan(x) ? x : now;
            const T origin = now == none ? T(0) : now; // -inf minus itself is no number
            before[r] = largest[r] == none ? T(0) : std::exp(largest[r] - origin);
            largest[r] = now;
            B total(T(0));
            for (index c = 0; c < stride; c += width) {
                const B p = simd::exp(simd::load<Arch>(row + c) - B(origin));
                simd::store(row + c, p);
                total = total + p;
            }
            sum[r] = sum[r] * before[r] + simd::reduce_add(total);
        }
    }

private:
    // Scores that large differ by more than rounding in float leaves of them, and exp sees differences alone.
    static constexpr double exact_from = 1024;

    void make_exact(index i, index j, index count, T* row) const noexcept {
        for (index c = 0; c < count; ++c) {
            if (!(std::abs(row[c]) > T(exact_from)))
                continue;
            double dot = 0;
            for (index f = 0; f < h.features; ++f)
                dot += double(h.q[i * h.q_row + f]) * double(h.k[(j + c) * h.k_row + f]);
            row[c] = T(dot * double(h.scale));
        }
    }

public:
    const softmax_attention_head<T> h;
    const index first, rows;
    T largest[std::size_t(softmax_queries)], sum[std::size_t(softmax_queries)], before[std::size_t(softmax_queries)];
    alignas(64) T tile[std::size_t(padded_rows * stride)];
};

/// x *= factor.
template <class Arch, class T>
DEFT_ALWAYS_INLINE void multiply_row(T* x, index n, T factor) noexcept {
    simd::for_each_vector<T, Arch, 1>(n, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
        simd::store(x + c, simd::load<Arch>(x + c, extent) * simd::batch<T, Arch>(factor), extent);
    });
}

} // namespace detail

/// Outputs of up to softmax_queries queries from `first` on, and the logarithms of their sums; o and lse are those of
/// the head.
template <class Arch, class T>
DEFT_NOINLINE void softmax_attention_block(const softmax_attention_head<T>& head, index first, T* o, index o_row,
                                           T* lse) noexcept {
    using rows_type = detail::softmax_rows<Arch, T>;
    alignas(64) T out[std::size_t(rows_type::padded_rows * softmax_columns)];
    for (index column = 0; column == 0 || column < head.width; column += softmax_columns) {
        const index width = head.width - column < softmax_columns ? head.width - column : softmax_columns;
        const index stride = tile_shape<Arch, T>::padded(width);
        rows_type rows(head, first);
        for (index j = 0, end = rows.keys(); j < end; j += softmax_keys) {
            const index count = end - j < softmax_keys ? end - j : softmax_keys;
            rows.scores(j, count);
            rows.exponentials();
            for (index r = 0; r < rows.rows && j > 0; ++r)
                if (rows.before[r] != T(1))
                    detail::multiply_row<Arch>(out + r * stride, width, rows.before[r]);
            tile_product<Arch, T>({rows.tile, rows_type::stride, 1}, {head.v + j * head.v_row + column, head.v_row, 1},
                                  rows.rows, width, count, j > 0, out, stride);
        }
        for (index r = 0; r < rows.rows; ++r) {
            T* const to = o + (first + r) * o_row + column;
            const bool sees = rows.largest[r] != rows_type::none;
            for (index c = 0; c < width; ++c)
                to[c] = sees ? out[r * stride + c] / rows.sum[r] : T(0);
            lse[first + r] = sees ? rows.largest[r] + std::log(rows.sum[r]) : rows_type::none;
        }
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

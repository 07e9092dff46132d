/// \file
/// A few columns of a matrix state that tokens update and read: the inner loop of linear attention. C++17.
///
///     for each token:   S += k v^T  (Update),   out += q S  (Read)
///
/// A panel holds up to `rows` rows of S and `columns` columns, without gaps: it stays in the first cache however S
/// lies. Three tokens are taken in one pass over it: their values and sums fill the registers. One alone is bound by
/// its stores, two by the latency of their sums and reach three quarters of the speed; more tokens and fewer columns
/// lose to the broadcasts of k and q. Contract: v and out are rows of `columns` values.
#ifndef DEFT_KERNELS_STATE_PANEL_HPP
#define DEFT_KERNELS_STATE_PANEL_HPP

#include <deft/simd/batch.hpp>

#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

template <class Arch, class T>
struct panel_shape {
    static constexpr int vectors = 2;
    static constexpr index width = simd::lanes<T, Arch>;
    static constexpr index columns = vectors * width;
    static constexpr index rows = 256;          ///< 16 KB with 32-byte vectors
    static constexpr index together = 3;        ///< tokens of a pass
    static constexpr index tokens = 132;        ///< of a block, a multiple of together; half as many cost a fifth more
    static constexpr index block = 64 * tokens; ///< rows times tokens of packed k or q: they stay in the second cache
    static constexpr index size = rows * columns;

    /// Tokens of a block of that many rows, of which `most` elements can be packed.
    static constexpr index tokens_for(index row_count, index most = block) noexcept {
        const index fit = row_count < 1 ? tokens : most / row_count;
        return fit >= tokens ? tokens : fit < together ? 1 : fit / together * together;
    }
};

/// Row i is data + i stride.
template <class T>
struct token_rows {
    const T* data;
    index stride;
};

namespace detail {

template <class Arch, class T, int Tokens, bool Update, bool Read>
DEFT_ALWAYS_INLINE void pass_tokens(T* panel, index rows, token_rows<T> k, token_rows<T> q, const T* v,
                                    T* out) noexcept {
    using B = simd::batch<T, Arch>;
    using shape = panel_shape<Arch, T>;
    constexpr int vectors = shape::vectors;
    constexpr index width = shape::width, columns = shape::columns;
    const index k_stride = k.stride, q_stride = q.stride;
    const T *const k_data = k.data, *const q_data = q.data;
    B value[std::size_t(Tokens)][std::size_t(vectors)], sum[std::size_t(Tokens)][std::size_t(vectors)];
    DEFT_UNROLL
    for (int t = 0; t < Tokens; ++t) {
        DEFT_UNROLL
        for (int w = 0; w < vectors; ++w) {
            if constexpr (Update)
                value[t][w] = simd::load<Arch>(v + t * columns + w * width);
            if constexpr (Read)
                sum[t][w] = simd::load<Arch>(out + t * columns + w * width);
        }
    }
    for (index f = 0; f < rows; ++f, panel += columns) {
        B state[std::size_t(vectors)];
        DEFT_UNROLL
        for (int w = 0; w < vectors; ++w)
            state[w] = simd::load<Arch>(panel + w * width);
        DEFT_UNROLL
        for (int t = 0; t < Tokens; ++t) {
            if constexpr (Update) {
                const B key(k_data[t * k_stride + f]);
                DEFT_UNROLL
                for (int w = 0; w < vectors; ++w)
                    state[w] = simd::fma(key, value[t][w], state[w]);
            }
            if constexpr (Read) {
                const B query(q_data[t * q_stride + f]);
                DEFT_UNROLL
                for (int w = 0; w < vectors; ++w)
                    sum[t][w] = simd::fma(query, state[w], sum[t][w]);
            }
        }
        if constexpr (Update) {
            DEFT_UNROLL
            for (int w = 0; w < vectors; ++w)
                simd::store(panel + w * width, state[w]);
        }
    }
    if constexpr (Read) {
        DEFT_UNROLL
        for (int t = 0; t < Tokens; ++t) {
            DEFT_UNROLL
            for (int w = 0; w < vectors; ++w)
                simd::store(out + t * columns + w * width, sum[t][w]);
        }
    }
}

} // namespace detail

/// Nothing to do between passes.
struct no_rows_ahead {
    DEFT_ALWAYS_INLINE void ask() noexcept {}
};

/// `count` tokens in order. k is not used without Update, q and out not without Read. Between passes ahead.ask() is
/// called.
template <class Arch, class T, bool Update, bool Read, class Ahead = no_rows_ahead>
DEFT_NOINLINE void pass_panel(T* panel, index rows, token_rows<T> k, token_rows<T> q, const T* v, T* out, index count,
                              Ahead* ahead = nullptr) noexcept {
    constexpr index columns = panel_shape<Arch, T>::columns;
    constexpr int together = Update && Read ? int(panel_shape<Arch, T>::together) : 4;
    index i = 0;
    const auto at = [](token_rows<T> r, index token) DEFT_INLINE_LAMBDA {
        return token_rows<T>{r.data + token * r.stride, r.stride};
    };
    for (; i + together <= count; i += together) {
        if (ahead != nullptr)
            ahead->ask();
        detail::pass_tokens<Arch, T, together, Update, Read>(panel, rows, Update ? at(k, i) : k, Read ? at(q, i) : q,
                                                             v + i * columns, out + i * columns);
    }
    for (; i < count; ++i)
        detail::pass_tokens<Arch, T, 1, Update, Read>(panel, rows, Update ? at(k, i) : k, Read ? at(q, i) : q,
                                                      v + i * columns, out + i * columns);
}

/// panel *= factor. A factor of 0 forgets: also what is not finite.
template <class Arch, class T>
void scale_panel(T* panel, index rows, T factor) noexcept {
    using B = simd::batch<T, Arch>;
    using shape = panel_shape<Arch, T>;
    const index size = rows * shape::columns;
    const B f(factor);
    for (index i = 0; i < size; i += shape::width)
        simd::store(panel + i, factor == T(0) ? f : simd::load<Arch>(panel + i) * f);
}

/// A block of S in memory: element (f, c) is data[f row_stride + c column_stride]; without data it is zero.
template <class T>
struct state_block {
    T* data;
    index row_stride, column_stride;
    index rows, columns; ///< at most those of a panel

    DEFT_ALWAYS_INLINE T& operator()(index f, index c) const noexcept {
        return data[f * row_stride + c * column_stride];
    }
};

/// panel = factor from; a factor of 0 forgets. Columns behind the last become 0.
template <class Arch, class T>
void load_panel(const state_block<const T>& from, T* panel, T factor = T(1)) noexcept {
    constexpr index columns = panel_shape<Arch, T>::columns;
    const bool is_given = from.data != nullptr && factor != T(0);
    const bool whole = from.columns == columns && from.column_stride == 1 && is_given;
    for (index f = 0; f < from.rows; ++f, panel += columns) {
        if (whole) {
            const T* const row = from.data + f * from.row_stride;
            for (index c = 0; c < columns; ++c)
                panel[c] = factor * row[c];
        } else {
            for (index c = 0; c < columns; ++c)
                panel[c] = is_given && c < from.columns ? factor * from(f, c) : T(0);
        }
    }
}

/// to = factor panel, or to += factor panel.
template <class Arch, class T>
void store_panel(const T* panel, T factor, bool accumulate, const state_block<T>& to) noexcept {
    constexpr index columns = panel_shape<Arch, T>::columns;
    const bool whole = to.columns == columns && to.column_stride == 1 && !accumulate && factor != T(0);
    for (index f = 0; f < to.rows; ++f, panel += columns) {
        if (whole) {
            T* const row = to.data + f * to.row_stride;
            for (index c = 0; c < columns; ++c)
                row[c] = factor * panel[c];
        } else {
            for (index c = 0; c < to.columns; ++c) {
                const T value = factor == T(0) ? T(0) : factor * panel[c];
                to(f, c) = accumulate ? to(f, c) + value : value;
            }
        }
    }
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Gradients of linear attention of one group, by three recurrences of the same kind as the forward one. C++17.
///
/// With N_i = do_i / D_i and M_i = -(o_i do_i) / D_i, D_i = q_i z_i + eps (N_i = do_i, M_i = 0 if nothing is divided),
/// v' = (v, 1), N' = (N, M), S' = (S, z), and G' = dS' carried from the last token to the first:
///
///     forward    S'_i = a_i S'_{i-1} + k_i v'_i^T           dq_i = S'_i N'_i
///     backward   G'_i = a_{i+1} G'_{i+1} + q_i N'_i^T       dk_i = G'_i v'_i      dv_i = G_i^T k_i
///
/// dq and dk are recurrences on the transposed states, with panels of features, dv on panels of columns. A few panels
/// walk over all tokens before the next ones, so that no state is kept but in cache.
#ifndef DEFT_KERNELS_LINEAR_ATTENTION_BACKWARD_HPP
#define DEFT_KERNELS_LINEAR_ATTENTION_BACKWARD_HPP

#include <deft/kernels/linear_attention.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

template <class T>
struct linear_attention_gradient_group {
    head_rows<const T> q, k, v, o, grad_o; ///< o: the output, used if norm is divided by
    head_rows<T> grad_q, grad_k, grad_v;
    head_rows<T> denominator; ///< [heads][queries]: filled with D; null data: nothing was divided
    decay_rows<T> decay;
    T* grad_decay;         ///< null: not wanted
    index grad_decay_step; ///< 0: only their sum is wanted
    const T *state, *norm; ///< before the first token; null: zero
    index state_row;
    T *grad_state, *grad_norm; ///< in: of the final state, out: of the first; null: zero, not wanted
    index grad_state_row;
    T eps;
    index heads, queries, tokens, features, width;
    bool causal;
    bool constant_denominator = false; ///< M = 0: what was divided by is no function of q and k
};

namespace detail {

template <class Arch, class T>
class linear_attention_gradient_run {
    using shape = panel_shape<Arch, T>;
    static constexpr index columns = shape::columns;

public:
    explicit linear_attention_gradient_run(const linear_attention_gradient_group<T>& given) noexcept : g(given) {}

    void run() noexcept {
        for (index h = 0; h < g.heads; ++h)
            for_each_group(g.features, wide(), [&](index c, index r, index rows) { keys(h, c, r, rows); });
        for (index h = 0; h < g.heads; ++h)
            for_each_group(g.width, g.features, [&](index c, index r, index rows) { values(h, c, r, rows); });
        for (index h = 0; h < g.heads; ++h)
            for_each_group(g.features, wide(), [&](index c, index r, index rows) { queries(h, c, r, rows); });
    }

private:
    // Panels that walk together: the rows of k and q are packed once for all of them.
    static constexpr index panels = 4;

    bool divided() const noexcept {
        return g.denominator.data != nullptr;
    }
    // Columns of v' and N'.
    index wide() const noexcept {
        return g.width + (divided() && !g.constant_denominator ? 1 : 0);
    }

    template <class F>
    void for_each_group(index width, index depth, F&& f) noexcept {
        for (index c = 0; c < width; c += panels * columns) {
            lanes = width - c < panels * columns ? width - c : panels * columns;
            for (index r = 0; r == 0 || r < depth; r += shape::rows) // without rows, zeros are written
                f(c, r, depth - r < shape::rows ? depth - r : shape::rows);
        }
    }
    // f(panel, its first column, its columns)
    template <class F>
    DEFT_ALWAYS_INLINE void for_each_panel(F&& f) const noexcept {
        for (index at = 0; at < lanes; at += columns)
            f(at / columns, at, lanes - at < columns ? lanes - at : columns);
    }
    void pack_values(const T* from, T scale, T* value) const noexcept {
        for_each_panel([&](index p, index at, index count) DEFT_INLINE_LAMBDA {
            pack_columns<Arch>(from + at, count, scale, value + p * shape::tokens * columns);
        });
    }
    void add_sums(const T* sums_of_token, T factor, bool accumulate, T* to) const noexcept {
        for_each_panel([&](index p, index at, index count) DEFT_INLINE_LAMBDA {
            add_row(sums_of_token + p * shape::tokens * columns, factor, count, accumulate, to + at);
        });
    }
    // Rows of a tensor as they lie serve as v' and N' where these have no column more; what they lack as factors is
    // given to values and sums.
    bool are_direct() const noexcept {
        return wide() == g.width;
    }
    static token_rows<T> direct(const head_rows<const T>& from, index h, index column) noexcept {
        return {from.at(h, 0) + column, from.token};
    }

    // dq of head h in the features from c on: rows [r, r + rows) of S'^T.
    void queries(index h, index c, index r, index rows) noexcept {
        load_transposed(g.state, g.state_row, g.norm, c, r, rows);
        const bool as_they_lie = are_direct();
        if (as_they_lie) {
            key_rows = direct(g.v, 0, r);
            query_rows = direct(g.grad_o, h, r);
        }
        walk(
            false, rows, g.tokens, g.queries,
            [&](index t, T scale, T* row, T* value) {
                if (!as_they_lie)
                    pack_value(t, r, rows, scale, row);
                pack_values(g.k.at(0, t) + c, as_they_lie ? scale : T(1), value);
            },
            [&](index t, T scale, T* row) { pack_cotangent(h, t, r, rows, scale, row); },
            [&](index t, T scale, const T* sum) {
                add_sums(sum, as_they_lie ? scale * inverse(h, t) : T(1), r > 0, g.grad_q.at(h, t) + c);
            });
    }

    // dk in the features from c on: what head h adds.
    void keys(index h, index c, index r, index rows) noexcept {
        const bool first = h == 0;
        load_transposed(first ? g.grad_state : nullptr, g.grad_state_row, first ? g.grad_norm : nullptr, c, r, rows);
        const bool as_they_lie = are_direct();
        if (as_they_lie) {
            key_rows = direct(g.grad_o, h, r);
            query_rows = direct(g.v, 0, r);
        }
        const T left = walk(
            true, rows, g.queries, g.tokens,
            [&](index t, T scale, T* row, T* value) {
                if (!as_they_lie)
                    pack_cotangent(h, t, r, rows, scale, row);
                pack_values(g.q.at(h, t) + c, as_they_lie ? scale * inverse(h, t) : T(1), value);
            },
            [&](index t, T scale, T* row) { pack_value(t, r, rows, scale, row); },
            [&](index t, T scale, const T* sum) {
                add_sums(sum, as_they_lie ? scale : T(1), !first || r > 0, g.grad_k.at(0, t) + c);
            });
        if (g.grad_norm != nullptr && r + rows > g.width)
            for_each_panel([&](index p, index at, index count) {
                store_panel<Arch, T>(panel + p * shape::size + (g.width - r) * columns, left, !first,
                                     {g.grad_norm + c + at, 0, 1, 1, count});
            });
    }

    // dv in the columns from c on: what head h adds.
    void values(index h, index c, index r, index rows) noexcept {
        T* const state = g.grad_state == nullptr ? nullptr : g.grad_state + r * g.grad_state_row + c;
        for_each_panel([&](index p, index at, index count) {
            load_panel<Arch, T>({h > 0 || state == nullptr ? nullptr : state + at, g.grad_state_row, 1, rows, count},
                                panel + p * shape::size);
        });
        key_rows = direct(g.q, h, r);
        query_rows = direct(g.k, 0, r);
        const T left = walk(
            true, rows, g.queries, g.tokens,
            [&](index t, T scale, T*, T* value) { pack_values(g.grad_o.at(h, t) + c, scale * inverse(h, t), value); },
            [](index, T, T*) {},
            [&](index t, T scale, const T* sum) { add_sums(sum, scale, h > 0 || r > 0, g.grad_v.at(0, t) + c); });
        if (state != nullptr)
            for_each_panel([&](index p, index at, index count) {
                store_panel<Arch, T>(panel + p * shape::size, left, h > 0,
                                     {state + at, g.grad_state_row, 1, rows, count});
            });
    }

    // ---- rows of v' and N'

    T inverse(index h, index t) const noexcept {
        if (!divided())
            return T(1);
        const T d = *g.denominator.at(h, t);
        return d == T(0) ? T(0) : 1 / d;
    }
    void pack_value(index t, index r, index rows, T scale, T* row) const noexcept {
        const index inside = g.width - r < rows ? g.width - r : rows;
        pack_row<Arch>(g.v.at(0, t) + r, inside, scale, row);
        if (inside < rows)
            row[inside] = scale;
    }
    void pack_cotangent(index h, index t, index r, index rows, T scale, T* row) const noexcept {
        const index inside = g.width - r < rows ? g.width - r : rows;
        const T weight = scale * inverse(h, t);
        pack_row<Arch>(g.grad_o.at(h, t) + r, inside, weight, row);
        if (inside < rows)
            row[inside] = -weight * dot<Arch>(g.o.at(h, t), g.grad_o.at(h, t), g.width);
    }

    // ---- walks

    // Rows [r, r + rows) of the transpose of (state, norm); zero where they are null.
    void load_transposed(const T* state, index row_stride, const T* norm, index c, index r, index rows) noexcept {
        const index inside = g.width - r < rows ? g.width - r : rows;
        for_each_panel([&](index p, index at, index count) {
            T* const to = panel + p * shape::size;
            load_panel<Arch, T>(
                {state == nullptr ? nullptr : state + (c + at) * row_stride + r, 1, row_stride, inside, count}, to);
            if (inside < rows)
                load_panel<Arch, T>({norm == nullptr ? nullptr : norm + c + at, 0, 1, 1, count}, to + inside * columns);
        });
    }

    // Takes the panels over all tokens: `update` fills the key and the value of a token, `query` its query, unless
    // key_rows and query_rows say where they lie; `read` gets what it reads. Returns the factor that the panels still
    // lack.
    template <class U, class Q, class R>
    T walk(bool reverse, index rows, index updates, index reads, U&& update, Q&& query, R&& read) noexcept {
        const T left = walk_blocks(reverse, rows, updates, reads, update, query, read);
        key_rows = query_rows = {nullptr, 0};
        return left;
    }
    template <class U, class Q, class R>
    T walk_blocks(bool reverse, index rows, index updates, index reads, U&& update, Q&& query, R&& read) noexcept {
        if (!g.causal) {
            const auto none = [](index) { return T(1); };
            blocks<true, false>(reverse, rows, updates, none, update, query, read);
            blocks<false, true>(reverse, rows, reads, none, update, query, read);
            return T(1);
        }
        if (!reverse)
            return blocks<true, true>(
                false, rows, updates, [&](index i) { return g.decay.exact(i); }, update, query, read);
        const T left = blocks<true, true>(
            true, rows, updates, [&](index i) { return i == 0 ? 1.0 : g.decay.exact(g.tokens - i); }, update, query,
            read);
        return g.tokens == 0 ? left : left * g.decay[0];
    }

    template <bool Update, bool Read, class D, class U, class Q, class R>
    T blocks(bool reverse, index rows, index n, D&& decay, U&& update, Q&& query, R&& read) noexcept {
        const index most = shape::tokens_for(rows);
        T after = 1;
        for (index s = 0; s < n; s += most) {
            const index count = n - s < most ? n - s : most;
            const auto token = [=](index i) { return reverse ? n - 1 - s - i : s + i; };
            if (after != T(1))
                for_each_panel([&](index p, index, index) { scale_panel<Arch>(panel + p * shape::size, rows, after); });
            find_factors<T>(
                count, [&](index i) { return decay(s + i); }, factors);
            after = factors.after;
            for (index i = 0; i < count; ++i) {
                if constexpr (Update)
                    update(token(i), factors.key[i], key_buffer + i * rows, value_buffer + i * columns);
                if constexpr (Read)
                    if (query_rows.data == nullptr)
                        query(token(i), factors.query[i], query_buffer + i * rows);
            }
            const auto rows_from = [&](const token_rows<T>& lying, const T* packed) {
                const index step = reverse ? -lying.stride : lying.stride;
                return lying.data == nullptr ? token_rows<T>{packed, rows}
                                             : token_rows<T>{lying.data + token(0) * lying.stride, step};
            };
            const token_rows<T> k = rows_from(key_rows, key_buffer), q = rows_from(query_rows, query_buffer);
            for_each_panel([&](index p, index, index) {
                T* const out = sums + p * shape::tokens * columns;
                for (index i = 0; i < count * columns && Read; ++i)
                    out[i] = T(0);
                pass_block<Arch, T, Update, Read>(factors, panel + p * shape::size, rows, k, q,
                                                  value_buffer + p * shape::tokens * columns, out, count);
            });
            if constexpr (Read)
                for (index i = 0; i < count; ++i)
                    read(token(i), factors.query[i], sums + i * columns);
        }
        return after;
    }

    static void add_row(const T* from, T factor, index count, bool accumulate, T* to) noexcept {
        if (accumulate)
            for (index c = 0; c < count; ++c)
                to[c] += factor * from[c];
        else
            for (index c = 0; c < count; ++c)
                to[c] = factor * from[c];
    }

    const linear_attention_gradient_group<T> g;
    block_factors<T> factors;
    token_rows<T> key_rows{nullptr, 0}, query_rows{nullptr, 0};
    index lanes = 0; // columns of all panels
    alignas(64) T panel[std::size_t(panels * shape::size)];
    alignas(64) T value_buffer[std::size_t(panels * shape::tokens * columns)],
        sums[std::size_t(panels * shape::tokens * columns)];
    alignas(64) T key_buffer[std::size_t(shape::block)], query_buffer[std::size_t(shape::block)];
};

} // namespace detail

/// D_i = q_i z_i + eps of every query, into `denominator`.
template <class Arch, class T>
DEFT_NOINLINE void linear_attention_denominators(const linear_attention_gradient_group<T>& g) noexcept {
    alignas(64) T z[std::size_t(panel_shape<Arch, T>::rows)];
    constexpr index most = panel_shape<Arch, T>::rows;
    for (index h = 0; h < g.heads; ++h)
        for (index f = 0; f < g.features; f += most) {
            const index rows = g.features - f < most ? g.features - f : most;
            for (index i = 0; i < rows; ++i)
                z[i] = g.norm == nullptr ? T(0) : g.norm[f + i];
            const auto read = [&](index i, T sum) {
                T& d = *g.denominator.at(h, i);
                d = (f == 0 ? g.eps : d) + sum;
            };
            for (index i = 0; i < g.tokens; ++i) {
                if (g.causal && g.decay[i] != T(1))
                    scale_row<Arch>(z, rows, g.decay[i]);
                if (g.causal)
                    read(i, add_and_read<Arch, T, true, true>(z, g.k.at(0, i) + f, g.q.at(h, i) + f, rows));
                else
                    add_and_read<Arch, T, true, false>(z, g.k.at(0, i) + f, nullptr, rows);
            }
            if (!g.causal)
                for (index i = 0; i < g.queries; ++i)
                    read(i, add_and_read<Arch, T, false, true>(z, nullptr, g.q.at(h, i) + f, rows));
        }
}

/// All gradients but that of the decay; the denominators are filled.
template <class Arch, class T>
DEFT_NOINLINE void linear_attention_gradient(const linear_attention_gradient_group<T>& group) noexcept {
    detail::linear_attention_gradient_run<Arch, T>(group).run();
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

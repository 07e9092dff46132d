/// \file
/// Gradients of linear attention of one group, by three recurrences of the same kind as the forward one. C++17.
///
/// With N_i = do_i / D_i and M_i = -(o_i do_i) / D_i, D_i = q_i z_i + eps (N_i = do_i, M_i = 0 if nothing is divided),
/// and with G = dS and g = dz carried from the last token to the first:
///
///     forward    S_i = a_i S_{i-1} + k_i v_i^T,         z_i = a_i z_{i-1} + k_i           dq_i = S_i N_i + M_i z_i
///     backward   G_i = a_{i+1} G_{i+1} + q_i N_i^T,     g_i = a_{i+1} g_{i+1} + M_i q_i   dk_i = G_i v_i + g_i
///                                                                                         dv_i = G_i^T k_i
///
/// In dq and dk S and G are recurrences on transposed states, with panels of features, in dv on panels of columns. A
/// few panels walk over all tokens before the next ones, so that no state is kept but in cache. z and g walk alone.
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

// z += w x if Update, then to += m z.
template <class Arch, bool Update, class T>
DEFT_ALWAYS_INLINE void add_and_spread(T* z, const T* x, T w, T* to, T m, index n) noexcept {
    using B = simd::batch<T, Arch>;
    simd::for_each_vector<T, Arch, 1>(n, [&](index c, auto, auto extent) DEFT_INLINE_LAMBDA {
        B state = simd::load<Arch>(z + c, extent);
        if constexpr (Update) {
            state = simd::fma(B(w), simd::load<Arch>(x + c, extent), state);
            simd::store(z + c, state, extent);
        }
        simd::store(to + c, simd::fma(B(m), state, simd::load<Arch>(to + c, extent)), extent);
    });
}

template <class Arch, class T>
class linear_attention_gradient_run {
    using shape = panel_shape<Arch, T>;
    static constexpr index columns = shape::columns;
    // Panels are not loaded anew for every block, so that it may be short: its values and sums stay in the first cache.
    static constexpr index block_tokens = shape::tokens / 2;
    static_assert(block_tokens % shape::together == 0);

public:
    explicit linear_attention_gradient_run(const linear_attention_gradient_group<T>& given) noexcept : g(given) {}

    void run() noexcept {
        for (index h = 0; h < g.heads; ++h)
            for_each_group(g.features, g.width, [&](index c, index r, index rows) { keys(h, c, r, rows); });
        for (index h = 0; h < g.heads; ++h)
            for_each_group(g.width, g.features, [&](index c, index r, index rows) { values(h, c, r, rows); });
        for (index h = 0; h < g.heads; ++h)
            for_each_group(g.features, g.width, [&](index c, index r, index rows) { queries(h, c, r, rows); });
        for (index h = 0; h < g.heads && divided() && !g.constant_denominator; ++h)
            for (index f = 0; f < g.features; f += shape::rows)
                norms(h, f, g.features - f < shape::rows ? g.features - f : shape::rows);
    }

private:
    // Panels that walk together: the values are packed once for all of them.
    static constexpr index panels = 4;

    bool divided() const noexcept {
        return g.denominator.data != nullptr;
    }
    T inverse(index h, index t) const noexcept {
        if (!divided())
            return T(1);
        const T d = *g.denominator.at(h, t);
        return d == T(0) ? T(0) : 1 / d;
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
            pack_columns<Arch>(from + at, count, scale, value + p * block_tokens * columns);
        });
    }
    void add_sums(const T* sums_of_token, T factor, bool accumulate, T* to) const noexcept {
        for_each_panel([&](index p, index at, index count) DEFT_INLINE_LAMBDA {
            add_row(sums_of_token + p * block_tokens * columns, factor, count, accumulate, to + at);
        });
    }
    // Rows of a tensor as they lie: what they lack as factors is given to values and sums.
    static token_rows<T> rows_of(const head_rows<const T>& from, index h, index column) noexcept {
        return {from.at(h, 0) + column, from.token};
    }
    // Part of a state, rows [r, r + rows) of columns from c on, of its transpose if `swapped`; zero if it is null.
    void load(const T* state, index row_stride, bool swapped, index c, index r, index rows) noexcept {
        const index of_row = swapped ? 1 : row_stride, of_column = swapped ? row_stride : 1;
        for_each_panel([&](index p, index at, index count) {
            load_panel<Arch, T>({state == nullptr ? nullptr : state + r * of_row + (c + at) * of_column, of_row,
                                 of_column, rows, count},
                                panel + p * shape::size);
        });
    }

    // dq of head h in the features from c on: rows [r, r + rows) of S^T.
    void queries(index h, index c, index r, index rows) noexcept {
        load(g.state, g.state_row, true, c, r, rows);
        walk(
            false, rows, g.tokens, g.queries,
            {rows_of(g.v, 0, r), rows_of(g.grad_o, h, r), rows_of(g.k, 0, c), g.grad_q.at(h, 0) + c, g.grad_q.token,
             r > 0},
            [](index) { return T(1); }, [&](index t) { return inverse(h, t); });
    }

    // dk in the features from c on: what head h adds.
    void keys(index h, index c, index r, index rows) noexcept {
        const bool first = h == 0;
        load(first ? g.grad_state : nullptr, g.grad_state_row, true, c, r, rows);
        walk(
            true, rows, g.queries, g.tokens,
            {rows_of(g.grad_o, h, r), rows_of(g.v, 0, r), rows_of(g.q, h, c), g.grad_k.at(0, 0) + c, g.grad_k.token,
             !first || r > 0},
            [&](index t) { return inverse(h, t); }, [](index) { return T(1); });
    }

    // dv in the columns from c on: what head h adds.
    void values(index h, index c, index r, index rows) noexcept {
        load(h > 0 ? nullptr : g.grad_state, g.grad_state_row, false, c, r, rows);
        const T left = walk(
            true, rows, g.queries, g.tokens,
            {rows_of(g.q, h, r), rows_of(g.k, 0, r), rows_of(g.grad_o, h, c), g.grad_v.at(0, 0) + c, g.grad_v.token,
             h > 0 || r > 0},
            [&](index t) { return inverse(h, t); }, [](index) { return T(1); });
        if (g.grad_state != nullptr)
            for_each_panel([&](index p, index at, index count) {
                store_panel<Arch, T>(panel + p * shape::size, left, h > 0,
                                     {g.grad_state + r * g.grad_state_row + c + at, g.grad_state_row, 1, rows, count});
            });
    }

    // What z and g add to dq and dk in `count` features from f on, and the gradient of the first z.
    void norms(index h, index f, index count) noexcept {
        alignas(64) T z[std::size_t(shape::rows)];
        const auto start = [&](const T* from) {
            for (index i = 0; i < count; ++i)
                z[i] = from == nullptr ? T(0) : from[f + i];
        };
        const auto decay = [&](T a) {
            if (g.causal && a != T(1))
                scale_row<Arch>(z, count, a);
        };
        const auto weight = [&](index t) {
            return -inverse(h, t) * dot<Arch>(g.o.at(h, t), g.grad_o.at(h, t), g.width);
        };
        start(g.norm);
        for (index t = 0; t < g.tokens; ++t) {
            decay(g.decay[t]);
            const T* const k = g.k.at(0, t) + f;
            if (g.causal)
                add_and_spread<Arch, true>(z, k, T(1), g.grad_q.at(h, t) + f, weight(t), count);
            else
                add_and_read<Arch, T, true, false>(z, k, nullptr, count);
        }
        for (index t = 0; t < g.queries && !g.causal; ++t)
            add_and_spread<Arch, false, T>(z, nullptr, T(0), g.grad_q.at(h, t) + f, weight(t), count);

        start(h == 0 ? g.grad_norm : nullptr);
        for (index t = 0; t < g.queries && !g.causal; ++t)
            add_and_read<Arch, T, true, false>(z, g.q.at(h, t) + f, nullptr, count, weight(t));
        for (index t = g.tokens - 1; t >= 0; --t) {
            T* const to = g.grad_k.at(0, t) + f;
            if (g.causal)
                add_and_spread<Arch, true>(z, g.q.at(h, t) + f, weight(t), to, T(1), count);
            else
                add_and_spread<Arch, false, T>(z, nullptr, T(0), to, T(1), count);
            decay(g.decay[t]);
        }
        for (index i = 0; i < count && g.grad_norm != nullptr; ++i)
            g.grad_norm[f + i] = h == 0 ? z[i] : g.grad_norm[f + i] + z[i];
    }

    // ---- walks

    // What panels meet on their way: rows of keys and queries, the values, and where what they read goes; each from the
    // first token on.
    struct path {
        token_rows<T> k, q, values;
        T* to;
        index to_stride;
        bool accumulate;
    };

    // Takes the panels over all tokens; factors of values and of what is read by token. Returns the factor that the
    // panels still lack.
    template <class V, class R>
    T walk(bool reverse, index rows, index updates, index reads, const path& along, V&& of_value,
           R&& of_read) noexcept {
        if (!g.causal) {
            const auto none = [](index) { return T(1); };
            blocks<true, false>(reverse, rows, updates, none, along, of_value, of_read);
            blocks<false, true>(reverse, rows, reads, none, along, of_value, of_read);
            return T(1);
        }
        if (!reverse)
            return blocks<true, true>(
                false, rows, updates, [&](index i) { return g.decay.exact(i); }, along, of_value, of_read);
        const T left = blocks<true, true>(
            true, rows, updates, [&](index i) { return i == 0 ? 1.0 : g.decay.exact(g.tokens - i); }, along, of_value,
            of_read);
        return g.tokens == 0 ? left : left * g.decay[0];
    }

    template <bool Update, bool Read, class D, class V, class R>
    T blocks(bool reverse, index rows, index n, D&& decay, const path& along, V&& of_value, R&& of_read) noexcept {
        constexpr index most = block_tokens;
        T after = 1;
        for (index s = 0; s < n; s += most) {
            const index count = n - s < most ? n - s : most, left = n - s - count, coming = left < most ? left : most;
            const auto token = [=](index i) { return reverse ? n - 1 - s - i : s + i; };
            if (after != T(1))
                for_each_panel([&](index p, index, index) { scale_panel<Arch>(panel + p * shape::size, rows, after); });
            find_factors<T>(
                count, [&](index i) { return decay(s + i); }, factors);
            after = factors.after;
            for (index i = 0; i < count && Update; ++i)
                pack_values(along.values.data + token(i) * along.values.stride, factors.key[i] * of_value(token(i)),
                            value_buffer + i * columns);
            const auto from = [&](const T* data, index stride, index i) { // token i of the block, and on
                return token_rows<T>{data + token(i) * stride, reverse ? -stride : stride};
            };
            rows_ahead<T> ahead{};
            const auto look_ahead = [&](const T* data, index stride, index width) {
                const token_rows<T> next = from(data, stride, count);
                ahead.rows[ahead.kinds++] = {next.data, next.stride, width};
            };
            if (Update && Read && coming > 0) {
                look_ahead(along.k.data, along.k.stride, rows);
                look_ahead(along.q.data, along.q.stride, rows);
                look_ahead(along.values.data, along.values.stride, lanes);
                look_ahead(along.to, along.to_stride, lanes);
            }
            for_each_panel([&](index p, index at, index width) {
                T* const out = sums + p * block_tokens * columns;
                for (index i = 0; i < count * columns && Read; ++i)
                    out[i] = T(0);
                ahead.spread(coming * at / lanes, coming * (at + width) / lanes, count / shape::together);
                pass_block<Arch, T, Update, Read>(factors, panel + p * shape::size, rows,
                                                  Update ? from(along.k.data, along.k.stride, 0) : along.k,
                                                  Read ? from(along.q.data, along.q.stride, 0) : along.q,
                                                  value_buffer + p * block_tokens * columns, out, count, false, &ahead);
            });
            if constexpr (Read)
                for (index i = 0; i < count; ++i)
                    add_sums(sums + i * columns, factors.query[i] * of_read(token(i)), along.accumulate,
                             along.to + token(i) * along.to_stride);
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
    index lanes = 0; // columns of all panels
    alignas(64) T panel[std::size_t(panels * shape::size)];
    alignas(64) T value_buffer[std::size_t(panels * block_tokens * columns)],
        sums[std::size_t(panels * block_tokens * columns)];
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

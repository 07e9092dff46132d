/// \file
/// Linear attention of one group: query heads that share keys, values and a state. C++17.
///
///     S_i = a_i S_{i-1} + k_i v_i^T,  z_i = a_i z_{i-1} + k_i,   o_i = q_i S_i  or  q_i S_i / (q_i z_i + eps)
///
/// Retention differs in what it divides by: queries by roots of a decayed count of tokens, outputs by |q_i z_i| where
/// that exceeds 1.
///
/// Contract: any strides but the last, which is 1; o overlaps nothing. Elements of type S are computed in T. The state
/// is read and written in place; it is the only memory that grows with the head. Blocks of tokens are taken through
/// one panel of columns of S after another (state_panel.hpp), a single token through whole rows of S.
#ifndef DEFT_KERNELS_LINEAR_ATTENTION_HPP
#define DEFT_KERNELS_LINEAR_ATTENTION_HPP

#include <deft/kernels/linear_attention_step.hpp>
#include <deft/kernels/state_panel.hpp>
#include <deft/kernels/token_block.hpp>

#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Heads of queries and outputs, the tokens of each, `head` and `token` elements apart.
template <class S>
struct head_rows {
    S* data;
    index head, token;

    DEFT_ALWAYS_INLINE S* at(index h, index i) const noexcept {
        return data + h * head + i * token;
    }
};

/// For linear_attention_group::block: as many tokens as suit the caches.
inline constexpr index largest_block = 1 << 20;

template <class T, class S>
struct linear_attention_group {
    head_rows<const S> q, k, v; ///< of k and v there is one head
    head_rows<S> o;
    decay_rows<compute_t<S>> decay;
    T* state;
    index state_row;
    T* norm; ///< null: outputs are not divided
    T eps;
    index heads, queries, tokens, features, width;
    index block;                          ///< tokens at a time, at most
    const T* key_log_scale = nullptr;     ///< of every token; null: none
    T* log_scale = nullptr;               ///< of the state, if keys have one
    const decayed_count* roots = nullptr; ///< queries are divided by the roots of it
    double most = 0;                      ///< not 0: outputs are divided by |q z| within [1, most], not by q z + eps
};

namespace detail {

template <class Arch, class T, class S>
class linear_attention_run {
    using shape = panel_shape<Arch, T>;
    using group = linear_attention_group<T, S>;

public:
    explicit linear_attention_run(const group& given) noexcept : g(given) {}

    /// Token i reads the state after it was added.
    void causal() noexcept {
        for (index s = 0; s < g.tokens; s += count) {
            start_block(s, g.tokens);
            decay_and_scale();
            for (index h = 0; h < g.heads; ++h)
                if (count == 1)
                    one_token(h);
                else
                    pass_head<true, true>(h, h + 1 == g.heads);
        }
    }

    /// Every query reads the final state.
    void full() noexcept {
        for (index s = 0; s < g.tokens; s += count) {
            start_block(s, g.tokens);
            decay_and_scale();
            pass_head<true, false>(0, true);
        }
        for (index s = 0; s < g.queries; s += count) {
            start_block(s, g.queries);
            no_decay();
            for (index h = 0; h < g.heads; ++h)
                pass_head<false, true>(h, false);
        }
    }

private:
    // Features of a packed row: all of them, unless they are so many that a block would be few tokens.
    index packed_features() const noexcept {
        return g.features <= 4 * shape::rows ? g.features : shape::rows;
    }
    // Whether rows of q and k are packed: of another type, or apart, when as rows of several heads side by side they
    // would share few sets of the caches.
    bool packs() const noexcept {
        return !std::is_same_v<S, T> || g.q.token != g.features || g.k.token != g.features;
    }
    void start_block(index s, index end) noexcept {
        index most = packs() ? shape::tokens_for(packed_features(), packed_size) : shape::tokens;
        most = g.block < most ? g.block : most;
        begin = s;
        count = end - s < most ? end - s : most;
        packed_keys = packed_queries = -1;
    }
    void decay_and_scale() noexcept {
        const auto decay = [&](index i) DEFT_INLINE_LAMBDA { return g.decay.exact(begin + i); };
        if (g.key_log_scale == nullptr) {
            find_factors<T>(count, decay, factors);
            if (g.roots != nullptr)
                divide_by_roots<Arch>(*g.roots, begin, count, factors.query);
            return;
        }
        const auto scale = [&](index i) DEFT_INLINE_LAMBDA { return g.key_log_scale[begin + i]; };
        find_scaled_factors<T>(count, decay, scale, *g.log_scale, factors);
    }
    void no_decay() noexcept {
        find_factors<T>(
            count, [](index) { return T(1); }, factors);
    }

    // What a block needs that comes after this one.
    rows_ahead<S> next_rows(index h, index c) const noexcept {
        const index next = begin + count, left = g.tokens - next, tokens = left < count ? left : count;
        rows_ahead<S> ahead{};
        ahead.spread(tokens * c / g.width,
                     c + shape::columns < g.width ? tokens * (c + shape::columns) / g.width : tokens,
                     count / shape::together * ((g.features + shape::rows - 1) / shape::rows));
        const auto add = [&](const auto& from, index head, index width) {
            ahead.rows[ahead.kinds++] = {from.at(head, next), from.token, width};
        };
        add(g.q, h, g.features);
        add(g.o, h, g.width);
        if (h == 0) {
            add(g.k, 0, g.features);
            add(g.v, 0, g.width);
        }
        return ahead;
    }

    // Rows from feature f on: those of the caller, or packed; `packed` names what the buffer holds.
    token_rows<T> rows_of(const head_rows<const S>& from, index h, index f, index rows, T* buffer,
                          index& packed) noexcept {
        if constexpr (std::is_same_v<S, T>)
            if (count == 1 || !packs())
                return {from.at(h, begin) + f, from.token};
        const bool whole = packed_features() == g.features;
        const index first = whole ? 0 : f, width = whole ? g.features : rows, name = h * g.features + first;
        if (packed != name)
            for (index i = 0; i < count; ++i)
                pack_row<Arch>(from.at(h, begin + i) + first, width, T(1), buffer + i * width);
        packed = name;
        return {buffer + (f - first), width};
    }
    token_rows<T> keys(index f, index rows) noexcept {
        return rows_of(g.k, 0, f, rows, key_buffer, packed_keys);
    }
    token_rows<T> queries(index h, index f, index rows) noexcept {
        return rows_of(g.q, h, f, rows, query_buffer, packed_queries);
    }

    // One head over the block; the state is left as it was unless `keep`.
    template <bool Update, bool Read>
    void pass_head(index h, bool keep) noexcept {
        constexpr index columns = shape::columns;
        if (g.norm != nullptr)
            pass_norm<Update, Read>(h, keep);
        rows_ahead<S> ahead{};
        for (index c = 0; c < g.width; c += columns) {
            const index width = g.width - c < columns ? g.width - c : columns;
            if constexpr (Update)
                for (index i = 0; i < count; ++i)
                    pack_columns<Arch>(g.v.at(0, begin + i) + c, width, factors.key[i], values + i * columns);
            if constexpr (Read)
                for (index i = 0; i < count * columns; ++i)
                    out[i] = T(0);
            for (index f = 0; f < g.features; f += shape::rows) {
                const index rows = g.features - f < shape::rows ? g.features - f : shape::rows;
                const state_block<T> block{g.state + f * g.state_row + c, g.state_row, 1, rows, width};
                load_panel<Arch, T>({block.data, block.row_stride, 1, rows, width}, panel, factors.before[0]);
                const token_rows<T> k = Update ? keys(f, rows) : token_rows<T>{};
                const token_rows<T> q = Read ? queries(h, f, rows) : token_rows<T>{};
                if constexpr (Update && Read) {
                    if (f == 0)
                        ahead = next_rows(h, c);
                    pass_block<Arch, T, true, true>(factors, panel, rows, k, q, values, out, count, true, &ahead);
                } else {
                    pass_block<Arch, T, Update, Read>(factors, panel, rows, k, q, values, out, count, true);
                }
                if (keep)
                    store_panel<Arch, T>(panel, factors.after, false, block);
            }
            if constexpr (Read)
                write(h, c, width);
        }
    }

    // z over the block, and the denominators.
    template <bool Update, bool Read>
    void pass_norm(index h, bool keep) noexcept {
        for (index i = 0; i < count; ++i)
            denominator[i] = g.eps;
        for (index f = 0; f < g.features; f += shape::rows) {
            const index rows = g.features - f < shape::rows ? g.features - f : shape::rows;
            alignas(64) T copy[std::size_t(shape::rows)];
            T* const z = keep ? g.norm + f : copy;
            if (!keep)
                for (index i = 0; i < rows; ++i)
                    copy[i] = g.norm[f + i];
            const token_rows<T> k = Update ? keys(f, rows) : token_rows<T>{};
            const token_rows<T> q = Read ? queries(h, f, rows) : token_rows<T>{};
            for (index i = 0; i < count; ++i) {
                if (factors.before[i] != T(1))
                    scale_row<Arch>(z, rows, factors.before[i]);
                const T* const key = Update ? k.data + i * k.stride : nullptr;
                const T* const query = Read ? q.data + i * q.stride : nullptr;
                denominator[i] +=
                    factors.query[i] * add_and_read<Arch, T, Update, Read>(z, key, query, rows, factors.key[i]);
            }
            if (keep)
                scale_row<Arch>(z, rows, factors.after);
        }
        bound_denominators();
    }

    void bound_denominators() noexcept {
        if (g.most == 0)
            return;
        for (index i = 0; i < count; ++i)
            denominator[i] = bounded_denominator(denominator[i], T(g.most));
    }

    void write(index h, index c, index width) noexcept {
        for (index i = 0; i < count; ++i)
            write_row<Arch>(out + i * shape::columns, width, g.norm == nullptr ? nullptr : denominator + i,
                            g.o.at(h, begin + i) + c, factors.query[i]);
    }

    // Through whole rows of S in memory: nothing is copied, because nothing would be used again.
    void one_token(index h) noexcept {
        const bool updates = h == 0;   // of the group; the other heads find the state as it is after the token
        const T a = factors.before[0]; // b is 1, and what is read is the state itself
        if (g.norm != nullptr) {
            denominator[0] = g.eps;
            for (index f = 0; f < g.features; f += shape::rows) {
                const index rows = g.features - f < shape::rows ? g.features - f : shape::rows;
                T* const z = g.norm + f;
                const T* const query = queries(h, f, rows).data;
                if (updates && a != T(1))
                    scale_row<Arch>(z, rows, a);
                denominator[0] +=
                    factors.query[0] *
                    (updates ? add_and_read<Arch, T, true, true>(z, keys(f, rows).data, query, rows, factors.key[0])
                             : add_and_read<Arch, T, false, true>(z, nullptr, query, rows));
            }
            bound_denominators();
        }
        constexpr index columns = step_vectors * shape::width;
        for (index c = 0; c < g.width; c += columns) {
            const index width = g.width - c < columns ? g.width - c : columns;
            alignas(64) T value[std::size_t(columns)], sum[std::size_t(columns)] = {};
            pack_row<Arch>(g.v.at(0, begin) + c, width, factors.key[0], value);
            for (index f = 0; f < g.features; f += shape::rows) {
                const index rows = g.features - f < shape::rows ? g.features - f : shape::rows;
                T* const state = g.state + f * g.state_row + c;
                const T* const query = queries(h, f, rows).data;
                if (updates)
                    step_state<Arch, T, true>(state, g.state_row, rows, width, a, keys(f, rows).data, query, value,
                                              sum);
                else
                    step_state<Arch, T, false>(state, g.state_row, rows, width, a, query, query, value, sum);
            }
            write_row<Arch>(sum, width, g.norm == nullptr ? nullptr : denominator, g.o.at(h, begin) + c,
                            factors.query[0]);
        }
    }

    static constexpr index packed_size = 2 * shape::block * 4 / index(sizeof(T)); // 66 KB

    const group g;
    index begin = 0, count = 0, packed_keys = -1, packed_queries = -1;
    block_factors<T> factors;
    T denominator[std::size_t(shape::tokens)];
    alignas(64) T panel[std::size_t(shape::size)];
    alignas(64) T values[std::size_t(shape::tokens * shape::columns)], out[std::size_t(shape::tokens * shape::columns)];
    alignas(64) T key_buffer[std::size_t(packed_size)], query_buffer[std::size_t(packed_size)];
};

} // namespace detail

/// Causal: as many queries as tokens.
template <class Arch, class T, class S>
DEFT_NOINLINE void linear_attention_causal(const linear_attention_group<T, S>& group) noexcept {
    detail::linear_attention_run<Arch, T, S>(group).causal();
}

/// Every query reads the final state; there is no decay.
template <class Arch, class T, class S>
DEFT_NOINLINE void linear_attention_full(const linear_attention_group<T, S>& group) noexcept {
    detail::linear_attention_run<Arch, T, S>(group).full();
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

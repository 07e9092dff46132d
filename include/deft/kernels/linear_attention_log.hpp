/// \file
/// Linear attention over features given by their logarithms, of one group. C++17.
///
///     c'_f = max(c_f + log a, log_k_f)      S_f = exp(c_f + log a - c'_f) S_f + exp(log_k_f - c'_f) v,   z likewise
///     o = sum_f p_f S_f / sum_f p_f z_f,    p_f = exp(log_q_f + c'_f - max_f(...))
///
/// Every feature has a scale of its own, and no exponential is above 1. Contract: as linear_attention.hpp. The
/// exponentials of a block of tokens are computed once, then panels of columns of S go over them.
#ifndef DEFT_KERNELS_LINEAR_ATTENTION_LOG_HPP
#define DEFT_KERNELS_LINEAR_ATTENTION_LOG_HPP

#include <deft/kernels/linear_attention.hpp>
#include <deft/simd/math.hpp>

#include <cmath>
#include <limits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

template <class T>
struct log_attention_group {
    head_rows<const T> log_q, log_k, v;
    head_rows<T> o;
    decay_rows<T> decay;
    T *state, *norm, *log_scale;
    index state_row;
    index heads, queries, tokens, features, width;
    index block;
};

namespace detail {

template <class T>
inline constexpr T log_zero = -std::numeric_limits<T>::infinity();

/// log of a decay, of which 0 and less forget.
template <class T>
T log_decay(T a) noexcept {
    return a > T(0) ? std::log(a) : log_zero<T>;
}

template <class Arch, class T>
class log_attention_run {
    using shape = panel_shape<Arch, T>;
    using B = simd::batch<T, Arch>;
    static constexpr index columns = shape::columns;

public:
    explicit log_attention_run(const log_attention_group<T>& given) noexcept : g(given) {}

    void causal() noexcept {
        for (begin = 0; begin < g.tokens; begin += count) {
            start_block(g.tokens);
            for (index h = 0; h < g.heads; ++h)
                pass_head<true, true>(h, h + 1 == g.heads);
        }
    }
    void full() noexcept {
        for (begin = 0; begin < g.tokens; begin += count) {
            start_block(g.tokens);
            pass_head<true, false>(0, true);
        }
        for (begin = 0; begin < g.queries; begin += count) {
            start_block(g.queries);
            for (index h = 0; h < g.heads; ++h)
                pass_head<false, true>(h, false);
        }
    }

private:
    void start_block(index end) noexcept {
        index most = shape::tokens_for(g.features < shape::rows ? g.features : shape::rows);
        most = g.block < most ? g.block : most;
        count = end - begin < most ? end - begin : most;
        for (index i = 0; i < count && end == g.tokens; ++i)
            log_decays[i] = log_decay(g.decay[begin + i]);
    }
    template <class F>
    void for_each_tile(F&& f) noexcept {
        for (index at = 0; at < g.features; at += shape::rows)
            f(at, g.features - at < shape::rows ? g.features - at : shape::rows);
    }

    template <bool Update, bool Read>
    void pass_head(index h, bool keep) noexcept {
        for (index i = 0; i < count; ++i) {
            largest[i] = log_zero<T>;
            denominator[i] = 0;
        }
        if constexpr (Read)
            for_each_tile([&](index f, index rows) { find_largest<Update>(h, f, rows); });
        const bool one_tile = g.features <= shape::rows;
        if (one_tile && g.features > 0)
            prepare<Update, Read>(h, 0, g.features, keep);
        for (index c = 0; c < g.width || (c == 0 && !one_tile); c += columns) {
            const index lanes = g.width - c < columns ? g.width - c : columns;
            if constexpr (Update)
                for (index i = 0; i < count; ++i)
                    pack_columns<Arch>(g.v.at(0, begin + i) + c, lanes, T(1), values + i * columns);
            for (index i = 0; i < count * columns; ++i)
                out[i] = T(0);
            for_each_tile([&](index f, index rows) {
                if (!one_tile) // the scales advance with the last panel, the denominators are summed with the first
                    prepare<Update, Read>(h, f, rows, keep && c + columns >= g.width);
                T* const from = g.state + f * g.state_row + c;
                load_panel<Arch, T>({from, g.state_row, 1, rows, lanes}, panel);
                for (index i = 0; i < count; ++i)
                    pass_token<Update, Read>(rows, i);
                if (keep)
                    store_panel<Arch, T>(panel, T(1), false, {from, g.state_row, 1, rows, lanes});
            });
            if constexpr (Read)
                for (index i = 0; i < count; ++i)
                    write_row<Arch>(out + i * columns, lanes, denominator + i, g.o.at(h, begin + i) + c);
            if (!one_tile)
                summed = true;
        }
        summed = false;
    }

    // c' of the next token, for a vector of features.
    template <bool Update, class Extent>
    B advance_scale(const B& c, index i, index f, Extent extent) const noexcept {
        if constexpr (!Update)
            return c;
        else
            return simd::max(c + B(log_decays[i]), simd::load<Arch>(g.log_k.at(0, begin + i) + f, extent));
    }

    // The largest log_q + c' of every token over this tile too.
    template <bool Update>
    void find_largest(index h, index f, index rows) noexcept {
        simd::for_each_vector<T, Arch, 1>(rows, [&](index at, auto, auto extent) DEFT_INLINE_LAMBDA {
            index lanes = simd::lanes<T, Arch>;
            if constexpr (std::is_same_v<decltype(extent), simd::partial>)
                lanes = extent.count;
            B c = simd::load<Arch>(g.log_scale + f + at, extent);
            for (index i = 0; i < count; ++i) {
                c = advance_scale<Update>(c, i, f + at, extent);
                alignas(64) T sums[std::size_t(simd::lanes<T, Arch>)];
                simd::store(sums, simd::load<Arch>(g.log_q.at(h, begin + i) + f + at, extent) + c);
                for (index lane = 0; lane < lanes; ++lane)
                    largest[i] = sums[lane] > largest[i] ? sums[lane] : largest[i];
            }
        });
    }

    // Factors of the state, of the values and of the queries, for all tokens of the block; z and c over the block.
    template <bool Update, bool Read>
    void prepare(index h, index f, index rows, bool keep) noexcept {
        simd::for_each_vector<T, Arch, 1>(rows, [&](index at, auto, auto extent) DEFT_INLINE_LAMBDA {
            const B none(log_zero<T>), zero(T(0));
            B c = simd::load<Arch>(g.log_scale + f + at, extent), z = simd::load<Arch>(g.norm + f + at, extent);
            for (index i = 0; i < count; ++i) {
                const index to = i * rows + at;
                if constexpr (Update) {
                    const B key = simd::load<Arch>(g.log_k.at(0, begin + i) + f + at, extent);
                    const B kept = c + B(log_decays[i]);
                    c = simd::max(kept, key);
                    const B origin = simd::select(c == none, zero, c); // -inf minus itself is no number
                    const B of_state = simd::exp(kept - origin), of_key = simd::exp(key - origin);
                    simd::store(old_factor + to, of_state, extent);
                    simd::store(key_factor + to, of_key, extent);
                    z = simd::fma(of_state, z, of_key);
                }
                if constexpr (Read) {
                    const B shift(largest[i] == log_zero<T> ? T(0) : largest[i]);
                    const B p = simd::exp(simd::load<Arch>(g.log_q.at(h, begin + i) + f + at, extent) + c - shift);
                    simd::store(query_factor + to, p, extent);
                    alignas(64) T products[std::size_t(simd::lanes<T, Arch>)] = {};
                    simd::store(products, p * z, extent);
                    if (!summed)
                        denominator[i] += simd::reduce_add(simd::load<Arch>(products));
                }
            }
            if (keep && Update) {
                simd::store(g.log_scale + f + at, c, extent);
                simd::store(g.norm + f + at, z, extent);
            }
        });
    }

    template <bool Update, bool Read>
    void pass_token(index rows, index i) noexcept {
        constexpr int vectors = shape::vectors;
        constexpr index width = shape::width;
        const T *const old = old_factor + i * rows, *const key = key_factor + i * rows;
        const T *const query = query_factor + i * rows, *const v = values + i * columns;
        T *to = panel, *const sums = out + i * columns;
        B value[std::size_t(vectors)], sum[std::size_t(vectors)];
        DEFT_UNROLL
        for (int w = 0; w < vectors; ++w) {
            sum[w] = simd::load<Arch>(sums + w * width);
            if constexpr (Update)
                value[w] = simd::load<Arch>(v + w * width);
        }
        for (index f = 0; f < rows; ++f, to += columns) {
            DEFT_UNROLL
            for (int w = 0; w < vectors; ++w) {
                B s = simd::load<Arch>(to + w * width);
                if constexpr (Update) {
                    s = simd::fma(B(old[f]), s, B(key[f]) * value[w]);
                    simd::store(to + w * width, s);
                }
                if constexpr (Read)
                    sum[w] = simd::fma(B(query[f]), s, sum[w]);
            }
        }
        DEFT_UNROLL
        for (int w = 0; w < vectors; ++w)
            simd::store(sums + w * width, sum[w]);
    }

    const log_attention_group<T> g;
    index begin = 0, count = 0;
    bool summed = false;
    T log_decays[std::size_t(shape::tokens)], largest[std::size_t(shape::tokens)],
        denominator[std::size_t(shape::tokens)];
    alignas(64) T panel[std::size_t(shape::size)];
    alignas(64) T values[std::size_t(shape::tokens * columns)], out[std::size_t(shape::tokens * columns)];
    alignas(64) T old_factor[std::size_t(shape::block)], key_factor[std::size_t(shape::block)],
        query_factor[std::size_t(shape::block)];
};

} // namespace detail

template <class Arch, class T>
DEFT_NOINLINE void log_attention_causal(const log_attention_group<T>& group) noexcept {
    detail::log_attention_run<Arch, T>(group).causal();
}

/// Every query reads the final state; there is no decay.
template <class Arch, class T>
DEFT_NOINLINE void log_attention_full(const log_attention_group<T>& group) noexcept {
    detail::log_attention_run<Arch, T>(group).full();
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// What stacks of layers share: how tokens are cut into blocks that go through all layers, and the maps of their rows.
#ifndef DEFT_SSM_LAYER_ROWS_HPP
#define DEFT_SSM_LAYER_ROWS_HPP

#include <deft/activation/series_activation.hpp>
#include <deft/linalg.hpp>
#include <deft/ssm/hidden_state_fusion.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <array>

namespace deft {
inline namespace DEFT_ISA {
namespace detail {

/// Some tokens of one sequence, or one token of every sequence: rows evenly spaced.
struct layer_rows {
    index batch, batches, token, tokens;

    index count() const noexcept {
        return batches * tokens;
    }
    template <class T>
    view<T, 2> of(const view<T, 3>& x) const noexcept {
        return {x.data() + batch * x.stride(0) + token * x.stride(1),
                {count(), x.extent(2)},
                {tokens > 1 ? x.stride(1) : x.stride(0), index{1}}};
    }
    /// Rows `stride` apart, from memory of this block alone.
    template <class T>
    view<T, 3> sequences(T* data, index width, index stride) const noexcept {
        return {data, {batches, tokens, width}, {tokens * stride, stride, index{1}}};
    }
    /// The same cut into heads: `[batches, heads, tokens, width / heads]`.
    template <class T>
    view<T, 4> heads(T* data, index count, index width, index stride) const noexcept {
        return {data, {batches, count, tokens, width / count}, {tokens * stride, width / count, stride, index{1}}};
    }
    /// The sequences of this block of a state `[B, ...]`.
    template <class T>
    view<T, 3> part(const view<T, 3>& s) const noexcept {
        return {
            s.data() + batch * s.stride(0), {batches, s.extent(1), s.extent(2)}, {s.stride(0), s.stride(1), index{1}}};
    }
    template <class T>
    view<T, 4> part(const view<T, 4>& s) const noexcept {
        return {s.data() + batch * s.stride(0),
                {batches, s.extent(1), s.extent(2), s.extent(3)},
                {s.stride(0), s.stride(1), s.stride(2), index{1}}};
    }
};

/// f(rows) in order of the tokens of each sequence, `most` tokens at a time.
template <class F>
void for_each_layer_rows(index batches, index tokens, index most, F&& f) {
    if (tokens == 1) {
        f(layer_rows{0, batches, 0, 1});
        return;
    }
    for (index b = 0; b < batches; ++b)
        for (index t = 0; t < tokens; t += most)
            f(layer_rows{b, 1, t, std::min(most, tokens - t)});
}

/// y = x / sqrt(mean(x^2) + eps) weight: a fusion with nothing.
template <class T, class Executor>
void normalise_rows(const view<const T, 2>& x, const view<const T, 1>& weight, double eps, const view<T, 2>& y,
                    Executor& executor) {
    const index width = x.extent(1);
    hidden_state_fusion<T>({.current = x,
                            .x = x,
                            .past = {nullptr, {0, x.extent(0), width}},
                            .w1 = {nullptr, {0, width}},
                            .w2 = {nullptr, {width, 0}},
                            .norm_weight = weight},
                           y, {.eps = eps}, executor);
}

/// y = x w^T, or y += x w^T.
template <class T, class Executor>
void map_rows(const view<const T, 2>& x, const view<const T, 2>& w, const view<T, 2>& y, bool adds,
              Executor& executor) {
    linalg::gemm<T>(T(1), x, linalg::matrix<const T>(w).transposed(), T(adds ? 1 : 0), y, executor);
}

/// x = scale silu(x).
template <class T, class Executor>
void silu_rows(const view<T, 2>& x, T scale, Executor& executor) {
    const std::array<T, 1> a{scale}, b{T(0)};
    series_activation<T>(x, a, b, rows<T>(x), {.form = series_form::outer, .base = activation::silu}, executor);
}

template <class V, class... Extents>
void check_layer(const char* op, const char* name, const V& v, const char* source, Extents... extents) {
    const index expected[] = {extents...};
    for (int axis = 0; axis < int(sizeof...(extents)); ++axis)
        check_extent(op, name, v, axis, expected[axis], source);
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

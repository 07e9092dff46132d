/// \file
/// Gradient of linear attention with respect to its decays. C++17.
///
///     da_i = <G'_i, S'_{i-1}>     (names of linear_attention_backward.hpp)
///
/// G' runs from the last token to the first, S' from the first to the last. So S' is computed again and again: from the
/// start to the middle, then for the second half, then for the first, each in the same way. That takes log2(tokens)
/// panels of memory and as many passes. Two shorter ways are wrong: S'_{i-1} from S'_i divides by a_i; and a_i da_i as
/// a running sum of q dq - k dk loses everything where a_i is small, as at the start of a packed document.
#ifndef DEFT_KERNELS_LINEAR_ATTENTION_DECAY_GRADIENT_HPP
#define DEFT_KERNELS_LINEAR_ATTENTION_DECAY_GRADIENT_HPP

#include <deft/kernels/linear_attention_backward.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {
namespace detail {

template <class Arch, class T>
class decay_gradient_run {
    using shape = panel_shape<Arch, T>;
    static constexpr index columns = shape::columns;

public:
    explicit decay_gradient_run(const linear_attention_gradient_group<T>& given) noexcept : g(given) {}

    double run() noexcept {
        const index wide = g.width + (g.denominator.data != nullptr ? 1 : 0);
        for (c = 0; c < wide; c += columns)
            for (f = 0; f < g.features; f += shape::rows) {
                lanes = wide - c < columns ? wide - c : columns;
                inside = g.width - c < lanes ? g.width - c : lanes;
                rows = g.features - f < shape::rows ? g.features - f : shape::rows;
                alignas(64) T state[std::size_t(shape::size)];
                load(g.state, g.state_row, g.norm, state);
                load(g.grad_state, g.grad_state_row, g.grad_norm, gradient);
                if (g.tokens > 0)
                    descend(0, g.tokens, state);
            }
        return total;
    }

private:
    void load(const T* state, index row_stride, const T* norm, T* panel) const noexcept {
        load_panel<Arch, T>({state == nullptr ? nullptr : state + f * row_stride + c, row_stride, 1, rows, inside},
                            panel);
        if (inside < lanes)
            for (index i = 0; i < rows; ++i)
                panel[i * columns + inside] = norm == nullptr ? T(0) : norm[f + i];
    }

    // Tokens [s, t) from the last to the first; `state` is that before token s.
    void descend(index s, index t, const T* state) noexcept {
        if (t - s == 1)
            return visit(s, state);
        const index middle = s + (t - s) / 2;
        {
            alignas(64) T later[std::size_t(shape::size)];
            for (index i = 0; i < rows * columns; ++i)
                later[i] = state[i];
            advance(s, middle, later);
            descend(middle, t, later);
        }
        descend(s, middle, state);
    }

    void advance(index s, index t, T* state) noexcept {
        for (; s < t; s += shape::tokens) {
            const index count = t - s < shape::tokens ? t - s : shape::tokens;
            find_factors<T>(
                count, [&](index i) DEFT_INLINE_LAMBDA { return g.decay[s + i]; }, factors);
            for (index i = 0; i < count; ++i) {
                pack_columns<Arch>(g.v.at(0, s + i) + c, inside, factors.key[i], values + i * columns);
                if (inside < lanes)
                    values[i * columns + inside] = factors.key[i];
            }
            pass_block<Arch, T, true, false>(factors, state, rows, {g.k.at(0, s) + f, g.k.token}, {}, values, nullptr,
                                             count);
            if (factors.after != T(1))
                scale_panel<Arch>(state, rows, factors.after);
        }
    }

    void visit(index i, const T* state) noexcept {
        for (index h = 0; h < g.heads; ++h) {
            const T d = g.denominator.data == nullptr ? T(1) : *g.denominator.at(h, i);
            const T inverse = d == T(0) ? T(0) : 1 / d;
            pack_columns<Arch>(g.grad_o.at(h, i) + c, inside, inverse, values);
            if (inside < lanes)
                values[inside] = -inverse * dot<Arch>(g.o.at(h, i), g.grad_o.at(h, i), g.width);
            pass_panel<Arch, T, true, false>(gradient, rows, {g.q.at(h, i) + f, g.q.token}, {}, values, nullptr, 1);
        }
        const T product = dot<Arch>(gradient, state, rows * columns);
        T& to = g.grad_decay[i * g.grad_decay_step];
        total += double(product);
        if (g.grad_decay_step != 0)
            to = (c == 0 && f == 0 ? T(0) : to) + product;
        if (g.decay[i] != T(1))
            scale_panel<Arch>(gradient, rows, g.decay[i]);
    }

    const linear_attention_gradient_group<T> g;
    index c = 0, lanes = 0, inside = 0, f = 0, rows = 0;
    double total = 0;
    block_factors<T> factors;
    alignas(64) T gradient[std::size_t(shape::size)], values[std::size_t(shape::tokens * columns)];
};

} // namespace detail

/// Writes the gradient of every token's decay, and returns their sum. Before linear_attention_gradient, which
/// overwrites the cotangents of the state; the denominators are filled.
template <class Arch, class T>
DEFT_NOINLINE double linear_attention_decay_gradient(const linear_attention_gradient_group<T>& group) noexcept {
    return detail::decay_gradient_run<Arch, T>(group).run();
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

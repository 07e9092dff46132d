/// \file
/// Naive reference of dense_retnet_block: layer after layer over all tokens, every state of every layer kept
/// (WailordHe/DenseSSM, MultiScaleGauRetention and LlamaDecoderLayer).
#ifndef DEFT_REFERENCE_SSM_DENSE_RETNET_BLOCK_HPP
#define DEFT_REFERENCE_SSM_DENSE_RETNET_BLOCK_HPP

#include <deft/reference/ssm/hidden_state_fusion.hpp>
#include <deft/reference/ssm/retention.hpp>
#include <deft/reference/ssm/retention_gate.hpp>
#include <deft/reference/ssm/retention_rotary.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// Tensors as in dense_retnet_layer.
template <class T>
struct retnet_tensors {
    view<const T, 1> input_norm;
    view<const T, 2> wq, wk, wvg, k_sel1, k_sel2, v_sel1, v_sel2;
    view<const T, 1> k_norm, v_norm, group_norm;
    view<const T, 2> wo;
};

struct retnet_form {
    index heads, window, position; ///< of the first token
    double eps, base;
    retention_form retention;
};

/// [rows, width] that owns its memory.
template <class T>
struct matrix_of {
    index rows, width;
    std::vector<T> memory;

    matrix_of(index r, index w) : rows(r), width(w), memory(std::size_t(r * w)) {}
    T& operator()(index r, index c) {
        return memory[std::size_t(r * width + c)];
    }
    view<T, 2> all() {
        return {memory.data(), {rows, width}};
    }
};

template <class T>
matrix_of<T> rms_norm(view<const T, 2> x, view<const T, 1> weight, double eps) {
    matrix_of<T> y(x.extent(0), x.extent(1));
    for (index r = 0; r < y.rows; ++r) {
        T squares = 0;
        for (index c = 0; c < y.width; ++c)
            squares += x(r, c) * x(r, c);
        const T scale = T(1) / std::sqrt(squares / T(y.width) + T(eps));
        for (index c = 0; c < y.width; ++c)
            y(r, c) = x(r, c) * scale * weight(c);
    }
    return y;
}

/// x w^T
template <class T>
matrix_of<T> linear(view<const T, 2> x, view<const T, 2> w) {
    matrix_of<T> y(x.extent(0), w.extent(0));
    for (index r = 0; r < y.rows; ++r)
        for (index c = 0; c < y.width; ++c) {
            T sum = 0;
            for (index i = 0; i < x.extent(1); ++i)
                sum += x(r, i) * w(c, i);
            y(r, c) = sum;
        }
    return y;
}

template <class T>
matrix_of<T> scaled_silu(matrix_of<T> x, T scale) {
    for (T& v : x.memory)
        v = scale * activate(activation::silu, v);
    return x;
}

namespace detail {

template <class T>
matrix_of<T> fuse_with_past(matrix_of<T>& own, matrix_of<T>& normed, const std::vector<matrix_of<T>>& earlier,
                            index window, view<const T, 2> w1, view<const T, 2> w2, view<const T, 1> norm, double eps) {
    const index seen = std::min(window, index(earlier.size()));
    std::vector<T> past;
    for (std::size_t i = earlier.size() - std::size_t(seen); i < earlier.size(); ++i)
        past.insert(past.end(), earlier[i].memory.begin(), earlier[i].memory.end());
    matrix_of<T> y(own.rows, own.width);
    hidden_state_fusion<T>({own.all(),
                            normed.all(),
                            {past.data(), {seen, own.rows, own.width}},
                            w1,
                            w2,
                            absent,
                            norm,
                            activation::silu,
                            1,
                            true,
                            eps},
                           y.all());
    return y;
}

} // namespace detail

/// x, y [B, T, D]; states: of each layer, [B, H, dk, dv], updated; scale [H], updated; keys: of each layer [B, H, dk].
template <class T>
void dense_retnet_block(in<T, 3> x, const std::vector<retnet_tensors<T>>& layers, view<T, 3> y,
                        const std::vector<view<T, 4>>& states, const std::vector<view<T, 3>>& keys,
                        out<double, 1> scale, const retnet_form& form) {
    const index batch = x.extent(0), tokens = x.extent(1), d = x.extent(2), rows = batch * tokens, heads = form.heads;
    std::vector<double> gamma(std::size_t(heads), 0.0), count;
    for (index h = 0; h < heads; ++h)
        gamma[std::size_t(h)] = 1 - std::pow(2.0, -5 - double(h));
    matrix_of<T> stream(rows, d);
    for (index r = 0; r < rows; ++r)
        for (index c = 0; c < d; ++c)
            stream(r, c) = x(r / tokens, r % tokens, c);
    std::vector<matrix_of<T>> earlier_k, earlier_v;
    for (std::size_t l = 0; l < layers.size(); ++l) {
        const retnet_tensors<T>& w = layers[l];
        const index width = w.wq.extent(0), e = w.wo.extent(1);
        matrix_of<T> normed = rms_norm<T>(stream.all(), w.input_norm, form.eps);
        matrix_of<T> q = scaled_silu(linear<T>(normed.all(), w.wq), T(1));
        matrix_of<T> k = scaled_silu(linear<T>(normed.all(), w.wk), T(1 / std::sqrt(double(width / heads))));
        matrix_of<T> vg = scaled_silu(linear<T>(normed.all(), w.wvg), T(1)), v(rows, e), gate(rows, e), o(rows, e);
        for (index r = 0; r < rows; ++r)
            for (index c = 0; c < e; ++c) {
                v(r, c) = vg(r, c);
                gate(r, c) = vg(r, e + c);
            }
        const matrix_of<T> own_k = k, own_v = v;
        if (l > 0) {
            k = detail::fuse_with_past(k, normed, earlier_k, form.window, w.k_sel1, w.k_sel2, w.k_norm, form.eps);
            v = detail::fuse_with_past(v, normed, earlier_v, form.window, w.v_sel1, w.v_sel2, w.v_norm, form.eps);
        }
        earlier_k.push_back(own_k);
        earlier_v.push_back(own_v);
        const auto in_heads = [&](matrix_of<T>& m) {
            return view<T, 4>(m.memory.data(), {batch, heads, tokens, m.width / heads},
                              {tokens * m.width, m.width / heads, m.width, index{1}});
        };
        const rotary_parameters rotary{form.position, form.base, false, false, 0, 1, 0};
        matrix_of<T> turned_q = q, turned_k = k;
        retention_rotary<T>(in_heads(q), in_heads(turned_q), rotary);
        retention_rotary<T>(in_heads(k), in_heads(turned_k), rotary);
        count.assign(scale.data(), scale.data() + heads);
        retention<T>({in_heads(turned_q), in_heads(turned_k), in_heads(v), gamma}, in_heads(o), states[l], count,
                     keys[l], form.retention);
        matrix_of<T> gated(rows, e);
        retention_gate<T>({o.memory.data(), {batch, tokens, heads, e / heads}},
                          {gate.memory.data(), {batch, tokens, e}}, w.group_norm,
                          {gated.memory.data(), {batch, tokens, e}}, false, activation::identity, form.eps);
        matrix_of<T> more = linear<T>(gated.all(), w.wo);
        for (index r = 0; r < rows; ++r)
            for (index c = 0; c < d; ++c)
                stream(r, c) += more(r, c);
    }
    for (index r = 0; r < rows; ++r)
        for (index c = 0; c < d; ++c)
            y(r / tokens, r % tokens, c) = stream(r, c);
    for (index h = 0; h < heads && !count.empty(); ++h)
        scale(h) = count[std::size_t(h)];
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

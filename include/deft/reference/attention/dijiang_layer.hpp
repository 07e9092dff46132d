/// \file
/// Naive reference of dijiang_layer: everything of all tokens in memory, one loop after the other.
///
/// y = (silu(x W_gate) * GroupNorm(linear_attention(q_scale phi(rope q), phi(rope k), v))) W_out^T + b_out
#ifndef DEFT_REFERENCE_ATTENTION_DIJIANG_LAYER_HPP
#define DEFT_REFERENCE_ATTENTION_DIJIANG_LAYER_HPP

#include <deft/reference/attention/dct_feature_map.hpp>
#include <deft/reference/attention/linear_attention.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// w_qkv [3E, E], w_gate [in, out], w_out [out, in]; decay [B, H, n]; q_scale [H, n] or absent.
template <class T>
struct dijiang_weights {
    view<T, 2> w_qkv;
    view<T, 1> b_qkv, t;
    view<T, 2> w_gate;
    view<T, 1> gn_weight, gn_bias;
    view<T, 2> w_out;
    view<T, 1> b_out;
    view<T, 3> decay;
    view<T, 2> q_scale;
};

struct dijiang_shape {
    index heads, rotary, groups, position;
    double rope_base, norm_eps;
};

/// What the layer computes on its way, [B, H, n, d] or [B n, E].
template <class T>
struct dijiang_trace {
    index batch, n, e, heads, d;
    std::vector<T> q, k, v, phi_q, phi_k, scaled_q, attention, z, xhat, inverse, matrix;

    dijiang_trace(in<T, 3> x, const dijiang_weights<const T>& w, view<T, 4> state, const dijiang_shape& s)
        : batch(x.extent(0)), n(x.extent(1)), e(x.extent(2)), heads(s.heads), d(e / heads) {
        const std::size_t size = std::size_t(batch * n * e);
        for (std::vector<T>* tensor : {&q, &k, &v, &phi_q, &phi_k, &attention, &z, &xhat})
            tensor->resize(size);
        inverse.resize(std::size_t(batch * n * s.groups));
        for (index b = 0; b < batch; ++b)
            for (index i = 0; i < n; ++i)
                for (index h = 0; h < heads; ++h)
                    for (index c = 0; c < 3 * d; ++c) {
                        const index row = h * 3 * d + c;
                        T sum = w.b_qkv(row);
                        for (index j = 0; j < e; ++j)
                            sum += x(b, i, j) * w.w_qkv(row, j);
                        (c < d ? q : c < 2 * d ? k : v)[at(b, h, i, c % d)] = sum;
                    }
        rotate(q, s, 1);
        rotate(k, s, 1);
        matrix = dct_matrix<T>(d, 3);
        dct_feature_map<T>(rows(q), w.t, absent, changeable(phi_q), absent, matrix, {});
        dct_feature_map<T>(rows(k), w.t, absent, changeable(phi_k), absent, matrix, {});
        scaled_q = phi_q;
        for (index b = 0; b < batch; ++b)
            for (index h = 0; h < heads; ++h)
                for (index i = 0; i < n; ++i)
                    for (index c = 0; c < d && w.q_scale.is_given(); ++c)
                        scaled_q[at(b, h, i, c)] *= w.q_scale(h, i);
        linear_attention<T>({tensor(scaled_q), tensor(phi_k), tensor(v), w.decay}, tensor(attention), state, absent,
                            {});
        for (index b = 0; b < batch; ++b)
            for (index i = 0; i < n; ++i)
                for (index c = 0; c < e; ++c) {
                    T sum = 0;
                    for (index j = 0; j < e; ++j)
                        sum += x(b, i, j) * w.w_gate(j, c);
                    z[channel(b, i, c)] = sum;
                }
        const index size_of = e / s.groups;
        for (index b = 0; b < batch; ++b)
            for (index i = 0; i < n; ++i)
                for (index g = 0; g < s.groups; ++g) {
                    const auto value = [&](index c) { return attention[at(b, c / d, i, c % d)]; };
                    T sum = 0, squares = 0;
                    for (index c = g * size_of; c < (g + 1) * size_of; ++c)
                        sum += value(c);
                    const T mean = sum / T(size_of);
                    for (index c = g * size_of; c < (g + 1) * size_of; ++c)
                        squares += (value(c) - mean) * (value(c) - mean);
                    const T inv = 1 / std::sqrt(squares / T(size_of) + T(s.norm_eps));
                    inverse[std::size_t((b * n + i) * s.groups + g)] = inv;
                    for (index c = g * size_of; c < (g + 1) * size_of; ++c)
                        xhat[channel(b, i, c)] = (value(c) - mean) * inv;
                }
    }

    std::size_t at(index b, index h, index i, index c) const {
        return std::size_t(((b * heads + h) * n + i) * d + c);
    }
    std::size_t channel(index b, index i, index c) const {
        return std::size_t((b * n + i) * e + c);
    }
    view<T, 4> tensor(std::vector<T>& of) const {
        return {of.data(), {batch, heads, n, d}};
    }
    view<const T, 2> rows(const std::vector<T>& of) const {
        return {of.data(), {batch * heads * n, d}};
    }
    view<T, 2> changeable(std::vector<T>& of) const {
        return {of.data(), {batch * heads * n, d}};
    }
    T gate(std::size_t i) const { // logistic
        return 1 / (1 + std::exp(-z[i]));
    }
    T norm(std::size_t i, index c, const dijiang_weights<const T>& w) const {
        return xhat[i] * w.gn_weight(c) + w.gn_bias(c);
    }
    /// By the angles of the positions, or with sign -1 back.
    void rotate(std::vector<T>& of, const dijiang_shape& s, int sign) const {
        const index half = s.rotary / 2;
        for (index b = 0; b < batch; ++b)
            for (index h = 0; h < heads; ++h)
                for (index i = 0; i < n; ++i)
                    for (index c = 0; c < half; ++c) {
                        const double angle =
                            sign * double(s.position + i) * std::pow(s.rope_base, -2.0 * double(c) / double(s.rotary));
                        T &first = of[at(b, h, i, c)], &second = of[at(b, h, i, c + half)];
                        const T a = first, p = second;
                        first = a * T(std::cos(angle)) - p * T(std::sin(angle));
                        second = p * T(std::cos(angle)) + a * T(std::sin(angle));
                    }
    }
};

/// x, y [B, n, E]; state [B, H, d, d], in and out.
template <class T>
void dijiang_layer(in<T, 3> x, const dijiang_weights<const T>& w, view<T, 3> y, out<T, 4> state,
                   const dijiang_shape& s) {
    const dijiang_trace<T> trace(x, w, state, s);
    for (index b = 0; b < trace.batch; ++b)
        for (index i = 0; i < trace.n; ++i)
            for (index o = 0; o < trace.e; ++o) {
                T sum = w.b_out(o);
                for (index c = 0; c < trace.e; ++c) {
                    const std::size_t j = trace.channel(b, i, c);
                    sum += trace.z[j] * trace.gate(j) * trace.norm(j, c, w) * w.w_out(o, c);
                }
                y(b, i, o) = sum;
            }
}

/// Gradients of everything; `state` is that before the call, grad_state holds the cotangent of the final state and
/// receives the gradient. grad.q_scale may be absent.
template <class T>
void dijiang_layer_backward(in<T, 3> x, const dijiang_weights<const T>& w, in<T, 4> state, in<T, 3> grad_y,
                            view<T, 3> grad_x, const dijiang_weights<T>& grad, out<T, 4> grad_state,
                            const dijiang_shape& s) {
    const index e = x.extent(2), n = x.extent(1), batch = x.extent(0), d = e / s.heads;
    std::vector<T> final_state(std::size_t(batch * s.heads * d * d));
    for (index b = 0; b < batch; ++b)
        for (index h = 0; h < s.heads; ++h)
            for (index f = 0; f < d; ++f)
                for (index c = 0; c < d; ++c)
                    final_state[std::size_t(((b * s.heads + h) * d + f) * d + c)] = state(b, h, f, c);
    dijiang_trace<T> trace(x, w, {final_state.data(), {batch, s.heads, d, d}}, s);
    std::vector<T> dz(trace.z.size()), d_attention(dz), dq(dz), dk(dz), dv(dz);
    const auto zero = [](auto v) {
        for (index i = 0; i < v.size(); ++i)
            v.data()[i] = 0;
    };
    const auto zero_matrix = [&](view<T, 2> v) {
        for (index r = 0; r < v.extent(0); ++r)
            zero(view<T, 1>(&v(r, 0), {v.extent(1)}));
    };
    for (const view<T, 2>& m : {grad.w_qkv, grad.w_gate, grad.w_out})
        zero_matrix(m);
    for (const view<T, 1>& v : {grad.b_qkv, grad.gn_weight, grad.gn_bias, grad.b_out})
        zero(v);

    const index size_of = e / s.groups;
    for (index b = 0; b < batch; ++b)
        for (index i = 0; i < n; ++i) {
            std::vector<T> through(static_cast<std::size_t>(e)); // e = dN gn_weight
            for (index c = 0; c < e; ++c) {
                const std::size_t j = trace.channel(b, i, c);
                const T open = trace.z[j] * trace.gate(j), norm = trace.norm(j, c, w);
                T dh = 0;
                for (index o = 0; o < e; ++o) {
                    dh += grad_y(b, i, o) * w.w_out(o, c);
                    grad.w_out(o, c) += grad_y(b, i, o) * open * norm;
                }
                grad.b_out(c) += grad_y(b, i, c);
                dz[j] = dh * norm * trace.gate(j) * (1 + trace.z[j] * (1 - trace.gate(j)));
                grad.gn_weight(c) += dh * open * trace.xhat[j];
                grad.gn_bias(c) += dh * open;
                through[std::size_t(c)] = dh * open * w.gn_weight(c);
            }
            for (index c = 0; c < e; ++c) {
                const index g = c / size_of;
                T mean = 0, along = 0;
                for (index o = g * size_of; o < (g + 1) * size_of; ++o) {
                    mean += through[std::size_t(o)] / T(size_of);
                    along += through[std::size_t(o)] * trace.xhat[trace.channel(b, i, o)] / T(size_of);
                }
                d_attention[trace.at(b, c / d, i, c % d)] =
                    trace.inverse[std::size_t((b * n + i) * s.groups + g)] *
                    (through[std::size_t(c)] - mean - trace.xhat[trace.channel(b, i, c)] * along);
            }
        }

    linear_attention_backward<T>(
        {trace.tensor(trace.scaled_q), trace.tensor(trace.phi_k), trace.tensor(trace.v), w.decay}, state, absent,
        trace.tensor(d_attention), trace.tensor(dq), trace.tensor(dk), trace.tensor(dv), grad.decay, grad_state, absent,
        {});
    for (index h = 0; h < s.heads && w.q_scale.is_given(); ++h)
        for (index i = 0; i < n; ++i) {
            T sum = 0;
            for (index b = 0; b < batch; ++b)
                for (index c = 0; c < d; ++c) {
                    sum += dq[trace.at(b, h, i, c)] * trace.phi_q[trace.at(b, h, i, c)];
                    dq[trace.at(b, h, i, c)] *= w.q_scale(h, i);
                }
            if (grad.q_scale.is_given())
                grad.q_scale(h, i) = sum;
        }
    std::vector<T> t_of_k(static_cast<std::size_t>(d)), before_q(dq.size()), before_k(dq.size());
    dct_feature_map_backward<T>(trace.rows(trace.q), w.t, absent, trace.rows(dq), absent, trace.changeable(before_q),
                                grad.t, absent, trace.matrix, {});
    dct_feature_map_backward<T>(trace.rows(trace.k), w.t, absent, trace.rows(dk), absent, trace.changeable(before_k),
                                t_of_k, absent, trace.matrix, {});
    for (index c = 0; c < d; ++c)
        grad.t(c) += t_of_k[std::size_t(c)];
    trace.rotate(before_q, s, -1);
    trace.rotate(before_k, s, -1);

    for (index b = 0; b < batch; ++b)
        for (index i = 0; i < n; ++i)
            for (index j = 0; j < e; ++j) {
                T sum = 0;
                for (index c = 0; c < e; ++c) {
                    sum += dz[trace.channel(b, i, c)] * w.w_gate(j, c);
                    grad.w_gate(j, c) += x(b, i, j) * dz[trace.channel(b, i, c)];
                }
                for (index row = 0; row < 3 * e; ++row) {
                    const index c = row % (3 * d);
                    const std::vector<T>& of = c < d ? before_q : c < 2 * d ? before_k : dv;
                    const T g = of[trace.at(b, row / (3 * d), i, c % d)];
                    sum += g * w.w_qkv(row, j);
                    grad.w_qkv(row, j) += g * x(b, i, j);
                    if (j == 0)
                        grad.b_qkv(row) += g;
                }
                grad_x(b, i, j) = sum;
            }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Naive reference of dense_mamba_block: layer after layer over all tokens, every state of every token kept
/// (arXiv:2312.00752, section 3.4; arXiv:2403.00818, figure 1).
#ifndef DEFT_REFERENCE_SSM_DENSE_MAMBA_BLOCK_HPP
#define DEFT_REFERENCE_SSM_DENSE_MAMBA_BLOCK_HPP

#include <deft/reference/ssm/causal_conv1d.hpp>
#include <deft/reference/ssm/dense_retnet_block.hpp>
#include <deft/reference/ssm/selective_scan.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// Tensors as in dense_mamba_layer.
template <class T>
struct mamba_tensors {
    view<const T, 1> norm;
    view<const T, 2> in_proj, conv_weight;
    view<const T, 1> conv_bias;
    view<const T, 2> x_proj, dt_proj;
    view<const T, 1> dt_bias;
    view<const T, 2> A;
    view<const T, 1> D;
    view<const T, 2> out_proj, sel1, sel2;
};

struct mamba_form {
    index window;
    bool is_recurrent; ///< fused states are carried on
    double eps;
};

/// x, y [B, T, D]; of each layer: conv states [B, W - 1, E] and scan states [B, E, N], updated.
template <class T>
void dense_mamba_block(in<T, 3> x, const std::vector<mamba_tensors<T>>& layers, view<T, 3> y,
                       const std::vector<view<T, 3>>& convs, const std::vector<view<T, 3>>& scans,
                       const mamba_form& form) {
    const index batch = x.extent(0), tokens = x.extent(1), d = x.extent(2), rows = batch * tokens;
    matrix_of<T> stream(rows, d);
    for (index r = 0; r < rows; ++r)
        for (index c = 0; c < d; ++c)
            stream(r, c) = x(r / tokens, r % tokens, c);
    std::vector<matrix_of<T>> passed; // h of every token of every layer, [rows, E N]
    for (std::size_t l = 0; l < layers.size(); ++l) {
        const mamba_tensors<T>& w = layers[l];
        const index e = w.A.extent(0), n = w.A.extent(1), rank = w.dt_proj.extent(1);
        matrix_of<T> normed = rms_norm<T>(stream.all(), w.norm, form.eps);
        matrix_of<T> xz = linear<T>(normed.all(), w.in_proj), u(rows, e), dt(rows, rank), hidden(rows, e * n),
                     out(rows, e);
        causal_conv1d<T>({xz.memory.data(), {batch, tokens, e}, {tokens * 2 * e, 2 * e, index{1}}}, w.conv_weight,
                         w.conv_bias, {u.memory.data(), {batch, tokens, e}}, convs[l], activation::silu);
        matrix_of<T> dbc = linear<T>(u.all(), w.x_proj);
        for (index r = 0; r < rows; ++r)
            for (index i = 0; i < rank; ++i)
                dt(r, i) = dbc(r, i);
        matrix_of<T> delta = linear<T>(dt.all(), w.dt_proj), gate(rows, e);
        const index seen = std::min(form.window, index(l));
        if (seen > 0) {
            matrix_of<T> middle = scaled_silu(linear<T>(normed.all(), w.sel1), T(1));
            gate = scaled_silu(linear<T>(middle.all(), w.sel2), T(1));
        }
        for (index b = 0; b < batch; ++b)
            for (index t = 0; t < tokens; ++t)
                for (index c = 0; c < e; ++c) {
                    const index r = b * tokens + t;
                    const T step = softplus(delta(r, c) + (w.dt_bias.is_given() ? w.dt_bias(c) : T(0)));
                    T sum = 0;
                    for (index s = 0; s < n; ++s) {
                        T fused = 0;
                        for (std::size_t i = passed.size() - std::size_t(seen); i < passed.size(); ++i)
                            fused += gate(r, c) * passed[i](r, c * n + s);
                        T& h = scans[l](b, c, s);
                        h = std::exp(step * w.A(c, s)) * h + step * dbc(r, rank + s) * u(r, c);
                        if (form.is_recurrent && seen > 0)
                            h += fused;
                        hidden(r, c * n + s) = h;
                        sum += dbc(r, rank + n + s) * (form.is_recurrent ? h : h + fused);
                    }
                    if (w.D.is_given())
                        sum += w.D(c) * u(r, c);
                    out(r, c) = sum * activate(activation::silu, xz(r, e + c));
                }
        passed.push_back(hidden);
        matrix_of<T> more = linear<T>(out.all(), w.out_proj);
        for (index r = 0; r < rows; ++r)
            for (index c = 0; c < d; ++c)
                stream(r, c) += more(r, c);
    }
    for (index r = 0; r < rows; ++r)
        for (index c = 0; c < d; ++c)
            y(r / tokens, r % tokens, c) = stream(r, c);
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

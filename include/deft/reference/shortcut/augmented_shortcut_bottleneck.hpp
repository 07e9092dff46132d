/// \file
/// Naive reference of augmented_shortcut_bottleneck: one token, one path at a time.
///
/// PanGu-pi (arXiv:2312.17276, section 4.1):
///     u_i = z down_i + down_bias_i;  h_i = sigma(u_i);  v_i = h_i up_i + up_bias_i
///     y = scale (main + R + sum_i post(v_i)),  R = z, a tensor of its own, or 0
#ifndef DEFT_REFERENCE_SHORTCUT_AUGMENTED_SHORTCUT_BOTTLENECK_HPP
#define DEFT_REFERENCE_SHORTCUT_AUGMENTED_SHORTCUT_BOTTLENECK_HPP

#include <deft/reference/shortcut/augmented_shortcut.hpp>
#include <deft/view.hpp>

#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// down is [T, d, k], up is [T, k, d], each [in, out]; the biases, [T, k] and [T, d], may be absent.
template <class T>
struct bottleneck_weights {
    in<T, 3> down, up;
    in<T, 2> down_bias, up_bias;
    activation kind, post;
    double slope;
};

/// u, h = sigma(u) and v of one token on one path.
template <class T>
struct bottleneck_token {
    std::vector<T> u, h, v;

    bottleneck_token(in<T, 2> z, index r, const bottleneck_weights<T>& w, index path)
        : u(shortcut_arguments<T>(z.data() + r * z.stride(0), w.down, w.down_bias, path)), h(u) {
        for (T& x : h)
            x = activate(w.kind, x, w.slope);
        v = shortcut_arguments<T>(h.data(), w.up, w.up_bias, path);
    }
};

/// z, main, y are [M, d]; residual is R, or absent: 0.
template <class T>
void augmented_shortcut_bottleneck(in<T, 2> z, in<T, 2> main, const bottleneck_weights<T>& w, in<T, 2> residual,
                                   T scale, view<T, 2> y) {
    for (index r = 0; r < z.extent(0); ++r) {
        std::vector<T> sum;
        for (index o = 0; o < z.extent(1); ++o)
            sum.push_back(main(r, o) + (residual.is_given() ? residual(r, o) : T(0)));
        for (index i = 0; i < w.down.extent(0); ++i) {
            const bottleneck_token<T> token(z, r, w, i);
            for (index o = 0; o < z.extent(1); ++o)
                sum[std::size_t(o)] += activate(w.post, token.v[std::size_t(o)], w.slope);
        }
        for (index o = 0; o < z.extent(1); ++o)
            y(r, o) = scale * sum[std::size_t(o)];
    }
}

/// Gradients of the weights, in the shapes of the weights; of absent biases absent.
template <class T>
struct bottleneck_gradients {
    view<T, 3> down, up;
    view<T, 2> down_bias, up_bias;
};

template <class T, int Rank>
void set_zero(const view<T, Rank>& v) {
    for (index i = 0; i < v.extent(0); ++i)
        for (index j = 0; j < v.extent(1); ++j)
            if constexpr (Rank == 2)
                v(i, j) = 0;
            else
                for (index k = 0; k < v.extent(2); ++k)
                    v(i, j, k) = 0;
}

/// p = scale g post'(v); q = (p up^T) sigma'(u); grad_up = sum h p, grad_down = sum z q over tokens, and so on.
template <class T>
void augmented_shortcut_bottleneck_backward(in<T, 2> z, const bottleneck_weights<T>& w, in<T, 2> grad_y,
                                            bool residual_is_z, T scale, view<T, 2> grad_z, out<T, 2> grad_main,
                                            out<T, 2> grad_residual, const bottleneck_gradients<T>& grad) {
    const index d = z.extent(1);
    set_zero(grad.down);
    set_zero(grad.up);
    set_zero(grad.down_bias);
    set_zero(grad.up_bias);
    for (index r = 0; r < z.extent(0); ++r) {
        for (index o = 0; o < d; ++o) {
            grad_main(r, o) = scale * grad_y(r, o);
            if (grad_residual.is_given())
                grad_residual(r, o) = scale * grad_y(r, o);
            grad_z(r, o) = residual_is_z ? scale * grad_y(r, o) : T(0);
        }
        for (index i = 0; i < w.down.extent(0); ++i) {
            const bottleneck_token<T> token(z, r, w, i);
            std::vector<T> p;
            for (index o = 0; o < d; ++o) {
                p.push_back(scale * grad_y(r, o) * activate_derivative(w.post, token.v[std::size_t(o)], w.slope));
                if (grad.up_bias.is_given())
                    grad.up_bias(i, o) += p.back();
            }
            for (index k = 0; k < w.down.extent(2); ++k) {
                T q = 0;
                for (index o = 0; o < d; ++o) {
                    q += p[std::size_t(o)] * w.up(i, k, o);
                    grad.up(i, k, o) += token.h[std::size_t(k)] * p[std::size_t(o)];
                }
                q *= activate_derivative(w.kind, token.u[std::size_t(k)], w.slope);
                if (grad.down_bias.is_given())
                    grad.down_bias(i, k) += q;
                for (index j = 0; j < d; ++j) {
                    grad.down(i, j, k) += z(r, j) * q;
                    grad_z(r, j) += q * w.down(i, j, k);
                }
            }
        }
    }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

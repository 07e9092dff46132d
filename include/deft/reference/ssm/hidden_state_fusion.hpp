/// \file
/// Naive reference of hidden_state_fusion: one row at a time (DenseSSM, arXiv:2403.00818, section 3.2;
/// WailordHe/DenseSSM, HiddenProjection, k_select and v_select).
#ifndef DEFT_REFERENCE_SSM_HIDDEN_STATE_FUSION_HPP
#define DEFT_REFERENCE_SSM_HIDDEN_STATE_FUSION_HPP

#include <deft/reference/activation/activation.hpp>
#include <deft/view.hpp>

#include <cmath>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

template <class T>
struct fusion_tensors {
    view<const T, 2> current, x;
    view<const T, 3> past;
    view<const T, 2> w1, w2;
    view<const T, 3> proj;
    view<const T, 1> norm_weight;
    activation gate;
    index gate_group;
    bool has_norm;
    double eps;
};

/// What one row is made of.
template <class T>
struct fusion_row {
    std::vector<T> u, a, s, f; ///< w1 x, w2 silu(u), sum_i P_i p_i, the fused state
    double r = 1;              ///< 1 / sqrt(mean(f^2) + eps)

    fusion_row(const fusion_tensors<T>& in, index row) {
        const index width = in.current.extent(1);
        for (index k = 0; k < in.w1.extent(0); ++k) {
            u.push_back(0);
            for (index j = 0; j < in.x.extent(1); ++j)
                u.back() += in.w1(k, j) * in.x(row, j);
        }
        for (index k = 0; k < in.w2.extent(0); ++k) {
            a.push_back(0);
            for (index j = 0; j < in.w1.extent(0); ++j)
                a.back() += in.w2(k, j) * activate(activation::silu, u[std::size_t(j)]);
        }
        double squares = 0;
        for (index c = 0; c < width; ++c) {
            T sum = 0;
            for (index i = 0; i < in.past.extent(0); ++i)
                if (in.proj.is_given())
                    for (index j = 0; j < in.past.extent(2); ++j)
                        sum += in.proj(i, c, j) * in.past(i, row, j);
                else
                    sum += in.past(i, row, c);
            s.push_back(sum);
            f.push_back(in.past.extent(0) == 0 ? in.current(row, c) : in.current(row, c) + gate(in, c) * sum);
            squares += double(f.back()) * double(f.back());
        }
        if (in.has_norm)
            r = 1 / std::sqrt(squares / double(width) + in.eps);
    }
    T gate(const fusion_tensors<T>& in, index c) const {
        return activate(in.gate, a[std::size_t(c / in.gate_group)]);
    }
};

template <class T>
T fusion_weight(const fusion_tensors<T>& in, index c) {
    return in.norm_weight.is_given() ? in.norm_weight(c) : T(1);
}

/// current, y [R, Dh]; x [R, Dx]; past [m, R, Dp]; w1 [M, Dx]; w2 [Dg, M]; proj [m, Dh, Dp]; norm_weight [Dh].
template <class T>
void hidden_state_fusion(const fusion_tensors<T>& in, view<T, 2> y) {
    for (index row = 0; row < in.current.extent(0); ++row) {
        const fusion_row<T> fused(in, row);
        for (index c = 0; c < in.current.extent(1); ++c)
            y(row, c) =
                in.has_norm ? fused.f[std::size_t(c)] * T(fused.r) * fusion_weight(in, c) : fused.f[std::size_t(c)];
    }
}

/// Gradients; those of absent inputs are absent.
template <class T>
struct fusion_gradients {
    view<T, 2> current, x;
    view<T, 3> past;
    view<T, 2> w1, w2;
    view<T, 3> proj;
    view<T, 1> norm_weight;
};

template <class T>
void hidden_state_fusion_backward(const fusion_tensors<T>& in, view<const T, 2> grad_y,
                                  const fusion_gradients<T>& grad) {
    const index width = in.current.extent(1), middle = in.w1.extent(0), gates = in.w2.extent(0),
                past = in.past.extent(0), inner = in.past.extent(2), features = in.x.extent(1);
    std::vector<double> w1(std::size_t(middle * features), 0.0), w2(std::size_t(gates * middle), 0.0),
        weight(std::size_t(width), 0.0), proj(std::size_t(in.proj.size()), 0.0);
    for (index row = 0; row < in.current.extent(0); ++row) {
        const fusion_row<T> fused(in, row);
        const auto f = [&](index c) { return fused.f[std::size_t(c)]; };
        double mean = 0;
        for (index c = 0; c < width; ++c)
            mean += double(grad_y(row, c) * fusion_weight(in, c)) * double(f(c)) / double(width);
        std::vector<T> grad_a(std::size_t(gates), T(0)), t(std::size_t(middle), T(0));
        for (index c = 0; c < width; ++c) {
            T g = grad_y(row, c);
            if (in.has_norm) {
                weight[std::size_t(c)] += double(g * f(c)) * fused.r;
                // In double: the two terms cancel in short rows.
                g = T(fused.r * (double(g * fusion_weight(in, c)) - double(f(c)) * fused.r * mean * fused.r));
            }
            grad.current(row, c) = g;
            const index k = c / in.gate_group;
            grad_a[std::size_t(k)] +=
                g * fused.s[std::size_t(c)] * activate_derivative(in.gate, fused.a[std::size_t(k)]);
        }
        for (index i = 0; i < past; ++i)
            for (index j = 0; j < inner; ++j) {
                grad.past(i, row, j) = 0;
                for (index c = in.proj.is_given() ? 0 : j; c < (in.proj.is_given() ? width : j + 1); ++c) {
                    const T of_state = grad.current(row, c) * fused.gate(in, c);
                    grad.past(i, row, j) += in.proj.is_given() ? in.proj(i, c, j) * of_state : of_state;
                    if (in.proj.is_given())
                        proj[std::size_t((i * width + c) * inner + j)] += double(of_state * in.past(i, row, j));
                }
            }
        for (index k = 0; past > 0 && k < gates; ++k)
            for (index j = 0; j < middle; ++j) {
                w2[std::size_t(k * middle + j)] +=
                    double(grad_a[std::size_t(k)] * activate(activation::silu, fused.u[std::size_t(j)]));
                t[std::size_t(j)] += in.w2(k, j) * grad_a[std::size_t(k)];
            }
        for (index j = 0; j < features; ++j)
            grad.x(row, j) = 0;
        for (index k = 0; k < middle; ++k) {
            const T e = t[std::size_t(k)] * activate_derivative(activation::silu, fused.u[std::size_t(k)]);
            for (index j = 0; j < features; ++j) {
                w1[std::size_t(k * features + j)] += double(e * in.x(row, j));
                grad.x(row, j) += in.w1(k, j) * e;
            }
        }
    }
    for (index k = 0; k < middle; ++k)
        for (index j = 0; j < features; ++j)
            grad.w1(k, j) = T(w1[std::size_t(k * features + j)]);
    for (index k = 0; k < gates; ++k)
        for (index j = 0; j < middle; ++j)
            grad.w2(k, j) = T(w2[std::size_t(k * middle + j)]);
    for (index c = 0; grad.norm_weight.is_given() && c < width; ++c)
        grad.norm_weight(c) = T(weight[std::size_t(c)]);
    for (index i = 0; grad.proj.is_given() && i < past; ++i)
        for (index c = 0; c < width; ++c)
            for (index j = 0; j < inner; ++j)
                grad.proj(i, c, j) = T(proj[std::size_t((i * width + c) * inner + j)]);
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

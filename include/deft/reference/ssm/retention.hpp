/// \file
/// Naive reference of retention: token after token, and as rows of a whole matrix (arXiv:2307.08621, eq. 5 and 6).
#ifndef DEFT_REFERENCE_SSM_RETENTION_HPP
#define DEFT_REFERENCE_SSM_RETENTION_HPP

#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

enum class retention_rows { plain, sum_abs, abs_sum };

struct retention_form {
    bool roots = true; ///< of the decayed count
    retention_rows rows = retention_rows::plain;
    double most = HUGE_VAL; ///< clamp_max
};

/// q, k [B, H, T, dk]; v [B, H, T, dv]; gamma [H].
template <class T>
struct retention_inputs {
    view<const T, 4> q, k, v;
    view<const double, 1> gamma;
};

namespace detail {

template <class T>
T bounded(T sum, const retention_form& form) {
    return std::min(std::max(std::abs(sum), T(1)), T(form.most));
}

/// The weights of the tokens [0, n] in the output of token n, from an empty state, before the division by their sum.
template <class T>
std::vector<T> retention_row(const retention_inputs<T>& in, index b, index h, index n, const retention_form& form) {
    std::vector<T> weight(std::size_t(n + 1));
    double count = 0;
    for (index m = 0; m <= n; ++m)
        count += std::pow(in.gamma(h), double(m));
    for (index m = 0; m <= n; ++m) {
        T product = 0;
        for (index d = 0; d < in.q.extent(3); ++d)
            product += in.q(b, h, n, d) * in.k(b, h, m, d);
        const double decay = std::pow(in.gamma(h), double(n - m));
        weight[std::size_t(m)] = product * T(form.roots ? decay / std::sqrt(count) : decay);
    }
    return weight;
}

template <class T>
T row_divisor(const std::vector<T>& weight, const retention_form& form) {
    if (form.rows == retention_rows::plain)
        return T(1);
    T sum = 0;
    for (const T w : weight)
        sum += form.rows == retention_rows::abs_sum ? std::abs(w) : w;
    return bounded(sum, form);
}

} // namespace detail

/// The whole matrix of weights, from an empty state.
template <class T>
void retention_parallel(const retention_inputs<T>& in, view<T, 4> o, const retention_form& form) {
    for (index b = 0; b < o.extent(0); ++b)
        for (index h = 0; h < o.extent(1); ++h)
            for (index n = 0; n < o.extent(2); ++n) {
                const std::vector<T> weight = detail::retention_row(in, b, h, n, form);
                const T divisor = detail::row_divisor(weight, form);
                for (index e = 0; e < o.extent(3); ++e) {
                    T sum = 0;
                    for (index m = 0; m <= n; ++m)
                        sum += weight[std::size_t(m)] / divisor * in.v(b, h, m, e);
                    o(b, h, n, e) = sum;
                }
            }
}

/// Updates the states, then reads them. state [B, H, dk, dv], scale [H], key_state [B, H, dk]; all are updated, the
/// last may be absent. abs_sum begins from empty states. divisor [B, H, T], if given, receives sqrt(c) rho.
template <class T>
void retention(const retention_inputs<T>& in, view<T, 4> o, out<T, 4> state, out<double, 1> scale, out<T, 3> key_state,
               const retention_form& form, out<T, 3> divisor = absent) {
    const index tokens = in.q.extent(2), rows = in.q.extent(3), columns = in.v.extent(3);
    if (form.rows == retention_rows::abs_sum)
        retention_parallel<T>(in, o, form);
    for (index h = 0; h < in.q.extent(1); ++h) {
        const double gamma = in.gamma(h), start = scale.is_given() ? scale(h) : 0.0;
        for (index t = 0; t < tokens && scale.is_given(); ++t)
            scale(h) = gamma * scale(h) + 1;
        for (index b = 0; b < in.q.extent(0); ++b) {
            double count = start;
            for (index t = 0; t < tokens; ++t) {
                count = gamma * count + 1;
                const T root = form.roots ? T(std::sqrt(count)) : T(1);
                T sum = 0;
                for (index d = 0; d < rows; ++d) {
                    for (index e = 0; e < columns; ++e)
                        state(b, h, d, e) = T(gamma) * state(b, h, d, e) + in.k(b, h, t, d) * in.v(b, h, t, e);
                    if (key_state.is_given()) {
                        key_state(b, h, d) = T(gamma) * key_state(b, h, d) + in.k(b, h, t, d);
                        sum += in.q(b, h, t, d) * key_state(b, h, d);
                    }
                }
                T divided = form.rows == retention_rows::sum_abs ? root * detail::bounded(sum / root, form) : root;
                if (form.rows == retention_rows::abs_sum)
                    divided = root * detail::row_divisor(detail::retention_row(in, b, h, t, form), form);
                if (divisor.is_given())
                    divisor(b, h, t) = divided;
                for (index e = 0; e < columns && form.rows != retention_rows::abs_sum; ++e) {
                    T read = 0;
                    for (index d = 0; d < rows; ++d)
                        read += in.q(b, h, t, d) * state(b, h, d, e);
                    o(b, h, t, e) = read / divided;
                }
            }
        }
    }
}

/// Gradients for the cotangents grad_o of o and, in grad_state, of the final state; grad_state receives those of the
/// first one. What is divided by is a constant. state, scale, key_state: those before the call; absent: empty.
template <class T>
void retention_backward(const retention_inputs<T>& in, reference::retention_form form, deft::in<T, 4> state,
                        deft::in<double, 1> scale, deft::in<T, 3> key_state, deft::in<T, 4> grad_o, view<T, 4> grad_q,
                        out<T, 4> grad_k, out<T, 4> grad_v, out<T, 4> grad_state) {
    const index batch = in.q.extent(0), heads = in.q.extent(1), tokens = in.q.extent(2), rows = in.q.extent(3),
                columns = in.v.extent(3);
    std::vector<T> s(std::size_t(batch * heads * rows * columns)), z(std::size_t(batch * heads * rows)),
        o(std::size_t(batch * heads * tokens * columns)), divided(std::size_t(batch * heads * tokens));
    std::vector<double> c(std::size_t(heads), 0.0);
    const view<T, 4> states(s.data(), {batch, heads, rows, columns}),
        outputs(o.data(), {batch, heads, tokens, columns});
    const view<T, 3> keys(z.data(), {batch, heads, rows}), divisor(divided.data(), {batch, heads, tokens});
    const auto begin = [&] {
        for (index b = 0; b < batch; ++b)
            for (index h = 0; h < heads; ++h)
                for (index d = 0; d < rows; ++d) {
                    keys(b, h, d) = key_state.is_given() ? key_state(b, h, d) : T(0);
                    for (index e = 0; e < columns; ++e)
                        states(b, h, d, e) = state.is_given() ? state(b, h, d, e) : T(0);
                }
    };
    begin();
    for (index h = 0; h < heads; ++h)
        c[std::size_t(h)] = scale.is_given() ? scale(h) : 0.0;
    retention<T>(in, outputs, states, {c.data(), {heads}}, keys, form, divisor);
    begin();
    for (index b = 0; b < batch; ++b)
        for (index h = 0; h < heads; ++h) {
            const T gamma = T(in.gamma(h));
            for (index t = 0; t < tokens; ++t)
                for (index d = 0; d < rows; ++d) {
                    T sum = 0;
                    for (index e = 0; e < columns; ++e) {
                        T& at = states(b, h, d, e);
                        at = gamma * at + in.k(b, h, t, d) * in.v(b, h, t, e);
                        sum += at * grad_o(b, h, t, e);
                    }
                    grad_q(b, h, t, d) = sum / divisor(b, h, t);
                }
            std::vector<T> g(std::size_t(rows * columns));
            for (index d = 0; d < rows && grad_state.is_given(); ++d)
                for (index e = 0; e < columns; ++e)
                    g[std::size_t(d * columns + e)] = grad_state(b, h, d, e);
            for (index t = tokens - 1; t >= 0; --t) {
                for (index e = 0; e < columns; ++e)
                    grad_v(b, h, t, e) = 0;
                for (index d = 0; d < rows; ++d) {
                    grad_k(b, h, t, d) = 0;
                    for (index e = 0; e < columns; ++e) {
                        T& at = g[std::size_t(d * columns + e)];
                        at += in.q(b, h, t, d) * grad_o(b, h, t, e) / divisor(b, h, t);
                        grad_k(b, h, t, d) += at * in.v(b, h, t, e);
                        grad_v(b, h, t, e) += at * in.k(b, h, t, d);
                        at *= gamma;
                    }
                }
            }
            for (index d = 0; d < rows && grad_state.is_given(); ++d)
                for (index e = 0; e < columns; ++e)
                    grad_state(b, h, d, e) = g[std::size_t(d * columns + e)];
        }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

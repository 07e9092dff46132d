/// \file
/// The features of dct_feature_map and their gradient for a few rows, one per lane: transform, scaling, exponentials
/// and their sum while the rows are in the first cache. C++17.
///
///     x' = s x,  y = DCT(x'),  u_j = t_j y_{j mod d},  j < m = r d
///     softmax:   phi_j = D_j exp(u_j - max u) / sum_l exp(u_l - max u)
///     exp:       phi_j = D_j g exp(u_j - c |x'|^2)
///     shifted:   phi_j = D_j g exp(u_j - max u),  log_scale = max u - c |x'|^2
///     log:       phi_j = log (D_j g) + u_j - c |x'|^2
///
/// Contract: any alignment; phi may be x if m = d, and grad_x then grad_phi. What is not finite in a row makes
/// NaN of all of it. Sums are taken in lanes; those over rows are the caller's.
#ifndef DEFT_KERNELS_DCT_FEATURES_HPP
#define DEFT_KERNELS_DCT_FEATURES_HPP

#include <deft/kernels/dct.hpp>
#include <deft/kernels/row_lanes.hpp>
#include <deft/simd/math.hpp>

#include <limits>
#include <type_traits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

enum class feature_form : unsigned char { softmax, exp, shifted, log };

template <class T>
struct dct_features {
    const dct_tables<T>* tables = nullptr;
    bool transposed = false; // y = M^T x'
    feature_form form = feature_form::softmax;
    index m = 0;
    T scale = 1, penalty = 0, gain = 1; // s, c, g
    const T* t = nullptr;               // s t_j
    const T* weight = nullptr;          // D_j, or log |D_j g| for log; null: 1, or 0

    index d() const noexcept {
        return tables->n;
    }
    template <class Arch>
    index forward_count() const noexcept { // numbers of working memory
        return tables->template work_count<Arch>() + m * simd::lanes<T, Arch>;
    }
    template <class Arch>
    index backward_count() const noexcept {
        return 2 * tables->template work_count<Arch>() + (2 * m + d()) * simd::lanes<T, Arch>;
    }
};

namespace detail {

// body(i, count) for i = 0 .. n - 1, up to four at a time so that chains of operations overlap.
template <class Body>
DEFT_ALWAYS_INLINE void by_fours(index n, Body&& body) noexcept {
    index i = 0;
    for (; i + 4 <= n; i += 4)
        body(i, std::integral_constant<int, 4>{});
    for (; i < n; ++i)
        body(i, std::integral_constant<int, 1>{});
}

// Per lane.
template <class T, class Arch>
struct feature_scalars {
    simd::batch<T, Arch> factor, log_scale; // of the exponentials
};

// The rows in `lanes`, transformed; u = the exponentials of all features before their factor, or for log the features.
// y is where the transform is left.
template <class Arch, class T>
DEFT_NOINLINE feature_scalars<T, Arch> features_of_lanes(const dct_features<T>& f, T* lanes, T* u, const T*& y_out,
                                                         const dct_rows_ahead& ahead = {}) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    const index d = f.d(), m = f.m;
    B squares(T(0));
    if (f.penalty != T(0)) {
        B sums[4] = {squares, squares, squares, squares};
        by_fours(d, [&](index i, auto count) DEFT_INLINE_LAMBDA {
            DEFT_UNROLL
            for (int v = 0; v < decltype(count)::value; ++v) {
                const B x = simd::load<Arch>(lanes + (i + v) * width);
                sums[v] = simd::fma(x, x, sums[v]);
            }
        });
        squares = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
    const B norm = B(f.penalty * f.scale * f.scale) * squares;

    const T* const y = dct_lanes<Arch>(*f.tables, f.transposed, lanes, ahead);
    const auto transformed = f.tables->output(f.transposed).template of<Arch>(y);
    y_out = y;
    const B poison = simd::load<Arch>(y) * B(T(0)); // infinite lanes become NaN
    B most[4];
    for (B& b : most)
        b = B(-std::numeric_limits<T>::infinity());
    for (index first = 0; first < m; first += d)
        by_fours(d, [&](index j, auto count) DEFT_INLINE_LAMBDA {
            DEFT_UNROLL
            for (int v = 0; v < decltype(count)::value; ++v) {
                const B a = B(f.t[first + j + v]) * simd::load<Arch>(transformed(j + v));
                simd::store<T>(u + (first + j + v) * width, a);
                most[v] = simd::at_least(most[v], a);
            }
        });
    const B greatest = simd::at_least(simd::at_least(most[0], most[1]), simd::at_least(most[2], most[3]));

    const bool shifted = f.form == feature_form::softmax || f.form == feature_form::shifted;
    const B shift = (shifted ? greatest : norm) + poison;
    if (f.form == feature_form::log) {
        for (index j = 0; j < m; ++j)
            simd::store<T>(u + j * width, (simd::load<Arch>(u + j * width) - shift));
        return {B(T(1)), B(T(0))};
    }
    B sums[4] = {B(T(0)), B(T(0)), B(T(0)), B(T(0))};
    const auto exponentials = [&](auto&& exp) DEFT_INLINE_LAMBDA {
        by_fours(m, [&](index j, auto count) DEFT_INLINE_LAMBDA {
            constexpr int n = decltype(count)::value;
            B e[std::size_t(n)];
            DEFT_UNROLL
            for (int v = 0; v < n; ++v)
                e[v] = exp(simd::load<Arch>(u + (j + v) * width) - shift);
            DEFT_UNROLL
            for (int v = 0; v < n; ++v) {
                simd::store<T>(u + (j + v) * width, e[v]);
                sums[v] = sums[v] + e[v];
            }
        });
    };
    if (shifted)
        exponentials([](const B& a) DEFT_INLINE_LAMBDA { return simd::exp_saturating(a); }); // at most 1
    else
        exponentials([](const B& a) DEFT_INLINE_LAMBDA { return simd::exp(a); });
    const B total = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    return {f.form == feature_form::softmax ? B(T(1)) / total : B(f.gain), shift - norm};
}

} // namespace detail

/// `count` <= lanes rows at x to phi; log_scale, one per row, may be null. `work` holds forward_count numbers.
template <class Arch, class S, class T>
void dct_features_forward(const dct_features<T>& f, const S* x, index x_stride, index count, S* phi, index phi_stride,
                          T* log_scale, T* work, const dct_rows_ahead& ahead) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    T* const u = work + f.tables->template work_count<Arch>();
    load_lanes<Arch>(x, x_stride, count, f.d(), f.tables->input(f.transposed).template of<Arch>(work));
    const T* y = nullptr;
    const auto scalars = detail::features_of_lanes<Arch>(f, work, u, y, ahead);
    const B factor = scalars.factor;
    const T* const weight = f.weight;
    const auto store = [&](auto&& value) DEFT_INLINE_LAMBDA { store_lanes<Arch>(phi, phi_stride, count, f.m, value); };
    if (weight == nullptr)
        store([&](index j) DEFT_INLINE_LAMBDA { return simd::load<Arch>(u + j * width) * factor; });
    else if (f.form == feature_form::log)
        store([&](index j) DEFT_INLINE_LAMBDA { return simd::load<Arch>(u + j * width) + B(weight[j]); });
    else
        store([&](index j) DEFT_INLINE_LAMBDA { return simd::load<Arch>(u + j * width) * (B(weight[j]) * factor); });
    if (log_scale != nullptr)
        simd::store<T>(log_scale, scalars.log_scale, simd::partial{count});
}

/// What a feature map's gradient reads and writes, at its first row.
template <class T>
struct dct_features_rows {
    const T* x;
    index x_stride;
    const T* grad_phi;
    index grad_phi_stride;
    const T* grad_log_scale; // one per row, may be null
    T* grad_x;
    index grad_x_stride;
    index count;
};

/// Gradients of x; those of s t and of D are added to m vectors each, to be summed over lanes. With G the cotangent of
/// phi, l of log_scale, p = phi / D:
///
///     softmax:  du = p (G D - sum_j G_j D_j p_j)        exp, shifted:  du = G phi        log:  du = G
///     A = sum_j du_j (exp, log) or l (shifted),  dt_j = du_j y_j,  dD_j = G_j p_j (log: G_j / D_j, left to the caller)
///     dy_i = sum over j mod d = i of t_j du_j,  dx = s (M^T dy - 2 c A x')
///
/// max u counts as constant: exact for all that depends on exp(log_scale) phi alone.
template <class Arch, class T>
void dct_features_backward(const dct_features<T>& f, const dct_features_rows<T>& rows, T* grad_t, T* grad_weight,
                           T* work) noexcept {
    using B = simd::batch<T, Arch>;
    constexpr index width = simd::lanes<T, Arch>;
    const index d = f.d(), m = f.m, tables = f.tables->template work_count<Arch>();
    T *const back = work + tables, *const u = back + tables, *const g = u + m * width, *const x = g + m * width;
    const T *const t = f.t, *const weight = f.form == feature_form::log ? nullptr : f.weight;
    const auto input = f.tables->input(f.transposed).template of<Arch>(work);
    load_lanes<Arch>(rows.x, rows.x_stride, rows.count, d, input);
    for (index j = 0; j < d; ++j) // the transform overwrites its input
        simd::store<T>(x + j * width, simd::load<Arch>(input(j)));
    load_lanes<Arch>(rows.grad_phi, rows.grad_phi_stride, rows.count, m,
                     [&](index j) DEFT_INLINE_LAMBDA { return g + j * width; });
    const T* y = nullptr;
    const B factor = detail::features_of_lanes<Arch>(f, work, u, y).factor;

    // g = G D p, u = p; the sum of g.
    B total(T(0));
    for (index j = 0; j < m; ++j) {
        const B p = f.form == feature_form::log ? B(T(1)) : simd::load<Arch>(u + j * width) * factor;
        const B through = simd::load<Arch>(g + j * width) * p;
        simd::store<T>(grad_weight + j * width, simd::load<Arch>(grad_weight + j * width) + through);
        const B weighted = weight == nullptr ? through : B(weight[j]) * through;
        simd::store<T>(u + j * width, p);
        simd::store<T>(g + j * width, weighted);
        total = total + weighted;
    }
    const B mean = f.form == feature_form::softmax ? total : B(T(0));
    const auto transformed = f.tables->output(f.transposed).template of<Arch>(y);
    const auto back_input = f.tables->input(!f.transposed).template of<Arch>(back);
    for (index i = 0; i < d; ++i) {
        B dy(T(0));
        const B here = simd::load<Arch>(transformed(i));
        for (index j = i; j < m; j += d) {
            const B du = simd::fma(-mean, simd::load<Arch>(u + j * width), simd::load<Arch>(g + j * width));
            simd::store<T>(grad_t + j * width, simd::fma(du, here, simd::load<Arch>(grad_t + j * width)));
            dy = simd::fma(du, B(t[j]), dy);
        }
        simd::store<T>(back_input(i), dy);
    }
    const T* const result = dct_lanes<Arch>(*f.tables, !f.transposed, back);
    const auto dx = f.tables->output(!f.transposed).template of<Arch>(result);
    B level = total; // A
    if (f.form == feature_form::shifted || f.form == feature_form::softmax)
        level =
            rows.grad_log_scale == nullptr ? B(T(0)) : simd::load<Arch>(rows.grad_log_scale, simd::partial{rows.count});
    const B pull = level * B(T(-2) * f.penalty * f.scale * f.scale);
    store_lanes<Arch>(rows.grad_x, rows.grad_x_stride, rows.count, d, [&](index i) DEFT_INLINE_LAMBDA {
        return simd::fma(pull, simd::load<Arch>(x + i * width), simd::load<Arch>(dx(i)));
    });
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Naive reference of dct_feature_map: three passes over each row (product with the matrix, exponentials, division).
///
/// x' = s x,  y = M x',  u_j = t_j y_{j mod d},  j < m = r d
#ifndef DEFT_REFERENCE_ATTENTION_DCT_FEATURE_MAP_HPP
#define DEFT_REFERENCE_ATTENTION_DCT_FEATURE_MAP_HPP

#include <deft/reference/attention/dct.hpp>

#include <algorithm>
#include <limits>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

enum class feature_form { softmax, exp, shifted, log };

struct feature_options {
    int transform = 3; // kind of the DCT
    feature_form form = feature_form::softmax;
    double norm_coefficient = 0; // c
    double gain = 1;             // g
    double input_scale = 1;      // s
};

/// What one row goes through.
template <class T>
struct feature_row {
    std::vector<T> scaled, y, u, p; // x', M x', t y, phi / D
    T log_scale = 0;

    feature_row(const T* x, index d, in<T, 1> t, const std::vector<T>& matrix, const feature_options& options)
        : scaled(x, x + d), y(std::size_t(d)), u(std::size_t(t.extent(0))), p(u.size()) {
        const std::size_t m = u.size(), width = std::size_t(d);
        T squares = 0;
        bool finite = true;
        for (T& value : scaled) {
            finite = finite && std::isfinite(value);
            value *= T(options.input_scale);
            squares += value * value;
        }
        apply_dct<T>({scaled.data(), {1, d}}, matrix, view<T, 2>(y.data(), {1, d}));
        for (std::size_t j = 0; j < m; ++j)
            u[j] = t(index(j)) * y[j % width];
        const T largest = *std::max_element(u.begin(), u.end()), penalty = T(options.norm_coefficient) * squares;
        T sum = 0;
        for (std::size_t j = 0; j < m; ++j) {
            switch (options.form) {
            case feature_form::softmax:
                p[j] = std::exp(u[j] - largest);
                break;
            case feature_form::exp:
                p[j] = T(options.gain) * std::exp(u[j] - penalty);
                break;
            case feature_form::shifted:
                p[j] = T(options.gain) * std::exp(u[j] - largest);
                break;
            case feature_form::log:
                p[j] = T(std::log(options.gain)) + u[j] - penalty;
                break;
            }
            sum += p[j];
        }
        if (options.form == feature_form::softmax)
            for (T& value : p)
                value /= sum;
        if (options.form == feature_form::shifted)
            log_scale = largest - penalty;
        if (!finite) {
            std::fill(p.begin(), p.end(), std::numeric_limits<T>::quiet_NaN());
            log_scale = std::numeric_limits<T>::quiet_NaN();
        }
    }
};

/// x [R, d], t [m], weight [m] or absent, phi [R, m], log_scale [R] or absent. `matrix` is that of dct_matrix.
template <class T>
void dct_feature_map(in<T, 2> x, in<T, 1> t, in<T, 1> weight, view<T, 2> phi, out<T, 1> log_scale,
                     const std::vector<T>& matrix, const feature_options& options) {
    for (index r = 0; r < x.extent(0); ++r) {
        const feature_row<T> row(&x(r, 0), x.extent(1), t, matrix, options);
        for (index j = 0; j < t.extent(0); ++j) {
            const T p = row.p[std::size_t(j)], factor = weight.is_given() ? weight(j) : T(1);
            phi(r, j) = options.form == feature_form::log ? p + std::log(std::abs(factor)) : p * factor;
        }
        if (log_scale.is_given())
            log_scale(r) = row.log_scale;
    }
}

/// With G the cotangent of phi, l of log_scale: du = p (G D - sum G D p) for softmax, G for log, else G D p;
/// dt_j = sum du_j y_{j mod d}, dD_j = sum G_j p_j (log: G_j / D_j), dy_i = sum t_j du_j, A = sum du or l,
/// dx = s (M^T dy - 2 c A x').
template <class T>
void dct_feature_map_backward(in<T, 2> x, in<T, 1> t, in<T, 1> weight, in<T, 2> grad_phi, in<T, 1> grad_log_scale,
                              view<T, 2> grad_x, out<T, 1> grad_t, out<T, 1> grad_weight, const std::vector<T>& matrix,
                              const feature_options& options) {
    const index d = x.extent(1), m = t.extent(0);
    std::vector<double> sum_t(std::size_t(m), 0.0), sum_weight(std::size_t(m), 0.0);
    for (index r = 0; r < x.extent(0); ++r) {
        const feature_row<T> row(&x(r, 0), d, t, matrix, options);
        std::vector<T> du, dy(std::size_t(d), T(0));
        T total = 0;
        for (index j = 0; j < m; ++j) {
            const T p = row.p[std::size_t(j)], factor = weight.is_given() ? weight(j) : T(1);
            const bool is_log = options.form == feature_form::log;
            du.push_back(is_log ? grad_phi(r, j) : grad_phi(r, j) * factor * p);
            total += du.back();
            sum_weight[std::size_t(j)] += double(!is_log          ? grad_phi(r, j) * p
                                                 : factor == T(0) ? T(0)
                                                                  : grad_phi(r, j) / factor);
        }
        for (index j = 0; j < m; ++j) {
            T& through = du[std::size_t(j)];
            if (options.form == feature_form::softmax)
                through -= row.p[std::size_t(j)] * total;
            sum_t[std::size_t(j)] += double(through * row.y[std::size_t(j % d)]);
            dy[std::size_t(j % d)] += through * t(j);
        }
        const T level = options.form == feature_form::exp || options.form == feature_form::log ? total
                        : grad_log_scale.is_given()                                            ? grad_log_scale(r)
                                                                                               : T(0);
        for (index i = 0; i < d; ++i) {
            T sum = 0;
            for (index k = 0; k < d; ++k)
                sum += matrix[std::size_t(k * d + i)] * dy[std::size_t(k)];
            grad_x(r, i) =
                T(options.input_scale) * (sum - T(2 * options.norm_coefficient) * level * row.scaled[std::size_t(i)]);
        }
    }
    for (index j = 0; j < m; ++j) {
        grad_t(j) = T(sum_t[std::size_t(j)]);
        if (grad_weight.is_given())
            grad_weight(j) = T(sum_weight[std::size_t(j)]);
    }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

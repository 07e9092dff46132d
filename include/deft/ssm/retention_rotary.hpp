/// \file
/// The rotation e^(i p theta) of RetNet's queries and keys (arXiv:2307.08621, eq. 5) on interleaved pairs, and of any
/// rotary embedding of that layout, with the optional scale of xPos (arXiv:2212.10554). For position p = offset + t and
/// pair j of n = dk / 2:
///
///     y_2j = z (x_2j cos(p theta_j) - x_2j+1 sin(p theta_j)),    y_2j+1 = z (x_2j+1 cos(p theta_j) + x_2j sin(p
///     theta_j)) theta_j = base^(-j / (n - 1))  (linspace, RetNet),  or  base^(-j / n)  (rope) z = zeta_j^(sign (p -
///     center) / scale_base),  zeta_j = (2j + 0.4 dk) / (1.4 dk);   z = 1 for scale_base = 0
///
/// x, y: `[B, H, T, dk]`, dk even. Queries and keys are rotated by the same angle; a saved state is to be continued
/// with the offset convention it was made with. Elements are float, double, half or bfloat16.
///
/// Accuracy: angles are products in double, reduced exactly: cosines and sines err by |p| 1e-16, at |p| = 1e6 less than
/// float can show. One row of cosines and sines serves all batches and heads.
#ifndef DEFT_SSM_RETENTION_ROTARY_HPP
#define DEFT_SSM_RETENTION_ROTARY_HPP

#include <deft/kernels/rotary.hpp>
#include <deft/parallel.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cmath>

namespace deft {

enum class rotary_spacing : unsigned char { linspace, rope };

/// transposed: by the opposite angle with the same scale, which is the gradient.
enum class rotary_direction : unsigned char { forward, transposed };

struct retention_rotary_options {
    index offset = 0; ///< position of the first token, any integer
    double base = 10000;
    rotary_spacing spacing = rotary_spacing::linspace;
    rotary_direction direction = rotary_direction::forward;
    double xpos_scale_base = 0; ///< 0: no scale; xPos: 512
    int xpos_sign = 1;          ///< 1 for queries, -1 for keys
    double xpos_center = 0;     ///< near the middle of the sequence, so that scales stay in range
};

inline namespace DEFT_ISA {
namespace detail {

/// Cosines and sines of some pairs, position after position: exact at every `restart`-th token, in between by rotating
/// the last ones in double, which costs 1e-16 a step. For rows of double every token is exact: the rounding of p theta
/// itself would show.
template <class T>
class rotary_row {
public:
    static constexpr index pairs = 128, run = 64, restart = sizeof(T) == 8 ? 1 : run; ///< run: tokens of a task

    alignas(64) T cosines[std::size_t(2 * pairs)]; ///< each twice
    alignas(64) T sines[std::size_t(2 * pairs)];   ///< negative for even elements

    rotary_row(const retention_rotary_options& options, index width, index first, index count) noexcept
        : options_(options), count_(count) {
        const index n = width / 2, steps = options.spacing == rotary_spacing::linspace ? std::max<index>(n - 1, 1) : n;
        for (index i = 0; i < count; ++i) {
            const double j = double(first + i);
            theta_[i] = std::pow(options.base, -(j / double(steps)));
            step_cos_[i] = std::cos(theta_[i]);
            step_sin_[i] = std::sin(theta_[i]);
            zeta_[i] = (2 * j + 0.4 * double(width)) / (1.4 * double(width));
            scale_[i] = 1;
            step_scale_[i] = is_scaled() ? std::pow(zeta_[i], options.xpos_sign / options.xpos_scale_base) : 1;
        }
    }

    /// The row of token t: the first that is asked for, or the one behind the last.
    void move_to(index t) noexcept {
        if (t % restart == 0)
            start(double(options_.offset + t));
        else
            for (index i = 0; i < count_; ++i) {
                const double c = cos_[i], s = sin_[i];
                cos_[i] = c * step_cos_[i] - s * step_sin_[i];
                sin_[i] = s * step_cos_[i] + c * step_sin_[i];
                scale_[i] *= step_scale_[i];
            }
        const double sign = options_.direction == rotary_direction::transposed ? -1 : 1;
        for (index i = 0; i < count_; ++i) {
            const T c = static_cast<T>(cos_[i] * scale_[i]), s = static_cast<T>(sign * sin_[i] * scale_[i]);
            cosines[2 * i] = cosines[2 * i + 1] = c;
            sines[2 * i] = -s;
            sines[2 * i + 1] = s;
        }
    }

private:
    bool is_scaled() const noexcept {
        return options_.xpos_scale_base > 0;
    }
    void start(double p) noexcept {
        for (index i = 0; i < count_; ++i) {
            cos_[i] = std::cos(p * theta_[i]);
            sin_[i] = std::sin(p * theta_[i]);
            if (is_scaled())
                scale_[i] =
                    std::pow(zeta_[i], options_.xpos_sign * (p - options_.xpos_center) / options_.xpos_scale_base);
        }
    }

    const retention_rotary_options& options_;
    index count_;
    double theta_[std::size_t(pairs)], zeta_[std::size_t(pairs)];
    double cos_[std::size_t(pairs)], sin_[std::size_t(pairs)], scale_[std::size_t(pairs)];
    double step_cos_[std::size_t(pairs)], step_sin_[std::size_t(pairs)], step_scale_[std::size_t(pairs)];
};

template <class X, class Y, class Executor>
void rotate(const char* op, const char* from, const X& x, const char* to, const Y& y,
            const retention_rotary_options& options, Executor& executor) {
    using S = typename Y::value_type;
    const index width = x.extent(3), tokens = x.extent(2);
    check_same_shape(op, to, y, from, x);
    check(width >= 2 && width % 2 == 0, op, from, "its extent 3, dk, must be even and at least 2", double(width));
    check(options.base > 0 && std::isfinite(options.base), op, "base", "must be positive", options.base);
    check(options.xpos_scale_base >= 0, op, "xpos_scale_base", "must not be negative", options.xpos_scale_base);
    check(options.xpos_sign == 1 || options.xpos_sign == -1, op, "xpos_sign", "must be 1 or -1", options.xpos_sign);
    using row = rotary_row<compute_t<S>>;
    executor.parallel_for((tokens + row::run - 1) / row::run, 1, [&](index begin, index end) {
        for (index first = 0; first < width / 2; first += row::pairs) {
            const index count = std::min(row::pairs, width / 2 - first);
            row angles(options, width, first, count);
            for (index t = begin * row::run; t < std::min(end * row::run, tokens); ++t) {
                angles.move_to(t);
                for (index b = 0; b < x.extent(0); ++b)
                    for (index h = 0; h < x.extent(1); ++h)
                        kernels::rotate_pairs<simd::default_arch, S>(
                            x.data() + b * x.stride(0) + h * x.stride(1) + t * x.stride(2) + 2 * first, angles.cosines,
                            angles.sines, y.data() + b * y.stride(0) + h * y.stride(1) + t * y.stride(2) + 2 * first,
                            2 * count);
            }
        }
    });
}

} // namespace detail

/// y; formulas, shapes and types at the top of this file.
///
/// y may be x. Throws std::invalid_argument before anything is written if shapes do not fit, dk is odd or 0, base is
/// not positive, xpos_scale_base is negative or xpos_sign is not +-1. Scales beyond the range of T follow IEEE
/// arithmetic. The same bits for every executor.
template <class T = void, class Y = view<T, 4>, executor Executor = serial_executor>
void retention_rotary(in<element_t<T, Y>, 4> x, Y&& y_out, const retention_rotary_options& options = {},
                      Executor&& executor = Executor()) {
    const view<element_t<T, Y>, 4> y(y_out);
    detail::rotate("retention_rotary", "x", x, "y", y, options, executor);
}

/// The gradient of retention_rotary: grad_y rotated back, with the same scale. grad_x may be grad_y.
template <class T = void, class GX = view<T, 4>, executor Executor = serial_executor>
void retention_rotary_backward(in<element_t<T, GX>, 4> grad_y, GX&& grad_x_out,
                               const retention_rotary_options& options = {}, Executor&& executor = Executor()) {
    const view<element_t<T, GX>, 4> grad_x(grad_x_out);
    retention_rotary_options back = options;
    back.direction =
        options.direction == rotary_direction::forward ? rotary_direction::transposed : rotary_direction::forward;
    detail::rotate("retention_rotary_backward", "grad_y", grad_y, "grad_x", grad_x, back, executor);
}

} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Series activation prepared for inference: with one a and b for all channels the whole sum is one function of x, kept
/// as polynomial pieces whose cost does not grow with the number of terms.
///
/// The formula is that of series_activation.hpp, which stays the reference. Silu, gelu, tanh and sigmoid are smooth and
/// straight far out, so that the pieces need to cover only where some term bends. If as many pieces of degree 7 or 11
/// as a vector has lanes do, the table stays in registers, and preparing takes some 10 microseconds; else it is one of
/// cubic pieces, which takes some 30 to 300.
#ifndef DEFT_ACTIVATION_PREPARED_SERIES_ACTIVATION_HPP
#define DEFT_ACTIVATION_PREPARED_SERIES_ACTIVATION_HPP

#include <deft/activation/series_activation.hpp>
#include <deft/kernels/piecewise_polynomial.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {

/// y = series_activation(x; a, b, options) for fixed a and b of shape `[n]`; T is float or double.
///
///     const deft::prepared_series_activation<float> act(a, b, {.form = deft::series_form::inner,
///                                                               .base = deft::activation::silu});
///     act(x, y);
///
/// Error: at most 2e-6 (float) or 2e-9 (double) of the largest |y| over |x| <= 4, or of a hundredth of the largest
/// where terms bend, if that is more; measured when prepared. Where that cannot be met with 4096 pieces (terms of very
/// different width) and for relu and leaky_relu, which are cheaper than a table, it calls series_activation; is_exact()
/// tells. Copies of a and b are kept: no view dangles.
template <class T>
class prepared_series_activation {
public:
    /// Throws std::invalid_argument like series_activation, and if a or b has an axis of channels.
    prepared_series_activation(in_terms<T> a, in_terms<T> b, const series_activation_options& options)
        : form_(options.form), negative_slope_(options.negative_slope) {
        const char* const op = "prepared_series_activation";
        detail::check(a.is_shared(), op, "a", "its rank must be 1", a.is_shared() ? 1 : 2);
        detail::checked_terms<T>(op, 0, a, b, options);
        a_.assign(a.data(), a.data() + a.terms());
        b_.assign(b.data(), b.data() + b.terms());
        for (index i = 0; i < a.terms(); ++i)
            base_.push_back(options.base[i]);
        fit();
    }

    /// y = f(x), elementwise over any shape; y may be x. Does not allocate. NaN gives NaN; infinities count as the
    /// greatest finite number. Throws std::invalid_argument if the shapes differ.
    template <executor Executor = serial_executor>
    void operator()(in_rows<T> x, rows<T> y, Executor&& executor = Executor()) const {
        if (is_exact())
            return series_activation(x, a_, b_, y, options(), executor);
        detail::check_same_shape("prepared_series_activation", "y", y, "x", x);
        detail::for_each_piece(x.extent(0), x.extent(1), x.is_contiguous() && y.is_contiguous(), executor,
                               [&](index r, index c, index count) {
                                   const T* const from = x.data() + r * x.stride(0) + c;
                                   T* const to = y.data() + r * y.stride(0) + c;
                                   if constexpr (fits_lanes) {
                                       if (degree_ == 7)
                                           return kernels::polynomials_in_lanes<arch, 7>(from, to, count, pieces());
                                       if (degree_ == 11)
                                           return kernels::polynomials_in_lanes<arch, 11>(from, to, count, pieces());
                                   }
                                   kernels::piecewise_cubic<arch>(from, to, count, pieces());
                               });
    }

    /// True if calls go to series_activation.
    bool is_exact() const noexcept {
        return coefficients_.empty();
    }
    /// Number of pieces, the two straight ends included; 0 if is_exact().
    index piece_count() const noexcept {
        return count_;
    }

private:
    using arch = simd::default_arch;
    static constexpr bool fits_lanes = simd::can_look_up<T, arch>;
    static constexpr index lanes = simd::lanes<T, arch>;
    static constexpr index most_pieces = 4096;

    series_activation_options options() const noexcept {
        return {.form = form_, .base = base_, .negative_slope = negative_slope_};
    }

    kernels::polynomial_pieces<T> pieces() const noexcept {
        return {coefficients_.data(), count_, first_, width_};
    }

    // Where |u| is greater, sigma(u) is straight to less than 1e-7 (1e-11) of |u| or 1.
    static double bend(activation kind) noexcept {
        const bool is_float = std::is_same_v<T, float>;
        switch (kind) {
        case activation::gelu_erf:
        case activation::gelu_tanh:
            return is_float ? 5.25 : 8;
        case activation::tanh:
            return is_float ? 8.5 : 13;
        case activation::silu:
        case activation::sigmoid:
            return is_float ? 16.25 : 26;
        case activation::relu:
        case activation::leaky_relu:
        case activation::identity:
            break;
        }
        return std::numeric_limits<double>::infinity(); // a corner: no polynomial fits it
    }

    // Slope of sum_i ... far out to the left (direction -1) or right (+1).
    double end_slope(double direction) const noexcept {
        double slope = 0;
        for (std::size_t i = 0; i < a_.size(); ++i) {
            const double side = form_ == series_form::inner ? direction * double(a_[i]) : direction;
            const bool rises = base_[i] != activation::tanh && base_[i] != activation::sigmoid;
            if (rises && side > 0)
                slope += double(a_[i]);
        }
        return slope;
    }

    void fit() {
        double low = std::numeric_limits<double>::infinity(), high = -low;
        for (std::size_t i = 0; i < a_.size(); ++i) {
            const double a = form_ == series_form::inner ? double(a_[i]) : 1.0, b = double(b_[i]), u = bend(base_[i]);
            if (a == 0 && u < std::numeric_limits<double>::infinity())
                continue; // a constant
            low = std::min({low, (-u - b) / a, (u - b) / a});
            high = std::max({high, (-u - b) / a, (u - b) / a});
        }
        if (low > high)
            low = -1, high = 1;
        if (!(high - low < 4096) || !std::isfinite(low))
            return;
        if constexpr (fits_lanes) {
            // The pieces begin at a multiple of width / 16.
            const double width = static_cast<T>((high - low) / (double(lanes - 2) - 0.125));
            const double first = std::floor(low / width * 16) / 16;
            if (fit_pieces<7>(first, width, lanes - 2) == fit_result::good ||
                fit_pieces<11>(first, width, lanes - 2) == fit_result::good)
                return;
        }
        // From the power of two that gives some sixty pieces, halve the width until the error is met.
        for (double width = std::ldexp(1.0, std::ilogb((high - low) / 64));; width /= 2) {
            const double first = std::floor(low / width);
            const index inner = static_cast<index>(std::ceil(high / width) - first);
            if (inner > most_pieces || fit_pieces<3>(first, width, inner) != fit_result::coarse)
                return;
        }
    }

    enum class fit_result { good, coarse, impossible };

    // Fits `inner` pieces from first * width on and keeps them if they are good.
    template <std::size_t Degree>
    fit_result fit_pieces(double first, double width, index inner) {
        constexpr double tolerance = std::is_same_v<T, float> ? 1.5e-6 : 1.5e-9; // at the points below
        // Chebyshev nodes of each piece, and between and beside them the points where the error is greatest; distances
        // from the middle in widths.
        constexpr std::size_t nodes = Degree + 1, points = 2 * nodes + 1;
        std::array<double, points> position;
        for (std::size_t j = 0; j < points; ++j)
            position[j] = -0.5 * std::cos(std::numbers::pi * double(j) / double(points - 1));
        std::vector<double> x, y;
        for (index k = 0; k < inner; ++k)
            for (const double s : position)
                x.push_back((first + double(k) + 0.5 + s) * width);
        y.resize(x.size());
        const std::vector<double> a(a_.begin(), a_.end()), b(b_.begin(), b_.end());
        series_activation(x, a, b, y, options());

        // Piece by piece, or, if in lanes, degree by degree.
        std::vector<T> table(nodes * static_cast<std::size_t>(inner + 2));
        const auto coefficient = [&](index piece, std::size_t degree) -> T& {
            return table[Degree > 3 ? degree * std::size_t(inner + 2) + std::size_t(piece)
                                    : std::size_t(piece) * nodes + degree];
        };
        double worst = 0, greatest = 0, greatest_near = 0;
        for (index k = 0; k < inner; ++k) {
            const double* const value = &y[static_cast<std::size_t>(k) * points];
            // Newton's form through the nodes at odd positions, then monomials.
            double node[nodes], c[nodes];
            for (std::size_t j = 0; j < nodes; ++j) {
                node[j] = position[2 * j + 1];
                c[j] = value[2 * j + 1];
            }
            for (std::size_t order = 1; order < nodes; ++order)
                for (std::size_t j = nodes - 1; j >= order; --j)
                    c[j] = (c[j] - c[j - 1]) / (node[j] - node[j - order]);
            for (std::size_t order = nodes - 1; order-- > 0;)
                for (std::size_t j = order; j < nodes - 1; ++j)
                    c[j] -= node[order] * c[j + 1];
            for (std::size_t j = 0; j < nodes; ++j)
                coefficient(k + 1, j) = static_cast<T>(c[j] * std::pow(width, -double(j)));
            for (std::size_t j = 0; j < points; ++j) {
                T fitted = 0;
                for (std::size_t degree = nodes; degree-- > 0;)
                    fitted = fitted * static_cast<T>(position[j] * width) + coefficient(k + 1, degree);
                const double error = std::abs(double(fitted) - value[j]);
                worst = error <= worst ? worst : error; // NaN, too
                greatest = std::max(greatest, std::abs(value[j]));
                if (std::abs(x[static_cast<std::size_t>(k) * points + j]) <= 4)
                    greatest_near = std::max(greatest_near, std::abs(value[j]));
            }
        }
        if (!std::isfinite(worst + greatest))
            return fit_result::impossible;
        if (!(worst <= tolerance * std::max(greatest_near, 0.01 * greatest)))
            return fit_result::coarse;
        // The ends meet the function where the pieces end, half a width from their middles.
        coefficient(0, 0) = static_cast<T>(y.front() - end_slope(-1) * width / 2);
        coefficient(0, 1) = static_cast<T>(end_slope(-1));
        coefficient(inner + 1, 0) = static_cast<T>(y.back() + end_slope(1) * width / 2);
        coefficient(inner + 1, 1) = static_cast<T>(end_slope(1));
        coefficients_ = std::move(table);
        degree_ = Degree;
        count_ = inner + 2;
        first_ = static_cast<T>(first - 1);
        width_ = static_cast<T>(width);
        return fit_result::good;
    }

    series_form form_;
    double negative_slope_;
    std::vector<T> a_, b_;
    std::vector<activation> base_;
    std::vector<T> coefficients_; // see kernels::polynomial_pieces; empty: exact
    std::size_t degree_ = 0;
    index count_ = 0;
    T first_ = 0, width_ = 1;
};

} // namespace DEFT_ISA
} // namespace deft

#endif

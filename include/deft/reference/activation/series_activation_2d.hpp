/// \file
/// Naive reference of series_activation_2d (VanillaNet, arXiv:2305.12972; huawei-noah/VanillaNet:models/vanillanet.py).
///
/// h[b,c,i,j] = sigma(x[b,c,i,j] + pre_bias[c])
/// z[b,c,i,j] = sum_{p,q < K} weight[c,p,q] h[b,c,i+p-n,j+q-n],  K = 2n + 1,  h = 0 outside the map
/// deploy: y = z + bias
/// eval:   y = gamma (z - mean) / sqrt(var + eps) + beta, with the running statistics
/// train:  as eval, with mean and biased variance of z over N, H, W
/// Shapes: x, y and their gradients [N, C, H, W]; weight [C, K, K]; every vector [C]. pre_bias, bias and their
/// gradients may be absent.
#ifndef DEFT_REFERENCE_ACTIVATION_SERIES_ACTIVATION_2D_HPP
#define DEFT_REFERENCE_ACTIVATION_SERIES_ACTIVATION_2D_HPP

#include <deft/reference/activation/activation.hpp>
#include <deft/view.hpp>

#include <cmath>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// z at one position, calling the activation once per tap.
template <class T>
T neighbour_sum(const view<const T, 4>& x, const view<const T, 3>& weight, const view<const T, 1>& pre_bias, index b,
                index c, index i, index j, activation base, double slope) {
    const index n = weight.extent(1) / 2;
    const T shift = pre_bias.is_given() ? pre_bias(c) : T(0);
    T sum = 0;
    for (index p = 0; p < weight.extent(1); ++p)
        for (index q = 0; q < weight.extent(2); ++q) {
            const index row = i + p - n, column = j + q - n;
            if (row >= 0 && row < x.extent(2) && column >= 0 && column < x.extent(3))
                sum += weight(c, p, q) * activate(base, x(b, c, row, column) + shift, slope);
        }
    return sum;
}

/// Mean and biased variance of z over N, H, W, in double.
struct channel_statistics {
    double mean = 0, variance = 0;
};

template <class T>
channel_statistics batch_statistics(const view<const T, 4>& x, const view<const T, 3>& weight,
                                    const view<const T, 1>& pre_bias, index c, activation base, double slope) {
    std::vector<double> z;
    for (index b = 0; b < x.extent(0); ++b)
        for (index i = 0; i < x.extent(2); ++i)
            for (index j = 0; j < x.extent(3); ++j)
                z.push_back(double(neighbour_sum(x, weight, pre_bias, b, c, i, j, base, slope)));

    channel_statistics s;
    for (const double value : z)
        s.mean += value / double(z.size());
    for (const double value : z)
        s.variance += (value - s.mean) * (value - s.mean) / double(z.size());
    return s;
}

/// y = scale (z - mean) + shift in channel c.
template <class T>
void normalised_channel(const view<const T, 4>& x, const view<const T, 3>& weight, const view<const T, 1>& pre_bias,
                        const view<T, 4>& y, index c, double mean, double scale, double shift, activation base,
                        double slope) {
    for (index b = 0; b < x.extent(0); ++b)
        for (index i = 0; i < x.extent(2); ++i)
            for (index j = 0; j < x.extent(3); ++j) {
                const double z = double(neighbour_sum(x, weight, pre_bias, b, c, i, j, base, slope));
                y(b, c, i, j) = T(scale * (z - mean) + shift);
            }
}

template <class T>
void series_activation_2d(in<T, 4> x, in<T, 3> weight, in<T, 1> pre_bias, in<T, 1> bias, view<T, 4> y, activation base,
                          double slope = 0.01) {
    for (index b = 0; b < x.extent(0); ++b)
        for (index c = 0; c < x.extent(1); ++c)
            for (index i = 0; i < x.extent(2); ++i)
                for (index j = 0; j < x.extent(3); ++j)
                    y(b, c, i, j) = neighbour_sum(x, weight, pre_bias, b, c, i, j, base, slope) +
                                    (bias.is_given() ? bias(c) : T(0));
}

template <class T>
void series_activation_2d_eval(in<T, 4> x, in<T, 3> weight, in<T, 1> pre_bias, in<T, 1> gamma, in<T, 1> beta,
                               in<T, 1> running_mean, in<T, 1> running_var, view<T, 4> y, activation base,
                               double eps = 1e-6, double slope = 0.01) {
    for (index c = 0; c < x.extent(1); ++c) {
        const double scale = double(gamma(c)) / std::sqrt(double(running_var(c)) + eps);
        normalised_channel(x, weight, pre_bias, y, c, double(running_mean(c)), scale, double(beta(c)), base, slope);
    }
}

/// The running statistics are updated in place: r <- (1 - momentum) r + momentum s, s the mean or the unbiased
/// variance.
template <class T>
void series_activation_2d_train(in<T, 4> x, in<T, 3> weight, in<T, 1> pre_bias, in<T, 1> gamma, in<T, 1> beta,
                                out<T, 1> running_mean, out<T, 1> running_var, view<T, 4> y, activation base,
                                double eps = 1e-6, double momentum = 0.1, double slope = 0.01) {
    const double count = double(x.extent(0) * x.extent(2) * x.extent(3)); // M
    for (index c = 0; c < x.extent(1); ++c) {
        const channel_statistics s = batch_statistics(x, weight, pre_bias, c, base, slope);
        const double scale = double(gamma(c)) / std::sqrt(s.variance + eps);
        normalised_channel(x, weight, pre_bias, y, c, s.mean, scale, double(beta(c)), base, slope);

        const double unbiased = s.variance * count / (count - 1);
        running_mean(c) = T((1 - momentum) * double(running_mean(c)) + momentum * s.mean);
        running_var(c) = T((1 - momentum) * double(running_var(c)) + momentum * unbiased);
    }
}

/// What grad_z does to x, weight and pre_bias in channel c; grad_z(b, i, j) is called per tap.
///   grad_weight[p,q] = sum_{b,i,j} grad_z[b,i,j] h[b,i+p-n,j+q-n]
///   grad_h[b,i,j] = sum_{p,q} weight[p,q] grad_z[b,i-p+n,j-q+n]
///   grad_x = grad_h sigma'(x + pre_bias);  grad_pre_bias = sum grad_x
template <class T, class GradZ>
void neighbour_sum_backward(const view<const T, 4>& x, const view<const T, 3>& weight, const view<const T, 1>& pre_bias,
                            const GradZ& grad_z, const view<T, 4>& grad_x, const view<T, 3>& grad_weight,
                            const view<T, 1>& grad_pre_bias, index c, activation base, double slope) {
    const index taps = weight.extent(1), n = taps / 2;
    const index height = x.extent(2), width = x.extent(3);
    const T shift = pre_bias.is_given() ? pre_bias(c) : T(0);

    for (index p = 0; p < taps; ++p)
        for (index q = 0; q < taps; ++q) {
            double sum = 0;
            for (index b = 0; b < x.extent(0); ++b)
                for (index i = 0; i < height; ++i)
                    for (index j = 0; j < width; ++j) {
                        const index row = i + p - n, column = j + q - n;
                        if (row >= 0 && row < height && column >= 0 && column < width)
                            sum += grad_z(b, i, j) * double(activate(base, x(b, c, row, column) + shift, slope));
                    }
            grad_weight(c, p, q) = T(sum);
        }

    double sum_x = 0;
    for (index b = 0; b < x.extent(0); ++b)
        for (index i = 0; i < height; ++i)
            for (index j = 0; j < width; ++j) {
                double grad_h = 0;
                for (index p = 0; p < taps; ++p)
                    for (index q = 0; q < taps; ++q) {
                        const index row = i - p + n, column = j - q + n;
                        if (row >= 0 && row < height && column >= 0 && column < width)
                            grad_h += double(weight(c, p, q)) * grad_z(b, row, column);
                    }
                const double gx = grad_h * double(activate_derivative(base, x(b, c, i, j) + shift, slope));
                grad_x(b, c, i, j) = T(gx);
                sum_x += gx;
            }
    if (grad_pre_bias.is_given())
        grad_pre_bias(c) = T(sum_x);
}

/// grad_z = grad_y;  grad_bias = sum grad_y
template <class T>
void series_activation_2d_backward(in<T, 4> x, in<T, 3> weight, in<T, 1> pre_bias, in<T, 4> grad_y, view<T, 4> grad_x,
                                   out<T, 3> grad_weight, out<T, 1> grad_pre_bias, out<T, 1> grad_bias, activation base,
                                   double slope = 0.01) {
    for (index c = 0; c < x.extent(1); ++c) {
        const auto grad_z = [&](index b, index i, index j) { return double(grad_y(b, c, i, j)); };
        neighbour_sum_backward(x, weight, pre_bias, grad_z, grad_x, grad_weight, grad_pre_bias, c, base, slope);

        double sum = 0;
        for (index b = 0; b < x.extent(0); ++b)
            for (index i = 0; i < x.extent(2); ++i)
                for (index j = 0; j < x.extent(3); ++j)
                    sum += double(grad_y(b, c, i, j));
        if (grad_bias.is_given())
            grad_bias(c) = T(sum);
    }
}

/// With zhat = (z - mean) / sqrt(var + eps) and k = gamma / sqrt(var + eps):
///   grad_beta = sum g;  grad_gamma = sum g zhat
///   grad_z = k g                                          if mean and var are constants (eval)
///   grad_z = k (g - grad_beta / M - zhat grad_gamma / M)  if they are those of the batch (train)
template <class T>
void normalised_backward(const view<const T, 4>& x, const view<const T, 3>& weight, const view<const T, 1>& pre_bias,
                         double gamma, channel_statistics s, bool of_batch, const view<const T, 4>& grad_y,
                         const view<T, 4>& grad_x, const view<T, 3>& grad_weight, const view<T, 1>& grad_pre_bias,
                         const view<T, 1>& grad_gamma, const view<T, 1>& grad_beta, index c, activation base,
                         double eps, double slope) {
    const index height = x.extent(2), width = x.extent(3);
    const double count = double(x.extent(0) * height * width);
    const double inverse = 1 / std::sqrt(s.variance + eps);

    std::vector<double> zhat; // [N, H, W]
    double sum_g = 0, sum_g_zhat = 0;
    for (index b = 0; b < x.extent(0); ++b)
        for (index i = 0; i < height; ++i)
            for (index j = 0; j < width; ++j) {
                const double z = double(neighbour_sum(x, weight, pre_bias, b, c, i, j, base, slope));
                zhat.push_back((z - s.mean) * inverse);
                sum_g += double(grad_y(b, c, i, j));
                sum_g_zhat += double(grad_y(b, c, i, j)) * zhat.back();
            }
    grad_beta(c) = T(sum_g);
    grad_gamma(c) = T(sum_g_zhat);

    const auto grad_z = [&](index b, index i, index j) {
        const double g = double(grad_y(b, c, i, j));
        const double z = zhat[std::size_t((b * height + i) * width + j)];
        return gamma * inverse * (of_batch ? g - sum_g / count - z * sum_g_zhat / count : g);
    };
    neighbour_sum_backward(x, weight, pre_bias, grad_z, grad_x, grad_weight, grad_pre_bias, c, base, slope);
}

template <class T>
void series_activation_2d_eval_backward(in<T, 4> x, in<T, 3> weight, in<T, 1> pre_bias, in<T, 1> gamma,
                                        in<T, 1> running_mean, in<T, 1> running_var, in<T, 4> grad_y, view<T, 4> grad_x,
                                        out<T, 3> grad_weight, out<T, 1> grad_pre_bias, out<T, 1> grad_gamma,
                                        out<T, 1> grad_beta, activation base, double eps = 1e-6, double slope = 0.01) {
    for (index c = 0; c < x.extent(1); ++c) {
        const channel_statistics s{double(running_mean(c)), double(running_var(c))};
        normalised_backward(x, weight, pre_bias, double(gamma(c)), s, false, grad_y, grad_x, grad_weight, grad_pre_bias,
                            grad_gamma, grad_beta, c, base, eps, slope);
    }
}

template <class T>
void series_activation_2d_train_backward(in<T, 4> x, in<T, 3> weight, in<T, 1> pre_bias, in<T, 1> gamma,
                                         in<T, 4> grad_y, view<T, 4> grad_x, out<T, 3> grad_weight,
                                         out<T, 1> grad_pre_bias, out<T, 1> grad_gamma, out<T, 1> grad_beta,
                                         activation base, double eps = 1e-6, double slope = 0.01) {
    for (index c = 0; c < x.extent(1); ++c) {
        const channel_statistics s = batch_statistics(x, weight, pre_bias, c, base, slope);
        normalised_backward(x, weight, pre_bias, double(gamma(c)), s, true, grad_y, grad_x, grad_weight, grad_pre_bias,
                            grad_gamma, grad_beta, c, base, eps, slope);
    }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

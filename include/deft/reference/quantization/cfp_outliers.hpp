/// \file
/// Naive reference of the coarse-to-fine outlier detection (arXiv:2312.07950): a full sort, and every split anew.
#ifndef DEFT_REFERENCE_QUANTIZATION_CFP_OUTLIERS_HPP
#define DEFT_REFERENCE_QUANTIZATION_CFP_OUTLIERS_HPP

#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

struct cfp_settings {
    double lambda1, lambda2;
    bool interpolate; ///< quartiles between elements
};

struct cfp_found {
    double threshold, boundary, outlier_min;
    index candidates, split, outliers;
};

inline double cfp_quantile(const std::vector<double>& sorted, double share, bool interpolate) {
    const index n = static_cast<index>(sorted.size());
    if (!interpolate)
        return sorted[std::size_t(share < 0.5 ? n / 4 : 3 * n / 4)];
    const double position = double(n - 1) * share;
    const index low = static_cast<index>(std::floor(position)), high = std::min(low + 1, n - 1);
    return sorted[std::size_t(low)] + (sorted[std::size_t(high)] - sorted[std::size_t(low)]) * (position - double(low));
}

/// values: at least one.
inline cfp_found cfp_detect(std::vector<double> values, const cfp_settings& settings) {
    for (double& v : values)
        v = std::abs(v);
    std::sort(values.begin(), values.end());
    const double q1 = cfp_quantile(values, 0.25, settings.interpolate),
                 q3 = cfp_quantile(values, 0.75, settings.interpolate);
    cfp_found found{q3 + settings.lambda1 * (q3 - q1), values.back(), values.back(), 0, 0, 0};
    std::vector<double> candidates;
    for (const double v : values)
        if (v > found.threshold)
            candidates.push_back(v);
    found.candidates = static_cast<index>(candidates.size());
    if (candidates.empty())
        return found;
    double best = 0;
    for (std::size_t i = 0; i < candidates.size(); ++i) {
        double mean = 0, variance = 0;
        for (std::size_t k = 0; k < i; ++k)
            mean += candidates[k] / double(i);
        for (std::size_t k = 0; k < i; ++k)
            variance += (candidates[k] - mean) * (candidates[k] - mean) / double(i);
        const double gap = candidates[i] - (i > 0 ? candidates[i - 1] : found.threshold);
        const double score = gap * gap - settings.lambda2 * variance;
        if (i == 0 || score > best) {
            best = score;
            found.split = static_cast<index>(i);
        }
    }
    found.outliers = found.candidates - found.split;
    found.outlier_min = candidates[std::size_t(found.split)];
    found.boundary = 0;
    for (const double v : values)
        if (v < found.outlier_min)
            found.boundary = v;
    return found;
}

/// The rows [begin, end) of a matrix.
template <class T>
std::vector<double> cfp_values(in<T, 2> x, index begin, index end) {
    std::vector<double> values;
    for (index r = begin; r < end; ++r)
        for (index c = 0; c < x.extent(1); ++c)
            values.push_back(double(x(r, c)));
    return values;
}

template <class T>
void cfp_truncate_weight(in<T, 2> w, view<T, 2> w_out, out<T, 1> clip, bool per_row, const cfp_settings& settings) {
    const index rows = per_row ? 1 : w.extent(0);
    for (index part = 0; part < clip.extent(0); ++part) {
        const index begin = part * rows, end = begin + rows;
        const T bound = T(cfp_detect(cfp_values<T>(w, begin, end), settings).boundary);
        for (index r = begin; r < end; ++r)
            for (index c = 0; c < w.extent(1); ++c)
                w_out(r, c) = std::min(std::max(w(r, c), -bound), bound);
        clip(part) = bound;
    }
}

template <class T>
double cfp_peak(in<T, 2> x, index c) {
    double peak = 0;
    for (index r = 0; r < x.extent(0); ++r)
        peak = std::max(peak, std::abs(double(x(r, c))));
    return peak;
}

template <class T>
void cfp_scale_activation(in<T, 2> x, in<T, 2> w, view<T, 1> scale, out<T, 2> x_out, out<T, 2> w_out,
                          const cfp_settings& settings, bool to_outlier_min) {
    std::vector<double> peaks;
    for (index c = 0; c < x.extent(1); ++c)
        peaks.push_back(cfp_peak<T>(x, c));
    const cfp_found found = cfp_detect(peaks, settings);
    const double ref = to_outlier_min ? found.outlier_min : found.boundary;
    for (index c = 0; c < x.extent(1); ++c) {
        const double peak = peaks[std::size_t(c)];
        const T s = T(found.outliers > 0 && ref > 0 && peak > ref ? std::sqrt(peak / ref) : 1);
        for (index r = 0; r < x.extent(0); ++r)
            x_out(r, c) = x(r, c) / s;
        for (index r = 0; r < w.extent(0); ++r)
            w_out(r, c) = w(r, c) * s;
        scale(c) = s;
    }
}

/// arXiv:2211.10438, eq. 4.
template <class T>
void smooth_scale(in<T, 2> x, in<T, 2> w, view<T, 1> scale, double alpha, double floor) {
    for (index c = 0; c < x.extent(1); ++c)
        scale(c) = T(std::max(std::pow(std::max(cfp_peak<T>(x, c), floor), alpha) /
                                  std::pow(std::max(cfp_peak<T>(w, c), floor), 1 - alpha),
                              floor));
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

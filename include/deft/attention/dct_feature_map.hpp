/// \file
/// The (weighted) discrete cosine features of DiJiang (arXiv:2403.19928, eq. 9, 10, 12): a query or key x of width d
/// becomes m = r d features, so that phi(q) . phi(k) stands for exp(q . k).
///
///     x' = s x,  y = DCT(x'),  u_j = t_j y_{j mod d}
///     softmax:               phi_j = D_j exp(u_j - max u) / sum_l exp(u_l - max u)
///     exp:                   phi_j = D_j g exp(u_j - c |x'|^2),   c = 0, 1/2, 1,   g = 1 or 1/sqrt(m)
///     exp, stabilizer max:   phi_j = D_j g exp(u_j - max u),      log_scale = max u - c |x'|^2
///     log:                   phi_j = log|D_j g| + u_j - c |x'|^2,  for linear_attention_log
///
/// x: `[..., d]`, phi: `[..., m]`, t, D: `[m]`, log_scale: one number per row of x. Any rank >= 1, rows any distance
/// apart; float, double, or half / bfloat16 in x and phi with the rest in float (forward only).
///
/// The defaults are those of the paper's code: dct3, softmax, no D. Eq. 12 is dct2, exp, D; eq. 10 adds norm_term full
/// and gain inverse_sqrt; exp(q . k / sqrt d) with Performer's kernel is exp, norm_term half, s = d^(-1/4). Without a
/// stabilizer, exp overflows from t . y > 88 (float) on: for bounded inputs only.
#ifndef DEFT_ATTENTION_DCT_FEATURE_MAP_HPP
#define DEFT_ATTENTION_DCT_FEATURE_MAP_HPP

#include <deft/attention/dct.hpp>
#include <deft/kernels/dct_features.hpp>
#include <deft/simd/aligned_vector.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace deft {

enum class feature_activation : unsigned char { softmax, exp, log };
enum class feature_norm_term : unsigned char { none, half, full }; ///< c
enum class feature_gain : unsigned char { one, inverse_sqrt };     ///< g: 1 or 1/sqrt(m)
enum class feature_stabilizer : unsigned char { none, max };

struct dct_feature_options {
    dct_kind transform = dct_kind::dct3;
    feature_activation activation = feature_activation::softmax;
    feature_norm_term norm_term = feature_norm_term::none;
    feature_gain gain = feature_gain::one;
    feature_stabilizer stabilizer = feature_stabilizer::none;
    double input_scale = 1; ///< s
    index threads = 1;      ///< that a call can use: each needs working memory
};

inline namespace DEFT_ISA {

/// Tables and working memory of a feature map of one width and number of features. A copy is independent; one object
/// serves one call at a time.
template <class T>
class dct_feature_plan {
    using arch = simd::default_arch;
    static constexpr index width = simd::lanes<T, arch>;
    static constexpr index most_segments = 16;

public:
    /// Throws std::invalid_argument if d or threads is less than 1, m is not a positive multiple of d, input_scale is
    /// not finite, or softmax comes with a norm term, a gain or a stabilizer, or log with a stabilizer.
    dct_feature_plan(index d, index m, const dct_feature_options& options = {})
        : transform_(op, d, options.transform, dct_algorithm::automatic), options_(options), m_(m) {
        using detail::check;
        check(m >= 1 && m % d == 0, op, "number of features", "must be a positive multiple of the width", double(m));
        check(options.threads >= 1, op, "threads", "must be at least 1", double(options.threads));
        check(std::isfinite(options.input_scale), op, "input_scale", "must be finite", options.input_scale);
        const auto activation = options.activation;
        check(activation <= feature_activation::log, op, "activation", "must be softmax, exp or log",
              double(activation));
        check(options.norm_term <= feature_norm_term::full, op, "norm_term", "must be none, half or full",
              double(options.norm_term));
        const bool is_softmax = activation == feature_activation::softmax;
        check(!is_softmax || options.norm_term == feature_norm_term::none, op, "norm_term",
              "must be none for softmax features", double(options.norm_term));
        check(!is_softmax || options.gain == feature_gain::one, op, "gain", "must be one for softmax features",
              double(options.gain));
        check(activation == feature_activation::exp || options.stabilizer == feature_stabilizer::none, op, "stabilizer",
              "is for exp features only", double(options.stabilizer));
        const kernels::dct_features<T> f = features({}, {});
        work_count_ = std::max(f.template forward_count<arch>(), f.template backward_count<arch>() + 2 * m * width);
        work_.resize(std::size_t(options.threads * work_count_));
        parameters_.resize(std::size_t(2 * m));
        sums_.resize(std::size_t(most_segments * 2 * m));
    }

    index length() const noexcept {
        return transform_.length();
    }
    index features() const noexcept {
        return m_;
    }
    const dct_feature_options& options() const noexcept {
        return options_;
    }

    /// The shapes have been checked.
    template <class S, class Executor>
    void forward(const view<const S, 2>& x, const view<const T, 1>& t, const view<const T, 1>& weight,
                 const view<S, 2>& phi, T* log_scale, Executor& executor) {
        const kernels::dct_features<T> f = features(t, weight);
        detail::for_each_row_block(
            x.extent(0), width, options_.threads, executor, [&](index part, index r, index count) {
                S* const to = phi.data() + r * phi.stride(0);
                kernels::dct_features_forward<arch>(
                    f, x.data() + r * x.stride(0), x.stride(0), count, to, phi.stride(0),
                    log_scale == nullptr ? nullptr : log_scale + r, work_.data() + part * work_count_,
                    kernels::dct_rows_ahead::of<arch>(to, count, phi.stride(0), phi.extent(1), phi.extent(0)));
            });
    }

    /// grad_weight may be absent. Rows are cut into at most 16 segments that depend on their number alone; sums over
    /// some rows are in T, over these in double, in order: threads do not change a bit.
    template <class Executor>
    void backward(const view<const T, 2>& x, const view<const T, 1>& t, const view<const T, 1>& weight,
                  const view<const T, 2>& grad_phi, const view<const T, 1>& grad_log_scale, const view<T, 2>& grad_x,
                  const view<T, 1>& grad_t, const view<T, 1>& grad_weight, Executor& executor) {
        const kernels::dct_features<T> f = features(t, weight);
        const index blocks = (x.extent(0) + width - 1) / width, segments = std::min(blocks, most_segments);
        std::fill(sums_.begin(), sums_.end(), 0.0);
        detail::for_each_row_block(segments, 1, options_.threads, executor, [&](index part, index s, index) {
            T* const lanes = work_.data() + part * work_count_;
            T* const work = lanes + 2 * m_ * width;
            double* const sums = sums_.data() + s * 2 * m_;
            const index end = blocks * (s + 1) / segments;
            constexpr index run = 64; // blocks
            for (index first = blocks * s / segments; first < end; first += run) {
                std::fill_n(lanes, 2 * m_ * width, T(0));
                for (index b = first; b < std::min(first + run, end); ++b) {
                    const index r = b * width;
                    kernels::dct_features_backward<arch, T>(
                        f,
                        {x.data() + r * x.stride(0), x.stride(0), grad_phi.data() + r * grad_phi.stride(0),
                         grad_phi.stride(0), grad_log_scale.is_given() ? grad_log_scale.data() + r : nullptr,
                         grad_x.data() + r * grad_x.stride(0), grad_x.stride(0), std::min(width, x.extent(0) - r)},
                        lanes, lanes + m_ * width, work);
                }
                for (index j = 0; j < 2 * m_; ++j)
                    sums[j] += double(simd::reduce_add(simd::load<arch>(lanes + j * width)));
            }
        });
        for (index j = 0; j < m_; ++j) {
            double sum_t = 0, sum_weight = 0;
            for (index s = 0; s < segments; ++s) {
                sum_t += sums_[std::size_t(s * 2 * m_ + j)];
                sum_weight += sums_[std::size_t(s * 2 * m_ + m_ + j)];
            }
            grad_t(j) = T(options_.input_scale * sum_t);
            if (grad_weight.is_given())
                grad_weight(j) = T(options_.activation != feature_activation::log ? sum_weight
                                   : weight(j) == T(0)                            ? 0.0
                                                                                  : sum_weight / double(weight(j)));
        }
    }

private:
    static constexpr const char* op = "dct_feature_plan";

    /// Scales the parameters into memory of the plan, if they are given.
    kernels::dct_features<T> features(const view<const T, 1>& t, const view<const T, 1>& weight) {
        const bool is_log = options_.activation == feature_activation::log;
        const double gain = options_.gain == feature_gain::inverse_sqrt ? 1 / std::sqrt(double(m_)) : 1;
        kernels::dct_features<T> f;
        f.tables = &transform_.tables();
        f.transposed = transform_.transposed(false);
        f.form = is_log                                               ? kernels::feature_form::log
                 : options_.activation == feature_activation::softmax ? kernels::feature_form::softmax
                 : options_.stabilizer == feature_stabilizer::max     ? kernels::feature_form::shifted
                                                                      : kernels::feature_form::exp;
        f.m = m_;
        f.scale = T(options_.input_scale);
        f.penalty = T(0.5 * double(static_cast<unsigned char>(options_.norm_term)));
        f.gain = T(gain);
        f.weight = weight.data();
        if (!t.is_given())
            return f;
        T *const scaled = parameters_.data(), *const logs = scaled + m_;
        for (index j = 0; j < m_; ++j)
            scaled[j] = T(options_.input_scale * double(t(j)));
        f.t = scaled;
        if (is_log && (weight.is_given() || options_.gain == feature_gain::inverse_sqrt)) {
            for (index j = 0; j < m_; ++j)
                logs[j] = T(std::log(gain * std::abs(weight.is_given() ? double(weight(j)) : 1)));
            f.weight = logs;
        }
        return f;
    }

    detail::dct_transform<T> transform_;
    dct_feature_options options_;
    index m_, work_count_ = 0;
    simd::aligned_vector<T> work_, parameters_; // s t, log |D g|
    std::vector<double> sums_;
};

namespace detail {

/// x, phi, t, weight and log_scale, or their gradients, against the plan.
template <class T, class X, class Phi, class V>
void check_features(const char* op, const dct_feature_plan<T>& plan, const X& x, const char* phi_name, const Phi& phi,
                    const V& t, const V& weight, const char* log_scale_name, const auto& log_scale) {
    check_extent(op, "x", x, 1, plan.length(), "width of the plan");
    check_extent(op, phi_name, phi, 1, plan.features(), "features of the plan");
    check_extent(op, phi_name, phi, 0, x.extent(0), "rows of x");
    check_extent(op, "t", t, 0, plan.features(), "features of the plan");
    if (weight.is_given())
        check_extent(op, "weight", weight, 0, plan.features(), "features of the plan");
    if (log_scale.is_given()) {
        check(plan.options().stabilizer == feature_stabilizer::max, op, log_scale_name,
              "exists with stabilizer max only; its extent", double(log_scale.extent(0)));
        check_extent(op, log_scale_name, log_scale, 0, x.extent(0), "rows of x");
    }
}

} // namespace detail

/// phi = phi(x); formulas, shapes and types at the top of this file.
///
/// weight and log_scale may be absent. phi may be x if m = d. Throws std::invalid_argument before anything is written
/// if shapes do not fit the plan. What is not finite in a row of x gives NaN in that row and no other. The same bits
/// for every executor. Error: |u| eps of the largest phi of a row.
template <class T = void, class Phi = rows<T>, executor Executor = serial_executor>
void dct_feature_map(in_rows<element_t<T, Phi>> x, in<compute_t<element_t<T, Phi>>, 1> t,
                     in<compute_t<element_t<T, Phi>>, 1> weight, Phi&& phi_out,
                     out<compute_t<element_t<T, Phi>>, 1> log_scale,
                     dct_feature_plan<compute_t<element_t<T, Phi>>>& plan, Executor&& executor = Executor()) {
    using S = element_t<T, Phi>;
    const rows<S> phi(phi_out);
    detail::check_features("dct_feature_map", plan, x, "phi", phi, t, weight, "log_scale", log_scale);
    plan.template forward<S>(x, t, weight, phi, log_scale.data(), executor);
}

/// Gradients of dct_feature_map for the cotangents grad_phi, G, and grad_log_scale, l; p = phi / D:
///
///     softmax:  du = p (G D - sum_j G_j D_j p_j)     exp:  du = G phi     log:  du = G
///     A = sum_j du_j, with a stabilizer A = l;    dy_i = sum over j mod d = i of t_j du_j
///     grad_x = s (M^T dy - 2 c A x'),   grad_t_j = sum over rows of du_j y_{j mod d}
///     grad_weight_j = sum over rows of G_j p_j, for log of G_j / D_j (0 where D_j = 0)
///
/// max u counts as constant, which is exact for whatever depends on exp(log_scale) phi alone. weight, grad_log_scale
/// and grad_weight may be absent. grad_x may be grad_phi if m = d; no other output overlaps an input. Throws and runs
/// like dct_feature_map; T is float or double. For no rows grad_t and grad_weight are 0.
template <class T = void, class GX = rows<T>, executor Executor = serial_executor>
void dct_feature_map_backward(in_rows<element_t<T, GX>> x, in<element_t<T, GX>, 1> t, in<element_t<T, GX>, 1> weight,
                              in_rows<element_t<T, GX>> grad_phi, in<element_t<T, GX>, 1> grad_log_scale,
                              GX&& grad_x_out, out<element_t<T, GX>, 1> grad_t, out<element_t<T, GX>, 1> grad_weight,
                              dct_feature_plan<element_t<T, GX>>& plan, Executor&& executor = Executor()) {
    const rows<element_t<T, GX>> grad_x(grad_x_out);
    const char* const op = "dct_feature_map_backward";
    detail::check_features(op, plan, x, "grad_phi", grad_phi, t, weight, "grad_log_scale", grad_log_scale);
    detail::check_same_shape(op, "grad_x", grad_x, "x", x);
    detail::check_same_shape(op, "grad_t", grad_t, "t", t);
    if (grad_weight.is_given()) {
        detail::check(weight.is_given(), op, "grad_weight", "exists with weight only; its extent",
                      double(grad_weight.extent(0)));
        detail::check_same_shape(op, "grad_weight", grad_weight, "weight", weight);
    }
    plan.backward(x, t, weight, grad_phi, grad_log_scale, grad_x, grad_t, grad_weight, executor);
}

} // namespace DEFT_ISA
} // namespace deft

#endif

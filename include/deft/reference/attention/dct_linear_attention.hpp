/// \file
/// Naive reference of dct_linear_attention: all features, then linear attention; with stabilizer max in logarithms.
#ifndef DEFT_REFERENCE_ATTENTION_DCT_LINEAR_ATTENTION_HPP
#define DEFT_REFERENCE_ATTENTION_DCT_LINEAR_ATTENTION_HPP

#include <deft/reference/attention/dct_feature_map.hpp>
#include <deft/reference/attention/linear_attention.hpp>
#include <deft/reference/attention/linear_attention_log.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// q [B, H, nq, d], k [B, G, n, d], v [B, G, n, e]; t, weight [m], weight may be absent; decay [B, G, n] or absent.
template <class T>
struct dct_attention_inputs {
    view<const T, 4> q, k, v;
    view<const T, 1> t, weight;
    view<const T, 3> decay;
};

/// phi of every row of x, in new memory; `log` asks for logarithms.
template <class T>
std::vector<T> features_of(const view<const T, 4>& x, const dct_attention_inputs<T>& in,
                           const feature_options& options) {
    const index d = x.extent(3), m = in.t.extent(0);
    const std::vector<T> matrix = dct_matrix<T>(d, options.transform);
    std::vector<T> phi(std::size_t(x.extent(0) * x.extent(1) * x.extent(2) * m));
    index row = 0;
    for (index b = 0; b < x.extent(0); ++b)
        for (index h = 0; h < x.extent(1); ++h)
            for (index i = 0; i < x.extent(2); ++i, ++row)
                dct_feature_map<T>({x.data() + b * x.stride(0) + h * x.stride(1) + i * x.stride(2), {1, d}}, in.t,
                                   in.weight, view<T, 2>(phi.data() + row * m, {1, m}), absent, matrix, options);
    return phi;
}

/// o [B, H, nq, e]; state [B, G, m, e], norm, log_scale [B, G, m] in and out. The form of the options is log for the
/// stable way.
template <class T>
void dct_linear_attention(const dct_attention_inputs<T>& x, view<T, 4> o, out<T, 4> state, out<T, 3> norm,
                          out<T, 3> log_scale, const feature_options& options, const linear_attention_form& form) {
    const index m = x.t.extent(0);
    const std::vector<T> q = features_of(x.q, x, options), k = features_of(x.k, x, options);
    const linear_attention_inputs<T> features{{q.data(), {x.q.extent(0), x.q.extent(1), x.q.extent(2), m}},
                                              {k.data(), {x.k.extent(0), x.k.extent(1), x.k.extent(2), m}},
                                              x.v,
                                              x.decay};
    if (options.form == feature_form::log)
        linear_attention_log<T>(features, o, state, norm, log_scale, form.causal);
    else
        linear_attention<T>(features, o, state, norm, form);
}

/// Of one call from the empty state. grad_weight and grad_decay [B, G, n] may be absent.
template <class T>
void dct_linear_attention_backward(const dct_attention_inputs<T>& x, view<const T, 4> grad_o, view<T, 4> grad_q,
                                   view<T, 4> grad_k, view<T, 4> grad_v, view<T, 1> grad_t, view<T, 1> grad_weight,
                                   view<T, 3> grad_decay, const feature_options& options,
                                   const linear_attention_form& form) {
    const index d = x.q.extent(3), m = x.t.extent(0);
    const std::vector<T> q = features_of(x.q, x, options), k = features_of(x.k, x, options);
    std::vector<T> to_q(q.size()), to_k(k.size()), part_t(static_cast<std::size_t>(m)), part_weight(part_t);
    const linear_attention_inputs<T> features{{q.data(), {x.q.extent(0), x.q.extent(1), x.q.extent(2), m}},
                                              {k.data(), {x.k.extent(0), x.k.extent(1), x.k.extent(2), m}},
                                              x.v,
                                              x.decay};
    const view<T, 4> through_q(to_q.data(), {x.q.extent(0), x.q.extent(1), x.q.extent(2), m});
    const view<T, 4> through_k(to_k.data(), {x.k.extent(0), x.k.extent(1), x.k.extent(2), m});
    if (options.form == feature_form::log)
        linear_attention_log_backward<T>(features, grad_o, {through_q, through_k, grad_v, absent, grad_decay},
                                         form.causal);
    else
        linear_attention_backward<T>(features, absent, absent, grad_o, through_q, through_k, grad_v, grad_decay, absent,
                                     absent, form);

    const std::vector<T> matrix = dct_matrix<T>(d, options.transform);
    for (index j = 0; j < m; ++j) {
        grad_t(j) = 0;
        if (grad_weight.is_given())
            grad_weight(j) = 0;
    }
    const auto back = [&](const view<const T, 4>& from, const std::vector<T>& through, const view<T, 4>& to) {
        index row = 0;
        for (index b = 0; b < from.extent(0); ++b)
            for (index h = 0; h < from.extent(1); ++h)
                for (index i = 0; i < from.extent(2); ++i, ++row) {
                    dct_feature_map_backward<T>(
                        {from.data() + b * from.stride(0) + h * from.stride(1) + i * from.stride(2), {1, d}}, x.t,
                        x.weight, {through.data() + row * m, {1, m}}, absent,
                        view<T, 2>(to.data() + b * to.stride(0) + h * to.stride(1) + i * to.stride(2), {1, d}), part_t,
                        part_weight, matrix, options);
                    for (index j = 0; j < m; ++j) {
                        grad_t(j) += part_t[std::size_t(j)];
                        if (grad_weight.is_given())
                            grad_weight(j) += part_weight[std::size_t(j)];
                    }
                }
    };
    back(x.q, to_q, grad_q);
    back(x.k, to_k, grad_k);
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

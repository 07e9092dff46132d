/// \file
/// Two convolutions in a row, one of them 1x1, as one: the second half of VanillaNet's merge after training
/// (arXiv:2305.12972; huawei-noah/VanillaNet, models/vanillanet.py `switch_to_deploy`), once the activation between
/// them has become the identity (annealed_activation, lambda = 1) and normalisation is folded in (fuse_conv_bn).
///
///     pointwise, kxk_then_pointwise: W[o,c,p,q] = sum_m w2[o,m] w1[m,c,p,q],  b_o = b2_o + sum_m w2[o,m] b1_m
///     pointwise_then_kxk:            W[o,c,p,q] = sum_m w2[o,m,p,q] w1[m,c],  b_o = b2_o + sum_m b1_m sum_pq
///     w2[o,m,p,q]
///
/// w1: [Cm, Ci, k1, k1], applied first; b1: [Cm]; w2: [Co, Cm, k2, k2]; b2: [Co]; weight: [Co, Ci, k, k], k = max(k1,
/// k2); bias: [Co]. b1 and b2 may be absent: 0. The 1x1 convolution has stride 1. The first two modes are exact for
/// every stride and padding of the other one; the third needs b1 = 0 or no padding. No gradient: this runs once per
/// model.
#ifndef DEFT_ACTIVATION_MERGE_POINTWISE_CONVS_HPP
#define DEFT_ACTIVATION_MERGE_POINTWISE_CONVS_HPP

#include <deft/linalg.hpp>
#include <deft/view.hpp>

#include <algorithm>

namespace deft {

/// Which of the two convolutions is 1x1: both, the second, the first.
enum class merge_mode : unsigned char { pointwise, kxk_then_pointwise, pointwise_then_kxk };

/// interior_only: accepts a result that is wrong where the merged convolution sees padding.
enum class merge_borders : unsigned char { exact, interior_only };

struct merge_pointwise_convs_options {
    required<merge_mode> mode;
    double lambda = 1; ///< of the activation in between; only the identity, 1, can be merged
    index groups = 1;  ///< of either convolution; only 1 can be merged
    index padding = 0; ///< of the k x k convolution
    merge_borders borders = merge_borders::exact;
};

inline namespace DEFT_ISA {
namespace detail {

template <class T>
void check_merge(const view<const T, 4>& w1, const view<const T, 1>& b1, const view<const T, 4>& w2,
                 const view<const T, 1>& b2, const view<T, 4>& weight, const view<T, 1>& bias,
                 const merge_pointwise_convs_options& options) {
    const char* const op = "merge_pointwise_convs";
    check_extent(op, "w2", w2, 1, w1.extent(0), "extent 0 of w1");
    const auto check_kernel = [&](const char* name, const view<const T, 4>& w, bool is_pointwise) {
        check(w.extent(2) >= 1, op, name, "a kernel has at least one tap", double(w.extent(2)));
        for (int axis = 2; axis < 4; ++axis)
            if (is_pointwise)
                check_extent(op, name, w, axis, 1, "pointwise in this mode");
            else
                check_extent(op, name, w, axis, w.extent(2), "kernels are square");
    };
    check_kernel("w1", w1, options.mode != merge_mode::kxk_then_pointwise);
    check_kernel("w2", w2, options.mode != merge_mode::pointwise_then_kxk);
    if (b1.is_given())
        check_extent(op, "b1", b1, 0, w1.extent(0), "extent 0 of w1");
    if (b2.is_given())
        check_extent(op, "b2", b2, 0, w2.extent(0), "extent 0 of w2");
    check_extent(op, "weight", weight, 0, w2.extent(0), "extent 0 of w2");
    check_extent(op, "weight", weight, 1, w1.extent(1), "extent 1 of w1");
    for (int axis = 2; axis < 4; ++axis)
        check_extent(op, "weight", weight, axis, std::max(w1.extent(2), w2.extent(2)), "extent 2 of w1 or w2");
    check_extent(op, "bias", bias, 0, w2.extent(0), "extent 0 of w2");
    check(options.lambda == 1, op, "lambda", "must be 1: only the identity can be merged", options.lambda);
    check(options.groups == 1, op, "groups", "must be 1", double(options.groups));
    check(options.padding >= 0, op, "padding", "must not be negative", double(options.padding));
    if (options.mode == merge_mode::pointwise_then_kxk && options.borders == merge_borders::exact &&
        options.padding > 0)
        for (index m = 0; m < b1.extent(0); ++m)
            check(b1(m) == T(0), op, "padding",
                  "must be 0 unless b1 is 0 or borders is interior_only: the merged bias is wrong at the borders",
                  double(options.padding));
}

/// The matrix of one tap, over output and input channels; with `taps` > 1 and taps contiguous, over (channel, tap).
template <class T>
linalg::matrix<T> tap_matrix(const view<T, 4>& w, index p, index q, index taps) {
    return {w.data() + p * w.stride(2) + q, w.extent(0), w.extent(1) * taps, w.stride(0), taps > 1 ? 1 : w.stride(1)};
}

/// Whether [Ci, k, k] of every output channel lie one after the other.
template <class T>
bool has_contiguous_taps(const view<T, 4>& w) {
    return w.stride(2) == w.extent(3) && w.stride(1) == w.extent(2) * w.extent(3);
}

} // namespace detail

/// weight, bias: the merged convolution; they must not overlap the inputs. Throws std::invalid_argument before anything
/// is written if shapes do not fit each other or the mode, lambda or groups is not 1, or the third mode would be wrong
/// at borders and options.borders does not accept that. Cm = 0 gives weight = 0, bias = b2. Does not allocate.
template <class T = void, class W = view<T, 4>>
void merge_pointwise_convs(in<element_t<T, W>, 4> w1, in<element_t<T, W>, 1> b1, in<element_t<T, W>, 4> w2,
                           in<element_t<T, W>, 1> b2, W&& weight, out<element_t<T, W>, 1> bias,
                           const merge_pointwise_convs_options& options) {
    using S = element_t<T, W>;
    const view<S, 4> merged(weight);
    detail::check_merge<S>(w1, b1, w2, b2, merged, bias, options);

    const index k = merged.extent(2), k1 = w1.extent(2), k2 = w2.extent(2);
    // One product for all taps where w1 has them all and memory allows it, else one per tap.
    const bool is_one_product = k2 == 1 && detail::has_contiguous_taps(w1) && detail::has_contiguous_taps(merged);
    const index taps = is_one_product ? k * k : 1, side = is_one_product ? 1 : k;
    for (index p = 0; p < side; ++p)
        for (index q = 0; q < side; ++q) {
            const auto of_w2 = detail::tap_matrix(w2, std::min(p, k2 - 1), std::min(q, k2 - 1), 1);
            const auto of_w1 = detail::tap_matrix(w1, std::min(p, k1 - 1), std::min(q, k1 - 1), taps);
            linalg::gemm<S>(1, of_w2, of_w1, 0, detail::tap_matrix(merged, p, q, taps));
        }

    for (index o = 0; o < w2.extent(0); ++o) {
        double sum = b2.is_given() ? double(b2(o)) : 0.0;
        for (index m = 0; m < b1.extent(0); ++m)
            for (index p = 0; p < k2; ++p)
                for (index q = 0; q < k2; ++q)
                    sum += double(w2(o, m, p, q)) * double(b1(m));
        bias(o) = S(sum);
    }
}

} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Quantisers with two step sizes for one tensor, of TinySAM (arXiv:2312.13789) after PTQ4ViT (arXiv:2111.12293): one
/// bit of a code selects the range or the sign. Q = 2^(b-1), rounding half to even.
///
///     softmax, x in [0, 1], split p, fine step d (p / (Q - 1) covers [0, p]):
///         high = clip(round(clip(x, p, 1) (Q - 1)), 0, Q - 1) / (Q - 1)
///         low  = clip(round(clip(x, 0, p) / d), 0, Q - 1) d
///         exclusive: y = high if x >= p, else low      sum: y = high + low (what the released models do)
///     gelu, steps dp and dn (0.16997124 / Q covers the negative lobe of GELU):
///         y = dp clip(round(x / dp), 0, Q - 1) + dn clip(round(x / dn), -Q, 0)
///
/// x, y: `[...]`. Elements are float or double. For inference: no gradients.
#ifndef DEFT_QUANTIZATION_TWIN_QUANTIZE_HPP
#define DEFT_QUANTIZATION_TWIN_QUANTIZE_HPP

#include <deft/kernels/twin_quantize.hpp>
#include <deft/parallel.hpp>
#include <deft/view.hpp>

#include <cmath>
#include <type_traits>

namespace deft {

enum class twin_mode : unsigned char { exclusive, sum };

struct twin_quantize_softmax_options {
    required<int> bits;        ///< 2 .. 8
    required<double> split;    ///< p, in (0, 1]
    required<double> step_low; ///< d
    twin_mode mode = twin_mode::exclusive;
};

struct twin_quantize_gelu_options {
    required<int> bits;        ///< 2 .. 8
    required<double> step_pos; ///< dp
    required<double> step_neg; ///< dn
};

inline namespace DEFT_ISA {
namespace detail {

inline void check_twin_bits(const char* op, int bits) {
    check(bits >= 2 && bits <= 8, op, "bits", "must lie in 2 .. 8", bits);
}
inline void check_twin_step(const char* op, const char* name, double step) {
    check(step > 0 && std::isfinite(step), op, name, "must be positive and finite", step);
}

template <class T, class X, class Y, class Executor, class F>
void for_each_twin_piece(const X& x, const Y& y, Executor& executor, F&& f) {
    static_assert(std::is_floating_point_v<T>, "twin_quantize takes float or double");
    const bool flat = x.stride(0) == x.extent(1) && y.stride(0) == y.extent(1);
    for_each_piece(x.extent(0), x.extent(1), flat, executor, [&](index r, index c, index count) {
        f(x.data() + r * x.stride(0) + c, count, y.data() + r * y.stride(0) + c);
    });
}

} // namespace detail

/// y; formulas at the top of this file. y may be x; x outside [0, 1] is clipped; NaN gives NaN. Throws
/// std::invalid_argument before anything is written if shapes do not fit, bits is not 2 .. 8, split is not in (0, 1] or
/// a step is not positive and finite. The same bits for every executor.
template <class T = void, class Y = rows<T>, executor Executor = serial_executor>
void twin_quantize_softmax(in_rows<element_t<T, Y>> x, Y&& y_out, const twin_quantize_softmax_options& options,
                           Executor&& executor = Executor()) {
    using S = element_t<T, Y>;
    const char* const op = "twin_quantize_softmax";
    const rows<S> y(y_out);
    detail::check_same_shape(op, "y", y, "x", x);
    detail::check_twin_bits(op, options.bits);
    detail::check(options.split > 0 && options.split <= 1, op, "split", "must lie in (0, 1]", options.split);
    detail::check_twin_step(op, "step_low", options.step_low);
    const S most = S((1 << (options.bits - 1)) - 1), split = S(options.split), step = S(options.step_low);
    const auto run = [&](auto sum) {
        detail::for_each_twin_piece<S>(x, y, executor, [&](const S* from, index n, S* to) {
            kernels::twin_quantize_softmax<sum.value, simd::default_arch>(from, n, split, step, most, to);
        });
    };
    if (options.mode == twin_mode::sum)
        run(std::true_type{});
    else
        run(std::false_type{});
}

/// y; formulas at the top of this file. y may be x; NaN gives NaN. Throws like twin_quantize_softmax.
template <class T = void, class Y = rows<T>, executor Executor = serial_executor>
void twin_quantize_gelu(in_rows<element_t<T, Y>> x, Y&& y_out, const twin_quantize_gelu_options& options,
                        Executor&& executor = Executor()) {
    using S = element_t<T, Y>;
    const char* const op = "twin_quantize_gelu";
    const rows<S> y(y_out);
    detail::check_same_shape(op, "y", y, "x", x);
    detail::check_twin_bits(op, options.bits);
    detail::check_twin_step(op, "step_pos", options.step_pos);
    detail::check_twin_step(op, "step_neg", options.step_neg);
    const S most = S((1 << (options.bits - 1)) - 1), positive = S(options.step_pos), negative = S(options.step_neg);
    detail::for_each_twin_piece<S>(x, y, executor, [&](const S* from, index n, S* to) {
        kernels::twin_quantize_gelu<simd::default_arch>(from, n, positive, negative, most, to);
    });
}

} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// Activations as codes of 8 or 4 bits, found per token: quantised once, multiplied with several weight matrices.
///
/// For the integer products of quantized_matmul (arXiv:1712.05877 section 2; CBQ, arXiv:2312.07950, W4A8 and W4A4):
///
///     symmetric:   scale = max|x| / (2^(b-1) - 1), zero = 0,                       codes in [-2^(b-1), 2^(b-1) - 1]
///     asymmetric:  lo = min(min x, 0), hi = max(max x, 0), scale = (hi - lo) / (2^b - 1), zero = round(-lo / scale),
///                                                                                  codes in [0, 2^b - 1]
///     code = clip(round(x / scale) + zero)
///
/// over each token, or each token and group of columns; scale is clamped to [1e-10, 1e30]; rounding is half to even.
///
///     deft::quantized_activation<float> a({.columns = 4096, .group_size = 128});
///     deft::quantize_activation(x, a);                  // once
///     deft::quantized_matmul(a, wq, absent, q);         // prepared weights of the same group size
///     deft::quantized_matmul(a, wk, absent, k);
#ifndef DEFT_QUANTIZATION_QUANTIZED_ACTIVATION_HPP
#define DEFT_QUANTIZATION_QUANTIZED_ACTIVATION_HPP

#include <deft/kernels/quantize_activation.hpp>
#include <deft/parallel.hpp>
#include <deft/quantization/column_segments.hpp>
#include <deft/simd/aligned_vector.hpp>
#include <deft/view.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

namespace deft {

enum class code_range : unsigned char { symmetric, asymmetric };
enum class activation_granularity : unsigned char { token, group };

struct activation_quantization {
    index columns = 0;
    index group_size = 0; ///< that of the weights; 0: no groups
    index max_tokens = 1;
    int bits = 8; ///< 4 or 8
    code_range range = code_range::symmetric;
    activation_granularity scales = activation_granularity::token;
};

/// A step size that is known beforehand, for all tokens; zero_point is 0 for a symmetric range.
template <class T>
struct static_step {
    T scale;
    int zero_point = 0;
};

inline namespace DEFT_ISA {

/// Codes of up to max_tokens tokens. A copy is independent. Memory is allocated by the constructor only.
template <class T>
class quantized_activation {
    static_assert(std::is_floating_point_v<T>, "activations are float or double");

public:
    /// Throws std::invalid_argument for bits other than 4 and 8, negative sizes, or scales per group without groups.
    explicit quantized_activation(const activation_quantization& options)
        : options_(checked(options)), segments_(options.columns, options.group_size),
          range_(kernels::activation_range::of(options.bits, options.range == code_range::symmetric)),
          codes_(std::size_t(options.max_tokens * segments_.blocks() * kernels::code_block)),
          sums_(std::size_t(options.max_tokens * segments_.count())), scale_(std::size_t(options.max_tokens * steps())),
          zero_(scale_.size()) {}

    const activation_quantization& options() const noexcept {
        return options_;
    }
    index tokens() const noexcept {
        return tokens_;
    }
    index groups() const noexcept {
        return per_group() ? segments_.group.empty() ? 0 : segments_.group.back() + 1 : 1;
    }

    // What was found, for inspection: column k, group g (0 if scales are per token).
    int code(index token, index column) const noexcept {
        index s = 0;
        while (column >= segments_.first_column[std::size_t(s + 1)])
            ++s;
        const index at = segments_.first_block[std::size_t(s)] * kernels::code_block + column -
                         segments_.first_column[std::size_t(s)];
        return codes_[std::size_t(token * segments_.blocks() * kernels::code_block + at)] + range_.moved;
    }
    T scale(index token, index group) const noexcept {
        return scale_[step_of(token, group)];
    }
    int zero_point(index token, index group) const noexcept {
        return zero_[step_of(token, group)] + range_.moved;
    }

    /// For kernels.
    kernels::coded_activation<T> coded() const noexcept {
        return {codes_.data(), sums_.data(), scale_.data(),
                zero_.data(),  per_group(),  options_.range == code_range::asymmetric || is_static_};
    }

    /// quantize_activation() calls these.
    template <class Executor>
    void assign(const view<const T, 2>& x, const static_step<T>* fixed, Executor& executor) {
        using arch = simd::default_arch;
        tokens_ = x.extent(0);
        is_static_ = fixed != nullptr;
        const index row = segments_.blocks() * kernels::code_block, count = segments_.count();
        executor.parallel_for(tokens_, 16384 / (options_.columns + 1) + 1, [&](index begin, index end) {
            for (index t = begin; t < end; ++t) {
                const T* const from = x.data() + t * x.stride(0);
                kernels::activation_step<T> step{T(1), 0};
                if (fixed != nullptr)
                    step = {fixed->scale, fixed->zero_point - range_.moved};
                else if (!per_group())
                    step = kernels::find_step<arch, T>(from, options_.columns, range_);
                if (!per_group()) {
                    scale_[std::size_t(t)] = step.scale;
                    zero_[std::size_t(t)] = step.zero;
                }
                for (index s = 0; s < count; ++s) {
                    const T* const piece = from + segments_.first_column[std::size_t(s)];
                    if (per_group()) {
                        if (fixed == nullptr && (s == 0 || group(s) != group(s - 1)))
                            step = kernels::find_step<arch, T>(piece, group_columns(s), range_);
                        scale_[std::size_t(t * count + s)] = step.scale;
                        zero_[std::size_t(t * count + s)] = step.zero;
                    }
                    sums_[std::size_t(t * count + s)] = kernels::quantize_codes<arch, T>(
                        piece, segments_.columns(s), step, range_,
                        codes_.data() + t * row + segments_.first_block[std::size_t(s)] * kernels::code_block);
                }
            }
        });
    }

private:
    static const activation_quantization& checked(const activation_quantization& o) {
        const char* const op = "quantized_activation";
        detail::check(o.bits == 4 || o.bits == 8, op, "bits", "must be 4 or 8", double(o.bits));
        detail::check(o.columns >= 0, op, "columns", "must not be negative", double(o.columns));
        detail::check(o.group_size >= 0, op, "group_size", "must not be negative", double(o.group_size));
        detail::check(o.max_tokens >= 0, op, "max_tokens", "must not be negative", double(o.max_tokens));
        detail::check(o.scales == activation_granularity::token || o.group_size > 0, op, "group_size",
                      "must be positive for scales per group", double(o.group_size));
        return o;
    }
    bool per_group() const noexcept {
        return options_.scales == activation_granularity::group;
    }
    index steps() const noexcept { // per token
        return per_group() ? segments_.count() : 1;
    }
    index group(index segment) const noexcept {
        return segments_.group[std::size_t(segment)];
    }
    index group_columns(index segment) const noexcept {
        return std::min(options_.group_size, options_.columns - group(segment) * options_.group_size);
    }
    std::size_t step_of(index token, index g) const noexcept {
        index s = 0;
        while (per_group() && group(s) != g)
            ++s;
        return std::size_t(token * steps() + s);
    }

    activation_quantization options_;
    detail::column_segments segments_;
    kernels::activation_range range_;
    index tokens_ = 0;
    bool is_static_ = false;
    simd::aligned_vector<std::int8_t> codes_;
    std::vector<std::int32_t> sums_;
    std::vector<T> scale_;
    std::vector<std::int32_t> zero_;
};

namespace detail {

template <class T>
void check_activation(const char* op, const view<const T, 2>& x, const quantized_activation<T>& a) {
    check_extent(op, "x", x, 1, a.options().columns, "columns");
    check(x.extent(0) <= a.options().max_tokens, op, "extent 0 of x", "must not exceed max_tokens",
          double(x.extent(0)));
}

} // namespace detail

/// Replaces what `a` holds by the codes of x [tokens, columns], or [columns]. NaN in a token, or in a group that has
/// its own scale, makes that scale NaN, and with it what the token is multiplied to; infinities saturate. Throws
/// std::invalid_argument before anything is written if x has other columns or too many tokens. Does not allocate. The
/// same bits for every executor.
template <class T, executor Executor = serial_executor>
void quantize_activation(in_rows<T> x, quantized_activation<T>& a, Executor&& executor = Executor()) {
    detail::check_activation<T>("quantize_activation", x, a);
    a.assign(x, nullptr, executor);
}

/// The same with a step size that is given. Throws also if scale is not positive and finite, or zero_point is no code.
template <class T, executor Executor = serial_executor>
void quantize_activation(in_rows<T> x, const static_step<std::type_identity_t<T>>& step, quantized_activation<T>& a,
                         Executor&& executor = Executor()) {
    const char* const op = "quantize_activation";
    detail::check_activation<T>(op, x, a);
    detail::check(step.scale > 0 && std::isfinite(step.scale), op, "scale", "must be positive and finite",
                  double(step.scale));
    const auto& o = a.options();
    const bool fits =
        o.range == code_range::symmetric ? step.zero_point == 0 : step.zero_point >= 0 && step.zero_point < 1 << o.bits;
    detail::check(fits, op, "zero_point", "must be a code, and 0 for a symmetric range", double(step.zero_point));
    a.assign(x, &step, executor);
}

} // namespace DEFT_ISA
} // namespace deft

#endif

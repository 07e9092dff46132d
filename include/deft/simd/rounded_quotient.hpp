/// \file
/// round(x / step) of many x and one step without a division each, to the last tie what the division gives. C++17.
#ifndef DEFT_SIMD_ROUNDED_QUOTIENT_HPP
#define DEFT_SIMD_ROUNDED_QUOTIENT_HPP

#include <deft/simd/mask_bits.hpp>
#include <deft/simd/math.hpp>

#include <limits>

namespace deft {
inline namespace DEFT_ISA {
namespace simd {

/// The integer nearest to x / step, ties to even. x is multiplied by 1 / step, and divided only where the product lies
/// so near the middle between two integers that its roundings, 1.5 ulp with that of the division, might matter.
///
/// Integers up to `reach` are exact, 0 is positive; of others it is only certain that they are beyond. NaN, infinities
/// and steps that have no reciprocal are divided.
template <class T, class Arch>
class rounded_quotient {
    using B = batch<T, Arch>;

public:
    rounded_quotient(T step, T reach) noexcept : step_(step), inverse_(T(1) / step), certain_(T(-1)) {
        constexpr T least = std::numeric_limits<T>::min(), epsilon = std::numeric_limits<T>::epsilon();
        if (step >= least && T(1) / step >= least)
            certain_ = T(0.5) - 2 * epsilon * (reach + 1);
    }
    DEFT_ALWAYS_INLINE B operator()(const B& x) const noexcept {
        const B rounder(detail::exp_constants<T>::rounder); // to an integer, but for products that are far beyond
        const B rounded = simd::fma(x, inverse_, rounder) - rounder;
        if (all_below(abs(simd::fma(x, inverse_, -rounded)), certain_))
            return rounded;
        return round_even(B(x / step_)) + B(T(0)); // no -0, which the other lanes of a vector would decide about
    }

private:
    B step_, inverse_;
    T certain_;
};

} // namespace simd
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// How far a result may be from what is expected, and how far it is.
#ifndef DEFT_TESTS_SUPPORT_COMPARE_HPP
#define DEFT_TESTS_SUPPORT_COMPARE_HPP

#include "tensor.hpp"

#include <cmath>
#include <cstddef>
#include <string>
#include <type_traits>
#include <vector>

namespace deft::testing {

/// |got - expected| <= absolute + relative |expected| + of_largest max(floor, max |expected|).
/// The default is exact equality. NaN must meet NaN, an infinity the same infinity, whatever the tolerance.
struct tolerance {
    double absolute = 0;
    double relative = 0;
    double of_largest = 0;
    double floor = 1;
};

/// The tolerance of a test in `T`.
template <class T>
constexpr tolerance by_type(tolerance for_float, tolerance for_double) {
    return std::is_same_v<T, double> ? for_double : for_float;
}

/// The element that is farthest from what is expected, measured by its tolerance.
struct deviation {
    double ratio = 0; // error / tolerance; infinite if an exact value, a NaN or an infinity is missed
    index at = -1;
    double got = 0, expected = 0, allowed = 0;

    bool is_acceptable() const noexcept {
        return ratio <= 1;
    }
    /// "[3] is 1.5, expected 1, tolerance 1e-05"
    std::string describe() const;
};

/// `largest` is the greatest finite number of the type that `got` was computed in: what is expected beyond it is an
/// infinity. The tensors have the same number of elements.
deviation compare(const tensor& got, const tensor& expected, const tolerance& allowed, double largest);

/// max |a_i - b_i|; NaN if one is not a number.
template <class T>
double largest_difference(const std::vector<T>& a, const std::vector<T>& b) {
    double largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const double difference = std::abs(double(a[i]) - double(b[i]));
        if (!(difference <= largest))
            largest = difference;
        if (std::isnan(difference))
            break;
    }
    return largest;
}

} // namespace deft::testing

#endif

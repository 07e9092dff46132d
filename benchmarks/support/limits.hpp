/// \file
/// The roofline: rows `limit/<what>/<type>/<size>` that run among the others, so that drift hits all alike.
#ifndef DEFT_BENCHMARKS_SUPPORT_LIMITS_HPP
#define DEFT_BENCHMARKS_SUPPORT_LIMITS_HPP

#include "suite.hpp"

#include <string>
#include <vector>

namespace deft::bench {

/// A part of some work, and the rows that measure how fast it can be done; the fastest of them counts.
struct bound {
    double work::*part;
    std::vector<std::string> yardsticks;
};

/// What bounds a row: an operator cannot be faster than any of these allows.
std::vector<bound> bounds_of(const row& r);

/// The row of a yardstick that bounds_of() named.
row make_yardstick(const std::string& name);

} // namespace deft::bench

#endif

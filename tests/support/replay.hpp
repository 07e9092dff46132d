/// \file
/// Replays a golden case: every form of an operator against what the case expects.
#ifndef DEFT_TESTS_SUPPORT_REPLAY_HPP
#define DEFT_TESTS_SUPPORT_REPLAY_HPP

#include "operator_table.hpp"

#include <string>
#include <vector>

namespace deft::testing {

struct failure {
    std::string run; // form, executor, placement
    std::string what;
    double ratio; // error / tolerance; infinite if it is no matter of accuracy
};

struct replay_result {
    double worst_ratio = 0;
    std::vector<failure> failures;
};

/// Runs forward, and backward if the case has cotangents, in every form including the naive reference, under the usual
/// and the adversarial executors, and in place where that is allowed. `T` is float or double.
template <class T>
replay_result replay(const operator_entry& op, const test_case& golden);

} // namespace deft::testing

#endif

/// \file
/// What must hold for every operator whatever it computes, checked on generated cases.
///
/// - values: every form gives what the naive reference gives in double, within the tolerance of the golden cases,
///   wherever the tensors lie: at all offsets from an aligned address, flush against guard pages, with gaps between
///   rows, in place; nothing outside of the outputs is written, nothing outside of the inputs is read.
/// - contents: results do not depend on what the outputs held before (an element that is not written is found so).
/// - allocation: a run does not allocate, unless the adapter says why it may.
/// - threads: the same bits for 1 to 4 threads and for any way of cutting the range.
/// - gradient: every backward form agrees with finite differences of the forward one.
#ifndef DEFT_TESTS_SUPPORT_PROPERTIES_HPP
#define DEFT_TESTS_SUPPORT_PROPERTIES_HPP

#include "operator_table.hpp"

#include <map>
#include <string>
#include <vector>

namespace deft::testing {

struct finding {
    std::string check; // the name before the colon above
    std::string what;
};

using findings = std::vector<finding>;

/// All checks but the gradient, in `T`, on one case.
template <class T>
findings check_runs(const operator_entry& op, const test_case& given);

/// Derivatives compared with finite differences and skipped, per gradient (grad_in.*).
struct gradient_tally {
    int compared = 0, skipped = 0;
};

/// The gradient check, in double, on one case. At a kink there is nothing to compare with: such elements are skipped
/// if the adapter says that there are kinks. They are told by the forward values alone.
findings check_gradient(const operator_entry& op, const test_case& given, std::map<std::string, gradient_tally>& tally);

/// Everything, on all the generated cases of an operator. Stops after a few findings.
findings check_operator(const operator_entry& op);

} // namespace deft::testing

#endif

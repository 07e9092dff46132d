/// \file
/// Counts allocations of the whole process: malloc and all that is built on it, operator new included.
#ifndef DEFT_TESTS_SUPPORT_ALLOCATIONS_HPP
#define DEFT_TESTS_SUPPORT_ALLOCATIONS_HPP

namespace deft::testing {

/// Allocations since the program started.
long allocations();

} // namespace deft::testing

#endif

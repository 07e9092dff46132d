/// \file
/// Precompiled for adapters and tests: what takes long to parse. No file relies on it.
#ifndef DEFT_TESTS_SUPPORT_PRECOMPILED_HPP
#define DEFT_TESTS_SUPPORT_PRECOMPILED_HPP

#include "generate.hpp"
#include "operator_table.hpp"

#include <deft/linalg_orthonormal.hpp>
#include <deft/linalg_symmetric.hpp>

#include <Eigen/Core>

#define DEFT_INSTANCE extern template
#include "../linalg_instances.inc"

#endif

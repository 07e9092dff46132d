/// \file
/// Precompiled for all benchmarks: what takes long to parse. No file relies on it.
#ifndef DEFT_BENCHMARKS_SUPPORT_PRECOMPILED_HPP
#define DEFT_BENCHMARKS_SUPPORT_PRECOMPILED_HPP

#include "suite.hpp"

#include <deft/linalg_orthonormal.hpp>
#include <deft/linalg_symmetric.hpp>

#include <Eigen/Core>

#define DEFT_INSTANCE extern template
#include "../../tests/linalg_instances.inc"

#endif

#include <deft/linalg_orthonormal.hpp>
#include <deft/linalg_symmetric.hpp>

#define DEFT_INSTANCE template
#include "../../tests/linalg_instances.inc"

#include <deft/linalg_symmetric.hpp>

#define DEFT_INSTANCE template
#include "../../tests/linalg_instances.inc"

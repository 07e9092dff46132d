// The operators of tests/operators.inc, compiled for one instruction set. A missing adapter does not link.
#include "support/operator_table.hpp"

#include <deft/linalg_orthonormal.hpp>
#include <deft/linalg_symmetric.hpp>

#define DEFT_INSTANCE template
#include "../linalg_instances.inc"

namespace deft::testing {

#define DEFT_OPERATOR(family, file, op) extern const operator_entry entry_of_##op;
#include "../operators.inc"
#undef DEFT_OPERATOR

} // namespace deft::testing

#define DEFT_TABLE_OF_(isa) deft_operators_##isa
#define DEFT_TABLE_OF(isa) DEFT_TABLE_OF_(isa)

extern "C" __attribute__((visibility("default"))) const deft::testing::operator_table*
DEFT_TABLE_OF(DEFT_CONFORMANCE_ISA)() {
    using namespace deft::testing;
    static const operator_table table{DEFT_STRINGIFY(DEFT_CONFORMANCE_ISA),
                                      {
#define DEFT_OPERATOR(family, file, op) &entry_of_##op,
#include "../operators.inc"
#undef DEFT_OPERATOR
                                      }};
    return &table;
}

// What must hold for every operator, one test per line of operators.inc.
#include "support/catch.hpp"
#include "support/properties.hpp"

extern "C" const deft::testing::operator_table* deft_operators_native();

namespace {

void check(const char* name) {
    const deft::testing::operator_entry* op = deft_operators_native()->find(name);
    REQUIRE(op != nullptr);
    for (const deft::testing::finding& f : deft::testing::check_operator(*op))
        FAIL_CHECK(f.check << ": " << f.what);
}

} // namespace

#define DEFT_OPERATOR(family, file, op)                                                                                \
    TEST_CASE("properties of " #op, "[properties][" #op "]") {                                                         \
        check(#op);                                                                                                    \
    }
#include "../operators.inc"

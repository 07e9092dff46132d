// Runs the benchmarks of one family, named by the macro DEFT_BENCH_FAMILY.
#include "run.hpp"

#include <string_view>
#include <utility>

// Every operator of the family registers its rows; one without a benchmark does not link.
#define DEFT_OPERATOR(family, file, op)                                                                                \
    namespace deft::bench {                                                                                            \
    void benchmark_##op(suite&);                                                                                       \
    }
#include "../../tests/operators.inc"
#undef DEFT_OPERATOR

int main(int argc, char** argv) {
    deft::bench::suite s;
#define DEFT_OPERATOR(family, file, op)                                                                                \
    if constexpr (std::string_view(#family) == DEFT_BENCH_FAMILY)                                                      \
        deft::bench::benchmark_##op(s);
#include "../../tests/operators.inc"
#undef DEFT_OPERATOR
    return deft::bench::run(DEFT_BENCH_FAMILY, std::move(s), argc, argv);
}

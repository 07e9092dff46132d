/// \file
/// The program around the benchmarks of a family: chooses rows, compares them with naive, times them interleaved with
/// the limits of the machine, writes JSON. Takes all flags of Google Benchmark.
#ifndef DEFT_BENCHMARKS_SUPPORT_RUN_HPP
#define DEFT_BENCHMARKS_SUPPORT_RUN_HPP

#include "suite.hpp"

#include <string>

namespace deft::bench {

/// Exit status of the program: 1 if a row differs from naive.
int run(const std::string& family, suite s, int argc, char** argv);

} // namespace deft::bench

#endif

/// \file
/// For the record in the results: compiler, flags, processor, versions of the rivals.
#ifndef DEFT_BENCHMARKS_SUPPORT_BUILD_FACTS_HPP
#define DEFT_BENCHMARKS_SUPPORT_BUILD_FACTS_HPP

#include <string>

namespace deft::bench {

/// Into the context of the JSON file, and on stderr.
void add_build_facts(const std::string& family);

} // namespace deft::bench

#endif

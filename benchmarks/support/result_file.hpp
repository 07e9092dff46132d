/// \file
/// The JSON file: Google Benchmark's, with `error` and `of_limit` among the counters.
#ifndef DEFT_BENCHMARKS_SUPPORT_RESULT_FILE_HPP
#define DEFT_BENCHMARKS_SUPPORT_RESULT_FILE_HPP

#include "limits.hpp"
#include "suite.hpp"

#include <benchmark/benchmark.h>

#include <map>
#include <set>
#include <string>
#include <vector>

namespace deft::bench {

/// Holds all results back until the limits are known too: rows and limits run interleaved.
class result_file : public benchmark::JSONReporter {
public:
    /// Label of repetitions that an interrupt skipped, and message of rows without any; neither counts.
    static constexpr const char* skipped = "interrupted";

    explicit result_file(std::map<std::string, const row*> rows) : rows_(std::move(rows)) {}

    void ReportRuns(const std::vector<Run>& runs) override;
    void Finalize() override;

private:
    double of_limit(const row& r, const Run& run) const;

    std::map<std::string, const row*> rows_;
    std::vector<std::vector<Run>> results_;
    std::set<std::string> incomplete_;      ///< rows with skipped repetitions: means and medians count those too
    std::map<std::string, double> seconds_; ///< of the limits, by name: median if there are repetitions
};

} // namespace deft::bench

#endif

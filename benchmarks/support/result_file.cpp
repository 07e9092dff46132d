#include "result_file.hpp"

#include <algorithm>

namespace deft::bench {
namespace {

/// Of one run. CPU time: another program on the machine takes the processor away, not the speed.
double seconds_of(const benchmark::BenchmarkReporter::Run& run) {
    return run.GetAdjustedCPUTime() / benchmark::GetTimeUnitMultiplier(run.time_unit);
}

} // namespace

void result_file::ReportRuns(const std::vector<Run>& runs) {
    results_.push_back(runs);
    for (const Run& run : runs)
        if (run.aggregate_name.empty() || run.aggregate_name == "median")
            seconds_[run.run_name.str()] = seconds_of(run);
}

double result_file::of_limit(const row& r, const Run& run) const {
    double least = 0; // seconds
    for (const bound& b : bounds_of(r)) {
        double rate = 0;
        for (const std::string& yardstick : b.yardsticks) {
            const auto measured = seconds_.find(yardstick);
            const auto described = rows_.find(yardstick);
            if (measured != seconds_.end() && described != rows_.end())
                rate = std::max(rate, described->second->work.*b.part / measured->second);
        }
        if (rate > 0)
            least = std::max(least, r.work.*b.part / rate);
    }
    return least / seconds_of(run);
}

void result_file::Finalize() {
    for (std::vector<Run>& runs : results_) {
        for (Run& run : runs) {
            const auto found = rows_.find(run.run_name.str());
            const bool is_time = run.aggregate_name.empty() || run.aggregate_name == "median";
            if (!is_time || found == rows_.end() || !found->second->mismatch.empty())
                continue;
            if (found->second->error < 0) // a limit, or not to be compared
                continue;
            run.counters["error"] = found->second->error;
            const double fraction = of_limit(*found->second, run);
            if (fraction > 0)
                run.counters["of_limit"] = fraction;
        }
        JSONReporter::ReportRuns(runs);
    }
    JSONReporter::Finalize();
}

} // namespace deft::bench

#include "result_file.hpp"

#include <algorithm>

namespace deft::bench {
namespace {

/// Of one run. CPU time: another program on the machine takes the processor away, not the speed.
double seconds_of(const benchmark::BenchmarkReporter::Run& run) {
    return run.GetAdjustedCPUTime() / benchmark::GetTimeUnitMultiplier(run.time_unit);
}

bool is_time(const benchmark::BenchmarkReporter::Run& run) {
    return (run.aggregate_name.empty() || run.aggregate_name == "median") && seconds_of(run) > 0;
}

} // namespace

void result_file::ReportRuns(const std::vector<Run>& runs) { // of a row: repetitions, then what was made of them
    std::vector<Run>& kept = results_.emplace_back();
    for (const Run& run : runs) {
        const std::string name = run.run_name.str();
        if (run.report_label == skipped)
            incomplete_.insert(name);
        if (run.report_label == skipped || (!run.aggregate_name.empty() && incomplete_.count(name) != 0))
            continue;
        kept.push_back(run);
        if (is_time(run))
            seconds_[name] = seconds_of(run);
    }
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
            if (!is_time(run) || found == rows_.end() || !found->second->mismatch.empty())
                continue;
            if (found->second->error < 0) // a limit, or not to be compared
                continue;
            run.counters["error"] = found->second->error;
            const double fraction = of_limit(*found->second, run);
            if (fraction > 0)
                run.counters["of_limit"] = fraction;
        }
        if (!runs.empty())
            JSONReporter::ReportRuns(runs);
    }
    JSONReporter::Finalize();
}

} // namespace deft::bench

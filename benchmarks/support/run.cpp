#include "run.hpp"

#include "build_facts.hpp"
#include "command_line.hpp"
#include "limits.hpp"
#include "progress.hpp"
#include "result_file.hpp"

#include <benchmark/benchmark.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <dlfcn.h>

/// Where report/instructions.py counts: everything that a row does, and nothing else.
extern "C" __attribute__((noinline)) void deft_counted_run(const deft::bench::row& r) {
    r.run();
}

namespace deft::bench {
namespace {

/// Rivals bring an OpenMP runtime along; all rows use one thread, whichever runtime that is.
void use_one_thread() {
    if (void* set = dlsym(RTLD_DEFAULT, "omp_set_num_threads"))
        reinterpret_cast<void (*)(int)>(set)(1);
}

/// Google Benchmark calls a row several times to find its iteration count, then once per further repetition; a
/// repetition is over when the next call is for another row, or does not ask for more iterations.
class repetition_counter {
public:
    std::size_t done() const noexcept {
        return done_;
    }
    /// Repetitions that were measured of a row, which then knows its iteration count.
    int measured(const row& r) const {
        const auto found = measured_.find(&r);
        return found == measured_.end() ? 0 : found->second;
    }
    void begin(const row* r, benchmark::IterationCount iterations, bool skipped) {
        if (row_ != nullptr && (r != row_ || iterations <= iterations_)) {
            ++done_;
            if (!skipped_)
                ++measured_[row_];
        }
        row_ = r;
        iterations_ = iterations;
        skipped_ = skipped;
    }

private:
    std::size_t done_ = 0;
    std::map<const row*, int> measured_;
    const row* row_ = nullptr;
    benchmark::IterationCount iterations_ = 0;
    bool skipped_ = false;
};

/// Ctrl-C skips what is left, so that the file is written with what was measured; the second one ends the program.
volatile std::sig_atomic_t interrupted = 0;

void stop_on_interrupt() {
    std::signal(SIGINT, [](int) {
        interrupted = 1;
        std::signal(SIGINT, SIG_DFL);
    });
}

/// Of a row that has been measured: Google Benchmark insists that all have the same number of iterations.
void skip_repetition(benchmark::State& state) {
    for (auto iteration : state)
        static_cast<void>(iteration);
    state.SetLabel(result_file::skipped);
}

void measure(benchmark::State& state, const row& r) {
    if (!r.mismatch.empty()) {
        state.SkipWithError(r.mismatch.c_str());
        return;
    }
    if (r.before)
        r.before();
    if (state.max_iterations > 1)
        r.run(); // warms caches; what takes longer than a whole repetition needs no warming
    for (auto iteration : state) {
        static_cast<void>(iteration);
        r.run();
        benchmark::ClobberMemory();
    }
    const auto count = [&](double amount) {
        return benchmark::Counter(amount, benchmark::Counter::kIsIterationInvariantRate);
    };
    state.counters["items_per_second"] = count(r.work.items);
    if (r.work.bytes > 0)
        state.counters["bytes_per_second"] = count(r.work.bytes);
    if (r.work.flops > 0)
        state.counters["flops_per_second"] = count(r.work.flops);
}

/// Twice, in truth: what is prepared in the first run does not count.
void run_once(const row& r) {
    for (const bool counts : {false, true}) {
        if (r.before)
            r.before();
        counts ? deft_counted_run(r) : r.run();
    }
}

/// Says nothing while rows run: the progress line does.
struct silent_reporter : benchmark::BenchmarkReporter {
    bool ReportContext(const Context&) override {
        return true;
    }
    void ReportRuns(const std::vector<Run>&) override {}
};

} // namespace

int run(const std::string& family, suite s, int argc, char** argv) {
    const command_line line(family, argc, argv);
    std::vector<char*> words;
    for (const std::string& word : line.words)
        words.push_back(const_cast<char*>(word.c_str()));
    int count = static_cast<int>(words.size());
    words.push_back(nullptr);
    benchmark::Initialize(&count, words.data(), print_help);
    if (benchmark::ReportUnrecognizedArguments(count, words.data()))
        return 1;

    const filter is_wanted(benchmark::GetBenchmarkFilter());
    std::map<std::string, const row*> chosen;
    std::map<const comparison*, std::vector<row*>> chosen_of;
    std::deque<row> yardsticks;
    std::set<std::string> kinds; // operators and element types that have their shape
    for (comparison& c : s.comparisons()) {
        if (c.is_full() && !line.full)
            continue;
        const row& first = c.rows().front();
        if (!kinds.insert(first.name.substr(0, first.name.find('/') + 1) + first.type).second && line.quick)
            continue;
        for (row& r : c.rows()) {
            if (!is_wanted(r.name))
                continue;
            if (!chosen.emplace(r.name, &r).second) {
                std::fprintf(stderr, "two rows are named %s\n", r.name.c_str());
                return 1;
            }
            chosen_of[&c].push_back(&r);
        }
    }
    if (chosen.empty()) {
        std::fprintf(stderr, "no row matches the filter %s\n", benchmark::GetBenchmarkFilter().c_str());
        return 1;
    }
    for (const auto& [c, rows] : chosen_of)
        for (const row* r : rows)
            for (const bound& b : bounds_of(*r))
                for (const std::string& name : b.yardsticks)
                    if (chosen.count(name) == 0)
                        chosen.emplace(name, &yardsticks.emplace_back(make_yardstick(name)));

    std::optional<progress> timing;
    repetition_counter repetitions;
    std::map<const row*, double> seconds; // of a run, when last measured
    for (const auto& [name, r] : chosen)
        benchmark::RegisterBenchmark(name.c_str(), [&, r = r](benchmark::State& state) {
            // Naive loops over large shapes take minutes, and noise is short against seconds.
            const bool is_enough = seconds[r] > 1 && repetitions.measured(*r) >= 2, skips = interrupted || is_enough;
            repetitions.begin(r, state.max_iterations, skips);
            timing->show(repetitions.done(), r->name);
            const auto start = std::chrono::steady_clock::now();
            if (!skips) {
                measure(state, *r);
                seconds[r] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() /
                             double(state.max_iterations);
            } else if (repetitions.measured(*r) > 0 && r->mismatch.empty())
                skip_repetition(state);
            else
                state.SkipWithError(r->mismatch.empty() ? result_file::skipped : r->mismatch.c_str());
        });
    if (line.once) {
        add_build_facts(family);
        use_one_thread();
        for (const auto& [c, rows] : chosen_of)
            for (const row* r : rows)
                run_once(*r);
        return 0;
    }
    if (line.has("benchmark_list_tests")) {
        benchmark::RunSpecifiedBenchmarks("all");
        return 0;
    }

    add_build_facts(family);
    use_one_thread();
    stop_on_interrupt();
    int mismatches = 0;
    {
        progress comparing("comparing with naive", chosen_of.size());
        std::size_t done = 0;
        for (const auto& [c, rows] : chosen_of) {
            if (interrupted)
                return 1;
            comparing.show(done++, rows.front()->name);
            c->verify(rows);
        }
    }
    timing.emplace("timing", chosen.size() * std::stoul(line.value("benchmark_repetitions")));
    silent_reporter silent;
    result_file results(chosen);
    const bool wants_console = !line.value("benchmark_format").empty();
    benchmark::RunSpecifiedBenchmarks(wants_console ? nullptr : &silent, &results, "all");
    timing.reset();

    for (const auto& [c, rows] : chosen_of)
        for (const row* r : rows)
            if (!r->mismatch.empty()) {
                std::fprintf(stderr, "ERROR %s: %s\n", r->name.c_str(), r->mismatch.c_str());
                ++mismatches;
            }
    std::fprintf(stderr, "%zu rows, %d errors, written to %s\n", chosen.size(), mismatches,
                 line.value("benchmark_out").c_str());
    return mismatches == 0 && !interrupted ? 0 : 1;
}

} // namespace deft::bench

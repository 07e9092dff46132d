#include "run.hpp"

#include "limits.hpp"
#include "progress.hpp"
#include "result_file.hpp"

#include <deft/config.hpp>

#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstring>
#include <deque>
#include <fstream>
#include <iostream>
#include <map>
#include <optional>
#include <regex>
#include <string>
#include <string_view>
#include <vector>

#include <dlfcn.h>

#ifndef DEFT_BENCH_FLAGS
#define DEFT_BENCH_FLAGS "unknown"
#endif
#ifndef DEFT_BENCH_BUILD_TYPE
#define DEFT_BENCH_BUILD_TYPE "unknown"
#endif

namespace deft::bench {
namespace {

// Tuned so that a family takes about two minutes on a small machine; the caller's flags come later and win.
constexpr const char* default_flags[] = {"--benchmark_repetitions=5", "--benchmark_min_time=0.02",
                                         "--benchmark_enable_random_interleaving=true",
                                         "--benchmark_report_aggregates_only=true", "--benchmark_out_format=json"};

void print_help() {
    std::cout << "deft_bench_<family> [--full]   all sizes and modes, not only those of the default run\n";
    benchmark::PrintDefaultHelp();
}

struct command_line {
    std::vector<std::string> words;
    bool full = false;

    command_line(const std::string& family, int argc, char** argv) : words{argv[0]} {
        words.insert(words.end(), std::begin(default_flags), std::end(default_flags));
        words.push_back("--benchmark_out=deft_bench_" + family + ".json");
        for (int i = 1; i < argc; ++i)
            if (std::strcmp(argv[i], "--full") == 0)
                full = true;
            else
                words.push_back(argv[i]);
    }

    /// Value of the last `--name=value`, empty if there is none.
    std::string value(const std::string& name) const {
        for (auto word = words.rbegin(); word != words.rend(); ++word)
            if (word->rfind("--" + name + '=', 0) == 0)
                return word->substr(name.size() + 3);
        return {};
    }
    bool has(const std::string& name) const {
        const std::string v = value(name);
        return (!v.empty() && v != "false" && v != "0") ||
               std::find(words.begin(), words.end(), "--" + name) != words.end();
    }
};

/// Google Benchmark's filter, applied before rows are compared and limits chosen.
class filter {
public:
    explicit filter(const std::string& pattern)
        : wanted_(pattern.empty() || pattern[0] != '-'), all_(pattern.empty() || pattern == "all"),
          expression_(wanted_ ? pattern : pattern.substr(1), std::regex::extended) {}
    bool operator()(const std::string& name) const {
        return all_ || std::regex_search(name, expression_) == wanted_;
    }

private:
    bool wanted_, all_;
    std::regex expression_;
};

std::string processor() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);)
        if (line.rfind("model name", 0) == 0)
            return line.substr(line.find(':') + 2);
    return "unknown";
}

void describe_build(const std::string& family) {
#if defined(__clang__)
    const std::string compiler = "clang " __clang_version__;
#else
    const std::string compiler = "g++ " __VERSION__;
#endif
    const std::map<std::string, std::string> context{{"compiler", compiler}, {"flags", DEFT_BENCH_FLAGS},
                                                     {"isa", DEFT_ISA_NAME}, {"build_type", DEFT_BENCH_BUILD_TYPE},
                                                     {"cpu", processor()},   {"threads", "1"},
                                                     {"family", family}};
    for (const auto& [key, value] : context) {
        benchmark::AddCustomContext(key, value);
        std::fprintf(stderr, "%-10s %s\n", key.c_str(), value.c_str());
    }
#if !defined(NDEBUG) || !defined(__OPTIMIZE__)
    std::fprintf(stderr, "\nWARNING: this is a debug build; its times mean nothing. Use CMAKE_BUILD_TYPE=Release.\n\n");
#endif
}

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
    void begin(const row* r, benchmark::IterationCount iterations) noexcept {
        if (row_ != nullptr && (r != row_ || iterations <= iterations_))
            ++done_;
        row_ = r;
        iterations_ = iterations;
    }

private:
    std::size_t done_ = 0;
    const row* row_ = nullptr;
    benchmark::IterationCount iterations_ = 0;
};

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
    for (comparison& c : s.comparisons())
        for (row& r : c.rows()) {
            if ((c.is_full() && !line.full) || !is_wanted(r.name))
                continue;
            if (!chosen.emplace(r.name, &r).second) {
                std::fprintf(stderr, "two rows are named %s\n", r.name.c_str());
                return 1;
            }
            chosen_of[&c].push_back(&r);
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
    for (const auto& [name, r] : chosen)
        benchmark::RegisterBenchmark(name.c_str(), [&, r = r](benchmark::State& state) {
            repetitions.begin(r, state.max_iterations);
            timing->show(repetitions.done(), r->name);
            measure(state, *r);
        });
    if (line.has("benchmark_list_tests")) {
        benchmark::RunSpecifiedBenchmarks("all");
        return 0;
    }

    describe_build(family);
    use_one_thread();
    int mismatches = 0;
    {
        progress comparing("comparing with naive", chosen_of.size());
        std::size_t done = 0;
        for (const auto& [c, rows] : chosen_of) {
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
    return mismatches == 0 ? 0 : 1;
}

} // namespace deft::bench

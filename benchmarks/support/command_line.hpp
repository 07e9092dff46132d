/// \file
/// Flags of a benchmark program: its own, and those of Google Benchmark with other defaults.
#ifndef DEFT_BENCHMARKS_SUPPORT_COMMAND_LINE_HPP
#define DEFT_BENCHMARKS_SUPPORT_COMMAND_LINE_HPP

#include <benchmark/benchmark.h>

#include <algorithm>
#include <iostream>
#include <iterator>
#include <regex>
#include <string>
#include <vector>

namespace deft::bench {

// Tuned so that all families take a few minutes on a small machine; the caller's flags come later and win. The file
// holds every repetition: whether two runs differ is a question about their spread.
inline constexpr const char* default_flags[] = {
    "--benchmark_repetitions=5", "--benchmark_min_time=0.02", "--benchmark_enable_random_interleaving=true",
    "--benchmark_display_aggregates_only=true", "--benchmark_out_format=json"};

inline void print_help() {
    std::cout << "deft_bench_<family> [--quick | --full] [--once]\n"
                 "  --quick   the first shape of each operator and element type, for a shorter time\n"
                 "  --full    all sizes and modes, not only those of the default run\n"
                 "  --once    with --full or not: runs the rows untimed, for a tool that counts instructions\n";
    benchmark::PrintDefaultHelp();
}

class command_line {
public:
    bool quick = false, full = false, once = false;
    std::vector<std::string> words; ///< without these three

    command_line(const std::string& family, int argc, char** argv) : words{argv[0]} {
        std::vector<std::string> callers;
        for (const std::string& word : std::vector<std::string>(argv + 1, argv + argc))
            if (word == "--quick")
                quick = true;
            else if (word == "--full")
                full = true;
            else if (word == "--once")
                once = true;
            else
                callers.push_back(word);
        words.insert(words.end(), std::begin(default_flags), std::end(default_flags));
        words.push_back("--benchmark_out=deft_bench_" + family + ".json");
        if (quick)
            words.push_back("--benchmark_min_time=0.005");
        words.insert(words.end(), callers.begin(), callers.end());
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

} // namespace deft::bench

#endif

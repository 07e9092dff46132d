/// \file
/// One line on stderr that says how far a run is: rewritten in a terminal, a new one every few seconds in a log.
#ifndef DEFT_BENCHMARKS_SUPPORT_PROGRESS_HPP
#define DEFT_BENCHMARKS_SUPPORT_PROGRESS_HPP

#include <chrono>
#include <cstddef>
#include <string>

namespace deft::bench {

class progress {
public:
    progress(const char* verb, std::size_t total);
    /// Ends the line.
    ~progress();
    progress(const progress&) = delete;
    progress& operator=(const progress&) = delete;

    /// `done` of `total` are finished; `name` is under way.
    void show(std::size_t done, const std::string& name);

private:
    using clock = std::chrono::steady_clock;

    const char* verb_;
    std::size_t total_;
    bool terminal_;
    clock::time_point start_ = clock::now();
    clock::time_point next_ = start_;
};

} // namespace deft::bench

#endif

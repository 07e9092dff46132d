#include "progress.hpp"

#include <cstdio>

#include <unistd.h>

namespace deft::bench {

progress::progress(const char* verb, std::size_t total)
    : verb_(verb), total_(total), terminal_(isatty(STDERR_FILENO) != 0) {}

progress::~progress() {
    const double elapsed = std::chrono::duration<double>(clock::now() - start_).count();
    std::fprintf(stderr, "%s%s %zu done in %.0f s%s\n", terminal_ ? "\r" : "", verb_, total_, elapsed,
                 terminal_ ? "\033[K" : "");
}

void progress::show(std::size_t done, const std::string& name) {
    const auto now = clock::now();
    if (now < next_)
        return;
    next_ = now + (terminal_ ? std::chrono::milliseconds(100) : std::chrono::seconds(5));
    const double elapsed = std::chrono::duration<double>(now - start_).count();
    char left[32] = "";
    if (done > 0 && elapsed > 1)
        std::snprintf(left, sizeof left, ", %.0f s left", elapsed / double(done) * double(total_ - done));
    std::fprintf(stderr, "%s%s %zu/%zu%s: %s%s", terminal_ ? "\r" : "", verb_, done, total_, left, name.c_str(),
                 terminal_ ? "\033[K" : "\n");
    std::fflush(stderr);
}

} // namespace deft::bench

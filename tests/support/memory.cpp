#include "memory.hpp"

#include <csetjmp>
#include <csignal>
#include <exception>
#include <iterator>
#include <map>
#include <new>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

namespace deft::testing {

std::string placement::describe() const {
    std::string text = in_place ? "in place, " : "";
    switch (where) {
    case edge::inside:
        text += "offset " + std::to_string(offset);
        break;
    case edge::at_begin:
        text += "after a guard page";
        break;
    case edge::at_end:
        text += "before a guard page";
        break;
    }
    return row_gap == 0 ? text : text + ", row gap " + std::to_string(row_gap);
}

namespace {

std::size_t page_size() {
    static const std::size_t size = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    return size;
}

/// Stretches between guard pages, by size, to be used again: tests ask for them by the hundred thousand.
std::map<std::size_t, std::vector<unsigned char*>>& unused_stretches() {
    static std::map<std::size_t, std::vector<unsigned char*>> stretches;
    return stretches;
}

unsigned char* take_stretch(std::size_t bytes) {
    std::vector<unsigned char*>& unused = unused_stretches()[bytes];
    if (!unused.empty()) {
        unsigned char* const stretch = unused.back();
        unused.pop_back();
        return stretch;
    }
    const std::size_t page = page_size();
    void* const mapping = ::mmap(nullptr, bytes + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED)
        throw std::bad_alloc();
    unsigned char* const stretch = static_cast<unsigned char*>(mapping) + page;
    if (bytes != 0 && ::mprotect(stretch, bytes, PROT_READ | PROT_WRITE) != 0)
        throw std::bad_alloc();
    return stretch;
}

} // namespace

guarded_memory::guarded_memory(std::size_t bytes, placement::edge where, std::size_t offset) {
    const std::size_t page = page_size();
    const std::size_t margin = where == placement::edge::inside ? 64 : 0;
    const std::size_t used = (bytes + offset + 2 * margin + page - 1) / page * page;
    begin_ = take_stretch(used);
    end_ = begin_ + used;
    data_ = where == placement::edge::at_end ? end_ - bytes : begin_ + margin + offset;
}

guarded_memory::~guarded_memory() {
    unused_stretches()[static_cast<std::size_t>(end_ - begin_)].push_back(begin_);
}

namespace detail {

namespace {

thread_local sigjmp_buf* way_out = nullptr;
constexpr int caught_signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};

void leave(int signal) {
    if (way_out != nullptr)
        siglongjmp(*way_out, signal);
    std::signal(signal, SIG_DFL); // not ours: the instruction runs again and ends the program
}

} // namespace

std::string catch_faults(void (*f)(void*), void* context) {
    struct sigaction action = {};
    action.sa_handler = leave;
    struct sigaction previous[std::size(caught_signals)];
    for (std::size_t i = 0; i < std::size(caught_signals); ++i)
        ::sigaction(caught_signals[i], &action, &previous[i]);

    sigjmp_buf here;
    const int signal = sigsetjmp(here, 1);
    std::exception_ptr error;
    if (signal == 0) {
        way_out = &here;
        try {
            f(context);
        } catch (...) {
            error = std::current_exception();
        }
    }
    way_out = nullptr;
    for (std::size_t i = 0; i < std::size(caught_signals); ++i)
        ::sigaction(caught_signals[i], &previous[i], nullptr);
    if (error)
        std::rethrow_exception(error);

    switch (signal) {
    case 0:
        return "";
    case SIGILL:
        return "ran an illegal instruction";
    case SIGFPE:
        return "divided by zero";
    default:
        return "touched memory outside of its tensors";
    }
}

} // namespace detail
} // namespace deft::testing

/// \file
/// Memory between two pages that fault when touched, and the choice of where in it a tensor lies.
#ifndef DEFT_TESTS_SUPPORT_MEMORY_HPP
#define DEFT_TESTS_SUPPORT_MEMORY_HPP

#include <deft/config.hpp>

#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>

namespace deft::testing {

/// How the runner lays out the tensors of a call. Operators must not care.
struct placement {
    enum class edge { inside, at_begin, at_end }; // the last two: flush against a guard page

    edge where = edge::inside;
    index offset = 0;      // inside: elements after an address that is a multiple of 64 bytes
    index row_gap = 0;     // elements between neighbouring rows that belong to nobody
    bool in_place = false; // outputs share memory with inputs wherever the operator allows it

    std::string describe() const;
};

/// `bytes` bytes at `data()`; what else there is on their pages is slack.
class guarded_memory {
public:
    guarded_memory(std::size_t bytes, placement::edge where, std::size_t offset);
    ~guarded_memory();
    guarded_memory(const guarded_memory&) = delete;
    guarded_memory& operator=(const guarded_memory&) = delete;

    unsigned char* data() const noexcept {
        return data_;
    }
    /// Everything that may be touched without a fault.
    unsigned char* begin() const noexcept {
        return begin_;
    }
    unsigned char* end() const noexcept {
        return end_;
    }

private:
    unsigned char* begin_;
    unsigned char* end_;
    unsigned char* data_;
};

namespace detail {
std::string catch_faults(void (*f)(void*), void* context);
}

/// Runs `f`. Returns what it was stopped for (a fault in this thread), or an empty text.
/// Destructors between the fault and here do not run: for code that is about to be reported as broken.
template <class F>
std::string faults_of(F&& f) {
    return detail::catch_faults([](void* context) { (*static_cast<std::remove_reference_t<F>*>(context))(); },
                                std::addressof(f));
}

} // namespace deft::testing

#endif

/// \file
/// Executors behind one type, so that an adapter is compiled once and run under all of them.
#ifndef DEFT_TESTS_SUPPORT_EXECUTORS_HPP
#define DEFT_TESTS_SUPPORT_EXECUTORS_HPP

#include <deft/parallel.hpp>

#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace deft::testing {

class any_executor {
public:
    explicit any_executor(std::string name) : name_(std::move(name)) {}
    virtual ~any_executor() = default;

    const std::string& name() const noexcept {
        return name_;
    }

    template <class F>
    void parallel_for(index n, index grain, F&& f) {
        using function = std::remove_reference_t<F>;
        run(n, grain,
            {const_cast<void*>(static_cast<const void*>(std::addressof(f))),
             [](void* context, index begin, index end) { (*static_cast<function*>(context))(begin, end); }});
    }

protected:
    struct body {
        void* context;
        void (*call)(void* context, index begin, index end);
        void operator()(index begin, index end) const {
            call(context, begin, end);
        }
    };

private:
    virtual void run(index n, index grain, body f) = 0;

    std::string name_;
};

static_assert(executor<any_executor>);

/// One call in this thread.
any_executor& serial();
/// In this thread, against expectation: pieces of odd sizes, the last first, smaller than the grain.
any_executor& adversarial();
/// serial(), and one and two threads: of OpenMP if this was built with it.
const std::vector<any_executor*>& usual_executors();
/// adversarial(), and every number of threads from 1 to 4, one piece each.
const std::vector<any_executor*>& unusual_executors();

} // namespace deft::testing

#endif

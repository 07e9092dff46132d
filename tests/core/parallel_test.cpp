// Executors: ranges that cover [0, n) once, however they are cut.
#include "support/catch.hpp"
#include "support/executors.hpp"

#ifdef _OPENMP
#include <deft/parallel_openmp.hpp>
#endif

#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace deft::testing {

namespace {

struct only_parallel_for {
    template <class F>
    void parallel_for(index n, index, F&& f) {
        f(index{0}, n);
    }
};

static_assert(deft::executor<deft::serial_executor>);
static_assert(deft::executor<deft::serial_executor&>);
static_assert(deft::executor<const deft::serial_executor&>);
static_assert(deft::executor<only_parallel_for&>);
static_assert(!deft::executor<int>);

/// How often each item of [0, n) was visited.
std::vector<int> visits(any_executor& executor, index n, index grain) {
    const auto counts = std::make_unique<std::atomic<int>[]>(std::size_t(n));
    executor.parallel_for(n, grain, [&](index begin, index end) {
        REQUIRE(begin < end); // an empty range is no call
        for (index i = begin; i < end; ++i)
            ++counts[std::size_t(i)];
    });
    return {counts.get(), counts.get() + n};
}

} // namespace

TEST_CASE("executors visit every item once") {
    std::vector<any_executor*> all = usual_executors();
    all.insert(all.end(), unusual_executors().begin(), unusual_executors().end());
    for (any_executor* executor : all)
        for (const index n : {0, 1, 2, 3, 7, 64, 1001})
            for (const index grain : {1, 5, 2000}) {
                CAPTURE(executor->name(), n, grain);
                CHECK(visits(*executor, n, grain) == std::vector<int>(std::size_t(n), 1));
            }
}

TEST_CASE("the serial executor calls once, in this thread") {
    int calls = 0;
    deft::serial_executor{}.parallel_for(5, 1, [&](index begin, index end) {
        ++calls;
        CHECK(begin == 0);
        CHECK(end == 5);
    });
    CHECK(calls == 1);
    deft::serial_executor{}.parallel_for(0, 1, [&](index, index) { ++calls; });
    CHECK(calls == 1);
}

TEST_CASE("the executors of the tests do cut the range and do use threads") {
    int pieces = 0;
    adversarial().parallel_for(100, 1000, [&](index, index) { ++pieces; });
    CHECK(pieces > 5);

    std::set<std::thread::id> threads;
    std::mutex lock;
    unusual_executors().back()->parallel_for(100, 1, [&](index, index) {
        const std::lock_guard<std::mutex> hold(lock);
        threads.insert(std::this_thread::get_id());
    });
    CHECK(threads.size() == 4);
}

#ifdef _OPENMP

TEST_CASE("the OpenMP executor respects threads and grain") {
    const auto pieces = [](int threads, index n, index grain) {
        std::atomic<int> count{0};
        deft::openmp_executor{threads}.parallel_for(n, grain, [&](index, index) { ++count; });
        return count.load();
    };
    CHECK(pieces(4, 100, 1) == 4);
    CHECK(pieces(4, 100, 50) == 2);
    CHECK(pieces(4, 100, 1000) == 1);
    CHECK(pieces(4, 3, 1) == 3);
    CHECK(pieces(4, 0, 1) == 0);
}
#endif

} // namespace deft::testing

#include "executors.hpp"

#ifdef _OPENMP
#include <deft/parallel_openmp.hpp>
#endif

#include <algorithm>
#include <iterator>
#include <thread>

namespace deft::testing {

namespace {

template <class Executor>
class adapted_executor final : public any_executor {
public:
    adapted_executor(std::string name, Executor e) : any_executor(std::move(name)), executor_(e) {}

private:
    void run(index n, index grain, body f) override {
        executor_.parallel_for(n, grain, f);
    }

    Executor executor_;
};

struct adversarial_executor {
    template <class F>
    void parallel_for(index n, index /*grain*/, F&& f) const {
        constexpr index sizes[] = {1, 3, 2, 7, 5, 17, 1, 31, 129};
        index piece = 0;
        for (index end = n; end > 0; ++piece) {
            const index begin = end - std::min(end, sizes[piece % index(std::size(sizes))]);
            f(begin, end);
            end = begin;
        }
    }
};

struct thread_executor {
    index threads;

    template <class F>
    void parallel_for(index n, index /*grain*/, F&& f) const {
        std::vector<std::thread> team;
        for (index piece = 0; piece < threads; ++piece) {
            const index begin = n * piece / threads, end = n * (piece + 1) / threads;
            if (begin < end)
                team.emplace_back([=] { f(begin, end); });
        }
        for (std::thread& member : team)
            member.join();
    }
};

#ifdef _OPENMP
using pool_executor = openmp_executor;
constexpr const char* pool_name = "OpenMP";
#else
using pool_executor = thread_executor;
constexpr const char* pool_name = "std::thread";
#endif

} // namespace

any_executor& serial() {
    static adapted_executor<serial_executor> e("serial", {});
    return e;
}

any_executor& adversarial() {
    static adapted_executor<adversarial_executor> e("odd pieces in reverse", {});
    return e;
}

const std::vector<any_executor*>& usual_executors() {
    static adapted_executor<pool_executor> one(std::string(pool_name) + " 1", {1});
    static adapted_executor<pool_executor> two(std::string(pool_name) + " 2", {2});
    static const std::vector<any_executor*> all{&serial(), &one, &two};
    return all;
}

const std::vector<any_executor*>& unusual_executors() {
    static adapted_executor<thread_executor> teams[] = {
        {"1 thread", {1}}, {"2 threads", {2}}, {"3 threads", {3}}, {"4 threads", {4}}};
    static const std::vector<any_executor*> all{&adversarial(), &teams[0], &teams[1], &teams[2], &teams[3]};
    return all;
}

} // namespace deft::testing

/// \file
/// An executor for rows that show what a second thread brings. Their names end in `_2threads`, and they are judged by
/// wall time. The thread waits between calls, as those of a pool do: starting one takes as long as short operators.
#ifndef DEFT_BENCHMARKS_SUPPORT_TWO_THREADS_HPP
#define DEFT_BENCHMARKS_SUPPORT_TWO_THREADS_HPP

#include <deft/config.hpp>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace deft::bench {

class two_threads {
public:
    two_threads() : helper_([this] { serve(); }) {}
    two_threads(const two_threads&) = delete;
    two_threads& operator=(const two_threads&) = delete;
    ~two_threads() {
        give([this] { ended_ = true; });
        helper_.join();
    }

    template <class F>
    void parallel_for(index n, index grain, F&& f) {
        const index half = n / 2;
        if (half < grain) {
            if (n > 0)
                f(index{0}, n);
            return;
        }
        give([&f, half, n] { f(half, n); });
        f(index{0}, half);
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return !task_; });
    }

private:
    void give(std::function<void()> task) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            task_ = std::move(task);
        }
        changed_.notify_all();
    }
    void serve() {
        while (!ended_) {
            std::unique_lock<std::mutex> lock(mutex_);
            changed_.wait(lock, [this] { return bool(task_); });
            const std::function<void()> task = task_;
            lock.unlock();
            task();
            lock.lock();
            task_ = nullptr;
            lock.unlock();
            changed_.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::function<void()> task_;
    bool ended_ = false; ///< touched by the thread alone, once it runs
    std::thread helper_;
};

} // namespace deft::bench

#endif

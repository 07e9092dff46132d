/// \file
/// Memory of benchmark rows: allocated and filled when a row first runs, shared by all rows that ask for the same, so
/// that registering thousands of rows is free and all implementations of a case meet the same addresses.
#ifndef DEFT_BENCHMARKS_SUPPORT_BUFFER_HPP
#define DEFT_BENCHMARKS_SUPPORT_BUFFER_HPP

#include <deft/view.hpp>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

namespace deft::bench {

/// `size` elements, 64-byte aligned. Copies share the memory.
template <class T>
class buffer {
public:
    buffer(index size, std::function<void(T*, index)> fill)
        : state_(std::make_shared<state>(state{size, std::move(fill), nullptr})) {}

    T* data() const {
        if (!state_->memory)
            allocate();
        return state_->memory.get();
    }
    index size() const noexcept {
        return state_->size;
    }
    std::vector<double> to_double() const {
        std::vector<double> values(static_cast<std::size_t>(size()));
        std::transform(data(), data() + size(), values.begin(), [](T value) {
            return static_cast<double>(static_cast<compute_t<T>>(value)); // 16-bit types convert to float only
        });
        return values;
    }
    void fill(T value) const {
        std::fill_n(data(), size(), value);
    }
    /// Copies the elements of a buffer of the same size.
    void assign(const buffer& other) const {
        std::copy_n(other.data(), size(), data());
    }

private:
    struct release {
        void operator()(T* memory) const noexcept {
            std::free(memory);
        }
    };
    struct state {
        index size;
        std::function<void(T*, index)> fill;
        std::unique_ptr<T[], release> memory;
    };

    void allocate() const {
        const std::size_t bytes = (static_cast<std::size_t>(state_->size) * sizeof(T) / 64 + 1) * 64;
        state_->memory.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
        if (!state_->memory)
            throw std::bad_alloc();
        state_->fill(state_->memory.get(), state_->size);
    }

    std::shared_ptr<state> state_;
};

/// A buffer as a tensor.
template <class T, int Rank>
view<T, Rank> as(const buffer<T>& b, shape<Rank> extents) {
    return {b.data(), extents};
}

namespace detail {

// Values are rounded to float, so that float and double rows of a case see the same input.
template <class T, class Distribution>
buffer<T> random(index size, Distribution distribution, unsigned seed) {
    static std::map<std::tuple<index, double, double, unsigned>, buffer<T>> made;
    const auto fill = [distribution, seed](T* data, index n) {
        std::minstd_rand generator(seed);
        std::generate_n(data, n, [&, draw = distribution]() mutable { return static_cast<T>(draw(generator)); });
    };
    const std::tuple key(size, double(distribution.min()), double(distribution.max()), seed);
    return made.try_emplace(key, size, fill).first->second;
}

} // namespace detail

/// Standard normal input.
template <class T>
buffer<T> normal(index size, unsigned seed = 1) {
    return detail::random<T>(size, std::normal_distribution<float>(), seed);
}

/// Input that is uniform in [low, high).
template <class T>
buffer<T> uniform(index size, float low, float high, unsigned seed = 1) {
    return detail::random<T>(size, std::uniform_real_distribution<float>(low, high), seed);
}

/// Output, zero at first. Rows run one at a time, so outputs of the same size and slot are the same memory; a row with
/// several outputs of one size gives them different slots.
template <class T>
buffer<T> output(index size, int slot = 0) {
    static std::map<std::pair<index, int>, buffer<T>> made;
    const auto zero = [](T* data, index n) { std::fill_n(data, n, T(0)); };
    return made.try_emplace({size, slot}, size, zero).first->second;
}

/// An object that a row needs and that is dear to build (packed weights, a compiled primitive): built on first use.
template <class Make>
class lazy {
public:
    explicit lazy(Make make) : state_(std::make_shared<state>(state{std::move(make), nullptr})) {}

    auto& operator*() const {
        if (!state_->made)
            state_->made.reset(new object(state_->make()));
        return *state_->made;
    }
    auto* operator->() const {
        return &**this;
    }

private:
    using object = decltype(std::declval<Make&>()());
    struct state {
        Make make;
        std::unique_ptr<object> made;
    };
    std::shared_ptr<state> state_;
};

} // namespace deft::bench

#endif

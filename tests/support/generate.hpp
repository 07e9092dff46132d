/// \file
/// What generated cases are made of: reproducible values, exact in float so that both types see the same, and lengths.
#ifndef DEFT_TESTS_SUPPORT_GENERATE_HPP
#define DEFT_TESTS_SUPPORT_GENERATE_HPP

#include "tensor.hpp"

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

namespace deft::testing {

class random_values {
public:
    explicit random_values(std::uint64_t seed) : engine_(seed) {}

    /// In [low, high). Not of the standard's distributions, which differ between libraries.
    double number(double low, double high) {
        return low + (high - low) * double(engine_() >> 11) * 0x1p-53;
    }
    index integer(index low, index high) {
        return low + index(engine_() % std::uint64_t(high - low + 1));
    }

    tensor uniform(const extents& shape, double low, double high) {
        return fill(shape, [&] { return number(low, high); });
    }
    tensor normal(const extents& shape, double scale = 1) {
        return fill(shape, [&] {
            const double radius = std::sqrt(-2 * std::log(1 - number(0, 1)));
            return scale * radius * std::cos(2 * 3.14159265358979323846 * number(0, 1));
        });
    }
    tensor integers(const extents& shape, index low, index high) {
        tensor t = fill(shape, [&] { return double(integer(low, high)); });
        t.is_integer = true;
        return t;
    }

private:
    template <class F>
    static tensor fill(const extents& shape, F&& next) {
        tensor t;
        t.shape = shape;
        for (index i = 0; i < element_count(shape); ++i)
            t.values.push_back(double(float(next())));
        return t;
    }

    std::mt19937_64 engine_;
};

/// Every length up to two vectors of the widest registers in float, and some that end in the middle of one.
inline std::vector<index> length_sweep() {
    std::vector<index> lengths;
    for (index length = 0; length <= 2 * 16 + 1; ++length)
        lengths.push_back(length);
    lengths.insert(lengths.end(), {47, 67, 131, 259});
    return lengths;
}

} // namespace deft::testing

#endif

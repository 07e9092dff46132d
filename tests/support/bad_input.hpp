/// \file
/// Tables of bad input: a call must be rejected by name, and before anything is written.
///
///     bad_input bad("scale");
///     float* y = bad.output<float>(6);
///     CHECK(bad.rejects("x", [&] { deft::scale<float>({x, {2, 2}}, {y, {2, 3}}); }));
#ifndef DEFT_TESTS_SUPPORT_BAD_INPUT_HPP
#define DEFT_TESTS_SUPPORT_BAD_INPUT_HPP

#include <deft/config.hpp>

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

namespace deft::testing {

/// True, or the reason why not.
struct verdict {
    std::string complaint;

    explicit operator bool() const {
        return complaint.empty();
    }
    friend std::ostream& operator<<(std::ostream& stream, const verdict& v) {
        return stream << (v ? "rejected as it should be" : v.complaint);
    }
};

class bad_input {
public:
    explicit bad_input(std::string op) : op_(std::move(op)) {}

    /// Memory for `count` elements of an output, which no call may write to.
    template <class T>
    T* output(index count) {
        const std::size_t bytes = std::size_t(count) * sizeof(T);
        outputs_.emplace_back(bytes + alignof(std::max_align_t), pattern);
        return reinterpret_cast<T*>(outputs_.back().data());
    }

    /// `call` throws std::invalid_argument, the text names the operator and `argument`, the outputs are untouched.
    verdict rejects(const std::string& argument, const std::function<void()>& call) const;

private:
    static constexpr unsigned char pattern = 0x5a;

    std::string op_;
    std::vector<std::vector<unsigned char>> outputs_;
};

} // namespace deft::testing

#endif

/// \file
/// Tensors outside of any operator: what a case gives, what it expects, what a run produced.
#ifndef DEFT_TESTS_SUPPORT_TENSOR_HPP
#define DEFT_TESTS_SUPPORT_TENSOR_HPP

#include <deft/config.hpp>

#include <string>
#include <vector>

namespace deft::testing {

using extents = std::vector<index>;

/// Row-major values; integers too, which are exact up to 2^53.
struct tensor {
    extents shape;
    std::vector<double> values;
    bool is_integer = false;
};

inline index element_count(const extents& shape) {
    index n = 1;
    for (const index extent : shape)
        n *= extent;
    return n;
}

/// "[3, 11]"
inline std::string to_text(const extents& shape) {
    std::string text = "[";
    for (const index extent : shape)
        text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
    return text + "]";
}

} // namespace deft::testing

#endif

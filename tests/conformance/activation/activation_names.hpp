/// \file
/// What the adapters of the activation family share.
#ifndef DEFT_TESTS_CONFORMANCE_ACTIVATION_ACTIVATION_NAMES_HPP
#define DEFT_TESTS_CONFORMANCE_ACTIVATION_ACTIVATION_NAMES_HPP

#include "support/call.hpp"

#include <deft/activation_kind.hpp>

#include <stdexcept>
#include <string>

namespace deft::testing {

inline const names<activation>& activation_names() {
    static const names<activation> all{
        {"relu", activation::relu},         {"leaky_relu", activation::leaky_relu},
        {"gelu_erf", activation::gelu_erf}, {"gelu_tanh", activation::gelu_tanh},
        {"silu", activation::silu},         {"tanh", activation::tanh},
        {"sigmoid", activation::sigmoid},
    };
    return all;
}

inline activation find_activation(const std::string& name) {
    for (const auto& [key, kind] : activation_names())
        if (key == name)
            return kind;
    throw std::runtime_error("the case does not fit the operator: no activation is called '" + name + "'");
}

inline bool has_kink(activation base) {
    return base == activation::relu || base == activation::leaky_relu;
}

} // namespace deft::testing

#endif

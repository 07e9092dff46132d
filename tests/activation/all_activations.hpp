/// \file
/// The base activations that a series takes.
#ifndef DEFT_TESTS_ACTIVATION_ALL_ACTIVATIONS_HPP
#define DEFT_TESTS_ACTIVATION_ALL_ACTIVATIONS_HPP

#include <deft/activation_kind.hpp>

namespace deft::testing {

inline constexpr activation all_activations[] = {activation::relu,      activation::leaky_relu, activation::gelu_erf,
                                                 activation::gelu_tanh, activation::silu,       activation::tanh,
                                                 activation::sigmoid};

} // namespace deft::testing

#endif

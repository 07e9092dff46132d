/// \file
/// The options of a feature map as golden cases name them.
#ifndef DEFT_TESTS_CONFORMANCE_ATTENTION_FEATURE_OPTIONS_HPP
#define DEFT_TESTS_CONFORMANCE_ATTENTION_FEATURE_OPTIONS_HPP

#include "support/call.hpp"

#include <deft/attention/dct_feature_map.hpp>
#include <deft/reference/attention/dct_feature_map.hpp>

#include <cmath>

namespace deft::testing {

inline dct_feature_options feature_options_of(const call_base& c) {
    const names<dct_kind> kinds{{"dct2", dct_kind::dct2}, {"dct3", dct_kind::dct3}, {"dct4", dct_kind::dct4}};
    const names<feature_activation> activations{
        {"softmax", feature_activation::softmax}, {"exp", feature_activation::exp}, {"log", feature_activation::log}};
    const names<feature_norm_term> norm_terms{
        {"none", feature_norm_term::none}, {"half", feature_norm_term::half}, {"full", feature_norm_term::full}};
    const names<feature_stabilizer> stabilizers{{"none", feature_stabilizer::none}, {"max", feature_stabilizer::max}};
    return {.transform = c.choice("transform", kinds, "dct3"),
            .activation = c.choice("activation", activations, "softmax"),
            .norm_term = c.choice("norm_term", norm_terms, "none"),
            .gain = c.integer("divide_sqrt_m", 0) != 0 ? feature_gain::inverse_sqrt : feature_gain::one,
            .stabilizer = c.choice("stabilizer", stabilizers, "none"),
            .input_scale = c.number("input_scale", 1),
            .threads = 3};
}

inline reference::feature_options reference_options_of(const dct_feature_options& o, index m) {
    using target = reference::feature_form;
    return {int(o.transform),
            o.activation == feature_activation::softmax ? target::softmax
            : o.activation == feature_activation::log   ? target::log
            : o.stabilizer == feature_stabilizer::max   ? target::shifted
                                                        : target::exp,
            0.5 * double(o.norm_term), o.gain == feature_gain::one ? 1 : 1 / std::sqrt(double(m)), o.input_scale};
}

} // namespace deft::testing

#endif

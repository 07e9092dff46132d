/// \file
/// How cross_block quantises a linear layer, and what it makes of one.
#ifndef DEFT_QUANTIZATION_LAYER_OPTIONS_HPP
#define DEFT_QUANTIZATION_LAYER_OPTIONS_HPP

#include <deft/quantization/cfp_detection.hpp>
#include <deft/quantization/lora_rounding.hpp>
#include <deft/quantization/quant_format.hpp>
#include <deft/quantization/rounding_logits.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace deft::quantization {

/// Activations: not quantised, by one learned step per layer, or by a step per token that is computed each time.
enum class activation_steps : unsigned char { none, learned, dynamic };

/// Where roundings start: at 1/2 everywhere, as the paper has it, or at the weight itself, as in AdaRound.
enum class rounding_origin : unsigned char { half, fraction };

/// What the forward pass of a step sees: soft roundings, as in the paper, which the regulariser has to make hard; or
/// hard ones, straight through which the gradient of the soft ones goes. From the fraction on, soft roundings show no
/// error at all, and few factors cannot make every one of them hard: there the hard ones learn better.
enum class rounding_pass : unsigned char { soft, hard };

/// Which weights CFP truncates.
enum class cfp_weights : unsigned char { none, matrix, row };
/// Whether CFP scales the channels of activations.
enum class cfp_activations : unsigned char { none, channels };

struct layer_options {
    quant_format weights;
    activation_steps activations = activation_steps::none;
    int activation_bits = 8;
    index rank = 5;
    rounding_origin origin = rounding_origin::fraction;
    rounding_pass pass = rounding_pass::hard;
    rounding_stretch stretch = {};
    floor_gradient floor = floor_gradient::ste;
    cfp_weights truncate = cfp_weights::row;
    cfp_activations scale = cfp_activations::channels;
    cfp_options cfp = {};
};

/// A layer as it leaves the method. Codes are unsigned, 0 .. 2^bits - 1, with zero points to match, whatever the
/// format: W_hat = scale (code - zero_point), which stands for W with its columns times channel_scale.
template <class T>
struct quantized_layer {
    std::string name;
    index outputs = 0, inputs = 0;
    quant_format format{.bits = 8};
    std::vector<std::uint8_t> codes;    ///< [outputs, inputs]
    std::vector<T> scale;               ///< see quant_format.hpp
    std::vector<quant_code> zero_point; ///< of codes
    std::vector<T> channel_scale;       ///< [inputs]: x is divided by it; empty: 1
    activation_steps activations = activation_steps::none;
    int activation_bits = 8;
    T activation_scale = 1; ///< of x / channel_scale, symmetric, where it is learned
};

} // namespace deft::quantization

#endif

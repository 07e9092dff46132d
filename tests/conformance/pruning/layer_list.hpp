/// \file
/// Tensors that a case has once per layer: `<prefix>.0`, `<prefix>.1`, ...
#ifndef DEFT_TESTS_CONFORMANCE_PRUNING_LAYER_LIST_HPP
#define DEFT_TESTS_CONFORMANCE_PRUNING_LAYER_LIST_HPP

#include "support/call.hpp"

#include <deft/pruning/bit_mask.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace deft::testing {

/// [d0, d1, ...] as [d0, d1 d2 ...].
inline extents as_matrix(const extents& shape) {
    const index rows = shape.at(0);
    return {rows, element_count({shape.begin() + 1, shape.end()})};
}

inline std::string layer_name(const char* prefix, index layer) {
    return std::string(prefix) + '.' + std::to_string(layer);
}

template <class T>
std::vector<view<const T, 2>> input_layers(call<T>& c, const char* prefix, index layers) {
    std::vector<view<const T, 2>> list;
    for (index i = 0; i < layers; ++i) {
        const std::string name = layer_name(prefix, i);
        list.push_back(c.input_as(rank<2>, name, as_matrix(c.shape(name))));
    }
    return list;
}

/// An output of any shape, as a matrix.
template <class T>
view<T, 2> output_matrix(call<T>& c, const std::string& name, const extents& shape, output_traits traits) {
    const extents size = as_matrix(shape);
    if (shape.size() == 2)
        return c.output(rank<2>, name, shape, traits);
    traits.contiguous = true;
    traits.in_place = "";
    return {c.output(any_rank<>, name, shape, traits).data(), {size[0], size[1]}};
}

/// Bits that an operator fills in, and the bytes that they are compared as.
struct mask_outputs {
    std::vector<std::vector<std::uint64_t>> words;
    std::vector<view<std::uint64_t, 1>> bits;
    std::vector<view<std::uint8_t, 1>> bytes;

    void write_bytes() const {
        for (std::size_t i = 0; i < bits.size(); ++i)
            unpack_mask(bits[i], bytes[i]);
    }
    /// The bytes of all layers, one after the other.
    void write(const std::vector<std::uint8_t>& all) const {
        std::size_t at = 0;
        for (const view<std::uint8_t, 1>& layer : bytes)
            for (index i = 0; i < layer.extent(0); ++i)
                layer(i) = all.at(at++);
    }
};

/// Masks of tensors of these shapes.
template <class T>
std::shared_ptr<mask_outputs> output_masks(call<T>& c, const std::vector<extents>& shapes,
                                           const std::vector<std::string>& names) {
    const auto masks = std::make_shared<mask_outputs>();
    for (std::size_t i = 0; i < shapes.size(); ++i) {
        const index size = element_count(shapes[i]);
        masks->words.emplace_back(std::size_t(mask_words(size)), ~std::uint64_t(0));
        const auto bytes = c.output(any_rank<std::uint8_t>, names[i], shapes[i], {.contiguous = true});
        masks->bytes.push_back(view<std::uint8_t, 1>(bytes.data(), {size}));
    }
    for (std::vector<std::uint64_t>& words : masks->words)
        masks->bits.emplace_back(words);
    return masks;
}

} // namespace deft::testing

#endif

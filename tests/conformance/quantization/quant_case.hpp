/// \file
/// What cases of the quantisation family say in the same words: formats, and data that no rounding makes ambiguous.
#ifndef DEFT_TESTS_CONFORMANCE_QUANTIZATION_QUANT_CASE_HPP
#define DEFT_TESTS_CONFORMANCE_QUANTIZATION_QUANT_CASE_HPP

#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/quantization/quant_format.hpp>
#include <deft/reference/quantization/quant_blocks.hpp>

#include <cmath>
#include <string>

namespace deft::testing {

inline const names<quant_granularity>& granularity_names() {
    static const names<quant_granularity> all{{"per_tensor", quant_granularity::per_tensor},
                                              {"per_channel", quant_granularity::per_channel},
                                              {"per_token", quant_granularity::per_token},
                                              {"per_group", quant_granularity::per_group}};
    return all;
}

inline quant_format format_of(const call_base& c) {
    return {.bits = int(c.integer("bits")),
            .symmetry = c.number("symmetric") != 0 ? quant_symmetry::symmetric : quant_symmetry::asymmetric,
            .granularity = c.choice("granularity", granularity_names()),
            .group_size = c.integer("group_size", 0)};
}

inline reference::quant_layout layout_of(const quant_format& f) {
    return {f.bits, f.symmetry == quant_symmetry::symmetric,
            f.granularity == quant_granularity::per_group    ? f.group_size
            : f.granularity == quant_granularity::per_tensor ? -1
                                                             : 0};
}

inline extents scale_shape(const extents& x, const quant_format& f) {
    const deft::detail::quant_blocks blocks(x[0], x[1], f);
    return {blocks.scale_rows, blocks.scale_columns};
}

/// Formats in turn, and matrices whose steps are powers of two: quotients are exact in both types.
struct quant_generator {
    random_values random;
    int turn = 0;

    explicit quant_generator(std::uint64_t seed) : random(seed) {}

    quant_format next_format() {
        static constexpr int bits[] = {2, 3, 4, 8};
        static constexpr index groups[] = {1, 3, 8, 32, 128};
        const int t = turn++;
        const int kind = t % 3;
        return {.bits = bits[t % 4],
                .symmetry = t % 5 < 2 ? quant_symmetry::asymmetric : quant_symmetry::symmetric,
                .granularity = kind == 0   ? quant_granularity::per_tensor
                               : kind == 1 ? quant_granularity::per_channel
                                           : quant_granularity::per_group,
                .group_size = kind == 2 ? groups[t / 3 % 5] : 0};
    }

    static std::map<std::string, parameter> params(const quant_format& f) {
        const char* const kind = f.granularity == quant_granularity::per_tensor  ? "per_tensor"
                                 : f.granularity == quant_granularity::per_group ? "per_group"
                                                                                 : "per_channel";
        return {{"bits", double(f.bits)},
                {"symmetric", double(f.symmetry == quant_symmetry::symmetric)},
                {"granularity", kind},
                {"group_size", double(f.group_size)}};
    }

    /// Powers of two around 1, and zero points inside of the range of codes.
    tensor steps(const extents& shape) {
        tensor t = random.integers(shape, -2, 2);
        t.is_integer = false;
        for (double& v : t.values)
            v = std::ldexp(1.0, int(v));
        return t;
    }
    tensor zero_points(const extents& shape, const quant_format& f) {
        const index most = f.symmetry == quant_symmetry::symmetric ? 0 : (index{1} << f.bits) - 1;
        return random.integers(shape, 0, most);
    }
};

} // namespace deft::testing

#endif

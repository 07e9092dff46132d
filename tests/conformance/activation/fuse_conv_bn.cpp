#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/activation/fuse_conv_bn.hpp>
#include <deft/reference/activation/fuse_conv_bn.hpp>

namespace deft::testing {

struct fuse_conv_bn {
    template <class T>
    static void bind(call<T>& c) {
        const double eps = c.number("eps", 1e-6);
        // Weights of depthwise convolutions may lack the axis of extent 1, those of linear layers the last two.
        extents shape = c.shape("in.weight");
        if (shape.size() == 3)
            shape.insert(shape.begin() + 1, 1);
        while (shape.size() < 4)
            shape.push_back(1);

        const auto weight = c.input_as(rank<4>, "in.weight", shape);
        const auto bias = c.optional_input(rank<1>, "in.bias");
        const auto gamma = c.input(rank<1>, "in.gamma");
        const auto beta = c.input(rank<1>, "in.beta");
        const auto mean = c.input(rank<1>, "in.mean");
        const auto var = c.input(rank<1>, "in.var");
        const output_traits traits{.bound = by_type<T>({.relative = 1e-5, .of_largest = 1e-6}, {1e-13, 1e-13})};
        output_traits weight_traits = traits, bias_traits = traits;
        weight_traits.in_place = "in.weight";
        if (bias.is_given())
            bias_traits.in_place = "in.bias";
        const auto out_weight = c.output(rank<4>, "out.weight", shape, weight_traits);
        const auto out_bias = c.output(rank<1>, "out.bias", c.shape("in.gamma"), bias_traits);

        c.forward("direct", [=](any_executor&) {
            deft::fuse_conv_bn(weight, bias, gamma, beta, mean, var, out_weight, out_bias, {.eps = eps});
        });
        c.reference(
            [=] { reference::fuse_conv_bn<T>(weight, bias, gamma, beta, mean, var, out_weight, out_bias, eps); });
    }

    static std::vector<test_case> cases() {
        random_values random(30);
        std::vector<test_case> cases;
        const auto add = [&](const extents& shape, bool with_bias) {
            const extents outputs{shape[0]};
            cases.push_back({"fuse_conv_bn",
                             "generated",
                             {{"eps", 1e-3}},
                             {{"in.weight", random.normal(shape)},
                              {"in.gamma", random.normal(outputs)},
                              {"in.beta", random.normal(outputs)},
                              {"in.mean", random.normal(outputs)},
                              {"in.var", random.uniform(outputs, 0, 2)}},
                             {}});
            if (with_bias)
                cases.back().given["in.bias"] = random.normal(outputs);
        };
        for (const index length : length_sweep())
            for (const bool with_bias : {false, true}) {
                add({3, length, 1, 1}, with_bias);
                add({length, 2, 1, 1}, with_bias);
            }
        for (const bool with_bias : {false, true}) {
            add({5, 1, 7, 7}, with_bias);
            add({4, 3, 3, 5}, with_bias);
            add({0, 3, 3, 3}, with_bias);
        }
        return cases;
    }
};
DEFT_ADAPTER(fuse_conv_bn)

} // namespace deft::testing

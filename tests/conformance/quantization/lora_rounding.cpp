#include "quant_case.hpp"

#include <deft/quantization/lora_rounding.hpp>
#include <deft/reference/quantization/lora_rounding.hpp>

namespace deft::testing {

struct lora_rounding {
    template <class T>
    static void bind(call<T>& c) {
        const bool hard = c.number("hard", 0) != 0, through_floor = c.text("floor_grad", "ste") == "ste";
        const lora_rounding_options options{
            .format = format_of(c),
            .stretch = {.zeta = c.number("zeta", 1.1), .gamma = c.number("gamma", -0.1)},
            .form = hard ? rounding_form::hard : rounding_form::soft,
            .floor = through_floor ? floor_gradient::ste : floor_gradient::zero,
            .loss_weight = c.number("loss_weight", 0),
            .beta = c.number("beta", 2)};
        const reference::quant_layout layout = layout_of(options.format);
        const double zeta = options.stretch.zeta, gamma = options.stretch.gamma;
        const tolerance bound = by_type<T>({.of_largest = 1e-6, .floor = 0}, {.of_largest = 1e-12, .floor = 0});
        const tolerance of_gradient = by_type<T>({.of_largest = 5e-6, .floor = 0}, {.of_largest = 1e-12, .floor = 0});
        const extents& shape = c.shape("in.w");

        const auto w = c.input(rank<2>, "in.w"), a1 = c.input(rank<2>, "in.a1"), a2 = c.input(rank<2>, "in.a2");
        const auto v0 = c.optional_input(rank<2>, "in.v0");
        const auto scale = c.input(rank<2>, "in.scale");
        const auto zero_point = c.input(rank<2, quant_code>, "in.zero_point");
        const auto w_hat = c.output(rank<2>, "out.w_hat", shape, {.bound = bound, .in_place = "in.w"});
        const auto h = c.output(rank<2>, "out.h", shape, {.bound = bound});
        view<quant_code, 2> q;
        if (hard)
            q = c.output(rank<2, quant_code>, "out.q", shape);
        c.forward("direct", [=](any_executor& e) {
            deft::lora_rounding(w, a1, a2, v0, scale, zero_point, w_hat, h, q, options, e);
        });
        c.reference([=] {
            reference::lora_rounding<T>(w, a1, a2, v0, scale, zero_point, w_hat, h, q, layout, zeta, gamma, hard);
        });
        c.has_kinks("codes are clipped, and so is the stretched sigmoid");

        if (!c.has("grad_out.w_hat"))
            return;
        const auto grad_w_hat = c.input(rank<2>, "grad_out.w_hat");
        const bool surrogate = hard || options.loss_weight != 0; // the loss is not among the outputs
        const auto grad_a1 =
            c.output(rank<2>, "grad_in.a1", c.shape("in.a1"), {.bound = of_gradient, .surrogate = surrogate});
        const auto grad_a2 =
            c.output(rank<2>, "grad_in.a2", c.shape("in.a2"), {.bound = of_gradient, .surrogate = surrogate});
        const auto grad_scale = c.output(rank<2>, "grad_in.scale", c.shape("in.scale"),
                                         {.bound = of_gradient, .surrogate = hard || through_floor});
        c.backward("direct", [=](any_executor& e) {
            deft::lora_rounding_backward(w, a1, a2, v0, scale, zero_point, grad_w_hat, grad_a1, grad_a2, grad_scale,
                                         options, e);
        });
        c.reference_backward([=] {
            reference::lora_rounding_backward<T>(w, a1, a2, v0, scale, zero_point, grad_w_hat, grad_a1, grad_a2,
                                                 grad_scale, layout, zeta, gamma, through_floor, hard,
                                                 options.loss_weight, options.beta);
        });
    }

    /// Steps are powers of two and quotients lie inside of unit intervals, so that no type rounds down another integer
    /// and no difference crosses one. Cotangents have one sign, and most of h - quotient: the gradient of a step is
    /// compared relative to itself, so it must not be what is left of a sum that cancels.
    static std::vector<test_case> cases() {
        quant_generator make(67);
        std::vector<test_case> cases;
        const auto add = [&](index rows, index columns, index r, double spread = 1) {
            static constexpr double zetas[] = {1.1, 1.01, 1.3};
            const quant_format format = make.next_format();
            const int turn = make.turn;
            const bool hard = turn % 4 == 3;
            const extents steps = scale_shape({rows, columns}, format);
            const tensor scale = make.steps(steps);
            tensor w = make.random.uniform({rows, columns}, 0.05, 0.5);
            const deft::detail::quant_blocks blocks(rows, columns, format);
            for (index i = 0; i < rows; ++i)
                blocks.for_each_group(0, columns, [&](index g, index c, index count) {
                    for (index j = c; j < c + count; ++j) {
                        double& v = w.values[std::size_t(i * columns + j)];
                        v = scale.values[std::size_t(blocks.scale_row(i) * steps[1] + g)] *
                            double(float(v + double(make.random.integer(-6, 5))));
                    }
                });
            auto params = quant_generator::params(format);
            params["zeta"] = zetas[turn % 3];
            params["gamma"] = 1 - zetas[turn % 3];
            params["hard"] = double(hard);
            params["floor_grad"] = turn % 2 == 0 ? "ste" : "zero";
            if (turn % 8 == 0) {
                params["loss_weight"] = 0.5;
                params["beta"] = 3.0;
            }
            cases.push_back({"lora_rounding",
                             "generated",
                             params,
                             {{"in.w", w},
                              {"in.a1", make.random.normal({rows, r}, spread)},
                              {"in.a2", make.random.normal({r, columns}, 0.7)},
                              {"in.scale", scale},
                              {"in.zero_point", make.zero_points(steps, format)}},
                             {}});
            if (turn % 5 == 0)
                cases.back().given["in.v0"] = make.random.normal({rows, columns});
            if (turn % 8 != 7)
                cases.back().given["grad_out.w_hat"] = make.random.uniform({rows, columns}, 0.1, 1.5);
        };
        for (const index columns : length_sweep())
            for (int repeat = 0; repeat < 2; ++repeat)
                add(3, columns, 1 + columns % 5);
        for (const index rows : {0, 1, 15, 16, 17, 40})
            for (int repeat = 0; repeat < 3; ++repeat)
                add(rows, 7, 2);
        for (int repeat = 0; repeat < 3; ++repeat)
            add(5, 600, 5);
        add(2000, 3, 2);
        add(4, 9, 2, 1e6);
        return cases;
    }
};
DEFT_ADAPTER(lora_rounding)

} // namespace deft::testing

#include "quant_case.hpp"

#include <deft/quantization/fake_quantize.hpp>
#include <deft/reference/quantization/fake_quantize.hpp>
#include <deft/reference/quantization/quant_params.hpp>

#include <memory>

namespace deft::testing {

struct fake_quantize {
    template <class T>
    static void bind(call<T>& c) {
        const bool lsq = c.number("lsq_grad_scale", 0) != 0;
        const fake_quantize_options options{.format = format_of(c),
                                            .gradient = lsq ? step_gradient::lsq : step_gradient::plain};
        const reference::quant_layout layout = layout_of(options.format);
        const tolerance bound = by_type<T>({.of_largest = 1e-6, .floor = 0}, {.of_largest = 1e-12, .floor = 0});
        const tolerance of_scale = by_type<T>({.of_largest = 1e-5, .floor = 0}, {.of_largest = 1e-12, .floor = 0});
        const auto x = c.input(rank<2>, "in.x"), scale = c.input(rank<2>, "in.scale");
        const auto zero_point = c.input(rank<2, quant_code>, "in.zero_point");
        const auto y = c.output(rank<2>, "out.y", c.shape("in.x"), {.bound = bound, .in_place = "in.x"});
        const auto q = c.output(rank<2, quant_code>, "out.q", c.shape("in.x"));
        c.forward("direct", [=](any_executor& e) { deft::fake_quantize(x, scale, zero_point, y, q, options, e); });
        c.reference([=] { reference::fake_quantize<T>(x, scale, zero_point, y, q, layout); });

        if (!c.has("grad_out.y"))
            return;
        const auto grad_y = c.input(rank<2>, "grad_out.y");
        const auto grad_x = c.output(rank<2>, "grad_in.x", c.shape("in.x"),
                                     {.bound = bound, .in_place = "grad_out.y", .surrogate = true});
        const auto grad_scale =
            c.output(rank<2>, "grad_in.scale", c.shape("in.scale"), {.bound = of_scale, .surrogate = true});
        c.backward("direct", [=](any_executor& e) {
            deft::fake_quantize_backward(x, scale, zero_point, grad_y, grad_x, grad_scale, options, e);
        });
        c.reference_backward([=] {
            reference::fake_quantize_backward<T>(x, scale, zero_point, grad_y, grad_x, grad_scale, layout, lsq);
        });
    }

    static std::vector<test_case> cases() {
        quant_generator make(62);
        std::vector<test_case> cases;
        const auto add = [&](const extents& shape) {
            const quant_format format = make.next_format();
            auto params = quant_generator::params(format);
            params["lsq_grad_scale"] = double(make.turn % 2);
            const extents steps = scale_shape(shape, format);
            cases.push_back({"fake_quantize",
                             "generated",
                             params,
                             {{"in.x", make.random.normal(shape, 3)},
                              {"in.scale", make.steps(steps)},
                              {"in.zero_point", make.zero_points(steps, format)},
                              {"grad_out.y", make.random.normal(shape)}},
                             {}});
        };
        for (const index columns : length_sweep())
            for (int repeat = 0; repeat < 3; ++repeat)
                add({3, columns});
        for (const index rows : {0, 1, 63, 64, 65, 200})
            for (int repeat = 0; repeat < 3; ++repeat)
                add({rows, 5});
        for (int repeat = 0; repeat < 3; ++repeat)
            add({3, 5000});
        return cases;
    }
};
DEFT_ADAPTER(fake_quantize)

struct fake_quantize_dynamic {
    template <class T>
    static void bind(call<T>& c) {
        const bool include_zero = c.number("include_zero", 1) != 0;
        const quant_params_options options{.format = format_of(c),
                                           .span = include_zero ? quant_span::with_zero : quant_span::plain,
                                           .scale_min = c.number("scale_min", 1e-5),
                                           .scale_max = c.number("scale_max", 1e4)};
        const reference::quant_layout layout = layout_of(options.format);
        const tolerance bound = by_type<T>({.of_largest = 1e-6, .floor = 0}, {.of_largest = 1e-12, .floor = 0});
        const extents steps = scale_shape(c.shape("in.x"), options.format);
        const auto x = c.input(rank<2>, "in.x");
        const auto y = c.output(rank<2>, "out.y", c.shape("in.x"), {.bound = bound, .in_place = "in.x"});
        const auto q = c.output(rank<2, quant_code>, "out.q", c.shape("in.x"));
        const auto scale = c.output(rank<2>, "out.scale", steps, {.bound = bound});
        const auto zero_point = c.output(rank<2, quant_code>, "out.zero_point", steps);
        c.forward("direct",
                  [=](any_executor& e) { deft::fake_quantize_dynamic(x, y, q, scale, zero_point, options, e); });
        c.reference([=] {
            reference::quant_params<T>(x, scale, zero_point, layout, include_zero, options.scale_min,
                                       options.scale_max);
            reference::fake_quantize<T>(x, scale, zero_point, y, q, layout);
        });

        if (!c.has("grad_out.y"))
            return;
        const auto grad_y = c.input(rank<2>, "grad_out.y");
        const auto grad_x = c.output(rank<2>, "grad_in.x", c.shape("in.x"),
                                     {.bound = bound, .in_place = "grad_out.y", .surrogate = true});
        c.backward("direct",
                   [=](any_executor& e) { deft::fake_quantize_dynamic_backward(x, grad_y, grad_x, options, e); });
        const auto s = std::make_shared<std::vector<T>>(std::size_t(element_count(steps)));
        const auto z = std::make_shared<std::vector<quant_code>>(s->size());
        c.reference_backward([=] {
            const view<T, 2> own_scale(s->data(), {steps[0], steps[1]});
            const view<quant_code, 2> own_zero(z->data(), {steps[0], steps[1]});
            reference::quant_params<T>(x, own_scale, own_zero, layout, include_zero, options.scale_min,
                                       options.scale_max);
            reference::fake_quantize_backward<T>(x, own_scale, own_zero, grad_y, grad_x, absent, layout, false);
        });
    }

    /// Data whose range is a power of two times the number of steps, so that no type rounds a quotient.
    static std::vector<test_case> cases() {
        quant_generator make(63);
        std::vector<test_case> cases;
        const auto add = [&](const extents& shape) {
            const quant_format format = make.next_format();
            const bool symmetric = format.symmetry == quant_symmetry::symmetric;
            const deft::detail::quant_blocks blocks(shape[0], shape[1], format);
            const double most = double(deft::detail::levels_of(format).greatest);
            tensor x = make.random.uniform(shape, 0, 1);
            for (index r = 0; r < shape[0]; ++r)
                blocks.for_each_group(0, shape[1], [&](index, index c, index count) {
                    double* const group = x.values.data() + r * shape[1] + c;
                    const double step = blocks.per_tensor ? 2.0 : std::ldexp(1.0, int(make.random.integer(-3, 3)));
                    const double low = symmetric ? -most : blocks.per_tensor ? -1 : -double(make.random.integer(0, 3));
                    const double high = symmetric ? most : most + low;
                    for (index i = 0; i < count; ++i) // multiples of an eighth of a step, halves among them
                        group[i] = step * (low + std::floor(group[i] * 8 * (high - low) + 0.5) / 8);
                    group[0] = step * high;
                    if (count > 1)
                        group[1] = step * low;
                    else if (!symmetric && (!blocks.per_tensor || shape[0] == 1))
                        group[0] = step * most;
                    else if (blocks.per_tensor && r % 2 == 1)
                        group[0] = step * low;
                });
            cases.push_back({"fake_quantize_dynamic",
                             "generated",
                             quant_generator::params(format),
                             {{"in.x", x}, {"grad_out.y", make.random.normal(shape)}},
                             {}});
        };
        for (const index columns : length_sweep())
            for (int repeat = 0; repeat < 3; ++repeat)
                add({3, columns});
        for (const index rows : {0, 1, 64, 200})
            for (int repeat = 0; repeat < 3; ++repeat)
                add({rows, 5});
        return cases;
    }
};
DEFT_ADAPTER(fake_quantize_dynamic)

} // namespace deft::testing

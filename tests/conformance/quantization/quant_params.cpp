#include "quant_case.hpp"

#include <deft/quantization/quant_params.hpp>
#include <deft/reference/quantization/quant_params.hpp>

namespace deft::testing {

struct quant_params {
    template <class T>
    static void bind(call<T>& c) {
        const bool include_zero = c.number("include_zero", 1) != 0;
        const quant_params_options options{.format = format_of(c),
                                           .span = include_zero ? quant_span::with_zero : quant_span::plain,
                                           .scale_min = c.number("scale_min", 1e-5),
                                           .scale_max = c.number("scale_max", 1e4)};
        const tolerance bound = by_type<T>({.of_largest = 1e-6, .floor = 0}, {.of_largest = 1e-12, .floor = 0});
        const extents shape = scale_shape(c.shape("in.x"), options.format);
        const auto x = c.input(rank<2>, "in.x");
        const auto scale = c.output(rank<2>, "out.scale", shape, {.bound = bound});
        const auto zero_point = c.output(rank<2, quant_code>, "out.zero_point", shape);
        c.forward("direct", [=](any_executor& e) { deft::quant_params(x, scale, zero_point, options, e); });
        c.reference([=] {
            reference::quant_params<T>(x, scale, zero_point, layout_of(options.format), include_zero, options.scale_min,
                                       options.scale_max);
        });
    }

    static std::vector<test_case> cases() {
        quant_generator make(61);
        std::vector<test_case> cases;
        const auto add = [&](const extents& shape, double scale = 1) {
            const quant_format format = make.next_format();
            auto params = quant_generator::params(format);
            params["include_zero"] = double(make.turn % 7 != 0);
            cases.push_back({"quant_params", "generated", params, {{"in.x", make.random.normal(shape, scale)}}, {}});
        };
        for (const index columns : length_sweep())
            for (int repeat = 0; repeat < 3; ++repeat)
                add({3, columns});
        for (const index rows : {0, 1, 63, 64, 65, 200})
            for (int repeat = 0; repeat < 3; ++repeat)
                add({rows, 5});
        add({40, 700});
        add({2, 5000});
        add({7, 30}, 1e-9);
        add({7, 30}, 1e7);
        return cases;
    }
};
DEFT_ADAPTER(quant_params)

} // namespace deft::testing

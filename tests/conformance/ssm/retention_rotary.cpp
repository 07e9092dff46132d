#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/reference/ssm/retention_rotary.hpp>
#include <deft/ssm/retention_rotary.hpp>

#include <cmath>

namespace deft::testing {

struct retention_rotary {
    template <class T>
    static void bind(call<T>& c) {
        const names<rotary_spacing> spacings{{"linspace", rotary_spacing::linspace}, {"rope", rotary_spacing::rope}};
        const bool transpose = c.number("transpose", 0) != 0;
        const retention_rotary_options options{.offset = c.integer("offset", 0),
                                               .base = c.number("base", 10000),
                                               .spacing = c.choice("spacing", spacings, "linspace"),
                                               .direction =
                                                   transpose ? rotary_direction::transposed : rotary_direction::forward,
                                               .xpos_scale_base = c.number("xpos_scale_base", 0),
                                               .xpos_sign = int(c.integer("xpos_sign", 1)),
                                               .xpos_center = c.number("xpos_center", 0)};
        const reference::rotary_parameters naive{options.offset,
                                                 options.base,
                                                 options.spacing == rotary_spacing::rope,
                                                 transpose,
                                                 options.xpos_scale_base,
                                                 options.xpos_sign,
                                                 options.xpos_center};
        reference::rotary_parameters back = naive;
        back.transpose = !transpose;
        // theta is known to an ulp of double, and so is its product with a position.
        const double in_double = std::abs(double(options.offset)) > 1e5 ? 1e-9 : 1e-12;
        const tolerance bound =
            by_type<T>({.of_largest = 1e-6, .floor = 0.01}, {.of_largest = in_double, .floor = 0.01});

        const extents& shape = c.shape("in.x");
        const auto x = c.input(rank<4>, "in.x");
        const auto y = c.output(rank<4>, "out.y", shape, {.bound = bound, .in_place = "in.x"});
        c.forward("direct", [=](any_executor& e) { deft::retention_rotary(x, y, options, e); });
        c.forward("tokens", [=](any_executor& e) {
            retention_rotary_options at = options;
            for (index t = 0; t < shape[2]; ++t, ++at.offset)
                deft::retention_rotary<T>(token(x, t), token(y, t), at, e);
        });
        c.reference([=] { reference::retention_rotary<T>(x, y, naive); });
        if (!c.has("grad_out.y"))
            return;
        const auto grad_y = c.input(rank<4>, "grad_out.y");
        const auto grad_x = c.output(rank<4>, "grad_in.x", shape, {.bound = bound, .in_place = "grad_out.y"});
        c.backward("direct", [=](any_executor& e) { deft::retention_rotary_backward(grad_y, grad_x, options, e); });
        c.reference_backward([=] { reference::retention_rotary<T>(grad_y, grad_x, back); });
    }

    static std::vector<test_case> cases() {
        random_values random(55);
        std::vector<test_case> cases;
        int turn = 0;
        const auto add = [&](const extents& shape, index offset) {
            const bool scaled = turn % 3 == 1;
            cases.push_back({"retention_rotary",
                             "generated",
                             {{"offset", double(offset)},
                              {"base", turn % 2 == 0 ? 10000.0 : 500.0},
                              {"spacing", turn % 5 < 3 ? "linspace" : "rope"},
                              {"transpose", double(turn % 4 == 3)},
                              {"xpos_scale_base", scaled ? 64.0 : 0.0},
                              {"xpos_sign", turn % 2 == 0 ? 1.0 : -1.0},
                              {"xpos_center", scaled ? double(offset) + 3 : 0.0}},
                             {{"in.x", random.normal(shape)}, {"grad_out.y", random.normal(shape)}},
                             {}});
            ++turn;
        };
        for (const index length : length_sweep())
            add({1, 2, 3, length + 2 + length % 2}, length - 7);
        for (const index tokens : {0, 1, 63, 64, 65, 200})
            add({2, 1, tokens, 6}, 3 * tokens);
        for (const index offset : {-1000003, 99999, 1000003, 16777217})
            add({1, 1, 70, 8}, offset);
        add({2, 3, 2, 300}, 5); // pairs in pieces
        return cases;
    }

private:
    template <class E>
    static view<E, 4> token(const view<E, 4>& v, index t) {
        return {v.data() + t * v.stride(2),
                {v.extent(0), v.extent(1), 1, v.extent(3)},
                {v.stride(0), v.stride(1), v.stride(2), index{1}}};
    }
};
DEFT_ADAPTER(retention_rotary)

} // namespace deft::testing

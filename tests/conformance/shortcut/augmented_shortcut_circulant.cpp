#include "dense_paths.hpp"
#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/reference/shortcut/augmented_shortcut_circulant.hpp>
#include <deft/shortcut/augmented_shortcut_circulant.hpp>
#include <deft/shortcut/prepared_augmented_shortcut_circulant.hpp>

#include <algorithm>
#include <cmath>
#include <memory>

namespace deft::testing {

struct augmented_shortcut_circulant {
    template <class T>
    static void bind(call<T>& c) {
        const deft::augmented_shortcut_circulant_options options{
            .base = c.choice("activation", path_activation_names(), "gelu_erf"),
            .residual = find_residual(c),
            .scale = c.number("scale", 1),
            .negative_slope = c.number("negative_slope", 0.01)};
        const tolerance bound = by_type<T>({.of_largest = 2e-5}, {.of_largest = 1e-12});

        const auto z = c.input(any_rank<>, "in.z");
        const auto main = c.input(any_rank<>, "in.main");
        const auto generators = c.input(rank<4>, "in.c");
        const auto bias = c.optional_input(rank<2>, "in.bias");
        const auto residual = optional_rows(c, "in.residual");
        const auto y = c.output(any_rank<>, "out.y", c.shape("in.z"), {.bound = bound, .in_place = "in.main"});
        c.forward("direct", [=](any_executor& e) {
            deft::augmented_shortcut_circulant(z, main, generators, bias, residual, y, options, e);
        });
        const names<circulant_algorithm> algorithms{{"prepared, direct", circulant_algorithm::direct},
                                                    {"prepared, fft", circulant_algorithm::fft},
                                                    {"prepared, automatic", circulant_algorithm::automatic}};
        const std::vector<T> values(c.given("in.c").values.begin(), c.given("in.c").values.end());
        const extents& of_c = c.shape("in.c");
        for (const auto& [name, algorithm] : algorithms) {
            const auto layer = std::make_shared<prepared_augmented_shortcut_circulant<T>>(
                view<const T, 4>(values.data(), {of_c[0], of_c[1], of_c[2], of_c[3]}), options, algorithm, 3);
            c.forward(name, [=](any_executor& e) { (*layer)(z, main, bias, residual, y, e); });
        }
        const bool is_z = options.residual == shortcut_residual::z;
        const reference::shortcut_of<T> s{options.base, options.negative_slope, is_z ? z : residual, T(options.scale)};
        c.reference([=] { reference::augmented_shortcut_circulant<T>(z, main, generators, bias, y, s); });
        if (has_kink(options.base))
            c.has_kinks("the derivative jumps where an argument of a path crosses 0");

        if (!c.has("grad_out.y"))
            return;
        const auto grad_y = c.input(any_rank<>, "grad_out.y");
        const auto grad_z = c.output(any_rank<>, "grad_in.z", c.shape("in.z"), {.bound = bound});
        const auto grad_main = c.output(any_rank<>, "grad_in.main", c.shape("in.z"), {.bound = bound});
        const auto grad_c = c.output(rank<4>, "grad_in.c", c.shape("in.c"), {.bound = bound});
        const auto grad_bias = optional_output<T>(c, "grad_in.bias", "in.bias", bound);
        const auto grad_residual = optional_rows_output<T>(c, "grad_in.residual", "in.residual", bound);
        c.backward("direct", [=](any_executor& e) {
            deft::augmented_shortcut_circulant_backward(z, generators, bias, grad_y, grad_z, grad_main, grad_c,
                                                        grad_bias, grad_residual, options, e);
        });
        c.reference_backward([=] {
            reference::augmented_shortcut_circulant_backward<T>(z, generators, bias, grad_y, grad_z, grad_main, grad_c,
                                                                grad_bias, grad_residual, is_z, s);
        });
    }

    static std::vector<test_case> cases() {
        random_values random(45);
        std::vector<test_case> cases;
        const auto add = [&](extents shape, index paths, index blocks, index m, const std::string& base,
                             const char* residual, bool with_bias, double scale) {
            const index d = blocks * m;
            shape.push_back(d);
            test_case made{"augmented_shortcut_circulant",
                           "generated",
                           {{"activation", base},
                            {"residual", residual},
                            {"paths", double(paths)},
                            {"blocks", double(blocks)},
                            {"scale", scale},
                            {"negative_slope", 0.125}},
                           {{"in.z", random.normal(shape)},
                            {"in.main", random.normal(shape)},
                            {"in.c", random.normal({paths, blocks, blocks, m}, 1 / std::sqrt(double(d)))},
                            {"grad_out.y", random.normal(shape)}},
                           {}};
            if (with_bias)
                made.given["in.bias"] = random.normal({paths, d});
            if (residual == std::string("separate"))
                made.given["in.residual"] = random.normal(shape);
            cases.push_back(std::move(made));
        };
        const char* const residuals[] = {"z", "separate", "none"};
        const auto& kinds = path_activation_names();
        std::size_t turn = 0;
        for (index m = 1; m <= 20; ++m, ++turn)
            add({1 + random.integer(0, 6)}, random.integer(0, 3), 1 + index(turn % 4), m,
                kinds[turn % kinds.size()].first, residuals[turn % 3], turn % 2 == 1, 0.75);
        for (const auto& [name, kind] : kinds)
            for (const char* residual : residuals)
                add({2, 3}, 2, 3, 5, name, residual, true, 1);
        add({0}, 2, 2, 3, "silu", "z", true, 1); // no rows
        add({205}, 2, 2, 33, "gelu_tanh", "separate", true, 1);
        add({3}, 1, 1, 131, "gelu_erf", "z", false, -0.5);

        for (const auto& [name, kind] : kinds) {
            add({11}, 2, 2, 9, name, "z", true, 1);
            test_case& special = cases.back();
            special.given.erase("grad_out.y");
            special.given["in.z"].values[3 * 18 + 7] = NAN;
            special.given["in.main"].values[5 * 18 + 2] = INFINITY;
        }
        return cases;
    }
};
DEFT_ADAPTER(augmented_shortcut_circulant)

} // namespace deft::testing

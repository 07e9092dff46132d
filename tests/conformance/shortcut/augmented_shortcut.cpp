#include "dense_paths.hpp"
#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/reference/shortcut/augmented_shortcut.hpp>
#include <deft/shortcut/augmented_shortcut.hpp>

namespace deft::testing {

struct augmented_shortcut {
    template <class T>
    static void bind(call<T>& c) {
        deft::augmented_shortcut_options options{.base = c.choice("activation", path_activation_names(), "gelu_erf"),
                                                 .residual = find_residual(c),
                                                 .scale = c.number("scale", 1),
                                                 .negative_slope = c.number("negative_slope", 0.01)};
        deft::augmented_shortcut_options as_checkpoint = options;
        as_checkpoint.weights = weight_layout::out_in;
        const tolerance bound = by_type<T>({.of_largest = 1e-5}, {.of_largest = 1e-12});

        const auto z = c.input(any_rank<>, "in.z");
        const auto main = c.input(any_rank<>, "in.main");
        const auto theta = c.input(rank<3>, "in.theta");
        const auto bias = c.optional_input(rank<2>, "in.bias");
        const auto residual = optional_rows(c, "in.residual");
        const auto y = c.output(any_rank<>, "out.y", c.shape("in.z"), {.bound = bound, .in_place = "in.main"});
        const transposed_weights<T> swapped(c, "in.theta");
        c.forward("in_out",
                  [=](any_executor& e) { deft::augmented_shortcut(z, main, theta, bias, residual, y, options, e); });
        c.forward("out_in", [=](any_executor& e) {
            deft::augmented_shortcut(z, main, swapped.tensor(), bias, residual, y, as_checkpoint, e);
        });
        const bool is_z = options.residual == shortcut_residual::z;
        const reference::shortcut_of<T> s{options.base, options.negative_slope, is_z ? z : residual, T(options.scale)};
        c.reference([=] { reference::augmented_shortcut<T>(z, main, theta, bias, y, s); });
        if (has_kink(options.base))
            c.has_kinks("the derivative jumps where an argument of a path crosses 0");

        if (!c.has("grad_out.y"))
            return;
        const auto grad_y = c.input(any_rank<>, "grad_out.y");
        const auto grad_z = c.output(any_rank<>, "grad_in.z", c.shape("in.z"), {.bound = bound});
        const auto grad_main = c.output(any_rank<>, "grad_in.main", c.shape("in.z"), {.bound = bound});
        const auto grad_theta = c.output(rank<3>, "grad_in.theta", c.shape("in.theta"), {.bound = bound});
        const auto grad_bias = optional_output<T>(c, "grad_in.bias", "in.bias", bound);
        const auto grad_residual = optional_rows_output<T>(c, "grad_in.residual", "in.residual", bound);
        const transposed_weights<T> grad_swapped(c, "in.theta");
        c.backward("in_out", [=](any_executor& e) {
            deft::augmented_shortcut_backward(z, theta, bias, grad_y, grad_z, grad_main, grad_theta, grad_bias,
                                              grad_residual, options, e);
        });
        c.backward("out_in", [=](any_executor& e) {
            deft::augmented_shortcut_backward(z, swapped.tensor(), bias, grad_y, grad_z, grad_main,
                                              grad_swapped.tensor(), grad_bias, grad_residual, as_checkpoint, e);
            grad_swapped.copy_to(grad_theta);
        });
        c.reference_backward([=] {
            reference::augmented_shortcut_backward<T>(z, theta, bias, grad_y, grad_z, grad_main, grad_theta, grad_bias,
                                                      grad_residual, is_z, s);
        });
    }

    static std::vector<test_case> cases() {
        random_values random(40);
        std::vector<test_case> cases;
        const auto add = [&](const extents& shape, index paths, const std::string& base, const char* residual,
                             bool with_bias, double scale) {
            const index d = shape.back();
            const double spread = 1 / std::sqrt(double(std::max<index>(d, 1)));
            test_case made{"augmented_shortcut",
                           "generated",
                           {{"activation", base},
                            {"residual", residual},
                            {"paths", double(paths)},
                            {"scale", scale},
                            {"negative_slope", 0.125}},
                           {{"in.z", random.normal(shape)},
                            {"in.main", random.normal(shape)},
                            {"in.theta", random.normal({paths, d, d}, spread)},
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
        for (index d = 1; d <= 34; ++d, ++turn)
            add({1 + random.integer(0, 6), d}, random.integer(0, 3), kinds[turn % kinds.size()].first,
                residuals[turn % 3], turn % 2 == 1, 0.75);
        for (const auto& [name, kind] : kinds)
            for (const char* residual : residuals)
                add({2, 3, 11}, 2, name, residual, true, 1);
        for (const index tokens : {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 17})
            add({tokens, 20}, 1, "identity", "z", true, -0.5);
        add({0, 5}, 2, "silu", "z", true, 1); // no rows
        add({3, 0}, 2, "silu", "z", true, 1); // no columns
        add({205, 67}, 2, "gelu_tanh", "separate", true, 1);
        add({3, 259}, 1, "gelu_erf", "z", false, 1);
        add({97, 131}, 1, "identity", "none", true, 1);

        // NaN in a row of z makes that row NaN and no other; an infinity in main stays where it is.
        for (const auto& [name, kind] : kinds) {
            add({11, 19}, 2, name, "z", true, 1);
            test_case& special = cases.back();
            special.given.erase("grad_out.y");
            special.given["in.z"].values[3 * 19 + 7] = NAN;
            special.given["in.main"].values[5 * 19 + 2] = INFINITY;
        }
        return cases;
    }
};
DEFT_ADAPTER(augmented_shortcut)

} // namespace deft::testing

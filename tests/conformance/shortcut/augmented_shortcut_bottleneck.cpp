#include "dense_paths.hpp"
#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/reference/shortcut/augmented_shortcut_bottleneck.hpp>
#include <deft/shortcut/augmented_shortcut_bottleneck.hpp>

namespace deft::testing {

struct augmented_shortcut_bottleneck {
    template <class T>
    static void bind(call<T>& c) {
        deft::augmented_shortcut_bottleneck_options options{
            .base = c.choice("activation", path_activation_names(), "gelu_erf"),
            .post = c.choice("post_activation", path_activation_names(), "identity"),
            .residual = find_residual(c),
            .scale = c.number("scale", 1),
            .negative_slope = c.number("negative_slope", 0.01)};
        deft::augmented_shortcut_bottleneck_options as_checkpoint = options;
        as_checkpoint.weights = weight_layout::out_in;
        const tolerance bound = by_type<T>({.of_largest = 1e-5}, {.of_largest = 1e-12});

        const auto z = c.input(any_rank<>, "in.z");
        const auto main = c.input(any_rank<>, "in.main");
        const auto down = c.input(rank<3>, "in.down");
        const auto up = c.input(rank<3>, "in.up");
        const auto down_bias = c.optional_input(rank<2>, "in.down_bias");
        const auto up_bias = c.optional_input(rank<2>, "in.up_bias");
        const auto residual = optional_rows(c, "in.residual");
        const auto y = c.output(any_rank<>, "out.y", c.shape("in.z"), {.bound = bound, .in_place = "in.main"});
        const transposed_weights<T> down_swapped(c, "in.down"), up_swapped(c, "in.up");
        c.forward("in_out", [=](any_executor& e) {
            deft::augmented_shortcut_bottleneck(z, main, down, up, down_bias, up_bias, residual, y, options, e);
        });
        c.forward("out_in", [=](any_executor& e) {
            deft::augmented_shortcut_bottleneck(z, main, down_swapped.tensor(), up_swapped.tensor(), down_bias, up_bias,
                                                residual, y, as_checkpoint, e);
        });
        const bool is_z = options.residual == shortcut_residual::z;
        const T scale = T(options.scale);
        const reference::bottleneck_weights<T> w{
            down, up, down_bias, up_bias, options.base, options.post, options.negative_slope};
        c.reference([=] { reference::augmented_shortcut_bottleneck<T>(z, main, w, is_z ? z : residual, scale, y); });
        if (has_kink(options.base) || has_kink(options.post))
            c.has_kinks("the derivative jumps where an argument of a path crosses 0");

        if (!c.has("grad_out.y"))
            return;
        const auto grad_y = c.input(any_rank<>, "grad_out.y");
        const auto grad_z = c.output(any_rank<>, "grad_in.z", c.shape("in.z"), {.bound = bound});
        const auto grad_main = c.output(any_rank<>, "grad_in.main", c.shape("in.z"), {.bound = bound});
        const auto grad_down = c.output(rank<3>, "grad_in.down", c.shape("in.down"), {.bound = bound});
        const auto grad_up = c.output(rank<3>, "grad_in.up", c.shape("in.up"), {.bound = bound});
        const auto grad_down_bias = optional_output<T>(c, "grad_in.down_bias", "in.down_bias", bound);
        const auto grad_up_bias = optional_output<T>(c, "grad_in.up_bias", "in.up_bias", bound);
        const auto grad_residual = optional_rows_output<T>(c, "grad_in.residual", "in.residual", bound);
        const transposed_weights<T> grad_down_swapped(c, "in.down"), grad_up_swapped(c, "in.up");
        c.backward("in_out", [=](any_executor& e) {
            deft::augmented_shortcut_bottleneck_backward(z, down, up, down_bias, up_bias, grad_y, grad_z, grad_main,
                                                         grad_down, grad_up, grad_down_bias, grad_up_bias,
                                                         grad_residual, options, e);
        });
        c.backward("out_in", [=](any_executor& e) {
            deft::augmented_shortcut_bottleneck_backward(z, down_swapped.tensor(), up_swapped.tensor(), down_bias,
                                                         up_bias, grad_y, grad_z, grad_main, grad_down_swapped.tensor(),
                                                         grad_up_swapped.tensor(), grad_down_bias, grad_up_bias,
                                                         grad_residual, as_checkpoint, e);
            grad_down_swapped.copy_to(grad_down);
            grad_up_swapped.copy_to(grad_up);
        });
        c.reference_backward([=] {
            reference::augmented_shortcut_bottleneck_backward<T>(z, w, grad_y, is_z, scale, grad_z, grad_main,
                                                                 grad_residual,
                                                                 {grad_down, grad_up, grad_down_bias, grad_up_bias});
        });
    }

    static std::vector<test_case> cases() {
        random_values random(50);
        std::vector<test_case> cases;
        const auto add = [&](const extents& shape, index paths, index hidden, const std::string& base,
                             const std::string& post, const char* residual, bool with_bias, double scale = 1) {
            const index d = shape.back();
            test_case made{
                "augmented_shortcut_bottleneck",
                "generated",
                {{"activation", base},
                 {"post_activation", post},
                 {"residual", residual},
                 {"paths", double(paths)},
                 {"hidden", double(hidden)},
                 {"scale", scale},
                 {"negative_slope", 0.125}},
                {{"in.z", random.normal(shape)},
                 {"in.main", random.normal(shape)},
                 {"in.down", random.normal({paths, d, hidden}, 1 / std::sqrt(double(std::max<index>(d, 1))))},
                 {"in.up", random.normal({paths, hidden, d}, 1 / std::sqrt(double(hidden)))},
                 {"grad_out.y", random.normal(shape)}},
                {}};
            if (with_bias) {
                made.given["in.down_bias"] = random.normal({paths, hidden});
                made.given["in.up_bias"] = random.normal({paths, d});
            }
            if (residual == std::string("separate"))
                made.given["in.residual"] = random.normal(shape);
            cases.push_back(std::move(made));
        };
        const char* const residuals[] = {"z", "separate", "none"};
        const auto& kinds = path_activation_names();
        std::size_t turn = 0;
        for (index d = 1; d <= 34; ++d, ++turn)
            add({1 + random.integer(0, 6), d}, random.integer(0, 2), random.integer(1, 19),
                kinds[turn % kinds.size()].first, kinds[turn / 3 % kinds.size()].first, residuals[turn % 3],
                turn % 2 == 1, 0.75);
        for (const auto& [name, kind] : kinds)
            for (const char* post : {"identity", "silu"}) {
                add({2, 3, 11}, 2, 5, name, post, "z", true);
                add({4, 9}, 1, 3, post, name, "separate", false);
            }
        add({0, 5}, 2, 3, "silu", "identity", "z", true); // no rows
        add({0, 5}, 2, 3, "silu", "tanh", "z", true);
        add({3, 0}, 2, 3, "silu", "identity", "z", true); // no columns
        add({3, 5}, 0, 3, "silu", "identity", "separate", false, 2);
        // Several blocks of rows, of columns and of hidden units, and a row of hidden units that is longer than a
        // block.
        add({205, 67}, 2, 12, "gelu_tanh", "identity", "separate", true);
        add({101, 70}, 1, 131, "gelu_erf", "identity", "z", true);
        add({26, 70}, 2, 300, "silu", "sigmoid", "z", true);
        add({2, 67}, 1, 2100, "relu", "silu", "none", true);
        add({7, 3}, 1, 300, "tanh", "identity", "none", true);

        // NaN in a row of z makes that row NaN and no other; an infinity in main stays where it is.
        for (const auto& [name, kind] : kinds) {
            add({11, 19}, 2, 4, name, "identity", "z", true);
            test_case& special = cases.back();
            special.given.erase("grad_out.y");
            special.given["in.z"].values[3 * 19 + 7] = NAN;
            special.given["in.main"].values[5 * 19 + 2] = INFINITY;
        }
        return cases;
    }
};
DEFT_ADAPTER(augmented_shortcut_bottleneck)

} // namespace deft::testing

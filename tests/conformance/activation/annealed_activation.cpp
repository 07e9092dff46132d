#include "activation_names.hpp"
#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/activation/annealed_activation.hpp>
#include <deft/reference/activation/annealed_activation.hpp>

namespace deft::testing {

struct annealed_activation {
    template <class T>
    static void bind(call<T>& c) {
        const activation base = find_activation(c.text("activation", "relu"));
        const double lambda = c.number("lambda");
        const double slope = c.number("negative_slope", 0.01);
        const deft::annealed_activation_options options{.base = base, .lambda = lambda, .negative_slope = slope};
        const tolerance bound = by_type<T>({2e-6, 1e-5}, {1e-14, 1e-12});

        const auto x = c.input(any_rank<>, "in.x");
        const auto y = c.output(any_rank<>, "out.y", c.shape("in.x"), {.bound = bound, .in_place = "in.x"});
        c.forward("direct", [=](any_executor& e) { deft::annealed_activation(x, y, options, e); });
        c.reference([=] { reference::annealed_activation<T>(x, y, base, lambda, slope); });
        if (has_kink(base))
            c.has_kinks("the derivative jumps at 0");

        if (!c.has("grad_out.y"))
            return;
        const auto grad_y = c.input(any_rank<>, "grad_out.y");
        const auto grad_x = c.output(any_rank<>, "grad_in.x", c.shape("in.x"), {.bound = bound});
        c.backward("direct",
                   [=](any_executor& e) { deft::annealed_activation_backward(x, grad_y, grad_x, options, e); });
        c.reference_backward(
            [=] { reference::annealed_activation_backward<T>(x, grad_y, grad_x, base, lambda, slope); });
    }

    static std::vector<test_case> cases() {
        random_values random(20);
        std::vector<test_case> cases;
        const auto add = [&](const extents& shape, const char* base, double lambda) {
            cases.push_back({"annealed_activation",
                             "generated",
                             {{"activation", base}, {"lambda", lambda}, {"negative_slope", 0.125}},
                             {{"in.x", random.normal(shape, 2)}, {"grad_out.y", random.normal(shape)}},
                             {}});
        };
        std::size_t turn = 0;
        for (const index size : length_sweep())
            for (const double lambda : {0.0, 0.3125, 1.0}) {
                add({size}, activation_names()[turn++ % 7].first.c_str(), lambda);
                add({3, size}, activation_names()[turn++ % 7].first.c_str(), lambda);
            }
        for (const auto& [name, kind] : activation_names())
            for (const double lambda : {0.0, 0.625, 1.0})
                add({2, 3, 19}, name.c_str(), lambda);
        return cases;
    }
};
DEFT_ADAPTER(annealed_activation)

struct annealing_lambda {
    template <class T>
    static void bind(call<T>& c) {
        const names<annealing_schedule> schedules{{"linear", annealing_schedule::linear},
                                                  {"cosine", annealing_schedule::cosine}};
        const annealing_schedule schedule = c.choice("schedule", schedules, "linear");
        const double decay_epochs = c.number("decay_epochs", 100);

        // The schedule itself is in double: epochs are not rounded to the type of the test.
        const auto epoch = c.input(any_rank<double>, "in.epoch");
        const auto lambda =
            c.output(any_rank<>, "out.lambda", c.shape("in.epoch"), {.bound = by_type<T>({5e-7}, {1e-15})});
        c.forward("direct", [=](any_executor&) {
            for (index r = 0; r < epoch.extent(0); ++r)
                for (index i = 0; i < epoch.extent(1); ++i)
                    lambda(r, i) = T(deft::annealing_lambda(epoch(r, i), decay_epochs, schedule));
        });
        c.reference([=] {
            for (index r = 0; r < epoch.extent(0); ++r)
                for (index i = 0; i < epoch.extent(1); ++i)
                    lambda(r, i) = T(
                        reference::annealing_lambda(epoch(r, i), decay_epochs, schedule == annealing_schedule::cosine));
        });
    }

    static std::vector<test_case> cases() {
        random_values random(21);
        std::vector<test_case> cases;
        for (const char* schedule : {"linear", "cosine"})
            for (const double decay_epochs : {0.5, 1.0, 100.0})
                cases.push_back({"annealing_lambda",
                                 "generated",
                                 {{"schedule", schedule}, {"decay_epochs", decay_epochs}},
                                 {{"in.epoch", random.uniform({40}, 0, 2 * decay_epochs)}},
                                 {}});
        return cases;
    }
};
DEFT_ADAPTER(annealing_lambda)

} // namespace deft::testing

#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/quantization/rounding_loss.hpp>
#include <deft/reference/quantization/rounding_loss.hpp>

#include <algorithm>
#include <cmath>

namespace deft::testing {

struct rounding_loss {
    template <class T>
    static void bind(call<T>& c) {
        const rounding_loss_options options{
            .beta = c.number("beta"), .stretch = {.zeta = c.number("zeta", 1.1), .gamma = c.number("gamma", -0.1)}};
        const double zeta = options.stretch.zeta, gamma = options.stretch.gamma;
        const auto a1 = c.input(rank<2>, "in.a1"), a2 = c.input(rank<2>, "in.a2");
        const auto v0 = c.optional_input(rank<2>, "in.v0");
        const auto loss =
            c.output(rank<1>, "out.loss", {1},
                     {.bound = by_type<T>({.of_largest = 1e-5, .floor = 0}, {.of_largest = 1e-12, .floor = 0})});
        c.forward("direct", [=](any_executor& e) { loss(0) = T(deft::rounding_loss<T>(a1, a2, v0, options, e)); });
        c.reference([=] { loss(0) = reference::rounding_loss<T>(a1, a2, v0, options.beta, zeta, gamma); });
        c.has_kinks("the stretched sigmoid is clipped");

        if (!c.has("grad_out.loss"))
            return;
        const double grad_loss = double(T(c.scalar("grad_out.loss")));
        const std::vector<double>& factor = c.given("in.a2").values;
        // h is 1/2 everywhere, and its distance from 1/2 rounding noise.
        const bool is_noise =
            !c.has("in.v0") && std::all_of(factor.begin(), factor.end(), [](double v) { return v == 0; });
        const tolerance bound = is_noise
                                    ? by_type<T>({.absolute = 1e-5}, {.absolute = 1e-12})
                                    : by_type<T>({.of_largest = 5e-6, .floor = 0}, {.of_largest = 1e-12, .floor = 0});
        const auto grad_a1 = c.output(rank<2>, "grad_in.a1", c.shape("in.a1"), {.bound = bound});
        const auto grad_a2 = c.output(rank<2>, "grad_in.a2", c.shape("in.a2"), {.bound = bound});
        c.backward("direct", [=](any_executor& e) {
            deft::rounding_loss_backward(a1, a2, v0, grad_loss, grad_a1, grad_a2, options, e);
        });
        c.reference_backward([=] {
            reference::rounding_loss_backward<T>(a1, a2, v0, grad_loss, grad_a1, grad_a2, options.beta, zeta, gamma);
        });
    }

    static std::vector<test_case> cases() {
        random_values random(65);
        std::vector<test_case> cases;
        int turn = 0;
        const auto add = [&](index rows, index columns, index r, double spread = 1) {
            static constexpr double betas[] = {20, 8.5, 2, 3};
            static constexpr double zetas[] = {1.1, 1.02, 1.3};
            const double zeta = zetas[turn % 3];
            cases.push_back({"rounding_loss",
                             "generated",
                             {{"beta", betas[turn % 4]}, {"zeta", zeta}, {"gamma", 1 - zeta}},
                             {{"in.a1", random.normal({rows, r}, spread)},
                              {"in.a2", random.normal({r, columns}, 0.6)},
                              {"grad_out.loss", random.normal({})}},
                             {}});
            if (turn % 5 == 0)
                cases.back().given["in.v0"] = random.normal({rows, columns});
            ++turn;
        };
        for (const index columns : length_sweep())
            add(3, columns, 1 + columns % 4);
        for (const index rows : {0, 1, 15, 16, 17, 40})
            add(rows, 7, 2);
        add(5, 600, 5);
        add(33, 300, 3);
        add(4, 9, 2, 1e4);
        return cases;
    }
};
DEFT_ADAPTER(rounding_loss)

struct beta_schedule {
    template <class T>
    static void bind(call<T>& c) {
        const bool cosine = c.text("decay") == "cosine";
        const beta_schedule_options options{.t_max = c.integer("t_max"),
                                            .warmup = c.number("warmup"),
                                            .beta_start = c.number("beta_start"),
                                            .beta_end = c.number("beta_end"),
                                            .decay = cosine ? beta_decay::cosine : beta_decay::linear};
        const auto t = c.input(rank<1, index>, "in.t");
        const auto beta =
            c.output(rank<1>, "out.beta", c.shape("in.t"),
                     {.bound = by_type<T>({.of_largest = 1e-5, .floor = 0}, {.of_largest = 1e-12, .floor = 0})});
        const auto active = c.output(rank<1, std::uint8_t>, "out.active", c.shape("in.t"));
        c.forward("direct", [=](any_executor&) {
            for (index i = 0; i < t.extent(0); ++i) {
                const beta_step step = deft::beta_schedule(t(i), options);
                beta(i) = T(step.beta);
                active(i) = step.is_active;
            }
        });
        c.reference([=] {
            for (index i = 0; i < t.extent(0); ++i) {
                const reference::beta_at at = reference::beta_schedule(t(i), options.t_max, options.warmup,
                                                                       options.beta_start, options.beta_end, cosine);
                beta(i) = T(at.beta);
                active(i) = at.active;
            }
        });
    }

    static std::vector<test_case> cases() {
        random_values random(66);
        std::vector<test_case> cases;
        for (const char* decay : {"linear", "cosine"})
            for (const double warmup : {0.0, 0.25, 1.0})
                for (const index t_max : {1, 8, 1000})
                    cases.push_back({"beta_schedule",
                                     "generated",
                                     {{"t_max", double(t_max)},
                                      {"warmup", warmup},
                                      {"beta_start", 20.0},
                                      {"beta_end", 2.0},
                                      {"decay", decay}},
                                     {{"in.t", random.integers({30}, 1, 2 * t_max)}},
                                     {}});
        return cases;
    }
};
DEFT_ADAPTER(beta_schedule)

} // namespace deft::testing

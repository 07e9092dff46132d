#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/reference/ssm/retention_gate.hpp>
#include <deft/ssm/retention_gate.hpp>

#include <cmath>

namespace deft::testing {

struct retention_gate {
    template <class T>
    static void bind(call<T>& c) {
        const names<head_norm> norms{{"rms", head_norm::rms}, {"layer", head_norm::layer}};
        const names<activation> gates{
            {"silu", activation::silu}, {"sigmoid", activation::sigmoid}, {"identity", activation::identity}};
        const retention_gate_options options{.norm = c.choice("norm", norms, "rms"),
                                             .gate = c.choice("gate_activation", gates, "silu"),
                                             .eps = c.number("eps", 1e-6)};
        const bool has_mean = options.norm == head_norm::layer;
        const tolerance bound = by_type<T>({.of_largest = 3e-6, .floor = 0.01}, {.of_largest = 1e-12, .floor = 0.01});
        const tolerance grad_bound =
            by_type<T>({.of_largest = 1e-5, .floor = 0.01}, {.of_largest = 1e-12, .floor = 0.01});

        const auto o = c.input(rank<4>, "in.o");
        const auto gate = c.input(rank<3>, "in.gate");
        const auto weight = c.optional_input(rank<1>, "in.weight");
        const auto y = c.output(rank<3>, "out.y", c.shape("in.gate"), {.bound = bound, .in_place = "in.gate"});
        c.forward("direct", [=](any_executor& e) { deft::retention_gate(o, gate, weight, y, options, e); });
        c.reference([=] { reference::retention_gate<T>(o, gate, weight, y, has_mean, options.gate, options.eps); });
        if (!c.has("grad_out.y"))
            return;
        const auto grad_y = c.input(rank<3>, "grad_out.y");
        const auto grad_o = c.output(rank<4>, "grad_in.o", c.shape("in.o"), {.bound = grad_bound});
        const auto grad_gate = c.output(rank<3>, "grad_in.gate", c.shape("in.gate"), {.bound = grad_bound});
        view<T, 1> grad_weight;
        if (c.has("in.weight"))
            grad_weight = c.output(rank<1>, "grad_in.weight", c.shape("in.weight"), {.bound = grad_bound});
        c.backward("direct", [=](any_executor& e) {
            deft::retention_gate_backward(o, gate, weight, grad_y, grad_o, grad_gate, grad_weight, options, e);
        });
        c.reference_backward([=] {
            reference::retention_gate_backward<T>(o, gate, weight, grad_y, grad_o, grad_gate, grad_weight, has_mean,
                                                  options.gate, options.eps);
        });
    }

    static std::vector<test_case> cases() {
        random_values random(56);
        std::vector<test_case> cases;
        int turn = 0;
        const auto add = [&](const extents& shape) {
            const extents flat{shape[0], shape[1], shape[2] * shape[3]};
            const char* const act[] = {"silu", "sigmoid", "identity"};
            cases.push_back(
                {"retention_gate",
                 "generated",
                 {{"norm", turn % 2 == 0 ? "rms" : "layer"}, {"gate_activation", act[turn % 3]}, {"eps", 0.25}},
                 {{"in.o", random.normal(shape, 2)},
                  {"in.gate", random.normal(flat, 2)},
                  {"grad_out.y", random.normal(flat)}},
                 {}});
            if (turn % 5 < 3)
                cases.back().given["in.weight"] = random.uniform({shape[3]}, 0.5, 1.5);
            ++turn;
        };
        for (const index length : length_sweep())
            for (int i = 0; i < 3; ++i)
                add({1, 3, 2, length + 1});
        add({0, 2, 3, 4});
        add({2, 0, 3, 4});
        add({2, 5, 0, 4});
        add({2, 3, 4, 70});
        add({1, 200, 2, 9});
        for (int i = 0; i < 2; ++i) {
            add({1, 3, 2, 19});
            cases.back().given["in.o"].values[20] = NAN;
            cases.back().given.erase("grad_out.y");
        }
        return cases;
    }
};
DEFT_ADAPTER(retention_gate)

} // namespace deft::testing

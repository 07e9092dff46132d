#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/reference/ssm/hidden_state_fusion.hpp>
#include <deft/ssm/hidden_state_fusion_backward.hpp>

#include <cmath>

namespace deft::testing {

struct hidden_state_fusion {
    template <class T>
    static void bind(call<T>& c) {
        const names<activation> gates{
            {"silu", activation::silu}, {"sigmoid", activation::sigmoid}, {"identity", activation::identity}};
        const names<fusion_norm> norms{{"rms", fusion_norm::rms}, {"none", fusion_norm::none}};
        const hidden_state_fusion_options options{.gate = c.choice("gate_activation", gates, "silu"),
                                                  .gate_group = c.integer("gate_group", 1),
                                                  .norm = c.choice("norm", norms, "rms"),
                                                  .eps = c.number("eps", 1e-6)};
        const tolerance bound = by_type<T>({.of_largest = 5e-6, .floor = 0.01}, {.of_largest = 1e-12, .floor = 0.01});
        const tolerance grad_bound =
            by_type<T>({.of_largest = 5e-5, .floor = 0.01}, {.of_largest = 1e-12, .floor = 0.01});
        const hidden_state_fusion_inputs<T> in{.current = c.input(rank<2>, "in.current"),
                                               .x = c.input(rank<2>, "in.x"),
                                               .past = c.input(rank<3>, "in.past"),
                                               .w1 = c.input(rank<2>, "in.w1"),
                                               .w2 = c.input(rank<2>, "in.w2"),
                                               .proj = c.optional_input(rank<3>, "in.proj"),
                                               .norm_weight = c.optional_input(rank<1>, "in.norm_weight")};
        const reference::fusion_tensors<T> naive{in.current,
                                                 in.x,
                                                 in.past,
                                                 in.w1,
                                                 in.w2,
                                                 in.proj,
                                                 in.norm_weight,
                                                 options.gate,
                                                 options.gate_group,
                                                 options.norm == fusion_norm::rms,
                                                 options.eps};
        const auto y =
            c.output(rank<2>, "out.fused", c.shape("in.current"), {.bound = bound, .in_place = "in.current"});
        c.forward("rows", [=](any_executor& e) { deft::hidden_state_fusion<T>(in, y, options, e); });
        c.forward("steps", [=](any_executor& e) { // row by row, as decoding does
            for (index r = 0; r < y.extent(0); ++r) {
                hidden_state_fusion_inputs<T> row = in;
                row.current = row_of(in.current, r);
                row.x = row_of(in.x, r);
                row.past = {in.past.data() + r * in.past.stride(1),
                            {in.past.extent(0), 1, in.past.extent(2)},
                            {in.past.stride(0), in.past.stride(1), index{1}}};
                deft::hidden_state_fusion<T>(row, row_of(y, r), options, e);
            }
        });
        c.reference([=] { reference::hidden_state_fusion<T>(naive, y); });
        if (!c.has("grad_out.fused"))
            return;
        const auto gradient = [&](auto r, const char* name) {
            const std::string input = std::string("in.") + name;
            return c.has(input) ? c.output(r, "grad_" + input, c.shape(input), {.bound = grad_bound})
                                : decltype(c.output(r, "", {}))();
        };
        const auto grad_y = c.input(rank<2>, "grad_out.fused");
        const hidden_state_fusion_gradients<T> grad{.current = gradient(rank<2>, "current"),
                                                    .x = gradient(rank<2>, "x"),
                                                    .past = gradient(rank<3>, "past"),
                                                    .w1 = gradient(rank<2>, "w1"),
                                                    .w2 = gradient(rank<2>, "w2"),
                                                    .proj = gradient(rank<3>, "proj"),
                                                    .norm_weight = gradient(rank<1>, "norm_weight")};
        c.backward("rows", [=](any_executor&) { deft::hidden_state_fusion_backward<T>(in, grad_y, grad, options); });
        c.reference_backward([=] {
            reference::hidden_state_fusion_backward<T>(
                naive, grad_y, {grad.current, grad.x, grad.past, grad.w1, grad.w2, grad.proj, grad.norm_weight});
        });
    }

    static std::vector<test_case> cases();

private:
    template <class E>
    static view<E, 2> row_of(const view<E, 2>& v, index r) {
        return {v.data() + r * v.stride(0), {1, v.extent(1)}, {v.stride(0), index{1}}};
    }
};

std::vector<test_case> hidden_state_fusion::cases() {
    random_values random(54);
    std::vector<test_case> cases;
    int turn = 0;
    // projected: extent of the past states, or 0
    const auto add = [&](index rows, index features, index gates, index group, index middle, index past,
                         index projected = 0) {
        const index width = gates * group, inner = projected == 0 ? width : projected;
        const char* const act[] = {"silu", "sigmoid", "identity"};
        const bool rms = turn % 4 != 3;
        const double scale = 1 / std::sqrt(double(std::max<index>(features, 1)));
        test_case made{"hidden_state_fusion",
                       "generated",
                       {{"gate_activation", act[turn % 3]},
                        {"gate_group", double(group)},
                        {"norm", rms ? "rms" : "none"},
                        {"eps", width < 8 || turn % 5 == 0 ? 0.5 : 1e-2}},
                       {{"in.current", random.normal({rows, width})},
                        {"in.x", random.normal({rows, features})},
                        {"in.past", random.normal({past, rows, inner})},
                        {"in.w1", random.normal({middle, features}, scale)},
                        {"in.w2", random.normal({gates, middle}, 1 / std::sqrt(double(std::max<index>(middle, 1))))},
                        {"grad_out.fused", random.normal({rows, width})}},
                       {}};
        if (projected != 0)
            made.given["in.proj"] = random.normal({past, width, inner}, 1 / std::sqrt(double(inner)));
        if (rms && turn % 2 == 0)
            made.given["in.norm_weight"] = random.uniform({width}, 0.5, 1.5);
        cases.push_back(made);
        ++turn;
    };
    for (const index width : length_sweep())
        add(3, 5, std::max<index>(width, 1), 1, 2, width % 3);
    for (const index rows : {0, 1, 2, 7, 8, 9, 13, 40})
        for (const index past : {0, 1, 2})
            add(rows, 6, 5, 1 + past, 3, past, rows % 2 == 0 ? 0 : 7);
    for (const index group : {1, 2, 3, 16, 70})
        add(4, 5, 9, group, 4, 2);
    add(20, 9, 130, 2, 70, 2, 11); // several tiles
    add(210, 3, 7, 1, 5, 1);       // several blocks of rows
    add(7, 4, 5, 1, 2100, 2);      // hidden units in parts
    add(12, 0, 5, 1, 3, 1);
    add(12, 3, 5, 1, 0, 1);
    for (const index past : {1, 2}) // several blocks of rows in several pieces, without and with a norm
        add(110, 4, 1100, 1, 6, past);
    return cases;
}
DEFT_ADAPTER(hidden_state_fusion)

} // namespace deft::testing

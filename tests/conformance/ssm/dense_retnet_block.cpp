#include "../attention/linear_attention_case.hpp"
#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/reference/ssm/dense_retnet_block.hpp>
#include <deft/ssm/dense_retnet_block.hpp>

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>

namespace deft::testing {

struct dense_retnet_block {
    template <class T>
    static void bind(call<T>& c) {
        const tolerance bound = by_type<T>({.of_largest = 1e-5, .floor = 0.01}, {.of_largest = 1e-11, .floor = 0.01});
        const extents& shape = c.shape("in.x");
        const index batch = shape.at(0), n = shape.at(1), heads = c.integer("heads"), layers = c.integer("layers");
        const extents &wq = c.shape("in.l0.wq"), &wo = c.shape("in.l0.wo");
        const names<retention_row_norm> words{{"none", retention_row_norm::none},
                                              {"sum_abs", retention_row_norm::sum_abs},
                                              {"abs_sum", retention_row_norm::abs_sum}};
        const bool is_clamped = c.has_param("clamp_max") && c.param("clamp_max").type != parameter::kind::null;
        dense_retnet_options options{.width = shape.at(2),
                                     .key_width = wq.at(0),
                                     .value_width = wo.at(1),
                                     .heads = heads,
                                     .layers = layers,
                                     .window = c.integer("m"),
                                     .eps = c.number("eps", 1e-6),
                                     .base = c.number("base", 10000),
                                     .clamp_max = is_clamped ? c.number("clamp_max") : HUGE_VAL};
        const auto x = c.input(rank<3>, "in.x");
        const auto stack = std::make_shared<std::vector<dense_retnet_layer<T>>>();
        const auto plain = std::make_shared<std::vector<reference::retnet_tensors<T>>>();
        std::vector<view<T, 4>> states;
        const extents state_shape{batch, heads, wq.at(0) / heads, wo.at(1) / heads};
        for (index l = 0; l < layers; ++l) {
            const std::string layer = "in.l" + std::to_string(l) + ".";
            const auto vector = [&](const char* name) { return c.input(rank<1>, layer + name); };
            const auto matrix = [&](const char* name) { return c.input(rank<2>, layer + name); };
            const dense_retnet_layer<T> w{.input_norm = vector("input_norm"),
                                          .wq = matrix("wq"),
                                          .wk = matrix("wk"),
                                          .wvg = matrix("wvg"),
                                          .k_sel1 = matrix("k_sel1"),
                                          .k_sel2 = matrix("k_sel2"),
                                          .v_sel1 = matrix("v_sel1"),
                                          .v_sel2 = matrix("v_sel2"),
                                          .k_norm = vector("k_norm"),
                                          .v_norm = vector("v_norm"),
                                          .group_norm = vector("group_norm"),
                                          .wo = matrix("wo")};
            stack->push_back(w);
            plain->push_back({w.input_norm, w.wq, w.wk, w.wvg, w.k_sel1, w.k_sel2, w.v_sel1, w.v_sel2, w.k_norm,
                              w.v_norm, w.group_norm, w.wo});
            states.push_back(c.output(rank<4>, "out.l" + std::to_string(l) + ".state", state_shape, {.bound = bound}));
        }
        const auto parallel = c.output(rank<3>, "out.y_parallel", shape, {.bound = bound});
        const auto recurrent = c.output(rank<3>, "out.y_recurrent", shape, {.bound = bound});
        const auto scale = c.output(rank<1, double>, "out.scale", {heads}, {.bound = bound});
        c.may_allocate("products of many rows pack their factors");

        const auto state = std::make_shared<dense_retnet_state<T>>(batch, options);
        const auto add = [&](const std::string& name, index length, index chunk) {
            dense_retnet_options at = options;
            at.chunk = chunk;
            const auto plan = std::make_shared<dense_retnet_plan<T>>(at);
            at.row_norm = c.choice("row_norm", words, "none");
            const auto trained = std::make_shared<dense_retnet_plan<T>>(at);
            c.forward(name, [=](any_executor& e) {
                state->reset();
                deft::dense_retnet_block<T>(x, *stack, parallel, *state, *trained, e);
                state->reset();
                for (index i = 0; i < n; i += length)
                    deft::dense_retnet_block<T>(middle(x, i, std::min(n, i + length)), *stack,
                                                middle(recurrent, i, std::min(n, i + length)), *state, *plan, e);
                for (index l = 0; l < layers; ++l)
                    copy_to(state->layer(l), states[std::size_t(l)]);
                std::copy_n(state->scale().data(), heads, scale.data());
            });
        };
        add("one call", std::max<index>(n, 1), 256);
        if (n > 1)
            add("decoding", 1, 256);
        if (n > 3)
            add("calls of three by two", 3, 2);

        const auto row_norm = c.choice("row_norm", words, "none");
        const reference::retnet_form form{heads, options.window, 0, options.eps, options.base, {}};
        reference::retnet_form training = form;
        training.retention = {true,
                              row_norm == retention_row_norm::none      ? reference::retention_rows::plain
                              : row_norm == retention_row_norm::sum_abs ? reference::retention_rows::sum_abs
                                                                        : reference::retention_rows::abs_sum,
                              options.clamp_max};
        c.reference([=] {
            const scratch<T, 3> keys({batch * layers, heads, state_shape[2]});
            std::vector<view<T, 3>> key_states;
            for (index l = 0; l < layers; ++l)
                key_states.emplace_back(keys.all.data() + l * batch * heads * state_shape[2],
                                        shape_of(batch, heads, state_shape[2]));
            const auto start = [&] {
                for (const auto& s : states)
                    fill_with(s, T(0));
                for (index h = 0; h < heads; ++h)
                    scale(h) = 0;
            };
            start();
            reference::dense_retnet_block<T>(x, *plain, parallel, states, key_states, scale, training);
            start();
            reference::dense_retnet_block<T>(x, *plain, recurrent, states, key_states, scale, form);
        });
    }

    static std::vector<test_case> cases();

private:
    static deft::shape<3> shape_of(index a, index b, index c) {
        return {a, b, c};
    }
    /// Tokens [begin, end) of [B, n, D].
    template <class E>
    static view<E, 3> middle(const view<E, 3>& x, index begin, index end) {
        return {x.data() + begin * x.stride(1),
                {x.extent(0), end - begin, x.extent(2)},
                {x.stride(0), x.stride(1), index{1}}};
    }
};

std::vector<test_case> dense_retnet_block::cases() {
    random_values random(71);
    std::vector<test_case> cases;
    struct setup {
        index batch, n, d, dk, e, heads, layers, window, middle;
        const char* row_norm = "abs_sum";
    };
    const auto add = [&](const setup& s) {
        test_case made{"dense_retnet_block",
                       "generated",
                       {{"heads", double(s.heads)},
                        {"layers", double(s.layers)},
                        {"m", double(s.window)},
                        {"eps", 1e-6},
                        {"base", 10000.0},
                        {"row_norm", s.row_norm},
                        {"clamp_max", s.row_norm[0] == 'a' ? parameter(5e4) : parameter()}},
                       {},
                       {}};
        made.given["in.x"] = random.normal({s.batch, s.n, s.d});
        for (index l = 0; l < s.layers; ++l) {
            const auto give = [&](const char* name, const tensor& value) {
                made.given[std::string("in.l").append(std::to_string(l)).append(".").append(name)] = value;
            };
            const auto linear = [&](index rows, index columns) {
                return random.normal({rows, columns}, 1 / std::sqrt(double(columns)));
            };
            const auto norm = [&](index width) { return random.uniform({width}, 0.7, 1.3); };
            give("input_norm", norm(s.d));
            give("wq", linear(s.dk, s.d));
            give("wk", linear(s.dk, s.d));
            give("wvg", linear(2 * s.e, s.d));
            give("k_sel1", linear(s.middle, s.d));
            give("k_sel2", linear(s.dk, s.middle));
            give("v_sel1", linear(s.middle, s.d));
            give("v_sel2", linear(s.e, s.middle));
            give("k_norm", norm(s.dk));
            give("v_norm", norm(s.e));
            give("group_norm", norm(s.e / s.heads));
            give("wo", linear(s.d, s.e));
        }
        cases.push_back(std::move(made));
    };
    add({.batch = 1, .n = 1, .d = 4, .dk = 4, .e = 8, .heads = 2, .layers = 1, .window = 0, .middle = 1});
    add({.batch = 3, .n = 1, .d = 6, .dk = 6, .e = 9, .heads = 3, .layers = 3, .window = 4, .middle = 2});
    add({.batch = 2, .n = 0, .d = 6, .dk = 4, .e = 8, .heads = 2, .layers = 2, .window = 1, .middle = 2});
    add({.batch = 2, .n = 9, .d = 10, .dk = 8, .e = 20, .heads = 2, .layers = 4, .window = 2, .middle = 3});
    add({.batch = 1,
         .n = 40,
         .d = 16,
         .dk = 8,
         .e = 32,
         .heads = 1,
         .layers = 5,
         .window = 3,
         .middle = 2,
         .row_norm = "sum_abs"});
    add({.batch = 2,
         .n = 12,
         .d = 12,
         .dk = 12,
         .e = 24,
         .heads = 3,
         .layers = 2,
         .window = 1,
         .middle = 1,
         .row_norm = "none"});
    return cases;
}
DEFT_ADAPTER(dense_retnet_block)

} // namespace deft::testing

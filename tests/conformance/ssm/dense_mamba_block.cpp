#include "../attention/linear_attention_case.hpp"
#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/reference/ssm/dense_mamba_block.hpp>
#include <deft/ssm/dense_mamba_block.hpp>

#include <algorithm>
#include <cmath>
#include <memory>

namespace deft::testing {

struct dense_mamba_block {
    template <class T>
    static void bind(call<T>& c) {
        const tolerance bound = by_type<T>({.of_largest = 1e-5, .floor = 0.01}, {.of_largest = 1e-11, .floor = 0.01});
        const names<fusion_point> words{{"readout", fusion_point::readout}, {"recurrent", fusion_point::recurrent}};
        const extents &shape = c.shape("in.x"), &a = c.shape("in.l0.A_log");
        const index batch = shape.at(0), n = shape.at(1), layers = c.integer("layers");
        const dense_mamba_options options{.width = shape.at(2),
                                          .channels = a.at(0),
                                          .states = a.at(1),
                                          .rank = c.shape("in.l0.dt_proj").at(1),
                                          .taps = c.shape("in.l0.conv_weight").at(1),
                                          .layers = layers,
                                          .window = c.integer("m"),
                                          .point = c.choice("fusion_point", words, "readout"),
                                          .eps = c.number("eps", 1e-5)};
        const auto x = c.input(rank<3>, "in.x");
        const auto y = c.output(rank<3>, "out.y", shape, {.bound = bound, .in_place = "in.x"});
        const auto stack = std::make_shared<std::vector<dense_mamba_layer<T>>>();
        const auto plain = std::make_shared<std::vector<reference::mamba_tensors<T>>>();
        std::vector<scratch<T, 2>> decays; // -exp(A_log)
        std::vector<view<T, 3>> scans, convs;
        for (index l = 0; l < layers; ++l) {
            const auto named = [l](const char* room, const char* name) {
                return std::string(room).append(".l").append(std::to_string(l)).append(".").append(name);
            };
            const auto vector = [&](const char* name) { return c.input(rank<1>, named("in", name)); };
            const auto matrix = [&](const char* name) { return c.input(rank<2>, named("in", name)); };
            const tensor& log = c.given(named("in", "A_log"));
            decays.emplace_back(log.shape);
            for (std::size_t i = 0; i < log.values.size(); ++i)
                (*decays.back().memory)[i] = T(-std::exp(log.values[i]));
            const dense_mamba_layer<T> w{.norm = vector("norm"),
                                         .in_proj = matrix("in_proj"),
                                         .conv_weight = matrix("conv_weight"),
                                         .conv_bias = vector("conv_bias"),
                                         .x_proj = matrix("x_proj"),
                                         .dt_proj = matrix("dt_proj"),
                                         .dt_bias = vector("dt_bias"),
                                         .A = decays.back().all,
                                         .D = vector("D"),
                                         .out_proj = matrix("out_proj"),
                                         .sel1 = matrix("sel1"),
                                         .sel2 = matrix("sel2")};
            stack->push_back(w);
            plain->push_back({w.norm, w.in_proj, w.conv_weight, w.conv_bias, w.x_proj, w.dt_proj, w.dt_bias, w.A, w.D,
                              w.out_proj, w.sel1, w.sel2});
            scans.push_back(c.output(rank<3>, named("out", "ssm_state"), {batch, a[0], a[1]}, {.bound = bound}));
            convs.push_back(options.taps > 1 ? c.output(rank<3>, named("out", "conv_state"),
                                                        {batch, options.taps - 1, a[0]}, {.bound = bound})
                                             : view<T, 3>(absent));
        }
        c.may_allocate("products of many rows pack their factors");

        const auto state = std::make_shared<dense_mamba_state<T>>(batch, options);
        const auto add = [&](const std::string& name, index length, index chunk) {
            dense_mamba_options at = options;
            at.chunk = chunk;
            const auto plan = std::make_shared<dense_mamba_plan<T>>(at);
            c.forward(name, [=, keep = decays](any_executor& e) {
                state->reset();
                for (index i = 0; i < n; i += length)
                    deft::dense_mamba_block<T>(middle(x, i, std::min(n, i + length)), *stack,
                                               middle(y, i, std::min(n, i + length)), *state, *plan, e);
                for (index l = 0; l < layers; ++l) {
                    copy_to(state->scan(l), scans[std::size_t(l)]);
                    if (convs[std::size_t(l)].is_given())
                        copy_to(state->conv(l), convs[std::size_t(l)]);
                }
            });
        };
        add("one call", std::max<index>(n, 1), 64);
        if (n > 1)
            add("decoding", 1, 64);
        if (n > 3)
            add("calls of three by two", 3, 2);
        const reference::mamba_form form{options.window, options.point == fusion_point::recurrent, options.eps};
        c.reference([=, keep = decays] {
            for (const auto& s : scans)
                fill_with(s, T(0));
            for (const auto& s : convs)
                if (s.is_given())
                    fill_with(s, T(0));
            reference::dense_mamba_block<T>(x, *plain, y, convs, scans, form);
        });
    }

    static std::vector<test_case> cases();

private:
    /// Tokens [begin, end) of [B, n, D].
    template <class E>
    static view<E, 3> middle(const view<E, 3>& x, index begin, index end) {
        return {x.data() + begin * x.stride(1),
                {x.extent(0), end - begin, x.extent(2)},
                {x.stride(0), x.stride(1), index{1}}};
    }
};

std::vector<test_case> dense_mamba_block::cases() {
    random_values random(72);
    std::vector<test_case> cases;
    struct setup {
        index batch, n, d, e, states, rank, taps, layers, window;
        const char* point = "readout";
    };
    const auto add = [&](const setup& s) {
        test_case made{
            "dense_mamba_block",
            "generated",
            {{"layers", double(s.layers)}, {"m", double(s.window)}, {"eps", 1e-5}, {"fusion_point", s.point}},
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
            give("norm", random.uniform({s.d}, 0.7, 1.3));
            give("in_proj", linear(2 * s.e, s.d));
            give("conv_weight", linear(s.e, s.taps));
            give("conv_bias", random.normal({s.e}, 0.1));
            give("x_proj", linear(s.rank + 2 * s.states, s.e));
            give("dt_proj", linear(s.e, s.rank));
            give("dt_bias", random.uniform({s.e}, -6, -2));
            give("A_log", random.uniform({s.e, s.states}, 0, 2.8));
            give("D", random.uniform({s.e}, 0.5, 1.5));
            give("out_proj", linear(s.d, s.e));
            give("sel1", linear(2, s.d));
            give("sel2", linear(s.e, 2));
        }
        cases.push_back(std::move(made));
    };
    add({.batch = 1, .n = 1, .d = 3, .e = 4, .states = 1, .rank = 1, .taps = 1, .layers = 1, .window = 0});
    add({.batch = 3, .n = 1, .d = 5, .e = 9, .states = 3, .rank = 2, .taps = 4, .layers = 3, .window = 4});
    add({.batch = 2, .n = 0, .d = 4, .e = 5, .states = 2, .rank = 1, .taps = 3, .layers = 2, .window = 1});
    for (const char* point : {"readout", "recurrent"}) {
        add({.batch = 2,
             .n = 9,
             .d = 6,
             .e = 11,
             .states = 5,
             .rank = 2,
             .taps = 2,
             .layers = 4,
             .window = 2,
             .point = point});
        add({.batch = 1,
             .n = 70,
             .d = 8,
             .e = 16,
             .states = 16,
             .rank = 3,
             .taps = 4,
             .layers = 3,
             .window = 1,
             .point = point});
        add({.batch = 1,
             .n = 35,
             .d = 8,
             .e = 20,
             .states = 8,
             .rank = 1,
             .taps = 4,
             .layers = 3,
             .window = 5,
             .point = point});
    }
    add({.batch = 2, .n = 40, .d = 6, .e = 10, .states = 4, .rank = 2, .taps = 4, .layers = 2, .window = 0});
    return cases;
}
DEFT_ADAPTER(dense_mamba_block)

} // namespace deft::testing

#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/pruning/low_rank_modulated_linear.hpp>
#include <deft/reference/pruning/low_rank_modulated_linear.hpp>

#include <cmath>
#include <cstdint>

namespace deft::testing {

struct low_rank_modulated_linear {
    template <class T>
    static void bind(call<T>& c) {
        const double scale = c.number("scale", 1);
        const low_rank_modulated_linear_options options{.scale = scale};
        const tolerance bound = by_type<T>({.of_largest = 1e-5, .floor = 0}, {.of_largest = 1e-12, .floor = 0});
        const auto x = c.input(rank<2>, "in.x");
        const auto weight = c.input(rank<2>, "in.weight");
        const auto down = c.input(rank<3>, "in.down");
        const auto up = c.input(rank<3>, "in.up");
        const auto task = c.input(rank<1, std::int64_t>, "in.task");
        const auto bias = c.optional_input(rank<1>, "in.bias");
        const auto task_bias = c.optional_input(rank<2>, "in.task_bias");
        const index m = weight.extent(0), n = weight.extent(1), tasks = down.extent(0);
        const auto y = c.output(rank<2>, "out.y", {x.extent(0), m}, {.bound = bound});
        const auto merged = c.output(rank<3>, "out.merged", {tasks, m, n}, {.bound = bound});
        const auto of_task = [=](index t) {
            return view<T, 2>(merged.data() + t * merged.stride(0), {m, n}, {merged.stride(1), 1});
        };
        c.forward("fused", [=](any_executor& e) {
            deft::low_rank_modulated_linear<T>(x, weight, down, up, task, bias, task_bias, y, options, e);
            for (index t = 0; t < tasks; ++t)
                deft::low_rank_modulated_weight<T>(weight, down, up, t, of_task(t), options, e);
        });
        c.forward("merged", [=](any_executor& e) {
            for (index t = 0; t < tasks; ++t)
                deft::low_rank_modulated_weight<T>(weight, down, up, t, of_task(t), options, e);
            for (index b = 0; b < x.extent(0); ++b) { // the layer of the merged weight, row by row
                const index t = index(task(b));
                for (index i = 0; i < m; ++i) {
                    double sum = bias.is_given() ? double(bias(i)) : 0.0;
                    sum += task_bias.is_given() ? double(task_bias(t, i)) : 0.0;
                    for (index j = 0; j < n; ++j)
                        sum += double(merged(t, i, j)) * double(x(b, j));
                    y(b, i) = T(sum);
                }
            }
        });
        c.reference([=] {
            reference::low_rank_modulated_linear<T>(x, weight, down, up, task, T(scale), bias, task_bias, y);
            reference::low_rank_modulated_weight<T>(weight, down, up, T(scale), merged);
        });

        if (!c.has("grad_out.y"))
            return;
        const auto grad_y = c.input(rank<2>, "grad_out.y");
        const auto grad_x = c.output(rank<2>, "grad_in.x", c.shape("in.x"), {.bound = bound});
        const auto grad_weight = c.output(rank<2>, "grad_in.weight", c.shape("in.weight"), {.bound = bound});
        const auto grad_down = c.output(rank<3>, "grad_in.down", c.shape("in.down"), {.bound = bound});
        const auto grad_up = c.output(rank<3>, "grad_in.up", c.shape("in.up"), {.bound = bound});
        const auto grad_bias =
            c.has("in.bias") ? c.output(rank<1>, "grad_in.bias", {m}, {.bound = bound}) : view<T, 1>(absent);
        const auto grad_task_bias = c.has("in.task_bias")
                                        ? c.output(rank<2>, "grad_in.task_bias", {tasks, m}, {.bound = bound})
                                        : view<T, 2>(absent);
        c.may_allocate("the gradients sort rows by task");
        c.backward("direct", [=](any_executor& e) {
            deft::low_rank_modulated_linear_backward<T>(x, weight, down, up, task, grad_y, grad_x, grad_weight,
                                                        grad_down, grad_up, grad_bias, grad_task_bias, options, e);
        });
        c.reference_backward([=] {
            const auto g =
                reference::low_rank_modulated_linear_backward<T>(x, weight, down, up, task, T(scale), grad_y);
            write(g.x, rows<T>(grad_x));
            write(g.weight, rows<T>(grad_weight));
            write(g.down, rows<T>(grad_down));
            write(g.up, rows<T>(grad_up));
            write(g.bias, rows<T>(grad_bias));
            write(g.task_bias, rows<T>(grad_task_bias));
        });
    }

    static std::vector<test_case> cases() {
        random_values random(59);
        std::vector<test_case> cases;
        const auto add = [&](index batch, index m, index n, index r, index tasks, double scale, bool bias,
                             bool task_bias, bool with_grad = true) {
            test_case made{"low_rank_modulated_linear", "generated", {{"scale", scale}}, {}, {}};
            made.given["in.x"] = random.normal({batch, n});
            made.given["in.weight"] = random.normal({m, n});
            made.given["in.down"] = random.normal({tasks, r, n});
            made.given["in.up"] = random.normal({tasks, m, r});
            made.given["in.task"] = random.integers({batch}, 0, tasks - 1);
            if (bias)
                made.given["in.bias"] = random.normal({m});
            if (task_bias)
                made.given["in.task_bias"] = random.normal({tasks, m});
            if (with_grad)
                made.given["grad_out.y"] = random.normal({batch, m});
            cases.push_back(std::move(made));
        };
        for (const index batch : {0, 1, 2, 7, 8, 9, 13, 30})
            for (const index tasks : {1, 3}) {
                add(batch, 5, 7, 2, tasks, 1, tasks == 1, batch % 2 == 0);
                add(batch, 17, 9, 3, tasks, 0.25, batch % 2 == 0, tasks == 3);
            }
        add(6, 4, 5, 0, 2, 1, true, true);    // no modulation
        add(6, 3, 4, 40, 2, 0.5, true, true); // ranks in two parts
        add(9, 3, 4, 33, 1, 0.5, false, false);
        add(5, 1, 1, 1, 2, 0, true, false);
        add(250, 70, 20, 4, 3, 1, true, true, false); // several blocks and tiles, mixed and not
        add(250, 70, 20, 4, 1, 1, true, true, false);
        add(3, 2100, 3, 2, 2, 1, false, true, false);
        // Rows sorted by task: long runs.
        add(240, 33, 12, 5, 2, 1, true, true, false);
        std::vector<double>& task = cases.back().given["in.task"].values;
        for (std::size_t i = 0; i < task.size(); ++i)
            task[i] = i < 101 ? 0 : 1;
        return cases;
    }

private:
    template <class T>
    static void write(const std::vector<T>& from, const rows<T>& to) {
        for (index i = 0; i < to.extent(0); ++i)
            for (index j = 0; j < to.extent(1); ++j)
                to(i, j) = from[std::size_t(i * to.extent(1) + j)];
    }
};
DEFT_ADAPTER(low_rank_modulated_linear)

} // namespace deft::testing

#include "layer_list.hpp"

#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/pruning/rank_metrics.hpp>
#include <deft/reference/pruning/rank_metrics.hpp>

#include <cmath>
#include <cstdint>
#include <utility>

namespace deft::testing {

struct rank_metrics {
    template <class T>
    static void bind(call<T>& c) {
        const double delta = c.number("delta"), rtol = c.number("rtol");
        const extents shape = as_matrix(c.shape("in.weight"));
        const auto weight = c.input_as(rank<2>, "in.weight", shape);
        const tolerance relative = by_type<T>({.relative = 1e-5}, {.relative = 1e-12});
        const auto values =
            c.output(rank<1>, "out.singular_values", {std::min(shape[0], shape[1])},
                     {.bound = by_type<T>({.of_largest = 1e-5, .floor = 0}, {.of_largest = 1e-12, .floor = 0})});
        std::vector<rows<double>> numbers;
        for (const char* const name : {"out.frobenius", "out.spectral", "out.nuclear", "out.stable_rank"})
            numbers.push_back(c.output(any_rank<double>, name, {}, {.bound = relative}));
        // Noise of a matrix that lacks rank adds entropy.
        numbers.push_back(c.output(any_rank<double>, "out.effective_rank", {},
                                   {.bound = by_type<T>({.relative = 1e-4}, {.relative = 1e-12})}));
        std::vector<rows<std::int64_t>> counts;
        for (const char* const name : {"out.numerical_rank", "out.delta_rank", "out.tail_rank"})
            counts.push_back(c.output(any_rank<std::int64_t>, name, {}));
        const auto write = [=](const auto& m) {
            const double found[] = {m.frobenius, m.spectral, m.nuclear, m.stable_rank, m.effective_rank};
            const index counted[] = {m.numerical_rank, m.delta_rank, m.tail_rank};
            for (std::size_t i = 0; i < numbers.size(); ++i)
                numbers[i](0, 0) = found[i];
            for (std::size_t i = 0; i < counts.size(); ++i)
                counts[i](0, 0) = counted[i];
        };
        c.may_allocate("a decomposition");
        c.forward("direct",
                  [=](any_executor&) { write(deft::rank_metrics<T>(weight, values, {.delta = delta, .rtol = rtol})); });
        c.reference([=] {
            const auto m = reference::rank_metrics<T>(weight, delta, rtol);
            for (index i = 0; i < values.extent(0); ++i)
                values(i) = T(m.s[std::size_t(i)]);
            write(m);
        });

        rank_metrics_cotangents g;
        bool any = false;
        for (const auto& [name, to] :
             {std::pair("grad_out.nuclear", &g.nuclear), std::pair("grad_out.stable_rank", &g.stable_rank),
              std::pair("grad_out.effective_rank", &g.effective_rank)})
            if (c.has(name)) {
                *to = c.scalar(name);
                any = true;
            }
        if (!any)
            return;
        const auto grad =
            output_matrix(c, "grad_in.weight", c.shape("in.weight"),
                          {.bound = by_type<T>({.of_largest = 1e-4, .floor = 0}, {.of_largest = 1e-10, .floor = 0})});
        c.backward("direct", [=](any_executor&) { deft::rank_metrics_backward<T>(weight, g, grad); });
        c.reference_backward(
            [=] { reference::rank_metrics_backward<T>(weight, g.nuclear, g.stable_rank, g.effective_rank, grad); });
    }

    static std::vector<test_case> cases() {
        random_values random(57);
        std::vector<test_case> cases;
        const auto add = [&](tensor weight, double delta, bool with_grad) {
            test_case made{"rank_metrics", "generated", {{"delta", delta}, {"rtol", 1e-5}}, {}, {}};
            made.given["in.weight"] = std::move(weight);
            if (with_grad)
                for (const char* const name : {"nuclear", "stable_rank", "effective_rank"})
                    made.given[std::string("grad_out.") + name] = tensor{{}, {random.number(-1, 1)}};
            cases.push_back(std::move(made));
        };
        for (const index rows : {1, 2, 8, 19})
            for (const index columns : {1, 6, 9, 33})
                add(random.normal({rows, columns}), 0.15, rows > 1 && columns > 1);
        for (const double delta : {0.0, 0.03, 0.6, 1.0})
            add(random.normal({9, 12}), delta, false);
        add(random.normal({7, 7}, 1e30), 0.1, false);
        add(random.normal({7, 7}, 1e-30), 0.1, false);
        tensor zeros = random.normal({3, 4});
        std::fill(zeros.values.begin(), zeros.values.end(), 0.0);
        add(zeros, 0.1, false);
        return cases;
    }
};
DEFT_ADAPTER(rank_metrics)

} // namespace deft::testing

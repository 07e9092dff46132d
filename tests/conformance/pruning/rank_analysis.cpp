#include "layer_list.hpp"

#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/pruning/rank_analysis.hpp>
#include <deft/reference/pruning/rank_analysis.hpp>

#include <cmath>
#include <cstdint>
#include <limits>

namespace deft::testing {

struct rank_analysis {
    template <class T>
    static void bind(call<T>& c) {
        const index k = c.integer("rank");
        std::vector<double> energies;
        for (const parameter& energy : c.param("energies").items)
            energies.push_back(energy.number);
        const extents shape = as_matrix(c.shape("in.delta"));
        const index r = std::min(shape[0], shape[1]);
        const auto delta = c.input_as(rank<2>, "in.delta", shape);
        const tolerance of_values = by_type<T>({.of_largest = 1e-5, .floor = 0}, {.of_largest = 1e-12, .floor = 0});
        const tolerance of_shares = by_type<T>({.absolute = 1e-5}, {.absolute = 1e-12});
        // Near 0 the root of a share has the absolute error of singular values.
        const tolerance of_errors = by_type<T>({.absolute = 1e-5}, {.absolute = 1e-12});
        const bool unique = c.number("factors_unique") != 0;
        const double any = std::numeric_limits<double>::infinity();
        const tolerance of_factors =
            unique ? by_type<T>({.of_largest = 1e-3, .floor = 0}, {.of_largest = 1e-9, .floor = 0})
                   : tolerance{.absolute = any};
        const auto values = c.output(rank<1>, "out.singular_values", {r}, {.bound = of_values});
        const auto cumulative = c.output(rank<1>, "out.cumulative_energy", {r}, {.bound = of_shares});
        const auto relative = c.output(rank<1>, "out.relative_error", {r + 1}, {.bound = of_errors});
        const auto ranks = c.output(rank<1, std::int64_t>, "out.ranks", {index(energies.size())});
        const auto up = c.output(rank<2>, "out.up", {shape[0], k}, {.bound = of_factors});
        const auto down = c.output(rank<2>, "out.down", {k, shape[1]}, {.bound = of_factors});
        const auto chosen = std::make_shared<std::vector<index>>(energies.size());
        c.may_allocate("a decomposition");
        const auto write_ranks = [=] {
            for (index i = 0; i < ranks.extent(0); ++i)
                ranks(i) = (*chosen)[std::size_t(i)];
        };
        c.forward("direct", [=](any_executor&) {
            deft::rank_analysis<T>(delta, energies, values, cumulative, relative, *chosen, up, down);
            write_ranks();
        });
        c.reference([=] {
            reference::rank_analysis<T>(delta, energies, values, cumulative, relative, *chosen, up, down);
            write_ranks();
        });
    }

    static std::vector<test_case> cases() {
        random_values random(58);
        std::vector<test_case> cases;
        const std::vector<double> energies{0.0, 0.31, 0.77, 0.9};
        const auto add = [&](tensor delta, index k, bool unique) {
            cases.push_back({"rank_analysis",
                             "generated",
                             {{"rank", double(k)},
                              {"factors_unique", unique ? 1.0 : 0.0},
                              {"energies", parameter(std::vector<parameter>(energies.begin(), energies.end()))}},
                             {{"in.delta", std::move(delta)}},
                             {}});
        };
        for (const index rows : {1, 3, 10})
            for (const index columns : {1, 7, 18})
                for (const index k : {index(0), index(1), std::min(rows, columns)})
                    add(random.normal({rows, columns}), k, true);
        add(random.normal({6, 5}, 1e-20), 2, true);
        tensor zeros = random.normal({4, 5});
        std::fill(zeros.values.begin(), zeros.values.end(), 0.0);
        add(zeros, 2, false);
        return cases;
    }
};
DEFT_ADAPTER(rank_analysis)

} // namespace deft::testing

// rank_analysis against the naive decomposition.
#include "../support/suite.hpp"

#include <deft/pruning/rank_analysis.hpp>
#include <deft/reference/pruning/rank_analysis.hpp>

#include <vector>

namespace deft::bench {

void benchmark_rank_analysis(suite& s) {
    constexpr index m = 180, n = 180, k = 8;
    const auto delta = normal<float>(m * n), spectrum = output<float>(m, 7);
    struct scratch {
        std::vector<float> cumulative, relative, up, down;
        std::vector<index> ranks;
    };
    const lazy other([] {
        return scratch{std::vector<float>(m), std::vector<float>(m + 1), std::vector<float>(m * k),
                       std::vector<float>(k * n), std::vector<index>(1)};
    });
    s.compare({.op = "rank_analysis", .type = "f32", .shape = "180x180_r8", .work = {.items = double(m * n)}})
        .naive(inputs{delta}, outputs{spectrum},
               []<class U>(const U* from, U* to) {
                   std::vector<U> cumulative(m), relative(m + 1), up(m * k), down(k * n);
                   std::vector<index> ranks;
                   reference::rank_analysis<U>({from, {m, n}}, {0.9}, {to, {m}}, cumulative, relative, ranks,
                                               {up.data(), {m, k}}, {down.data(), {k, n}});
               })
        .add("deft", [=] {
            constexpr double energies[] = {0.9};
            deft::rank_analysis<float>(as(delta, shape<2>(m, n)), energies, as(spectrum, shape<1>(m)),
                                       other->cumulative, other->relative, other->ranks, {other->up.data(), {m, k}},
                                       {other->down.data(), {k, n}});
        });
}

} // namespace deft::bench

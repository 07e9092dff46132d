// rank_metrics against Eigen's singular spectrum.
#include "../peers/svd.hpp"
#include "../support/suite.hpp"

#include <deft/pruning/rank_metrics.hpp>
#include <deft/reference/pruning/singular_values.hpp>

namespace deft::bench {

void benchmark_rank_metrics(suite& s) {
    constexpr index m = 64, n = 576;
    const auto w = normal<float>(m * n), spectrum = output<float>(m, 7);
    s.compare({.op = "rank_metrics", .type = "f32", .shape = "64x576", .work = {.items = double(m * n)}})
        .naive(inputs{w}, outputs{spectrum},
               []<class U>(const U* from, U* to) {
                   const auto singular = reference::singular_values<U>({from, {m, n}}).s;
                   std::copy(singular.begin(), singular.end(), to);
               })
        .add("eigen_bdcsvd", [=] { eigen::bdcsvd(w.data(), m, n, spectrum.data(), false); })
        .add("deft", [=] {
            static_cast<void>(
                deft::rank_metrics<float>(as(w, shape<2>(m, n)), as(spectrum, shape<1>(m)), {.delta = 0.2}));
        });
}

} // namespace deft::bench

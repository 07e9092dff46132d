// qmc_frequencies: runs once per layer when a model is converted; shown to cost next to nothing.
#include "../support/suite.hpp"

#include <deft/attention/qmc_frequencies.hpp>
#include <deft/reference/attention/qmc_frequencies.hpp>

namespace deft::bench {

void benchmark_qmc_frequencies(suite& s) {
    const index m = 256;
    const buffer<double> u(m, [](double* to, index n) { qmc_points({to, {n}}, qmc_sequence::van_der_corput); });
    const auto t = output<double>(m);
    s.compare({.op = "qmc_frequencies", .type = "f64", .shape = "256_normal", .work = {.items = double(m)}})
        .naive(inputs{u}, outputs{t},
               [=](const double* points, double* to) {
                   reference::qmc_frequencies({points, {m}}, {to, {m}}, 0);
               })
        .add("deft", [=] { deft::qmc_frequencies(as(u, shape<1>(m)), as(t, shape<1>(m))); });
}

} // namespace deft::bench

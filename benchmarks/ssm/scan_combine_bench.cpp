// scan_combine: the elements of some spans of a wide scan.
#include "../support/suite.hpp"

#include <deft/reference/ssm/scan_combine.hpp>
#include <deft/ssm/scan_combine.hpp>

namespace deft::bench {

void benchmark_scan_combine(suite& s) {
    constexpr index spans = 8, columns = 24576; // of 1536 channels with 16 states
    constexpr shape<2> size{spans, columns};
    const auto a = uniform<float>(spans * columns, 0.0f, 0.99f), b = normal<float>(spans * columns, 2);
    const auto a_total = output<float>(columns, 1), b_total = output<float>(columns, 2),
               prefix_a = output<float>(spans * columns, 3), prefix_b = output<float>(spans * columns, 4);
    s.compare({.op = "scan_combine",
               .type = "f32",
               .shape = "K8_C24576",
               .work = {.items = double(spans * columns),
                        .bytes = 4 * sizeof(float) * double(spans * columns),
                        .pattern = traffic::triad}})
        .naive(inputs{a, b}, outputs{a_total, b_total, prefix_a, prefix_b},
               [=]<class U>(const U* decay, const U* input, U* to_a, U* to_b, U* pa, U* pb) {
                   reference::scan_combine<U>({decay, size}, {input, size}, {to_a, {columns}}, {to_b, {columns}},
                                              {pa, size}, {pb, size}, false);
               })
        .add("deft", [=] {
            deft::scan_combine(as(a, size), as(b, size), as(a_total, shape<1>(columns)), as(b_total, shape<1>(columns)),
                               as(prefix_a, size), as(prefix_b, size));
        });
}

} // namespace deft::bench

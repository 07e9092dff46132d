// quant_params: ranges of rows and groups.
#include "../support/suite.hpp"

#include <deft/quantization/quant_params.hpp>

#include <algorithm>
#include <cmath>
#include <string>

namespace deft::bench {
namespace {

void ranges(suite& s, index rows, index columns, index group, bool full) {
    const index count = rows * columns, groups = columns / group;
    const auto x = normal<float>(count), scale = output<float>(rows * groups);
    const buffer<quant_code> zero = output<quant_code>(rows * groups, 1);
    const quant_params_options options{
        .format = {.bits = 4, .granularity = quant_granularity::per_group, .group_size = group}};
    s.compare({.op = "quant_params",
               .type = "f32",
               .shape = std::to_string(rows) + "x" + std::to_string(columns) + "_g" + std::to_string(group),
               .work = {.items = double(count), .bytes = 4 * double(count), .pattern = traffic::read},
               .full = full})
        .naive(inputs{x}, outputs{scale},
               [=]<class U>(const U* from, U* to) {
                   for (index i = 0; i < rows * groups; ++i) {
                       U peak = 0;
                       for (index k = 0; k < group; ++k)
                           peak = std::max(peak, std::abs(from[i * group + k]));
                       to[i] = peak / 7;
                   }
               })
        .add("deft", [=] {
            deft::quant_params(as(x, shape<2>(rows, columns)), as(scale, shape<2>(rows, groups)),
                               as(zero, shape<2>(rows, groups)), options);
        });
}

} // namespace

void benchmark_quant_params(suite& s) {
    ranges(s, 4096, 4096, 128, false);
    ranges(s, 4096, 4096, 4096, false);
    ranges(s, 256, 1024, 32, false);
}

} // namespace deft::bench

// retention_rotary: RetNet's heads, whole sequences and one token.
#include "../support/suite.hpp"

#include <deft/reference/ssm/retention_rotary.hpp>
#include <deft/ssm/retention_rotary.hpp>

#include <string>

namespace deft::bench {
namespace {

template <class T>
void forward(suite& s, const shape<4>& size, bool full) {
    const auto& e = size.extents;
    const index count = e[0] * e[1] * e[2] * e[3];
    const auto x = normal<T>(count), y = output<T>(count);
    s.compare({.op = "retention_rotary",
               .type = type_name<T>,
               .shape = std::to_string(e[0]) + "x" + std::to_string(e[1]) + "x" + std::to_string(e[2]) + "x" +
                        std::to_string(e[3]),
               .work = {.items = double(count), .bytes = 2 * sizeof(T) * double(count)},
               .full = full})
        .naive(inputs{x}, outputs{y},
               [=]<class U>(const U* from, U* to) {
                   reference::retention_rotary<U>({from, size}, {to, size}, {100, 10000, false, false, 0, 1, 0});
               })
        .add("deft", [=] { deft::retention_rotary(as(x, size), as(y, size), {.offset = 100}); });
}

} // namespace

void benchmark_retention_rotary(suite& s) {
    forward<float>(s, {1, 2, 512, 384}, false);
    forward<float>(s, {6, 2, 1, 384}, false);
    forward<float>(s, {1, 2, 2048, 384}, true);
    forward<float>(s, {1, 4, 2048, 320}, true);
}

} // namespace deft::bench

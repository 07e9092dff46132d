// linear_scan and its gradient: wide, long, and very long with few columns.
#include "../support/suite.hpp"

#include <deft/reference/ssm/linear_scan.hpp>
#include <deft/ssm/linear_scan.hpp>

#include <string>

namespace deft::bench {
namespace {

std::string name(index rows, index columns) {
    return std::to_string(rows) + "x" + std::to_string(columns);
}

void forward(suite& s, index rows, index columns, bool full) {
    const index count = rows * columns;
    const auto a = uniform<float>(count, 0.5f, 0.99f), b = normal<float>(count, 2), h0 = normal<float>(columns, 3);
    const auto h = output<float>(count);
    const shape<2> size{rows, columns};
    s.compare({.op = "linear_scan",
               .type = "f32",
               .shape = name(rows, columns),
               .work = {.items = double(count), .bytes = 3 * sizeof(float) * double(count), .pattern = traffic::triad},
               .full = full})
        .naive(inputs{a, b, h0}, outputs{h},
               [=]<class U>(const U* decay, const U* input, const U* start, U* to) {
                   for (index t = 0; t < rows; ++t)
                       for (index c = 0; c < columns; ++c)
                           to[t * columns + c] =
                               decay[t * columns + c] * (t == 0 ? start[c] : to[(t - 1) * columns + c]) +
                               input[t * columns + c];
               })
        .add("deft",
             [=] {
                 deft::linear_scan(as(a, size), as(b, size), as(h0, shape<1>(columns)), as(h, size), absent, absent);
             })
        .add("spans", [=] { // what a scan cut for two threads costs one
            deft::linear_scan(as(a, size), as(b, size), as(h0, shape<1>(columns)), as(h, size), absent, absent,
                              {.chunk = (rows + 1) / 2});
        });
}

void backward(suite& s, index rows, index columns, bool full) {
    const index count = rows * columns;
    const auto a = uniform<float>(count, 0.5f, 0.99f), b = normal<float>(count, 2), grad_h = normal<float>(count, 4);
    const auto grad_a = output<float>(count, 1), grad_b = output<float>(count, 2);
    const shape<2> size{rows, columns};
    s.compare({.op = "linear_scan_backward",
               .type = "f32",
               .shape = name(rows, columns),
               .work = {.items = double(count), .bytes = 5 * sizeof(float) * double(count), .pattern = traffic::triad},
               .full = full})
        .naive(inputs{a, b, grad_h}, outputs{grad_a, grad_b},
               [=]<class U>(const U* decay, const U* input, const U* grad, U* to_a, U* to_b) {
                   reference::linear_scan_backward<U>({decay, size}, {input, size}, absent, {grad, size}, {to_a, size},
                                                      {to_b, size}, absent, false, false);
               })
        .add("deft", [=] {
            deft::linear_scan_backward(as(a, size), as(b, size), absent, as(grad_h, size), as(grad_a, size),
                                       as(grad_b, size), absent);
        });
}

} // namespace

void benchmark_linear_scan(suite& s) {
    forward(s, 2048, 1536, false);
    forward(s, 65536, 16, false);
    forward(s, 65536, 256, true);
    forward(s, 1048576, 16, true);
    backward(s, 512, 256, false);
    backward(s, 2048, 1536, true);
}

} // namespace deft::bench

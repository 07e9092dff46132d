// retention_gate and its gradient: RetNet's heads.
#include "../support/suite.hpp"

#include <deft/reference/ssm/retention_gate.hpp>
#include <deft/ssm/retention_gate.hpp>

#include <string>

namespace deft::bench {
namespace {

struct setup {
    index tokens, heads, width;
    bool full = false;

    std::string name() const {
        return std::to_string(tokens) + "x" + std::to_string(heads) + "x" + std::to_string(width);
    }
    index count() const {
        return tokens * heads * width;
    }
    shape<4> rows() const {
        return {1, tokens, heads, width};
    }
    shape<3> flat() const {
        return {1, tokens, heads * width};
    }
    work least(double streams) const {
        const double n = double(count());
        return {.items = n, .bytes = streams * sizeof(float) * n, .pattern = traffic::triad, .exps = n};
    }
};

void forward(suite& s, const setup& c) {
    const auto o = normal<float>(c.count()), gate = normal<float>(c.count(), 2), weight = normal<float>(c.width, 3);
    const auto y = output<float>(c.count());
    s.compare({.op = "retention_gate", .type = "f32", .shape = c.name(), .work = c.least(3), .full = c.full})
        .naive(inputs{o, gate, weight}, outputs{y},
               [=]<class U>(const U* from, const U* g, const U* w, U* to) {
                   reference::retention_gate<U>({from, c.rows()}, {g, c.flat()}, {w, {c.width}}, {to, c.flat()}, false,
                                                activation::silu, 1e-6);
               })
        .add("deft", [=] {
            deft::retention_gate(as(o, c.rows()), as(gate, c.flat()), as(weight, shape<1>(c.width)), as(y, c.flat()));
        });
}

void backward(suite& s, const setup& c) {
    const auto o = normal<float>(c.count()), gate = normal<float>(c.count(), 2), weight = normal<float>(c.width, 3),
               grad_y = normal<float>(c.count(), 4);
    const auto grad_o = output<float>(c.count(), 1), grad_gate = output<float>(c.count(), 2),
               grad_weight = output<float>(c.width, 3);
    s.compare({.op = "retention_gate_backward", .type = "f32", .shape = c.name(), .work = c.least(5), .full = c.full})
        .naive(inputs{o, gate, weight, grad_y}, outputs{grad_o, grad_gate, grad_weight},
               [=]<class U>(const U* from, const U* g, const U* w, const U* grad, U* to_o, U* to_gate, U* to_weight) {
                   reference::retention_gate_backward<U>({from, c.rows()}, {g, c.flat()}, {w, {c.width}},
                                                         {grad, c.flat()}, {to_o, c.rows()}, {to_gate, c.flat()},
                                                         {to_weight, {c.width}}, false, activation::silu, 1e-6);
               })
        .add("deft", [=] {
            deft::retention_gate_backward(as(o, c.rows()), as(gate, c.flat()), as(weight, shape<1>(c.width)),
                                          as(grad_y, c.flat()), as(grad_o, c.rows()), as(grad_gate, c.flat()),
                                          as(grad_weight, shape<1>(c.width)));
        });
}

} // namespace

void benchmark_retention_gate(suite& s) {
    forward(s, {256, 2, 1536});
    forward(s, {1, 2, 1536});
    for (const setup& c : {setup{2048, 2, 1536, true}, setup{2048, 4, 1280, true}, setup{2048, 8, 128, true}})
        forward(s, c);
    backward(s, {128, 2, 1536});
    backward(s, {2048, 2, 1536, true});
}

} // namespace deft::bench

// hidden_state_fusion and its gradient: keys and values of DenseRetNet, states of DenseMamba.
#include "../support/suite.hpp"

#include <deft/reference/ssm/hidden_state_fusion.hpp>
#include <deft/ssm/hidden_state_fusion.hpp>
#include <deft/ssm/hidden_state_fusion_backward.hpp>

#include <string>

namespace deft::bench {
namespace {

struct setup {
    index rows, features, middle, width, past, group = 1;
    bool full = false;

    std::string name() const {
        return std::to_string(rows) + "x" + std::to_string(width) + "_m" + std::to_string(past) +
               (group > 1 ? "_states" : "");
    }
    index gates() const {
        return width / group;
    }
    work least() const {
        const double r = double(rows);
        return {.items = r * double(width),
                .bytes = sizeof(float) * r * double((past + 2) * width + features),
                .pattern = traffic::triad,
                .flops = 2 * r * double(middle) * double(features + gates())};
    }
    hidden_state_fusion_options options() const {
        return {.gate_group = group, .norm = group > 1 ? fusion_norm::none : fusion_norm::rms};
    }
};

struct tensors {
    setup s;
    buffer<float> current = normal<float>(s.rows * s.width), x = normal<float>(s.rows * s.features, 2),
                  past = normal<float>(s.past * s.rows * s.width, 3),
                  w1 = uniform<float>(s.middle * s.features, -0.05f, 0.05f, 4),
                  w2 = uniform<float>(s.gates() * s.middle, -0.25f, 0.25f, 5);

    hidden_state_fusion_inputs<float> views() const {
        return {.current = as(current, shape<2>(s.rows, s.width)),
                .x = as(x, shape<2>(s.rows, s.features)),
                .past = as(past, shape<3>(s.past, s.rows, s.width)),
                .w1 = as(w1, shape<2>(s.middle, s.features)),
                .w2 = as(w2, shape<2>(s.gates(), s.middle))};
    }
    template <class U>
    static reference::fusion_tensors<U> naive(const setup& s, const U* c, const U* x, const U* p, const U* w1,
                                              const U* w2) {
        return {{c, {s.rows, s.width}},
                {x, {s.rows, s.features}},
                {p, {s.past, s.rows, s.width}},
                {w1, {s.middle, s.features}},
                {w2, {s.gates(), s.middle}},
                {},
                {},
                activation::silu,
                s.group,
                s.group == 1,
                1e-6};
    }
};

void forward(suite& s, const setup& c) {
    const tensors in{c};
    const auto y = output<float>(c.rows * c.width);
    const shape<2> size{c.rows, c.width};
    s.compare({.op = "hidden_state_fusion", .type = "f32", .shape = c.name(), .work = c.least(), .full = c.full})
        .naive(inputs{in.current, in.x, in.past, in.w1, in.w2}, outputs{y},
               [=]<class U>(const U* cur, const U* x, const U* p, const U* w1, const U* w2, U* to) {
                   reference::hidden_state_fusion<U>(tensors::naive(c, cur, x, p, w1, w2), {to, size});
               })
        .add("deft", [=] { deft::hidden_state_fusion<float>(in.views(), as(y, size), c.options()); });
}

void backward(suite& s, const setup& c) {
    const tensors in{c};
    const auto grad_y = normal<float>(c.rows * c.width, 6), cur = output<float>(c.rows * c.width, 1),
               x = output<float>(c.rows * c.features, 2), past = output<float>(c.past * c.rows * c.width, 3),
               w1 = output<float>(c.middle * c.features, 4), w2 = output<float>(c.gates() * c.middle, 5);
    const shape<2> size{c.rows, c.width}, x_size{c.rows, c.features}, w1_size{c.middle, c.features},
        w2_size{c.gates(), c.middle};
    const shape<3> past_size{c.past, c.rows, c.width};
    s.compare(
         {.op = "hidden_state_fusion_backward", .type = "f32", .shape = c.name(), .work = c.least(), .full = c.full})
        .naive(inputs{in.current, in.x, in.past, in.w1, in.w2, grad_y}, outputs{cur, x, past, w1, w2},
               [=]<class U>(const U* pc, const U* px, const U* pp, const U* p1, const U* p2, const U* g, U* gc, U* gx,
                            U* gp, U* g1, U* g2) {
                   reference::hidden_state_fusion_backward<U>(
                       tensors::naive(c, pc, px, pp, p1, p2), {g, size},
                       {{gc, size}, {gx, x_size}, {gp, past_size}, {g1, w1_size}, {g2, w2_size}, {}, {}});
               })
        .add("deft", [=] {
            deft::hidden_state_fusion_backward<float>(in.views(), as(grad_y, size),
                                                      {.current = as(cur, size),
                                                       .x = as(x, x_size),
                                                       .past = as(past, past_size),
                                                       .w1 = as(w1, w1_size),
                                                       .w2 = as(w2, w2_size)},
                                                      c.options());
        });
}

} // namespace

void benchmark_hidden_state_fusion(suite& s) {
    forward(s, {64, 1536, 48, 3072, 1});
    forward(s, {1, 1536, 48, 3072, 2});
    for (const index past : {1, 2, 4})
        for (const index width : {768, 3072})
            forward(s, {2048, 1536, 48, width, past, 1, true});
    forward(s, {2048, 2560, 80, 5120, 2, 1, true});
    forward(s, {512, 1024, 32, 32768, 2, 16, true});
    backward(s, {16, 1536, 48, 3072, 1});
    backward(s, {2048, 1536, 48, 3072, 1, 1, true});
}

} // namespace deft::bench

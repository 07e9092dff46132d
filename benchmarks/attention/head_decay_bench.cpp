// head_decay runs once per layer, decay_from_position_weights once per step of training: shown to cost next to nothing.
#include "../support/suite.hpp"

#include <deft/attention/head_decay.hpp>
#include <deft/reference/attention/head_decay.hpp>

namespace deft::bench {

void benchmark_head_decay(suite& s) {
    const index heads = 32;
    const auto decay = output<float>(heads);
    s.compare({.op = "head_decay", .type = "f32", .shape = "32_linspace", .work = {.items = double(heads)}})
        .naive(inputs{}, outputs{decay},
               [=]<class U>(U* to) {
                   reference::head_decay<U>({to, {heads}}, false);
               })
        .add("deft", [=] { deft::head_decay(as(decay, shape<1>(heads)), head_decay_kind::linspace); });
}

void benchmark_decay_from_position_weights(suite& s) {
    const shape<2> size{16, 2048};
    const index count = 16 * 2048;
    const auto d1 = uniform<float>(count, 0.5f, 2.0f), d2 = uniform<float>(count, 0.5f, 2.0f, 2);
    const auto q_scale = output<float>(count), decay = output<float>(count, 1);
    s.compare({.op = "decay_from_position_weights",
               .type = "f32",
               .shape = "16x2048",
               .work = {.items = double(count), .bytes = 16.0 * double(count)}})
        .naive(inputs{d1, d2}, outputs{q_scale, decay},
               [=]<class U>(const U* first, const U* second, U* to_scale, U* to_decay) {
                   reference::decay_from_position_weights<U>({first, size}, {second, size}, {to_scale, size},
                                                             {to_decay, size});
               })
        .add("deft", [=] {
            deft::decay_from_position_weights(as(d1, size), as(d2, size), absent, as(q_scale, size), as(decay, size));
        });
}

} // namespace deft::bench

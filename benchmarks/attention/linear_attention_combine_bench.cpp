// linear_attention_combine: three streams, one written.
#include "../support/suite.hpp"

#include <deft/attention/linear_attention_combine.hpp>
#include <deft/reference/attention/linear_attention_combine.hpp>

namespace deft::bench {

void benchmark_linear_attention_combine(suite& s) {
    constexpr index n = 16, m = 64, e = 64, states = n * m * e, norms = n * m;
    const auto s1 = normal<float>(states, 1), s2 = normal<float>(states, 2);
    const auto z1 = normal<float>(norms, 3), z2 = normal<float>(norms, 4);
    const auto a = uniform<float>(n, 0.5f, 1.0f, 5);
    const auto to = output<float>(states), norm = output<float>(norms, 1), decay = output<float>(n, 2);
    s.compare({.op = "linear_attention_combine",
               .type = "f32",
               .shape = "H16_D64",
               .work = {.items = double(states), .bytes = 12 * double(states), .pattern = traffic::triad}})
        .naive(inputs{s1, z1, s2, z2, a}, outputs{to, norm},
               [=]<class U>(const U* f1, const U* g1, const U* f2, const U* g2, const U* scale, U* out, U* out_norm) {
                   for (index i = 0; i < n; ++i)
                       reference::combine_states<U>(i, scale[i], {f1, {n, m, e}}, {g1, {n, m}}, U(1), {f2, {n, m, e}},
                                                    {g2, {n, m}}, {out, {n, m, e}}, {out_norm, {n, m}});
               })
        .add("deft", [=] {
            linear_attention_combine<float>({{a.data(), {n}}, {s1.data(), {n, m, e}}, {z1.data(), {n, m}}},
                                            {{a.data(), {n}}, {s2.data(), {n, m, e}}, {z2.data(), {n, m}}},
                                            {{decay.data(), {n}}, {to.data(), {n, m, e}}, {norm.data(), {n, m}}});
        });
}

} // namespace deft::bench

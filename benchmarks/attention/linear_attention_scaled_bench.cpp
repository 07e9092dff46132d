// linear_attention_scaled: the recurrence, with one exponential per token.
#include "../support/suite.hpp"

#include <deft/attention/linear_attention_scaled.hpp>
#include <deft/reference/attention/linear_attention_scaled.hpp>

#include <limits>
#include <vector>

namespace deft::bench {

void benchmark_linear_attention_scaled(suite& s) {
    constexpr index heads = 4, n = 256, d = 64;
    const shape<4> all{1, heads, n, d}, state{1, heads, d, d};
    const shape<3> rows{1, heads, d}, tokens{1, heads, n};
    const auto q = uniform<float>(heads * n * d, 0.01f, 1.0f, 1), k = uniform<float>(heads * n * d, 0.01f, 1.0f, 2);
    const auto v = normal<float>(heads * n * d, 3), key_scale = normal<float>(heads * n, 4);
    const auto o = output<float>(heads * n * d);
    const auto sums = output<float>(heads * d * d, 1), norm = output<float>(heads * d, 2),
               scale = output<float>(heads, 3);
    s.compare({.op = "linear_attention_scaled",
               .type = "f32",
               .shape = "H4_D64_E64_L256",
               .work = {.items = double(heads * n), .flops = 4.0 * heads * n * d * d},
               .tolerance = 1e-4})
        .naive(inputs{q, k, v, key_scale}, outputs{o},
               [=]<class U>(const U* fq, const U* fk, const U* fv, const U* fs, U* to) {
                   std::vector<U> s0(std::size_t(heads * d * d)), z0(std::size_t(heads * d)),
                       c0(std::size_t(heads), -std::numeric_limits<U>::infinity());
                   reference::linear_attention_scaled<U>({{fq, all}, {fk, all}, {fv, all}, absent}, {fs, tokens},
                                                         {to, all}, {s0.data(), state}, {z0.data(), rows},
                                                         {c0.data(), {1, heads}}, true);
               })
        .add("deft", [=] {
            sums.fill(0);
            norm.fill(0);
            scale.fill(-std::numeric_limits<float>::infinity());
            deft::linear_attention_scaled<float>(
                {q.data(), all}, {k.data(), all}, {v.data(), all}, {key_scale.data(), tokens}, absent,
                view<float, 4>(o.data(), all), {{sums.data(), state}, {norm.data(), rows}, {scale.data(), {1, heads}}});
        });
}

} // namespace deft::bench

// linear_attention_log: three exponentials per feature and token beside the recurrence.
#include "../support/suite.hpp"

#include <deft/attention/linear_attention_log.hpp>
#include <deft/reference/attention/linear_attention_log.hpp>

#include <limits>
#include <vector>

namespace deft::bench {

void benchmark_linear_attention_log(suite& s) {
    constexpr index heads = 4, n = 256, d = 64;
    const shape<4> all{1, heads, n, d}, state{1, heads, d, d};
    const shape<3> rows{1, heads, d};
    const auto q = normal<float>(heads * n * d, 1), k = normal<float>(heads * n * d, 2),
               v = normal<float>(heads * n * d, 3);
    const auto o = output<float>(heads * n * d);
    const auto sums = output<float>(heads * d * d, 1), norm = output<float>(heads * d, 2),
               scale = output<float>(heads * d, 3);
    s.compare({.op = "linear_attention_log",
               .type = "f32",
               .shape = "H4_D64_E64_L256",
               .work = {.items = double(heads * n), .flops = 4.0 * heads * n * d * d, .exps = 3.0 * heads * n * d},
               .tolerance = 1e-4})
        .naive(inputs{q, k, v}, outputs{o},
               [=]<class U>(const U* fq, const U* fk, const U* fv, U* to) {
                   std::vector<U> s0(std::size_t(heads * d * d)), z0(std::size_t(heads * d)),
                       c0(std::size_t(heads * d), -std::numeric_limits<U>::infinity());
                   reference::linear_attention_log<U>({{fq, all}, {fk, all}, {fv, all}, absent}, {to, all},
                                                      {s0.data(), state}, {z0.data(), rows}, {c0.data(), rows}, true);
               })
        .add("deft", [=] {
            sums.fill(0);
            norm.fill(0);
            scale.fill(-std::numeric_limits<float>::infinity());
            deft::linear_attention_log<float>({q.data(), all}, {k.data(), all}, {v.data(), all}, absent,
                                              view<float, 4>(o.data(), all),
                                              {{sums.data(), state}, {norm.data(), rows}, {scale.data(), rows}});
        });
}

} // namespace deft::bench

// dct_linear_attention: features and attention together.
#include "../support/suite.hpp"

#include <deft/attention/dct_linear_attention.hpp>
#include <deft/attention/linear_attention_state.hpp>
#include <deft/reference/attention/dct_linear_attention.hpp>

#include <string>
#include <vector>

namespace deft::bench {
namespace {

template <class T>
void forward(suite& s, index heads, index n, index d, bool full) {
    const shape<4> size{1, heads, n, d}, states{1, heads, d, d};
    const index count = heads * n * d;
    const auto q = normal<T>(count), k = normal<T>(count, 2), v = normal<T>(count, 3), t = normal<T>(d, 4);
    const auto o = output<T>(count), state = output<T>(heads * d * d, 1);
    const lazy plan([=] { return dct_linear_attention_plan<T>(d, d); });
    s.compare({.op = "dct_linear_attention",
               .type = type_name<T>,
               .shape = std::to_string(heads) + 'x' + std::to_string(n) + 'x' + std::to_string(d),
               .work = {.items = double(heads * n), .flops = 4 * double(count) * double(d), .exps = 2 * double(count)},
               .full = full})
        .naive(inputs{q, k, v, t}, outputs{o, state},
               [=]<class U>(const U* queries, const U* keys, const U* values, const U* radii, U* to, U* to_state) {
                   std::fill_n(to_state, heads * d * d, U(0));
                   reference::dct_linear_attention<U>(
                       {{queries, size}, {keys, size}, {values, size}, {radii, {d}}, absent, absent}, {to, size},
                       {to_state, states}, absent, absent, {}, {});
               })
        .add("deft", [=] {
            std::fill_n(state.data(), heads * d * d, T(0));
            deft::dct_linear_attention(as(q, size), as(k, size), as(v, size), as(t, shape<1>(d)), absent, absent,
                                       as(o, size), {as(state, states), {}, {}}, *plan);
        });
}

} // namespace

void benchmark_dct_linear_attention(suite& s) {
    forward<float>(s, 4, 256, 64, false);
    forward<float>(s, 16, 1, 64, false);
    forward<float>(s, 16, 2048, 64, true);
    forward<float>(s, 16, 2048, 128, true);
}

} // namespace deft::bench

// dijiang_layer: prefill and a step of decoding at the sizes of Pythia 70M and 410M.
#include "../support/suite.hpp"

#include <deft/attention/dijiang_layer.hpp>
#include <deft/reference/attention/dijiang_layer.hpp>

#include <cmath>
#include <string>
#include <vector>

namespace deft::bench {
namespace {

template <class T>
void forward(suite& s, index batch, index n, index e, index heads, bool full) {
    const index d = e / heads, state_size = batch * heads * d * d;
    const shape<3> size{batch, n, e};
    const shape<4> states{batch, heads, d, d};
    const T scale = T(1 / std::sqrt(double(e)));
    const auto weight = [&](index count, unsigned seed) { return uniform<T>(count, -scale, scale, seed); };
    const auto x = normal<T>(batch * n * e), w_qkv = weight(3 * e * e, 2), w_gate = weight(e * e, 3),
               w_out = weight(e * e, 4), bias = uniform<T>(3 * e, T(-0.1), T(0.1), 5), t = normal<T>(d, 6),
               norm = uniform<T>(e, T(0.5), T(1.5), 7), decay = uniform<T>(heads, T(0.97), T(0.998), 8);
    const auto y = output<T>(batch * n * e), state = output<T>(state_size, 1);
    const lazy plan([=] { return dijiang_plan<T>(e, {.heads = heads, .rotary = d / 4, .groups = heads}); });
    s.compare({.op = "dijiang_layer",
               .type = type_name<T>,
               .shape = std::to_string(batch) + 'x' + std::to_string(n) + 'x' + std::to_string(e) + "_H" +
                        std::to_string(heads),
               .work = {.items = double(batch * n), .flops = double(batch * n) * double(e) * double(10 * e + 4 * d)},
               .full = full})
        .naive(inputs{x, w_qkv, w_gate, w_out, bias, t, norm, decay}, outputs{y, state},
               [=]<class U>(const U* from, const U* qkv, const U* gate, const U* out, const U* b, const U* radii,
                            const U* gn, const U* a, U* to, U* to_state) {
                   std::vector<U> per_token;
                   for (index i = 0; i < batch * heads * n; ++i)
                       per_token.push_back(a[i / n % heads]);
                   std::fill_n(to_state, state_size, U(0));
                   reference::dijiang_layer<U>({from, size},
                                               {{qkv, {3 * e, e}},
                                                {b, {3 * e}},
                                                {radii, {d}},
                                                {gate, {e, e}},
                                                {gn, {e}},
                                                {b, {e}},
                                                {out, {e, e}},
                                                {b, {e}},
                                                {per_token.data(), {batch, heads, n}},
                                                absent},
                                               {to, size}, {to_state, states}, {heads, d / 4, heads, 0, 10000, 1e-5});
               })
        .add("deft", [=] {
            std::fill_n(state.data(), state_size, T(0));
            deft::dijiang_layer(as(x, size),
                                dijiang_weights<const T>{.w_qkv = as(w_qkv, shape<2>(3 * e, e)),
                                                         .b_qkv = as(bias, shape<1>(3 * e)),
                                                         .t = as(t, shape<1>(d)),
                                                         .w_gate = as(w_gate, shape<2>(e, e)),
                                                         .gn_weight = as(norm, shape<1>(e)),
                                                         .gn_bias = as(bias, shape<1>(e)),
                                                         .w_out = as(w_out, shape<2>(e, e)),
                                                         .b_out = as(bias, shape<1>(e)),
                                                         .decay = view<const T, 1>(decay.data(), {heads}),
                                                         .q_scale = absent},
                                as(y, size), as(state, states), 0, *plan);
        });
}

} // namespace

void benchmark_dijiang_layer(suite& s) {
    forward<float>(s, 1, 16, 512, 8, false);
    forward<float>(s, 1, 1, 512, 8, false);
    forward<float>(s, 8, 1, 512, 8, true);
    forward<float>(s, 1, 256, 512, 8, true);
    forward<float>(s, 1, 256, 1024, 16, true);
}

} // namespace deft::bench

// softmax_attention: prefill, a step of decoding, and the gradient.
#include "../support/suite.hpp"

#include <deft/attention/softmax_attention.hpp>
#include <deft/reference/attention/softmax_attention.hpp>

#include <cmath>
#include <string>

namespace deft::bench {
namespace {

struct setup {
    index heads, d, queries, tokens;
    bool full = false;

    std::string name() const {
        std::string name = "H";
        name.append(std::to_string(heads)).append("_D").append(std::to_string(d));
        return name.append("_Q").append(std::to_string(queries)).append("_L").append(std::to_string(tokens));
    }
    shape<4> q() const {
        return {1, heads, queries, d};
    }
    shape<4> k() const {
        return {1, heads, tokens, d};
    }
    /// Pairs that see each other, under a causal mask aligned to the end.
    double pairs() const {
        return double(heads) * double(queries) * (double(tokens) - 0.5 * double(queries - 1));
    }
    template <class U>
    reference::softmax_attention_inputs<U> inputs(const U* fq, const U* fk, const U* fv) const {
        return {{fq, q()}, {fk, k()}, {fv, k()}, absent, U(1 / std::sqrt(double(d))), true};
    }
};

void forward(suite& s, const setup& c) {
    const index of_q = c.heads * c.queries * c.d, of_k = c.heads * c.tokens * c.d;
    const auto q = normal<float>(of_q, 1), k = normal<float>(of_k, 2), v = normal<float>(of_k, 3);
    const auto o = output<float>(of_q), lse = output<float>(c.heads * c.queries, 1);
    const shape<3> rows{1, c.heads, c.queries};
    s.compare({.op = "softmax_attention",
               .type = "f32",
               .shape = c.name(),
               .work = {.items = double(of_q),
                        .bytes = sizeof(float) * double(2 * of_q + 2 * of_k),
                        .pattern = traffic::read, // what bounds a single query
                        .flops = 4 * c.pairs() * double(c.d),
                        .exps = c.pairs()},
               .full = c.full})
        .naive(inputs{q, k, v}, outputs{o, lse},
               [=]<class U>(const U* fq, const U* fk, const U* fv, U* to, U* sums) {
                   reference::softmax_attention<U>(c.inputs(fq, fk, fv), {to, c.q()}, {sums, rows});
               })
        .add("deft", [=] {
            deft::softmax_attention<float>({q.data(), c.q()}, {k.data(), c.k()}, {v.data(), c.k()}, absent,
                                           view<float, 4>(o.data(), c.q()), {lse.data(), rows});
        });
}

void backward(suite& s, const setup& c) {
    const index of_q = c.heads * c.queries * c.d, of_k = c.heads * c.tokens * c.d;
    const auto q = normal<float>(of_q, 1), k = normal<float>(of_k, 2), v = normal<float>(of_k, 3);
    const auto grad_o = normal<float>(of_q, 4);
    const auto gq = output<float>(of_q), gk = output<float>(of_k, 1), gv = output<float>(of_k, 2);
    s.compare({.op = "softmax_attention_backward",
               .type = "f32",
               .shape = c.name(),
               .work = {.items = double(of_q), .flops = 10 * c.pairs() * double(c.d), .exps = c.pairs()},
               .tolerance = 1e-4,
               .full = c.full})
        .naive(inputs{q, k, v, grad_o}, outputs{gq, gk, gv},
               [=]<class U>(const U* fq, const U* fk, const U* fv, const U* go, U* to_q, U* to_k, U* to_v) {
                   reference::softmax_attention_backward<U>(c.inputs(fq, fk, fv), {go, c.q()}, {to_q, c.q()},
                                                            {to_k, c.k()}, {to_v, c.k()});
               })
        .add("deft", [=] {
            deft::softmax_attention_backward<float>({q.data(), c.q()}, {k.data(), c.k()}, {v.data(), c.k()}, absent,
                                                    {grad_o.data(), c.q()}, view<float, 4>(gq.data(), c.q()),
                                                    {gk.data(), c.k()}, {gv.data(), c.k()});
        });
}

} // namespace

void benchmark_softmax_attention(suite& s) {
    forward(s, {1, 64, 512, 512});
    for (const index tokens : {512, 2048})
        forward(s, {16, 64, tokens, tokens, true});
    forward(s, {16, 64, 1, 2048, true});
    forward(s, {16, 64, 1, 16384, true});
    backward(s, {1, 64, 256, 256});
    backward(s, {16, 64, 512, 512, true});
}

} // namespace deft::bench

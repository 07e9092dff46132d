// linear_attention: prefill, a step of decoding, and the gradient, against the plain recurrence and Eigen in chunks.
#include "../support/suite.hpp"
#include "../support/two_threads.hpp"

#include <deft/attention/linear_attention.hpp>
#include <deft/attention/linear_attention_backward.hpp>
#include <deft/reference/attention/linear_attention.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace deft::bench {
namespace {

std::string shape_name(std::initializer_list<std::pair<const char*, index>> parts) {
    std::string name;
    for (const auto& [letter, extent] : parts)
        name.append(letter).append(std::to_string(extent));
    return name;
}

struct setup {
    index heads, features, width, tokens;
    attention_normalize normalize = attention_normalize::sum;
    bool decays = false;
    bool full = false;

    std::string name() const {
        return shape_name({{"H", heads}, {"_D", features}, {"_E", width}, {"_L", tokens}}) +
               (divided() ? "" : "_none") + (decays ? "_decay" : "");
    }
    bool divided() const {
        return normalize == attention_normalize::sum;
    }
    shape<4> keys() const {
        return {1, heads, tokens, features};
    }
    shape<4> values() const {
        return {1, heads, tokens, width};
    }
    shape<4> state() const {
        return {1, heads, features, width};
    }
    shape<3> norm() const {
        return {1, heads, features};
    }
    index count(index columns) const {
        return heads * tokens * columns;
    }
    /// Adding a token and reading the state: two multiply-adds per element.
    work least(double passes) const {
        return {.items = double(heads * tokens),
                .flops = passes * 4 * double(heads) * double(tokens) * double(features) * double(width)};
    }
    reference::linear_attention_form form() const {
        return {true, divided(), 0};
    }
};

using chunk_matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using rows_of = Eigen::Map<chunk_matrix>;
using const_rows = Eigen::Map<const chunk_matrix>;

/// What a careful user of Eigen writes: chunks of 64 tokens, four products each.
void eigen_chunks(const setup& c, const float* q, const float* k, const float* v, float* o, float* state, float* norm) {
    constexpr index chunk = 64;
    chunk_matrix scores(chunk, chunk);
    Eigen::VectorXf denominator(chunk);
    for (index h = 0; h < c.heads; ++h) {
        rows_of s(state + h * c.features * c.width, c.features, c.width);
        Eigen::Map<Eigen::VectorXf> z(norm + h * c.features, c.features);
        s.setZero();
        z.setZero();
        for (index i = 0; i < c.tokens; i += chunk) {
            const index n = std::min(chunk, c.tokens - i), at = h * c.tokens + i;
            const const_rows qc(q + at * c.features, n, c.features), kc(k + at * c.features, n, c.features),
                vc(v + at * c.width, n, c.width);
            rows_of oc(o + at * c.width, n, c.width);
            scores.noalias() = qc * kc.transpose();
            scores.triangularView<Eigen::StrictlyUpper>().setZero();
            oc.noalias() = scores * vc;
            oc.noalias() += qc * s;
            if (c.divided()) {
                denominator = scores.rowwise().sum();
                denominator.noalias() += qc * z;
                oc.array().colwise() /= denominator.array();
                z += kc.colwise().sum().transpose();
            }
            s.noalias() += kc.transpose() * vc;
        }
    }
}

/// The recurrence as plain loops that the compiler can vectorise.
void plain_recurrence(const setup& c, const float* q, const float* k, const float* v, float* o, float* state,
                      float* norm) {
    std::fill_n(state, c.heads * c.features * c.width, 0.0f);
    std::fill_n(norm, c.heads * c.features, 0.0f);
    for (index h = 0; h < c.heads; ++h)
        for (index i = 0; i < c.tokens; ++i) {
            const index at = h * c.tokens + i;
            const float *const key = k + at * c.features, *const query = q + at * c.features;
            const float* const value = v + at * c.width;
            float* const to = o + at * c.width;
            float denominator = 0;
            std::fill_n(to, c.width, 0.0f);
            for (index f = 0; f < c.features; ++f) {
                float* const s = state + (h * c.features + f) * c.width;
                const float kf = key[f], qf = query[f];
                for (index e = 0; e < c.width; ++e) {
                    s[e] += kf * value[e];
                    to[e] += qf * s[e];
                }
                norm[h * c.features + f] += kf;
                denominator += qf * norm[h * c.features + f];
            }
            for (index e = 0; e < c.width && c.divided(); ++e)
                to[e] /= denominator;
        }
}

template <class U>
reference::linear_attention_inputs<U> reference_inputs(const setup& c, const U* q, const U* k, const U* v, const U* a) {
    const view<const U, 3> decay(a, {1, c.heads, c.tokens});
    return {{q, c.keys()}, {k, c.keys()}, {v, c.values()}, c.decays ? decay : view<const U, 3>(absent)};
}

void forward(suite& s, const setup& c) {
    const auto q = uniform<float>(c.count(c.features), 0.01f, 1.0f, 1),
               k = uniform<float>(c.count(c.features), 0.01f, 1.0f, 2);
    const auto v = normal<float>(c.count(c.width), 3);
    const auto a = uniform<float>(c.count(1), 0.97f, 1.0f, 4);
    const auto o = output<float>(c.count(c.width));
    const auto state = output<float>(c.heads * c.features * c.width, 1);
    const auto norm = output<float>(c.heads * c.features, 2);
    comparison& rivals = s.compare({.op = "linear_attention",
                                    .type = "f32",
                                    .shape = c.name(),
                                    .work = c.least(1),
                                    .tolerance = 1e-4,
                                    .full = c.full});
    rivals.truth(
        inputs{q, k, v, a}, outputs{o},
        [=]<class U>(const U* from_q, const U* from_k, const U* from_v, const U* from_a, U* to) {
            std::vector<U> sums(std::size_t(c.heads * c.features * c.width)), norms(std::size_t(c.heads * c.features));
            reference::linear_attention<U>(reference_inputs(c, from_q, from_k, from_v, from_a), {to, c.values()},
                                           {sums.data(), c.state()}, {norms.data(), c.norm()}, c.form());
        });
    if (!c.decays) {
        rivals.add("naive",
                   [=] { plain_recurrence(c, q.data(), k.data(), v.data(), o.data(), state.data(), norm.data()); });
        rivals.add("eigen",
                   [=] { eigen_chunks(c, q.data(), k.data(), v.data(), o.data(), state.data(), norm.data()); });
    }
    const auto run = [=](auto&& executor) {
        state.fill(0);
        norm.fill(0);
        const linear_attention_state_view<float> with({state.data(), c.state()}, {norm.data(), c.norm()});
        const attention_decay<const float> decay(a.data(), {1, c.heads, c.tokens});
        deft::linear_attention<float>({q.data(), c.keys()}, {k.data(), c.keys()}, {v.data(), c.values()},
                                      c.decays ? decay : attention_decay<const float>(absent),
                                      view<float, 4>(o.data(), c.values()), with, {.normalize = c.normalize}, executor);
    };
    rivals.add("deft", [=] { run(serial_executor()); });
    if (c.tokens == 16384) {
        const auto threads = std::make_shared<two_threads>();
        rivals.add("deft_2threads", [=] { run(*threads); });
    }
}

/// One token: the state is read and written once. The sum of many steps is not compared: a row restarts from any state.
void decode(suite& s, index heads, index d, bool full) {
    const setup c{heads, d, d, 1, attention_normalize::none};
    const auto q = uniform<float>(c.count(d), 0.01f, 1.0f, 1), k = uniform<float>(c.count(d), 0.01f, 1.0f, 2);
    const auto v = normal<float>(c.count(d), 3), start = normal<float>(heads * d * d, 4);
    const auto a = uniform<float>(heads, 0.97f, 0.999f, 5);
    const auto state = output<float>(heads * d * d), o = output<float>(c.count(d));
    const action restore = [=] { state.assign(start); };
    const double bytes = 8 * double(heads * d * d);
    s.compare({.op = "linear_attention_decode",
               .type = "f32",
               .shape = shape_name({{"H", heads}, {"_D", d}}),
               .work = {.items = double(heads), .bytes = bytes, .pattern = traffic::in_place},
               .full = full})
        .truth(inputs{q, k, v, start, a}, outputs{o},
               [=]<class U>(const U* fq, const U* fk, const U* fv, const U* from, const U* decay, U* to) {
                   for (index h = 0; h < heads; ++h)
                       for (index e = 0; e < d; ++e) {
                           U sum = 0;
                           for (index f = 0; f < d; ++f)
                               sum += fq[h * d + f] *
                                      (decay[h] * from[(h * d + f) * d + e] + fk[h * d + f] * fv[h * d + e]);
                           to[h * d + e] = sum;
                       }
               })
        .add("naive",
             [=] {
                 for (index h = 0; h < heads; ++h) {
                     float* const to = o.data() + h * d;
                     const float* const value = v.data() + h * d;
                     std::fill_n(to, d, 0.0f);
                     for (index f = 0; f < d; ++f) {
                         float* const row = state.data() + (h * d + f) * d;
                         const float kf = k.data()[h * d + f], qf = q.data()[h * d + f], decay = a.data()[h];
                         for (index e = 0; e < d; ++e) {
                             row[e] = decay * row[e] + kf * value[e];
                             to[e] += qf * row[e];
                         }
                     }
                 }
             },
             {.before = restore})
        .add("deft",
             [=] {
                 const linear_attention_state_view<float> with({state.data(), c.state()});
                 deft::linear_attention<float>({q.data(), c.keys()}, {k.data(), c.keys()}, {v.data(), c.values()},
                                               {a.data(), {heads}}, view<float, 4>(o.data(), c.values()), with);
             },
             {.before = restore});
}

void backward(suite& s, const setup& c) {
    const auto q = uniform<float>(c.count(c.features), 0.01f, 1.0f, 1),
               k = uniform<float>(c.count(c.features), 0.01f, 1.0f, 2);
    const auto v = normal<float>(c.count(c.width), 3), grad_o = normal<float>(c.count(c.width), 5);
    const auto a = uniform<float>(c.count(1), 0.97f, 1.0f, 4);
    const auto o = output<float>(c.count(c.width), 4), denominator = output<float>(c.count(1), 5);
    const auto grad_q = output<float>(c.count(c.features)), grad_k = output<float>(c.count(c.features), 1);
    const auto grad_v = output<float>(c.count(c.width), 2);
    const action first = [=] {
        linear_attention_state<float> state({.heads = c.heads, .features = c.features, .width = c.width});
        deft::linear_attention<float>({q.data(), c.keys()}, {k.data(), c.keys()}, {v.data(), c.values()}, absent,
                                      view<float, 4>(o.data(), c.values()), state, {.normalize = c.normalize});
    };
    s.compare({.op = "linear_attention_backward",
               .type = "f32",
               .shape = c.name(),
               .work = c.least(3),
               .tolerance = 1e-4,
               .full = c.full})
        .naive(inputs{q, k, v, a, grad_o}, outputs{grad_q, grad_k, grad_v},
               [=]<class U>(const U* fq, const U* fk, const U* fv, const U* fa, const U* go, U* gq, U* gk, U* gv) {
                   reference::linear_attention_backward<U>(reference_inputs(c, fq, fk, fv, fa), absent, absent,
                                                           {go, c.values()}, {gq, c.keys()}, {gk, c.keys()},
                                                           {gv, c.values()}, absent, absent, absent, c.form());
               })
        .add("deft",
             [=] {
                 deft::linear_attention_backward<float>(
                     {q.data(), c.keys()}, {k.data(), c.keys()}, {v.data(), c.values()}, absent, absent,
                     {o.data(), c.values()}, {grad_o.data(), c.values()}, view<float, 4>(grad_q.data(), c.keys()),
                     {grad_k.data(), c.keys()}, {grad_v.data(), c.values()}, absent, absent,
                     {denominator.data(), {1, c.heads, c.tokens}}, {.normalize = c.normalize});
             },
             {.before = first});
}

} // namespace

void benchmark_linear_attention(suite& s) {
    using enum attention_normalize;
    forward(s, {16, 64, 64, 512});
    forward(s, {16, 64, 64, 512, none, true});
    forward(s, {16, 64, 64, 2048, sum, false, true});
    forward(s, {16, 64, 64, 2048, none, true, true});
    for (const index tokens : {512, 2048})
        forward(s, {16, 128, 128, tokens, sum, false, true});
    forward(s, {32, 80, 80, 2048, sum, false, true});
    forward(s, {8, 256, 256, 2048, sum, false, true});
    decode(s, 16, 64, false);
    decode(s, 32, 128, false);
    decode(s, 32, 80, true);
    backward(s, {4, 64, 64, 256});
    backward(s, {16, 64, 64, 512, sum, false, true});
    backward(s, {16, 128, 128, 512, none, false, true});
}

/// The time per token must not depend on the number of tokens.
void benchmark_linear_attention_long(suite& s) {
    for (const index tokens : {16384, 65536})
        forward(s, {16, 64, 64, tokens, attention_normalize::sum, false, true});
}

} // namespace deft::bench

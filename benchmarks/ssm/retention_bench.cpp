// retention: prefill of RetNet's and DenseRetNet's heads, a step of decoding, and the gradient, against the plain
// recurrence and Eigen in chunks.
#include "../peers/recurrences.hpp"
#include "../support/suite.hpp"
#include "../support/two_threads.hpp"

#include <deft/reference/ssm/retention.hpp>
#include <deft/ssm/retention.hpp>
#include <deft/ssm/retention_backward.hpp>

#include <memory>
#include <string>
#include <vector>

namespace deft::bench {
namespace {

struct setup {
    index batch, heads, tokens, dk, dv;
    bool full;

    std::string name() const {
        std::string text;
        const auto add = [&](const char* letter, index extent) { text.append(letter).append(std::to_string(extent)); };
        add(batch > 1 ? "B" : "H", batch > 1 ? batch : heads);
        if (batch > 1)
            add("_H", heads);
        add("_D", dk);
        add("_E", dv);
        add("_T", tokens);
        return text;
    }
    shape<4> keys() const {
        return {batch, heads, tokens, dk};
    }
    shape<4> values() const {
        return {batch, heads, tokens, dv};
    }
    shape<4> state() const {
        return {batch, heads, dk, dv};
    }
    index count(index columns) const {
        return batch * heads * tokens * columns;
    }
    index kept() const {
        return batch * heads * dk * dv;
    }
    std::vector<double> gamma() const {
        std::vector<double> g(static_cast<std::size_t>(heads));
        fill_retention_decay(g, retention_decay::retnet);
        return g;
    }
    /// Adding a token and reading the state: two multiply-adds per element.
    work least(double passes) const {
        return {.items = double(batch * heads * tokens),
                .flops = passes * 4 * double(batch * heads * tokens) * double(dk) * double(dv)};
    }
};

template <class U>
void naive(const setup& c, const std::vector<double>& gamma, const U* q, const U* k, const U* v, const U* start, U* o) {
    std::vector<U> state(std::size_t(c.kept()));
    std::vector<double> scale(std::size_t(c.heads), start == nullptr ? 0.0 : 5.0);
    if (start != nullptr)
        state.assign(start, start + c.kept());
    reference::retention<U>({{q, c.keys()}, {k, c.keys()}, {v, c.values()}, gamma}, {o, c.values()},
                            {state.data(), c.state()}, scale, absent, {});
}

void forward(suite& s, const setup& c) {
    const auto q = normal<float>(c.count(c.dk), 1), k = normal<float>(c.count(c.dk), 2),
               v = normal<float>(c.count(c.dv), 3);
    const auto o = output<float>(c.count(c.dv)), state = output<float>(c.kept(), 1);
    const std::vector<double> gamma = c.gamma();
    comparison& rivals = s.compare(
        {.op = "retention", .type = "f32", .shape = c.name(), .work = c.least(1), .tolerance = 1e-4, .full = c.full});
    rivals.naive(inputs{q, k, v}, outputs{o}, [=]<class U>(const U* fq, const U* fk, const U* fv, U* to) {
        naive<U>(c, gamma, fq, fk, fv, nullptr, to);
    });
    const auto peer = [=] {
        return retention_peer{q.data(),     k.data(), v.data(), gamma.data(), o.data(),
                              state.data(), c.heads,  c.tokens, c.dk,         c.dv};
    };
    rivals.add("autovec", [=] { autovec::run(peer()); });
    for (const index chunk : {32, 64, 128, 256})
        rivals.add("eigen" + std::to_string(chunk), [=] { eigen::run(peer(), chunk); });
    const auto run = [=](auto&& executor) {
        state.fill(0);
        std::vector<double> scale(std::size_t(c.heads), 0.0);
        deft::retention<float>(as(q, c.keys()), as(k, c.keys()), as(v, c.values()), gamma, as(o, c.values()),
                               retention_state_view<float>(as(state, c.state()), scale), {}, executor);
    };
    rivals.add("deft", [=] { run(serial_executor()); });
    if (c.full) {
        const auto threads = std::make_shared<two_threads>();
        rivals.add("deft_2threads", [=] { run(*threads); });
    }
}

/// One token per sequence: states are read and written once.
void decode(suite& s, index batch, const setup& head) {
    const setup c{batch, head.heads, 1, head.dk, head.dv, head.full};
    const auto q = normal<float>(c.count(c.dk), 1), k = normal<float>(c.count(c.dk), 2),
               v = normal<float>(c.count(c.dv), 3), start = normal<float>(c.kept(), 4);
    const auto state = output<float>(c.kept(), 1), o = output<float>(c.count(c.dv));
    const std::vector<double> gamma = c.gamma();
    const action restore = [=] { state.assign(start); };
    s.compare({.op = "retention_decode",
               .type = "f32",
               .shape = c.name(),
               .work = {.items = double(batch * c.heads), .bytes = 8 * double(c.kept()), .pattern = traffic::in_place},
               .full = c.full})
        .naive(inputs{q, k, v, start}, outputs{o},
               [=]<class U>(const U* fq, const U* fk, const U* fv, const U* from, U* to) {
                   naive<U>(c, gamma, fq, fk, fv, from, to);
               })
        .add("deft",
             [=] {
                 std::vector<double> scale(std::size_t(c.heads), 5.0);
                 deft::retention<float>(as(q, c.keys()), as(k, c.keys()), as(v, c.values()), gamma, as(o, c.values()),
                                        retention_state_view<float>(as(state, c.state()), scale));
             },
             {.before = restore});
}

/// The quadratic form that divides rows by the sums of their magnitudes.
void parallel(suite& s, const setup& c) {
    const auto q = normal<float>(c.count(c.dk), 1), k = normal<float>(c.count(c.dk), 2),
               v = normal<float>(c.count(c.dv), 3);
    const auto o = output<float>(c.count(c.dv)), state = output<float>(c.kept(), 1);
    const std::vector<double> gamma = c.gamma();
    const double pairs = double(c.heads) * double(c.tokens) * double(c.tokens + 1) / 2;
    s.compare({.op = "retention_abs_sum",
               .type = "f32",
               .shape = c.name(),
               .work = {.items = double(c.heads * c.tokens), .flops = 2 * pairs * double(c.dk + c.dv)},
               .tolerance = 1e-4,
               .full = c.full})
        .naive(inputs{q, k, v}, outputs{o},
               [=]<class U>(const U* fq, const U* fk, const U* fv, U* to) {
                   reference::retention_parallel<U>({{fq, c.keys()}, {fk, c.keys()}, {fv, c.values()}, gamma},
                                                    {to, c.values()}, {true, reference::retention_rows::abs_sum, 5e4});
               })
        .add("deft", [=] {
            std::vector<double> scale(std::size_t(c.heads), 0.0);
            deft::retention<float>(as(q, c.keys()), as(k, c.keys()), as(v, c.values()), gamma, as(o, c.values()),
                                   retention_state_view<float>(as(state, c.state()), scale),
                                   {.row_norm = retention_row_norm::abs_sum, .clamp_max = 5e4});
        });
}

void backward(suite& s, const setup& c) {
    const auto q = normal<float>(c.count(c.dk), 1), k = normal<float>(c.count(c.dk), 2),
               v = normal<float>(c.count(c.dv), 3), grad_o = normal<float>(c.count(c.dv), 4);
    const auto gq = output<float>(c.count(c.dk), 1), gk = output<float>(c.count(c.dk), 2),
               gv = output<float>(c.count(c.dv), 3), divisor = output<float>(c.count(1), 4);
    const std::vector<double> gamma = c.gamma();
    s.compare({.op = "retention_backward",
               .type = "f32",
               .shape = c.name(),
               .work = c.least(3),
               .tolerance = 1e-4,
               .full = c.full})
        .naive(inputs{q, k, v, grad_o}, outputs{gq, gk, gv},
               [=]<class U>(const U* fq, const U* fk, const U* fv, const U* go, U* to_q, U* to_k, U* to_v) {
                   reference::retention_backward<U>({{fq, c.keys()}, {fk, c.keys()}, {fv, c.values()}, gamma}, {},
                                                    absent, absent, absent, {go, c.values()}, {to_q, c.keys()},
                                                    {to_k, c.keys()}, {to_v, c.values()}, absent);
               })
        .add("deft", [=] {
            deft::retention_backward<float>(as(q, c.keys()), as(k, c.keys()), as(v, c.values()), gamma, absent,
                                            as(grad_o, c.values()), as(gq, c.keys()), as(gk, c.keys()),
                                            as(gv, c.values()), absent,
                                            as(divisor, shape<3>(c.batch, c.heads, c.tokens)));
        });
}

} // namespace

void benchmark_retention(suite& s) {
    forward(s, {1, 8, 512, 64, 128, false});
    forward(s, {1, 16, 2048, 64, 64, true});
    forward(s, {1, 8, 2048, 64, 128, true});
    forward(s, {1, 16, 2048, 128, 128, true});
    forward(s, {1, 8, 2048, 128, 256, true});
    forward(s, {1, 2, 2048, 384, 1536, true});
    forward(s, {1, 4, 2048, 320, 1280, true});
    forward(s, {1, 2, 65536, 64, 128, true});
    for (const index batch : {1, 6})
        decode(s, batch, {1, 2, 1, 384, 1536, batch > 1});
    parallel(s, {1, 2, 256, 64, 128, false});
    backward(s, {1, 8, 128, 64, 128, false});
    backward(s, {1, 8, 2048, 64, 128, true});
    backward(s, {1, 16, 2048, 128, 128, true});
}

} // namespace deft::bench

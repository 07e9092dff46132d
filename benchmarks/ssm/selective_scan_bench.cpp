// selective_scan and its gradient: Mamba's shapes, one token, a long sequence of few channels.
#include "../peers/ggml.hpp"
#include "../peers/recurrences.hpp"
#include "../support/suite.hpp"
#include "../support/two_threads.hpp"

#include <deft/reference/ssm/selective_scan.hpp>
#include <deft/ssm/selective_scan.hpp>
#include <deft/ssm/selective_scan_backward.hpp>

#include <cmath>
#include <memory>
#include <string>

namespace deft::bench {
namespace {

constexpr index states = 16;

struct setup {
    index batch, tokens, channels;
    bool full;

    std::string name() const {
        return std::to_string(batch) + "x" + std::to_string(tokens) + "_D" + std::to_string(channels) + "_N16";
    }
    index count() const {
        return batch * tokens * channels;
    }
    shape<3> rows() const {
        return {batch, tokens, channels};
    }
    shape<4> vectors() const {
        return {batch, tokens, 1, states};
    }
    shape<3> kept() const {
        return {batch, channels, states};
    }
    work least() const {
        const double n = double(count());
        return {.items = n * states, .flops = 6 * n * states, .exps = n * states};
    }
};

/// The plain loop in a sane order: tokens, channels, states.
template <class U>
void loops(const setup& s, const U* u, const U* delta, const U* a, const U* b, const U* c, const U* skip, const U* z,
           const U* start, U* y, U* h) {
    std::copy_n(start, s.batch * s.channels * states, h);
    for (index i = 0; i < s.batch; ++i)
        for (index t = 0; t < s.tokens; ++t)
            for (index k = 0; k < s.channels; ++k) {
                const index row = i * s.tokens + t, at = row * s.channels + k;
                const U d = delta[at] > 20 ? delta[at] : std::log1p(std::exp(delta[at]));
                U* const state = h + (i * s.channels + k) * states;
                U sum = skip[k] * u[at];
                for (index n = 0; n < states; ++n) {
                    state[n] = std::exp(d * a[k * states + n]) * state[n] + d * u[at] * b[row * states + n];
                    sum += c[row * states + n] * state[n];
                }
                y[at] = sum * z[at] / (1 + std::exp(-z[at]));
            }
}

template <class T>
struct tensors {
    setup s;
    buffer<T> u = normal<T>(s.count()), delta = uniform<T>(s.count(), -5.0f, -1.0f, 2),
              a = uniform<T>(s.channels * states, -16.0f, -1.0f, 3), b = normal<T>(s.batch * s.tokens * states, 4),
              c = normal<T>(s.batch * s.tokens * states, 5), skip = normal<T>(s.channels, 6),
              z = normal<T>(s.count(), 7), start = normal<T>(s.batch * s.channels * states, 8);

    selective_scan_inputs<T> views() const {
        return {.u = as(u, s.rows()),
                .delta = as(delta, s.rows()),
                .A = as(a, shape<2>(s.channels, states)),
                .B = as(b, s.vectors()),
                .C = as(c, s.vectors()),
                .D = as(skip, shape<1>(s.channels)),
                .z = as(z, s.rows())};
    }
};

template <class T>
void forward(suite& s, const setup& c) {
    const tensors<T> in{c};
    const auto y = output<T>(c.count()), state = output<T>(c.batch * c.channels * states, 1);
    const action restore = [=] { state.assign(in.start); };
    comparison& rivals =
        s.compare({.op = "selective_scan", .type = type_name<T>, .shape = c.name(), .work = c.least(), .full = c.full});
    rivals.naive(inputs{in.u, in.delta, in.a, in.b, in.c, in.skip, in.z, in.start}, outputs{y, state},
                 [=]<class U>(const U* u, const U* delta, const U* a, const U* b, const U* cc, const U* skip,
                              const U* z, const U* start, U* to,
                              U* h) { loops(c, u, delta, a, b, cc, skip, z, start, to, h); });
    if constexpr (std::is_same_v<T, float>)
        if (c.batch == 1) {
            const auto peer = [=] {
                return selective_scan_peer{in.u.data(),  in.delta.data(), in.a.data(), in.b.data(),
                                           in.c.data(),  in.skip.data(),  in.z.data(), y.data(),
                                           state.data(), c.tokens,        c.channels,  states};
            };
            rivals.add("autovec", [=] { autovec::run(peer()); }, {.before = restore});
#if DEFT_PEER_GGML
            const lazy scan([=] {
                restore();
                return ggml::selective_scan(peer());
            });
            rivals.add("ggml", [=] { scan->run(); }, {.after = [=] { scan->store(peer()); }});
#endif
        }
    const auto run = [=](auto&& executor) {
        deft::selective_scan<T>(in.views(), as(y, c.rows()), as(state, c.kept()), {}, executor);
    };
    rivals.add("deft", [=] { run(serial_executor()); }, {.before = restore});
    if (c.tokens == 2048) {
        const auto threads = std::make_shared<two_threads>();
        rivals.add("deft_2threads", [=] { run(*threads); }, {.before = restore});
    }
}

template <class T>
void backward(suite& s, const setup& c) {
    const tensors<T> in{c};
    const index vectors = c.batch * c.tokens * states;
    const auto grad_y = normal<T>(c.count(), 9);
    const auto u = output<T>(c.count(), 1), delta = output<T>(c.count(), 2), z = output<T>(c.count(), 3),
               a = output<T>(c.channels * states, 4), b = output<T>(vectors, 5), cc = output<T>(vectors, 6),
               skip = output<T>(c.channels, 7), state = output<T>(c.batch * c.channels * states, 8);
    s.compare(
         {.op = "selective_scan_backward", .type = type_name<T>, .shape = c.name(), .work = c.least(), .full = c.full})
        .naive(inputs{in.u, in.delta, in.a, in.b, in.c, in.skip, in.z, grad_y},
               outputs{u, delta, z, a, b, cc, skip, state},
               [=]<class U>(const U* pu, const U* pd, const U* pa, const U* pb, const U* pc, const U* ps, const U* pz,
                            const U* pg, U* gu, U* gd, U* gz, U* ga, U* gb, U* gc, U* gs, U* gh) {
                   const shape<2> weights(c.channels, states);
                   reference::selective_scan_backward<U>({{pu, c.rows()},
                                                          {pd, c.rows()},
                                                          {pa, weights},
                                                          {pb, c.vectors()},
                                                          {pc, c.vectors()},
                                                          {ps, {c.channels}},
                                                          {pz, c.rows()},
                                                          {},
                                                          true,
                                                          false},
                                                         absent, {pg, c.rows()}, absent,
                                                         {{gu, c.rows()},
                                                          {gd, c.rows()},
                                                          {ga, weights},
                                                          {gb, c.vectors()},
                                                          {gc, c.vectors()},
                                                          {gs, {c.channels}},
                                                          {gz, c.rows()},
                                                          {},
                                                          {gh, c.kept()}});
               })
        .add("deft", [=] {
            deft::selective_scan_backward<T>(in.views(), absent, as(grad_y, c.rows()), absent,
                                             {.u = as(u, c.rows()),
                                              .delta = as(delta, c.rows()),
                                              .A = as(a, shape<2>(c.channels, states)),
                                              .B = as(b, c.vectors()),
                                              .C = as(cc, c.vectors()),
                                              .D = as(skip, shape<1>(c.channels)),
                                              .z = as(z, c.rows()),
                                              .state = as(state, c.kept())});
        });
}

} // namespace

void benchmark_selective_scan(suite& s) {
    forward<float>(s, {1, 64, 1536, false});
    forward<float>(s, {8, 1, 2048, false});
    for (const index channels : {1536, 2048, 2560})
        forward<float>(s, {1, 2048, channels, true});
    forward<float>(s, {1, 65536, 256, true});
    forward<double>(s, {1, 2048, 1536, true});
    backward<float>(s, {1, 32, 1536, false});
    backward<float>(s, {1, 2048, 1536, true});
}

} // namespace deft::bench

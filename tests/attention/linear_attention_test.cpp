#include "support/allocations.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/generate.hpp"

#include <deft/attention/linear_attention.hpp>
#include <deft/attention/linear_attention_backward.hpp>

#include <Eigen/Core>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

namespace {

struct sequence {
    index heads, tokens, features, width;
    std::vector<float> q, k, v;

    sequence(index h, index n, index m, index e, double least = 0.01) : heads(h), tokens(n), features(m), width(e) {
        random_values random(7);
        const auto values = [&](index columns, double low) {
            const tensor t = random.uniform({h, n, columns}, low, 1);
            return std::vector<float>(t.values.begin(), t.values.end());
        };
        q = values(m, least);
        k = values(m, least);
        v = values(e, -1);
    }
    view<const float, 4> rows(const std::vector<float>& x, index begin, index count) const {
        const index columns = index(x.size()) / (heads * tokens);
        return {x.data() + begin * columns, {1, heads, count, columns}, {0, tokens * columns, columns, 1}};
    }
    /// Tokens [begin, begin + count) into o.
    template <class State>
    void run(index begin, index count, std::vector<float>& o, State& state, in_decay<float> decay,
             const linear_attention_options& options) const {
        const view<float, 4> to(o.data() + begin * width, {1, heads, count, width}, {0, tokens * width, width, 1});
        deft::linear_attention(rows(q, begin, count), rows(k, begin, count), rows(v, begin, count), decay, to, state,
                               options);
    }
    std::vector<float> output() const {
        return std::vector<float>(std::size_t(heads * tokens * width));
    }
    linear_attention_state<float> state() const {
        return linear_attention_state<float>({.heads = heads, .features = features, .width = width});
    }
};

} // namespace

TEST_CASE("linear_attention of two tokens by hand", "[linear_attention]") {
    const std::vector<double> q{1, 2, 3, 1}, k{1, 0, 1, 1}, v{2, 4}, a{0.5, 0.5};
    std::vector<double> o(2);
    linear_attention_state<double> state({.features = 2, .width = 1});
    // S_1 = (2, 0), S_2 = (1 + 4, 4); z_1 = (1, 0), z_2 = (1.5, 1)
    deft::linear_attention<double>({q.data(), {1, 1, 2, 2}}, {k.data(), {1, 1, 2, 2}}, {v.data(), {1, 1, 2, 1}},
                                   {a.data(), {1, 1, 2}}, view<double, 4>(o.data(), {1, 1, 2, 1}), state);
    CHECK(o == std::vector<double>{2, 19});
    state.reset();
    deft::linear_attention<double>({q.data(), {1, 1, 2, 2}}, {k.data(), {1, 1, 2, 2}}, {v.data(), {1, 1, 2, 1}},
                                   {a.data(), {1, 1, 2}}, view<double, 4>(o.data(), {1, 1, 2, 1}), state,
                                   {.normalize = attention_normalize::sum});
    CHECK(o == std::vector<double>{2, 19 / 5.5});
    CHECK(state.state()(0, 0, 1, 0) == 4);
    CHECK(state.norm()(0, 0, 0) == 1.5);
}

TEST_CASE("a sequence may be cut into calls anywhere, and a copy of the state is a snapshot", "[linear_attention]") {
    const sequence s(3, 150, 21, 37);
    for (const attention_normalize normalize : {attention_normalize::none, attention_normalize::sum}) {
        const std::vector<float> decay{0.9f, 1.0f, 0.999f};
        auto whole = s.output();
        auto all = s.state();
        s.run(0, 150, whole, all, decay, {.normalize = normalize});
        for (const index cut : {1, 2, 64, 131, 132, 133, 149}) {
            auto parts = s.output();
            auto state = s.state();
            s.run(0, cut, parts, state, decay, {.normalize = normalize});
            const auto snapshot = state;
            s.run(cut, 150 - cut, parts, state, decay, {.normalize = normalize});
            CHECK(largest_difference(parts, whole) < 2e-5 * (normalize == attention_normalize::sum ? 1 : 300));
            const auto once = parts;
            state = snapshot;
            s.run(cut, 150 - cut, parts, state, decay, {.normalize = normalize});
            CHECK(parts == once);
        }
    }
}

TEST_CASE("heads may lie side by side in the rows of tokens", "[linear_attention]") {
    for (const index features : {21, 300, 1100}) {
        const sequence s(3, 150, features, 37);
        auto expected = s.output(), side_by_side = s.output(), o = s.output();
        auto state = s.state(), other = s.state();
        const std::vector<float> decay{0.9f, 1.0f, 0.999f};
        s.run(0, 150, expected, state, decay, {});
        const auto interleaved = [&](const std::vector<float>& x, index columns, std::vector<float>& to) {
            to.resize(x.size());
            for (index h = 0; h < 3; ++h)
                for (index i = 0; i < 150 * columns; ++i)
                    to[std::size_t((i / columns * 3 + h) * columns + i % columns)] =
                        x[std::size_t(h * 150 * columns + i)];
            return view<const float, 4>(to.data(), {1, 3, 150, columns}, {0, columns, 3 * columns, 1});
        };
        std::vector<float> q, k, v;
        deft::linear_attention(interleaved(s.q, features, q), interleaved(s.k, features, k), interleaved(s.v, 37, v),
                               decay, view<float, 4>(o.data(), {1, 3, 150, 37}, {0, 37, 3 * 37, 1}), other);
        interleaved(expected, 37, side_by_side);
        CHECK(largest_difference(o, side_by_side) < 6e-7 * double(features) * 150 / 8); // 10 half units of |q| |k| |v|
        const auto numbers = [](const view<const float, 4>& x) {
            return std::vector<float>(x.data(), x.data() + x.size());
        };
        CHECK(largest_difference(numbers(state.state()), numbers(other.state())) < 2e-5);
    }
}

TEST_CASE("tokens of padding are skipped exactly, and a decay of 0 starts a new document", "[linear_attention]") {
    sequence s(1, 90, 9, 5);
    std::vector<float> decay(90, 0.97f);
    const auto expected = [&](index begin, index count) {
        auto o = s.output();
        auto state = s.state();
        s.run(begin, count, o, state, {decay.data() + begin, {1, 1, count}}, {.normalize = attention_normalize::sum});
        return std::vector<float>(o.begin() + begin * 5, o.begin() + (begin + count) * 5);
    };
    const auto second = expected(40, 50);
    decay[40] = 0;
    auto packed = s.output();
    auto state = s.state();
    s.v[3] = std::numeric_limits<float>::quiet_NaN(); // in the first document
    s.run(0, 90, packed, state, {decay.data(), {1, 1, 90}}, {.normalize = attention_normalize::sum});
    CHECK(std::isnan(packed[3]));
    CHECK(largest_difference({packed.begin() + 200, packed.end()}, second) < 2e-6);

    const sequence padded = [&] {
        sequence p(1, 90, 9, 5);
        for (index i = 80; i < 90; ++i) {
            decay[std::size_t(i)] = 1;
            for (index f = 0; f < 9; ++f)
                p.k[std::size_t(i * 9 + f)] = 0;
        }
        return p;
    }();
    auto before = padded.state(), after = padded.state();
    padded.run(0, 80, packed, before, {decay.data(), {1, 1, 80}}, {.chunk = 1});
    after = before;
    padded.run(80, 10, packed, after, {decay.data() + 80, {1, 1, 10}}, {});
    for (index f = 0; f < 9; ++f)
        for (index c = 0; c < 5; ++c)
            CHECK(after.state()(0, 0, f, c) == before.state()(0, 0, f, c));
}

TEST_CASE("the gradient of one token with a state before it, by hand", "[linear_attention]") {
    // S = a S0 + k v = 0.5 * 4 + 3 * 2 = 8, o = q S; cotangents 1 of o and 10 of S: G = q + 10 = 15.
    const std::vector<double> q{5}, k{3}, v{2}, a{0.5}, one{1};
    linear_attention_state<double> before({.features = 1, .width = 1}), grad = before;
    before.state()(0, 0, 0, 0) = 4;
    grad.state()(0, 0, 0, 0) = 10;
    const linear_attention_state<double>& initial = before;
    std::vector<double> gq(1), gk(1), gv(1), ga(1);
    const shape<4> all{1, 1, 1, 1};
    deft::linear_attention_backward<double>({q.data(), all}, {k.data(), all}, {v.data(), all}, a, initial, absent,
                                            {one.data(), all}, view<double, 4>(gq.data(), all), {gk.data(), all},
                                            {gv.data(), all}, ga, grad, absent);
    CHECK((gq[0] == 8 && gk[0] == 30 && gv[0] == 45 && ga[0] == 60));
    CHECK(grad.state()(0, 0, 0, 0) == 7.5);
}

TEST_CASE("a denominator of 0 gives 0", "[linear_attention]") {
    sequence s(1, 70, 4, 3);
    std::fill(s.k.begin(), s.k.begin() + 33 * 4, 0.0f);
    for (const index chunk : {0, 1}) {
        auto o = s.output();
        auto state = s.state();
        s.run(0, 70, o, state, absent, {.normalize = attention_normalize::sum, .chunk = chunk});
        for (std::size_t i = 0; i < o.size(); ++i)
            CHECK((i < 33 * 3 ? o[i] == 0 : std::isfinite(o[i]) && o[i] != 0));
    }
}

TEST_CASE("a state in double keeps a long sum of floats", "[linear_attention]") {
    const index block = 1000, repeat = 300;
    const std::vector<float> ones(std::size_t(block), 1.0f), v(std::size_t(block), 0.1f);
    std::vector<float> o(std::size_t(block), 0.0f);
    linear_attention_state<double> state({.features = 1, .width = 1});
    for (index i = 0; i < repeat; ++i)
        deft::linear_attention<float>({ones.data(), {1, 1, block, 1}}, {ones.data(), {1, 1, block, 1}},
                                      {v.data(), {1, 1, block, 1}}, absent, view<float, 4>(o.data(), {1, 1, block, 1}),
                                      state);
    CHECK_THAT(o.back(), Catch::Matchers::WithinRel(double(0.1f) * double(block * repeat), 1e-7));
}

TEMPLATE_TEST_CASE("q, k, v may be stored in 16 bits", "[linear_attention]", Eigen::half, Eigen::bfloat16) {
    using S = TestType;
    const sequence s(2, 70, 24, 19);
    const auto stored = [](const std::vector<float>& x) {
        std::vector<S> y(x.size());
        for (std::size_t i = 0; i < x.size(); ++i)
            y[i] = S(x[i]);
        return y;
    };
    const auto widened = [](const std::vector<S>& x) {
        std::vector<float> y(x.size());
        for (std::size_t i = 0; i < x.size(); ++i)
            y[i] = float(x[i]);
        return y;
    };
    const std::vector<S> q = stored(s.q), k = stored(s.k), v = stored(s.v);
    sequence exact = s;
    exact.q = widened(q);
    exact.k = widened(k);
    exact.v = widened(v);
    const std::vector<float> decay{0.9f, 0.99f};
    for (const index chunk : {0, 1}) {
        auto expected = exact.output();
        auto state = s.state(), half_state = s.state();
        const linear_attention_options options{.normalize = attention_normalize::sum, .chunk = chunk};
        exact.run(0, 70, expected, state, decay, options);
        std::vector<S> o(expected.size());
        deft::linear_attention<S>({q.data(), {1, 2, 70, 24}}, {k.data(), {1, 2, 70, 24}}, {v.data(), {1, 2, 70, 19}},
                                  decay, view<S, 4>(o.data(), {1, 2, 70, 19}), half_state, options);
        const double step = is_bfloat16<S> ? 4e-3 : 5e-4;
        CHECK(largest_difference(widened(o), expected) < step);
        CHECK_THAT(double(half_state.state()(0, 1, 3, 2)),
                   Catch::Matchers::WithinRel(double(state.state()(0, 1, 3, 2)), 1e-5));
    }
}

TEST_CASE("linear_attention rejects what does not fit", "[linear_attention]") {
    bad_input bad("linear_attention");
    const std::vector<float> x(1000, 1.0f);
    float* const o = bad.output<float>(1000);
    float* const s = bad.output<float>(1000);
    const auto call = [&](shape<4> q, shape<4> k, shape<4> v, shape<4> to, shape<4> state,
                          attention_decay<const float> decay = {}, linear_attention_options options = {},
                          shape<3> norm = {0, 0, 0}) {
        const linear_attention_state_view<float> with({s, state}, {s, norm});
        deft::linear_attention<float>({x.data(), q}, {x.data(), k}, {x.data(), v}, decay, view<float, 4>(o, to), with,
                                      options);
    };
    const shape<4> q{1, 4, 3, 5}, k{1, 2, 3, 5}, v{1, 2, 3, 6}, to{1, 4, 3, 6}, state{1, 2, 5, 6};
    CHECK_NOTHROW(deft::linear_attention<float>(
        {x.data(), {1, 4, 0, 5}}, {x.data(), {1, 2, 0, 5}}, {x.data(), {1, 2, 0, 6}}, absent,
        view<float, 4>(o, {1, 4, 0, 6}), linear_attention_state<float>({.heads = 2, .features = 5, .width = 6})));
    CHECK(bad.rejects("q", [&] { call({1, 3, 3, 5}, k, v, {1, 3, 3, 6}, state); }));
    CHECK(bad.rejects("q", [&] { call({1, 4, 2, 5}, k, v, {1, 4, 2, 6}, state); }));
    CHECK(bad.rejects("k", [&] { call(q, {2, 2, 3, 5}, v, to, state); }));
    CHECK(bad.rejects("k", [&] { call(q, {1, 2, 3, 4}, v, to, state); }));
    CHECK(bad.rejects("v", [&] { call(q, k, {2, 2, 3, 6}, to, state); }));
    CHECK(bad.rejects("v", [&] { call(q, k, {1, 1, 3, 6}, to, state); }));
    CHECK(bad.rejects("v", [&] { call(q, k, {1, 2, 4, 6}, to, state); }));
    CHECK(bad.rejects("o", [&] { call(q, k, v, {1, 2, 3, 6}, state); }));
    CHECK(bad.rejects("o", [&] { call(q, k, v, {1, 4, 3, 5}, state); }));
    CHECK(bad.rejects("state", [&] { call(q, k, v, to, {1, 4, 5, 6}); }));
    CHECK(bad.rejects("state", [&] { call(q, k, v, to, {1, 2, 6, 5}); }));
    CHECK(bad.rejects("norm", [&] { call(q, k, v, to, state, {}, {.normalize = attention_normalize::sum}); }));
    CHECK(bad.rejects("norm", [&] {
        call(q, k, v, to, state, {}, {.normalize = attention_normalize::sum}, {1, 2, 6});
    }));
    CHECK(bad.rejects("eps", [&] { call(q, k, v, to, state, {}, {.eps = -1e-9}); }));
    CHECK(bad.rejects("eps", [&] { call(q, k, v, to, state, {}, {.eps = std::nan("")}); }));
    CHECK(bad.rejects("chunk", [&] { call(q, k, v, to, state, {}, {.chunk = -1}); }));
    CHECK(bad.rejects("decay", [&] { call(q, k, v, to, state, {x.data(), {4}}); }));
    CHECK(bad.rejects("decay", [&] { call(q, k, v, to, state, {x.data(), {1, 2, 4}}); }));
    CHECK(bad.rejects("decay", [&] { call(q, k, v, to, state, {x.data(), {2}}, {.mask = attention_mask::full}); }));
    const std::vector<float> nan{1, std::numeric_limits<float>::quiet_NaN()};
    CHECK(bad.rejects("decay", [&] { call(q, k, v, to, state, nan); }));
}

TEST_CASE("linear_attention_backward rejects what does not fit", "[linear_attention]") {
    bad_input bad("linear_attention_backward");
    const std::vector<float> x(100, 1.0f);
    float* const out = bad.output<float>(100);
    const shape<4> q{1, 2, 3, 4}, v{1, 2, 3, 5};
    const auto call = [&](shape<4> grad_o, shape<4> grad_q, shape<4> grad_k, shape<4> grad_v, shape<4> o,
                          shape<3> denominator, attention_decay<float> grad_decay, shape<4> state) {
        deft::linear_attention_backward<float>({x.data(), q}, {x.data(), q}, {x.data(), v}, {x.data(), {2}}, absent,
                                               {x.data(), o}, {x.data(), grad_o}, view<float, 4>(out, grad_q),
                                               {out, grad_k}, {out, grad_v}, grad_decay,
                                               linear_attention_state_view<float>({out, state}, {out, {1, 2, 4}}),
                                               {out, denominator}, {.normalize = attention_normalize::sum});
    };
    const shape<4> state{1, 2, 4, 5};
    const shape<3> d{1, 2, 3};
    CHECK(bad.rejects("grad_o", [&] { call(q, q, q, v, v, d, absent, state); }));
    CHECK(bad.rejects("grad_q", [&] { call(v, v, q, v, v, d, absent, state); }));
    CHECK(bad.rejects("grad_k", [&] { call(v, q, v, v, v, d, absent, state); }));
    CHECK(bad.rejects("grad_v", [&] { call(v, q, q, q, v, d, absent, state); }));
    CHECK(bad.rejects("o", [&] { call(v, q, q, v, q, d, absent, state); }));
    CHECK(bad.rejects("denominator", [&] { call(v, q, q, v, v, {1, 2, 4}, absent, state); }));
    CHECK(bad.rejects("grad_decay", [&] { call(v, q, q, v, v, d, {out, {3}}, state); }));
    CHECK(bad.rejects("grad_decay", [&] { call(v, q, q, v, v, d, {out, {1, 2, 3}}, state); }));
    CHECK(bad.rejects("grad_state", [&] { call(v, q, q, v, v, d, absent, {1, 2, 5, 4}); }));
}

} // namespace deft::testing

#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/generate.hpp"

#include <deft/attention/linear_attention_combine.hpp>
#include <deft/reference/ssm/retention.hpp>
#include <deft/ssm/retention.hpp>
#include <deft/ssm/retention_backward.hpp>

#include <Eigen/Core>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

namespace {

template <class T>
struct sequence {
    index heads, length, dk, dv;
    std::vector<T> q, k, v;
    std::vector<double> gamma;

    sequence(index h, index t, index d, index e) : heads(h), length(t), dk(d), dv(e), gamma(std::size_t(h)) {
        random_values random(9);
        const auto values = [&](index columns, double scale) {
            const tensor x = random.normal({h, t, columns}, scale);
            return std::vector<T>(x.values.begin(), x.values.end());
        };
        q = values(d, 1);
        k = values(d, 1 / std::sqrt(double(d)));
        v = values(e, 1);
        fill_retention_decay(gamma, retention_decay::retnet);
    }
    view<const T, 4> rows(const std::vector<T>& x, index begin, index count) const {
        const index columns = index(x.size()) / (heads * length);
        return {x.data() + begin * columns, {1, heads, count, columns}, {0, length * columns, columns, 1}};
    }
    template <class State>
    void run(index begin, index count, std::vector<T>& o, State& state, const retention_options& options = {}) const {
        const view<T, 4> to(o.data() + begin * dv, {1, heads, count, dv}, {0, length * dv, dv, 1});
        deft::retention(rows(q, begin, count), rows(k, begin, count), rows(v, begin, count), gamma, to, state, options);
    }
    std::vector<T> output() const {
        return std::vector<T>(v.size());
    }
    template <class A = T>
    retention_state<A> state() const {
        return retention_state<A>({.heads = heads, .key_width = dk, .value_width = dv});
    }
};

} // namespace

TEST_CASE("retention of two tokens by hand", "[retention]") {
    const std::vector<double> q{1, 2, 3, 1}, k{1, 0, 1, 1}, v{2, 4}, gamma{0.5};
    const shape<4> keys{1, 1, 2, 2}, values{1, 1, 2, 1};
    std::vector<double> o(2);
    retention_state<double> state({.key_width = 2, .value_width = 1});
    const auto run = [&](const retention_options& options) {
        state.reset();
        deft::retention<double>({q.data(), keys}, {k.data(), keys}, {v.data(), values}, gamma,
                                view<double, 4>(o.data(), values), state, options);
    };
    // S_1 = (2, 0), S_2 = (1 + 4, 4); c = 1, 1.5; z = (1, 0), (1.5, 1): q z = 1, 5.5
    run({.decay_norm = decay_norm::none});
    CHECK(o == std::vector<double>{2, 19});
    run({});
    CHECK(o[0] == 2);
    CHECK_THAT(o[1], Catch::Matchers::WithinRel(19 / std::sqrt(1.5), 1e-14));
    CHECK(state.scale()(0) == 1.5);
    CHECK((state.state()(0, 0, 0, 0) == 5 && state.state()(0, 0, 1, 0) == 4));
    run({.row_norm = retention_row_norm::sum_abs});
    CHECK_THAT(o[1], Catch::Matchers::WithinRel(19 / 5.5, 1e-14));
    CHECK((state.key_state()(0, 0, 0) == 1.5 && state.key_state()(0, 0, 1) == 1));
    run({.row_norm = retention_row_norm::sum_abs, .clamp_max = 2});
    CHECK_THAT(o[1], Catch::Matchers::WithinRel(19 / std::sqrt(1.5) / 2, 1e-14));
    // Weights of the second token: 3 / 2 of the first, 4 of itself, both over sqrt(1.5).
    run({.row_norm = retention_row_norm::abs_sum});
    CHECK_THAT(o[1], Catch::Matchers::WithinRel((1.5 * 2 + 4 * 4) / 5.5, 1e-14));
    CHECK(state.state()(0, 0, 0, 0) == 5);
}

TEST_CASE("the recurrence is the matrix of the paper", "[retention]") {
    const sequence<double> s(3, 150, 21, 37);
    std::vector<double> matrix = s.output();
    const view<double, 4> to(matrix.data(), {1, 3, 150, 37});
    for (const decay_norm norm : {decay_norm::sqrt, decay_norm::none})
        for (const auto& [rows, naive] : {std::pair(retention_row_norm::none, reference::retention_rows::plain),
                                          std::pair(retention_row_norm::sum_abs, reference::retention_rows::sum_abs),
                                          std::pair(retention_row_norm::abs_sum, reference::retention_rows::abs_sum)}) {
            reference::retention_parallel<double>(
                {s.rows(s.q, 0, 150), s.rows(s.k, 0, 150), s.rows(s.v, 0, 150), s.gamma}, to,
                {norm == decay_norm::sqrt, naive, 3});
            for (const index chunk : {0, 1, 40}) {
                if (rows == retention_row_norm::abs_sum && chunk > 0)
                    continue;
                std::vector<double> o = s.output();
                auto state = s.state();
                s.run(0, 150, o, state, {.decay_norm = norm, .row_norm = rows, .clamp_max = 3, .chunk = chunk});
                CHECK(largest_difference(o, matrix) < 1e-12);
            }
        }
}

TEST_CASE("a retained sequence may be cut anywhere, and a copy of the state is a snapshot", "[retention]") {
    const sequence<float> s(3, 150, 21, 37);
    for (const retention_row_norm rows : {retention_row_norm::none, retention_row_norm::sum_abs}) {
        auto whole = s.output();
        auto all = s.state();
        s.run(0, 150, whole, all, {.row_norm = rows});
        for (const index cut : {1, 2, 63, 64, 65, 149}) {
            auto parts = s.output();
            auto state = s.state();
            s.run(0, cut, parts, state, {.row_norm = rows});
            const auto snapshot = state;
            s.run(cut, 150 - cut, parts, state, {.row_norm = rows});
            CHECK(largest_difference(parts, whole) < 1e-5);
            CHECK_THAT(state.scale()(2), Catch::Matchers::WithinRel(all.scale()(2), 1e-14));
            const auto once = parts;
            state = snapshot;
            s.run(cut, 150 - cut, parts, state, {.row_norm = rows});
            CHECK(parts == once);
        }
    }
}

TEST_CASE("states of spans combine", "[retention]") {
    const sequence<double> s(2, 90, 6, 5);
    std::vector<double> o = s.output();
    auto whole = s.state(), first = s.state(), second = s.state();
    const retention_options options{.row_norm = retention_row_norm::sum_abs};
    s.run(0, 90, o, whole, options);
    s.run(0, 50, o, first, options);
    s.run(50, 40, o, second, options);
    std::vector<double> a1(2), a2(2), a(2);
    for (index h = 0; h < 2; ++h) {
        a1[std::size_t(h)] = std::pow(s.gamma[std::size_t(h)], 50);
        a2[std::size_t(h)] = std::pow(s.gamma[std::size_t(h)], 40);
    }
    const auto span = [](std::vector<double>& decay, retention_state<double>& state) {
        return linear_attention_span<double>{
            decay, {state.state().data(), {2, 6, 5}}, {state.key_state().data(), {2, 6}}};
    };
    const auto left = span(a1, first), right = span(a2, second), both = span(a, first);
    deft::linear_attention_combine<double>({left.decay, left.state, left.norm}, {right.decay, right.state, right.norm},
                                           both);
    for (index h = 0; h < 2; ++h) {
        CHECK_THAT(a2[std::size_t(h)] * first.scale()(h) + second.scale()(h),
                   Catch::Matchers::WithinRel(whole.scale()(h), 1e-14));
        for (index d = 0; d < 6; ++d) {
            CHECK(std::abs(first.key_state()(0, h, d) - whole.key_state()(0, h, d)) < 1e-13);
            for (index e = 0; e < 5; ++e)
                CHECK(std::abs(first.state()(0, h, d, e) - whole.state()(0, h, d, e)) < 1e-13);
        }
    }
}

TEST_CASE("long horizons: float where it suffices, double state beyond", "[retention]") {
    const index block = 1000;
    const std::vector<float> ones(std::size_t(block), 1.0f), v(std::size_t(block), 0.1f);
    const shape<4> all{1, 1, block, 1};
    const auto error = [&](auto state, double about, index repeat) {
        std::vector<float> o(ones.size());
        const std::vector<double> gamma{1 - about};
        const double below_one = 1 - gamma[0];
        for (index i = 0; i < repeat; ++i)
            deft::retention<float>({ones.data(), all}, {ones.data(), all}, {v.data(), all}, gamma,
                                   view<float, 4>(o.data(), all), state, {.decay_norm = decay_norm::none});
        const double tokens = double(block * repeat);
        const double exact = double(0.1f) * -std::expm1(tokens * std::log1p(-below_one)) / below_one;
        CHECK_THAT(state.scale()(0), Catch::Matchers::WithinRel(exact / double(0.1f), 1e-13));
        return std::abs(double(o.back()) / exact - 1);
    };
    const retention_state<float> narrow({.key_width = 1, .value_width = 1});
    const retention_state<double> wide({.key_width = 1, .value_width = 1});
    CHECK(error(narrow, 1.0 / 32, 100) < 5e-7);
    CHECK(error(narrow, 1.0 / 256, 100) < 1e-6);
    CHECK(error(narrow, 1.0 / 1300, 100) < 5e-6); // gamma rounded to float: 3e-5
    CHECK(error(narrow, 1.0 / 4096, 100) < 9e-6); // equal terms: the worst for a float recurrence
    CHECK(error(wide, 1.0 / 65536, 300) < 1e-7);
    CHECK(error(wide, 1e-6, 300) < 1e-7);
}

TEST_CASE("a decay of 0 keeps the token alone, one of 1 keeps all", "[retention]") {
    sequence<double> s(2, 70, 4, 3);
    s.gamma = {0, 1};
    std::vector<double> o = s.output();
    auto state = s.state();
    s.run(0, 70, o, state);
    CHECK((state.scale()(0) == 1 && state.scale()(1) == 70));
    for (index t = 0; t < 70; ++t) {
        double product = 0, sum = 0;
        for (index d = 0; d < 4; ++d)
            product += s.q[std::size_t(t * 4 + d)] * s.k[std::size_t(t * 4 + d)];
        CHECK(std::abs(o[std::size_t(t * 3 + 1)] - product * s.v[std::size_t(t * 3 + 1)]) < 1e-14);
        for (index m = 0; m <= t; ++m)
            for (index d = 0; d < 4; ++d)
                sum += s.q[std::size_t((70 + t) * 4 + d)] * s.k[std::size_t((70 + m) * 4 + d)] *
                       s.v[std::size_t((70 + m) * 3 + 1)];
        CHECK(std::abs(o[std::size_t((70 + t) * 3 + 1)] - sum / std::sqrt(double(t + 1))) < 1e-12);
    }
}

TEST_CASE("decays of the papers", "[retention]") {
    std::vector<double> gamma(5);
    fill_retention_decay(gamma, retention_decay::retnet);
    CHECK(gamma == std::vector<double>{1 - 1 / 32.0, 1 - 1 / 64.0, 1 - 1 / 128.0, 1 - 1 / 256.0, 1 - 1 / 512.0});
    fill_retention_decay(gamma, retention_decay::lm);
    for (std::size_t h = 0; h < 5; ++h)
        CHECK_THAT(gamma[h], Catch::Matchers::WithinRel(1 - std::pow(2.0, -5 - double(h)), 1e-15));
    fill_retention_decay({gamma.data(), {1}}, retention_decay::lm);
    CHECK_THAT(gamma[0], Catch::Matchers::WithinRel(1 - 1 / 32.0, 1e-15));
}

TEST_CASE("the gradient of one token with a state before it, by hand, for retention", "[retention]") {
    // S = 0.5 * 4 + 3 * 2 = 8, c = 0.5 * 6 + 1 = 4, o = q S / 2; cotangents 1 of o and 10 of S: G = 5 / 2 + 10.
    const std::vector<double> q{5}, k{3}, v{2}, gamma{0.5}, one{1};
    retention_state<double> before({.key_width = 1, .value_width = 1});
    before.state()(0, 0, 0, 0) = 4;
    before.scale()(0) = 6;
    const retention_state<double>& initial = before;
    std::vector<double> gq(1), gk(1), gv(1), gs{10}, divisor(1);
    const shape<4> all{1, 1, 1, 1};
    deft::retention_backward<double>({q.data(), all}, {k.data(), all}, {v.data(), all}, gamma, initial,
                                     {one.data(), all}, view<double, 4>(gq.data(), all), {gk.data(), all},
                                     {gv.data(), all}, {gs.data(), all}, {divisor.data(), {1, 1, 1}});
    CHECK((gq[0] == 4 && gk[0] == 25 && gv[0] == 37.5 && gs[0] == 6.25 && divisor[0] == 2));
}

TEST_CASE("gradients of long sequences keep the horizon", "[retention]") {
    const index n = 9000;
    const std::vector<float> ones(std::size_t(n), 1.0f);
    const double below_one = 1.0 / 1300; // rounding it to float would cost 3e-5
    const std::vector<double> gamma{1 - below_one};
    std::vector<float> gq(ones.size()), gk(ones.size()), gv(ones.size()), divisor(ones.size());
    const shape<4> all{1, 1, n, 1};
    deft::retention_backward<float>({ones.data(), all}, {ones.data(), all}, {ones.data(), all}, gamma, absent,
                                    {ones.data(), all}, view<float, 4>(gq.data(), all), {gk.data(), all},
                                    {gv.data(), all}, absent, {divisor.data(), {1, 1, n}},
                                    {.decay_norm = decay_norm::none});
    const double exact = -std::expm1(double(n) * std::log1p(-below_one)) / below_one;
    CHECK_THAT(double(gq.back()), Catch::Matchers::WithinRel(exact, 1e-5));
    CHECK_THAT(double(gk.front()), Catch::Matchers::WithinRel(exact, 1e-5));
    CHECK_THAT(double(gv.front()), Catch::Matchers::WithinRel(exact, 1e-5));
}

TEMPLATE_TEST_CASE("retention reads 16-bit storage", "[retention]", Eigen::half, Eigen::bfloat16) {
    using S = TestType;
    const sequence<float> s(2, 70, 24, 19);
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
    sequence<float> exact = s;
    exact.q = widened(q);
    exact.k = widened(k);
    exact.v = widened(v);
    for (const retention_row_norm rows :
         {retention_row_norm::none, retention_row_norm::sum_abs, retention_row_norm::abs_sum}) {
        auto expected = exact.output();
        auto state = s.state(), half_state = s.state();
        exact.run(0, 70, expected, state, {.row_norm = rows});
        std::vector<S> o(expected.size());
        deft::retention<S>({q.data(), {1, 2, 70, 24}}, {k.data(), {1, 2, 70, 24}}, {v.data(), {1, 2, 70, 19}}, s.gamma,
                           view<S, 4>(o.data(), {1, 2, 70, 19}), half_state, {.row_norm = rows});
        CHECK(largest_difference(widened(o), expected) < (is_bfloat16<S> ? 2e-2 : 2e-3));
        CHECK_THAT(double(half_state.state()(0, 1, 3, 2)),
                   Catch::Matchers::WithinRel(double(state.state()(0, 1, 3, 2)), 1e-5));
    }
}

TEST_CASE("retention rejects what does not fit", "[retention]") {
    bad_input bad("retention"), bad_state("retention_state");
    const std::vector<float> x(1000, 1.0f);
    float* const o = bad.output<float>(1000);
    float* const s = bad.output<float>(1000);
    std::vector<double> c(4, 0.0);
    const std::vector<double> half{0.5, 0.5};
    struct arguments {
        shape<4> q{1, 2, 3, 5}, k{1, 2, 3, 5}, v{1, 2, 3, 6}, o{1, 2, 3, 6}, state{1, 2, 5, 6};
        index heads = 2, counts = 2;
        shape<3> key_state{1, 2, 5};
    };
    const auto call = [&](const arguments& a, const retention_options& options = {}, std::vector<double> gamma = {}) {
        gamma.resize(std::size_t(a.heads), 0.5);
        const view<double, 1> scale = a.counts < 0 ? view<double, 1>() : view<double, 1>(c.data(), {a.counts});
        const retention_state_view<float> with({s, a.state}, scale, {s, a.key_state});
        deft::retention<float>({x.data(), a.q}, {x.data(), a.k}, {x.data(), a.v}, gamma, view<float, 4>(o, a.o), with,
                               options);
    };
    const double nan = std::numeric_limits<double>::quiet_NaN();
    CHECK_NOTHROW(call({.q = {1, 2, 0, 5}, .k = {1, 2, 0, 5}, .v = {1, 2, 0, 6}, .o = {1, 2, 0, 6}}));
    CHECK(bad.rejects("k", [&] { call({.k = {1, 2, 4, 5}}); }));
    CHECK(bad.rejects("k", [&] { call({.k = {1, 2, 3, 6}}); }));
    CHECK(bad.rejects("v", [&] { call({.v = {1, 3, 3, 6}}); }));
    CHECK(bad.rejects("v", [&] { call({.v = {2, 2, 3, 6}}); }));
    CHECK(bad.rejects("v", [&] { call({.v = {1, 2, 4, 6}}); }));
    CHECK(bad.rejects("o", [&] { call({.o = {1, 2, 3, 5}}); }));
    CHECK(bad.rejects("state", [&] { call({.state = {1, 2, 6, 5}}); }));
    CHECK(bad.rejects("state", [&] { call({.state = {2, 2, 5, 6}}); }));
    CHECK(bad.rejects("state", [&] { call({.state = {0, 0, 0, 0}}); }));
    CHECK(bad.rejects("scale", [&] { call({.counts = 3}); }));
    CHECK(bad.rejects("scale", [&] { call({.counts = -1}); }));
    CHECK(bad.rejects("scale", [&] {
        call({.counts = -1}, {.decay_norm = decay_norm::none, .row_norm = retention_row_norm::abs_sum});
    }));
    CHECK(bad.rejects("key_state", [&] { call({.key_state = {1, 2, 6}}, {.row_norm = retention_row_norm::sum_abs}); }));
    CHECK(bad.rejects("key_state", [&] { call({.key_state = {0, 0, 0}}, {.row_norm = retention_row_norm::sum_abs}); }));
    CHECK(bad.rejects("gamma", [&] { call({.heads = 3}); }));
    for (const double wrong : {-1e-9, 1 + 1e-9, nan})
        CHECK(bad.rejects("gamma", [&] { call({}, {}, {0.5, wrong}); }));
    CHECK(bad.rejects("clamp_max", [&] { call({}, {.clamp_max = 0.5}); }));
    CHECK(bad.rejects("clamp_max", [&] { call({}, {.clamp_max = nan}); }));
    CHECK(bad.rejects("chunk", [&] { call({}, {.chunk = -1}); }));
    CHECK(bad.rejects("chunk", [&] { call({}, {.row_norm = retention_row_norm::abs_sum, .chunk = 2}); }));
    c[1] = -1;
    CHECK(bad.rejects("scale", [&] { call({}); }));
    c[1] = 3;
    CHECK(bad.rejects("scale", [&] { call({}, {.row_norm = retention_row_norm::abs_sum}); }));
    CHECK(bad_state.rejects("heads", [] { retention_state<float>({.heads = -1}); }));
    CHECK(bad_state.rejects("key_width", [] { retention_state<float>({.key_width = -1}); }));
}

TEST_CASE("retention_backward rejects what does not fit", "[retention]") {
    bad_input bad("retention_backward");
    const std::vector<float> x(200, 1.0f);
    float* const out = bad.output<float>(200);
    const std::vector<double> half{0.5, 0.5}, counts{1, 1};
    const shape<4> q{1, 2, 3, 4}, v{1, 2, 3, 5}, state{1, 2, 4, 5};
    const auto call = [&](shape<4> grad_o, shape<4> grad_q, shape<4> grad_k, shape<4> grad_v, shape<4> grad_state,
                          shape<3> divisor, shape<4> initial, const retention_options& options = {}) {
        const retention_state_view<const float> before({x.data(), initial}, counts);
        deft::retention_backward<float>({x.data(), q}, {x.data(), q}, {x.data(), v}, half, before, {x.data(), grad_o},
                                        view<float, 4>(out, grad_q), {out, grad_k}, {out, grad_v}, {out, grad_state},
                                        {out, divisor}, options);
    };
    const shape<3> d{1, 2, 3};
    CHECK(bad.rejects("grad_o", [&] { call(q, q, q, v, state, d, state); }));
    CHECK(bad.rejects("grad_q", [&] { call(v, v, q, v, state, d, state); }));
    CHECK(bad.rejects("grad_k", [&] { call(v, q, v, v, state, d, state); }));
    CHECK(bad.rejects("grad_v", [&] { call(v, q, q, q, state, d, state); }));
    CHECK(bad.rejects("grad_state", [&] { call(v, q, q, v, {1, 2, 5, 4}, d, state); }));
    CHECK(bad.rejects("denominator", [&] { call(v, q, q, v, state, {1, 2, 4}, state); }));
    CHECK(bad.rejects("initial", [&] { call(v, q, q, v, state, d, {1, 2, 4, 4}); }));
    CHECK(bad.rejects("key_state",
                      [&] { call(v, q, q, v, state, d, state, {.row_norm = retention_row_norm::sum_abs}); }));
    CHECK(bad.rejects("scale", [&] { call(v, q, q, v, state, d, state, {.row_norm = retention_row_norm::abs_sum}); }));
}

} // namespace deft::testing

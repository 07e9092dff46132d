#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/reference/ssm/selective_scan.hpp>
#include <deft/ssm/selective_scan.hpp>
#include <deft/ssm/selective_scan_backward.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

TEST_CASE("selective_scan by hand", "[selective_scan]") {
    // One channel, two states, no softplus: h = exp(d A) h + d B u.
    const std::vector<double> u{2, 3}, delta{0.5, 1}, a{-std::log(4.0), 0}, b{1, 10, 1, 10}, c{1, 1, 2, 0}, skip{100};
    std::vector<double> y(2), state{8, 1};
    const selective_scan_inputs<double> in{.u = {u.data(), {1, 2, 1}},
                                           .delta = {delta.data(), {1, 2, 1}},
                                           .A = {a.data(), {1, 2}},
                                           .B = {b.data(), {1, 2, 1, 2}},
                                           .C = {c.data(), {1, 2, 1, 2}},
                                           .D = skip};
    deft::selective_scan<double>(in, {y.data(), {1, 2, 1}}, {state.data(), {1, 1, 2}}, {.step = step_size::identity});
    // h_1 = (8 / 2 + 1, 1 + 10), h_2 = (5 / 4 + 3, 11 + 30)
    CHECK_THAT(y[0], Catch::Matchers::WithinRel(16.0 + 200, 1e-14));
    CHECK_THAT(y[1], Catch::Matchers::WithinRel(8.5 + 300, 1e-14));
    CHECK_THAT(state[0], Catch::Matchers::WithinRel(4.25, 1e-14));
    CHECK_THAT(state[1], Catch::Matchers::WithinRel(41.0, 1e-14));

    // zoh: phi = (exp(d A) - 1) / A, and d where A = 0.
    state = {0, 0};
    deft::selective_scan<double>(in, {y.data(), {1, 2, 1}}, {state.data(), {1, 1, 2}},
                                 {.step = step_size::identity, .discretisation = discretisation::zoh});
    const double first = 2 * 0.5 / std::log(4.0), second = first / 4 + 3 * 0.75 / std::log(4.0);
    CHECK_THAT(state[0], Catch::Matchers::WithinRel(second, 1e-14));
    CHECK_THAT(state[1], Catch::Matchers::WithinRel(40.0, 1e-14));
}

TEMPLATE_TEST_CASE("steep decays forget exactly, flat ones exactly do not", "[selective_scan]", float, double) {
    using T = TestType;
    const std::vector<T> u{0, 0, 0}, delta{1, 1, 1}, a{T(-1e4), T(0), T(-1e-9)}, b(9, T(1)), c(9, T(1));
    std::vector<T> y(3), state{T(1e30), T(5), T(7)};
    const discretisation rule = GENERATE(discretisation::euler, discretisation::zoh);
    for (const index at_once : {3, 1}) {
        state = {T(1e30), T(5), T(7)};
        for (index t = 0; t < 3; t += at_once)
            deft::selective_scan<T>({.u = {u.data() + t, {1, at_once, 1}},
                                     .delta = {delta.data() + t, {1, at_once, 1}},
                                     .A = {a.data(), {1, 3}},
                                     .B = {b.data() + 3 * t, {1, at_once, 1, 3}},
                                     .C = {c.data() + 3 * t, {1, at_once, 1, 3}}},
                                    {y.data() + t, {1, at_once, 1}}, {state.data(), {1, 1, 3}},
                                    {.step = step_size::identity, .discretisation = rule});
        CHECK(state[0] == 0);
        CHECK(state[1] == 5);
        CHECK_THAT(double(state[2]),
                   Catch::Matchers::WithinRel(7.0, 3.1e-9 + double(std::numeric_limits<T>::epsilon())));
    }
}

TEMPLATE_TEST_CASE("exp2, exp2_less1 and softplus are as accurate as stated", "[selective_scan]", float, double) {
    using T = TestType;
    using arch = simd::default_arch;
    constexpr index width = simd::lanes<T, arch>;
    using B = simd::batch<T, arch>;
    random_values random(7);
    const double eps = double(std::numeric_limits<T>::epsilon());
    const double range = sizeof(T) == 4 ? 125 : 1020;
    double worst_exp2 = 0, worst_less1 = 0, worst_softplus = 0;
    const auto error = [&](T got, long double exact) {
        return double(std::abs((long double)(got)-exact) / std::abs(exact)) / eps;
    };
    for (int turn = 0; turn < 40000; ++turn) {
        T x[std::size_t(width)], e[std::size_t(width)], l[std::size_t(width)], s[std::size_t(width)];
        const double reach = turn % 3 == 0 ? range : turn % 3 == 1 ? 3 : std::pow(10.0, random.number(-8, 0));
        for (T& v : x)
            v = T(random.number(-reach, reach));
        simd::store(e, simd::exp2(simd::load<arch>(x)));
        simd::store(l, simd::exp2_less1(simd::load<arch>(x)));
        simd::store(s, simd::softplus(B(T(0.6)) * simd::load<arch>(x)));
        for (index i = 0; i < width; ++i) {
            worst_exp2 = std::max(worst_exp2, error(e[i], std::exp2((long double)(x[i]))));
            worst_less1 = std::max(worst_less1, error(l[i], std::expm1((long double)(x[i]) * std::log(2.0L))));
            const long double v = (long double)(T(0.6) * x[i]);
            worst_softplus = std::max(worst_softplus, error(s[i], std::log1p(std::exp(v))));
        }
    }
    CAPTURE(worst_exp2, worst_less1, worst_softplus);
    CHECK(worst_exp2 < (sizeof(T) == 4 ? 1.7 : 1));
    CHECK(worst_less1 < (sizeof(T) == 4 ? 8 : 4));
    CHECK(worst_softplus < 2);

    constexpr T inf = std::numeric_limits<T>::infinity();
    const auto first = [](const B& v) {
        T lanes[std::size_t(width)];
        simd::store(lanes, v);
        return lanes[0];
    };
    for (const T low : {simd::detail::exp2_least<T>, T(-1e4), -inf}) {
        CHECK(first(simd::exp2(B(low))) == 0);
        CHECK(first(simd::exp2_less1(B(low))) == -1);
    }
    for (const T high : {T(1) - simd::detail::exp2_least<T>, T(1e4), inf})
        CHECK(first(simd::exp2(B(high))) == inf);
    CHECK(first(simd::exp2(B(T(0)))) == 1);
    CHECK(first(simd::exp2_less1(B(T(0)))) == 0);
    CHECK(std::isnan(first(simd::exp2(B(std::numeric_limits<T>::quiet_NaN())))));
    CHECK(std::isnan(first(simd::softplus(B(std::numeric_limits<T>::quiet_NaN())))));
    CHECK(first(simd::softplus(B(inf))) == inf);
    CHECK(first(simd::softplus(B(-inf))) == 0);
}

TEMPLATE_TEST_CASE("one token: what is not finite stays in its channel, and A may be NaN", "[selective_scan]", float,
                   double) {
    using T = TestType;
    constexpr index channels = 19, states = 11;
    const T nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
    std::vector<T> u(channels, T(1)), a(channels * states, T(-1)), ones(states, T(1)), y(channels),
        state(channels * states, T(0));
    u[3] = nan;
    u[17] = infinity;
    a[5 * states + 2] = -nan;
    deft::selective_scan<T>({.u = {u.data(), {1, 1, channels}},
                             .delta = {std::vector<T>(channels, T(1)).data(), {1, 1, channels}},
                             .A = {a.data(), {channels, states}},
                             .B = {ones.data(), {1, 1, 1, states}},
                             .C = {ones.data(), {1, 1, 1, states}}},
                            {y.data(), {1, 1, channels}}, {state.data(), {1, channels, states}},
                            {.step = step_size::identity});
    for (index c = 0; c < channels; ++c) {
        CAPTURE(c);
        if (c == 3 || c == 5)
            CHECK(std::isnan(y[std::size_t(c)]));
        else
            CHECK(y[std::size_t(c)] == (c == 17 ? infinity : T(states)));
    }
}

TEST_CASE("a long float scan stays near the double one", "[selective_scan]") {
    constexpr index tokens = 20000, channels = 8, states = 4;
    random_values random(8);
    const auto make = [&](const tensor& t) { return std::vector<float>(t.values.begin(), t.values.end()); };
    const auto wide = [](const std::vector<float>& v) { return std::vector<double>(v.begin(), v.end()); };
    const auto u = make(random.uniform({tokens, channels}, 0, 1)),
               delta = make(random.uniform({tokens, channels}, 1e-3, 1e-1)),
               a = make(random.uniform({channels, states}, -4, -1)), b = make(random.uniform({tokens, states}, 0, 1)),
               c = make(random.uniform({tokens, states}, 0, 1));
    const auto run = [&](auto zero, const auto& uv, const auto& dv, const auto& av, const auto& bv, const auto& cv,
                         index chunk) {
        using T = decltype(zero);
        std::vector<T> y(std::size_t(tokens * channels));
        deft::selective_scan<T>({.u = {uv.data(), {1, tokens, channels}},
                                 .delta = {dv.data(), {1, tokens, channels}},
                                 .A = {av.data(), {channels, states}},
                                 .B = {bv.data(), {1, tokens, 1, states}},
                                 .C = {cv.data(), {1, tokens, 1, states}}},
                                {y.data(), {1, tokens, channels}}, absent,
                                {.step = step_size::identity, .chunk = chunk});
        return std::vector<double>(y.begin(), y.end());
    };
    const auto exact = run(0.0, wide(u), wide(delta), wide(a), wide(b), wide(c), 0);
    for (const index chunk : {0, 1000}) {
        const auto got = run(0.0f, u, delta, a, b, c, chunk);
        double worst = 0;
        for (std::size_t i = 0; i < got.size(); ++i)
            worst = std::max(worst, std::abs(got[i] - exact[i]) / exact[i]);
        CHECK(worst < 2e-6);
    }
}

TEMPLATE_TEST_CASE("selective_scan takes 16-bit storage types", "[selective_scan]", Eigen::half, Eigen::bfloat16) {
    using storage = TestType;
    const double roundoff = std::ldexp(1.0, -std::numeric_limits<storage>::digits);
    constexpr index tokens = 9, channels = 21, states = 5;
    random_values random(9);
    const auto narrow = [&](const extents& shape) {
        std::vector<storage> v;
        for (const double x : random.normal(shape).values)
            v.push_back(storage(float(x)));
        return v;
    };
    const auto wide = [](const auto& v) {
        std::vector<double> w;
        for (const auto x : v)
            w.push_back(double(float(x)));
        return w;
    };
    const auto u = narrow({tokens, channels}), delta = narrow({tokens, channels}), z = narrow({tokens, channels}),
               b = narrow({tokens, states}), c = narrow({tokens, states});
    std::vector<float> a, skip;
    for (const double x : random.uniform({channels, states}, -2, 0).values)
        a.push_back(float(x));
    for (const double x : random.normal({channels}).values)
        skip.push_back(float(x));
    std::vector<storage> y(u.size());
    std::vector<float> state(a.size(), 0.5f);
    deft::selective_scan<storage>({.u = {u.data(), {1, tokens, channels}},
                                   .delta = {delta.data(), {1, tokens, channels}},
                                   .A = {a.data(), {channels, states}},
                                   .B = {b.data(), {1, tokens, 1, states}},
                                   .C = {c.data(), {1, tokens, 1, states}},
                                   .D = skip,
                                   .z = {z.data(), {1, tokens, channels}}},
                                  {y.data(), {1, tokens, channels}}, {state.data(), {1, channels, states}});
    const auto u64 = wide(u), delta64 = wide(delta), z64 = wide(z), b64 = wide(b), c64 = wide(c), a64 = wide(a),
               skip64 = wide(skip);
    std::vector<double> expected(u.size()), state64(a.size(), 0.5);
    deft::reference::selective_scan<double>({{u64.data(), {1, tokens, channels}},
                                             {delta64.data(), {1, tokens, channels}},
                                             {a64.data(), {channels, states}},
                                             {b64.data(), {1, tokens, 1, states}},
                                             {c64.data(), {1, tokens, 1, states}},
                                             skip64,
                                             {z64.data(), {1, tokens, channels}},
                                             {},
                                             true,
                                             false},
                                            view<double, 3>(expected.data(), {1, tokens, channels}),
                                            {state64.data(), {1, channels, states}});
    for (std::size_t i = 0; i < y.size(); ++i)
        CHECK(std::abs(double(float(y[i])) - expected[i]) <= 1e-5 + 1.01 * roundoff * std::abs(expected[i]));
}

TEST_CASE("selective_scan rejects bad input", "[selective_scan]") {
    const std::vector<float> data(512, 1.0f);
    const float* const p = data.data();
    const shape<3> size{2, 3, 6};
    const selective_scan_inputs<float> good{.u = {p, size},
                                            .delta = {p, size},
                                            .A = {p, {6, 4}},
                                            .B = {p, {2, 3, 2, 4}},
                                            .C = {p, {2, 3, 2, 4}},
                                            .D = {p, {6}},
                                            .z = {p, size},
                                            .delta_bias = {p, {6}}};
    using inputs = selective_scan_inputs<float>;
    const auto changed = [&](auto change) {
        inputs in = good;
        change(in);
        return in;
    };
    bad_input bad("selective_scan"), bad_backward("selective_scan_backward");
    float* const o = bad.output<float>(128);
    float* const g = bad_backward.output<float>(128);
    const shape<3> kept{2, 6, 4};
    const selective_scan_gradients<float> grad{.u = {g, size},
                                               .delta = {g, size},
                                               .A = {g, {6, 4}},
                                               .B = {g, {2, 3, 2, 4}},
                                               .C = {g, {2, 3, 2, 4}},
                                               .D = {g, {6}},
                                               .z = {g, size},
                                               .delta_bias = {g, {6}},
                                               .state = {g, kept}};
    const auto both = [&](const char* argument, const inputs& in) {
        CHECK(bad.rejects(argument, [=] { deft::selective_scan<float>(in, {o, size}, {o, kept}); }));
        CHECK(bad_backward.rejects(argument, [=] {
            deft::selective_scan_backward<float>(in, absent, {p, size}, absent, grad);
        }));
    };
    both("delta", changed([&](inputs& in) { in.delta = {p, {2, 3, 5}}; }));
    both("A", changed([&](inputs& in) { in.A = {p, {5, 4}}; }));
    both("A", changed([&](inputs& in) { in.A = {p, {6, 0}}; }));
    both("A", changed([&](inputs& in) { in.A = {p, {6, 513}}; }));
    both("B", changed([&](inputs& in) { in.B = {p, {1, 3, 2, 4}}; }));
    both("B", changed([&](inputs& in) { in.B = {p, {2, 2, 2, 4}}; }));
    both("B", changed([&](inputs& in) { in.B = {p, {2, 3, 4, 4}}; }));
    both("B", changed([&](inputs& in) { in.B = {p, {2, 3, 0, 4}}; }));
    both("B", changed([&](inputs& in) { in.B = {p, {2, 3, 2, 5}}; }));
    both("C", changed([&](inputs& in) { in.C = {p, {2, 3, 1, 4}}; }));
    both("D", changed([&](inputs& in) { in.D = {p, {5}}; }));
    both("z", changed([&](inputs& in) { in.z = {p, {2, 3, 7}}; }));
    both("delta_bias", changed([&](inputs& in) { in.delta_bias = {p, {7}}; }));
    CHECK(bad.rejects("y", [=] { deft::selective_scan<float>(good, {o, {2, 3, 5}}, {o, kept}); }));
    CHECK(bad.rejects("state", [=] { deft::selective_scan<float>(good, {o, size}, {o, {2, 6, 5}}); }));
    CHECK(bad.rejects("state", [=] { deft::selective_scan<float>(good, {o, size}, {o, {1, 6, 4}}); }));
    CHECK(bad.rejects("chunk", [=] { deft::selective_scan<float>(good, {o, size}, {o, kept}, {.chunk = -1}); }));

    const auto backward = [&](shape<3> state, shape<3> grad_y, shape<3> last, auto change) {
        selective_scan_gradients<float> to = grad;
        change(to);
        return [=] { deft::selective_scan_backward<float>(good, {p, state}, {p, grad_y}, {p, last}, to); };
    };
    const auto nothing = [](auto&) {};
    using gradients = selective_scan_gradients<float>;
    CHECK(bad_backward.rejects("state", backward({2, 6, 3}, size, kept, nothing)));
    CHECK(bad_backward.rejects("grad_y", backward(kept, {2, 3, 5}, kept, nothing)));
    CHECK(bad_backward.rejects("grad_last", backward(kept, size, {2, 5, 4}, nothing)));
    CHECK(bad_backward.rejects("u", backward(kept, size, kept, [&](gradients& to) { to.u = {g, {2, 3, 5}}; })));
    CHECK(bad_backward.rejects("delta", backward(kept, size, kept, [&](gradients& to) { to.delta = {g, {2, 2, 6}}; })));
    CHECK(bad_backward.rejects("A", backward(kept, size, kept, [&](gradients& to) { to.A = {g, {6, 3}}; })));
    CHECK(bad_backward.rejects("B", backward(kept, size, kept, [&](gradients& to) { to.B = {g, {2, 3, 1, 4}}; })));
    CHECK(bad_backward.rejects("C", backward(kept, size, kept, [&](gradients& to) { to.C = {g, {2, 3, 2, 3}}; })));
    CHECK(bad_backward.rejects("D", backward(kept, size, kept, [&](gradients& to) { to.D = {}; })));
    CHECK(bad_backward.rejects("z", backward(kept, size, kept, [&](gradients& to) { to.z = {}; })));
    CHECK(bad_backward.rejects("delta_bias", backward(kept, size, kept, [&](gradients& to) {
                                   to.delta_bias = {g, {5}};
                               })));
    CHECK(bad_backward.rejects("state", backward(kept, size, kept, [&](gradients& to) { to.state = {}; })));
}

} // namespace deft::testing

#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/ssm/retention_gate.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

TEST_CASE("retention_gate by hand", "[retention_gate]") {
    const std::vector<double> o{3, 4, 1, 7}, gate{1, 2, 3, 4}, weight{10, 100};
    std::vector<double> y(4);
    deft::retention_gate<double>({o.data(), {1, 1, 2, 2}}, {gate.data(), {1, 1, 4}}, weight, {y.data(), {1, 1, 4}},
                                 {.gate = activation::identity, .eps = 0});
    const std::vector<double> rms{30 / std::sqrt(12.5), 800 / std::sqrt(12.5), 30 / 5.0, 2800 / 5.0};
    for (std::size_t i = 0; i < 4; ++i)
        CHECK_THAT(y[i], Catch::Matchers::WithinRel(rms[i], 1e-14));
    deft::retention_gate<double>({o.data(), {1, 1, 2, 2}}, {gate.data(), {1, 1, 4}}, absent, {y.data(), {1, 1, 4}},
                                 {.norm = head_norm::layer, .eps = 0});
    for (std::size_t i = 0; i < 4; ++i) // two values are at -1 and 1
        CHECK_THAT(y[i], Catch::Matchers::WithinRel((i % 2 == 0 ? -1 : 1) * gate[i] / (1 + std::exp(-gate[i])), 1e-14));
}

TEMPLATE_TEST_CASE("zeros, equal values, huge values and saturated gates", "[retention_gate]", float, double) {
    using T = TestType;
    for (const index n : {1, 5, 8, 96, 1000}) {
        const std::vector<T> ones(std::size_t(n), T(1));
        std::vector<T> y(ones.size());
        const auto run = [&](T value, T g, const retention_gate_options& options) {
            const std::vector<T> o(ones.size(), value), gate(ones.size(), g);
            deft::retention_gate<T>({o.data(), {1, 1, 1, n}}, {gate.data(), {1, 1, n}}, absent, {y.data(), {1, 1, n}},
                                    options);
            return double(y.back());
        };
        CAPTURE(n);
        CHECK(run(T(0), T(1), {}) == 0);
        CHECK(std::isnan(run(T(0), T(1), {.eps = 0})));
        CHECK(run(T(0.1), T(1), {.norm = head_norm::layer}) == 0);
        CHECK(run(T(3e5), T(1), {.norm = head_norm::layer, .eps = 1e-12}) == 0);
        CHECK_THAT(run(T(1e8), T(100), {}), Catch::Matchers::WithinRel(100.0, 1e-6));
        CHECK_THAT(run(T(1e8), T(-100), {}), Catch::Matchers::WithinAbs(0.0, 1e-30));
    }
}

TEST_CASE("y may be o", "[retention_gate]") {
    random_values random(1);
    const std::vector<double> o = random.normal({2, 3, 2, 7}).values, gate = random.normal({2, 3, 14}).values;
    std::vector<double> apart(o.size()), shared = o;
    deft::retention_gate<double>({o.data(), {2, 3, 2, 7}}, {gate.data(), {2, 3, 14}}, absent,
                                 {apart.data(), {2, 3, 14}});
    deft::retention_gate<double>({shared.data(), {2, 3, 2, 7}}, {gate.data(), {2, 3, 14}}, absent,
                                 {shared.data(), {2, 3, 14}});
    CHECK(shared == apart);
}

TEST_CASE("retention_gate rejects bad input", "[retention_gate]") {
    const std::vector<float> data(128, 1.0f);
    const float* const p = data.data();
    const shape<4> o{2, 3, 4, 2};
    const shape<3> flat{2, 3, 8};
    const double nan = std::numeric_limits<double>::quiet_NaN();
    bad_input bad("retention_gate"), bad_backward("retention_gate_backward");
    float* const out = bad.output<float>(64);
    float* const g = bad_backward.output<float>(128);
    const auto both = [&](const char* argument, shape<4> of, shape<3> gate, shape<1> weight,
                          const retention_gate_options& options = {}) {
        CHECK(bad.rejects(argument, [=] {
            deft::retention_gate<float>({p, of}, {p, gate}, {p, weight}, {out, gate}, options);
        }));
        CHECK(bad_backward.rejects(argument, [=] {
            deft::retention_gate_backward<float>({p, of}, {p, gate}, {p, weight}, {p, gate}, {g, of}, {g, gate},
                                                 {g, weight}, options);
        }));
    };
    both("o", {2, 3, 4, 0}, {2, 3, 0}, {0});
    both("gate", o, {1, 3, 8}, {2});
    both("gate", o, {2, 2, 8}, {2});
    both("gate", o, {2, 3, 7}, {2});
    both("weight", o, flat, {3});
    both("eps", o, flat, {2}, {.eps = -1});
    both("eps", o, flat, {2}, {.eps = nan});
    both("gate", o, flat, {2}, {.gate = activation::relu});
    CHECK(bad.rejects("y", [=] { deft::retention_gate<float>({p, o}, {p, flat}, absent, {out, {2, 3, 9}}); }));

    const auto backward = [&](shape<3> grad_y, shape<4> grad_o, shape<3> grad_gate, view<float, 1> grad_weight) {
        return [=] {
            deft::retention_gate_backward<float>({p, o}, {p, flat}, {p, {2}}, {p, grad_y}, {g, grad_o}, {g, grad_gate},
                                                 grad_weight);
        };
    };
    const view<float, 1> fit(g, {2});
    CHECK(bad_backward.rejects("grad_y", backward({2, 3, 7}, o, flat, fit)));
    CHECK(bad_backward.rejects("grad_o", backward(flat, {2, 3, 2, 4}, flat, fit)));
    CHECK(bad_backward.rejects("grad_gate", backward(flat, o, {2, 2, 8}, fit)));
    CHECK(bad_backward.rejects("grad_weight", backward(flat, o, flat, {g, {3}})));
    CHECK(bad_backward.rejects("grad_weight", backward(flat, o, flat, absent)));
}

} // namespace deft::testing

#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/pruning/rank_metrics.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

TEMPLATE_TEST_CASE("metrics of known spectra", "[rank_metrics]", float, double) {
    const double eps = 10 * double(std::numeric_limits<TestType>::epsilon());
    const auto near = [&](double x) { return Catch::Matchers::WithinAbs(x, eps * x); };
    const std::vector<TestType> w{0, 4, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0};
    std::vector<TestType> s(3);
    const rank_metrics_result m = deft::rank_metrics<TestType>({w.data(), {4, 3}}, s, {.delta = 0.1});
    CHECK_THAT(double(s[0]), near(4));
    CHECK_THAT(double(s[1]), near(2));
    CHECK_THAT(double(s[2]), near(1));
    CHECK_THAT(m.frobenius, near(std::sqrt(21.0)));
    CHECK_THAT(m.spectral, near(4));
    CHECK_THAT(m.nuclear, near(7));
    CHECK_THAT(m.stable_rank, near(21.0 / 16));
    const double h = -(4 * std::log(4 / 7.0) + 2 * std::log(2 / 7.0) + std::log(1 / 7.0)) / 7;
    CHECK_THAT(m.effective_rank, near(std::exp(h)));
    CHECK(m.numerical_rank == 3);
    CHECK(m.delta_rank == 2); // 1 of 21 is within 0.1, 5 are not
    CHECK(m.tail_rank == 2);
    CHECK(deft::rank_metrics<TestType>({w.data(), {4, 3}}, absent, {.delta = 0.1, .rtol = 0.3}).numerical_rank == 2);
    CHECK(deft::rank_metrics<TestType>({w.data(), {4, 3}}, absent, {.delta = 1}).delta_rank == 0);
    CHECK(deft::rank_metrics<TestType>({w.data(), {4, 3}}, absent, {.delta = 0}).delta_rank == 3);

    // Orthogonal: every rank is full. Rank one: every rank is 1.
    std::vector<TestType> orthogonal, outer, zeros(30, TestType(0));
    for (index i = 0; i < 4; ++i)
        for (index j = 0; j < 4; ++j)
            orthogonal.push_back(TestType((i & j) == 1 || (i & j) == 2 ? -3 : 3));
    for (index i = 0; i < 5; ++i)
        for (index j = 0; j < 6; ++j)
            outer.push_back(TestType((i + 1) * (j - 2)));
    const rank_metrics_result full = deft::rank_metrics<TestType>({orthogonal.data(), {4, 4}}, absent, {.delta = 0.1});
    CHECK_THAT(full.stable_rank, near(4));
    CHECK_THAT(full.effective_rank, near(4));
    CHECK(full.numerical_rank == 4);
    CHECK(full.delta_rank == 4);
    const rank_metrics_result one = deft::rank_metrics<TestType>({outer.data(), {5, 6}}, absent, {.delta = 0.1});
    CHECK_THAT(one.stable_rank, near(1));
    CHECK_THAT(one.effective_rank, Catch::Matchers::WithinAbs(1.0, 1e-5));
    CHECK(one.numerical_rank == 1);
    CHECK(one.delta_rank == 1);
    const rank_metrics_result none = deft::rank_metrics<TestType>({zeros.data(), {5, 6}}, absent, {.delta = 0.1});
    CHECK(none.frobenius + none.spectral + none.nuclear + none.stable_rank + none.effective_rank == 0);
    CHECK(none.numerical_rank + none.delta_rank + none.tail_rank == 0);
}

TEST_CASE("gradients of the norms", "[rank_metrics]") {
    random_values random(2);
    const std::vector<double> w = random.normal({6, 9}).values;
    const shape<2> size{6, 9};
    const auto value = [&](const std::vector<double>& x) {
        const rank_metrics_result m = deft::rank_metrics<double>({x.data(), size}, absent, {.delta = 0});
        return 2 * m.frobenius - 3 * m.spectral;
    };
    std::vector<double> grad(w.size());
    deft::rank_metrics_backward<double>({w.data(), size}, {.frobenius = 2, .spectral = -3}, {grad.data(), size});
    for (std::size_t i = 0; i < w.size(); i += 5) {
        std::vector<double> up = w, down = w;
        up[i] += 1e-5;
        down[i] -= 1e-5;
        CHECK_THAT(grad[i], Catch::Matchers::WithinAbs((value(up) - value(down)) / 2e-5, 1e-8));
    }
}

TEST_CASE("rank_metrics rejects bad input", "[rank_metrics]") {
    std::vector<float> data(12, 1.0f), with_nan = data;
    with_nan[0] = std::numeric_limits<float>::quiet_NaN();
    bad_input bad("rank_metrics"), back("rank_metrics_backward");
    float* const s = bad.output<float>(4);
    const auto call = [&](const float* w, shape<2> size, index values, const rank_metrics_options& options) {
        return [=] { static_cast<void>(deft::rank_metrics<float>({w, size}, {s, {values}}, options)); };
    };
    const float* const p = data.data();
    CHECK(bad.rejects("weight", call(p, {3, 0}, 0, {.delta = 0.1})));
    CHECK(bad.rejects("weight", call(with_nan.data(), {3, 4}, 3, {.delta = 0.1})));
    CHECK(bad.rejects("singular_values", call(p, {3, 4}, 4, {.delta = 0.1})));
    CHECK(bad.rejects("delta", call(p, {3, 4}, 3, {.delta = 1.1})));
    CHECK(bad.rejects("rtol", call(p, {3, 4}, 3, {.delta = 0.1, .rtol = -1})));
    float* const grad = back.output<float>(12);
    CHECK(back.rejects("grad_weight", [=] { deft::rank_metrics_backward<float>({p, {3, 4}}, {}, {grad, {4, 3}}); }));
    CHECK(back.rejects("weight", [&] {
        deft::rank_metrics_backward<float>({with_nan.data(), {3, 4}}, {}, {grad, {3, 4}});
    }));
}

} // namespace deft::testing

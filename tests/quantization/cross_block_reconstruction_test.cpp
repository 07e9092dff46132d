#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/quantization/cross_block_reconstruction.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

TEST_CASE("windows cover all blocks and overlap as asked", "[window_schedule]") {
    for (index blocks = 1; blocks < 12; ++blocks)
        for (index window = 1; window < 6; ++window)
            for (index overlap = 0; overlap < window; ++overlap) {
                const window_options options{.window = window, .overlap = overlap};
                const index count = deft::window_count(blocks, options);
                index covered = 0;
                for (index i = 0; i < count; ++i) {
                    const block_window w = deft::window_schedule(blocks, i, options);
                    CHECK(w.end - w.begin == std::min(window, blocks));
                    CHECK(w.begin <= covered - (i == 0 || i + 1 == count ? 0 : overlap));
                    CHECK(w.end > covered);
                    covered = w.end;
                }
                CHECK(covered == blocks);
            }
}

TEST_CASE("block_distance by hand", "[block_distance]") {
    const std::vector<double> target{0, std::log(3.0)}, pred{0, 0};
    const double kl = 0.25 * std::log(0.5) + 0.75 * std::log(1.5), square = std::log(3.0) * std::log(3.0);
    const in<double, 2> h1(target.data(), {1, 2}), h2(pred.data(), {1, 2});
    CHECK_THAT(deft::block_distance<double>(h1, h2), Catch::Matchers::WithinAbs(square / 2 + kl, 1e-14));
    CHECK_THAT(deft::block_distance<double>(h1, h2, {.kl_weight = 3, .reduction = loss_reduction::sum}),
               Catch::Matchers::WithinAbs(square + 3 * kl, 1e-14));
    // The gradient of the divergence is softmax h2 - softmax h1.
    std::vector<double> g(2);
    deft::block_distance_backward<double>(h1, h2, 1, {g.data(), {1, 2}}, {.reduction = loss_reduction::sum});
    CHECK_THAT(g[0], Catch::Matchers::WithinAbs(0.5 - 0.25, 1e-15));
    CHECK_THAT(g[1], Catch::Matchers::WithinAbs(-2 * std::log(3.0) + 0.5 - 0.75, 1e-14));
}

TEMPLATE_TEST_CASE("equal rows, single columns, and what is not finite", "[block_distance]", float, double) {
    using T = TestType;
    random_values random(15);
    for (const index columns : {1, 2, 7, 8, 33, 1000}) {
        const tensor drawn = random.normal({3, columns}, 50);
        const std::vector<T> h(drawn.values.begin(), drawn.values.end());
        std::vector<T> g(h.size(), T(7));
        const in<T, 2> rows(h.data(), {3, columns});
        CHECK(deft::block_distance_backward<T>(rows, rows, 1, {g.data(), {3, columns}}) == 0);
        CHECK(g == std::vector<T>(h.size(), T(0)));
    }
    const std::vector<T> a{1, 2}, b{3, 5};
    CHECK(deft::block_distance<T>({a.data(), {2, 1}}, {b.data(), {2, 1}}, {.reduction = loss_reduction::sum}) == 4 + 9);
    const std::vector<T> far{T(1e4), T(-1e4), 0}, other{T(-1e4), T(1e4), 0};
    CHECK_THAT(deft::block_distance<T>({far.data(), {1, 3}}, {other.data(), {1, 3}}),
               Catch::Matchers::WithinRel(8e8 / 3 + 2e4, 1e-6));
    for (const T wrong : {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity()}) {
        const std::vector<T> spoilt{0, wrong, 1};
        CHECK_FALSE(std::isfinite(deft::block_distance<T>({far.data(), {1, 3}}, {spoilt.data(), {1, 3}})));
    }
    CHECK(deft::block_distance<T>({nullptr, {0, 3}}, {nullptr, {0, 3}}) == 0);
}

TEST_CASE("Adam by hand, and its first step is the rate", "[adam_step]") {
    std::vector<double> p{1, 1, 1}, m(3), v(3);
    const std::vector<double> g{0.5, -3, 0};
    deft::adam_step<double>(g, 1, p, m, v, {.rate = 0.1});
    CHECK_THAT(p[0], Catch::Matchers::WithinAbs(0.9, 1e-8));
    CHECK_THAT(p[1], Catch::Matchers::WithinAbs(1.1, 1e-8));
    CHECK(p[2] == 1);
    deft::adam_step<double>(g, 2, p, m, v, {.rate = 0.1});
    CHECK_THAT(m[0], Catch::Matchers::WithinAbs(0.05 * 0.9 + 0.05, 1e-15));
    CHECK_THAT(v[0], Catch::Matchers::WithinAbs(0.00025 * 1.999, 1e-15));
    CHECK_THAT(p[0], Catch::Matchers::WithinAbs(0.8, 1e-7));
}

TEST_CASE("the parts of cross-block reconstruction reject bad input", "[window_schedule][block_distance]") {
    bad_input windows("window_schedule");
    const auto schedule = [](index blocks, index window, index overlap, index i = 0) {
        return [=] { deft::window_schedule(blocks, i, {.window = window, .overlap = overlap}); };
    };
    CHECK(windows.rejects("blocks", schedule(0, 2, 1)));
    CHECK(windows.rejects("window", schedule(5, 0, 0)));
    CHECK(windows.rejects("overlap", schedule(5, 2, 2)));
    CHECK(windows.rejects("overlap", schedule(5, 2, -1)));
    CHECK(windows.rejects("i", schedule(5, 2, 1, 4)));
    CHECK(windows.rejects("i", schedule(5, 2, 1, -1)));

    const std::vector<float> data(20, 1.0f);
    const float* const p = data.data();
    bad_input bad("block_distance_backward");
    float* const o = bad.output<float>(20);
    const auto distance = [&](shape<2> pred, shape<2> grad, double kl = 1) {
        return [=] { deft::block_distance_backward<float>({p, {4, 5}}, {p, pred}, 1, {o, grad}, {.kl_weight = kl}); };
    };
    CHECK(bad.rejects("pred", distance({4, 4}, {4, 5})));
    CHECK(bad.rejects("grad_pred", distance({4, 5}, {5, 5})));
    CHECK(bad.rejects("kl_weight", distance({4, 5}, {4, 5}, NAN)));

    bad_input adam("adam_step");
    float* const a = adam.output<float>(20);
    const auto step = [&](index g, index m, index v, index t) {
        return [=] { deft::adam_step<float>({p, {g}}, t, view<float, 1>(a, {5}), {a, {m}}, {a, {v}}); };
    };
    CHECK(adam.rejects("gradient", step(4, 5, 5, 1)));
    CHECK(adam.rejects("first_moment", step(5, 4, 5, 1)));
    CHECK(adam.rejects("second_moment", step(5, 5, 6, 1)));
    CHECK(adam.rejects("t", step(5, 5, 5, 0)));
}

} // namespace deft::testing

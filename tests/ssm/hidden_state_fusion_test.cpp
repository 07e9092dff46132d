#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/ssm/hidden_state_fusion.hpp>
#include <deft/ssm/hidden_state_fusion_backward.hpp>

#include <cmath>
#include <vector>

namespace deft::testing {

TEST_CASE("hidden_state_fusion by hand", "[hidden_state_fusion]") {
    // One hidden unit with silu(w1 x) = 2 sigmoid(2); an identity gate of two channels each.
    const double h = 2 / (1 + std::exp(-2.0));
    const std::vector<double> current{1, 2, 3, 4}, x{2}, past{1, 1, 1, 1, 0, 1, 2, 3}, w1{1}, w2{1, -1},
        weight{1, 2, 3, 4};
    std::vector<double> y(4);
    hidden_state_fusion_inputs<double> in{.current = {current.data(), {1, 4}},
                                          .x = {x.data(), {1, 1}},
                                          .past = {past.data(), {2, 1, 4}},
                                          .w1 = {w1.data(), {1, 1}},
                                          .w2 = {w2.data(), {2, 1}}};
    const std::vector<double> f{1 + h, 2 + 2 * h, 3 - 3 * h, 4 - 4 * h};
    deft::hidden_state_fusion<double>(in, {y.data(), {1, 4}},
                                      {.gate = activation::identity, .gate_group = 2, .norm = fusion_norm::none});
    for (std::size_t i = 0; i < 4; ++i)
        CHECK_THAT(y[i], Catch::Matchers::WithinRel(f[i], 1e-14));

    in.norm_weight = weight;
    deft::hidden_state_fusion<double>(in, {y.data(), {1, 4}},
                                      {.gate = activation::identity, .gate_group = 2, .eps = 0.5});
    const double r = 1 / std::sqrt((f[0] * f[0] + f[1] * f[1] + f[2] * f[2] + f[3] * f[3]) / 4 + 0.5);
    for (std::size_t i = 0; i < 4; ++i)
        CHECK_THAT(y[i], Catch::Matchers::WithinRel(f[i] * r * double(i + 1), 1e-14));
}

TEMPLATE_TEST_CASE("rows of zeros, huge rows and saturated gates", "[hidden_state_fusion]", float, double) {
    using T = TestType;
    const std::vector<T> zeros(8, T(0)), ones(8, T(1)), big(8, T(1e7)), huge(8, T(sizeof(T) == 4 ? 1e30 : 1e300));
    std::vector<T> y(8);
    const auto run = [&](const std::vector<T>& c, const std::vector<T>& p, T w, double eps) {
        const std::vector<T> w1{1}, w2(8, w), x{T(200)};
        deft::hidden_state_fusion<T>({.current = {c.data(), {1, 8}},
                                      .x = {x.data(), {1, 1}},
                                      .past = {p.data(), {1, 1, 8}},
                                      .w1 = {w1.data(), {1, 1}},
                                      .w2 = {w2.data(), {8, 1}}},
                                     {y.data(), {1, 8}}, {.eps = eps});
        return y[0];
    };
    CHECK(run(zeros, zeros, T(1), 1e-6) == 0);
    CHECK(std::isnan(run(zeros, zeros, T(1), 0)));
    CHECK_THAT(double(run(ones, ones, T(-1), 0)), Catch::Matchers::WithinRel(1.0, 1e-6)); // silu(-200) = 0
    CHECK_THAT(double(run(big, big, T(1), 1e-6)), Catch::Matchers::WithinRel(1.0, 1e-6)); // silu(200) = 200
    const T overflowed = run(huge, huge, T(1), 1e-6);
    CHECK((std::isnan(overflowed) || overflowed == 0));
}

TEMPLATE_TEST_CASE("infinite hidden units saturate gates, whatever the width", "[hidden_state_fusion]", float, double) {
    using T = TestType;
    const T huge = T(sizeof(T) == 4 ? 1e30 : 1e300);
    for (const index rows : {3, 9, 20})
        for (const index width : {0, 1, 5, 16, 35, 70}) {
            const std::vector<T> c(std::size_t(rows * width), T(1)), p(std::size_t(rows * width), T(2)), w1{huge},
                w2(std::size_t(width), T(1)), x(std::size_t(rows), huge);
            std::vector<T> y(c.size());
            deft::hidden_state_fusion<T>({.current = {c.data(), {rows, width}},
                                          .x = {x.data(), {rows, 1}},
                                          .past = {p.data(), {1, rows, width}},
                                          .w1 = {w1.data(), {1, 1}},
                                          .w2 = {w2.data(), {width, 1}}},
                                         {y.data(), {rows, width}}, {.gate = activation::sigmoid});
            std::size_t right = 0; // f is 3 everywhere
            for (const T value : y)
                right += std::abs(value - T(1)) < T(1e-6);
            CAPTURE(rows, width);
            CHECK(right == y.size());
        }
}

TEST_CASE("hidden_state_fusion rejects bad input", "[hidden_state_fusion]") {
    const std::vector<float> data(512, 1.0f);
    const float* const p = data.data();
    using inputs = hidden_state_fusion_inputs<float>;
    using gradients = hidden_state_fusion_gradients<float>;
    const inputs good{.current = {p, {3, 6}},
                      .x = {p, {3, 5}},
                      .past = {p, {2, 3, 4}},
                      .w1 = {p, {7, 5}},
                      .w2 = {p, {3, 7}},
                      .proj = {p, {2, 6, 4}},
                      .norm_weight = {p, {6}}};
    bad_input bad("hidden_state_fusion"), bad_backward("hidden_state_fusion_backward");
    float* const o = bad.output<float>(64);
    float* const g = bad_backward.output<float>(64);
    const gradients grad{.current = {g, {3, 6}},
                         .x = {g, {3, 5}},
                         .past = {g, {2, 3, 4}},
                         .w1 = {g, {7, 5}},
                         .w2 = {g, {3, 7}},
                         .proj = {g, {2, 6, 4}},
                         .norm_weight = {g, {6}}};
    const auto both = [&](const char* argument, auto change, hidden_state_fusion_options options = {.gate_group = 2}) {
        inputs in = good;
        change(in);
        CHECK(bad.rejects(argument, [=] { deft::hidden_state_fusion<float>(in, {o, {3, 6}}, options); }));
        CHECK(bad_backward.rejects(argument, [=] {
            deft::hidden_state_fusion_backward<float>(in, {p, {3, 6}}, grad, options);
        }));
    };
    const auto nothing = [](inputs&) {};
    both("x", [&](inputs& in) { in.x = {p, {4, 5}}; });
    both("past", [&](inputs& in) { in.past = {p, {2, 4, 4}}; });
    both("past", [&](inputs& in) { in.proj = {}; }); // Dp is not Dh
    both("w1", [&](inputs& in) { in.w1 = {p, {7, 4}}; });
    both("w2", [&](inputs& in) { in.w2 = {p, {3, 6}}; });
    both("w2", [&](inputs& in) { in.w2 = {p, {2, 7}}; });
    both("proj", [&](inputs& in) { in.proj = {p, {1, 6, 4}}; });
    both("proj", [&](inputs& in) { in.proj = {p, {2, 5, 4}}; });
    both("proj", [&](inputs& in) { in.proj = {p, {2, 6, 3}}; });
    both("norm_weight", [&](inputs& in) { in.norm_weight = {p, {5}}; });
    both("norm_weight", nothing, {.gate_group = 2, .norm = fusion_norm::none});
    both("gate_group", nothing, {.gate_group = 0});
    both("eps", nothing, {.gate_group = 2, .eps = -1e-9});
    both("gate", nothing, {.gate = activation::relu, .gate_group = 2});
    CHECK(bad.rejects("y", [=] { deft::hidden_state_fusion<float>(good, {o, {3, 5}}, {.gate_group = 2}); }));

    const auto backward = [&](shape<2> grad_y, auto change) {
        gradients to = grad;
        change(to);
        return [=] { deft::hidden_state_fusion_backward<float>(good, {p, grad_y}, to, {.gate_group = 2}); };
    };
    CHECK(bad_backward.rejects("grad_y", backward({3, 5}, [](gradients&) {})));
    CHECK(bad_backward.rejects("current", backward({3, 6}, [&](gradients& to) { to.current = {g, {2, 6}}; })));
    CHECK(bad_backward.rejects("x", backward({3, 6}, [&](gradients& to) { to.x = {g, {3, 6}}; })));
    CHECK(bad_backward.rejects("past", backward({3, 6}, [&](gradients& to) { to.past = {g, {1, 3, 4}}; })));
    CHECK(bad_backward.rejects("w1", backward({3, 6}, [&](gradients& to) { to.w1 = {g, {5, 7}}; })));
    CHECK(bad_backward.rejects("w2", backward({3, 6}, [&](gradients& to) { to.w2 = {g, {7, 3}}; })));
    CHECK(bad_backward.rejects("proj", backward({3, 6}, [&](gradients& to) { to.proj = {}; })));
    CHECK(bad_backward.rejects("norm_weight", backward({3, 6}, [&](gradients& to) { to.norm_weight = {}; })));
}

} // namespace deft::testing

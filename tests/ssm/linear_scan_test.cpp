#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/ssm/linear_scan.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

TEST_CASE("linear_scan by hand, in both orders", "[linear_scan]") {
    const std::vector<double> a{2, 3, 5}, b{1, 10, 100}, h0{7};
    std::vector<double> h(3), a_total(1), b_total(1);
    deft::linear_scan<double>({a.data(), {3, 1}}, {b.data(), {3, 1}}, h0, {h.data(), {3, 1}}, a_total, b_total);
    CHECK(h == std::vector<double>{15, 55, 375});
    CHECK(a_total[0] == 30);
    CHECK(b_total[0] == 5 * (3 * 1 + 10) + 100);
    deft::linear_scan<double>({a.data(), {3, 1}}, {b.data(), {3, 1}}, h0, {h.data(), {3, 1}}, a_total, b_total,
                              {.order = scan_order::reverse});
    CHECK(h == std::vector<double>{2 * 415 + 1, 3 * 135 + 10, 135});
    CHECK(b_total[0] == 2 * (3 * 100 + 10) + 1);
}

TEST_CASE("special decays of linear_scan", "[linear_scan]") {
    constexpr double inf = std::numeric_limits<double>::infinity();
    const std::vector<double> a{0, 1, 1, -1, 0.5}, b{3, 4, 0, 1, inf}, h0{1e300};
    std::vector<double> h(5), a_total(1), b_total(1);
    deft::linear_scan<double>({a.data(), {5, 1}}, {b.data(), {5, 1}}, h0, {h.data(), {5, 1}}, absent, absent);
    CHECK(h == std::vector<double>{3, 7, 7, -6, inf});

    for (const index chunk : {0, 3}) {
        deft::linear_scan<double>({nullptr, {0, 1}}, {nullptr, {0, 1}}, h0, {nullptr, {0, 1}}, a_total, b_total,
                                  {.chunk = chunk});
        CHECK(a_total[0] == 1);
        CHECK(b_total[0] == 0);
        deft::linear_scan<double>({nullptr, {0, 1}}, {nullptr, {0, 1}}, h0, {nullptr, {0, 1}}, a_total, b_total,
                                  {.decay = scan_decay::a_minus_one, .chunk = chunk});
        CHECK(a_total[0] == 0);
    }
}

TEST_CASE("h may overwrite b, also by spans", "[linear_scan]") {
    constexpr index rows = 150, columns = 70;
    random_values random(1);
    const std::vector<double> a = random.uniform({rows, columns}, -1, 1).values;
    const std::vector<double> b = random.normal({rows, columns}).values;
    for (const index chunk : {0, 1, 4, 40}) {
        std::vector<double> apart(b.size()), shared = b, totals(4 * columns);
        const view<double, 1> ta(totals.data(), {columns}), tb(totals.data() + columns, {columns}),
            ua(totals.data() + 2 * columns, {columns}), ub(totals.data() + 3 * columns, {columns});
        deft::linear_scan<double>({a.data(), {rows, columns}}, {b.data(), {rows, columns}}, absent,
                                  {apart.data(), {rows, columns}}, ta, tb, {.chunk = chunk});
        deft::linear_scan<double>({a.data(), {rows, columns}}, {shared.data(), {rows, columns}}, absent,
                                  {shared.data(), {rows, columns}}, ua, ub, {.chunk = chunk});
        CHECK(shared == apart);
        for (index c = 0; c < columns; ++c) {
            CHECK(ta(c) == ua(c));
            CHECK(tb(c) == ub(c));
        }
    }
}

TEST_CASE("decays within 1e-7 of 1 are kept as a - 1", "[linear_scan]") {
    // Positive input: h approaches b / (1 - a) and never leaves the neighbourhood of the exact value.
    constexpr index rows = 200000;
    random_values random(3);
    for (const double x : {1e-3, 1e-5, 1e-6, 1e-7})
        for (const index chunk : {0, 25000}) {
            const std::vector<float> a(std::size_t(rows), float(std::expm1(-x)));
            std::vector<float> b(a.size()), h(a.size());
            double exact = 0, worst = 0;
            for (float& v : b)
                v = float(random.number(0, 1));
            deft::linear_scan<float>({a.data(), {rows, 1}}, {b.data(), {rows, 1}}, absent, {h.data(), {rows, 1}},
                                     absent, absent, {.decay = scan_decay::a_minus_one, .chunk = chunk});
            for (std::size_t t = 0; t < h.size(); ++t) {
                exact += double(a[t]) * exact + double(b[t]);
                worst = std::max(worst, std::abs(double(h[t]) - exact) / exact);
            }
            CAPTURE(x, chunk);
            CHECK(worst < 2e-5);
        }
}

TEST_CASE("linear_scan rejects bad input", "[linear_scan]") {
    const std::vector<float> data(64, 1.0f);
    const float* const p = data.data();
    const in<float, 2> a(p, {4, 3});
    bad_input bad("linear_scan");
    float* const o = bad.output<float>(64);
    const auto call = [&](shape<2> b, shape<1> h0, shape<2> h, view<float, 1> at, view<float, 1> bt, index chunk = 0) {
        return [=] { deft::linear_scan<float>(a, {p, b}, {p, h0}, {o, h}, at, bt, {.chunk = chunk}); };
    };
    const view<float, 1> row(o, {3}), wrong(o, {4});
    CHECK(bad.rejects("b", call({3, 3}, {3}, {4, 3}, row, row)));
    CHECK(bad.rejects("b", call({4, 4}, {3}, {4, 3}, row, row)));
    CHECK(bad.rejects("h0", call({4, 3}, {4}, {4, 3}, row, row)));
    CHECK(bad.rejects("h", call({4, 3}, {3}, {4, 2}, row, row)));
    CHECK(bad.rejects("a_total", call({4, 3}, {3}, {4, 3}, wrong, row)));
    CHECK(bad.rejects("b_total", call({4, 3}, {3}, {4, 3}, row, wrong)));
    CHECK(bad.rejects("b_total", call({4, 3}, {3}, {4, 3}, row, absent)));
    CHECK(bad.rejects("b_total", call({4, 3}, {3}, {4, 3}, absent, row)));
    CHECK(bad.rejects("chunk", call({4, 3}, {3}, {4, 3}, row, row, -1)));

    bad_input bad_backward("linear_scan_backward");
    float* const g = bad_backward.output<float>(64);
    const auto backward = [&](shape<2> b, shape<1> h0, shape<2> gh, shape<2> ga, shape<2> gb, shape<1> gh0,
                              index chunk = 0) {
        return [=] {
            deft::linear_scan_backward<float>(a, {p, b}, {p, h0}, {p, gh}, {g, ga}, {g, gb}, {g, gh0},
                                              {.chunk = chunk});
        };
    };
    const shape<2> fit{4, 3};
    CHECK(bad_backward.rejects("b", backward({3, 3}, {3}, fit, fit, fit, {3})));
    CHECK(bad_backward.rejects("h0", backward(fit, {2}, fit, fit, fit, {3})));
    CHECK(bad_backward.rejects("grad_h", backward(fit, {3}, {4, 2}, fit, fit, {3})));
    CHECK(bad_backward.rejects("grad_a", backward(fit, {3}, fit, {5, 3}, fit, {3})));
    CHECK(bad_backward.rejects("grad_b", backward(fit, {3}, fit, fit, {4, 4}, {3})));
    CHECK(bad_backward.rejects("grad_h0", backward(fit, {3}, fit, fit, fit, {4})));
    CHECK(bad_backward.rejects("chunk", backward(fit, {3}, fit, fit, fit, {3}, -2)));
}

} // namespace deft::testing

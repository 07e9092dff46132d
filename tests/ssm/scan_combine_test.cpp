#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/ssm/linear_scan.hpp>
#include <deft/ssm/scan_combine.hpp>

#include <vector>

namespace deft::testing {

TEST_CASE("scan_combine by hand: the later element is applied last", "[scan_combine]") {
    const std::vector<double> a{2, 3}, b{5, 7};
    std::vector<double> a_total(1), b_total(1), prefix_a(2), prefix_b(2);
    deft::scan_combine<double>({a.data(), {2, 1}}, {b.data(), {2, 1}}, a_total, b_total, {prefix_a.data(), {2, 1}},
                               {prefix_b.data(), {2, 1}});
    CHECK(a_total[0] == 6);
    CHECK(b_total[0] == 3 * 5 + 7);
    CHECK(prefix_a == std::vector<double>{1, 2});
    CHECK(prefix_b == std::vector<double>{0, 5});
}

TEST_CASE("spans that were scanned from zero meet in scan_combine", "[scan_combine]") {
    constexpr index rows = 24, columns = 5, spans = 4, length = rows / spans;
    random_values random(1);
    const std::vector<double> a = random.uniform({rows, columns}, 0, 1).values;
    const std::vector<double> b = random.normal({rows, columns}).values, h0 = random.normal({columns}).values;
    std::vector<double> whole(a.size()), by_spans(a.size()), ea(std::size_t(spans * columns)), eb(ea), pa(ea), pb(ea),
        start(columns), total_a(columns), total_b(columns);
    deft::linear_scan<double>({a.data(), {rows, columns}}, {b.data(), {rows, columns}}, h0,
                              {whole.data(), {rows, columns}}, absent, absent);
    const auto span = [&](auto& v, index s) { return v.data() + s * length * columns; };
    for (index s = 0; s < spans; ++s)
        deft::linear_scan<double>({span(a, s), {length, columns}}, {span(b, s), {length, columns}}, absent,
                                  {span(by_spans, s), {length, columns}}, {ea.data() + s * columns, {columns}},
                                  {eb.data() + s * columns, {columns}});
    deft::scan_combine<double>({ea.data(), {spans, columns}}, {eb.data(), {spans, columns}}, total_a, total_b,
                               {pa.data(), {spans, columns}}, {pb.data(), {spans, columns}});
    for (index s = 0; s < spans; ++s) {
        for (index c = 0; c < columns; ++c)
            start[std::size_t(c)] =
                pa[std::size_t(s * columns + c)] * h0[std::size_t(c)] + pb[std::size_t(s * columns + c)];
        deft::linear_scan<double>({span(a, s), {length, columns}}, {span(b, s), {length, columns}}, start,
                                  {span(by_spans, s), {length, columns}}, absent, absent);
    }
    for (std::size_t i = 0; i < whole.size(); ++i)
        CHECK_THAT(by_spans[i], Catch::Matchers::WithinAbs(whole[i], 1e-14));
}

TEST_CASE("scan_combine rejects bad input", "[scan_combine]") {
    const std::vector<float> data(64, 1.0f);
    const float* const p = data.data();
    bad_input bad("scan_combine");
    float* const o = bad.output<float>(64);
    const auto call = [&](shape<2> a, shape<2> b, shape<1> at, shape<1> bt, shape<2> pa, shape<2> pb) {
        return [=] { deft::scan_combine<float>({p, a}, {p, b}, {o, at}, {o, bt}, {o, pa}, {o, pb}); };
    };
    const shape<2> fit{4, 3};
    CHECK(bad.rejects("a", call({0, 3}, {0, 3}, {3}, {3}, {0, 3}, {0, 3})));
    CHECK(bad.rejects("b", call(fit, {4, 2}, {3}, {3}, fit, fit)));
    CHECK(bad.rejects("a_total", call(fit, fit, {2}, {3}, fit, fit)));
    CHECK(bad.rejects("b_total", call(fit, fit, {3}, {4}, fit, fit)));
    CHECK(bad.rejects("prefix_a", call(fit, fit, {3}, {3}, {3, 3}, fit)));
    CHECK(bad.rejects("prefix_b", call(fit, fit, {3}, {3}, fit, {4, 1})));

    bad_input bad_backward("scan_combine_backward");
    float* const g = bad_backward.output<float>(64);
    const auto backward = [&](shape<2> a, shape<2> b, shape<1> at, shape<1> bt, shape<2> ga, shape<2> gb) {
        return [=] { deft::scan_combine_backward<float>({p, a}, {p, b}, {p, at}, {p, bt}, {g, ga}, {g, gb}); };
    };
    CHECK(bad_backward.rejects("a", backward({0, 3}, {0, 3}, {3}, {3}, {0, 3}, {0, 3})));
    CHECK(bad_backward.rejects("b", backward(fit, {3, 3}, {3}, {3}, fit, fit)));
    CHECK(bad_backward.rejects("grad_a_total", backward(fit, fit, {4}, {3}, fit, fit)));
    CHECK(bad_backward.rejects("grad_b_total", backward(fit, fit, {3}, {4}, fit, fit)));
    CHECK(bad_backward.rejects("grad_a", backward(fit, fit, {3}, {3}, {4, 4}, fit)));
    CHECK(bad_backward.rejects("grad_b", backward(fit, fit, {3}, {3}, fit, {1, 3})));
}

} // namespace deft::testing

#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/quantization/lora_rounding.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

namespace {

const quant_format whole{.bits = 4, .granularity = quant_granularity::per_tensor};
const quant_code zero_point = 0;

} // namespace

TEST_CASE("weights past the caches are those of their rows alone", "[lora_rounding]") {
    const index rows = 1100, columns = 8192 + 3; // more than 32 MB of float, rows at all offsets
    std::vector<float> w(std::size_t(rows * columns)), all(w.size() + 1), row(w.size() / std::size_t(rows));
    std::vector<float> a1(w.size() / row.size()), a2(row.size());
    for (std::size_t i = 0; i < w.size(); ++i)
        w[i] = float(i % 977) / 100 - 4;
    for (std::size_t i = 0; i < a1.size(); ++i)
        a1[i] = float(i % 7) - 3;
    for (std::size_t i = 0; i < a2.size(); ++i)
        a2[i] = float(i % 11) / 4 - 1;
    const float scale = 0.5f;
    const auto run = [&](index first, index count, float* to) {
        deft::lora_rounding<float>({w.data() + first * columns, {count, columns}}, {a1.data() + first, {count, 1}},
                                   {a2.data(), {1, columns}}, absent, {&scale, {1, 1}}, {&zero_point, {1, 1}},
                                   {to, {count, columns}}, absent, absent, {.format = whole});
    };
    run(0, rows, all.data() + 1);
    index different = 0;
    for (index r = 0; r < rows; ++r) {
        run(r, 1, row.data());
        different += !std::equal(row.begin(), row.end(), all.begin() + 1 + r * columns);
    }
    CHECK(different == 0);
    CHECK(all[0] == 0);
}

TEMPLATE_TEST_CASE("h over all logits", "[lora_rounding]", float, double) {
    using T = TestType;
    // w = 0 and step 1: w_hat = h. The factors are V and 1.
    std::vector<T> v;
    for (int i = -4000; i <= 4000; ++i)
        v.push_back(T(i) / 1000);
    for (const double far : {1e2, 1e6, 1e30})
        v.insert(v.end(), {T(far), T(-far)});
    const index n = index(v.size());
    const std::vector<T> w(v.size(), T(0));
    std::vector<T> w_hat(v.size()), h(v.size());
    const T one = 1;
    for (const double zeta : {1.1, 1.3, 1.001}) { // the last saturates beyond |V| = 6.9
        deft::lora_rounding<T>({w.data(), {1, n}}, {&one, {1, 1}}, {v.data(), {1, n}}, absent, {&one, {1, 1}},
                               {&zero_point, {1, 1}}, {w_hat.data(), {1, n}}, {h.data(), {1, n}}, absent,
                               {.format = whole, .stretch = {.zeta = zeta, .gamma = 1 - zeta}});
        double worst = 0;
        for (std::size_t i = 0; i < v.size(); ++i) {
            const double t = (2 * zeta - 1) / (1 + std::exp(-double(v[i]))) + 1 - zeta;
            const double expected = std::min(std::max(t, 0.0), 1.0);
            worst = std::max(worst, std::abs(double(h[i]) - expected));
            if (std::abs(double(v[i])) > 50)
                CHECK(h[i] == (v[i] > 0 ? T(1) : T(0)));
        }
        CHECK(worst < (sizeof(T) == 4 ? 2e-7 : 1e-15));
        CHECK(w_hat == h);
    }
}

TEST_CASE("integers stay where they are", "[lora_rounding]") {
    const std::vector<double> w{-3, 0, 2, 7, -8, 9}, down{-10}, up{10}, unit(6, 1.0);
    std::vector<double> w_hat(6);
    const double one = 1;
    const auto run = [&](const std::vector<double>& a1) {
        deft::lora_rounding<double>({w.data(), {1, 6}}, {a1.data(), {1, 1}}, {unit.data(), {1, 6}}, absent,
                                    {&one, {1, 1}}, {&zero_point, {1, 1}}, {w_hat.data(), {1, 6}}, absent, absent,
                                    {.format = whole});
    };
    run(down);
    CHECK(w_hat == std::vector<double>{-3, 0, 2, 7, -8, 7});
    run(up);
    CHECK(w_hat == std::vector<double>{-2, 1, 3, 7, -7, 7});
}

TEST_CASE("from the fraction on, w_hat is w, and its hard form the nearest", "[lora_rounding]") {
    random_values random(9);
    const index rows = 9, columns = 70, r = 3;
    const quant_format format{.bits = 4, .granularity = quant_granularity::per_group, .group_size = 32};
    const std::vector<double> w = random.uniform({rows, columns}, -0.6, 0.6).values,
                              a1 = random.normal({rows, r}).values, a2(std::size_t(r * columns), 0.0);
    const std::vector<double> scale(std::size_t(rows * 3), 0.1);
    const std::vector<quant_code> zero(scale.size(), 0);
    std::vector<double> v0(w.size()), w_hat(w.size()), nearest(w.size());
    const shape<2> size{rows, columns}, steps{rows, 3};
    std::vector<quant_code> q(w.size()), expected(w.size());
    deft::rounding_start<double>({w.data(), size}, {scale.data(), steps}, {zero.data(), steps}, {v0.data(), size},
                                 format);
    for (const rounding_form form : {rounding_form::soft, rounding_form::hard})
        deft::lora_rounding<double>({w.data(), size}, {a1.data(), {rows, r}}, {a2.data(), {r, columns}},
                                    {v0.data(), size}, {scale.data(), steps}, {zero.data(), steps},
                                    {form == rounding_form::soft ? w_hat.data() : nearest.data(), size}, absent,
                                    form == rounding_form::soft ? view<quant_code, 2>()
                                                                : view<quant_code, 2>(q.data(), size),
                                    {.format = format, .form = form});
    std::vector<double> y(w.size());
    deft::fake_quantize<double>({w.data(), size}, {scale.data(), steps}, {zero.data(), steps}, {y.data(), size},
                                {expected.data(), size}, {.format = format});
    for (std::size_t i = 0; i < w.size(); ++i)
        CHECK_THAT(w_hat[i], Catch::Matchers::WithinAbs(w[i], 1e-14));
    CHECK(q == expected);
    CHECK(nearest == y);
}

TEST_CASE("the regulariser joins the gradient in one pass", "[lora_rounding]") {
    random_values random(10);
    const index rows = 20, columns = 300, r = 5;
    const shape<2> size{rows, columns}, left{rows, r}, right{r, columns};
    const auto w = random.normal({rows, columns}).values, a1 = random.normal({rows, r}).values,
               a2 = random.normal({r, columns}, 0.4).values, g = random.normal({rows, columns}).values;
    const std::vector<double> scale(20, 0.3);
    const std::vector<quant_code> zero(20, 0);
    const auto gradients = [&](double weight, std::vector<double>& g1, std::vector<double>& g2) {
        std::vector<double> gs(20);
        g1.resize(a1.size());
        g2.resize(a2.size());
        deft::lora_rounding_backward<double>({w.data(), size}, {a1.data(), left}, {a2.data(), right}, absent,
                                             {scale.data(), {rows, 1}}, {zero.data(), {rows, 1}}, {g.data(), size},
                                             {g1.data(), left}, {g2.data(), right}, {gs.data(), {rows, 1}},
                                             {.format = {.bits = 4}, .loss_weight = weight, .beta = 5});
    };
    std::vector<double> plain1, plain2, both1, both2, own1(a1.size()), own2(a2.size());
    gradients(0, plain1, plain2);
    gradients(0.3, both1, both2);
    deft::rounding_loss_backward<double>({a1.data(), left}, {a2.data(), right}, absent, 0.3, {own1.data(), left},
                                         {own2.data(), right}, {.beta = 5});
    for (std::size_t i = 0; i < own1.size(); ++i)
        CHECK_THAT(both1[i], Catch::Matchers::WithinAbs(plain1[i] + own1[i], 1e-11));
    for (std::size_t i = 0; i < own2.size(); ++i)
        CHECK_THAT(both2[i], Catch::Matchers::WithinAbs(plain2[i] + own2[i], 1e-11));
}

TEST_CASE("the tallest sums keep their digits", "[lora_rounding]") {
    const index rows = 20000, columns = 9, r = 2;
    const shape<2> size{rows, columns}, left{rows, r}, right{r, columns};
    random_values random(11);
    const auto w = random.normal({rows, columns}), a1 = random.uniform({rows, r}, 0, 1),
               a2 = random.uniform({r, columns}, -1, 1), g = random.uniform({rows, columns}, 0, 1);
    const auto run = [&](auto kind) {
        using T = decltype(kind);
        const auto as_type = [](const tensor& t) { return std::vector<T>(t.values.begin(), t.values.end()); };
        const std::vector<T> wt = as_type(w), a1t = as_type(a1), a2t = as_type(a2), gt = as_type(g);
        const T scale = T(0.5);
        T gs = 0;
        std::vector<T> g1(a1t.size()), g2(a2t.size());
        deft::lora_rounding_backward<T>({wt.data(), size}, {a1t.data(), left}, {a2t.data(), right}, absent,
                                        {&scale, {1, 1}}, {&zero_point, {1, 1}}, {gt.data(), size}, {g1.data(), left},
                                        {g2.data(), right}, {&gs, {1, 1}}, {.format = whole});
        std::vector<double> all(g2.begin(), g2.end());
        all.push_back(double(gs));
        return all;
    };
    const std::vector<double> exact = run(0.0), got = run(0.0f);
    for (std::size_t i = 0; i < exact.size(); ++i)
        CHECK_THAT(got[i], Catch::Matchers::WithinRel(exact[i], 5e-6));
}

TEST_CASE("lora_rounding rejects bad input", "[lora_rounding]") {
    const std::vector<float> data(64, 1.0f);
    const std::vector<quant_code> zeros(8, 0);
    const float* const p = data.data();
    const quant_code* const z = zeros.data();
    bad_input bad("lora_rounding");
    float* const o = bad.output<float>(64);
    quant_code* const codes = bad.output<quant_code>(64);
    const shape<2> size{4, 5}, left{4, 2}, right{2, 5}, row{4, 1};
    const auto call = [&](shape<2> a1, shape<2> a2, in<float, 2> v0, shape<2> s, shape<2> to, view<float, 2> h,
                          view<quant_code, 2> q, lora_rounding_options options) {
        return [=] {
            deft::lora_rounding<float>({p, size}, {p, a1}, {p, a2}, v0, {p, s}, {z, s}, {o, to}, h, q, options);
        };
    };
    const lora_rounding_options soft{.format = {.bits = 4}}, hard{.format = {.bits = 4}, .form = rounding_form::hard};
    const view<quant_code, 2> no_codes;
    const view<float, 2> no_h;
    CHECK(bad.rejects("a1", call({3, 2}, right, absent, row, size, no_h, no_codes, soft)));
    CHECK(bad.rejects("a1", call({4, 0}, {0, 5}, absent, row, size, no_h, no_codes, soft)));
    CHECK(bad.rejects("a2", call(left, {2, 4}, absent, row, size, no_h, no_codes, soft)));
    CHECK(bad.rejects("a2", call(left, {3, 5}, absent, row, size, no_h, no_codes, soft)));
    CHECK(bad.rejects("v0", call(left, right, {p, {4, 4}}, row, size, no_h, no_codes, soft)));
    CHECK(bad.rejects("scale", call(left, right, absent, {1, 1}, size, no_h, no_codes, soft)));
    CHECK(bad.rejects("w_hat", call(left, right, absent, row, {5, 5}, no_h, no_codes, soft)));
    CHECK(bad.rejects("h", call(left, right, absent, row, size, {o, {4, 4}}, no_codes, soft)));
    CHECK(bad.rejects("q", call(left, right, absent, row, size, no_h, {codes, {4, 4}}, hard)));
    CHECK(bad.rejects("q", call(left, right, absent, row, size, no_h, {codes, size}, soft)));
    CHECK(bad.rejects(
        "zeta", call(left, right, absent, row, size, no_h, no_codes, {.format = {.bits = 4}, .stretch = {.zeta = 1}})));
    CHECK(bad.rejects("gamma", call(left, right, absent, row, size, no_h, no_codes,
                                    {.format = {.bits = 4}, .stretch = {.gamma = 0.1}})));
    CHECK(bad.rejects("bits", call(left, right, absent, row, size, no_h, no_codes, {.format = {.bits = 12}})));

    bad_input back("lora_rounding_backward");
    float* const g = back.output<float>(64);
    const auto backward = [&](shape<2> gw, shape<2> g1, shape<2> g2, shape<2> gs, double beta = 2) {
        return [=] {
            deft::lora_rounding_backward<float>({p, size}, {p, left}, {p, right}, absent, {p, row}, {z, row}, {p, gw},
                                                {g, g1}, {g, g2}, {g, gs}, {.format = {.bits = 4}, .beta = beta});
        };
    };
    CHECK(back.rejects("grad_w_hat", backward({4, 4}, left, right, row)));
    CHECK(back.rejects("grad_a1", backward(size, right, right, row)));
    CHECK(back.rejects("grad_a2", backward(size, left, left, row)));
    CHECK(back.rejects("grad_scale", backward(size, left, right, {1, 1})));
    CHECK(back.rejects("beta", backward(size, left, right, row, 0)));
}

} // namespace deft::testing

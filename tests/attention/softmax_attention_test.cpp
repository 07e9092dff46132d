#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/attention/softmax_attention.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

TEST_CASE("parts over disjoint keys merge by their sums", "[softmax_attention]") {
    const index nq = 5, n = 150, d = 7, e = 4, cut = 70;
    random_values random(3);
    const std::vector<double> q = random.normal({nq, d}).values, k = random.normal({n, d}).values;
    const std::vector<double> v = random.normal({n, e}).values;
    const auto run = [&](index begin, index count, std::vector<double>& lse) {
        std::vector<double> o(std::size_t(nq * e));
        lse.resize(std::size_t(nq));
        deft::softmax_attention<double>({q.data(), {1, 1, nq, d}}, {k.data() + begin * d, {1, 1, count, d}},
                                        {v.data() + begin * e, {1, 1, count, e}}, absent,
                                        view<double, 4>(o.data(), {1, 1, nq, e}), {lse.data(), {1, 1, nq}},
                                        {.mask = attention_mask::full});
        return o;
    };
    std::vector<double> l, l1, l2;
    const auto whole = run(0, n, l), first = run(0, cut, l1), second = run(cut, n - cut, l2);
    for (std::size_t i = 0; i < whole.size(); ++i) {
        const std::size_t row = i / std::size_t(e);
        const double top = std::max(l1[row], l2[row]),
                     all = top + std::log(std::exp(l1[row] - top) + std::exp(l2[row] - top));
        CHECK_THAT(l[row], Catch::Matchers::WithinAbs(all, 1e-13));
        CHECK_THAT(whole[i], Catch::Matchers::WithinAbs(
                                 std::exp(l1[row] - all) * first[i] + std::exp(l2[row] - all) * second[i], 1e-13));
    }
}

TEMPLATE_TEST_CASE("scores of any size are valid", "[softmax_attention]", float, double) {
    using T = TestType;
    const std::vector<T> q{T(1e4), T(-1e4)}, k{T(1e4), T(-1e4), T(9e3)}, v{1, 2, 4};
    std::vector<T> o(2), lse(2);
    deft::softmax_attention<T>({q.data(), {1, 1, 2, 1}}, {k.data(), {1, 1, 3, 1}}, {v.data(), {1, 1, 3, 1}}, absent,
                               view<T, 4>(o.data(), {1, 1, 2, 1}), {lse.data(), {1, 1, 2}},
                               {.mask = attention_mask::full});
    CHECK(o == std::vector<T>{1, 2});
    CHECK(lse == std::vector<T>{T(1e8), T(1e8)});
}

TEST_CASE("a query that sees nothing gives 0 and no gradient", "[softmax_attention]") {
    const std::vector<float> x(6, 1.0f);
    const std::vector<std::uint8_t> hidden(3, 0);
    std::vector<float> o(6, 7.0f), lse(3), gq(6, 7.0f), gk(6, 7.0f), gv(6, 7.0f);
    const shape<4> all{1, 1, 3, 2};
    deft::softmax_attention<float>({x.data(), all}, {x.data(), all}, {x.data(), all}, {hidden.data(), {1, 3}},
                                   view<float, 4>(o.data(), all), {lse.data(), {1, 1, 3}});
    CHECK(o == std::vector<float>(6, 0.0f));
    CHECK(lse == std::vector<float>(3, -std::numeric_limits<float>::infinity()));
    deft::softmax_attention_backward<float>({x.data(), all}, {x.data(), all}, {x.data(), all}, {hidden.data(), {1, 3}},
                                            {x.data(), all}, view<float, 4>(gq.data(), all), {gk.data(), all},
                                            {gv.data(), all});
    CHECK((gq == o && gk == o && gv == o));
}

TEST_CASE("softmax_attention rejects what does not fit", "[softmax_attention]") {
    bad_input bad("softmax_attention");
    const std::vector<float> x(200, 1.0f);
    const std::vector<std::uint8_t> mask(9, 1);
    float* const out = bad.output<float>(200);
    const auto call = [&](shape<4> k, shape<4> v, shape<2> of_mask, shape<4> o, shape<3> lse, double scale = 1) {
        deft::softmax_attention<float>({x.data(), {1, 4, 3, 5}}, {x.data(), k}, {x.data(), v}, {mask.data(), of_mask},
                                       view<float, 4>(out, o), {out, lse}, {.scale = scale});
    };
    const shape<4> k{1, 2, 6, 5}, v{1, 2, 6, 3}, o{1, 4, 3, 3};
    const shape<3> lse{1, 4, 3};
    CHECK(bad.rejects("k", [&] { call({1, 2, 6, 4}, v, {1, 6}, o, lse); }));
    CHECK(bad.rejects("k", [&] { call({2, 2, 6, 5}, v, {1, 6}, o, lse); }));
    CHECK(bad.rejects("k", [&] { call({1, 2, 0, 5}, {1, 2, 0, 3}, {1, 0}, o, lse); }));
    CHECK(bad.rejects("q", [&] { call({1, 3, 6, 5}, {1, 3, 6, 3}, {1, 6}, o, lse); }));
    CHECK(bad.rejects("v", [&] { call(k, {1, 2, 5, 3}, {1, 6}, o, lse); }));
    CHECK(bad.rejects("key_mask", [&] { call(k, v, {1, 5}, o, lse); }));
    CHECK(bad.rejects("o", [&] { call(k, v, {1, 6}, {1, 4, 3, 2}, lse); }));
    CHECK(bad.rejects("lse", [&] { call(k, v, {1, 6}, o, {1, 4, 2}); }));
    CHECK(bad.rejects("scale", [&] { call(k, v, {1, 6}, o, lse, std::nan("")); }));
}

} // namespace deft::testing

#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/generate.hpp"

#include <deft/pruning/low_rank_approximation.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

namespace {

template <class T>
struct factors {
    std::vector<T> approx, u, s, v;
    low_rank_result result{0, 0, low_rank_method::exact};

    factors(const std::vector<T>& w, shape<2> size, index columns, const low_rank_options& options) {
        const index m = size.extents[0], n = size.extents[1];
        approx.resize(std::size_t(m * n));
        u.resize(std::size_t(m * columns));
        s.resize(std::size_t(columns));
        v.resize(std::size_t(n * columns));
        result = deft::low_rank_approximation<T>({w.data(), size}, absent, {approx.data(), size},
                                                 {u.data(), {m, columns}}, s, {v.data(), {n, columns}}, options);
    }
};

/// Largest entry of X^T X - 1 for the first k columns of X [rows, columns].
template <class T>
double away_from_orthonormal(const std::vector<T>& x, index rows, index columns, index k) {
    double worst = 0;
    for (index a = 0; a < k; ++a)
        for (index b = 0; b < k; ++b) {
            double sum = a == b ? -1 : 0;
            for (index i = 0; i < rows; ++i)
                sum += double(x[std::size_t(i * columns + a)]) * double(x[std::size_t(i * columns + b)]);
            worst = std::max(worst, std::abs(sum));
        }
    return worst;
}

std::vector<double> of_type(const std::vector<double>& x, double) {
    return x;
}
std::vector<float> of_type(const std::vector<double>& x, float) {
    return {x.begin(), x.end()};
}

} // namespace

TEMPLATE_TEST_CASE("factors are orthonormal and make up the approximation", "[low_rank_approximation]", float, double) {
    random_values random(1);
    const double eps = double(std::numeric_limits<TestType>::epsilon());
    for (const shape<2>& size : {shape<2>{30, 50}, shape<2>{50, 30}, shape<2>{150, 140}})
        for (const low_rank_method method : {low_rank_method::exact, low_rank_method::gram}) {
            const index m = size.extents[0], n = size.extents[1], r = std::min(m, n);
            const auto w = of_type(random.normal({m, n}).values, TestType());
            for (const index k : {index(1), r / 2, r - 1, r}) {
                const factors<TestType> f(w, size, r, {.rank = {.mode = rank_mode::k, .rank = k}, .method = method});
                CHECK(f.result.rank == k);
                CHECK(away_from_orthonormal(f.u, m, r, k) <= 10 * eps * double(r));
                // A square matrix of noise has a smallest singular value of about 1 / r.
                CHECK(away_from_orthonormal(f.v, n, r, k) <= 100 * eps * double(r));
                std::vector<TestType> product(w.size());
                for (index i = 0; i < m; ++i)
                    for (index j = 0; j < n; ++j) {
                        double sum = 0;
                        for (index c = 0; c < k; ++c)
                            sum += double(f.u[std::size_t(i * r + c)]) * double(f.s[std::size_t(c)]) *
                                   double(f.v[std::size_t(j * r + c)]);
                        product[std::size_t(i * n + j)] = TestType(sum);
                    }
                CHECK(largest_difference(product, f.approx) <= 50 * eps * double(f.s[0]));
                double tail = 0;
                const factors<TestType> all(w, size, r, {.rank = {.mode = rank_mode::k, .rank = r}, .method = method});
                for (index c = k; c < r; ++c)
                    tail += std::pow(double(all.s[std::size_t(c)]), 2);
                CHECK_THAT(f.result.error, Catch::Matchers::WithinAbs(tail, 1e3 * eps * double(f.s[0] * f.s[0])));
                if (k == r)
                    CHECK(f.approx == w);
                for (index c = k; c < r; ++c)
                    CHECK(f.s[std::size_t(c)] == 0);
            }
        }
}

TEMPLATE_TEST_CASE("weights that lack rank get a whole basis", "[low_rank_approximation]", float, double) {
    const double eps = double(std::numeric_limits<TestType>::epsilon());
    std::vector<TestType> w;
    for (index i = 0; i < 9; ++i)
        for (index j = 0; j < 14; ++j)
            w.push_back(TestType((i - 3) * (j + 1) + (i % 2) * (j % 3)));
    for (const bool tall : {false, true}) {
        const shape<2> size = tall ? shape<2>{14, 9} : shape<2>{9, 14};
        std::vector<TestType> given = w;
        for (index i = 0; tall && i < 9; ++i)
            for (index j = 0; j < 14; ++j)
                given[std::size_t(j * 9 + i)] = w[std::size_t(i * 14 + j)];
        const factors<TestType> f(given, size, 9, {.rank = {.mode = rank_mode::k, .rank = 6}});
        CHECK(away_from_orthonormal(f.u, size.extents[0], 9, 6) <= 1e3 * eps);
        CHECK(away_from_orthonormal(f.v, size.extents[1], 9, 6) <= 1e3 * eps);
        CHECK(double(f.s[2]) <= 20 * eps * double(f.s[0]));
        CHECK(largest_difference(f.approx, given) <= 20 * eps * double(f.s[0]));
        CHECK(
            factors<TestType>(given, size, 9, {.rank = {.mode = rank_mode::energy, .energy = 0.999999}}).result.rank ==
            2);
    }
}

TEST_CASE("exact singular values below the roots of eps", "[low_rank_approximation]") {
    // Rows of a Hadamard matrix times 1, 1e-2, ..., 1e-14: the singular values are known, and their squares vanish.
    const index n = 8;
    std::vector<double> w;
    for (index i = 0; i < n; ++i)
        for (index j = 0; j < n; ++j)
            w.push_back((__builtin_popcountll(std::uint64_t(i & j)) % 2 == 0 ? 1 : -1) *
                        std::pow(10.0, -2.0 * double(i)));
    for (const low_rank_method method : {low_rank_method::exact, low_rank_method::gram}) {
        const factors<double> f(w, {n, n}, n, {.rank = {.mode = rank_mode::k, .rank = n}, .method = method});
        for (index i = 0; i < n; ++i)
            CHECK_THAT(f.s[std::size_t(i)] / (std::sqrt(8.0) * std::pow(10.0, -2.0 * double(i))),
                       Catch::Matchers::WithinAbs(1.0, 1e-13));
    }
}

TEMPLATE_TEST_CASE("extreme magnitudes change nothing but the scale", "[low_rank_approximation]", float, double) {
    random_values random(4);
    const auto w = of_type(random.normal({12, 17}).values, TestType());
    const low_rank_options options{.rank = {.mode = rank_mode::tail, .tail_energy = 0.2}};
    const factors<TestType> f(w, {12, 17}, 12, options);
    const int most = std::numeric_limits<TestType>::max_exponent - 6,
              least = std::numeric_limits<TestType>::min_exponent + 30;
    for (const int exponent : {most, least}) {
        std::vector<TestType> scaled;
        for (const TestType x : w)
            scaled.push_back(std::ldexp(x, exponent));
        const factors<TestType> g(scaled, {12, 17}, 12, options);
        CHECK(g.result.rank == f.result.rank);
        CHECK(g.u == f.u);
        CHECK(g.v == f.v);
        for (index i = 0; i < 12; ++i)
            CHECK(g.s[std::size_t(i)] == std::ldexp(f.s[std::size_t(i)], exponent));
    }
}

TEST_CASE("randomised approximations are near the best, and the same for a seed", "[low_rank_approximation]") {
    random_values random(5);
    const shape<2> size{90, 140};
    const std::vector<double> noise = random.normal({90, 140}).values;
    std::vector<float> w(noise.begin(), noise.end());
    const low_rank_options best{.rank = {.mode = rank_mode::k, .rank = 10}, .method = low_rank_method::exact};
    low_rank_options sampled = best;
    sampled.method = low_rank_method::randomized;
    const double least = factors<float>(w, size, 10, best).result.error;
    double before = std::numeric_limits<double>::infinity();
    for (const index power : {0, 1, 2, 4}) {
        sampled.power_iterations = power;
        const factors<float> f(w, size, 10, sampled), again(w, size, 10, sampled);
        CHECK(f.approx == again.approx);
        CHECK(f.u == again.u);
        CHECK(f.result.error >= least * (1 - 1e-6));
        CHECK(f.result.error <= before);
        before = f.result.error;
        sampled.seed = 2;
        CHECK(factors<float>(w, size, 10, sampled).approx != f.approx);
        sampled.seed = 1;
    }
    CHECK(std::sqrt(before) <= 1.01 * std::sqrt(least));
    // A sample that is larger than the rank of the weight.
    std::vector<float> thin(w.size());
    for (index i = 0; i < 90; ++i)
        for (index j = 0; j < 140; ++j)
            thin[std::size_t(i * 140 + j)] = float((i + 1) % 7) * float(j % 5 - 2);
    const factors<float> f(thin, size, 10, sampled);
    CHECK(largest_difference(f.approx, thin) <= 1e-5 * double(f.s[0]));
}

TEST_CASE("automatic chooses by shape, rank and accuracy", "[low_rank_approximation]") {
    random_values random(6);
    const std::vector<double> w = random.normal({100, 120}).values;
    const auto chosen = [&](index k, double accuracy, rank_mode mode = rank_mode::k) {
        return factors<double>(w, {100, 120}, 100,
                               {.rank = {.mode = mode, .rank = k, .energy = 0.5}, .accuracy = accuracy})
            .result.method;
    };
    CHECK(chosen(20, 0) == low_rank_method::exact);
    CHECK(chosen(20, 1e-6) == low_rank_method::gram);
    CHECK(chosen(20, 0.05) == low_rank_method::randomized);
    CHECK(chosen(60, 0.05) == low_rank_method::gram);
    CHECK(chosen(20, 0.05, rank_mode::energy) == low_rank_method::gram);
}

TEST_CASE("ranks by hand", "[low_rank_approximation]") {
    const std::vector<double> w{4, 0, 0, 0, 2, 0, 0, 0, 1}; // squares 16, 4, 1 of 21
    const auto rank_of = [&](const rank_choice& choice) {
        return factors<double>(w, {3, 3}, 3, {.rank = choice}).result.rank;
    };
    CHECK(rank_of({.mode = rank_mode::energy, .energy = 0}) == 0);
    CHECK(rank_of({.mode = rank_mode::energy, .energy = 0.76}) == 1);
    CHECK(rank_of({.mode = rank_mode::energy, .energy = 0.77}) == 2);
    CHECK(rank_of({.mode = rank_mode::energy, .energy = 1}) == 3);
    CHECK(rank_of({.mode = rank_mode::tail, .tail_energy = 0}) == 2);         // at least one value is cut
    CHECK(rank_of({.mode = rank_mode::tail, .tail_energy = 3.01 / 21}) == 1); // 5 is closer than 1
    CHECK(rank_of({.mode = rank_mode::tail, .tail_energy = 3.0 / 21 - 1e-9}) == 2);
    CHECK(rank_of({.mode = rank_mode::tail, .tail_energy = 1}) == 0);
}

TEST_CASE("low_rank_approximation rejects bad input", "[low_rank_approximation]") {
    std::vector<float> data(64, 1.0f), with_inf = data;
    with_inf[3] = std::numeric_limits<float>::infinity();
    bad_input bad("low_rank_approximation");
    float* const approx = bad.output<float>(64);
    float* const u = bad.output<float>(64);
    float* const s = bad.output<float>(64);
    float* const v = bad.output<float>(64);
    struct arguments {
        const float* weight;
        shape<2> size{3, 4}, omega{0, 0}, approx{3, 4}, u{3, 3}, v{4, 3};
        index s = 3;
        low_rank_options options{.rank = {.mode = rank_mode::k, .rank = 2}};
    };
    const auto call = [&](const arguments& a) {
        return [=] {
            deft::low_rank_approximation<float>({a.weight, a.size},
                                                {a.omega.extents[0] == 0 ? nullptr : a.weight, a.omega},
                                                {approx, a.approx}, {u, a.u}, {s, {a.s}}, {v, a.v}, a.options);
        };
    };
    const float* const p = data.data();
    CHECK(bad.rejects("weight", call({.weight = p, .size = {0, 4}, .approx = {0, 4}, .u = {0, 3}})));
    CHECK(bad.rejects("weight", call({.weight = with_inf.data()})));
    CHECK(bad.rejects("approx", call({.weight = p, .approx = {4, 3}})));
    CHECK(bad.rejects("u", call({.weight = p, .u = {4, 3}})));
    CHECK(bad.rejects("u", call({.weight = p, .u = {3, 1}})));
    CHECK(bad.rejects("s", call({.weight = p, .s = 1})));
    CHECK(bad.rejects("v", call({.weight = p, .v = {3, 3}})));
    CHECK(bad.rejects("v", call({.weight = p, .v = {4, 1}})));
    CHECK(bad.rejects("rank", call({.weight = p, .options = {.rank = {.mode = rank_mode::k, .rank = -1}}})));
    CHECK(bad.rejects("energy", call({.weight = p, .options = {.rank = {.mode = rank_mode::energy, .energy = 1.1}}})));
    CHECK(bad.rejects("tail_energy",
                      call({.weight = p, .options = {.rank = {.mode = rank_mode::tail, .tail_energy = -0.1}}})));
    const rank_choice two{.mode = rank_mode::k, .rank = 2};
    const auto random = low_rank_method::randomized;
    CHECK(bad.rejects("omega", call({.weight = p, .omega = {3, 3}, .options = {.rank = two, .method = random}})));
    CHECK(bad.rejects("omega", call({.weight = p, .omega = {4, 1}, .options = {.rank = two, .method = random}})));
    CHECK(bad.rejects("mode", call({.weight = p, .options = {.rank = {.mode = rank_mode::energy}, .method = random}})));
    CHECK(bad.rejects("oversample", call({.weight = p, .options = {.rank = two, .oversample = -1}})));
    CHECK(bad.rejects("power_iterations", call({.weight = p, .options = {.rank = two, .power_iterations = -1}})));

    bad_input back("low_rank_approximation_backward");
    float* const grad = back.output<float>(64);
    const auto backward = [&](const float* w, shape<2> size, shape<2> g, shape<2> to) {
        return [=] {
            deft::low_rank_approximation_backward<float>({w, size}, {w, g}, {grad, to},
                                                         {.mode = rank_mode::k, .rank = 1});
        };
    };
    CHECK(back.rejects("grad_approx", backward(p, {3, 4}, {4, 3}, {3, 4})));
    CHECK(back.rejects("grad_weight", backward(p, {3, 4}, {3, 4}, {4, 3})));
    CHECK(back.rejects("weight", backward(with_inf.data(), {3, 4}, {3, 4}, {3, 4})));
}

} // namespace deft::testing

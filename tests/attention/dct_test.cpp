#include "support/allocations.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/attention/dct.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

namespace deft::testing {

namespace {

using row_major = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr dct_kind all_kinds[] = {dct_kind::dct2, dct_kind::dct3, dct_kind::dct4};
constexpr dct_algorithm both_algorithms[] = {dct_algorithm::fft, dct_algorithm::dense};

/// The transform of the unit vectors: M^T.
row_major matrix_of(index n, dct_kind kind, dct_algorithm algorithm) {
    dct_plan<double> plan(n, kind, {.algorithm = algorithm});
    row_major m = row_major::Identity(n, n);
    deft::dct(m, m, plan);
    return m.transpose();
}

} // namespace

TEST_CASE("dct of known vectors", "[dct]") {
    const std::vector<double> x{1, 2, 3};
    // By hand: sums of x with (1, 1, 1), (cos 30, 0, -cos 30), (1/2, -1, 1/2) and their scales; likewise for the rest.
    const std::vector<double> expected[] = {{6 / std::sqrt(3.0), -2 * std::sqrt(0.75) * std::sqrt(2.0 / 3), 0},
                                            {1 / std::sqrt(3.0) + std::sqrt(2.0 / 3) * (2 * std::sqrt(0.75) + 1.5),
                                             1 / std::sqrt(3.0) - 3 * std::sqrt(2.0 / 3),
                                             1 / std::sqrt(3.0) + std::sqrt(2.0 / 3) * (1.5 - 2 * std::sqrt(0.75))}};
    for (const dct_algorithm algorithm : both_algorithms)
        for (const int kind : {2, 3}) {
            dct_plan<double> plan(3, dct_kind(kind), {.algorithm = algorithm});
            std::vector<double> y(3);
            deft::dct(x, y, plan);
            for (std::size_t i = 0; i < 3; ++i)
                CHECK(std::abs(y[i] - expected[kind - 2][i]) <= 1e-15 * 4);
        }
}

TEST_CASE("dct is orthogonal, and its kinds are each other's transposes", "[dct]") {
    for (const dct_algorithm algorithm : both_algorithms)
        for (const index n : {1, 2, 3, 4, 7, 8, 9, 15, 16, 30, 49, 63, 64, 80, 97, 100, 121}) {
            CAPTURE(n);
            for (const dct_kind kind : all_kinds) {
                const row_major m = matrix_of(n, kind, algorithm);
                CHECK((m * m.transpose() - row_major::Identity(n, n)).cwiseAbs().maxCoeff() <= 1e-14);
            }
            const row_major second = matrix_of(n, dct_kind::dct2, algorithm);
            const row_major third = matrix_of(n, dct_kind::dct3, algorithm);
            const row_major fourth = matrix_of(n, dct_kind::dct4, algorithm);
            CHECK((second - third.transpose()).cwiseAbs().maxCoeff() <= 1e-15);
            CHECK((fourth - fourth.transpose()).cwiseAbs().maxCoeff() <= 2e-15);
        }
}

TEST_CASE("dct_backward inverts dct, in place", "[dct]") {
    random_values random(1);
    for (const dct_kind kind : all_kinds)
        for (const index n : {1, 5, 64, 96, 135, 1024}) {
            dct_plan<double> plan(n, kind);
            const std::vector<double> x = random.normal({13, n}).values;
            std::vector<double> y(x);
            const view<double, 2> rows(y.data(), {13, n});
            deft::dct(rows, rows, plan);
            deft::dct_backward(rows, rows, plan);
            double worst = 0;
            for (std::size_t i = 0; i < x.size(); ++i)
                worst = std::max(worst, std::abs(y[i] - x[i]));
            CHECK(worst <= 1e-14);
        }
}

TEST_CASE("dct in float keeps its digits at long lengths", "[dct]") {
    random_values random(2);
    for (const index n : {1024, 4096, 6000, 1155}) {
        CAPTURE(n);
        const tensor x = random.normal({9, n});
        const std::vector<float> in_float(x.values.begin(), x.values.end());
        std::vector<float> y(in_float.size());
        std::vector<double> exact(x.values.size());
        for (const dct_kind kind : all_kinds) {
            dct_plan<float> plan(n, kind, {.algorithm = dct_algorithm::fft});
            dct_plan<double> exact_plan(n, kind, {.algorithm = dct_algorithm::fft});
            deft::dct<float>({in_float.data(), {9, n}}, view<float, 2>(y.data(), {9, n}), plan);
            deft::dct<double>({x.values.data(), {9, n}}, view<double, 2>(exact.data(), {9, n}), exact_plan);
            double worst = 0, largest = 0;
            for (std::size_t i = 0; i < y.size(); ++i) {
                worst = std::max(worst, std::abs(double(y[i]) - exact[i]));
                largest = std::max(largest, std::abs(exact[i]));
            }
            CHECK(worst <= 4e-7 * largest);
        }
    }
}

TEMPLATE_TEST_CASE("long transforms are those of the matrix", "[dct]", float, double) {
    using T = TestType;
    random_values random(3);
    for (const index n : {512, 784, 1024, 1552, 2048}) { // from the last that fits the first cache, of any factors
        const std::vector<double> given = random.normal({5, n}).values;
        const std::vector<T> x(given.begin(), given.end());
        std::vector<T> fast(x.size()), dense(x.size());
        for (const dct_kind kind : all_kinds) {
            CAPTURE(n, static_cast<int>(kind));
            for (auto [algorithm, y] : {std::pair{dct_algorithm::fft, &fast}, {dct_algorithm::dense, &dense}}) {
                dct_plan<T> plan(n, kind, {.algorithm = algorithm});
                deft::dct<T>({x.data(), {5, n}}, view<T, 2>(y->data(), {5, n}), plan);
            }
            double worst = 0;
            for (std::size_t i = 0; i < x.size(); ++i)
                worst = std::max(worst, std::abs(double(fast[i]) - double(dense[i])));
            CHECK(worst <= (sizeof(T) == 4 ? 1e-5 : 2e-14)); // numbers of 4; the matrix has the greater error
        }
    }
}

TEST_CASE("infinity spoils its row and no other", "[dct]") {
    for (const dct_kind kind : all_kinds)
        for (const index n : {7, 24}) {
            dct_plan<float> plan(n, kind);
            Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> x =
                Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>::Ones(11, n);
            x(4, 2) = std::numeric_limits<float>::infinity();
            deft::dct(x, x, plan);
            for (index r = 0; r < 11; ++r)
                for (index k = 0; k < n; ++k)
                    CHECK(std::isfinite(x(r, k)) == (r != 4));
        }
}

TEST_CASE("16-bit storage is transformed in float", "[dct]") {
    random_values random(3);
    const index n = 24;
    const std::vector<double> values = random.normal({11, n}).values;
    dct_plan<float> plan(n, dct_kind::dct3);
    const auto check = [&](auto type) {
        using S = decltype(type);
        std::vector<S> x, y(values.size());
        std::vector<float> wide;
        for (const double v : values) {
            x.push_back(S(float(v)));
            wide.push_back(float(x.back()));
        }
        deft::dct<S>({x.data(), {11, n}}, view<S, 2>(y.data(), {11, n}), plan);
        deft::dct<float>({wide.data(), {11, n}}, view<float, 2>(wide.data(), {11, n}), plan);
        for (std::size_t i = 0; i < wide.size(); ++i)
            CHECK(float(y[i]) == float(S(wide[i])));
    };
    check(Eigen::half());
    check(Eigen::bfloat16());
}

TEST_CASE("a plan does not allocate when it runs, and copies are independent", "[dct]") {
    for (const index n : {9, 64, 97})
        for (const dct_kind kind : all_kinds) {
            auto plan = std::make_unique<dct_plan<double>>(n, kind);
            dct_plan<double> copy(3, dct_kind::dct2);
            copy = *plan;
            row_major x = row_major::Random(19, n), y(19, n), z(19, n);
            const long before = allocations();
            deft::dct(x, y, *plan);
            CHECK(allocations() == before);
            plan.reset();
            deft::dct(x, z, copy);
            CHECK(y == z);
        }
}

TEST_CASE("automatic takes transforms for long lengths of small factors", "[dct]") {
    const auto is_dense = [](index n) { return dct_plan<float>(n, dct_kind::dct2).is_dense(); };
    for (const index n : {2, 3, 7, 97, 127})
        CHECK(is_dense(n));
    for (const index n : {45, 63, 64, 80, 96, 125, 128, 256, 1024, 1155, 4099})
        CHECK(!is_dense(n));
}

TEST_CASE("dct rejects bad input", "[dct]") {
    const std::vector<float> data(256, 1.0f);
    const float* const p = data.data();
    dct_plan<float> plan(8, dct_kind::dct2);
    bad_input bad("dct"), bad_backward("dct_backward"), bad_plan("dct_plan");
    float* const y = bad.output<float>(64);
    float* const grad_x = bad_backward.output<float>(64);
    CHECK(bad.rejects("x", [&] { deft::dct<float>({p, {4, 9}}, view<float, 2>(y, {4, 9}), plan); }));
    CHECK(bad.rejects("y", [&] { deft::dct<float>({p, {4, 8}}, view<float, 2>(y, {4, 7}), plan); }));
    CHECK(bad.rejects("y", [&] { deft::dct<float>({p, {4, 8}}, view<float, 2>(y, {3, 8}), plan); }));
    CHECK(bad_backward.rejects("grad_y", [&] {
        deft::dct_backward<float>({p, {4, 7}}, view<float, 2>(grad_x, {4, 7}), plan);
    }));
    CHECK(bad_backward.rejects("grad_x", [&] {
        deft::dct_backward<float>({p, {4, 8}}, view<float, 2>(grad_x, {5, 8}), plan);
    }));
    CHECK(bad_plan.rejects("length", [] { dct_plan<float>(0, dct_kind::dct2); }));
    CHECK(bad_plan.rejects("kind", [] { dct_plan<float>(8, dct_kind(1)); }));
    CHECK(bad_plan.rejects("kind", [] { dct_plan<float>(8, dct_kind(5)); }));
    CHECK(bad_plan.rejects("threads", [] { dct_plan<float>(8, dct_kind::dct4, {.threads = 0}); }));
}

} // namespace deft::testing

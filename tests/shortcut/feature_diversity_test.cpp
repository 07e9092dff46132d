#include "row_major.hpp"
#include "support/allocations.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/shortcut/feature_diversity.hpp>
#include <deft/shortcut/feature_diversity_state.hpp>

#include <Eigen/Core>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

namespace {

double distance(const matrix& h) {
    return deft::feature_diversity<double>(h);
}

} // namespace

TEST_CASE("feature_diversity of small matrices by hand", "[feature_diversity]") {
    matrix h(2, 2);
    h << 1, 2, 3, 6; // mean (2, 4), deviations (-1, -2) and (1, 2)
    CHECK_THAT(distance(h), Catch::Matchers::WithinRel(std::sqrt(10.0), 1e-15));
    CHECK_THAT(deft::feature_diversity<double>(h, {.normalize = diversity_norm::frobenius}),
               Catch::Matchers::WithinRel(std::sqrt(10.0 / 50.0), 1e-15));

    const matrix zeros = matrix::Zero(4, 5), none(3, 0), one_row = matrix::Constant(1, 9, 0.1);
    for (const diversity_norm normalize : {diversity_norm::none, diversity_norm::frobenius}) {
        CHECK(deft::feature_diversity<double>(zeros, {.normalize = normalize}) == 0);
        CHECK(deft::feature_diversity<double>(none, {.normalize = normalize}) == 0);
        CHECK(deft::feature_diversity<double>(one_row, {.normalize = normalize}) == 0);
    }
}

TEMPLATE_TEST_CASE("equal rows give exactly 0 and no gradient", "[feature_diversity]", float, double) {
    using T = TestType;
    random_values random(1);
    for (const index rows : {1, 2, 3, 5, 7, 8, 9, 49, 197, 1000}) {
        const index d = 29;
        std::vector<T> h(std::size_t(rows * d)), grad(h.size(), T(1));
        for (index c = 0; c < d; ++c) {
            const T entry = T(random.number(-1, 1) * std::pow(10.0, random.number(-30, 30)));
            for (index r = 0; r < rows; ++r)
                h[std::size_t(r * d + c)] = entry;
        }
        feature_diversity_state<T> state(d);
        for (index r = 0; r < rows; r += 3)
            state.add({h.data() + r * d, {std::min<index>(3, rows - r), d}});
        const std::vector<T> g{T(2)};
        for (const diversity_norm normalize : {diversity_norm::none, diversity_norm::frobenius}) {
            CHECK(deft::feature_diversity<T>({h.data(), {rows, d}}, {.normalize = normalize}) == 0);
            CHECK(state.value({.normalize = normalize}) == 0);
            deft::feature_diversity_backward<T>({h.data(), {1, rows, d}}, g, {grad.data(), {1, rows, d}},
                                                {.normalize = normalize});
            CHECK(grad == std::vector<T>(h.size(), T(0)));
        }
    }
}

TEMPLATE_TEST_CASE("squares neither overflow nor vanish", "[feature_diversity]", float, double) {
    using T = TestType;
    random_values random(2);
    const matrix unit = Eigen::Map<matrix>(random.normal({33, 17}).values.data(), 33, 17);
    const double expected = distance(unit), relative = expected / unit.norm();
    for (int exponent = std::numeric_limits<T>::min_exponent + 20; exponent < std::numeric_limits<T>::max_exponent - 8;
         exponent += 13) {
        CAPTURE(exponent);
        std::vector<T> h(std::size_t(unit.size())), grad(h.size());
        for (std::size_t i = 0; i < h.size(); ++i)
            h[i] = T(std::ldexp(unit.data()[i], exponent));
        const in<T, 2> rows(h.data(), {33, 17});
        const double value = std::ldexp(double(deft::feature_diversity<T>(rows)), -exponent);
        CHECK_THAT(value, Catch::Matchers::WithinRel(expected, 1e-6));
        CHECK_THAT(double(deft::feature_diversity<T>(rows, {.normalize = diversity_norm::frobenius})),
                   Catch::Matchers::WithinRel(relative, 1e-6));
        const std::vector<T> g{T(1)};
        deft::feature_diversity_backward<T>({h.data(), {1, 33, 17}}, g, {grad.data(), {1, 33, 17}});
        double norm = 0;
        for (const T v : grad)
            norm += double(v) * double(v);
        CHECK_THAT(norm, Catch::Matchers::WithinRel(1.0, 1e-5)); // C / D is a unit vector
    }
}

TEST_CASE("a large common row costs no digits", "[feature_diversity]") {
    random_values random(3);
    const index rows = 500, d = 40;
    std::vector<float> h(std::size_t(rows * d));
    for (float& v : h)
        v = float(1000 + random.number(-0.01, 0.01));
    double expected = 0;
    for (index c = 0; c < d; ++c) {
        double mean = 0;
        for (index r = 0; r < rows; ++r)
            mean += double(h[std::size_t(r * d + c)]) / double(rows);
        for (index r = 0; r < rows; ++r)
            expected += std::pow(double(h[std::size_t(r * d + c)]) - mean, 2);
    }
    CHECK_THAT(double(deft::feature_diversity<float>({h.data(), {rows, d}})),
               Catch::Matchers::WithinRel(std::sqrt(expected), 1e-6));
}

TEST_CASE("a first row far from the others costs no digits", "[feature_diversity]") {
    // As of attention sinks. The exact distance: sqrt(A^2 (N - 1) / N) per column, the others being equal.
    for (const index rows : {10, 1000, 100000}) {
        std::vector<float> h(std::size_t(rows * 3), 1.5f);
        for (std::size_t c = 0; c < 3; ++c)
            h[c] = 1.5f + 3000.0f;
        const double expected = 3000.0 * std::sqrt(3.0 * double(rows - 1) / double(rows));
        CHECK_THAT(double(deft::feature_diversity<float>({h.data(), {rows, 3}})),
                   Catch::Matchers::WithinRel(expected, 1e-6));
    }
}

TEST_CASE("feature_diversity obeys the bounds that the theory uses", "[feature_diversity]") {
    random_values random(4);
    const auto draw = [&](index rows, index columns) {
        return matrix(Eigen::Map<matrix>(random.normal({rows, columns}).values.data(), rows, columns));
    };
    for (int turn = 0; turn < 20; ++turn) {
        const matrix h = draw(12, 7), other = draw(12, 7), w = draw(7, 9);
        const double d = distance(h);
        CHECK(distance(h * w) <= w.norm() * d * (1 + 1e-12)); // d_M(H W) <= ||W||_2 d_M(H)
        CHECK(distance(h.cwiseMax(0.0)) <= d * (1 + 1e-12));  // relu has Lipschitz constant 1
        CHECK(distance(2 * h + 3 * other) <= (2 * d + 3 * distance(other)) * (1 + 1e-12));
        CHECK_THAT(distance(-3 * h), Catch::Matchers::WithinRel(3 * d, 1e-13));
        CHECK_THAT(distance(h.rowwise() + draw(1, 7).row(0)), Catch::Matchers::WithinRel(d, 1e-13));
        CHECK_THAT(distance(h.colwise().reverse()), Catch::Matchers::WithinRel(d, 1e-13));
        CHECK(distance(h) <= h.norm());
    }
}

TEST_CASE("a state is a snapshot, starts over, and merges in any order", "[feature_diversity]") {
    random_values random(5);
    const tensor h = random.normal({40, 600});
    const auto rows_of = [&](index first, index count) {
        return in<double, 2>(h.values.data() + first * 600, {count, 600});
    };
    const double expected = deft::feature_diversity<double>(rows_of(0, 40));
    feature_diversity_state<double> state(600), front(600), back(600), none(600);
    state.add(rows_of(0, 13));
    const feature_diversity_state<double> snapshot = state;
    state.add(rows_of(13, 27));
    CHECK_THAT(state.value(), Catch::Matchers::WithinRel(expected, 1e-13));
    CHECK_THAT(snapshot.value(), Catch::Matchers::WithinRel(deft::feature_diversity<double>(rows_of(0, 13)), 1e-13));
    CHECK(state.count() == 40);

    front.add(rows_of(0, 25));
    back.add(rows_of(25, 15));
    front.merge(none);
    none.merge(front);
    back.merge(none);
    CHECK_THAT(back.value(), Catch::Matchers::WithinRel(expected, 1e-13));
    CHECK_THAT(back.mean(7), Catch::Matchers::WithinRel(state.mean(7), 1e-12));

    const long before = allocations();
    state.reset();
    state.add(rows_of(0, 13));
    state.merge(front);
    CHECK(allocations() == before);
    state.reset();
    state.add(rows_of(5, 1));
    CHECK(state.value() == 0);
}

TEST_CASE("feature_diversity rejects bad input", "[feature_diversity]") {
    const std::vector<float> data(64, 1.0f), three(3, 1.0f);
    const float* const p = data.data();
    bad_input bad("feature_diversity");
    float* const value = bad.output<float>(8);
    const auto call = [&](index matrices, index rows, index values) {
        return [=] { deft::feature_diversity<float>({p, {matrices, rows, 3}}, {value, {values}}); };
    };
    CHECK(bad.rejects("h", call(2, 0, 2)));
    CHECK(bad.rejects("value", call(2, 4, 3)));
    CHECK(bad.rejects("value", call(2, 4, 1)));
    CHECK(bad.rejects("h", [&] { static_cast<void>(deft::feature_diversity<float>({p, {0, 3}})); }));

    bad_input bad_backward("feature_diversity_backward");
    float* const grad = bad_backward.output<float>(64);
    const auto backward = [&](index rows, index values, index grad_rows) {
        return [=] {
            deft::feature_diversity_backward<float>({p, {2, rows, 3}}, {p, {values}}, {grad, {2, grad_rows, 3}});
        };
    };
    CHECK(bad_backward.rejects("h", backward(0, 2, 0)));
    CHECK(bad_backward.rejects("grad_value", backward(4, 3, 4)));
    CHECK(bad_backward.rejects("grad_h", backward(4, 2, 5)));

    bad_input bad_state("feature_diversity_state");
    feature_diversity_state<float> state(3);
    const feature_diversity_state<float> wider(4);
    CHECK(bad_state.rejects("features", [] { feature_diversity_state<float> negative(-1); }));
    CHECK(bad_state.rejects("block", [&] { state.add({p, {2, 4}}); }));
    CHECK(bad_state.rejects("other", [&] { state.merge(wider); }));
    CHECK(bad_state.rejects("count", [&] { static_cast<void>(state.value()); }));
}

} // namespace deft::testing

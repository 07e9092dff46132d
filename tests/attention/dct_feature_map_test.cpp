#include "support/allocations.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/attention/dct_feature_map.hpp>

#include <Eigen/Core>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

namespace {

using row_major = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

row_major features(const row_major& x, const std::vector<double>& t, const dct_feature_options& options,
                   std::vector<double>* log_scale = nullptr) {
    dct_feature_plan<double> plan(x.cols(), index(t.size()), options);
    row_major phi(x.rows(), index(t.size()));
    if (log_scale == nullptr)
        deft::dct_feature_map(x, t, absent, phi, absent, plan);
    else
        deft::dct_feature_map(x, t, absent, phi, *log_scale, plan);
    return phi;
}

} // namespace

TEST_CASE("softmax features are a distribution, uniform where nothing is known", "[dct_feature_map]") {
    random_values random(1);
    const row_major x = Eigen::Map<row_major>(random.normal({9, 20}, 10).values.data(), 9, 20);
    const std::vector<double> t = random.normal({40}).values, zeros(40);
    const row_major phi = features(x, t, {});
    for (index r = 0; r < 9; ++r)
        CHECK(std::abs(phi.row(r).sum() - 1) <= 1e-14);
    CHECK(phi.minCoeff() >= 0);
    CHECK((features(x, zeros, {}).array() - 1.0 / 40).abs().maxCoeff() <= 1e-17);
    CHECK((features(row_major::Zero(3, 20), t, {}).array() - 1.0 / 40).abs().maxCoeff() <= 1e-17);
}

TEST_CASE("features of a known row", "[dct_feature_map]") {
    row_major x(1, 2);
    x << 3, 1; // dct2: 4 / sqrt 2, 2 / sqrt 2
    const double root = std::sqrt(2.0);
    const std::vector<double> t{0.5, 1};
    const row_major phi = features(x, t, {.transform = dct_kind::dct2, .activation = feature_activation::exp});
    CHECK(std::abs(phi(0, 0) - std::exp(root)) <= 1e-14);
    CHECK(std::abs(phi(0, 1) - std::exp(root)) <= 1e-14);
    const row_major full = features(x, t,
                                    {.transform = dct_kind::dct2,
                                     .activation = feature_activation::exp,
                                     .norm_term = feature_norm_term::full,
                                     .gain = feature_gain::inverse_sqrt,
                                     .input_scale = 0.5});
    CHECK(std::abs(full(0, 1) - std::exp(root / 2 - 2.5) / root) <= 1e-15);
}

TEST_CASE("a stabilised feature is the plain one over its scale, and log is its logarithm", "[dct_feature_map]") {
    random_values random(2);
    const row_major x = Eigen::Map<row_major>(random.normal({21, 12}).values.data(), 21, 12);
    const std::vector<double> t = random.normal({24}).values;
    dct_feature_options options{.activation = feature_activation::exp,
                                .norm_term = feature_norm_term::half,
                                .gain = feature_gain::inverse_sqrt,
                                .input_scale = 0.5};
    const row_major plain = features(x, t, options);
    options.stabilizer = feature_stabilizer::max;
    std::vector<double> log_scale(21);
    const row_major stable = features(x, t, options, &log_scale);
    options.stabilizer = feature_stabilizer::none;
    options.activation = feature_activation::log;
    const row_major logs = features(x, t, options);
    for (index r = 0; r < 21; ++r)
        for (index j = 0; j < 24; ++j) {
            CHECK(std::abs(stable(r, j) * std::exp(log_scale[std::size_t(r)]) / plain(r, j) - 1) <= 1e-13);
            CHECK(std::abs(std::exp(logs(r, j)) / plain(r, j) - 1) <= 1e-13);
        }
}

TEST_CASE("stabilised features survive the largest inputs in float", "[dct_feature_map]") {
    const index d = 64;
    Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> x(17, d), phi(17, d);
    for (index r = 0; r < 17; ++r)
        for (index i = 0; i < d; ++i)
            x(r, i) = float((r * 37 + i * 61) % 101 - 50) * 1e34f;
    const std::vector<float> t(std::size_t(d), 1.5f);
    for (const feature_activation activation : {feature_activation::softmax, feature_activation::exp}) {
        const bool stable = activation == feature_activation::exp;
        dct_feature_plan<float> plan(
            d, d,
            {.activation = activation, .stabilizer = stable ? feature_stabilizer::max : feature_stabilizer::none});
        deft::dct_feature_map(x, t, absent, phi, absent, plan);
        CHECK(phi.allFinite());
        CHECK(phi.maxCoeff() == 1.0f);
    }
}

TEST_CASE("the order of features repeats the directions", "[dct_feature_map]") {
    random_values random(3);
    const row_major x = Eigen::Map<row_major>(random.normal({5, 6}).values.data(), 5, 6);
    std::vector<double> t = random.normal({6}).values, twice(t);
    twice.insert(twice.end(), t.begin(), t.end());
    const row_major once = features(x, t, {}), both = features(x, twice, {});
    CHECK((both.leftCols(6) - once / 2).cwiseAbs().maxCoeff() <= 1e-15);
    CHECK((both.rightCols(6) - once / 2).cwiseAbs().maxCoeff() <= 1e-15);
}

TEST_CASE("16-bit features are computed in float", "[dct_feature_map]") {
    random_values random(4);
    const std::vector<double> values = random.normal({13, 16}).values;
    const std::vector<float> t(16, 0.75f);
    dct_feature_plan<float> plan(16, 16);
    const auto check = [&](auto type) {
        using S = decltype(type);
        std::vector<S> x, phi(values.size());
        std::vector<float> wide;
        for (const double v : values) {
            x.push_back(S(float(v)));
            wide.push_back(float(x.back()));
        }
        deft::dct_feature_map<S>({x.data(), {13, 16}}, t, absent, view<S, 2>(phi.data(), {13, 16}), absent, plan);
        deft::dct_feature_map<float>({wide.data(), {13, 16}}, t, absent, view<float, 2>(wide.data(), {13, 16}), absent,
                                     plan);
        for (std::size_t i = 0; i < wide.size(); ++i)
            CHECK(float(phi[i]) == float(S(wide[i])));
    };
    check(Eigen::half());
    check(Eigen::bfloat16());
}

TEST_CASE("no rows: gradients of the parameters are zero", "[dct_feature_map]") {
    dct_feature_plan<float> plan(4, 8);
    const std::vector<float> t(8, 1.0f);
    std::vector<float> grad_t(8, 7.0f), grad_weight(8, 7.0f);
    deft::dct_feature_map_backward<float>({nullptr, {0, 4}}, t, t, {nullptr, {0, 8}}, absent,
                                          view<float, 2>(nullptr, {0, 4}), grad_t, grad_weight, plan);
    CHECK(grad_t == std::vector<float>(8, 0.0f));
    CHECK(grad_weight == std::vector<float>(8, 0.0f));
}

TEST_CASE("dct_feature_map rejects bad input", "[dct_feature_map]") {
    const std::vector<float> data(256, 1.0f);
    const float* const p = data.data();
    dct_feature_plan<float> plan(4, 8),
        stable(4, 8, {.activation = feature_activation::exp, .stabilizer = feature_stabilizer::max});
    bad_input bad("dct_feature_map");
    float* const phi = bad.output<float>(128);
    float* const scale = bad.output<float>(16);
    const auto call = [&](shape<2> x, index t, index weight, shape<2> out, index scales,
                          dct_feature_plan<float>& with) {
        return [=, &with] {
            deft::dct_feature_map<float>(view<const float, 2>(p, x), {p, {t}}, {p, {weight}}, view<float, 2>(phi, out),
                                         {scale, {scales}}, with);
        };
    };
    CHECK(bad.rejects("x", call({5, 5}, 8, 8, {5, 8}, 5, stable)));
    CHECK(bad.rejects("phi", call({5, 4}, 8, 8, {5, 4}, 5, stable)));
    CHECK(bad.rejects("phi", call({5, 4}, 8, 8, {4, 8}, 5, stable)));
    CHECK(bad.rejects("t", call({5, 4}, 4, 8, {5, 8}, 5, stable)));
    CHECK(bad.rejects("weight", call({5, 4}, 8, 4, {5, 8}, 5, stable)));
    CHECK(bad.rejects("log_scale", call({5, 4}, 8, 8, {5, 8}, 4, stable)));
    CHECK(bad.rejects("log_scale", call({5, 4}, 8, 8, {5, 8}, 5, plan)));

    bad_input bad_backward("dct_feature_map_backward");
    float* const grad_x = bad_backward.output<float>(64);
    float* const grad_t = bad_backward.output<float>(16);
    float* const grad_weight = bad_backward.output<float>(16);
    const auto backward = [&](shape<2> g, index l, shape<2> gx, index gt, index gw) {
        return [=, &stable] {
            deft::dct_feature_map_backward<float>({p, {5, 4}}, {p, {8}}, {p, {8}}, view<const float, 2>(p, g), {p, {l}},
                                                  view<float, 2>(grad_x, gx), {grad_t, {gt}}, {grad_weight, {gw}},
                                                  stable);
        };
    };
    CHECK(bad_backward.rejects("grad_phi", backward({5, 4}, 5, {5, 4}, 8, 8)));
    CHECK(bad_backward.rejects("grad_log_scale", backward({5, 8}, 4, {5, 4}, 8, 8)));
    CHECK(bad_backward.rejects("grad_x", backward({5, 8}, 5, {4, 4}, 8, 8)));
    CHECK(bad_backward.rejects("grad_t", backward({5, 8}, 5, {5, 4}, 4, 8)));
    CHECK(bad_backward.rejects("grad_weight", backward({5, 8}, 5, {5, 4}, 8, 9)));
    CHECK(bad_backward.rejects("grad_weight", [&] {
        deft::dct_feature_map_backward<float>({p, {5, 4}}, {p, {8}}, absent, {p, {5, 8}}, absent,
                                              view<float, 2>(grad_x, {5, 4}), {grad_t, {8}}, {grad_weight, {8}}, plan);
    }));

    bad_input bad_plan("dct_feature_plan");
    const auto make = [](index d, index m, const dct_feature_options& options) {
        return [=] { dct_feature_plan<float>(d, m, options); };
    };
    constexpr auto exp = feature_activation::exp, log = feature_activation::log;
    CHECK(bad_plan.rejects("length", make(0, 8, {})));
    CHECK(bad_plan.rejects("features", make(4, 6, {})));
    CHECK(bad_plan.rejects("features", make(4, 0, {})));
    CHECK(bad_plan.rejects("kind", make(4, 8, {.transform = dct_kind(1)})));
    CHECK(bad_plan.rejects("activation", make(4, 8, {.activation = feature_activation(9)})));
    CHECK(bad_plan.rejects("norm_term", make(4, 8, {.norm_term = feature_norm_term::half})));
    CHECK(bad_plan.rejects("norm_term", make(4, 8, {.activation = exp, .norm_term = feature_norm_term(7)})));
    CHECK(bad_plan.rejects("gain", make(4, 8, {.gain = feature_gain::inverse_sqrt})));
    CHECK(bad_plan.rejects("stabilizer", make(4, 8, {.stabilizer = feature_stabilizer::max})));
    CHECK(bad_plan.rejects("stabilizer", make(4, 8, {.activation = log, .stabilizer = feature_stabilizer::max})));
    CHECK(bad_plan.rejects("input_scale", make(4, 8, {.activation = exp, .input_scale = NAN})));
    CHECK(bad_plan.rejects("threads", make(4, 8, {.threads = 0})));
}

} // namespace deft::testing

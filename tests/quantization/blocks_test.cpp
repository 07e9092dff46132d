#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/linalg.hpp>
#include <deft/quantization/blocks.hpp>

#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

namespace deft::testing {

namespace {

using quantization::block;
using quantization::linear_runner;

/// Layers in full precision.
struct plain_runner final : linear_runner<double> {
    explicit plain_runner(const block<double>& b) : owner(b) {}
    void forward(index i, in<double, 2> x, view<double, 2> y) override {
        linalg::gemm<double>(1, x, linalg::matrix<const double>(owner.layers[std::size_t(i)].weight).transposed(), 0,
                             y);
    }
    void backward(index i, in<double, 2> g, view<double, 2> grad_x) override {
        linalg::gemm<double>(1, g, linalg::matrix<const double>(owner.layers[std::size_t(i)].weight), 0, grad_x);
    }
    const block<double>& owner;
};

std::vector<double> run(const block<double>& b, const std::vector<double>& x, index tokens) {
    std::vector<double> y(std::size_t(tokens * b.outputs));
    plain_runner runner(b);
    b.forward({x.data(), {tokens, b.inputs}}, {y.data(), {tokens, b.outputs}}, runner);
    return y;
}

/// backward against differences of forward.
void check_gradient(const block<double>& b, index tokens) {
    random_values random(20);
    std::vector<double> x = random.normal({tokens, b.inputs}).values;
    const std::vector<double> g = random.normal({tokens, b.outputs}).values;
    const auto value = [&] {
        const std::vector<double> y = run(b, x, tokens);
        double sum = 0;
        for (std::size_t i = 0; i < y.size(); ++i)
            sum += y[i] * g[i];
        return sum;
    };
    run(b, x, tokens);
    std::vector<double> grad_x(x.size());
    plain_runner runner(b);
    b.backward({g.data(), {tokens, b.outputs}}, {grad_x.data(), {tokens, b.inputs}}, runner);
    for (std::size_t i = 0; i < x.size(); ++i) {
        const double kept = x[i];
        x[i] = kept + 1e-5;
        const double above = value();
        x[i] = kept - 1e-5;
        const double below = value();
        x[i] = kept;
        CHECK_THAT(grad_x[i], Catch::Matchers::WithinAbs((above - below) / 2e-5, 1e-7));
    }
}

struct weights {
    random_values random{21};
    std::vector<double> make(index rows, index columns) {
        return random.normal({rows, columns}, 1 / std::sqrt(double(columns))).values;
    }
};

} // namespace

TEST_CASE("gradients of ready-made blocks are those of differences", "[blocks]") {
    weights w;
    const index features = 12, hidden = 10, heads = 4, groups = 2, width = 4;
    const auto gain = w.random.uniform({features}, 0.5, 1.5).values;
    const auto gate = w.make(hidden, features), up = w.make(hidden, features), down = w.make(features, hidden);
    const auto query = w.make(heads * width, features), key = w.make(groups * width, features),
               value = w.make(groups * width, features), out = w.make(features, heads * width);
    const block<double> linear = quantization::linear_block<double>("linear", {gate.data(), {hidden, features}});
    check_gradient(linear, 3);
    for (const activation sigma : {activation::silu, activation::gelu_tanh}) {
        const block<double> ffn = quantization::gated_ffn_block<double>("ffn",
                                                                        {gain,
                                                                         {gate.data(), {hidden, features}},
                                                                         {up.data(), {hidden, features}},
                                                                         {down.data(), {features, hidden}}},
                                                                        {.sigma = sigma});
        check_gradient(ffn, 3);
    }
    const quantization::attention_weights<double> parts{gain,
                                                        {query.data(), {heads * width, features}},
                                                        {key.data(), {groups * width, features}},
                                                        {value.data(), {groups * width, features}},
                                                        {out.data(), {features, heads * width}}};
    for (const double base : {0.0, 100.0})
        check_gradient(quantization::attention_block<double>("attention", parts,
                                                             {.heads = heads, .groups = groups, .rope_base = base}),
                       5);
    const block<double> whole = quantization::join<double>(
        "whole", quantization::attention_block<double>("a", parts, {.heads = heads, .groups = groups}),
        quantization::gated_ffn_block<double>("f", {gain,
                                                    {gate.data(), {hidden, features}},
                                                    {up.data(), {hidden, features}},
                                                    {down.data(), {features, hidden}}}));
    CHECK(whole.layers.size() == 7);
    check_gradient(whole, 4);
}

TEST_CASE("a gated FFN by hand", "[blocks]") {
    // One feature and one hidden unit: h = x g / |x|, y = x + down silu(gate h) up h.
    const std::vector<double> gain{2}, gate{0.5}, up{3}, down{-1};
    const block<double> ffn = quantization::gated_ffn_block<double>(
        "ffn", {gain, {gate.data(), {1, 1}}, {up.data(), {1, 1}}, {down.data(), {1, 1}}}, {.eps = 0});
    const double h = -2, silu = 0.5 * h / (1 + std::exp(-0.5 * h));
    CHECK_THAT(run(ffn, {-7}, 1)[0], Catch::Matchers::WithinAbs(-7 - silu * 3 * h, 1e-13));
}

TEST_CASE("attention sees no later token, and one token only itself", "[blocks]") {
    weights w;
    const index features = 6;
    const auto gain = w.random.uniform({features}, 1, 1.001).values;
    const auto query = w.make(4, features), key = w.make(4, features), value = w.make(4, features),
               out = w.make(features, 4);
    const block<double> b = quantization::attention_block<double>("a",
                                                                  {gain,
                                                                   {query.data(), {4, features}},
                                                                   {key.data(), {4, features}},
                                                                   {value.data(), {4, features}},
                                                                   {out.data(), {features, 4}}},
                                                                  {.heads = 2});
    std::vector<double> x = w.random.normal({5, features}).values;
    const std::vector<double> before = run(b, x, 5);
    x[4 * 6 + 1] += 3;
    const std::vector<double> after = run(b, x, 5);
    for (std::size_t i = 0; i < 24; ++i)
        CHECK(before[i] == after[i]);
    CHECK(before[25] != after[25]);
    const std::vector<double> alone = run(b, {x.begin(), x.begin() + 6}, 1);
    for (std::size_t i = 0; i < 6; ++i)
        CHECK_THAT(alone[i], Catch::Matchers::WithinAbs(before[i], 1e-13));
}

TEST_CASE("blocks reject what does not fit", "[blocks]") {
    const std::vector<double> gain(6, 1.0), some(60, 0.5);
    const auto m = [&](index rows, index columns) { return view<const double, 2>(some.data(), {rows, columns}); };
    CHECK_THROWS_AS(quantization::linear_block<double>("l", m(0, 3)), std::invalid_argument);
    CHECK_THROWS_AS(quantization::gated_ffn_block<double>("f", {gain, m(4, 6), m(5, 6), m(6, 4)}),
                    std::invalid_argument);
    CHECK_THROWS_AS(quantization::gated_ffn_block<double>("f", {gain, m(4, 6), m(4, 6), m(6, 5)}),
                    std::invalid_argument);
    CHECK_THROWS_AS(
        quantization::attention_block<double>("a", {gain, m(4, 6), m(4, 6), m(4, 6), m(6, 4)}, {.heads = 3}),
        std::invalid_argument);
    CHECK_THROWS_AS(
        quantization::attention_block<double>("a", {gain, m(6, 6), m(6, 6), m(6, 6), m(6, 6)}, {.heads = 2}),
        std::invalid_argument); // heads of width 3 have no pairs
    CHECK_THROWS_AS(quantization::attention_block<double>("a", {gain, m(4, 6), m(4, 6), m(4, 6), m(6, 4)},
                                                          {.heads = 2, .groups = 3}),
                    std::invalid_argument);
    CHECK_THROWS_AS(quantization::join<double>("j", quantization::linear_block<double>("l", m(4, 6)),
                                               quantization::linear_block<double>("l", m(4, 6))),
                    std::invalid_argument);
}

} // namespace deft::testing

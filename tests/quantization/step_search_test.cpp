#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/quantization/step_search.hpp>

#include <vector>

namespace deft::testing {

TEST_CASE("the step that loses nothing is found", "[step_search]") {
    // Weights on a grid of step 0.25 that reaches 7 steps: max |w| / (Q - 1) = 0.25, and candidate 4 of 9 is 1 times
    // it.
    random_values random(14);
    const index tokens = 6, depth = 40, outputs = 5, count = 9;
    std::vector<double> w;
    for (index i = 0; i < outputs * depth; ++i)
        w.push_back(0.25 * double(random.integer(-7, 7)));
    w[0] = 1.75;
    const auto x = random.normal({tokens, depth}).values, g = random.normal({tokens, outputs}).values;
    std::vector<double> steps(count), scores(count);
    const index best = deft::step_search<double>({x.data(), {tokens, depth}}, {w.data(), {outputs, depth}},
                                                 {g.data(), {tokens, outputs}}, steps, scores,
                                                 {.bits = 4, .alpha = 0.5, .beta = 1.5, .count = count});
    CHECK(best == 4);
    CHECK(steps[4] == 0.25);
    CHECK(scores[4] == 0);
    for (std::size_t j = 0; j < std::size_t(count); ++j)
        CHECK((j == 4 || scores[j] > 1e-3));
}

TEST_CASE("weights of zero have no best step", "[step_search]") {
    const std::vector<float> zeros(20, 0.0f), ones(20, 1.0f);
    std::vector<float> steps(3), scores(3, 7.0f);
    CHECK(deft::step_search<float>({ones.data(), {2, 5}}, {zeros.data(), {4, 5}}, {ones.data(), {2, 4}}, steps, scores,
                                   {.bits = 4, .count = 3}) == 0);
    CHECK(scores == std::vector<float>{0, 0, 0});
}

TEST_CASE("step_search rejects bad input", "[step_search]") {
    const std::vector<float> data(64, 1.0f);
    const float* const p = data.data();
    bad_input bad("step_search");
    float* const o = bad.output<float>(64);
    const auto call = [&](shape<2> x, shape<2> w, shape<2> g, index steps, index scores, step_search_options options) {
        return [=] { deft::step_search<float>({p, x}, {p, w}, {p, g}, {o, {steps}}, {o, {scores}}, options); };
    };
    const step_search_options good{.bits = 4, .count = 7};
    CHECK(bad.rejects("w", call({3, 5}, {2, 4}, {3, 2}, 7, 7, good)));
    CHECK(bad.rejects("grad", call({3, 5}, {2, 5}, {2, 2}, 7, 7, good)));
    CHECK(bad.rejects("grad", call({3, 5}, {2, 5}, {3, 3}, 7, 7, good)));
    CHECK(bad.rejects("steps", call({3, 5}, {2, 5}, {3, 2}, 6, 7, good)));
    CHECK(bad.rejects("scores", call({3, 5}, {2, 5}, {3, 2}, 7, 8, good)));
    CHECK(bad.rejects("bits", call({3, 5}, {2, 5}, {3, 2}, 7, 7, {.bits = 1, .count = 7})));
    CHECK(bad.rejects("count", call({3, 5}, {2, 5}, {3, 2}, 1, 1, {.bits = 4, .count = 1})));
    CHECK(bad.rejects("alpha", call({3, 5}, {2, 5}, {3, 2}, 7, 7, {.bits = 4, .alpha = 0, .count = 7})));
    CHECK(bad.rejects("beta", call({3, 5}, {2, 5}, {3, 2}, 7, 7, {.bits = 4, .beta = -1, .count = 7})));
}

} // namespace deft::testing

#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/pruning/rank_loss.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

TEST_CASE("rank_loss by hand", "[rank_loss]") {
    const std::vector<double> w{4, 0, 0, 0, 2, 0, 0, 0, 1}; // squares 16, 4, 1 of 21
    std::vector<double> grad(9);
    const rank_loss_options options{.rank = {.mode = rank_mode::k, .rank = 1}};
    const rank_loss_result result =
        deft::rank_loss_backward<double>({w.data(), {3, 3}}, 1, {grad.data(), {3, 3}}, options);
    const double t = 5.0 / 21;
    CHECK(result.rank == 1);
    CHECK_THAT(result.tail, Catch::Matchers::WithinAbs(t, 1e-15));
    CHECK_THAT(result.loss, Catch::Matchers::WithinAbs(-t, 1e-15));
    CHECK_THAT(grad[0], Catch::Matchers::WithinAbs(2.0 / 21 * t * 4, 1e-15));
    CHECK_THAT(grad[4], Catch::Matchers::WithinAbs(2.0 / 21 * (t - 1) * 2, 1e-15));
    CHECK_THAT(grad[8], Catch::Matchers::WithinAbs(2.0 / 21 * (t - 1) * 1, 1e-15));
    rank_loss_options bounded = options;
    bounded.bound = -0.1;
    CHECK_THAT(deft::rank_loss<double>({w.data(), {3, 3}}, bounded).loss,
               Catch::Matchers::WithinAbs((0.1 - t) * (0.1 - t), 1e-15));
    bounded.bound = -0.5;
    CHECK(deft::rank_loss_backward<double>({w.data(), {3, 3}}, 1, {grad.data(), {3, 3}}, bounded).loss == 0);
    CHECK(grad == std::vector<double>(9, 0.0));
}

TEMPLATE_TEST_CASE("rank_loss does not depend on scale, and descent raises the rank", "[rank_loss]", float, double) {
    random_values random(1);
    const std::vector<double> values = random.normal({20, 33}).values;
    const std::vector<TestType> w(values.begin(), values.end());
    const rank_loss_options options{.rank = {.mode = rank_mode::tail, .tail_energy = 0.2}};
    const shape<2> size{20, 33};
    const rank_loss_result first = deft::rank_loss<TestType>({w.data(), size}, options);
    for (const TestType scale : {TestType(0x1p80), TestType(0x1p-80), TestType(-1)}) {
        std::vector<TestType> scaled(w);
        for (TestType& x : scaled)
            x *= scale;
        const rank_loss_result result = deft::rank_loss<TestType>({scaled.data(), size}, options);
        CHECK(result.rank == first.rank);
        CHECK(result.loss == first.loss);
    }
    std::vector<TestType> grad(w.size()), moved(w);
    deft::rank_loss_backward<TestType>({w.data(), size}, 1, {grad.data(), size}, options);
    double along = 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
        along += double(w[i]) * double(grad[i]);
        moved[i] = TestType(w[i] - TestType(20) * grad[i]);
    }
    CHECK_THAT(along, Catch::Matchers::WithinAbs(0.0, 100 * double(std::numeric_limits<TestType>::epsilon())));
    // The same rank then leaves more behind.
    const rank_loss_options fixed{.rank = {.mode = rank_mode::k, .rank = first.rank}};
    CHECK(deft::rank_loss<TestType>({moved.data(), size}, fixed).loss < first.loss - 1e-4);
}

TEST_CASE("edges of rank_loss", "[rank_loss]") {
    const std::vector<float> zeros(12, 0.0f), ones(12, 1.0f);
    std::vector<float> grad(12, 7.0f);
    const rank_loss_options tail{.rank = {.mode = rank_mode::tail, .tail_energy = 0.2}, .bound = 0.5};
    rank_loss_result result = deft::rank_loss_backward<float>({zeros.data(), {3, 4}}, 1, {grad.data(), {3, 4}}, tail);
    CHECK(result.loss == 0);
    CHECK(result.rank == 0);
    CHECK(grad == zeros);
    result = deft::rank_loss_backward<float>({ones.data(), {1, 12}}, 1, {grad.data(), {1, 12}},
                                             {.rank = {.mode = rank_mode::tail, .tail_energy = 0.2}});
    CHECK(result.loss == -1);
    CHECK(grad == zeros);
    result = deft::rank_loss_backward<float>({ones.data(), {3, 4}}, 1, {grad.data(), {3, 4}},
                                             {.rank = {.mode = rank_mode::k, .rank = 5}});
    CHECK(result.loss == 0);
    CHECK(result.rank == 3);
    CHECK(grad == zeros);
    CHECK(deft::model_rank_loss<float>({}, {}, tail) == 0);
}

TEST_CASE("rank_loss rejects bad input", "[rank_loss]") {
    std::vector<float> data(12, 1.0f), with_nan = data;
    with_nan[11] = std::numeric_limits<float>::quiet_NaN();
    bad_input back("rank_loss_backward"), model("model_rank_loss_backward");
    float* const grad = back.output<float>(12);
    const auto call = [&](const float* w, shape<2> size, shape<2> to, const rank_loss_options& options) {
        return [=] { deft::rank_loss_backward<float>({w, size}, 1, {grad, to}, options); };
    };
    const float* const p = data.data();
    const rank_loss_options good{.rank = {.mode = rank_mode::k, .rank = 1}};
    CHECK(back.rejects("weight", call(with_nan.data(), {3, 4}, {3, 4}, good)));
    CHECK(back.rejects("weight", call(p, {0, 4}, {0, 4}, good)));
    CHECK(back.rejects("grad_weight", call(p, {3, 4}, {4, 3}, good)));
    CHECK(back.rejects("rank", call(p, {3, 4}, {3, 4}, {.rank = {.mode = rank_mode::k, .rank = -1}})));
    CHECK(back.rejects("energy", call(p, {3, 4}, {3, 4}, {.rank = {.mode = rank_mode::energy, .energy = 2}})));
    CHECK(back.rejects("bound", call(p, {3, 4}, {3, 4}, {.rank = good.rank, .bound = double(with_nan[11])})));
    CHECK(bad_input("rank_loss").rejects("weight", [&] {
        static_cast<void>(deft::rank_loss<float>({with_nan.data(), {3, 4}}, good));
    }));
    float* const model_grad = model.output<float>(24);
    const auto call_model = [&](const float* second, shape<2> to, std::size_t ranks, std::size_t grads) {
        return [=] {
            const view<const float, 2> weights[] = {{p, {3, 4}}, {second, {3, 4}}};
            const view<float, 2> gradients[] = {{model_grad, {3, 4}}, {model_grad + 12, to}};
            std::vector<index> chosen(ranks);
            deft::model_rank_loss_backward<float>(weights, 1, std::span<const view<float, 2>>(gradients, grads), chosen,
                                                  good);
        };
    };
    CHECK(model.rejects("weights", call_model(with_nan.data(), {3, 4}, 2, 2)));
    CHECK(model.rejects("grad_weights", call_model(p, {4, 3}, 2, 2)));
    CHECK(model.rejects("grad_weights", call_model(p, {3, 4}, 2, 1)));
    CHECK(model.rejects("ranks", call_model(p, {3, 4}, 1, 2)));
}

} // namespace deft::testing

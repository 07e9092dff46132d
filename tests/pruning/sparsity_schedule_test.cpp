#include "support/bad_input.hpp"
#include "support/catch.hpp"

#include <deft/pruning/sparsity_schedule.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

TEST_CASE("schedules start and end where they should", "[sparsity_schedule]") {
    using enum schedule_kind;
    const auto at = [](index step, const sparsity_schedule_options& options) {
        return sparsity_schedule(step, options);
    };
    const sparsity_schedule_options exponential_options{.kind = exponential, .density = 0.04, .updates = 10};
    CHECK(at(0, exponential_options) == 1);
    CHECK_THAT(at(5, exponential_options), Catch::Matchers::WithinAbs(0.2, 1e-15));
    CHECK(at(10, exponential_options) == 0.04);
    CHECK(at(1000, exponential_options) == 0.04);
    for (index t = 0; t < 9; ++t) // every update leaves the same share of survivors
        CHECK_THAT(at(t + 1, exponential_options) / at(t, exponential_options),
                   Catch::Matchers::WithinAbs(std::pow(0.04, 0.1), 1e-14));

    const sparsity_schedule_options warm{.kind = warm_exponential, .density = 0.04, .updates = 10, .warmup = 0.25};
    CHECK(at(1, warm) == 1); // 2.5 updates round to 2
    CHECK(at(2, warm) == 1);
    CHECK_THAT(at(6, warm), Catch::Matchers::WithinAbs(0.2, 1e-15));
    CHECK(at(10, warm) == 0.04);

    const sparsity_schedule_options cos{.kind = cosine, .density = 0.1, .end_step = 8};
    CHECK(at(0, cos) == 1);
    CHECK_THAT(at(4, cos), Catch::Matchers::WithinAbs(0.55, 1e-15));
    CHECK(at(8, cos) == 0.1);

    const sparsity_schedule_options cube{
        .kind = cubic, .initial_sparsity = 0.2, .final_sparsity = 0.9, .begin_step = 10, .end_step = 20};
    CHECK_THAT(at(0, cube), Catch::Matchers::WithinAbs(0.8, 1e-15));
    CHECK_THAT(at(15, cube), Catch::Matchers::WithinAbs(1 - (0.9 - 0.7 / 8), 1e-15));
    CHECK_THAT(at(30, cube), Catch::Matchers::WithinAbs(0.1, 1e-15));

    const sparsity_schedule_options drop{.kind = drop_cosine, .end_step = 8, .alpha = 0.3};
    CHECK_THAT(at(0, drop), Catch::Matchers::WithinAbs(0.3, 1e-15));
    CHECK_THAT(at(8, drop), Catch::Matchers::WithinAbs(0.0, 1e-15));
    CHECK_THAT(at(16, drop), Catch::Matchers::WithinAbs(0.3, 1e-15)); // the formula goes on
}

TEST_CASE("layer densities keep the budget", "[layer_densities]") {
    const std::vector<std::vector<index>> shapes{{64, 3, 7, 7}, {64, 64, 3, 3}, {256, 64, 1, 1}, {10, 256}};
    std::vector<double> density(4);
    double size = 0;
    for (const std::vector<index>& shape : shapes) {
        double numel = 1;
        for (const index extent : shape)
            numel *= double(extent);
        size += numel;
    }
    for (const density_kind kind : {density_kind::erk, density_kind::erk_matrix, density_kind::er})
        for (const double wanted : {0.02, 0.1, 0.5, 0.9}) {
            deft::layer_densities(shapes, density, {.kind = kind, .density = wanted});
            double kept = 0;
            for (std::size_t i = 0; i < 4; ++i) {
                CHECK(density[i] > 0);
                CHECK(density[i] <= 1);
                double numel = 1;
                for (const index extent : shapes[i])
                    numel *= double(extent);
                kept += density[i] * numel;
            }
            CHECK_THAT(kept, Catch::Matchers::WithinAbs(wanted * size, 4.0)); // less than one weight per layer
        }
    deft::layer_densities(shapes, density, {.kind = density_kind::erk, .density = 1});
    CHECK(density == std::vector<double>(4, 1.0));
    deft::layer_densities(shapes, density, {.kind = density_kind::uniform, .density = 0.1});
    CHECK(density == std::vector<double>{1, 0.1, 0.1, 0.1});
    const std::vector<index> linear{3};
    deft::layer_densities(shapes, density, {.kind = density_kind::uniform, .density = 0.1, .linear_layers = linear});
    CHECK(density == std::vector<double>{1, 0.1, 0.1, 1});
    const std::vector<std::vector<index>> one{{8, 8}};
    std::vector<double> single(1);
    deft::layer_densities(one, single, {.kind = density_kind::uniform, .density = 0.3});
    CHECK(single[0] == 0.3);
}

TEST_CASE("schedules reject bad input", "[sparsity_schedule]") {
    using enum schedule_kind;
    const bad_input bad("sparsity_schedule");
    const auto call = [](const sparsity_schedule_options& options, index step = 3) {
        return [=] { static_cast<void>(sparsity_schedule(step, options)); };
    };
    CHECK(bad.rejects("step", call({.kind = exponential, .density = 0.1, .updates = 4}, -1)));
    for (const double density : {0.0, -1.0, 1.5, std::numeric_limits<double>::quiet_NaN()}) {
        CHECK(bad.rejects("density", call({.kind = exponential, .density = density, .updates = 4})));
        CHECK(bad.rejects("density", call({.kind = cosine, .density = density, .end_step = 4})));
    }
    CHECK(bad.rejects("updates", call({.kind = exponential, .density = 0.1})));
    CHECK(bad.rejects("warmup", call({.kind = warm_exponential, .density = 0.1, .updates = 4, .warmup = 0.9})));
    CHECK(bad.rejects("warmup", call({.kind = warm_exponential, .density = 0.1, .updates = 4, .warmup = -0.1})));
    CHECK(bad.rejects("end_step", call({.kind = cosine, .density = 0.1})));
    CHECK(bad.rejects("end_step", call({.kind = cubic, .begin_step = 4, .end_step = 4})));
    CHECK(bad.rejects("final_sparsity", call({.kind = cubic, .final_sparsity = 2, .end_step = 4})));
    CHECK(bad.rejects("initial_sparsity", call({.kind = cubic, .initial_sparsity = -1, .end_step = 4})));
    CHECK(bad.rejects("alpha", call({.kind = drop_cosine, .end_step = 4, .alpha = 1.1})));
    CHECK(bad.rejects("end_step", call({.kind = drop_cosine, .alpha = 0.1})));
    CHECK(bad.rejects("kind", call({.kind = schedule_kind(17)})));
}

TEST_CASE("layer_densities rejects bad input", "[layer_densities]") {
    bad_input bad("layer_densities");
    double* const density = bad.output<double>(2);
    const auto call = [&](std::vector<std::vector<index>> shapes, index count, density_kind kind, double d) {
        return [=] { deft::layer_densities(shapes, {density, {count}}, {.kind = kind, .density = d}); };
    };
    CHECK(bad.rejects("density", call({{2, 2}}, 2, density_kind::erk, 0.5)));
    CHECK(bad.rejects("density", call({{2, 2}}, 1, density_kind::erk, 0)));
    CHECK(bad.rejects("shapes", call({{2, 0}}, 1, density_kind::erk, 0.5)));
    CHECK(bad.rejects("shapes", call({{}}, 1, density_kind::erk, 0.5)));
    CHECK(bad.rejects("shapes", call({{4}}, 1, density_kind::er, 0.5)));
}

} // namespace deft::testing

#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/pruning/prune_and_regrow.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

TEST_CASE("prune_and_regrow by hand", "[prune_and_regrow]") {
    // Kept: 5 and -4. Grown by gradient: position 1 (masked: starts at 0) and position 3 (dropped: keeps its value).
    const std::vector<float> w{5, 0, -4, 3, 0, 1}, g{9, 8, 7, -6, 5, 4}, v{1, 2, 3, 4, 5, 6};
    std::vector<std::uint64_t> mask{0b101101}, new_mask(1);
    std::vector<float> w2(6), g2(6), v2(6);
    const shape<2> size{2, 3};
    deft::prune_and_regrow<float>({w.data(), size}, {g.data(), size}, mask, {v.data(), size}, {w2.data(), size},
                                  new_mask, {g2.data(), size}, {v2.data(), size}, {.n_keep = 2, .n_grow = 2});
    CHECK(new_mask[0] == 0b001111);
    CHECK(w2 == std::vector<float>{5, 0, -4, 3, 0, 0});
    CHECK(g2 == std::vector<float>{9, 8, 7, -6, 0, 0});
    CHECK(v2 == std::vector<float>{1, 2, 3, 4, 0, 0});
}

TEST_CASE("a step without drops prunes by magnitude, and layers share one budget", "[pruning_step]") {
    random_values random(1);
    for (const double density : {0.5, 0.1})
        for (const double drop : {0.0, 0.3}) {
            std::vector<double> a = random.normal({20, 30}).values, b = random.normal({10, 10}, 0.1).values;
            const std::vector<double> a0 = a, b0 = b, ga = random.normal({20, 30}).values,
                                      gb = random.normal({10, 10}).values;
            std::vector<std::uint64_t> ma(10), mb(2), ea(10), eb(2);
            const view<double, 2> weights[] = {{a.data(), {20, 30}}, {b.data(), {10, 10}}};
            const view<const double, 2> before[] = {{a0.data(), {20, 30}}, {b0.data(), {10, 10}}},
                                        grads[] = {{ga.data(), {20, 30}}, {gb.data(), {10, 10}}};
            const view<std::uint64_t, 1> masks[] = {ma, mb}, expected[] = {ea, eb};
            deft::pruning_step<double>(weights, grads, masks, {.density = density, .drop_fraction = drop});
            deft::magnitude_mask<double>(std::span<const view<const double, 2>>(before),
                                         std::span<const view<std::uint64_t, 1>>(expected), {.sparsity = 1 - density});
            CHECK(count_mask(ma) == count_mask(ea)); // regrowth changes no count
            CHECK(count_mask(mb) == count_mask(eb));
            CHECK(count_mask(ma) + count_mask(mb) == index(std::round(700 * density)));
            if (drop == 0) {
                CHECK(ma == ea);
                CHECK(mb == eb);
            } else {
                CHECK(ma != ea);
            }
            index fresh = 0;
            for (index i = 0; i < 600; ++i) {
                const double w = a[std::size_t(i)];
                CHECK((w == 0 || w == a0[std::size_t(i)]));
                CHECK((mask_bit(ma, i) || w == 0));
                fresh += mask_bit(ma, i) && !mask_bit(ea, i) ? 1 : 0;
                if (mask_bit(ma, i) && !mask_bit(ea, i))
                    CHECK(w == 0);
            }
            CHECK(fresh <= index(std::floor(double(count_mask(ea)) * drop)));
        }
}

TEST_CASE("layers without pruned weights stay as they are", "[pruning_step]") {
    std::vector<float> large{50, 60}, small{1, 2, 3, 4};
    const std::vector<float> grad{1, 1, 1, 1};
    std::vector<std::uint64_t> ml(1), ms(1);
    const view<float, 2> weights[] = {{large.data(), {1, 2}}, {small.data(), {1, 4}}};
    const view<const float, 2> grads[] = {{grad.data(), {1, 2}}, {grad.data(), {1, 4}}};
    const view<std::uint64_t, 1> masks[] = {ml, ms};
    deft::pruning_step<float>(weights, grads, masks, {.density = 0.5, .drop_fraction = 1});
    CHECK(large == std::vector<float>{50, 60});
    CHECK(ml[0] == 3);
    // The survivor 4 is dropped, and equal gradients bring the lowest position back.
    CHECK(ms[0] == 1);
    CHECK(small == std::vector<float>{0, 0, 0, 0});
}

TEST_CASE("prune_and_regrow rejects bad input", "[prune_and_regrow]") {
    std::vector<float> data(12, 1.0f), with_nan = data;
    with_nan[5] = std::numeric_limits<float>::quiet_NaN();
    const std::vector<std::uint64_t> mask(2, 0);
    bad_input bad("prune_and_regrow");
    float* const w = bad.output<float>(12);
    float* const g = bad.output<float>(12);
    float* const v = bad.output<float>(12);
    std::uint64_t* const m = bad.output<std::uint64_t>(2);
    struct arguments {
        const float *weight, *grad;
        shape<2> grad_shape{3, 4}, momentum{3, 4}, new_weight{3, 4}, new_grad{3, 4}, new_momentum{3, 4};
        index words = 1, new_words = 1, n_keep = 4, n_grow = 2;
    };
    const auto call = [&](const arguments& a) {
        return [=, p = data.data(), bits = mask.data()] {
            deft::prune_and_regrow<float>({a.weight, {3, 4}}, {a.grad, a.grad_shape}, {bits, {a.words}},
                                          {p, a.momentum}, {w, a.new_weight}, {m, {a.new_words}}, {g, a.new_grad},
                                          {v, a.new_momentum}, {.n_keep = a.n_keep, .n_grow = a.n_grow});
        };
    };
    const float* const p = data.data();
    CHECK(bad.rejects("grad", call({.weight = p, .grad = p, .grad_shape = {4, 3}})));
    CHECK(bad.rejects("momentum", call({.weight = p, .grad = p, .momentum = {4, 3}})));
    CHECK(bad.rejects("new_weight", call({.weight = p, .grad = p, .new_weight = {4, 3}})));
    CHECK(bad.rejects("new_grad", call({.weight = p, .grad = p, .new_grad = {4, 3}})));
    CHECK(bad.rejects("new_momentum", call({.weight = p, .grad = p, .new_momentum = {4, 3}})));
    CHECK(bad.rejects("mask", call({.weight = p, .grad = p, .words = 2})));
    CHECK(bad.rejects("new_mask", call({.weight = p, .grad = p, .new_words = 2})));
    CHECK(bad.rejects("n_keep", call({.weight = p, .grad = p, .n_keep = -1})));
    CHECK(bad.rejects("n_grow", call({.weight = p, .grad = p, .n_grow = -1})));
    CHECK(bad.rejects("n_keep", call({.weight = p, .grad = p, .n_keep = 11})));
    CHECK(bad.rejects("weight", call({.weight = with_nan.data(), .grad = p})));
    CHECK(bad.rejects("grad", call({.weight = p, .grad = with_nan.data()})));
}

TEST_CASE("pruning_step rejects bad input", "[pruning_step]") {
    std::vector<float> data(12, 1.0f), with_nan = data;
    with_nan[5] = std::numeric_limits<float>::quiet_NaN();
    bad_input bad("pruning_step");
    float* const w = bad.output<float>(12);
    std::uint64_t* const m = bad.output<std::uint64_t>(2);
    const auto call = [&](const float* grad, shape<2> grad_shape, index words, std::size_t grads, double density,
                          double drop) {
        return [=] {
            const view<float, 2> weights[] = {{w, {3, 4}}};
            const view<const float, 2> gradients[] = {{grad, grad_shape}, {grad, grad_shape}};
            const view<std::uint64_t, 1> masks[] = {{m, {words}}};
            deft::pruning_step<float>(weights, std::span<const view<const float, 2>>(gradients, grads), masks,
                                      {.density = density, .drop_fraction = drop});
        };
    };
    const float* const p = data.data();
    CHECK(bad.rejects("masks", call(p, {3, 4}, 2, 1, 0.5, 0.5)));
    CHECK(bad.rejects("grads", call(p, {3, 4}, 1, 2, 0.5, 0.5)));
    CHECK(bad.rejects("grads", call(p, {4, 3}, 1, 1, 0.5, 0.5)));
    CHECK(bad.rejects("density", call(p, {3, 4}, 1, 1, 0, 0.5)));
    CHECK(bad.rejects("density", call(p, {3, 4}, 1, 1, 1.5, 0.5)));
    CHECK(bad.rejects("drop_fraction", call(p, {3, 4}, 1, 1, 0.5, -0.5)));
    CHECK(bad.rejects("grads", call(with_nan.data(), {3, 4}, 1, 1, 0.5, 0.5)));
    const view<float, 2> weights[] = {{with_nan.data(), {3, 4}}};
    const view<const float, 2> grads[] = {{p, {3, 4}}};
    const view<std::uint64_t, 1> masks[] = {{m, {1}}};
    CHECK(bad.rejects(
        "weights", [&] { deft::pruning_step<float>(weights, grads, masks, {.density = 0.5, .drop_fraction = 0.5}); }));
}

} // namespace deft::testing

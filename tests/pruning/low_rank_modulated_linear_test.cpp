#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/pruning/low_rank_modulated_linear.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace deft::testing {

TEST_CASE("low_rank_modulated_linear by hand", "[low_rank_modulated_linear]") {
    // W = [1 2], task 0 adds 3 * [1 0], task 1 adds 5 * [0 1], c = 10.
    const std::vector<double> x{1, 1, 1, 1}, w{1, 2}, down{1, 0, 0, 1}, up{3, 5}, bias{100}, task_bias{1000, 2000};
    const std::vector<std::int64_t> task{1, 0};
    std::vector<double> y(2), merged(2);
    deft::low_rank_modulated_linear<double>({x.data(), {2, 2}}, {w.data(), {1, 2}}, {down.data(), {2, 1, 2}},
                                            {up.data(), {2, 1, 1}}, task, bias, {task_bias.data(), {2, 1}},
                                            {y.data(), {2, 1}}, {.scale = 10});
    CHECK(y == std::vector<double>{3 + 50 + 100 + 2000, 3 + 30 + 100 + 1000});
    deft::low_rank_modulated_weight<double>({w.data(), {1, 2}}, {down.data(), {2, 1, 2}}, {up.data(), {2, 1, 1}}, 1,
                                            {merged.data(), {1, 2}}, {.scale = 10});
    CHECK(merged == std::vector<double>{1, 52});
}

TEMPLATE_TEST_CASE("factors of zero leave the general layer, bit for bit", "[low_rank_modulated_linear]", float,
                   double) {
    random_values random(1);
    const auto some = [&](extents shape) {
        const std::vector<double> values = random.normal(shape).values;
        return std::vector<TestType>(values.begin(), values.end());
    };
    const index m = 40, n = 50, r = 6;
    const std::vector<TestType> x = some({30, n}), w = some({m, n}), down = some({3, r, n});
    const std::vector<TestType> zeros(std::size_t(3 * m * r), TestType(0)), up = some({3, m, r});
    std::vector<std::int64_t> mixed(30), single(30, 2);
    for (std::size_t i = 0; i < 30; ++i)
        mixed[i] = std::int64_t(i % 3);
    std::vector<TestType> plain(std::size_t(30 * m)), y(plain.size());
    const auto run = [&](const std::vector<TestType>& factors, const std::vector<std::int64_t>& task, double scale,
                         std::vector<TestType>& to) {
        deft::low_rank_modulated_linear<TestType>({x.data(), {30, n}}, {w.data(), {m, n}}, {down.data(), {3, r, n}},
                                                  {factors.data(), {3, m, r}}, task, absent, absent,
                                                  {to.data(), {30, m}}, {.scale = scale});
    };
    run(zeros, single, 1, plain);
    for (const auto& task : {mixed, single}) {
        run(zeros, task, 1, y);
        CHECK(y == plain);
        run(up, task, 0, y);
        CHECK(y == plain);
    }
    run(up, single, 1, y);
    CHECK(y != plain);
}

TEMPLATE_TEST_CASE("runs of rows of one task are what they are alone, wherever they begin",
                   "[low_rank_modulated_linear]", float, double) {
    using T = TestType;
    random_values random(2);
    const auto some = [&](extents shape) {
        const std::vector<double> values = random.normal(shape).values;
        return std::vector<T>(values.begin(), values.end());
    };
    const index n = 50, r = 6;
    for (const index m : {70, 200})
        for (const auto& [first, second] : {std::pair<index, index>{11, 13}, {9, 40}, {97, 91}, {181, 11}}) {
            const index rows = first + second;
            const std::vector<T> x = some({rows, n}), w = some({m, n}), down = some({2, r, n}), up = some({2, m, r});
            std::vector<std::int64_t> task(std::size_t(rows), 1);
            std::fill_n(task.begin(), first, 0);
            std::vector<T> whole(std::size_t(rows * m)), parts(whole.size());
            const auto run = [&](index begin, index count, std::vector<T>& to) {
                deft::low_rank_modulated_linear<T>({x.data() + begin * n, {count, n}}, {w.data(), {m, n}},
                                                   {down.data(), {2, r, n}}, {up.data(), {2, m, r}},
                                                   {task.data() + begin, {count}}, absent, absent,
                                                   {to.data() + begin * m, {count, m}});
            };
            run(0, rows, whole);
            run(0, first, parts);
            run(first, second, parts);
            double worst = 0; // short runs sum in another order
            for (std::size_t i = 0; i < whole.size(); ++i)
                worst = std::max(worst, std::abs(double(whole[i]) - double(parts[i])));
            CAPTURE(m, first, second);
            CHECK(worst <= 1000 * double(std::numeric_limits<T>::epsilon())); // sums of 56 terms, some 100 large
        }
}

TEST_CASE("tasks without rows get zero gradients", "[low_rank_modulated_linear]") {
    const std::vector<float> data(64, 1.0f);
    const float* const p = data.data();
    const std::vector<std::int64_t> task{2, 2};
    std::vector<float> gx(6), gw(12), gd(18, 7.0f), gu(24, 7.0f), gt(12, 7.0f);
    deft::low_rank_modulated_linear_backward<float>(
        {p, {2, 3}}, {p, {4, 3}}, {p, {3, 2, 3}}, {p, {3, 4, 2}}, task, {p, {2, 4}}, {gx.data(), {2, 3}},
        {gw.data(), {4, 3}}, {gd.data(), {3, 2, 3}}, {gu.data(), {3, 4, 2}}, absent, {gt.data(), {3, 4}});
    for (std::size_t i = 0; i < 12; ++i)
        CHECK(gd[i] == 0);
    for (std::size_t i = 0; i < 16; ++i)
        CHECK(gu[i] == 0);
    CHECK(gt == std::vector<float>{0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2});
    CHECK(gd[12] == 8); // 2 rows, q = 4
    CHECK(gu[16] == 6); // 2 rows, h = 3
    CHECK(gx[0] == 12); // W^T g = 4, down^T q = 8
    CHECK(gw[0] == 2);
}

TEST_CASE("low_rank_modulated_linear rejects bad input", "[low_rank_modulated_linear]") {
    const std::vector<float> data(64, 1.0f);
    const float* const p = data.data();
    bad_input bad("low_rank_modulated_linear"), merge("low_rank_modulated_weight"),
        back("low_rank_modulated_linear_backward");
    float* const y = bad.output<float>(8);
    struct arguments {
        shape<2> x{2, 3}, weight{4, 3}, task_bias{3, 4}, y{2, 4};
        shape<3> down{3, 2, 3}, up{3, 4, 2};
        std::vector<std::int64_t> task{0, 2};
        index bias = 4;
    };
    const auto call = [&](const arguments& a) {
        return [=] {
            deft::low_rank_modulated_linear<float>({p, a.x}, {p, a.weight}, {p, a.down}, {p, a.up}, a.task,
                                                   {p, {a.bias}}, {p, a.task_bias}, {y, a.y});
        };
    };
    CHECK(bad.rejects("x", call({.x = {2, 4}})));
    CHECK(bad.rejects("down", call({.down = {3, 2, 4}})));
    CHECK(bad.rejects("up", call({.up = {2, 4, 2}})));
    CHECK(bad.rejects("up", call({.up = {3, 3, 2}})));
    CHECK(bad.rejects("up", call({.up = {3, 4, 3}})));
    CHECK(bad.rejects("task", call({.task = {0}})));
    CHECK(bad.rejects("task", call({.task = {0, 3}})));
    CHECK(bad.rejects("task", call({.task = {-1, 0}})));
    CHECK(bad.rejects("bias", call({.bias = 3})));
    CHECK(bad.rejects("task_bias", call({.task_bias = {2, 4}})));
    CHECK(bad.rejects("task_bias", call({.task_bias = {3, 3}})));
    CHECK(bad.rejects("y", call({.y = {2, 3}})));
    CHECK(bad.rejects("y", call({.y = {1, 4}})));
    float* const merged = merge.output<float>(12);
    const auto weight = [&](index task, shape<2> to) {
        return [=] {
            deft::low_rank_modulated_weight<float>({p, {4, 3}}, {p, {3, 2, 3}}, {p, {3, 4, 2}}, task, {merged, to});
        };
    };
    CHECK(merge.rejects("task", weight(3, {4, 3})));
    CHECK(merge.rejects("task", weight(-1, {4, 3})));
    CHECK(merge.rejects("merged", weight(0, {3, 4})));
    float* const g = back.output<float>(64);
    struct gradients {
        shape<2> grad_y{2, 4}, x{2, 3}, weight{4, 3}, task_bias{3, 4};
        shape<3> down{3, 2, 3}, up{3, 4, 2};
        index bias = 4;
        std::vector<std::int64_t> task{0, 2};
    };
    const auto backward = [&](const gradients& a) {
        return [=] {
            deft::low_rank_modulated_linear_backward<float>({p, {2, 3}}, {p, {4, 3}}, {p, {3, 2, 3}}, {p, {3, 4, 2}},
                                                            a.task, {p, a.grad_y}, {g, a.x}, {g, a.weight}, {g, a.down},
                                                            {g, a.up}, {g, {a.bias}}, {g, a.task_bias});
        };
    };
    CHECK(back.rejects("grad_y", backward({.grad_y = {2, 3}})));
    CHECK(back.rejects("grad_x", backward({.x = {2, 4}})));
    CHECK(back.rejects("grad_weight", backward({.weight = {3, 4}})));
    CHECK(back.rejects("grad_down", backward({.down = {3, 3, 3}})));
    CHECK(back.rejects("grad_up", backward({.up = {3, 4, 3}})));
    CHECK(back.rejects("grad_bias", backward({.bias = 3})));
    CHECK(back.rejects("grad_task_bias", backward({.task_bias = {3, 3}})));
    CHECK(back.rejects("task", backward({.task = {0, 3}})));
}

} // namespace deft::testing

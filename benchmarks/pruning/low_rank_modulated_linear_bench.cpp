// low_rank_modulated_linear with one task and mixed ones, against the layer alone and against unfused products.
#include "../peers/gemm.hpp"
#include "../support/suite.hpp"

#include <deft/pruning/low_rank_modulated_linear.hpp>
#include <deft/reference/pruning/low_rank_modulated_linear.hpp>

#include <Eigen/Core>

#include <string>
#include <vector>

namespace deft::bench {
namespace {

constexpr index tasks = 5;

void forward(suite& s, index batch, index m, index n, index r, bool mixed, bool full) {
    const auto x = normal<float>(batch * n), w = normal<float>(m * n, 2), down = normal<float>(tasks * r * n, 3);
    const auto up = normal<float>(tasks * m * r, 4), y = output<float>(batch * m);
    const auto task_of = [=](index b) { return std::int64_t(mixed ? b % tasks : 2); };
    const lazy task([=] {
        std::vector<std::int64_t> all;
        for (index b = 0; b < batch; ++b)
            all.push_back(task_of(b));
        return all;
    });
    const shape<2> xs(batch, n), ws(m, n), ys(batch, m);
    const shape<3> ds(tasks, r, n), us(tasks, m, r);
    auto& rows =
        s.compare({.op = "low_rank_modulated_linear",
                   .type = "f32",
                   .shape = std::to_string(batch) + 'x' + std::to_string(m) + 'x' + std::to_string(n) + "_r" +
                            std::to_string(r) + (mixed ? "_mixed" : ""),
                   .work = {.items = double(batch * m), .flops = 2 * double(batch) * double(m * n + r * (m + n))},
                   .full = full});
    rows.naive(inputs{x, w, down, up}, outputs{y}, [=]<class U>(const U* a, const U* b, const U* c, const U* d, U* to) {
        reference::low_rank_modulated_linear<U>({a, xs}, {b, ws}, {c, ds}, {d, us}, *task, U(1), absent, absent,
                                                {to, ys});
    });
    if (!mixed) {
        using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
        rows.add("eigen_unfused", [=] {
            const Eigen::Map<const matrix> input(x.data(), batch, n), weight(w.data(), m, n);
            const Eigen::Map<const matrix> a(down.data() + 2 * r * n, r, n), b(up.data() + 2 * m * r, m, r);
            Eigen::Map<matrix> to(y.data(), batch, m);
            to.noalias() = input * weight.transpose();
            const matrix h = input * a.transpose();
            to.noalias() += h * b.transpose();
        });
        const lazy merged([=] { // once per task
            std::vector<float> weight(static_cast<std::size_t>(m * n));
            deft::low_rank_modulated_weight<float>(as(w, ws), as(down, ds), as(up, us), 2, {weight.data(), ws});
            return weight;
        });
        rows.add("merged", [=] { // the layer alone, of the merged weight
            const view<const float, 3> none(nullptr, {tasks, 0, n}), nothing(nullptr, {tasks, m, 0});
            deft::low_rank_modulated_linear<float>(as(x, xs), {merged->data(), ws}, none, nothing, *task, absent,
                                                   absent, as(y, ys));
        });
    }
    rows.add("deft", [=] {
        deft::low_rank_modulated_linear<float>(as(x, xs), as(w, ws), as(down, ds), as(up, us), *task, absent, absent,
                                               as(y, ys));
    });
}

} // namespace

void benchmark_low_rank_modulated_linear(suite& s) {
    for (const bool mixed : {false, true}) {
        forward(s, 64, 576, 576, 8, mixed, false);
        forward(s, 1, 2304, 576, 16, mixed, true);
        forward(s, 4096, 360, 180, 8, mixed, true);
        forward(s, 4096, 576, 576, 32, mixed, true);
    }
}

} // namespace deft::bench

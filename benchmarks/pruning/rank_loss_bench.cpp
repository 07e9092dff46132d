// rank_loss with its gradient, against an explicit decomposition by Eigen.
#include "../peers/svd.hpp"
#include "../support/suite.hpp"

#include <deft/pruning/rank_loss.hpp>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace deft::bench {
namespace {

/// 95 % of zeros.
buffer<float> sparse(index size) {
    return {size, [](float* to, index n) {
                std::minstd_rand generator(7);
                std::normal_distribution<float> normal;
                std::uniform_int_distribution<int> draw(0, 99);
                std::generate_n(to, n, [&] { return draw(generator) < 95 ? 0.0f : normal(generator); });
            }};
}

/// The gradient of -||R||^2, from a thin decomposition of the weight.
template <class U>
void explicit_loss(const U* from, U* to, index m, index n, index k) {
    std::vector<U> values(std::size_t(std::min(m, n))), best(std::size_t(m * n));
    eigen::bdcsvd(from, m, n, values.data(), true, k, best.data());
    U square = 0, tail = 0; // of norms: of all, and of what is beyond rank k
    for (std::size_t i = 0; i < values.size(); ++i) {
        square += values[i] * values[i];
        tail += index(i) < k ? U(0) : values[i] * values[i];
    }
    for (std::size_t i = 0; i < best.size(); ++i)
        to[i] = 2 / square * (tail / square * from[i] - (from[i] - best[i]));
}

void layer(suite& s, index m, index n, bool full) {
    const auto w = sparse(m * n), grad = output<float>(m * n);
    const shape<2> size(m, n);
    const index k = std::min(m, n) / 2;
    s.compare({.op = "rank_loss",
               .type = "f32",
               .shape = std::to_string(m) + 'x' + std::to_string(n) + "_s95",
               .work = {.items = double(m * n), .flops = double(std::min(m, n)) * double(m) * double(n)},
               .tolerance = 1e-3,
               .full = full})
        .naive(inputs{w}, outputs{grad}, [=]<class U>(const U* from, U* to) { explicit_loss(from, to, m, n, k); })
        .add("deft", [=] {
            deft::rank_loss_backward<float>(as(w, size), 1, as(grad, size),
                                            {.rank = {.mode = rank_mode::k, .rank = k}});
        });
}

} // namespace

void benchmark_rank_loss(suite& s) {
    layer(s, 64, 576, false);
    layer(s, 128, 1152, true);
    layer(s, 256, 2304, true);
    layer(s, 512, 4608, true);
    layer(s, 2048, 512, true);
}

/// Nothing: the sum of the above.
void benchmark_model_rank_loss(suite&) {}

} // namespace deft::bench

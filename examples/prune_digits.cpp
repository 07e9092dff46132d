/// \file
/// Pruning a small network on real data: a perceptron 64 - 256 - 256 - 10 on the digits that scikit-learn ships, dense,
/// and pruned while it trains to 90, 95 and 98 % zeros, by magnitude alone and as RPG does it (arXiv:2311.17493).
///
///     magnitude   every 20 steps the smallest weights of all layers go, at a density that falls exponentially
///     rpg         the same, and part of the survivors is dropped and regrown where the gradient of
///                 task loss + lambda * rank loss is largest
///
/// Printed per method: accuracy on 360 images that were not trained on, the effective rank of the weights, averaged
/// over the layers, and the time of the test images through sparse_matmul against dense products; mean and standard
/// deviation over the seeds. Each run is appended to the second argument, and a run that is there already is not
/// repeated: the program can be stopped and started again.
///
/// The file comes from examples/prune_digits.py.
#include "support/safetensors.hpp"

#include <deft/linalg.hpp>
#include <deft/pruning/prune_and_regrow.hpp>
#include <deft/pruning/rank_loss.hpp>
#include <deft/pruning/rank_metrics.hpp>
#include <deft/pruning/sparse_matmul.hpp>
#include <deft/pruning/sparsity_schedule.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <map>
#include <numeric>
#include <random>
#include <sstream>
#include <string>
#include <vector>

namespace {

using deft::index;
using floats = std::vector<float>;

constexpr index widths[] = {64, 256, 256, 10};
constexpr std::size_t layers = 3;
constexpr index batch = 64, epochs = 80, delta = 20;
constexpr float rate = 0.05f, momentum = 0.9f;
constexpr double lambda = 1.0;

struct layer {
    index in, out;
    floats weight, bias, grad, grad_bias, velocity, velocity_bias;
    std::vector<std::uint64_t> mask;

    deft::view<float, 2> weights() {
        return {weight.data(), {out, in}};
    }
};

struct dataset {
    floats images; // [count, 64]
    std::vector<int> labels;
};

struct outcome {
    double accuracy, rank, dense_us, sparse_us;
};

std::vector<layer> random_network(std::mt19937& engine) {
    std::vector<layer> network;
    for (std::size_t l = 0; l < layers; ++l) {
        const index in = widths[l], out = widths[l + 1];
        std::normal_distribution<float> normal(0, std::sqrt(2 / float(in)));
        layer made{in, out, floats(std::size_t(in * out)), floats(std::size_t(out)), {}, {}, {}, {}, {}};
        for (float& w : made.weight)
            w = normal(engine);
        made.grad = made.velocity = floats(made.weight.size());
        made.grad_bias = made.velocity_bias = floats(made.bias.size());
        made.mask.assign(std::size_t(deft::mask_words(in * out)), 0);
        deft::pack_mask(std::vector<std::uint8_t>(made.weight.size(), 1), made.mask);
        network.push_back(std::move(made));
    }
    return network;
}

/// y = x W^T + bias, relu but in the last layer.
void forward(const layer& l, bool is_last, const floats& x, floats& y, index rows) {
    namespace linalg = deft::linalg;
    y.resize(std::size_t(rows * l.out));
    const linalg::matrix<const float> weight(l.weight.data(), l.out, l.in, l.in, 1);
    linalg::gemm<float>(1, {x.data(), rows, l.in, l.in, 1}, weight.transposed(), 0, {y.data(), rows, l.out, l.out, 1});
    for (std::size_t i = 0; i < y.size(); ++i) {
        y[i] += l.bias[i % std::size_t(l.out)];
        y[i] = is_last ? y[i] : std::max(y[i], 0.0f);
    }
}

/// The gradients of the mean cross entropy of a batch, in the layers.
void backward(std::vector<layer>& network, const std::vector<floats>& h, const std::vector<int>& labels, index rows) {
    namespace linalg = deft::linalg;
    floats g = h[layers];
    for (index r = 0; r < rows; ++r) { // softmax less the label
        float* const row = g.data() + r * 10;
        const float largest = *std::max_element(row, row + 10);
        float sum = 0;
        for (int c = 0; c < 10; ++c)
            sum += row[c] = std::exp(row[c] - largest);
        for (int c = 0; c < 10; ++c)
            row[c] = (row[c] / sum - (c == labels[std::size_t(r)] ? 1.0f : 0.0f)) / float(rows);
    }
    for (std::size_t i = layers; i-- > 0;) {
        layer& l = network[i];
        const linalg::matrix<const float> grad(g.data(), rows, l.out, l.out, 1);
        linalg::gemm<float>(1, grad.transposed(), {h[i].data(), rows, l.in, l.in, 1}, 0,
                            {l.grad.data(), l.out, l.in, l.in, 1});
        std::fill(l.grad_bias.begin(), l.grad_bias.end(), 0.0f);
        for (std::size_t k = 0; k < g.size(); ++k)
            l.grad_bias[k % std::size_t(l.out)] += g[k];
        floats before(std::size_t(rows * l.in));
        linalg::gemm<float>(1, grad, {l.weight.data(), l.out, l.in, l.in, 1}, 0, {before.data(), rows, l.in, l.in, 1});
        for (std::size_t k = 0; k < before.size(); ++k)
            before[k] = h[i][k] > 0 ? before[k] : 0.0f;
        g = std::move(before);
    }
}

/// A step of the optimiser; what the masks drop stays 0.
void descend(std::vector<layer>& network, float step) {
    for (layer& l : network) {
        deft::apply_mask<float>(l.mask, {l.grad.data(), {l.out, l.in}});
        for (std::size_t i = 0; i < l.weight.size(); ++i) {
            l.velocity[i] = momentum * l.velocity[i] + l.grad[i];
            l.weight[i] -= step * l.velocity[i];
        }
        for (std::size_t i = 0; i < l.bias.size(); ++i) {
            l.velocity_bias[i] = momentum * l.velocity_bias[i] + l.grad_bias[i];
            l.bias[i] -= step * l.velocity_bias[i];
        }
    }
}

/// The mask update at a step, with what the layers hold as gradient.
void update_masks(std::vector<layer>& network, double density, double drop, bool keeps_rank) {
    std::vector<deft::view<float, 2>> weights, rank_grads;
    std::vector<deft::view<const float, 2>> given, grads;
    std::vector<deft::view<std::uint64_t, 1>> masks;
    std::vector<floats> rank_grad;
    for (layer& l : network) {
        rank_grad.emplace_back(l.weight.size());
        weights.push_back(l.weights());
        given.push_back(l.weights());
        grads.emplace_back(l.grad.data(), deft::shape<2>{l.out, l.in});
        masks.emplace_back(l.mask);
    }
    if (keeps_rank) {
        std::vector<index> ranks(layers);
        for (std::size_t i = 0; i < layers; ++i)
            rank_grads.emplace_back(rank_grad[i].data(), deft::shape<2>{network[i].out, network[i].in});
        deft::model_rank_loss_backward<float>(given, lambda, rank_grads, ranks,
                                              {.rank = {.mode = deft::rank_mode::tail, .tail_energy = 0.2}});
        for (std::size_t i = 0; i < layers; ++i)
            for (std::size_t k = 0; k < rank_grad[i].size(); ++k)
                network[i].grad[k] += rank_grad[i][k];
    }
    deft::pruning_step<float>(weights, grads, masks, {.density = density, .drop_fraction = drop});
    for (layer& l : network)
        deft::apply_mask<float>(l.mask, {l.velocity.data(), {l.out, l.in}});
}

template <class F>
double microseconds(F&& f) {
    const auto start = std::chrono::steady_clock::now();
    f();
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
}

outcome measure(std::vector<layer>& network, const dataset& test) {
    const index rows = index(test.labels.size());
    outcome result{0, 0, 0, 0};
    std::vector<floats> h(layers + 1);
    h[0] = test.images;
    for (std::size_t l = 0; l < layers; ++l)
        forward(network[l], l + 1 == layers, h[l], h[l + 1], rows);
    for (index r = 0; r < rows; ++r) {
        const float* const row = h[layers].data() + r * 10;
        result.accuracy += std::max_element(row, row + 10) - row == test.labels[std::size_t(r)] ? 1 : 0;
    }
    result.accuracy *= 100.0 / double(rows);
    std::vector<deft::sparse_weight<float>> sparse;
    for (layer& l : network) {
        result.rank += deft::rank_metrics<float>(l.weights(), deft::absent, {.delta = 0.1}).effective_rank / layers;
        sparse.emplace_back(l.weights(), l.mask);
    }
    // Both as features x images, one layer after the other.
    floats x(test.images.size());
    for (index r = 0; r < rows; ++r)
        for (index c = 0; c < 64; ++c)
            x[std::size_t(c * rows + r)] = test.images[std::size_t(r * 64 + c)];
    std::vector<floats> y;
    for (const layer& l : network)
        y.emplace_back(std::size_t(l.out * rows));
    std::vector<double> dense_times, sparse_times;
    for (int repetition = 0; repetition < 15; ++repetition) {
        dense_times.push_back(microseconds([&] {
            for (std::size_t i = 0; i < layers; ++i) {
                const layer& l = network[i];
                deft::linalg::gemm<float>(1, {l.weight.data(), l.out, l.in, l.in, 1},
                                          {(i == 0 ? x : y[i - 1]).data(), l.in, rows, rows, 1}, 0,
                                          {y[i].data(), l.out, rows, rows, 1});
                for (index r = 0; r < l.out; ++r)
                    for (float *v = y[i].data() + r * rows, *end = v + rows; v < end; ++v)
                        *v =
                            i + 1 == layers ? *v + l.bias[std::size_t(r)] : std::max(*v + l.bias[std::size_t(r)], 0.0f);
            }
        }));
        sparse_times.push_back(microseconds([&] {
            for (std::size_t i = 0; i < layers; ++i) {
                deft::sparse_matmul_options options{.layout = deft::sparse_layout::cn};
                if (i + 1 < layers)
                    options.clamp_min = 0;
                deft::sparse_matmul(sparse[i], {(i == 0 ? x : y[i - 1]).data(), {network[i].in, rows}}, network[i].bias,
                                    deft::view<float, 2>(y[i].data(), {network[i].out, rows}), options);
            }
        }));
    }
    const auto median = [](std::vector<double>& times) {
        std::sort(times.begin(), times.end());
        return times[times.size() / 2];
    };
    result.dense_us = median(dense_times);
    result.sparse_us = median(sparse_times);
    return result;
}

/// density 1: no pruning.
outcome train(const dataset& all, unsigned seed, double density, bool is_rpg) {
    std::mt19937 engine(seed);
    const index count = index(all.labels.size()), tested = 360, trained = count - tested;
    std::vector<index> order(std::size_t(count), 0);
    std::iota(order.begin(), order.end(), index(0));
    std::shuffle(order.begin(), order.end(), engine);
    const auto take = [&](index first, index number, dataset& to) {
        to.images.clear();
        to.labels.clear();
        for (index i = first; i < first + number; ++i) {
            const index at = order[std::size_t(i)];
            to.images.insert(to.images.end(), all.images.begin() + at * 64, all.images.begin() + (at + 1) * 64);
            to.labels.push_back(all.labels[std::size_t(at)]);
        }
    };
    dataset test, part;
    take(trained, tested, test);

    std::vector<layer> network = random_network(engine);
    std::vector<floats> h(layers + 1);
    const index per_epoch = trained / batch, steps = per_epoch * epochs;
    const index last = steps * 9 / 10, updates = std::max<index>(last / delta, 1);
    for (index step = 0; step < steps; ++step) {
        if (step % per_epoch == 0)
            std::shuffle(order.begin(), order.begin() + trained, engine);
        take(step % per_epoch * batch, batch, part);
        h[0] = part.images;
        for (std::size_t l = 0; l < layers; ++l)
            forward(network[l], l + 1 == layers, h[l], h[l + 1], batch);
        backward(network, h, part.labels, batch);
        const bool is_update = density < 1 && (step + 1) % delta == 0 && step + 1 <= last;
        if (is_update) { // instead of a step of the optimiser, as in the paper's code
            const index update = (step + 1) / delta;
            const double now = deft::sparsity_schedule(
                update, {.kind = deft::schedule_kind::exponential, .density = density, .updates = updates});
            const double drop =
                is_rpg ? deft::sparsity_schedule(
                             step + 1, {.kind = deft::schedule_kind::drop_cosine, .end_step = last, .alpha = 0.3})
                       : 0.0;
            update_masks(network, now, drop, is_rpg);
        } else {
            descend(network, rate * 0.5f * float(1 + std::cos(3.14159265 * double(step) / double(steps))));
        }
        if (step % (steps / 10) == 0)
            std::fprintf(stderr, "\r%3td %%", 100 * step / steps);
    }
    std::fprintf(stderr, "\r");
    return measure(network, test);
}

void run(const char* path, const char* results_path, int seeds) {
    const deft::support::safetensors_file file(path);
    dataset all;
    for (const float pixel : deft::support::to_vector<float>(file["images"]))
        all.images.push_back(pixel / 16);
    all.labels = deft::support::to_vector<int>(file["labels"]);
    if (all.labels.size() < 1000 || all.images.size() != all.labels.size() * 64)
        throw std::runtime_error(std::string(path) + ": not images of 64 pixels and their labels");

    std::map<std::string, std::map<int, outcome>> done; // by method, by seed
    std::string method, line;
    for (std::ifstream before(results_path); std::getline(before, line);) {
        std::istringstream fields(line);
        int seed = 0;
        outcome o{0, 0, 0, 0};
        if (fields >> method >> seed >> o.accuracy >> o.rank >> o.dense_us >> o.sparse_us)
            done[method][seed] = o;
    }
    const std::pair<std::string, std::pair<double, bool>> methods[] = {
        {"dense", {1, false}},           {"magnitude_90", {0.10, false}}, {"rpg_90", {0.10, true}},
        {"magnitude_95", {0.05, false}}, {"rpg_95", {0.05, true}},        {"magnitude_98", {0.02, false}},
        {"rpg_98", {0.02, true}}};
    std::ofstream results(results_path, std::ios::app);
    for (int seed = 1; seed <= seeds; ++seed)
        for (const auto& [name, how] : methods) {
            if (done[name].count(seed) != 0)
                continue;
            const outcome o = train(all, unsigned(seed), how.first, how.second);
            done[name][seed] = o;
            results << name << ' ' << seed << ' ' << o.accuracy << ' ' << o.rank << ' ' << o.dense_us << ' '
                    << o.sparse_us << std::endl;
            if (!results)
                throw std::runtime_error(std::string(results_path) + ": cannot be written");
            std::fprintf(stderr, "seed %d of %d, %s: %.2f %%\n", seed, seeds, name.c_str(), o.accuracy);
        }

    std::printf("%-14s %18s %20s %12s %12s %8s\n", "method", "accuracy, %", "effective rank", "dense, us", "sparse, us",
                "ratio");
    for (const auto& entry : methods) {
        const auto statistics = [&](double outcome::*field) {
            double sum = 0, squares = 0;
            for (const auto& [seed, o] : done[entry.first])
                sum += o.*field;
            const double count = double(done[entry.first].size()), mean = sum / count;
            for (const auto& [seed, o] : done[entry.first])
                squares += (o.*field - mean) * (o.*field - mean);
            return std::pair(mean, count > 1 ? std::sqrt(squares / (count - 1)) : 0.0);
        };
        const auto accuracy = statistics(&outcome::accuracy), rank = statistics(&outcome::rank);
        const double dense = statistics(&outcome::dense_us).first, sparse = statistics(&outcome::sparse_us).first;
        std::printf("%-14s %9.2f +- %5.2f %11.1f +- %5.1f %12.0f %12.0f %8.2f\n", entry.first.c_str(), accuracy.first,
                    accuracy.second, rank.first, rank.second, dense, sparse, dense / sparse);
    }
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 3 && argc != 4) {
        std::fprintf(stderr, "usage: prune_digits DIGITS.safetensors RESULTS.txt [SEEDS]\n"
                             "examples/prune_digits.py writes the first\n");
        return 1;
    }
    try {
        run(argv[1], argv[2], argc == 4 ? std::stoi(argv[3]) : 5);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "prune_digits: %s\n", e.what());
        return 1;
    }
}

// A small stack of Mamba layers with random weights reads a prompt and goes on token by token, once plain and once with
// the states of two earlier layers fused in (DenseSSM, arXiv:2403.00818): how fast, with how large a state, and what
// the fusion costs.
//
//     dense_mamba_decode [layers [width [chunk]]]        default: 6 layers of 512, 64 tokens at a time
#include <deft/ssm/dense_mamba_block.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <random>
#include <vector>

namespace {

using deft::index;

constexpr index prompt = 2048, steps = 256, window = 2;

/// Weights as Mamba initialises them, and views of them.
struct model {
    deft::dense_mamba_options options;
    std::deque<std::vector<float>> memory;
    std::vector<deft::dense_mamba_layer<float>> layers;

    model(index depth, index width, index chunk)
        : options{.width = width,
                  .channels = 2 * width,
                  .states = 16,
                  .rank = std::max<index>(width / 16, 1),
                  .taps = 4,
                  .layers = depth,
                  .chunk = chunk} {
        std::mt19937 random(1);
        const index e = options.channels, n = options.states, middle = std::max<index>(width / 32, 1);
        const auto make = [&](index count, const std::function<float(index)>& value) -> const std::vector<float>& {
            std::vector<float>& v = memory.emplace_back(static_cast<std::size_t>(count));
            for (index i = 0; i < count; ++i)
                v[static_cast<std::size_t>(i)] = value(i);
            return v;
        };
        const auto matrix = [&](index rows, index columns) {
            std::normal_distribution<float> draw(0, 1 / std::sqrt(float(columns)));
            return deft::view<const float, 2>(make(rows * columns, [&](index) { return draw(random); }).data(),
                                              {rows, columns});
        };
        const auto vector = [&](index count, float value) {
            return deft::view<const float, 1>(make(count, [=](index) { return value; }));
        };
        for (index l = 0; l < depth; ++l) {
            std::uniform_real_distribution<float> log_step(std::log(1e-3f), std::log(1e-1f));
            const auto step_bias = [&](index) { // softplus of it is a step
                const float step = std::exp(log_step(random));
                return step + std::log(-std::expm1(-step));
            };
            layers.push_back({.norm = vector(width, 1),
                              .in_proj = matrix(2 * e, width),
                              .conv_weight = matrix(e, options.taps),
                              .conv_bias = vector(e, 0),
                              .x_proj = matrix(options.rank + 2 * n, e),
                              .dt_proj = matrix(e, options.rank),
                              .dt_bias = make(e, step_bias),
                              .A = {make(e * n, [=](index i) { return -float(i % n + 1); }).data(), {e, n}},
                              .D = vector(e, 1),
                              .out_proj = matrix(width, e),
                              .sel1 = matrix(middle, width),
                              .sel2 = matrix(e, middle)});
        }
    }
};

struct seconds {
    double prefill, decode;
};

/// The prompt in one call, then one call for every token.
seconds run(const model& m, index seen, const std::vector<float>& x, std::vector<float>& y, std::size_t& bytes) {
    using clock = std::chrono::steady_clock;
    const auto since = [](clock::time_point t) { return std::chrono::duration<double>(clock::now() - t).count(); };
    deft::dense_mamba_options options = m.options;
    options.window = seen;
    deft::dense_mamba_plan<float> plan(options);
    deft::dense_mamba_state<float> state(1, options);
    const auto call = [&](index first, index count) {
        const index d = options.width;
        deft::dense_mamba_block<float>({x.data() + first * d, {1, count, d}}, m.layers,
                                       deft::view<float, 3>(y.data() + first * d, {1, count, d}), state, plan);
    };
    seconds taken{};
    clock::time_point begin = clock::now();
    call(0, prompt);
    taken.prefill = since(begin);
    begin = clock::now();
    for (index i = 0; i < steps; ++i)
        call(prompt + i, 1);
    taken.decode = since(begin);
    bytes = state.bytes();
    return taken;
}

double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + 1, values.end());
    return values[1];
}

} // namespace

int main(int count, char** arguments) {
    const auto argument = [&](int i, deft::index otherwise) -> deft::index {
        return count > i ? std::atoi(arguments[i]) : otherwise;
    };
    const deft::index depth = argument(1, 6), width = argument(2, 512), chunk = argument(3, 64);
    if (depth < 1 || width < 1 || chunk < 1 || count > 4) {
        std::fprintf(stderr, "usage: %s [layers [width [chunk]]]\n", arguments[0]);
        return 1;
    }
    const model m(depth, width, chunk);
    std::vector<float> x(static_cast<std::size_t>((prompt + steps) * width)), y(x.size());
    std::mt19937 random(2);
    std::normal_distribution<float> draw;
    std::generate(x.begin(), x.end(), [&] { return draw(random); });

    constexpr deft::index windows[] = {0, window};
    std::vector<double> prefill[2], decode[2];
    std::size_t bytes = 0;
    for (int round = 0; round < 3; ++round) // interleaved: the machine may not be quiet
        for (int i = 0; i < 2; ++i) {
            const seconds taken = run(m, windows[i], x, y, bytes);
            prefill[i].push_back(taken.prefill);
            decode[i].push_back(taken.decode);
        }

    std::printf("%td layers of width %td, %td channels of %td states, one thread, float\n", depth, width,
                m.options.channels, m.options.states);
    std::printf("%-22s %16s %16s\n", "", "prefill tokens/s", "decode tokens/s");
    const auto line = [&](const char* name, int i) {
        std::printf("%-22s %16.0f %16.0f\n", name, double(prompt) / median(prefill[i]),
                    double(steps) / median(decode[i]));
    };
    line("plain", 0);
    line("window of 2 layers", 1);
    std::printf("fusion adds %.1f %% to prefill and %.1f %% to decode\n",
                100 * (median(prefill[1]) / median(prefill[0]) - 1), 100 * (median(decode[1]) / median(decode[0]) - 1));
    std::printf("state %zu bytes, fused or not\n", bytes);
    return 0;
}

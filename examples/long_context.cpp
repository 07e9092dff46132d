// A context of a million tokens in constant memory: eight heads of linear attention stream it in chunks, and softmax
// attention shows what it would cost.
//
//     long_context [TOKENS] [TIMES.csv]        default: 1000000 tokens, and no file
//     python3 long_context.py TIMES.csv PLOT.png
//
// Prints tokens per second and peak memory at every power of ten, the error of head 0 against a recurrence in double,
// and times of both kinds of attention over n with their crossover.
#include <deft/attention/linear_attention.hpp>
#include <deft/attention/softmax_attention.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <sys/resource.h>

namespace {

using deft::index;

constexpr index heads = 8, d = 64, chunk = 512;
using clock_type = std::chrono::steady_clock;

double seconds_since(clock_type::time_point start) {
    return std::chrono::duration<double>(clock_type::now() - start).count();
}

double peak_megabytes() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return double(usage.ru_maxrss) / 1024;
}

/// What a layer's projections would give: any tokens, any number of times.
struct source {
    std::uint64_t state = 1;

    float next() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return float(std::int32_t(state >> 32)) * 0x1p-31f;
    }
    void fill(std::vector<float>& values, bool positive) {
        for (float& x : values)
            x = positive ? std::exp(2 * next()) : next();
    }
};

/// Decays of RetNet: head h forgets over 32 to 512 tokens.
std::vector<float> head_decays() {
    std::vector<float> decays(heads);
    for (index h = 0; h < heads; ++h)
        decays[std::size_t(h)] = float(1 - std::exp(std::log(1.0 / 32) - std::log(16.0) * double(h) / (heads - 1)));
    return decays;
}

/// Head 0 by the plain recurrence in double.
struct exact_head {
    double decay;
    std::vector<double> state = std::vector<double>(d * d), norm = std::vector<double>(d);
    double error = 0, largest = 0;

    void compare(const float* q, const float* k, const float* v, const float* o, index tokens) {
        for (index i = 0; i < tokens; ++i) {
            double sum[d] = {}, denominator = 0;
            for (index f = 0; f < d; ++f) {
                const double key = double(k[i * d + f]), query = double(q[i * d + f]);
                for (index c = 0; c < d; ++c) {
                    double& s = state[std::size_t(f * d + c)];
                    s = decay * s + key * double(v[i * d + c]);
                    sum[c] += query * s;
                }
                norm[std::size_t(f)] = decay * norm[std::size_t(f)] + key;
                denominator += query * norm[std::size_t(f)];
            }
            for (index c = 0; c < d; ++c) {
                error = std::max(error, std::abs(double(o[i * d + c]) - sum[c] / denominator));
                largest = std::max(largest, std::abs(sum[c] / denominator));
            }
        }
    }
};

void stream(index tokens) {
    std::vector<float> q(heads * chunk * d), k(q.size()), v(q.size()), o(q.size());
    const std::vector<float> decays = head_decays();
    deft::linear_attention_state<float> state({.heads = heads, .features = d, .width = d});
    exact_head exact{.decay = double(decays[0])};
    source values;
    double spent = 0;
    index done = 0;
    std::printf("%10s %12s %10s %14s\n", "tokens", "tokens/s", "peak MB", "largest error");
    for (index report = 1000; done < tokens;) {
        const index n = std::min({chunk, tokens - done, report - done});
        values.fill(q, true);
        values.fill(k, true);
        values.fill(v, false);
        const deft::shape<4> extents{1, heads, n, d};
        const auto start = clock_type::now();
        deft::linear_attention<float>({q.data(), extents}, {k.data(), extents}, {v.data(), extents}, decays,
                                      deft::view<float, 4>(o.data(), extents), state,
                                      {.normalize = deft::attention_normalize::sum});
        spent += seconds_since(start);
        exact.compare(q.data(), k.data(), v.data(), o.data(), n);
        done += n;
        if (done == report || done == tokens) {
            std::printf("%10td %12.0f %10.1f %14.2e\n", done, double(done) / spent, peak_megabytes(),
                        exact.error / exact.largest);
            std::fflush(stdout);
            report *= 10;
        }
    }
}

/// Milliseconds of the fastest of a few runs.
template <class F>
double best_of(int runs, F&& f) {
    double best = 1e30;
    for (int i = 0; i < runs; ++i) {
        const auto start = clock_type::now();
        f();
        best = std::min(best, 1e3 * seconds_since(start));
    }
    return best;
}

void compare_with_softmax(const char* path) {
    std::FILE* const file = path == nullptr ? nullptr : std::fopen(path, "w");
    if (path != nullptr && file == nullptr) {
        std::fprintf(stderr, "cannot write %s\n", path);
        std::exit(1);
    }
    if (file != nullptr)
        std::fprintf(file, "tokens,linear_ms,softmax_ms\n");
    std::printf("\n%10s %12s %12s\n", "tokens", "linear ms", "softmax ms");
    index crossover = 0;
    for (index n = 32; n <= 8192; n *= 2) {
        std::vector<float> q(std::size_t(heads * n * d)), k(q.size()), v(q.size()), o(q.size());
        std::vector<float> lse(std::size_t(heads * n));
        source values;
        values.fill(q, true);
        values.fill(k, true);
        values.fill(v, false);
        deft::linear_attention_state<float> state({.heads = heads, .features = d, .width = d});
        const deft::shape<4> extents{1, heads, n, d};
        const deft::view<float, 4> out(o.data(), extents);
        const int runs = n <= 1024 ? 9 : 3;
        const double linear = best_of(runs, [&] {
            state.reset();
            deft::linear_attention<float>({q.data(), extents}, {k.data(), extents}, {v.data(), extents}, deft::absent,
                                          out, state, {.normalize = deft::attention_normalize::sum});
        });
        const double softmax = best_of(runs, [&] {
            deft::softmax_attention<float>({q.data(), extents}, {k.data(), extents}, {v.data(), extents}, deft::absent,
                                           out, {lse.data(), {1, heads, n}});
        });
        std::printf("%10td %12.3f %12.3f\n", n, linear, softmax);
        if (file != nullptr)
            std::fprintf(file, "%td,%.6f,%.6f\n", n, linear, softmax);
        if (crossover == 0 && softmax > linear)
            crossover = n;
    }
    std::printf("linear attention is faster from %td tokens on\n", crossover);
    if (file != nullptr)
        std::fclose(file);
}

} // namespace

int main(int argc, char** argv) {
    const deft::index tokens = argc > 1 ? std::atol(argv[1]) : 1000000;
    if (tokens < 1) {
        std::fprintf(stderr, "usage: long_context [TOKENS] [TIMES.csv]\n");
        return 1;
    }
    stream(tokens);
    compare_with_softmax(argc > 2 ? argv[2] : nullptr);
}

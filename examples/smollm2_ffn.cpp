/// \file
/// The gated FFN of SmolLM2-135M on real weights and real token embeddings, with three activations:
///
///     y = down(act(gate(h)) * up(h)),   h = x / rms(x) * weight,   act one of
///       silu          as the model was trained
///       inner series  silu(x/2 + 1/2) + silu(x/2 - 1/2)              PanGu-pi's form,   arXiv:2312.17276
///       outer series  silu(x + 1/2) / 2 + silu(x - 1/2) / 2          VanillaNet's form, arXiv:2305.12972
///
/// Both series were chosen, not trained: they approach silu for large |x|, so that the output stays comparable.
/// Printed are the time per token for all tokens at once (prefill) and for one (decode), the activation's share of it,
/// and what the output looks like. Eigen multiplies the matrices, deft does the activation, both in one thread.
///
/// The file comes from examples/smollm2_ffn.py, which says how to get the weights.
#include "support/smollm2.hpp"

#include <deft/activation/series_activation.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include <Eigen/Core>

namespace {

using deft::index;
using namespace deft::support;

/// Matrices as published: [outputs, inputs], for row vectors times the transposed matrix.
struct ffn_weights {
    float eps;
    Eigen::RowVectorXf norm;
    matrix gate, up, down;
};

struct series {
    const char* name;
    deft::series_form form;
    std::vector<float> a, b;
};

// ---- Loading ----------------------------------------------------------------------------------------------------

ffn_weights load_weights(const safetensors_file& file) {
    ffn_weights w;
    w.eps = std::strtof(metadata(file, "rms_norm_eps").c_str(), nullptr);
    if (!(w.eps > 0 && w.eps < 1))
        fail(file, "metadata 'rms_norm_eps' is '" + metadata(file, "rms_norm_eps") + "', expected a small number");

    const std::vector<float> norm = to_vector<float>(require(file, "ffn_norm", {-1}));
    const index hidden = static_cast<index>(norm.size());
    w.norm = Eigen::Map<const Eigen::RowVectorXf>(norm.data(), hidden);
    w.gate = to_matrix(require(file, "gate", {-1, hidden}));
    w.up = to_matrix(require(file, "up", {w.gate.rows(), hidden}));
    w.down = to_matrix(require(file, "down", {hidden, w.gate.rows()}));
    return w;
}

// ---- The block --------------------------------------------------------------------------------------------------

struct seconds {
    double total, activation;
};

/// Intermediate results, kept between calls.
struct workspace {
    matrix normed, gate, up;
};

/// y = FFN(x) for any number of rows; returns where the time went.
seconds run_ffn(const ffn_weights& w, const series& act, const matrix& x, workspace& space, matrix& y) {
    using clock = std::chrono::steady_clock;
    const auto between = [](clock::time_point from, clock::time_point to) {
        return std::chrono::duration<double>(to - from).count();
    };

    const auto start = clock::now();
    space.normed =
        (x.array().colwise() * (x.array().square().rowwise().mean() + w.eps).rsqrt()).rowwise() * w.norm.array();
    space.gate.noalias() = space.normed * w.gate.transpose();
    space.up.noalias() = space.normed * w.up.transpose();

    const auto before = clock::now();
    deft::series_activation(space.gate, act.a, act.b, space.gate, {.form = act.form, .base = deft::activation::silu});
    const auto after = clock::now();

    space.gate.array() *= space.up.array();
    y.noalias() = space.gate * w.down.transpose();
    return {between(start, clock::now()), between(before, after)};
}

/// The same for one token in double, term by term as the formulas say.
Eigen::VectorXd reference_ffn(const ffn_weights& w, const series& act, const matrix& x, index token) {
    Eigen::VectorXd h = x.row(token).cast<double>().transpose();
    h *= 1 / std::sqrt(h.squaredNorm() / double(h.size()) + double(w.eps));
    h = h.cwiseProduct(w.norm.cast<double>().transpose());

    const auto silu = [](double u) { return u / (1 + std::exp(-u)); };
    const auto activate = [&](double u) {
        double sum = 0;
        for (std::size_t i = 0; i < act.a.size(); ++i) {
            const double a = act.a[i], b = act.b[i];
            sum += act.form == deft::series_form::inner ? silu(a * u + b) : a * silu(u + b);
        }
        return sum;
    };
    const Eigen::VectorXd gate = (w.gate.cast<double>() * h).unaryExpr(activate);
    return w.down.cast<double>() * gate.cwiseProduct(w.up.cast<double>() * h);
}

// ---- Measuring --------------------------------------------------------------------------------------------------

double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

struct timing {
    double per_token, share; // microseconds; activation / total
};

/// Medians for every activation. They take turns, so that a disturbance meets all of them.
std::vector<timing> measure(const ffn_weights& w, const std::vector<series>& acts, const matrix& x, int repetitions) {
    std::vector<std::vector<double>> total(acts.size()), activation(acts.size());
    workspace space;
    matrix y;
    for (int repetition = -1; repetition < repetitions; ++repetition)
        for (std::size_t i = 0; i < acts.size(); ++i) {
            const seconds s = run_ffn(w, acts[i], x, space, y);
            if (repetition < 0)
                continue; // warms up, and allocates
            total[i].push_back(s.total);
            activation[i].push_back(s.activation);
        }
    std::vector<timing> result;
    for (std::size_t i = 0; i < acts.size(); ++i)
        result.push_back({1e6 * median(total[i]) / double(x.rows()), median(activation[i]) / median(total[i])});
    return result;
}

void run(const char* path) {
    const safetensors_file file(path);
    const ffn_weights w = load_weights(file);
    const matrix x = load_tokens(file, w.norm.size());
    const std::vector<series> acts{{"silu", deft::series_form::inner, {1}, {0}},
                                   {"inner series", deft::series_form::inner, {0.5f, 0.5f}, {0.5f, -0.5f}},
                                   {"outer series", deft::series_form::outer, {0.5f, 0.5f}, {0.5f, -0.5f}}};
    std::printf("%s, block %s\n%td tokens through norm and gated FFN, %td -> %td -> %td, float, one thread, %s\n\n",
                metadata(file, "source").c_str(), metadata(file, "block").c_str(), x.rows(), w.gate.cols(),
                w.gate.rows(), w.down.rows(), DEFT_ISA_NAME);

    const std::vector<timing> prefill = measure(w, acts, x, 51);
    const std::vector<timing> decode = measure(w, acts, x.topRows(1), 501);
    std::printf("                  prefill, %3td tokens       decode, one token\n", x.rows());
    std::printf("               us/token  activation     us/token  activation\n");
    for (std::size_t i = 0; i < acts.size(); ++i)
        std::printf("%-12s %10.2f  %9.2f%%   %10.2f  %9.2f%%\n", acts[i].name, prefill[i].per_token,
                    100 * prefill[i].share, decode[i].per_token, 100 * decode[i].share);

    std::printf("\noutput             mean        std        min        max    |y - y_silu| / |y_silu|    error\n");
    workspace space;
    matrix y, y_silu;
    bool accurate = true;
    for (const series& act : acts) {
        run_ffn(w, act, x, space, y);
        if (y_silu.size() == 0)
            y_silu = y;
        const index token = x.rows() / 2;
        const Eigen::VectorXd expected = reference_ffn(w, act, x, token);
        const double error =
            (y.row(token).cast<double>().transpose() - expected).cwiseAbs().maxCoeff() / expected.cwiseAbs().maxCoeff();
        accurate = accurate && error < 1e-5; // also false for NaN

        const auto values = y.cast<double>().array().eval();
        const double mean = values.mean();
        std::printf("%-12s %10.5f %10.5f %10.5f %10.5f %26.5f %8.1e\n", act.name, mean,
                    std::sqrt((values - mean).square().mean()), values.minCoeff(), values.maxCoeff(),
                    double((y - y_silu).norm() / y_silu.norm()), error);
    }
    std::printf("error: of one token, against the same in double, relative to the largest output\n");
    if (!accurate)
        fail(file, "the weights give an error above 1e-5");
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: smollm2_ffn FILE.safetensors   (examples/smollm2_ffn.py writes the file)\n");
        return 1;
    }
    try {
        run(argv[1]);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "smollm2_ffn: %s\n", e.what());
        return 1;
    }
}

/// \file
/// Feature collapse: what attention does to the diversity of real token embeddings, layer by layer, and what shortcuts
/// and activations do against it (PanGu-pi, arXiv:2312.17276, sections 3 and 4; Augmented Shortcuts, arXiv:2106.15941).
///
///     Z <- MSA(N) [+ Z] [+ gelu(N theta_1) + gelu(N theta_2)],   N = Z / rms(Z)
///     Z <- act(N W_1) W_2 [+ Z]
///
/// act is gelu, or a series of two, gelu(x + 1/2) / 2 + gelu(x - 1/2) / 2: chosen, not trained, as all weights but the
/// embeddings, which are SmolLM2-135M's. The weights are the same for every variant. Printed after each
/// layer is the relative diversity d_M(Z) / |Z|: 0 when all tokens are equal. The last line is the effective dimension,
/// the number of principal components that hold 80 % of the variance.
///
/// The file comes from examples/smollm2_ffn.py; examples/feature_collapse.py plots what the second argument names.
#include "support/smollm2.hpp"

#include <deft/activation/series_activation.hpp>
#include <deft/shortcut/augmented_shortcut.hpp>
#include <deft/shortcut/effective_dimension.hpp>
#include <deft/shortcut/feature_diversity.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include <Eigen/Core>

namespace {

using deft::index;
using namespace deft::support;

constexpr int layers = 24, paths = 2;
constexpr index heads = 9;

struct variant {
    const char* name;
    bool identity, augmented;
    std::vector<float> scale, shift; // of the activation's terms
};

struct layer {
    matrix query, key, value, output; // of the attention
    std::vector<float> theta;         // [paths, d, d]
    matrix up, down;
};

matrix random_matrix(index rows, index columns, std::mt19937& engine) {
    std::normal_distribution<float> normal(0, 1 / std::sqrt(float(rows)));
    return matrix::NullaryExpr(rows, columns, [&] { return normal(engine); });
}

layer random_layer(index d, std::mt19937& engine) {
    layer l{random_matrix(d, d, engine),
            random_matrix(d, d, engine),
            random_matrix(d, d, engine),
            random_matrix(d, d, engine),
            {},
            random_matrix(d, 4 * d, engine),
            random_matrix(4 * d, d, engine)};
    const matrix theta = random_matrix(d, paths * d, engine);
    l.theta.assign(theta.data(), theta.data() + theta.size());
    return l;
}

matrix normalized(const matrix& z) {
    return z.array().colwise() * (z.array().square().rowwise().mean() + 1e-5f).rsqrt();
}

/// Multi-head softmax attention of every token to all.
matrix attention(const matrix& n, const layer& l) {
    const index width = n.cols() / heads;
    const matrix q = n * l.query, k = n * l.key, v = n * l.value;
    matrix mixed(n.rows(), n.cols());
    for (index h = 0; h < heads; ++h) {
        const auto of_head = [&](const matrix& m) { return m.middleCols(h * width, width); };
        matrix score = of_head(q) * of_head(k).transpose() / std::sqrt(float(width));
        score = (score.colwise() - score.rowwise().maxCoeff()).array().exp();
        mixed.middleCols(h * width, width) =
            (score.array().colwise() / score.array().rowwise().sum()).matrix() * of_head(v);
    }
    return mixed * l.output;
}

void apply(const layer& l, const variant& kind, matrix& z) {
    const matrix n = normalized(z), mixed = attention(n, l);
    const index d = z.cols();
    const std::vector<float> none;
    const std::vector<float>& theta = kind.augmented ? l.theta : none;
    const deft::in<float, 3> weights{theta.data(), {kind.augmented ? paths : 0, d, d}};
    matrix y(z.rows(), d);
    if (kind.identity)
        deft::augmented_shortcut(n, mixed, weights, deft::absent, z, y,
                                 {.residual = deft::shortcut_residual::separate});
    else
        deft::augmented_shortcut(n, mixed, weights, deft::absent, deft::absent, y,
                                 {.residual = deft::shortcut_residual::none});

    matrix hidden = normalized(y) * l.up;
    deft::series_activation(hidden, kind.scale, kind.shift, hidden,
                            {.form = deft::series_form::outer, .base = deft::activation::gelu_erf});
    z = hidden * l.down;
    if (kind.identity)
        z += y;
}

double relative_diversity(const matrix& z) {
    return double(deft::feature_diversity<float>(z, {.normalize = deft::diversity_norm::frobenius}));
}

index effective_dimension(const matrix& z) {
    std::vector<float> share(std::size_t(std::min(z.rows(), z.cols())));
    return deft::effective_dimension(z, share, {.epsilon = 0.8});
}

void run(const char* path, const char* csv_path) {
    const safetensors_file file(path);
    const matrix embedded = load_tokens(file, require(file, "embedding", {-1, -1}).shape[1]);
    const index d = embedded.cols();
    if (d % heads != 0)
        fail(file, "embeddings of " + std::to_string(d) + " features cannot be cut into 9 heads");

    const std::vector<variant> variants{{"no shortcut", false, false, {1}, {0}},
                                        {"augmented only", false, true, {1}, {0}},
                                        {"identity", true, false, {1}, {0}},
                                        {"+ augmented", true, true, {1}, {0}},
                                        {"+ series", true, true, {0.5f, 0.5f}, {0.5f, -0.5f}}};
    std::mt19937 engine(1);
    std::vector<matrix> z(variants.size(), embedded);
    std::ofstream csv;
    if (csv_path != nullptr) {
        csv.open(csv_path);
        csv << "layer";
        for (const variant& v : variants)
            csv << ',' << v.name;
        csv << '\n';
    }

    std::printf("%s: %td tokens, %td features, %d layers of random weights\nrelative diversity\n\nlayer",
                metadata(file, "source").c_str(), embedded.rows(), d, layers);
    for (const variant& v : variants)
        std::printf(" %15s", v.name);
    std::printf("\n");
    for (int l = 0; l <= layers; ++l) {
        std::printf("%5d", l);
        csv << l;
        for (const matrix& m : z) {
            std::printf(" %15.6f", relative_diversity(m));
            csv << ',' << relative_diversity(m);
        }
        std::printf("\n");
        csv << '\n';
        std::fflush(stdout);
        if (l == layers)
            break;
        const layer weights = random_layer(d, engine);
        for (std::size_t i = 0; i < z.size(); ++i)
            apply(weights, variants[i], z[i]);
    }
    std::printf("  dim");
    for (const matrix& m : z)
        std::printf(" %15td", effective_dimension(m));
    std::printf("\n");
    if (csv_path != nullptr && !csv.flush())
        throw std::runtime_error(std::string(csv_path) + ": cannot be written");
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 2 && argc != 3) {
        std::fprintf(stderr,
                     "usage: feature_collapse FILE.safetensors [DIVERSITY.csv]\n"
                     "examples/smollm2_ffn.py writes the first, examples/feature_collapse.py plots the second\n");
        return 1;
    }
    try {
        run(argv[1], argc == 3 ? argv[2] : nullptr);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "feature_collapse: %s\n", e.what());
        return 1;
    }
}

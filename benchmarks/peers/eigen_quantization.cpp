#include "quantization.hpp"

#include <Eigen/Core>

namespace deft::bench::eigen {
namespace {

using array = Eigen::Array<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using column = Eigen::Array<float, Eigen::Dynamic, 1>;

} // namespace

void lora_rounding(const rounding_matrix& m) {
    static array v;
    const Eigen::Map<const matrix> a1(m.a1, m.rows, m.rank), a2(m.a2, m.rank, m.columns);
    const Eigen::Map<const array> w(m.w, m.rows, m.columns);
    const Eigen::Map<const column> scale(m.scale, m.rows);
    Eigen::Map<array> to(m.w_hat, m.rows, m.columns);
    v.resize(m.rows, m.columns);
    v.matrix().noalias() = a1 * a2;
    v = v.logistic();
    v = (v * 1.2f - 0.1f).max(0.0f).min(1.0f);
    to = (w.colwise() / scale).floor();
    to = (to + v).max(-m.most - 1).min(m.most);
    to.colwise() *= scale;
}

float block_distance(const float* target, const float* pred, index rows, index columns, float* grad) {
    static array lp, lq, p, q;
    const Eigen::Map<const array> h1(target, rows, columns), h2(pred, rows, columns);
    Eigen::Map<array> g(grad, rows, columns);
    const auto log_softmax = [](const auto& h, array& to) {
        to = h.colwise() - h.rowwise().maxCoeff();
        const column sums = to.exp().rowwise().sum().log();
        to.colwise() -= sums;
    };
    log_softmax(h1, lp);
    log_softmax(h2, lq);
    p = lp.exp();
    q = lq.exp();
    const float n = float(rows), all = n * float(columns);
    const float loss = (h2 - h1).square().sum() / all + (p * (lp - lq)).sum() / n;
    g = (h2 - h1) * (2 / all) + (q - p) / n;
    return loss;
}

} // namespace deft::bench::eigen

#include "recurrences.hpp"

#include <Eigen/Core>

#include <algorithm>
#include <cmath>

namespace deft::bench::eigen {
namespace {

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using rows = Eigen::Map<matrix>;
using const_rows = Eigen::Map<const matrix>;

} // namespace

void run(const retention_peer& s, index chunk) {
    matrix scores(chunk, chunk), decay(chunk, chunk), keys(chunk, s.dk);
    Eigen::VectorXf into(chunk), out(chunk), root(chunk);
    for (index h = 0; h < s.heads; ++h) {
        const double gamma = s.gamma[h];
        for (index i = 0; i < chunk; ++i) {
            into(i) = float(std::pow(gamma, double(i + 1)));
            for (index j = 0; j < chunk; ++j)
                decay(i, j) = j <= i ? float(std::pow(gamma, double(i - j))) : 0.0f;
        }
        rows state(s.state + h * s.dk * s.dv, s.dk, s.dv);
        state.setZero();
        double count = 0;
        for (index t = 0; t < s.tokens; t += chunk) {
            const index n = std::min(chunk, s.tokens - t), at = h * s.tokens + t;
            const const_rows q(s.q + at * s.dk, n, s.dk), k(s.k + at * s.dk, n, s.dk), v(s.v + at * s.dv, n, s.dv);
            rows o(s.o + at * s.dv, n, s.dv);
            for (index i = 0; i < n; ++i) {
                count = gamma * count + 1;
                root(i) = float(1 / std::sqrt(count));
                out(i) = into(n - 1 - i) / float(gamma);
            }
            scores.topLeftCorner(n, n).noalias() = q * k.transpose();
            scores.topLeftCorner(n, n).array() *= decay.topLeftCorner(n, n).array();
            o.noalias() = q * state;
            o.array().colwise() *= into.head(n).array();
            o.noalias() += scores.topLeftCorner(n, n) * v;
            o.array().colwise() *= root.head(n).array();
            keys.topRows(n) = k.array().colwise() * out.head(n).array();
            state *= into(n - 1);
            state.noalias() += keys.topRows(n).transpose() * v;
        }
    }
}

} // namespace deft::bench::eigen

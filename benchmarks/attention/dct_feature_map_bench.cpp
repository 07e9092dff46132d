// dct_feature_map and its gradient, against separate passes: a product with the matrix, exponentials, a division.
#include "../support/suite.hpp"

#include <deft/attention/dct_feature_map.hpp>
#include <deft/reference/attention/dct_feature_map.hpp>

#include <Eigen/Core>

#include <map>
#include <string>
#include <vector>

namespace deft::bench {
namespace {

/// One per type, made when it is needed.
template <class T>
const std::vector<T>& matrix(index d) {
    static std::map<index, std::vector<T>> made;
    std::vector<T>& m = made[d];
    if (m.empty())
        m = reference::dct_matrix<T>(d, 3);
    return m;
}

/// With Eigen, a pass over everything after the other.
template <class T>
void separate_passes(index rows, index d, const T* x, const T* t, T* phi) {
    using dense = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const Eigen::Map<const dense> from(x, rows, d), m(matrix<T>(d).data(), d, d);
    Eigen::Map<dense> to(phi, rows, d);
    to.noalias() = from * m.transpose();
    to.array().rowwise() *= Eigen::Map<const Eigen::Array<T, 1, Eigen::Dynamic>>(t, d);
    to.colwise() -= to.rowwise().maxCoeff().eval();
    to = to.array().exp();
    to.array().colwise() /= to.rowwise().sum().array().eval();
}

template <class T>
void forward(suite& s, index rows, index d, bool full) {
    const shape<2> size{rows, d};
    const auto x = normal<T>(rows * d), t = normal<T>(d, 2), phi = output<T>(rows * d);
    const lazy plan([=] { return dct_feature_plan<T>(d, d); });
    s.compare({.op = "dct_feature_map",
               .type = type_name<T>,
               .shape = std::to_string(rows) + 'x' + std::to_string(d),
               .work = {.items = double(rows * d), .bytes = 2 * sizeof(T) * double(rows * d), .exps = double(rows * d)},
               .full = full})
        .naive(
            inputs{x, t}, outputs{phi},
            [=]<class U>(const U* from, const U* radii, U* to) {
                reference::dct_feature_map<U>({from, size}, {radii, {d}}, absent, {to, size}, absent, matrix<U>(d), {});
            })
        .add("deft",
             [=] { deft::dct_feature_map(as(x, size), as(t, shape<1>(d)), absent, as(phi, size), absent, *plan); })
        .add("eigen", [=] { separate_passes(rows, d, x.data(), t.data(), phi.data()); });
}

template <class T>
void backward(suite& s, index rows, index d, bool full) {
    const shape<2> size{rows, d};
    const auto x = normal<T>(rows * d), t = normal<T>(d, 2), grad_phi = normal<T>(rows * d, 3);
    const auto grad_x = output<T>(rows * d), grad_t = output<T>(d, 1);
    const lazy plan([=] { return dct_feature_plan<T>(d, d); });
    s.compare({.op = "dct_feature_map_backward",
               .type = type_name<T>,
               .shape = std::to_string(rows) + 'x' + std::to_string(d),
               .work = {.items = double(rows * d), .bytes = 2 * sizeof(T) * double(rows * d), .exps = double(rows * d)},
               .full = full})
        .naive(inputs{x, t, grad_phi}, outputs{grad_x, grad_t},
               [=]<class U>(const U* from, const U* radii, const U* grad, U* to, U* to_t) {
                   reference::dct_feature_map_backward<U>({from, size}, {radii, {d}}, absent, {grad, size}, absent,
                                                          {to, size}, {to_t, {d}}, absent, matrix<U>(d), {});
               })
        .add("deft", [=] {
            deft::dct_feature_map_backward(as(x, size), as(t, shape<1>(d)), absent, as(grad_phi, size), absent,
                                           as(grad_x, size), as(grad_t, shape<1>(d)), absent, *plan);
        });
}

} // namespace

void benchmark_dct_feature_map(suite& s) {
    forward<float>(s, 2048, 64, false);
    forward<float>(s, 16 * 2048, 64, true);
    forward<float>(s, 2048 * 32, 80, true);
    forward<float>(s, 2048 * 8, 256, true);
    forward<float>(s, 64, 64, true);
    forward<double>(s, 2048, 64, true);
    backward<float>(s, 1024, 64, false);
    backward<float>(s, 16 * 2048, 64, true);
}

} // namespace deft::bench

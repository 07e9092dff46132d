// feature_diversity, its gradient and its streaming form, against Eigen's two passes and a plain read of the matrix.
#include "../support/suite.hpp"

#include <deft/reference/shortcut/feature_diversity.hpp>
#include <deft/shortcut/feature_diversity.hpp>
#include <deft/shortcut/feature_diversity_state.hpp>

#include <Eigen/Core>

#include <cmath>
#include <string>

namespace deft::bench {
namespace {

std::string name(shape<3> size) {
    return (size.extents[0] == 1 ? "" : std::to_string(size.extents[0]) + 'x') + std::to_string(size.extents[1]) + 'x' +
           std::to_string(size.extents[2]);
}

/// As one would write it at first: two scalar passes in the type of the elements.
template <class U>
void naive(const U* h, shape<3> size, U* value) {
    const auto [matrices, rows, columns] = size.extents;
    for (index b = 0; b < matrices; ++b) {
        U sum = 0;
        for (index c = 0; c < columns; ++c) {
            U mean = 0;
            for (index r = 0; r < rows; ++r)
                mean += h[(b * rows + r) * columns + c];
            mean /= U(rows);
            for (index r = 0; r < rows; ++r)
                sum += (h[(b * rows + r) * columns + c] - mean) * (h[(b * rows + r) * columns + c] - mean);
        }
        value[b] = std::sqrt(sum);
    }
}

/// Running sums of millions of squares in float lose digits; not those of deft.
constexpr double of_running_sums = 1e-2;

template <class T>
void forward(suite& s, shape<3> size, bool full = false) {
    const auto [matrices, rows, columns] = size.extents;
    const index n = matrices * rows * columns;
    const auto h = normal<T>(n), value = output<T>(matrices);
    s.compare({.op = "feature_diversity",
               .type = type_name<T>,
               .shape = name(size),
               .work = {.items = double(n), .bytes = double(n) * sizeof(T), .pattern = traffic::read},
               .full = full})
        .truth(inputs{h}, outputs{value}, [=]<class U>(const U* from, U* to) { naive(from, size, to); })
        .add("naive", [=] { naive<T>(h.data(), size, value.data()); }, {.tolerance = of_running_sums})
        .add("eigen",
             [=, matrices = matrices, rows = rows, columns = columns] {
                 using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
                 for (index b = 0; b < matrices; ++b) {
                     const Eigen::Map<const matrix> m(h.data() + b * rows * columns, rows, columns);
                     const Eigen::Matrix<T, 1, Eigen::Dynamic> mean = m.colwise().mean();
                     value.data()[b] = (m.rowwise() - mean).norm();
                 }
             },
             {.tolerance = of_running_sums})
        .add("streaming",
             [=, matrices = matrices, rows = rows, columns = columns] {
                 feature_diversity_state<T> state(columns);
                 for (index b = 0; b < matrices; ++b) {
                     state.reset();
                     for (index r = 0; r < rows; r += 64)
                         state.add({h.data() + (b * rows + r) * columns, {std::min<index>(64, rows - r), columns}});
                     value.data()[b] = T(state.value());
                 }
             })
        .add("deft", [=, matrices = matrices] { deft::feature_diversity(as(h, size), as(value, shape<1>(matrices))); });
}

template <class T>
void backward(suite& s, shape<3> size, bool full) {
    const auto [matrices, rows, columns] = size.extents;
    const index n = matrices * rows * columns;
    const auto h = normal<T>(n), grad_value = normal<T>(matrices, 4), grad_h = output<T>(n);
    s.compare({.op = "feature_diversity_backward",
               .type = type_name<T>,
               .shape = name(size),
               .work = {.items = double(n), .bytes = 2 * double(n) * sizeof(T)},
               .full = full})
        .naive(inputs{h, grad_value}, outputs{grad_h},
               [=, matrices = matrices]<class U>(const U* from, const U* g, U* to) {
                   reference::feature_diversity_backward<U>({from, size}, {g, {matrices}}, {to, size}, true);
               })
        .add("deft", [=, matrices = matrices] {
            deft::feature_diversity_backward(as(h, size), as(grad_value, shape<1>(matrices)), as(grad_h, size),
                                             {.normalize = diversity_norm::frobenius});
        });
}

} // namespace

void benchmark_feature_diversity(suite& s) {
    for (const shape<3>& size : {shape<3>{1, 197, 384}, {1, 197, 768}, {8, 197, 384}, {1, 2048, 4096}}) {
        const bool full = size.extents[2] != 384 || size.extents[0] != 1;
        forward<float>(s, size, full);
        forward<double>(s, size, full);
        backward<float>(s, size, full);
    }
}

} // namespace deft::bench

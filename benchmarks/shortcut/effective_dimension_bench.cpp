// effective_dimension against Eigen's singular values.
#include "../peers/svd.hpp"
#include "../support/suite.hpp"

#include <deft/reference/shortcut/effective_dimension.hpp>
#include <deft/shortcut/effective_dimension.hpp>

#include <Eigen/Core>

namespace deft::bench {

void benchmark_effective_dimension(suite& s) {
    constexpr index rows = 512, columns = 384;
    const auto h = normal<float>(rows * columns), share = output<float>(columns);
    s.compare(
         {.op = "effective_dimension", .type = "f32", .shape = "512x384", .work = {.items = double(rows * columns)}})
        .naive(inputs{h}, outputs{share},
               []<class U>(const U* from, U* to) {
                   reference::effective_dimension<U>({from, {1, rows, columns}}, {to, {columns}}, 0.8);
               })
        .add("eigen_bdcsvd",
             [=] {
                 using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
                 const Eigen::Map<const matrix> m(h.data(), rows, columns);
                 const matrix centred = m.rowwise() - m.colwise().mean();
                 Eigen::VectorXf squares(columns);
                 eigen::bdcsvd(centred.data(), rows, columns, squares.data(), false);
                 squares = squares.array().square();
                 float sum = 0;
                 for (index k = 0; k < columns; ++k)
                     share.data()[k] = (sum += squares[k]) / squares.sum();
             })
        .add("deft", [=] { deft::effective_dimension(as(h, shape<2>(rows, columns)), as(share, shape<1>(columns))); });
}

} // namespace deft::bench

// sparse_matmul and its gradient, against Eigen's CSR product and the dense products that pruning replaces.
#include "../peers/gemm.hpp"
#include "../peers/xnnpack.hpp"
#include "../support/suite.hpp"

#include <deft/pruning/sparse_matmul.hpp>
#include <deft/reference/pruning/sparse_matmul.hpp>

#include <Eigen/SparseCore>

#include <algorithm>
#include <random>
#include <string>

namespace deft::bench {
namespace {

/// Normal weights, `percent` of which are zero, anywhere.
template <class T>
buffer<T> pruned(index m, index n, int percent) {
    return {m * n, [=](T* to, index size) {
                std::minstd_rand generator(7);
                std::normal_distribution<float> normal;
                std::uniform_int_distribution<int> draw(0, 99);
                std::generate_n(to, size, [&] { return draw(generator) < percent ? T(0) : T(normal(generator)); });
            }};
}

template <class T>
using eigen_csr = Eigen::SparseMatrix<T, Eigen::RowMajor, int>;
template <class T>
using eigen_dense = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class T>
eigen_csr<T> to_eigen(const buffer<T>& w, index m, index n) {
    return Eigen::Map<const eigen_dense<T>>(w.data(), m, n).sparseView(T(0), T(0));
}

template <class T>
void forward(suite& s, index m, index n, index p, int percent, bool full = false) {
    const auto w = pruned<T>(m, n, percent), x = normal<T>(n * p, 2), bias = normal<T>(m, 3), y = output<T>(m * p);
    const lazy packed([=] { return sparse_weight<T>(as(w, shape<2>(m, n))); });
    const lazy rival([=] { return to_eigen(w, m, n); });
    const double entries = double(m) * double(n) * (100 - percent) / 100;
    auto& rows = s.compare({.op = "sparse_matmul",
                            .type = type_name<T>,
                            .shape = std::to_string(m) + 'x' + std::to_string(n) + 'x' + std::to_string(p) + "_s" +
                                     std::to_string(percent),
                            .work = {.items = double(m * p), .flops = 2 * entries * double(p)},
                            .full = full});
    rows.naive(inputs{w, x, bias}, outputs{y},
               [=]<class U>(const U* weight, const U* from, const U* b, U* to) { // CSR made beforehand would be kinder
                   for (index i = 0; i < m; ++i) {
                       std::fill_n(to + i * p, p, b[i]);
                       for (index k = 0; k < n; ++k)
                           if (const U value = weight[i * n + k]; value != U(0))
                               for (index j = 0; j < p; ++j)
                                   to[i * p + j] += value * from[k * p + j];
                   }
               });
    rows.add("eigen_csr", [=] {
        Eigen::Map<eigen_dense<T>> to(y.data(), m, p);
        to.noalias() = *rival * Eigen::Map<const eigen_dense<T>>(x.data(), n, p);
        to.colwise() += Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, 1>>(bias.data(), m);
    });
    if constexpr (std::is_same_v<T, float>) {
        const auto dense = [=](auto run) {
            return [=] {
                run(linear{m, n, p, w.data(), x.data(), y.data(), p == 1});
                for (index i = 0; i < m; ++i)
                    for (index j = 0; j < p; ++j)
                        y.data()[i * p + j] += bias.data()[i];
            };
        };
        // W x of a vector is x W^T of a row.
        const auto of_vector = [=](auto run) {
            return [=] {
                run(linear{1, n, m, x.data(), w.data(), y.data(), true});
                for (index i = 0; i < m; ++i)
                    y.data()[i] += bias.data()[i];
            };
        };
        const auto add_dense = [&](const char* name, void (*run)(const linear&)) {
            if (p == 1)
                rows.add(name, of_vector(run));
            else
                rows.add(name, dense(run));
        };
        add_dense("eigen_dense", eigen::run);
#if DEFT_PEER_OPENBLAS
        add_dense("openblas_dense", openblas::run);
#endif
#if DEFT_PEER_XNNPACK
        if (p > 1) { // a vector it has no sparse kernel for
            const lazy layer(
                [=] { return xnnpack::sparse_product(m, n, p, w.data(), bias.data(), x.data(), y.data()); });
            rows.add("xnnpack", [=] { layer->run(); });
        }
#endif
    }
    rows.add("deft", [=] {
        deft::sparse_matmul(*packed, as(x, shape<2>(n, p)), as(bias, shape<1>(m)), as(y, shape<2>(m, p)),
                            {.layout = sparse_layout::cn});
    });
}

template <class T>
void backward(suite& s, index m, index n, index p, int percent) {
    const auto w = pruned<T>(m, n, percent), x = normal<T>(n * p, 2), g = normal<T>(m * p, 4);
    const auto grad_x = output<T>(n * p, 1), grad_w = output<T>(m * n, 2), grad_b = output<T>(m, 3);
    const lazy packed([=] { return sparse_weight<T>(as(w, shape<2>(m, n)), absent, {.backward = true}); });
    const double entries = double(m) * double(n) * (100 - percent) / 100;
    s.compare({.op = "sparse_matmul_backward",
               .type = type_name<T>,
               .shape = std::to_string(m) + 'x' + std::to_string(n) + 'x' + std::to_string(p) + "_s" +
                        std::to_string(percent),
               .work = {.items = double(n * p), .flops = 4 * entries * double(p)}})
        .naive(inputs{w, x, g}, outputs{grad_x, grad_w, grad_b},
               [=]<class U>(const U* weight, const U* from, const U* grad, U* to_x, U* to_w, U* to_b) {
                   std::fill_n(to_x, n * p, U(0));
                   std::fill_n(to_w, m * n, U(0));
                   std::fill_n(to_b, m, U(0));
                   for (index i = 0; i < m; ++i) {
                       for (index j = 0; j < p; ++j)
                           to_b[i] += grad[i * p + j];
                       for (index k = 0; k < n; ++k)
                           if (const U value = weight[i * n + k]; value != U(0))
                               for (index j = 0; j < p; ++j) {
                                   to_x[k * p + j] += value * grad[i * p + j];
                                   to_w[i * n + k] += grad[i * p + j] * from[k * p + j];
                               }
                   }
               })
        .add("deft", [=] {
            deft::sparse_matmul_backward(*packed, as(x, shape<2>(n, p)), absent, as(g, shape<2>(m, p)),
                                         as(grad_x, shape<2>(n, p)), as(grad_w, shape<2>(m, n)),
                                         as(grad_b, shape<1>(m)), {.layout = sparse_layout::cn});
        });
}

} // namespace

void benchmark_sparse_matmul(suite& s) {
    for (const int percent : {70, 90, 95, 98}) {
        // Convolutions 1x1 of ResNet-50, as channels x pixels.
        forward<float>(s, 256, 64, 3136, percent, percent == 70);
        forward<float>(s, 64, 256, 3136, percent, true);
        forward<float>(s, 512, 128, 784, percent, true);
        forward<float>(s, 128, 512, 784, percent, percent == 70);
        forward<float>(s, 1024, 256, 196, percent, true);
        forward<float>(s, 256, 1024, 196, percent, percent == 70);
        forward<float>(s, 2048, 512, 49, percent, true);
        forward<float>(s, 512, 2048, 49, percent, percent != 90);
        // Square weights, and one column.
        forward<float>(s, 4096, 4096, 64, percent, percent != 90);
        forward<float>(s, 1024, 1024, 128, percent, true);
        forward<float>(s, 2048, 2048, 128, percent, true);
        forward<float>(s, 4096, 1024, 1, percent, percent != 90);
        forward<float>(s, 1024, 1024, 1, percent, true);
        forward<float>(s, 2048, 2048, 1, percent, true);
        forward<float>(s, 4096, 4096, 1, percent, true);
    }
    forward<double>(s, 128, 512, 784, 95, true);
    backward<float>(s, 128, 512, 784, 95);
}

} // namespace deft::bench

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/linalg.hpp>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace deft::testing {

namespace {

/// rows x columns with its rows or its columns consecutive, or neither, and unused memory in between.
template <class T>
struct strided {
    enum class order { rows, columns, neither };

    strided(random_values& random, index rows, index columns, order o) {
        const index fast = o == order::neither ? 2 : 1;
        row_stride = o == order::columns ? fast : columns * fast + 3;
        column_stride = o == order::columns ? rows * fast + 3 : fast;
        const index size = (rows + columns + 7) * 3 + rows * row_stride + columns * column_stride;
        memory.assign(std::size_t(size), std::numeric_limits<T>::quiet_NaN());
        for (index i = 0; i < rows; ++i)
            for (index j = 0; j < columns; ++j)
                memory[std::size_t(i * row_stride + j * column_stride)] = T(float(random.number(-1, 1)));
        extent[0] = rows;
        extent[1] = columns;
    }
    template <class U>
    linalg::matrix<U> as() {
        return {memory.data(), extent[0], extent[1], row_stride, column_stride};
    }
    double at(index i, index j) const {
        return double(memory[std::size_t(i * row_stride + j * column_stride)]);
    }

    std::vector<T> memory;
    index extent[2], row_stride, column_stride;
};

} // namespace

TEMPLATE_TEST_CASE("gemm of every shape and every stride", "[linalg]", float, double) {
    using T = TestType;
    using order = typename strided<T>::order;
    random_values random(70);
    const std::pair<double, double> factors[] = {{1, 0}, {1, 1}, {-0.5, 0}, {2, 0.25}};
    std::size_t turn = 0;
    for (const index m : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13})
        for (const index n : {1, 3, 8, 12, 33, 70})
            for (const index k : {0, 1, 7, 8, 19, 130})
                for (const order of_a : {order::rows, order::columns, order::neither})
                    for (const order of_b : {order::rows, order::columns, order::neither})
                        for (const order of_c : {order::rows, order::columns, order::neither}) {
                            const auto [alpha, beta] = factors[turn++ % 4];
                            strided<T> a(random, m, k, of_a), b(random, k, n, of_b), c(random, m, n, of_c);
                            strided<T> before = c;
                            if (beta == 0)
                                for (T& value : c.memory)
                                    value = std::numeric_limits<T>::quiet_NaN(); // is not read
                            linalg::gemm<T>(T(alpha), a.template as<const T>(), b.template as<const T>(), T(beta),
                                            c.template as<T>());
                            double worst = 0;
                            std::size_t untouched = 0;
                            for (index i = 0; i < m; ++i)
                                for (index j = 0; j < n; ++j) {
                                    double sum = 0;
                                    for (index p = 0; p < k; ++p)
                                        sum += a.at(i, p) * b.at(p, j);
                                    sum *= alpha;
                                    if (beta != 0)
                                        sum += beta * before.at(i, j);
                                    const double error = std::abs(c.at(i, j) - sum);
                                    worst = error <= worst ? worst : error; // a NaN stays
                                }
                            for (const T value : c.memory)
                                untouched += std::isnan(value);
                            CAPTURE(m, n, k, int(of_a), int(of_b), int(of_c), alpha, beta);
                            // sums of k products of at most 1, times at most 2
                            if (!(worst <= double(2 * k + 8) * double(std::numeric_limits<T>::epsilon())) ||
                                untouched != c.memory.size() - std::size_t(m * n))
                                FAIL_CHECK("error " << worst << ", untouched " << untouched);
                        }
    SUCCEED();
}

TEST_CASE("gemm of few rows does not allocate", "[linalg]") {
    const std::vector<float> a(8 * 300, 1.0f), b(300 * 500, 1.0f);
    std::vector<float> c(8 * 500);
    for (const index rows : {1, 4, 8}) {
        const long before = allocations();
        linalg::gemm<float>(1, view<const float, 2>(a.data(), {rows, 300}), view<const float, 2>(b.data(), {300, 500}),
                            0, view<float, 2>(c.data(), {rows, 500}));
        linalg::gemm<float>(2, view<const float, 2>(a.data(), {rows, 300}),
                            linalg::matrix<const float>(view<const float, 2>(b.data(), {500, 300})).transposed(), 1,
                            view<float, 2>(c.data(), {rows, 500}));
        CHECK(allocations() == before);
        CHECK(c[0] == 900);
    }
}

} // namespace deft::testing

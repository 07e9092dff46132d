#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/executors.hpp"
#include "support/generate.hpp"

#include <deft/linalg.hpp>

#include <cmath>
#include <cstring>
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

/// One product, compared with sums in double, and all memory between the elements of c.
template <class T>
void check_product(random_values& random, index m, index n, index k, typename strided<T>::order of_a,
                   typename strided<T>::order of_b, typename strided<T>::order of_c, double alpha, double beta) {
    strided<T> a(random, m, k, of_a), b(random, k, n, of_b), c(random, m, n, of_c);
    strided<T> before = c;
    if (beta == 0)
        for (T& value : c.memory)
            value = std::numeric_limits<T>::quiet_NaN(); // is not read
    const long allocated = allocations();
    linalg::gemm<T>(T(alpha), a.template as<const T>(), b.template as<const T>(), T(beta), c.template as<T>());
    bool allocates = allocations() != allocated;
#if defined(DEFT_BLAS) // which does as it likes
    allocates = allocates && (m <= 8 || n <= 8);
#endif
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
    if (!(worst <= double(2 * k + 8) * double(std::numeric_limits<T>::epsilon())) || allocates ||
        untouched != c.memory.size() - std::size_t(m * n))
        FAIL_CHECK("error " << worst << ", untouched " << untouched << ", allocates " << allocates);
}

} // namespace

TEMPLATE_TEST_CASE("gemm of every shape and every stride, without an allocation", "[linalg]", float, double) {
    using T = TestType;
    using order = typename strided<T>::order;
    random_values random(70);
    const std::pair<double, double> factors[] = {{1, 0}, {1, 1}, {-0.5, 0}, {2, 0.25}};
    std::size_t turn = 0;
    const auto every_order = [&](index m, index n, index k) {
        for (const order of_a : {order::rows, order::columns, order::neither})
            for (const order of_b : {order::rows, order::columns, order::neither})
                for (const order of_c : {order::rows, order::columns, order::neither}) {
                    const auto [alpha, beta] = factors[turn++ % 4];
                    check_product<T>(random, m, n, k, of_a, of_b, of_c, alpha, beta);
                }
    };
    for (const index m : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13})
        for (const index n : {1, 3, 8, 12, 33, 70})
            for (const index k : {0, 1, 7, 8, 19, 130})
                every_order(m, n, k);
    every_order(400, 5, 300); // more than a tile, and than a block of the depth
    every_order(5, 400, 300);
    every_order(211, 130, 270);
    every_order(61, 601, 40); // sums of few terms: more columns than a piece, of many rows and of few
    every_order(20, 301, 40);
    SUCCEED();
}

TEST_CASE("gemm gives the same bits for every executor", "[linalg]") {
    using order = strided<float>::order;
    random_values random(71);
    for (const auto& [m, n] : {std::pair<index, index>{1, 5000}, {5, 3000}, {500, 3}, {500, 700}})
        for (const auto& [k, of_b] : {std::pair{260, order::rows}, {260, order::columns}, {40, order::rows}}) {
            strided<float> a(random, m, k, order::rows), b(random, k, n, of_b), c(random, m, n, order::rows);
            const auto product = [&](any_executor& executor) {
                strided<float> result = c;
                linalg::gemm<float>(2, a.as<const float>(), b.as<const float>(), 1, result.as<float>(), executor);
                return result.memory;
            };
            const std::vector<float> expected = product(serial());
            for (any_executor* const executor : usual_executors()) {
                const std::vector<float> got = product(*executor);
                CAPTURE(m, n, k, int(of_b), executor->name());
                CHECK(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)) == 0);
            }
        }
}

} // namespace deft::testing

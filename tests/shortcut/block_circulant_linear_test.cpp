#include "row_major.hpp"
#include "support/allocations.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/shortcut/block_circulant_linear.hpp>
#include <deft/shortcut/prepared_block_circulant.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

namespace {

/// y = x W^T for one block.
matrix convolve(const matrix& x, const std::vector<double>& c) {
    matrix y(x.rows(), x.cols());
    deft::block_circulant_linear(x, {c.data(), {1, 1, index(c.size())}}, absent, y);
    return y;
}

} // namespace

TEST_CASE("the generator is the first column of its block", "[block_circulant_linear]") {
    const std::vector<double> c{1, 2, 3, 4, 5, 6}, bias{10, 20, 30}; // blocks [1 3 2; 2 1 3; 3 2 1], [4 6 5; ...]
    const matrix x = matrix::Identity(6, 6);
    matrix y(6, 3);
    deft::block_circulant_linear(x, {c.data(), {1, 2, 3}}, bias, y);
    matrix expected(6, 3); // the columns of W, and the bias
    expected << 11, 22, 33, 13, 21, 32, 12, 23, 31, 14, 25, 36, 16, 24, 35, 15, 26, 34;
    CHECK(y == expected);
}

TEST_CASE("block_circulant_linear obeys the laws of convolutions", "[block_circulant_linear]") {
    random_values random(1);
    for (const index m : {1, 2, 3, 8, 13, 16, 31, 48, 97}) {
        CAPTURE(m);
        const auto size = std::size_t(m);
        const matrix x = Eigen::Map<matrix>(random.normal({5, m}).values.data(), 5, m);
        const std::vector<double> c = random.normal({m}).values, other = random.normal({m}).values;
        std::vector<double> unit(size), shift(size);
        unit[0] = 1;
        shift[1 % size] = 1;
        CHECK(convolve(x, unit) == x);
        const matrix shifted = convolve(x, shift);
        for (index a = 0; a < m; ++a)
            CHECK(shifted.col((a + 1) % m) == x.col(a));
        const double scale = 1e-13 * double(m) * double(m);
        CHECK((convolve(convolve(x, c), other) - convolve(convolve(x, other), c)).cwiseAbs().maxCoeff() <= scale);
        CHECK((convolve(shifted, c) - convolve(convolve(x, c), shift)).cwiseAbs().maxCoeff() <= scale);
    }
}

TEST_CASE("zeros in give exactly the bias", "[block_circulant_linear]") {
    random_values random(2);
    const matrix x = matrix::Zero(3, 2 * 17);
    const std::vector<double> c = random.normal({3, 2, 17}).values, bias = random.normal({51}).values;
    matrix y(3, 51);
    deft::block_circulant_linear(x, {c.data(), {3, 2, 17}}, bias, y);
    for (index r = 0; r < 3; ++r)
        CHECK(std::equal(bias.begin(), bias.end(), &y(r, 0)));
}

TEST_CASE("gradients without rows are zero", "[block_circulant_linear]") {
    const std::vector<float> c(12, 1.0f);
    std::vector<float> grad_c(12, 7.0f), grad_bias(6, 7.0f);
    deft::block_circulant_linear_backward<float>({nullptr, {0, 6}}, {c.data(), {2, 2, 3}}, {nullptr, {0, 6}},
                                                 {nullptr, {0, 6}}, {grad_c.data(), {2, 2, 3}}, grad_bias);
    CHECK(grad_c == std::vector<float>(12, 0.0f));
    CHECK(grad_bias == std::vector<float>(6, 0.0f));
}

TEST_CASE("a prepared layer chooses transforms for long blocks of small factors", "[block_circulant_linear]") {
    const auto uses_fft = [](index blocks, index m) {
        const std::vector<float> c(std::size_t(blocks * blocks * m), 1.0f);
        return prepared_block_circulant<float>({c.data(), {blocks, blocks, m}}).uses_fft();
    };
    CHECK(!uses_fft(4, 1));
    CHECK(!uses_fft(4, 8));
    CHECK(uses_fft(4, 48));
    CHECK(uses_fft(4, 192));
    CHECK(uses_fft(1, 1024));
    CHECK(!uses_fft(4, 97));
    CHECK(!uses_fft(0, 96));
}

TEST_CASE("a prepared layer takes new generators, and copies are independent", "[block_circulant_linear]") {
    random_values random(3);
    const matrix x = matrix::Random(11, 2 * 18);
    const std::vector<double> c = random.normal({3, 2, 18}).values, other = random.normal({3, 2, 18}).values;
    const in<double, 3> first(c.data(), {3, 2, 18}), second(other.data(), {3, 2, 18});
    matrix expected(11, 54), changed(11, 54), y(11, 54);
    deft::block_circulant_linear(x, first, absent, expected);
    deft::block_circulant_linear(x, second, absent, changed);
    for (const circulant_algorithm algorithm : {circulant_algorithm::direct, circulant_algorithm::fft}) {
        prepared_block_circulant<double> layer(first, {.algorithm = algorithm});
        prepared_block_circulant<double> copy(layer);
        const long before = allocations();
        layer.set(second);
        layer(x, absent, y);
        CHECK(allocations() == before);
        CHECK((y - changed).cwiseAbs().maxCoeff() <= 1e-13);
        copy(x, absent, y);
        CHECK((y - expected).cwiseAbs().maxCoeff() <= 1e-13);
        copy = layer;
        copy(x, absent, y);
        CHECK((y - changed).cwiseAbs().maxCoeff() <= 1e-13);
    }
}

TEST_CASE("block_circulant_linear rejects bad input", "[block_circulant_linear]") {
    const std::vector<float> data(256, 1.0f);
    const float* const p = data.data();
    bad_input bad("block_circulant_linear");
    float* const y = bad.output<float>(64);
    const auto call = [&](index inputs, shape<3> c, index biases, index y_rows, index outputs) {
        return [=] {
            deft::block_circulant_linear<float>({p, {4, inputs}}, {p, c}, {p, {biases}}, {y, {y_rows, outputs}});
        };
    };
    CHECK(bad.rejects("x", call(7, {3, 2, 4}, 12, 4, 12)));
    CHECK(bad.rejects("y", call(8, {3, 2, 4}, 12, 4, 11)));
    CHECK(bad.rejects("y", call(8, {3, 2, 4}, 12, 5, 12)));
    CHECK(bad.rejects("bias", call(8, {3, 2, 4}, 8, 4, 12)));
    CHECK(bad.rejects("c", call(0, {3, 2, 0}, 0, 4, 0)));

    bad_input bad_backward("block_circulant_linear_backward");
    float* const grad_x = bad_backward.output<float>(64);
    float* const grad_c = bad_backward.output<float>(64);
    float* const grad_bias = bad_backward.output<float>(64);
    const auto backward = [&](index inputs, index g_rows, index outputs, index gx, shape<3> gc, index gb) {
        return [=] {
            deft::block_circulant_linear_backward<float>({p, {4, inputs}}, {p, {3, 2, 4}}, {p, {g_rows, outputs}},
                                                         {grad_x, {4, gx}}, {grad_c, gc}, {grad_bias, {gb}});
        };
    };
    CHECK(bad_backward.rejects("x", backward(9, 4, 12, 8, {3, 2, 4}, 12)));
    CHECK(bad_backward.rejects("grad_y", backward(8, 5, 12, 8, {3, 2, 4}, 12)));
    CHECK(bad_backward.rejects("grad_y", backward(8, 4, 8, 8, {3, 2, 4}, 12)));
    CHECK(bad_backward.rejects("grad_x", backward(8, 4, 12, 12, {3, 2, 4}, 12)));
    CHECK(bad_backward.rejects("grad_c", backward(8, 4, 12, 8, {2, 3, 4}, 12)));
    CHECK(bad_backward.rejects("grad_bias", backward(8, 4, 12, 8, {3, 2, 4}, 3)));
}

TEST_CASE("prepared_block_circulant rejects bad input", "[block_circulant_linear]") {
    const std::vector<float> data(256, 1.0f);
    const float* const p = data.data();
    bad_input bad("prepared_block_circulant");
    float* const y = bad.output<float>(64);
    for (const circulant_algorithm algorithm : {circulant_algorithm::direct, circulant_algorithm::fft}) {
        prepared_block_circulant<float> layer({p, {3, 2, 4}}, {.algorithm = algorithm});
        prepared_block_circulant<float> back({p, {3, 2, 4}}, {.algorithm = algorithm, .transposed = true});
        CHECK(bad.rejects("x", [&] { layer({p, {4, 12}}, absent, {y, {4, 12}}); }));
        CHECK(bad.rejects("y", [&] { layer({p, {4, 8}}, absent, {y, {4, 8}}); }));
        CHECK(bad.rejects("y", [&] { layer({p, {4, 8}}, absent, {y, {3, 12}}); }));
        CHECK(bad.rejects("bias", [&] { layer({p, {4, 8}}, {p, {8}}, {y, {4, 12}}); }));
        CHECK(bad.rejects("x", [&] { back({p, {4, 8}}, absent, {y, {4, 12}}); }));
        CHECK(bad.rejects("c", [&] { layer.set({p, {2, 3, 4}}); }));
        CHECK(bad.rejects("threads", [&] {
            prepared_block_circulant<float> none({p, {3, 2, 4}}, {.algorithm = algorithm, .threads = 0});
        }));
        CHECK(bad.rejects("c", [&] {
            prepared_block_circulant<float> none({p, {3, 2, 0}}, {.algorithm = algorithm});
        }));
    }
}

} // namespace deft::testing

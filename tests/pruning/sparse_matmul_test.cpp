#include "support/allocations.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/pruning/sparse_matmul.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// y = W x for x [n, p].
std::vector<double> product(const sparse_weight<double>& w, const std::vector<double>& x, index p,
                            sparse_matmul_options options = {.layout = sparse_layout::cn}) {
    std::vector<double> y(std::size_t(w.rows() * p), nan);
    deft::sparse_matmul(w, {x.data(), {w.columns(), p}}, absent, view<double, 2>(y.data(), {w.rows(), p}), options);
    return y;
}

} // namespace

TEST_CASE("formats by hand", "[sparse_matmul]") {
    const std::vector<double> dense{0, 2, 0, 0, 3, /**/ 0, 0, 0, 0, 0, /**/ -1, 0, 0, 4, 0};
    const in<double, 2> w(dense.data(), {3, 5});
    const csr_matrix<double> csr = to_csr<double>(w);
    CHECK(csr.row_ptr == std::vector<index>{0, 2, 2, 4});
    CHECK(csr.col_idx == std::vector<std::int32_t>{1, 4, 0, 3});
    CHECK(csr.values == std::vector<double>{2, 3, -1, 4});
    const bcsr_matrix<double> blocks = to_bcsr<double>(w, 2, 2);
    CHECK(blocks.block_ptr == std::vector<index>{0, 2, 4});
    CHECK(blocks.block_col == std::vector<std::int32_t>{0, 2, 0, 1});
    CHECK(blocks.values == std::vector<double>{0, 2, 0, 0, 3, 0, 0, 0, -1, 0, 0, 0, 0, 4, 0, 0});
    const nm_matrix<double> nm = to_nm<double>(w, 1, 3);
    CHECK(nm.values == std::vector<double>{2, 3, 0, 0, -1, 4});
    CHECK(nm.offset == std::vector<std::int32_t>{1, 1, 0, 0, 0, 0});

    const std::vector<double> x{1, 10, 100, 1000, 10000}, expected{30020, 0, 3999};
    CHECK(product(sparse_weight<double>(w), x, 1) == expected);
    CHECK(product(sparse_weight<double>(csr), x, 1) == expected);
    CHECK(product(sparse_weight<double>(blocks), x, 1) == expected);
    CHECK(product(sparse_weight<double>(nm), x, 1) == expected);
}

TEST_CASE("a mask keeps zeros and drops the rest", "[sparse_matmul]") {
    const std::vector<double> dense{5, 0, 7, 8};
    const std::vector<std::uint8_t> bytes{0, 1, 1, 0};
    std::vector<std::uint64_t> mask(1);
    pack_mask(bytes, mask);
    const csr_matrix<double> csr = to_csr<double>({dense.data(), {2, 2}}, mask);
    CHECK(csr.col_idx == std::vector<std::int32_t>{1, 0});
    CHECK(csr.values == std::vector<double>{0, 7});
    for (const sparse_format format : {sparse_format::csr, sparse_format::bcsr, sparse_format::nm}) {
        sparse_weight<double> w(
            {dense.data(), {2, 2}}, mask,
            {.format = format, .block_rows = 2, .block_columns = 2, .n = 1, .m = 2, .backward = true});
        CHECK(w.stored() == 2);
        CHECK(product(w, {1, 10}, 1) == std::vector<double>{0, 7});
        const std::vector<double> other{100, 2, 3, 100};
        const long before = allocations();
        w.set({other.data(), {2, 2}});
        CHECK(allocations() == before);
        CHECK(product(w, {1, 10}, 1) == std::vector<double>{20, 3});
        // The zero that is kept has a gradient, what is masked has none.
        const std::vector<double> x{1, 10}, g{1, 1};
        std::vector<double> grad_x(2), grad_w(4, nan), grad_b(2);
        deft::sparse_matmul_backward(w, {x.data(), {2, 1}}, absent, {g.data(), {2, 1}},
                                     view<double, 2>(grad_x.data(), {2, 1}), {grad_w.data(), {2, 2}}, grad_b,
                                     {.layout = sparse_layout::cn});
        CHECK(grad_x == std::vector<double>{3, 2});
        CHECK(grad_w == std::vector<double>{0, 10, 1, 0});
    }
}

TEST_CASE("NaN and infinities travel through entries only", "[sparse_matmul]") {
    constexpr double inf = std::numeric_limits<double>::infinity();
    const std::vector<double> dense{1, 0, 0, 0, 2, 0};
    const sparse_weight<double> w({dense.data(), {2, 3}});
    CHECK(product(w, {3, inf, nan}, 1) == std::vector<double>{3, inf});
    for (const index p : {2, 9, 100}) {
        std::vector<double> x(std::size_t(3 * p), nan);
        for (index j = 0; j < 2 * p; ++j)
            x[std::size_t(j)] = j < p ? 3 : inf;
        const std::vector<double> y = product(w, x, p);
        for (index j = 0; j < p; ++j) {
            CHECK(y[std::size_t(j)] == 3);
            CHECK(y[std::size_t(p + j)] == inf);
        }
    }
    const std::vector<double> y = product(w, {nan, 1, 1}, 1, {.layout = sparse_layout::cn, .clamp_min = 0});
    CHECK(std::isnan(y[0])); // a clamp does not hide it
    CHECK(y[1] == 2);
}

TEST_CASE("a column gives the same bits whatever stands beside it", "[sparse_matmul]") {
    random_values random(1);
    const index m = 40, n = 300, most = 131;
    std::vector<double> dense = random.normal({m, n}).values;
    for (double& v : dense)
        v = random.number(0, 1) < 0.8 ? 0 : v;
    const sparse_weight<double> w({dense.data(), {m, n}});
    const std::vector<double> x = random.normal({n, most}).values;
    const std::vector<double> all = product(w, x, most);
    for (index p = 2; p < most; p += 7) {
        std::vector<double> part, expected;
        for (index i = 0; i < n; ++i)
            part.insert(part.end(), x.begin() + i * most, x.begin() + i * most + p);
        for (index i = 0; i < m; ++i)
            expected.insert(expected.end(), all.begin() + i * most, all.begin() + i * most + p);
        CHECK(product(w, part, p) == expected);
    }
}

TEST_CASE("a product beyond the caches is that of its columns", "[sparse_matmul]") {
    random_values random(3);
    const index m = 702, n = 61, most = 401;
    for (const double zeros : {0.96, 0.996}) // the second is not packed
        for (const sparse_format format : {sparse_format::csr, sparse_format::bcsr}) {
            std::vector<double> dense = random.normal({m, n}).values;
            for (double& v : dense)
                v = random.number(0, 1) < zeros ? 0 : v;
            const sparse_weight<double> w({dense.data(), {m, n}}, absent,
                                          {.format = format, .block_rows = 4, .block_columns = 2});
            const std::vector<double> x = random.normal({n, most}).values;
            const std::vector<double> all = product(w, x, most);
            for (const index begin : {0, 37, 350}) {
                const index p = 51;
                std::vector<double> part, expected;
                for (index i = 0; i < n; ++i)
                    part.insert(part.end(), x.begin() + i * most + begin, x.begin() + i * most + begin + p);
                for (index i = 0; i < m; ++i)
                    expected.insert(expected.end(), all.begin() + i * most + begin, all.begin() + i * most + begin + p);
                CHECK(product(w, part, p) == expected);
            }
        }
}

TEST_CASE("sparse_matmul is linear, and its gradient its transpose", "[sparse_matmul]") {
    random_values random(2);
    const index m = 37, n = 53, p = 21;
    std::vector<double> dense = random.normal({m, n}).values;
    for (double& v : dense)
        v = random.number(0, 1) < 0.9 ? 0 : v;
    const std::vector<double> x = random.normal({n, p}).values, g = random.normal({m, p}).values;
    const sparse_weight<double> w({dense.data(), {m, n}}, absent, {.backward = true});
    const std::vector<double> y = product(w, x, p);
    std::vector<double> grad_x(x.size());
    deft::sparse_matmul_backward(w, {x.data(), {n, p}}, absent, {g.data(), {m, p}},
                                 view<double, 2>(grad_x.data(), {n, p}), absent, absent, {.layout = sparse_layout::cn});
    double left = 0, right = 0;
    for (std::size_t i = 0; i < y.size(); ++i)
        left += y[i] * g[i];
    for (std::size_t i = 0; i < x.size(); ++i)
        right += x[i] * grad_x[i];
    CHECK_THAT(left, Catch::Matchers::WithinAbs(right, 1e-11));
}

TEST_CASE("formats reject bad input", "[sparse_matmul]") {
    const std::vector<float> data(64, 1.0f);
    const in<float, 2> w(data.data(), {4, 6});
    const std::vector<std::uint64_t> mask(2, 0);
    CHECK(bad_input("to_csr").rejects("mask", [&] { static_cast<void>(to_csr<float>(w, mask)); }));
    CHECK(bad_input("to_bcsr").rejects("block_rows", [&] { static_cast<void>(to_bcsr<float>(w, 0, 1)); }));
    CHECK(bad_input("to_bcsr").rejects("block_columns", [&] { static_cast<void>(to_bcsr<float>(w, 1, -1)); }));
    CHECK(bad_input("to_nm").rejects("m", [&] { static_cast<void>(to_nm<float>(w, 1, 0)); }));
    CHECK(bad_input("to_nm").rejects("n", [&] { static_cast<void>(to_nm<float>(w, 5, 4)); }));
    CHECK(bad_input("to_nm").rejects("n", [&] { static_cast<void>(to_nm<float>(w, -1, 4)); }));
    CHECK(bad_input("to_nm").rejects("dense", [&] { static_cast<void>(to_nm<float>(w, 1, 4)); }));

    const bad_input bad("sparse_weight");
    const auto csr = [&](std::vector<index> pointers, std::vector<std::int32_t> columns, std::size_t values) {
        return [=] {
            sparse_weight<float> made(csr_matrix<float>{2, 3, pointers, columns, std::vector<float>(values)});
        };
    };
    CHECK_NOTHROW(csr({0, 1, 3}, {2, 0, 1}, 3)());
    CHECK(bad.rejects("row_ptr", csr({0, 1}, {2}, 1)));
    CHECK(bad.rejects("row_ptr", csr({1, 1, 3}, {2, 0, 1}, 3)));
    CHECK(bad.rejects("row_ptr", csr({0, 1, 2}, {2, 0, 1}, 3)));
    CHECK(bad.rejects("row_ptr", csr({0, 4, 3}, {2, 0, 1}, 3)));
    CHECK(bad.rejects("row_ptr", csr({0, -1, 3}, {2, 0, 1}, 3)));
    CHECK(bad.rejects("col_idx", csr({0, 1, 3}, {3, 0, 1}, 3)));
    CHECK(bad.rejects("col_idx", csr({0, 1, 3}, {-1, 0, 1}, 3)));
    CHECK(bad.rejects("col_idx", csr({0, 1, 3}, {2, 1, 0}, 3)));
    CHECK(bad.rejects("col_idx", csr({0, 1, 3}, {2, 1, 1}, 3)));
    CHECK(bad.rejects("values", csr({0, 1, 3}, {2, 0, 1}, 2)));
    const auto blocks = [&](index rows, std::vector<index> pointers, std::vector<std::int32_t> columns,
                            std::size_t values) {
        return [=] {
            sparse_weight<float> made(bcsr_matrix<float>{3, 4, rows, 2, pointers, columns, std::vector<float>(values)});
        };
    };
    CHECK_NOTHROW(blocks(2, {0, 1, 2}, {1, 0}, 8)());
    CHECK(bad.rejects("block_rows", blocks(0, {0, 1, 2}, {1, 0}, 8)));
    CHECK(bad.rejects("block_ptr", blocks(2, {0, 1, 1}, {1, 0}, 8)));
    CHECK(bad.rejects("block_col", blocks(2, {0, 1, 2}, {2, 0}, 8)));
    CHECK(bad.rejects("values", blocks(2, {0, 1, 2}, {1, 0}, 7)));
    const auto nm = [&](index n, index m, std::vector<std::int32_t> offsets, std::size_t values) {
        return [=] {
            sparse_weight<float> made(nm_matrix<float>{1, 4, n, m, std::vector<float>(values, 1.0f), offsets});
        };
    };
    CHECK_NOTHROW(nm(1, 2, {0, 1}, 2)());
    CHECK(bad.rejects("n", nm(3, 2, {0, 1}, 2)));
    CHECK(bad.rejects("m", nm(0, 0, {}, 0)));
    CHECK(bad.rejects("offset", nm(1, 2, {0, 2}, 2)));
    CHECK(bad.rejects("offset", nm(1, 2, {0}, 2)));
    CHECK(bad.rejects("values", nm(1, 2, {0, 1}, 3)));
    sparse_weight<float> given(w);
    CHECK(bad.rejects("dense", [&] { given.set({data.data(), {4, 5}}); }));
    CHECK(bad.rejects("dense", [&] { given.set({data.data(), {3, 6}}); }));
    sparse_weight<float> packed(to_bcsr<float>(w, 2, 2));
    CHECK(bad.rejects("dense", [&] { packed.set(w); }));
}

TEST_CASE("sparse_matmul rejects bad input", "[sparse_matmul]") {
    const std::vector<float> data(64, 1.0f);
    const float* const p = data.data();
    const sparse_weight<float> w({p, {4, 6}}, absent, {.backward = true}), forward({p, {4, 6}});
    bad_input bad("sparse_matmul");
    float* const y = bad.output<float>(64);
    const auto call = [&](sparse_layout layout, shape<2> x, index bias, shape<2> to, double low, double high) {
        return [=, &w] {
            deft::sparse_matmul(w, {p, x}, {p, {bias}}, view<float, 2>(y, to),
                                {.layout = layout, .clamp_min = low, .clamp_max = high});
        };
    };
    using enum sparse_layout;
    CHECK_NOTHROW(call(cn, {6, 0}, 4, {4, 0}, 0, 1)());
    CHECK(bad.rejects("x", call(cn, {4, 3}, 4, {4, 3}, 0, 1)));
    CHECK(bad.rejects("x", call(nc, {6, 3}, 4, {3, 4}, 0, 1)));
    CHECK(bad.rejects("y", call(cn, {6, 3}, 4, {6, 3}, 0, 1)));
    CHECK(bad.rejects("y", call(cn, {6, 3}, 4, {4, 2}, 0, 1)));
    CHECK(bad.rejects("y", call(nc, {3, 6}, 4, {4, 4}, 0, 1)));
    CHECK(bad.rejects("bias", call(cn, {6, 3}, 6, {4, 3}, 0, 1)));
    CHECK(bad.rejects("clamp_min", call(cn, {6, 3}, 4, {4, 3}, 1, 0)));
    CHECK(bad.rejects("clamp_min", call(cn, {6, 3}, 4, {4, 3}, nan, 0)));

    bad_input back("sparse_matmul_backward");
    float* const gx = back.output<float>(64);
    float* const gw = back.output<float>(64);
    float* const gb = back.output<float>(64);
    const auto backward = [&](const sparse_weight<float>& of, shape<2> x, shape<2> y_shape, shape<2> g, shape<2> to,
                              shape<2> to_w, index to_b) {
        return [=, &of] {
            deft::sparse_matmul_backward(of, {p, x}, {p, y_shape}, {p, g}, view<float, 2>(gx, to), {gw, to_w},
                                         {gb, {to_b}}, {.layout = cn, .clamp_min = 0});
        };
    };
    CHECK(back.rejects("weight", backward(forward, {6, 3}, {4, 3}, {4, 3}, {6, 3}, {4, 6}, 4)));
    CHECK(back.rejects("x", backward(w, {5, 3}, {4, 3}, {4, 3}, {6, 3}, {4, 6}, 4)));
    CHECK(back.rejects("y", backward(w, {6, 3}, {4, 2}, {4, 3}, {6, 3}, {4, 6}, 4)));
    CHECK(back.rejects("grad_y", backward(w, {6, 3}, {4, 3}, {4, 2}, {6, 3}, {4, 6}, 4)));
    CHECK(back.rejects("grad_x", backward(w, {6, 3}, {4, 3}, {4, 3}, {6, 2}, {4, 6}, 4)));
    CHECK(back.rejects("grad_weight", backward(w, {6, 3}, {4, 3}, {4, 3}, {6, 3}, {6, 4}, 4)));
    CHECK(back.rejects("grad_bias", backward(w, {6, 3}, {4, 3}, {4, 3}, {6, 3}, {4, 6}, 3)));
}

} // namespace deft::testing

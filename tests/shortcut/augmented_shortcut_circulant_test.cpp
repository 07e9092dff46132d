#include "row_major.hpp"
#include "support/allocations.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/shortcut/augmented_shortcut.hpp>
#include <deft/shortcut/augmented_shortcut_circulant.hpp>
#include <deft/shortcut/prepared_augmented_shortcut_circulant.hpp>

#include <Eigen/Core>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

TEST_CASE("unit generators on the diagonal add sigma(z) once per path", "[augmented_shortcut_circulant]") {
    for (const index blocks : {1, 3})
        for (const index paths : {0, 1, 4}) {
            const index m = 7, d = blocks * m;
            const matrix z = matrix::Random(9, d), main = matrix::Random(9, d);
            std::vector<double> c(std::size_t(paths * blocks * blocks * m));
            for (index i = 0; i < paths; ++i)
                for (index j = 0; j < blocks; ++j)
                    c[std::size_t(((i * blocks + j) * blocks + j) * m)] = 1;
            matrix y(9, d);
            deft::augmented_shortcut_circulant(z, main, {c.data(), {paths, blocks, blocks, m}}, absent, absent, y,
                                               {.base = activation::relu});
            const matrix expected = main + z + double(paths) * z.cwiseMax(0.0);
            CHECK((y - expected).cwiseAbs().maxCoeff() <= 1e-14);
        }
}

TEST_CASE("blocks of length 1 are augmented_shortcut with weights [out, in]", "[augmented_shortcut_circulant]") {
    const index d = 11, paths = 2;
    const matrix z = matrix::Random(6, d), main = matrix::Random(6, d), residual = matrix::Random(6, d);
    const matrix theta = matrix::Random(paths * d, d), bias = matrix::Random(paths, d);
    matrix dense(6, d), circulant(6, d);
    deft::augmented_shortcut(
        z, main, {theta.data(), {paths, d, d}}, bias, residual, dense,
        {.residual = shortcut_residual::separate, .scale = 0.75, .weights = weight_layout::out_in});
    deft::augmented_shortcut_circulant(z, main, {theta.data(), {paths, d, d, 1}}, bias, residual, circulant,
                                       {.residual = shortcut_residual::separate, .scale = 0.75});
    CHECK((dense - circulant).cwiseAbs().maxCoeff() <= 1e-14);
}

TEST_CASE("augmented_shortcut_circulant rejects bad input", "[augmented_shortcut_circulant]") {
    const std::vector<float> data(256, 1.0f);
    const float* const p = data.data();
    const double nan = std::numeric_limits<double>::quiet_NaN();
    using options = deft::augmented_shortcut_circulant_options;
    bad_input bad("augmented_shortcut_circulant");
    float* const y = bad.output<float>(64);
    const auto call = [&](index d, index main_rows, shape<4> c, shape<2> bias, bool with_residual, index y_rows,
                          const options& o) {
        return [=] {
            deft::augmented_shortcut_circulant<float>(
                {p, {4, d}}, {p, {main_rows, d}}, {p, c}, {p, bias},
                with_residual ? rows<const float>(p, {4, d}) : rows<const float>(absent), {y, {y_rows, d}}, o);
        };
    };
    const shape<4> c{2, 3, 3, 2};
    const shape<2> bias{2, 6};
    CHECK(bad.rejects("z", call(7, 4, c, {2, 7}, false, 4, {})));
    CHECK(bad.rejects("main", call(6, 5, c, bias, false, 4, {})));
    CHECK(bad.rejects("c", call(6, 4, {2, 3, 2, 2}, bias, false, 4, {})));
    CHECK(bad.rejects("c", call(0, 4, {2, 3, 3, 0}, {2, 0}, false, 4, {})));
    CHECK(bad.rejects("bias", call(6, 4, c, {1, 6}, false, 4, {})));
    CHECK(bad.rejects("bias", call(6, 4, c, {2, 5}, false, 4, {})));
    CHECK(bad.rejects("residual", call(6, 4, c, bias, true, 4, {})));
    CHECK(bad.rejects("residual", call(6, 4, c, bias, false, 4, {.residual = shortcut_residual::separate})));
    CHECK(bad.rejects("y", call(6, 4, c, bias, false, 3, {})));
    CHECK(bad.rejects("scale", call(6, 4, c, bias, false, 4, {.scale = nan})));
    CHECK(bad.rejects("negative_slope", call(6, 4, c, bias, false, 4, {.negative_slope = nan})));

    bad_input bad_backward("augmented_shortcut_circulant_backward");
    float* const out = bad_backward.output<float>(256);
    const auto backward = [&](index g_rows, index gz_rows, index gm_rows, shape<4> gc, bool with_grad_bias,
                              bool with_grad_residual) {
        return [=] {
            deft::augmented_shortcut_circulant_backward<float>(
                {p, {4, 6}}, {p, {2, 3, 3, 2}}, {p, {2, 6}}, {p, {g_rows, 6}}, {out, {gz_rows, 6}}, {out, {gm_rows, 6}},
                {out, gc}, with_grad_bias ? view<float, 2>(out, {2, 6}) : view<float, 2>(absent),
                with_grad_residual ? rows<float>(out, {4, 6}) : rows<float>(absent));
        };
    };
    CHECK(bad_backward.rejects("grad_y", backward(3, 4, 4, c, true, false)));
    CHECK(bad_backward.rejects("grad_z", backward(4, 3, 4, c, true, false)));
    CHECK(bad_backward.rejects("grad_main", backward(4, 4, 5, c, true, false)));
    CHECK(bad_backward.rejects("grad_c", backward(4, 4, 4, {2, 3, 3, 3}, true, false)));
    CHECK(bad_backward.rejects("grad_bias", backward(4, 4, 4, c, false, false)));
    CHECK(bad_backward.rejects("grad_residual", backward(4, 4, 4, c, true, true)));
}

TEST_CASE("paths of one block share transforms", "[augmented_shortcut_circulant]") {
    // A pair of blocks in one transform then belongs to two paths.
    for (const index paths : {1, 2, 3, 5}) {
        const matrix z = matrix::Random(19, 32), main = matrix::Random(19, 32);
        const matrix c = matrix::Random(paths, 32), bias = matrix::Random(paths, 32);
        const in<double, 4> generators(c.data(), {paths, 1, 1, 32});
        matrix direct(19, 32), fft(19, 32);
        const augmented_shortcut_circulant_options options{.base = activation::silu, .scale = 0.75};
        deft::augmented_shortcut_circulant(z, main, generators, bias, absent, direct, options);
        prepared_augmented_shortcut_circulant<double> layer(generators, options, circulant_algorithm::fft);
        const long before = allocations();
        layer.set(generators);
        layer(z, main, bias, absent, fft);
        CHECK(allocations() == before);
        CHECK(layer.uses_fft());
        CHECK((direct - fft).cwiseAbs().maxCoeff() <= 1e-13);
    }
}

TEST_CASE("prepared_augmented_shortcut_circulant rejects bad input", "[augmented_shortcut_circulant]") {
    const std::vector<float> data(256, 1.0f);
    const float* const p = data.data();
    bad_input bad("prepared_augmented_shortcut_circulant");
    float* const y = bad.output<float>(64);
    using prepared = prepared_augmented_shortcut_circulant<float>;
    const auto build = [&](shape<4> c, index threads) {
        return [=] { prepared({p, c}, {}, circulant_algorithm::fft, threads); };
    };
    CHECK(bad.rejects("c", build({2, 3, 2, 4}, 1)));
    CHECK(bad.rejects("c", build({2, 3, 3, 0}, 1)));
    CHECK(bad.rejects("threads", build({2, 3, 3, 4}, 0)));

    prepared layer({p, {2, 3, 3, 2}}, {}, circulant_algorithm::fft);
    const auto call = [&](index d, index main_rows, shape<2> bias, bool with_residual, index y_rows) {
        return [=, &layer] {
            layer({p, {4, d}}, {p, {main_rows, d}}, {p, bias},
                  with_residual ? rows<const float>(p, {4, d}) : rows<const float>(absent), {y, {y_rows, d}});
        };
    };
    CHECK(bad.rejects("z", call(8, 4, {2, 8}, false, 4)));
    CHECK(bad.rejects("main", call(6, 3, {2, 6}, false, 4)));
    CHECK(bad.rejects("bias", call(6, 4, {3, 6}, false, 4)));
    CHECK(bad.rejects("residual", call(6, 4, {2, 6}, true, 4)));
    CHECK(bad.rejects("y", call(6, 4, {2, 6}, false, 5)));
    CHECK(bad.rejects("c", [&] { layer.set({p, {2, 2, 2, 3}}); }));
}

} // namespace deft::testing

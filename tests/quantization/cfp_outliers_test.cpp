#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/quantization/cfp_outliers.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

TEST_CASE("cfp_detect by hand", "[cfp_detect]") {
    // Magnitudes 0 .. 7, 20, 21, 100: Q1 = a[2] = 2, Q3 = a[8] = 20: T = 47.
    std::vector<double> x{0, -1, 2, -3, 4, -5, 6, 7, 20, -21, 100};
    cfp_result found = deft::cfp_detect<double>(x, absent);
    CHECK(found.threshold == 47);
    CHECK(found.candidates == 1);
    CHECK(found.split == 0);
    CHECK(found.outliers == 1);
    CHECK(found.outlier_min == 100);
    CHECK(found.boundary == 21);
    // lambda1 = 0: T = 20, candidates 21 and 100. Splits: (21 - 20)^2, and (100 - 21)^2 - 0.
    std::vector<std::uint8_t> mask(x.size());
    found = deft::cfp_detect<double>(x, mask, {.lambda1 = 0});
    CHECK(found.split == 1);
    CHECK(found.boundary == 21);
    CHECK(mask == std::vector<std::uint8_t>{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
    // Interpolated: positions 2.5 and 7.5: Q1 = 2.5, Q3 = 13.5.
    CHECK(deft::cfp_detect<double>(x, absent, {.quartile = cfp_quartile::linear}).threshold == 13.5 + 1.5 * 11);
}

TEST_CASE("degenerate magnitudes", "[cfp_detect]") {
    const std::vector<float> equal(16, -0.5f), one{2}, zeros(9, 0.0f);
    for (const auto* x : {&equal, &one, &zeros}) {
        std::vector<std::uint8_t> mask(x->size(), 7);
        const cfp_result found = deft::cfp_detect<float>(*x, mask);
        CHECK(found.candidates == 0);
        CHECK(found.outliers == 0);
        CHECK(found.boundary == std::abs(double((*x)[0])));
        CHECK(found.outlier_min == found.boundary);
        CHECK(mask == std::vector<std::uint8_t>(x->size(), 0));
    }
    // More than three quarters of zeros: everything else is a candidate.
    std::vector<float> sparse(40, 0.0f);
    sparse[3] = 1e-40f; // subnormal
    sparse[7] = -3;
    const cfp_result found = deft::cfp_detect<float>(sparse, absent);
    CHECK(found.threshold == 0);
    CHECK(found.candidates == 2);
    CHECK(found.outlier_min == 3);
    CHECK(found.boundary == double(1e-40f));
}

TEMPLATE_TEST_CASE("truncation is idempotent in its boundary and keeps the rest", "[cfp_truncate_weight]", float,
                   double) {
    using T = TestType;
    random_values random(12);
    const index rows = 6, columns = 90;
    const tensor drawn = random.normal({rows, columns});
    std::vector<T> w(drawn.values.begin(), drawn.values.end()), out(w.size()), clip(std::size_t(rows), T(0));
    for (std::size_t i = 5; i < w.size(); i += 90)
        w[i] = T(40);
    deft::cfp_truncate_weight<T>({w.data(), {rows, columns}}, {out.data(), {rows, columns}}, clip, cfp_scope::row);
    for (index r = 0; r < rows; ++r) {
        CHECK(clip[std::size_t(r)] < T(5));
        for (index c = 0; c < columns; ++c) {
            const std::size_t i = std::size_t(r * columns + c);
            const T bound = clip[std::size_t(r)];
            CHECK(out[i] == (w[i] > bound ? bound : w[i] < -bound ? -bound : w[i]));
        }
    }
}

TEST_CASE("scaled channels leave the product where it was", "[cfp_scale_activation]") {
    random_values random(13);
    const index tokens = 11, channels = 50, outputs = 4;
    std::vector<double> x = random.normal({tokens, channels}).values, w = random.normal({outputs, channels}).values;
    for (index t = 0; t < tokens; ++t)
        x[std::size_t(t * channels + 17)] *= 60;
    std::vector<double> scale(channels), xs(x.size()), ws(w.size());
    deft::cfp_scale_activation<double>({x.data(), {tokens, channels}}, {w.data(), {outputs, channels}}, scale,
                                       {xs.data(), {tokens, channels}}, {ws.data(), {outputs, channels}});
    CHECK(scale[17] > 3);
    CHECK(scale[16] == 1);
    const auto product = [&](const std::vector<double>& a, const std::vector<double>& b, index t, index o) {
        double sum = 0;
        for (index c = 0; c < channels; ++c)
            sum += a[std::size_t(t * channels + c)] * b[std::size_t(o * channels + c)];
        return sum;
    };
    for (index t = 0; t < tokens; ++t)
        for (index o = 0; o < outputs; ++o)
            CHECK_THAT(product(xs, ws, t, o), Catch::Matchers::WithinAbs(product(x, w, t, o), 1e-10));
    // Peaks that come in batches give the same scales.
    std::vector<double> peaks(channels, 0.0), later(channels);
    for (index t = 0; t < tokens; t += 3)
        deft::cfp_peaks<double>(
            view<const double, 2>(x.data() + t * channels, {std::min<index>(3, tokens - t), channels}), peaks);
    deft::cfp_scale<double>(peaks, later);
    CHECK(later == scale);
}

TEST_CASE("smooth_scale by hand", "[smooth_scale]") {
    const std::vector<double> x{1, -4, 0, 2, 3, 0}, w{2, -1, 0};
    std::vector<double> scale(3);
    deft::smooth_scale<double>({x.data(), {2, 3}}, {w.data(), {1, 3}}, scale);
    CHECK_THAT(scale[0], Catch::Matchers::WithinRel(std::sqrt(2.0) / std::sqrt(2.0), 1e-15));
    CHECK_THAT(scale[1], Catch::Matchers::WithinRel(2.0, 1e-15));
    CHECK_THAT(scale[2], Catch::Matchers::WithinRel(1.0, 1e-14)); // both at the floor
}

TEST_CASE("outlier detection rejects bad input",
          "[cfp_detect][cfp_truncate_weight][cfp_scale_activation][smooth_scale]") {
    std::vector<float> data(40, 1.0f);
    data[3] = 5;
    bad_input bad("cfp_detect");
    std::uint8_t* const m = bad.output<std::uint8_t>(40);
    const auto detect = [&](index n, index mask, cfp_options o = {}) {
        return [&data, m, n, mask, o] {
            deft::cfp_detect<float>(view<const float, 1>(data.data(), {n}), view<std::uint8_t, 1>(m, {mask}), o);
        };
    };
    CHECK(bad.rejects("x", detect(0, 0)));
    CHECK(bad.rejects("is_outlier", detect(40, 39)));
    CHECK(bad.rejects("lambda1", detect(40, 40, {.lambda1 = -1})));
    CHECK(bad.rejects("lambda2", detect(40, 40, {.lambda2 = -0.5})));
    CHECK(bad.rejects("lambda2", detect(40, 40, {.lambda2 = NAN})));

    bad_input cut("cfp_truncate_weight");
    float* const o = cut.output<float>(40);
    const auto truncate = [&](shape<2> w, shape<2> to, index clip, cfp_scope scope) {
        return [&data, o, w, to, clip, scope] {
            deft::cfp_truncate_weight<float>({data.data(), w}, {o, to}, {o, {clip}}, scope);
        };
    };
    CHECK(cut.rejects("w_out", truncate({4, 10}, {4, 9}, 1, cfp_scope::matrix)));
    CHECK(cut.rejects("clip", truncate({4, 10}, {4, 10}, 1, cfp_scope::row)));
    CHECK(cut.rejects("clip", truncate({4, 10}, {4, 10}, 4, cfp_scope::matrix)));
    CHECK(cut.rejects("w", truncate({0, 10}, {0, 10}, 1, cfp_scope::matrix)));

    bad_input scaled("cfp_scale_activation");
    float* const s = scaled.output<float>(40);
    const auto scale = [&](shape<2> x, shape<2> w, index n, shape<2> xo, shape<2> wo) {
        return [&data, s, x, w, n, xo, wo] {
            deft::cfp_scale_activation<float>({data.data(), x}, {data.data(), w}, {s, {n}}, {s, xo}, {s, wo});
        };
    };
    CHECK(scaled.rejects("w", scale({4, 10}, {3, 9}, 10, {4, 10}, {3, 9})));
    CHECK(scaled.rejects("scale", scale({4, 10}, {3, 10}, 9, {4, 10}, {3, 10})));
    CHECK(scaled.rejects("x_out", scale({4, 10}, {3, 10}, 10, {3, 10}, {3, 10})));
    CHECK(scaled.rejects("w_out", scale({4, 10}, {3, 10}, 10, {4, 10}, {4, 10})));
    CHECK(scaled.rejects("x", scale({0, 10}, {3, 10}, 10, {0, 10}, {3, 10})));

    bad_input smooth("smooth_scale");
    float* const f = smooth.output<float>(40);
    const auto smoothed = [&](shape<2> x, shape<2> w, index n, smooth_scale_options options = {}) {
        return [&data, f, x, w, n, options] {
            deft::smooth_scale<float>({data.data(), x}, {data.data(), w}, {f, {n}}, options);
        };
    };
    CHECK(smooth.rejects("w", smoothed({4, 10}, {4, 9}, 10)));
    CHECK(smooth.rejects("w", smoothed({4, 10}, {0, 10}, 10)));
    CHECK(smooth.rejects("x", smoothed({0, 10}, {4, 10}, 10)));
    CHECK(smooth.rejects("scale", smoothed({4, 10}, {4, 10}, 4)));
    CHECK(smooth.rejects("alpha", smoothed({4, 10}, {4, 10}, 10, {.alpha = 1.5})));
    CHECK(smooth.rejects("alpha", smoothed({4, 10}, {4, 10}, 10, {.alpha = NAN})));
    CHECK(smooth.rejects("floor", smoothed({4, 10}, {4, 10}, 10, {.floor = 0})));

    for (const float wrong : {NAN, INFINITY, -INFINITY}) {
        data[33] = wrong;
        CHECK(bad.rejects("x", detect(40, 40)));
        CHECK(cut.rejects("w", truncate({4, 10}, {4, 10}, 4, cfp_scope::row)));
        CHECK(scaled.rejects("x", scale({4, 10}, {3, 10}, 10, {4, 10}, {3, 10})));
        CHECK(smooth.rejects("w", smoothed({3, 10}, {4, 10}, 10)));
    }
}

} // namespace deft::testing

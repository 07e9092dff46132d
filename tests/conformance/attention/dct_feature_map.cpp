#include "feature_options.hpp"
#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <algorithm>
#include <cmath>
#include <memory>

namespace deft::testing {

struct dct_feature_map {
    template <class T>
    static void bind(call<T>& c) {
        const dct_feature_options options = feature_options_of(c);
        const tolerance bound =
            by_type<T>({.of_largest = largest(c.given("in.x")) > 100 ? 1e-3 : 2e-5}, {.of_largest = 1e-12});
        const extents& shape = c.shape("in.x");
        const index d = shape.back(), m = c.shape("in.t").at(0);
        extents phi_shape = shape;
        phi_shape.back() = m;
        const extents leading(shape.begin(), shape.end() - 1);
        const index count = element_count(leading);
        const bool with_log_scale = options.stabilizer == feature_stabilizer::max;

        const auto x = c.input(any_rank<>, "in.x");
        const auto t = c.input(rank<1>, "in.t");
        const auto weight = c.optional_input(rank<1>, "in.weight");
        const auto phi = c.output(any_rank<>, "out.phi", phi_shape, {.bound = bound, .in_place = m == d ? "in.x" : ""});
        const auto log_scale =
            with_log_scale
                ? view<T, 1>(
                      c.output(any_rank<>, "out.log_scale", leading, {.bound = bound, .contiguous = true}).data(),
                      {count})
                : view<T, 1>(absent);
        const auto plan = std::make_shared<dct_feature_plan<T>>(d, m, options);
        c.forward("fused", [=](any_executor& e) { deft::dct_feature_map(x, t, weight, phi, log_scale, *plan, e); });
        const reference::feature_options plain = reference_options_of(options, m);
        const std::vector<T> matrix = reference::dct_matrix<T>(d, plain.transform);
        c.reference([=] { reference::dct_feature_map<T>(x, t, weight, phi, log_scale, matrix, plain); });

        if (!c.has("grad_out.phi"))
            return;
        const auto grad_phi = c.input(any_rank<>, "grad_out.phi");
        const auto grad_log_scale = c.has("grad_out.log_scale")
                                        ? view<const T, 1>(c.input_as(rank<1>, "grad_out.log_scale", {count}))
                                        : view<const T, 1>(absent);
        const auto grad_x = c.output(any_rank<>, "grad_in.x", shape, {.bound = bound});
        const auto grad_t = c.output(rank<1>, "grad_in.t", {m}, {.bound = bound});
        const auto grad_weight =
            c.has("in.weight") ? c.output(rank<1>, "grad_in.weight", {m}, {.bound = bound}) : view<T, 1>(absent);
        c.backward("fused", [=](any_executor& e) {
            deft::dct_feature_map_backward(x, t, weight, grad_phi, grad_log_scale, grad_x, grad_t, grad_weight, *plan,
                                           e);
        });
        c.reference_backward([=] {
            reference::dct_feature_map_backward<T>(x, t, weight, grad_phi, grad_log_scale, grad_x, grad_t, grad_weight,
                                                   matrix, plain);
        });
    }

    static std::vector<test_case> cases();

private:
    static double largest(const tensor& x) {
        double most = 0;
        for (const double v : x.values)
            most = std::max(most, std::abs(v));
        return most;
    }
};

std::vector<test_case> dct_feature_map::cases() {
    random_values random(47);
    std::vector<test_case> cases;
    const auto add = [&](extents shape, index d, index r, bool with_weight, std::map<std::string, parameter> params,
                         double scale = 1) -> test_case& {
        shape.push_back(d);
        test_case made{"dct_feature_map", "generated", std::move(params), {}, {}};
        made.given["in.x"] = random.normal(shape, scale);
        made.given["in.t"] = random.normal({r * d});
        if (with_weight)
            made.given["in.weight"] = random.uniform({r * d}, 0.5, 1.5);
        shape.back() = r * d;
        made.given["grad_out.phi"] = random.normal(shape);
        cases.push_back(std::move(made));
        return cases.back();
    };
    const char* const transforms[] = {"dct3", "dct2", "dct4"};
    const auto exp_features = [](const char* transform, const char* norm_term, bool divide, double scale = 1) {
        return std::map<std::string, parameter>{{"transform", transform},
                                                {"activation", "exp"},
                                                {"norm_term", norm_term},
                                                {"divide_sqrt_m", double(divide)},
                                                {"input_scale", scale}};
    };
    for (index d = 1; d <= 35; ++d) {
        const char* const transform = transforms[d % 3];
        add({1 + d % 10}, d, 1 + d % 2, d % 4 == 0, {{"transform", transform}});
        add({1 + d % 9}, d, 1 + d % 3, d % 2 == 0, exp_features(transform, "half", d % 5 == 0, 0.5));
        std::map<std::string, parameter> logs = exp_features(transform, "full", d % 3 == 0, 0.5);
        logs["activation"] = "log";
        add({1 + d % 8}, d, 1, d % 2 == 1, std::move(logs));
    }
    for (index count = 0; count <= 17; ++count)
        add({count}, 12, 1, true, exp_features("dct2", "none", false, 0.5));
    add({9}, 8, 1, true, exp_features("dct2", "none", false, 0.5)).given["in.weight"].values = {1,  -1,  0,    2,
                                                                                                -3, 0.5, -0.5, 0};
    add({2, 3, 5}, 64, 1, false, {});
    add({300}, 6, 2, true, {});
    add({40}, 80, 1, false, {});
    add({700}, 4, 1, true, exp_features("dct3", "half", true, 0.5));
    add({9}, 97, 1, false, {});
    // max u counts as constant, which differences would see: cases too large for them.
    for (const char* norm_term : {"none", "half", "full"}) {
        test_case& stable = add({90}, 12, 2, true, exp_features("dct4", norm_term, true, 0.7));
        stable.params["stabilizer"] = "max";
        stable.given["grad_out.log_scale"] = random.normal({90});
    }

    // The largest inputs, and rows that are spoilt, which are their own only.
    test_case& large = add({33}, 16, 1, false, {}, 3000);
    large.given.erase("grad_out.phi");
    for (const char* stabilizer : {"none", "max"}) {
        test_case& spoilt = add({19}, 10, 1, true, exp_features("dct2", "half", false));
        spoilt.params["stabilizer"] = stabilizer;
        spoilt.given.erase("grad_out.phi");
        spoilt.given["in.x"].values[44] = NAN;
        spoilt.given["in.x"].values[133] = INFINITY;
    }
    test_case& spoilt = add({19}, 10, 1, true, {});
    spoilt.given.erase("grad_out.phi");
    spoilt.given["in.x"].values[44] = NAN;
    spoilt.given["in.x"].values[133] = -INFINITY;
    return cases;
}
DEFT_ADAPTER(dct_feature_map)

} // namespace deft::testing

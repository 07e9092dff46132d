#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/quantization/cfp_outliers.hpp>
#include <deft/reference/quantization/cfp_outliers.hpp>

#include <cmath>
#include <cstdint>

namespace deft::testing {

namespace {

cfp_options cfp_options_of(const call_base& c) {
    return {.lambda1 = c.number("lambda1", 1.5),
            .lambda2 = c.number("lambda2", 1.0),
            .quartile = c.text("quartile", "index") == "linear" ? cfp_quartile::linear : cfp_quartile::by_index};
}

reference::cfp_settings settings_of(const cfp_options& o) {
    return {o.lambda1, o.lambda2, o.quartile == cfp_quartile::linear};
}

template <class T>
tolerance relative_bound() {
    return by_type<T>({.of_largest = 1e-6, .floor = 0}, {.of_largest = 1e-12, .floor = 0});
}

constexpr const char* reason = "preparation: candidates are sorted";

/// Normal values, some of them far out, some equal.
tensor with_outliers(random_values& random, const extents& shape, int turn) {
    tensor x = random.normal(shape);
    for (std::size_t i = 0; i < x.values.size(); ++i) {
        if (turn % 3 != 0 && random.integer(0, 30) == 0)
            x.values[i] *= 8;
        if (turn % 4 == 1 && i % 3 == 0)
            x.values[i] = std::round(x.values[i]);
        if (turn % 7 == 2 && random.integer(0, 9) != 0)
            x.values[i] = 0;
    }
    return x;
}

std::map<std::string, parameter> cfp_params(int turn) {
    return {{"lambda1", turn % 5 == 1 ? 0.0 : 1.5},
            {"lambda2", turn % 4 == 3 ? 0.25 : 1.0},
            {"quartile", turn % 2 == 0 ? "index" : "linear"}};
}

} // namespace

struct cfp_detect {
    template <class T>
    static void bind(call<T>& c) {
        const cfp_options options = cfp_options_of(c);
        const auto x = c.input(any_rank<>, "in.x");
        const output_traits near{.bound = relative_bound<T>()};
        const auto threshold = c.output(rank<1, double>, "out.threshold", {1}, near);
        const auto boundary = c.output(rank<1, double>, "out.boundary", {1}, near);
        const auto outlier_min = c.output(rank<1, double>, "out.outlier_min", {1}, near);
        const auto candidates = c.output(rank<1, index>, "out.candidates", {1});
        const auto split = c.output(rank<1, index>, "out.split", {1});
        const auto outliers = c.output(rank<1, index>, "out.outliers", {1});
        const auto mask = c.output(any_rank<std::uint8_t>, "out.is_outlier", c.shape("in.x"));
        const auto write = [=](const auto& found) {
            threshold(0) = found.threshold;
            boundary(0) = found.boundary;
            outlier_min(0) = found.outlier_min;
            candidates(0) = found.candidates;
            split(0) = found.split;
            outliers(0) = found.outliers;
        };
        c.may_allocate(reason);
        c.forward("direct", [=](any_executor&) { write(deft::cfp_detect<T>(x, mask, options)); });
        c.reference([=] {
            const reference::cfp_found found =
                reference::cfp_detect(reference::cfp_values<T>(x, 0, x.extent(0)), settings_of(options));
            write(found);
            for (index r = 0; r < x.extent(0); ++r)
                for (index i = 0; i < x.extent(1); ++i)
                    mask(r, i) = found.outliers > 0 && std::abs(double(x(r, i))) >= found.outlier_min;
        });
    }

    static std::vector<test_case> cases() {
        random_values random(70);
        std::vector<test_case> cases;
        int turn = 0;
        const auto add = [&](const extents& shape) {
            cases.push_back(
                {"cfp_detect", "generated", cfp_params(turn), {{"in.x", with_outliers(random, shape, turn)}}, {}});
            ++turn;
        };
        for (const index length : length_sweep())
            for (int repeat = 0; repeat < 4 && length > 0; ++repeat)
                add({length});
        for (int repeat = 0; repeat < 8; ++repeat) {
            add({7, 61});
            add({4, 3, 5});
        }
        cases.push_back({"cfp_detect", "equal", cfp_params(0), {{"in.x", {{16}, std::vector<double>(16, 0.5)}}}, {}});
        cases.push_back({"cfp_detect", "zero", cfp_params(1), {{"in.x", {{9}, std::vector<double>(9, 0.0)}}}, {}});
        return cases;
    }
};
DEFT_ADAPTER(cfp_detect)

struct cfp_truncate_weight {
    template <class T>
    static void bind(call<T>& c) {
        const cfp_options options = cfp_options_of(c);
        const bool per_row = c.number("per_row") != 0;
        const auto w = c.input(rank<2>, "in.w");
        const output_traits near{.bound = relative_bound<T>()};
        const auto w_out =
            c.output(rank<2>, "out.w", c.shape("in.w"), {.bound = relative_bound<T>(), .in_place = "in.w"});
        const auto clip = c.output(rank<1>, "out.clip", {per_row ? c.shape("in.w").at(0) : 1}, near);
        c.may_allocate(reason);
        c.forward("direct", [=](any_executor& e) {
            deft::cfp_truncate_weight(w, w_out, clip, per_row ? cfp_scope::row : cfp_scope::matrix, options, e);
        });
        c.reference([=] { reference::cfp_truncate_weight<T>(w, w_out, clip, per_row, settings_of(options)); });
    }

    static std::vector<test_case> cases() {
        random_values random(71);
        std::vector<test_case> cases;
        int turn = 0;
        for (const index columns : length_sweep())
            for (int repeat = 0; repeat < 2 && columns > 0; ++repeat, ++turn) {
                auto params = cfp_params(turn);
                params["per_row"] = double(turn % 2);
                cases.push_back({"cfp_truncate_weight",
                                 "generated",
                                 params,
                                 {{"in.w", with_outliers(random, {5, columns}, turn)}},
                                 {}});
            }
        return cases;
    }
};
DEFT_ADAPTER(cfp_truncate_weight)

struct cfp_scale_activation {
    template <class T>
    static void bind(call<T>& c) {
        const cfp_options options = cfp_options_of(c);
        const bool to_least = c.text("reference", "boundary") == "outlier_min";
        const auto x = c.input(rank<2>, "in.x"), w = c.input(rank<2>, "in.w");
        const tolerance bound = relative_bound<T>();
        const auto scale = c.output(rank<1>, "out.scale", {c.shape("in.x").at(1)}, {.bound = bound});
        const auto x_out = c.output(rank<2>, "out.x", c.shape("in.x"), {.bound = bound, .in_place = "in.x"});
        const auto w_out = c.output(rank<2>, "out.w", c.shape("in.w"), {.bound = bound, .in_place = "in.w"});
        c.may_allocate(reason);
        c.forward("direct", [=](any_executor& e) {
            deft::cfp_scale_activation(x, w, scale, x_out, w_out, options,
                                       to_least ? cfp_reference::outlier_min : cfp_reference::boundary, e);
        });
        c.reference(
            [=] { reference::cfp_scale_activation<T>(x, w, scale, x_out, w_out, settings_of(options), to_least); });
    }

    static std::vector<test_case> cases() {
        random_values random(72);
        std::vector<test_case> cases;
        int turn = 0;
        for (const index columns : length_sweep())
            for (int repeat = 0; repeat < 2 && columns > 0; ++repeat, ++turn) {
                auto params = cfp_params(turn);
                params["reference"] = turn % 2 == 0 ? "boundary" : "outlier_min";
                cases.push_back({"cfp_scale_activation",
                                 "generated",
                                 params,
                                 {{"in.x", with_outliers(random, {4, columns}, turn)},
                                  {"in.w", random.normal({turn % 3, columns})}},
                                 {}});
            }
        return cases;
    }
};
DEFT_ADAPTER(cfp_scale_activation)

struct smooth_scale {
    template <class T>
    static void bind(call<T>& c) {
        const smooth_scale_options options{.alpha = c.number("alpha"), .floor = c.number("floor", 1e-5)};
        const auto x = c.input(rank<2>, "in.x"), w = c.input(rank<2>, "in.w");
        const auto scale = c.output(rank<1>, "out.scale", {c.shape("in.x").at(1)}, {.bound = relative_bound<T>()});
        c.forward("direct", [=](any_executor&) { deft::smooth_scale(x, w, scale, options); });
        c.reference([=] { reference::smooth_scale<T>(x, w, scale, options.alpha, options.floor); });
    }

    static std::vector<test_case> cases() {
        random_values random(73);
        std::vector<test_case> cases;
        for (const index columns : length_sweep())
            for (const double alpha : {0.0, 0.5, 0.8, 1.0})
                if (columns > 0)
                    cases.push_back({"smooth_scale",
                                     "generated",
                                     {{"alpha", alpha}, {"floor", 1e-3}},
                                     {{"in.x", with_outliers(random, {3, columns}, int(columns))},
                                      {"in.w", random.normal({2, columns})}},
                                     {}});
        cases.push_back({"smooth_scale",
                         "generated",
                         {{"alpha", 0.5}},
                         {{"in.x", random.normal({3, 1100})}, {"in.w", random.normal({2, 1100})}},
                         {}});
        return cases;
    }
};
DEFT_ADAPTER(smooth_scale)

} // namespace deft::testing

#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/pruning/sparsity_schedule.hpp>
#include <deft/reference/pruning/sparsity_schedule.hpp>

#include <cstdint>
#include <memory>
#include <set>

namespace deft::testing {

// Both are offered in double only; in the tests in float their results are rounded once.

struct sparsity_schedule {
    template <class T>
    static void bind(call<T>& c) {
        sparsity_schedule_options options{.kind = c.choice("kind", kinds())};
        options.density = c.number("density", 1);
        options.updates = c.integer("updates", 0);
        options.warmup = c.number("warmup", 0);
        options.initial_sparsity = c.number("initial_sparsity", 0);
        options.final_sparsity = c.number("final_sparsity", 0);
        options.begin_step = c.integer("begin_step", 0);
        options.end_step = c.integer("end_step", 0);
        options.alpha = c.number("alpha", 0);
        const auto step = c.input(any_rank<std::int64_t>, "in.step");
        const auto value = c.output(
            any_rank<>, "out.value", c.shape("in.step"),
            {.bound = by_type<T>({.absolute = 1e-45, .relative = 6e-8}, {.absolute = 1e-15, .relative = 1e-12})});
        const auto each = [=](auto&& f) {
            for (index r = 0; r < step.extent(0); ++r)
                for (index i = 0; i < step.extent(1); ++i)
                    value(r, i) = T(f(index(step(r, i))));
        };
        c.forward("direct", [=](any_executor&) { each([&](index t) { return deft::sparsity_schedule(t, options); }); });
        c.reference([=] {
            each([&](index at) {
                const double t = double(at), d = options.density, end = double(options.end_step);
                switch (options.kind) {
                case schedule_kind::exponential:
                    return reference::exponential_density(t, d, double(options.updates));
                case schedule_kind::warm_exponential:
                    return reference::warm_exponential_density(t, d, double(options.updates), options.warmup);
                case schedule_kind::cosine:
                    return reference::cosine_density(t, d, end);
                case schedule_kind::cubic:
                    return reference::cubic_density(t, options.initial_sparsity, options.final_sparsity,
                                                    double(options.begin_step), end);
                case schedule_kind::drop_cosine:
                    break;
                }
                return reference::drop_fraction(t, options.alpha, end);
            });
        });
    }

    static std::vector<test_case> cases() {
        std::vector<test_case> cases;
        const auto add = [&](std::map<std::string, parameter> params) {
            tensor steps{{9}, {0, 1, 2, 7, 9, 10, 11, 40, 3000}, true};
            cases.push_back({"sparsity_schedule", "generated", std::move(params), {{"in.step", steps}}, {}});
        };
        for (const double d : {1.0, 0.5, 0.02, 1e-6})
            for (const double length : {1.0, 2.0, 10.0, 41.0}) {
                add({{"kind", "exponential"}, {"density", d}, {"updates", length}});
                for (const double warmup : {0.0, 0.25, 0.45})
                    add({{"kind", "warm_exponential"}, {"density", d}, {"updates", length}, {"warmup", warmup}});
                add({{"kind", "cosine"}, {"density", d}, {"end_step", length}});
                add({{"kind", "drop_cosine"}, {"alpha", d}, {"end_step", length}});
                add({{"kind", "cubic"},
                     {"initial_sparsity", 0.1},
                     {"final_sparsity", 1 - d},
                     {"begin_step", 1.0},
                     {"end_step", 1 + length}});
            }
        return cases;
    }

private:
    static const names<schedule_kind>& kinds() {
        static const names<schedule_kind> all{{"exponential", schedule_kind::exponential},
                                              {"warm_exponential", schedule_kind::warm_exponential},
                                              {"cosine", schedule_kind::cosine},
                                              {"cubic", schedule_kind::cubic},
                                              {"drop_cosine", schedule_kind::drop_cosine}};
        return all;
    }
};
DEFT_ADAPTER(sparsity_schedule)

struct layer_densities {
    template <class T>
    static void bind(call<T>& c) {
        struct state {
            std::vector<std::vector<index>> shapes;
            std::vector<index> linear;
            std::vector<double> result;
        };
        const auto s = std::make_shared<state>();
        for (const parameter& shape : c.param("shapes").items) {
            s->shapes.emplace_back();
            for (const parameter& extent : shape.items)
                s->shapes.back().push_back(index(extent.number));
        }
        if (c.has_param("linear_layers"))
            for (const parameter& layer : c.param("linear_layers").items)
                s->linear.push_back(index(layer.number));
        s->result.resize(s->shapes.size());
        const layer_densities_options options{.kind = c.choice("kind", kinds()),
                                              .density = c.number("density"),
                                              .linear_layers = s->linear,
                                              .dense_first = c.number("dense_first", 0) != 0,
                                              .dense_last = c.number("dense_last", 0) != 0};
        const auto density = c.output(rank<1>, "out.density", {index(s->shapes.size())},
                                      {.bound = by_type<T>({.relative = 6e-8}, {.relative = 1e-12})});
        c.may_allocate("a few numbers per layer");
        c.forward("direct", [=](any_executor&) {
            deft::layer_densities(s->shapes, s->result, options);
            for (index i = 0; i < density.extent(0); ++i)
                density(i) = T(s->result[std::size_t(i)]);
        });
        c.reference([=] {
            const std::vector<double> expected = naive(s->shapes, s->linear, options);
            for (index i = 0; i < density.extent(0); ++i)
                density(i) = T(expected[std::size_t(i)]);
        });
    }

    static std::vector<test_case> cases() {
        const auto list = [](const std::vector<double>& values) {
            return parameter(std::vector<parameter>(values.begin(), values.end()));
        };
        const parameter shapes(std::vector<parameter>{list({16, 3, 3, 3}), list({32, 16, 3, 3}), list({64, 32, 1, 1}),
                                                      list({64, 64, 3, 3}), list({10, 64})});
        std::vector<test_case> cases;
        for (const auto& [name, kind] : kinds())
            for (const double density : {1.0, 0.5, 0.1, 0.01})
                for (const double ends : {0.0, 1.0})
                    cases.push_back({"layer_densities",
                                     "generated",
                                     {{"kind", name},
                                      {"density", density},
                                      {"shapes", shapes},
                                      {"dense_first", ends},
                                      {"linear_layers", list({4})}},
                                     {},
                                     {}});
        cases.push_back({"layer_densities",
                         "generated",
                         {{"kind", "erk"}, {"density", 0.3}, {"shapes", parameter(std::vector<parameter>{})}},
                         {},
                         {}});
        return cases;
    }

private:
    static const names<density_kind>& kinds() {
        static const names<density_kind> all{{"alluniform", density_kind::alluniform},
                                             {"uniform", density_kind::uniform},
                                             {"erk", density_kind::erk},
                                             {"erk_matrix", density_kind::erk_matrix},
                                             {"er", density_kind::er}};
        return all;
    }
    static std::vector<double> naive(const std::vector<std::vector<index>>& shapes, const std::vector<index>& linear,
                                     const layer_densities_options& options) {
        const std::size_t count = shapes.size();
        if (options.kind == density_kind::alluniform)
            return std::vector<double>(count, options.density);
        std::set<std::size_t> dense;
        if (options.kind == density_kind::uniform) {
            std::vector<double> result(count, options.density);
            if (count > 1)
                result[0] = 1;
            for (const index layer : linear)
                result[std::size_t(layer)] = 1;
            return result;
        }
        if (options.dense_first && count > 0)
            dense.insert(0);
        if (options.dense_last && count > 0)
            dense.insert(count - 1);
        std::vector<double> sizes, raw;
        for (const std::vector<index>& shape : shapes) {
            index size = 1, sum = 0;
            for (const index extent : shape) {
                size *= extent;
                sum += extent;
            }
            if (options.kind == density_kind::erk_matrix)
                sum = shape[0] + size / shape[0];
            sizes.push_back(double(size));
            raw.push_back(options.kind == density_kind::er ? double(shape[0] + shape[1]) / double(shape[0] * shape[1])
                                                           : double(sum) / double(size));
        }
        return reference::proportional_densities(sizes, raw, options.density, dense);
    }
};
DEFT_ADAPTER(layer_densities)

} // namespace deft::testing

#include "layer_list.hpp"

#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/pruning/prune_and_regrow.hpp>
#include <deft/reference/pruning/prune_and_regrow.hpp>

#include <cmath>

namespace deft::testing {

namespace {

// Files hold doubles, which the test in float rounds.
template <class T>
constexpr tolerance rounded = by_type<T>({.absolute = 1e-45, .relative = 0x1p-24}, {});

template <class T>
void write(const std::vector<T>& from, const view<T, 2>& to) {
    for (index r = 0; r < to.extent(0); ++r)
        for (index c = 0; c < to.extent(1); ++c)
            to(r, c) = from[std::size_t(r * to.extent(1) + c)];
}

} // namespace

struct prune_and_regrow {
    template <class T>
    static void bind(call<T>& c) {
        const prune_and_regrow_options options{.n_keep = c.integer("n_keep"), .n_grow = c.integer("n_grow")};
        const extents shape = as_matrix(c.shape("in.weight"));
        const auto weight = c.input_as(rank<2>, "in.weight", shape);
        const auto grad = c.input_as(rank<2>, "in.grad", shape);
        const bool with_momentum = c.has("in.momentum");
        const auto momentum = with_momentum ? c.input_as(rank<2>, "in.momentum", shape) : view<const T, 2>(absent);
        const extents& given = c.shape("in.weight");
        const auto new_weight = output_matrix(c, "out.weight", given, {.bound = rounded<T>, .in_place = "in.weight"});
        const auto new_grad = output_matrix(c, "out.grad", given, {.bound = rounded<T>, .in_place = "in.grad"});
        const auto new_momentum =
            with_momentum ? output_matrix(c, "out.momentum", given, {.bound = rounded<T>, .in_place = "in.momentum"})
                          : view<T, 2>(absent);
        const auto masks = output_masks(c, {given}, {"out.mask"});
        const std::vector<std::uint8_t> bytes(c.given("in.mask").values.begin(), c.given("in.mask").values.end());
        const auto bits = std::make_shared<std::vector<std::uint64_t>>(std::size_t(mask_words(element_count(shape))));
        pack_mask(bytes, *bits);
        c.may_allocate("tables are counted in");
        c.forward("bits", [=](any_executor&) {
            deft::prune_and_regrow<T>(weight, grad, *bits, momentum, new_weight, masks->bits[0], new_grad, new_momentum,
                                      options);
            masks->write_bytes();
        });
        c.forward("mask in place", [=](any_executor&) {
            const view<std::uint64_t, 1> mask = masks->bits[0];
            std::copy(bits->begin(), bits->end(), mask.data());
            deft::prune_and_regrow<T>(weight, grad, mask, momentum, new_weight, mask, new_grad, new_momentum, options);
            masks->write_bytes();
        });
        c.reference([=] {
            std::vector<T> w = reference::elements<T>(weight), g = reference::elements<T>(grad), m;
            if (with_momentum)
                m = reference::elements<T>(momentum);
            std::vector<std::uint8_t> mask = bytes;
            reference::prune_and_regrow(w, g, mask, m, options.n_keep, options.n_grow);
            write(w, new_weight);
            write(g, new_grad);
            write(m, new_momentum);
            masks->write(mask);
        });
    }

    static std::vector<test_case> cases() {
        random_values random(52);
        std::vector<test_case> cases;
        const auto add = [&](tensor weight, tensor grad, double keep, double grow, bool with_momentum) {
            const index size = index(weight.values.size());
            const index n_keep = index(keep * double(size)),
                        n_grow = std::min(index(grow * double(size)), size - n_keep);
            test_case made{"prune_and_regrow",
                           "generated",
                           {{"n_keep", double(n_keep)}, {"n_grow", double(n_grow)}},
                           {{"in.mask", random.integers(weight.shape, 0, 1)}},
                           {}};
            if (with_momentum)
                made.given["in.momentum"] = random.normal(weight.shape);
            made.given["in.weight"] = std::move(weight);
            made.given["in.grad"] = std::move(grad);
            cases.push_back(std::move(made));
        };
        for (const double keep : {0.0, 0.1, 0.5, 1.0})
            for (const double grow : {0.0, 0.2, 0.9})
                for (const bool few_values : {false, true}) {
                    const extents shape{6, 31};
                    const auto values = [&] {
                        tensor t = few_values ? random.integers(shape, -1, 1) : random.normal(shape);
                        t.is_integer = false;
                        return t;
                    };
                    tensor weight = values(), grad = values();
                    add(std::move(weight), std::move(grad), keep, grow, keep > 0.2);
                }
        for (const index length : length_sweep())
            add(random.normal({2, length}), random.normal({2, length}), 0.3, 0.3, true);
        return cases;
    }
};
DEFT_ADAPTER(prune_and_regrow)

struct pruning_step {
    template <class T>
    static void bind(call<T>& c) {
        const index layers = c.integer("layers");
        const pruning_step_options options{
            .density = c.number("density"),
            .drop_fraction = c.number("drop_fraction"),
            .rule =
                c.choice("rule", names<mask_rule>{{"exact", mask_rule::exact}, {"threshold", mask_rule::threshold}}),
            .counts = c.choice("counts", names<regrow_counts>{{"exact", regrow_counts::exact},
                                                              {"truncated", regrow_counts::truncated}})};
        const std::vector<view<const T, 2>> grads = input_layers(c, "in.grad", layers);
        const auto inputs = std::make_shared<std::vector<std::vector<T>>>();
        std::vector<view<T, 2>> weights;
        std::vector<extents> shapes;
        std::vector<std::string> mask_names;
        for (index i = 0; i < layers; ++i) {
            // The weights are updated in place: the inputs are what the outputs hold before.
            const std::string from = layer_name("in.weight", i);
            shapes.push_back(c.shape(from));
            weights.push_back(output_matrix(c, layer_name("out.weight", i), shapes.back(),
                                            {.bound = rounded<T>, .initial = from.c_str()}));
            mask_names.push_back(layer_name("out.mask", i));
        }
        const auto masks = output_masks(c, shapes, mask_names);
        c.may_allocate("tables are counted in");
        c.forward("in place", [=](any_executor&) {
            deft::pruning_step<T>(weights, grads, masks->bits, options);
            masks->write_bytes();
        });
        c.reference([=] {
            std::vector<std::vector<T>> w, g;
            for (index i = 0; i < layers; ++i) {
                w.push_back(reference::elements<T>(weights[std::size_t(i)]));
                g.push_back(reference::elements<T>(grads[std::size_t(i)]));
            }
            masks->write(reference::pruning_step<T>(w, g, options.density, options.drop_fraction,
                                                    options.rule == mask_rule::exact,
                                                    options.counts == regrow_counts::exact));
            for (std::size_t i = 0; i < w.size(); ++i)
                write(w[i], weights[i]);
        });
    }

    static std::vector<test_case> cases() {
        random_values random(53);
        std::vector<test_case> cases;
        for (const double density : {1.0, 0.5, 0.13, 0.02})
            for (const double drop : {0.0, 0.3, 1.0})
                for (const char* const rule : {"exact", "threshold"})
                    for (const char* const counts : {"exact", "truncated"}) {
                        test_case made{"pruning_step",
                                       "generated",
                                       {{"density", density},
                                        {"drop_fraction", drop},
                                        {"rule", rule},
                                        {"counts", counts},
                                        {"layers", 3.0}},
                                       {},
                                       {}};
                        const extents shapes[] = {{9, 13}, {5, 2, 3, 3}, {4, 4}};
                        for (index i = 0; i < 3; ++i) {
                            made.given[layer_name("in.weight", i)] = random.normal(shapes[i], i == 2 ? 1e3 : 1);
                            made.given[layer_name("in.grad", i)] = random.normal(shapes[i]);
                        }
                        cases.push_back(std::move(made));
                    }
        return cases;
    }
};
DEFT_ADAPTER(pruning_step)

} // namespace deft::testing

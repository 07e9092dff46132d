#include "layer_list.hpp"

#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/pruning/magnitude_mask.hpp>
#include <deft/reference/pruning/magnitude_mask.hpp>

namespace deft::testing {

struct magnitude_mask {
    template <class T>
    static void bind(call<T>& c) {
        const index layers = c.integer("layers");
        const std::vector<view<const T, 2>> weights = input_layers(c, "in.weight", layers);
        std::vector<extents> shapes;
        std::vector<std::string> names;
        for (index i = 0; i < layers; ++i) {
            shapes.push_back(c.shape(layer_name("in.weight", i)));
            names.push_back(layer_name("out.mask", i));
        }
        const auto masks = output_masks(c, shapes, names);
        c.may_allocate("tables are counted in");

        const std::string kind = c.text("kind");
        if (kind == "magnitude") {
            const magnitude_mask_options options{
                .sparsity = c.number("sparsity"),
                .scope = c.choice(
                    "scope", testing::names<mask_scope>{{"global", mask_scope::global}, {"layer", mask_scope::layer}}),
                .rule = c.choice("rule", testing::names<mask_rule>{{"exact", mask_rule::exact},
                                                                   {"threshold", mask_rule::threshold}})};
            c.forward("bits", [=](any_executor&) {
                deft::magnitude_mask<T>(weights, masks->bits, options);
                masks->write_bytes();
            });
            const bool exact = options.rule == mask_rule::exact, global = options.scope == mask_scope::global;
            c.reference([=] {
                if (global)
                    return masks->write(reference::magnitude_mask<T>(weights, options.sparsity, exact));
                std::vector<std::uint8_t> all;
                for (const view<const T, 2>& w : weights) {
                    const auto mask = reference::magnitude_mask<T>({w}, options.sparsity, exact);
                    all.insert(all.end(), mask.begin(), mask.end());
                }
                masks->write(all);
            });
            return;
        }
        const bool is_nm = kind == "nm";
        if (!is_nm && kind != "block")
            throw std::runtime_error("unknown kind " + kind);
        const index n = is_nm ? c.integer("n") : c.integer("block_rows");
        const index m = is_nm ? c.integer("m") : c.integer("block_cols");
        const double sparsity = is_nm ? 0 : c.number("sparsity");
        c.forward("bits", [=](any_executor&) {
            for (std::size_t i = 0; i < weights.size(); ++i)
                if (is_nm)
                    deft::nm_mask<T>(weights[i], masks->bits[i], n, m);
                else
                    deft::block_mask<T>(weights[i], masks->bits[i],
                                        {.sparsity = sparsity, .block_rows = n, .block_columns = m});
            masks->write_bytes();
        });
        c.reference([=] {
            std::vector<std::uint8_t> all;
            for (const view<const T, 2>& w : weights) {
                const auto mask = is_nm ? reference::nm_mask<T>(w, n, m) : reference::block_mask<T>(w, sparsity, n, m);
                all.insert(all.end(), mask.begin(), mask.end());
            }
            masks->write(all);
        });
    }

    static std::vector<test_case> cases() {
        random_values random(51);
        std::vector<test_case> cases;
        const auto add = [&](std::map<std::string, parameter> params, const std::vector<tensor>& weights) {
            test_case made{"magnitude_mask", "generated", std::move(params), {}, {}};
            made.params["layers"] = double(weights.size());
            for (std::size_t i = 0; i < weights.size(); ++i)
                made.given[layer_name("in.weight", index(i))] = weights[i];
            cases.push_back(std::move(made));
        };
        const auto magnitude = [](const char* scope, const char* rule, double sparsity) {
            return std::map<std::string, parameter>{
                {"kind", "magnitude"}, {"scope", scope}, {"rule", rule}, {"sparsity", sparsity}};
        };
        for (const char* const scope : {"global", "layer"})
            for (const char* const rule : {"exact", "threshold"})
                for (const double sparsity : {0.0, 0.3, 0.5, 0.9, 1.0}) {
                    // Distinct values, few values (ties everywhere), mostly zeros, and extremes.
                    add(magnitude(scope, rule, sparsity),
                        {random.normal({7, 11}), random.normal({3, 70}), random.normal({2, 2}, 1e3)});
                    add(magnitude(scope, rule, sparsity), {random.integers({9, 15}, -2, 2)});
                    tensor zeros = random.integers({5, 40}, -9, 0);
                    for (double& v : zeros.values)
                        v = v < -8 ? -v : 0.0;
                    zeros.is_integer = false;
                    cases.back().given["in.weight.0"].is_integer = false;
                    zeros.values[3] = -0.0;
                    add(magnitude(scope, rule, sparsity), {zeros, random.normal({1, 1})});
                    add(magnitude(scope, rule, sparsity),
                        {random.normal({4, 5}, 1e-42), random.normal({4, 5}, 1e37), random.normal({0, 3})});
                }
        for (const index length : length_sweep())
            add(magnitude("global", "exact", 0.6), {random.normal({3, length})});
        for (const index m : {1, 2, 4, 7, 16})
            for (const index n : {0, 1, 2, 4})
                if (n <= m)
                    add({{"kind", "nm"}, {"n", double(n)}, {"m", double(m)}},
                        {random.normal({3, 29}), random.normal({5, 16})});
        for (const double sparsity : {0.0, 0.5, 0.9})
            for (const index rows : {1, 4})
                for (const index columns : {1, 3, 8})
                    add({{"kind", "block"},
                         {"sparsity", sparsity},
                         {"block_rows", double(rows)},
                         {"block_cols", double(columns)}},
                        {random.normal({9, 14})});
        add(magnitude("global", "exact", 0.5), {});
        return cases;
    }
};
DEFT_ADAPTER(magnitude_mask)

} // namespace deft::testing

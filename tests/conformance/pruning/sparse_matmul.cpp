#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/pruning/sparse_matmul.hpp>
#include <deft/reference/pruning/sparse_matmul.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

namespace deft::testing {

/// Besides what golden files give, generated cases may give in.mask, U8: which entries are kept.
struct sparse_matmul {
    template <class T>
    static void bind(call<T>& c) {
        const auto s = std::make_shared<state<T>>(c);
        const view<const T, 2> dense(s->dense.data(), {s->rows, s->columns});
        const view<const std::uint8_t, 2> mask =
            s->bytes.empty() ? view<const std::uint8_t, 2>(absent)
                             : view<const std::uint8_t, 2>(s->bytes.data(), {s->rows, s->columns});
        const auto weight = c.input(rank<2>, "in.weight");
        const auto x = c.input(rank<2>, "in.x");
        const auto bias = c.optional_input(rank<1>, "in.bias");
        const tolerance bound = by_type<T>({.of_largest = 1e-5, .floor = 0}, {.of_largest = 1e-13, .floor = 0});
        const bool cn = s->options.layout == sparse_layout::cn;
        const index p = c.shape("in.x")[cn ? 1 : 0];
        const extents y_shape = cn ? extents{s->rows, p} : extents{p, s->rows};
        const auto y = c.output(rank<2>, "out.y", y_shape, {.bound = bound});
        const auto write_packed = bind_packed(c, *s, dense, mask);

        c.forward("prepared", [=](any_executor& e) {
            deft::sparse_matmul(s->weight, x, bias, y, s->options, e);
            write_packed(s->packed);
        });
        c.forward("packed", [=](any_executor& e) {
            deft::sparse_matmul(s->from_arrays, x, bias, y, s->options, e);
            write_packed(s->packed);
        });
        c.reference([=] {
            reference::sparse_matmul<T>(dense, mask, x, bias, y, cn, s->range);
            write_packed(s->expected);
        });
        static_cast<void>(weight);

        if (!c.has("grad_out.y"))
            return;
        const auto grad_y = c.input(rank<2>, "grad_out.y");
        const auto grad_x = c.output(rank<2>, "grad_in.x", c.shape("in.x"), {.bound = bound});
        const auto grad_weight = c.output(rank<2>, "grad_in.weight", c.shape("in.weight"), {.bound = bound});
        const auto grad_bias = c.has("in.bias")
                                   ? c.output(rank<1>, "grad_in.bias", c.shape("in.bias"), {.bound = bound})
                                   : view<T, 1>(absent);
        if (s->range.clamps) {
            c.may_allocate("the cotangent that the clamp passes is copied");
            c.has_kinks("a clamp");
        }
        const auto values = std::make_shared<std::vector<T>>(std::size_t(s->rows * p));
        c.backward("prepared", [=](any_executor& e) {
            const view<T, 2> result(values->data(), {y_shape[0], y_shape[1]});
            deft::sparse_matmul(s->weight, x, bias, result, s->options);
            deft::sparse_matmul_backward(s->weight, x, result, grad_y, grad_x, grad_weight, grad_bias, s->options, e);
        });
        c.reference_backward([=] {
            reference::sparse_matmul_backward<T>(dense, mask, x, bias, grad_y, grad_x, grad_weight, grad_bias, cn,
                                                 s->range);
        });
    }

    static std::vector<test_case> cases() {
        random_values random(50);
        std::vector<test_case> cases;
        const auto add = [&](index m, index n, index p, double density, const char* layout, const char* format,
                             index block_rows, index block_columns, bool with_bias) {
            test_case made{"sparse_matmul",
                           "generated",
                           {{"layout", layout}, {"format", format}, {"bias", with_bias ? 1.0 : 0.0}},
                           {{"in.weight", random.normal({m, n})}},
                           {}};
            if (std::string(format) == "bcsr") {
                made.params["block_rows"] = double(block_rows);
                made.params["block_cols"] = double(block_columns);
            } else if (std::string(format) == "nm") {
                made.params["n"] = double(block_rows);
                made.params["m"] = double(block_columns);
            }
            const bool cn = std::string(layout) == "cn";
            made.given["in.x"] = random.normal(cn ? extents{n, p} : extents{p, n});
            made.given["grad_out.y"] = random.normal(cn ? extents{m, p} : extents{p, m});
            if (with_bias)
                made.given["in.bias"] = random.normal({m});
            // Differences of the gradient would see entries of the weight that are 0, were there no mask.
            tensor mask = random.integers({m, n}, 0, 0);
            for (index i = 0; i < m * n; ++i) {
                const bool fits = std::string(format) != "nm" || i % n % block_columns < block_rows;
                mask.values[std::size_t(i)] = fits && random.number(0, 1) < density ? 1 : 0;
            }
            made.given["in.mask"] = mask;
            cases.push_back(std::move(made));
        };
        for (const char* const layout : {"cn", "nc"}) {
            for (index p = 0; p <= 35; ++p)
                add(5, 9, p, 0.4, layout, "csr", 1, 1, p % 2 == 0);
            for (const index p : {47, 63, 65, 130})
                add(7, 33, p, 0.2, layout, "csr", 1, 1, true);
            for (const index p : {1, 2, 9, 40}) {
                add(13, 18, p, 0.3, layout, "bcsr", 4, 1, true);
                add(10, 19, p, 0.1, layout, "bcsr", 3, 8, false);
                add(9, 21, p, 0.05, layout, "bcsr", 7, 5, true);
                add(6, 22, p, 0.9, layout, "nm", 2, 4, true);
                add(0, 4, p, 0.5, layout, "csr", 1, 1, false);
                add(4, 0, p, 0.5, layout, "csr", 1, 1, true);
                add(3, 5, p, 0.0, layout, "csr", 1, 1, true); // no entries
            }
            add(700, 21, 3, 0.05, layout, "csr", 1, 1, true);  // two chunks of rows
            add(3, 2500, 10, 0.05, layout, "csr", 1, 1, true); // three segments of columns
            add(3, 2500, 1, 0.05, layout, "csr", 1, 1, true);
            add(6, 2100, 5, 0.02, layout, "bcsr", 2, 3, true);
            add(600, 1100, 9, 0.001, layout, "bcsr", 5, 1, true); // block rows with empty segments
        }
        // NaN in x reaches what its entries name, and nothing else.
        for (const char* const layout : {"cn", "nc"})
            for (const index p : {1, 6}) {
                add(9, 12, p, 0.3, layout, "csr", 1, 1, false);
                cases.back().given.erase("grad_out.y");
                for (double& value : cases.back().given["in.x"].values)
                    value = random.number(0, 1) < 0.2 ? NAN : value;
            }
        // Clamps, off the values.
        for (const char* const layout : {"cn", "nc"})
            for (const char* const format : {"csr", "bcsr"})
                for (const index p : {1, 2, 19}) {
                    add(11, 8, p, 0.6, layout, format, 2, 2, true);
                    cases.back().params["clamp_min"] = -0.53;
                    cases.back().params["clamp_max"] = 0.71;
                }
        return cases;
    }

private:
    template <class T>
    struct state {
        explicit state(const call_base& c) : weight({nullptr, {0, 0}}), from_arrays({nullptr, {0, 0}}) {
            const tensor& given = c.given("in.weight");
            rows = given.shape.at(0);
            columns = given.shape.at(1);
            dense.assign(given.values.begin(), given.values.end());
            packing = {.format = c.choice("format", formats()), .backward = true};
            if (packing.format == sparse_format::bcsr) {
                packing.block_rows = c.integer("block_rows");
                packing.block_columns = c.integer("block_cols");
            } else if (packing.format == sparse_format::nm) {
                packing.n = c.integer("n");
                packing.m = c.integer("m");
            }
            options.layout =
                c.choice("layout", names<sparse_layout>{{"cn", sparse_layout::cn}, {"nc", sparse_layout::nc}});
            range.clamps = c.has_param("clamp_min") && c.param("clamp_min").type == parameter::kind::number;
            if (range.clamps) {
                options.clamp_min = range.low = c.number("clamp_min");
                options.clamp_max = range.high = c.number("clamp_max");
            }
            view<const std::uint64_t, 1> kept = absent;
            if (c.has("in.mask")) {
                bytes.assign(c.given("in.mask").values.begin(), c.given("in.mask").values.end());
                bits.resize(std::size_t(mask_words(rows * columns)));
                pack_mask(bytes, bits);
                kept = bits;
            }
            const in<T, 2> w(dense.data(), {rows, columns});
            // Packed with other values first: set() must not leave any of them.
            const std::vector<T> others(dense.size(), T(3));
            weight = kept.is_given() ? sparse_weight<T>({others.data(), {rows, columns}}, kept, packing)
                                     : sparse_weight<T>(w, kept, packing);
            weight.set(w);
            pack(w, kept);
        }

        void pack(in<T, 2> w, in<std::uint64_t, 1> kept) {
            const auto widen = [](const auto& narrow) {
                return std::vector<std::int64_t>(narrow.begin(), narrow.end());
            };
            if (packing.format == sparse_format::csr) {
                const csr_matrix<T> a = to_csr<T>(w, kept);
                packed = {widen(a.row_ptr), widen(a.col_idx), a.values};
                from_arrays = sparse_weight<T>(a);
            } else if (packing.format == sparse_format::bcsr) {
                const bcsr_matrix<T> a = to_bcsr<T>(w, packing.block_rows, packing.block_columns, kept);
                packed = {widen(a.block_ptr), widen(a.block_col), a.values};
                from_arrays = sparse_weight<T>(a);
            } else {
                const nm_matrix<T> a = to_nm<T>(w, packing.n, packing.m, kept);
                packed = {{}, widen(a.offset), a.values};
                from_arrays = sparse_weight<T>(a);
            }
        }

        index rows, columns;
        std::vector<T> dense;
        std::vector<std::uint8_t> bytes;
        std::vector<std::uint64_t> bits;
        sparse_packing packing;
        sparse_matmul_options options{.layout = sparse_layout::cn};
        reference::clamp_range range;
        sparse_weight<T> weight, from_arrays;
        reference::packed_arrays<T> packed, expected;
    };

    static const names<sparse_format>& formats() {
        static const names<sparse_format> all{
            {"csr", sparse_format::csr}, {"bcsr", sparse_format::bcsr}, {"nm", sparse_format::nm}};
        return all;
    }

    /// The outputs of a format, and the function that writes them. Their shapes follow from the weight.
    template <class T>
    static auto bind_packed(call<T>& c, state<T>& s, in<T, 2> dense, in<std::uint8_t, 2> mask) {
        using ints = view<std::int64_t, 1>;
        const sparse_packing& packing = s.packing;
        const char *pointers = "out.packed.row_ptr", *indices = "out.packed.col_idx";
        extents value_shape, index_shape;
        if (packing.format == sparse_format::csr) {
            s.expected = reference::pack_csr<T>(dense, mask);
            value_shape = index_shape = {index(s.expected.values.size())};
        } else if (packing.format == sparse_format::bcsr) {
            pointers = "out.packed.block_ptr";
            indices = "out.packed.block_col";
            s.expected = reference::pack_bcsr<T>(dense, mask, packing.block_rows, packing.block_columns);
            index_shape = {index(s.expected.indices.size())};
            value_shape = {index_shape[0], packing.block_rows, packing.block_columns};
        } else {
            indices = "out.packed.offset";
            s.expected = reference::pack_nm<T>(dense, mask, packing.n, packing.m);
            index_shape = value_shape = {s.rows, (s.columns + packing.m - 1) / packing.m, packing.n};
        }
        const auto to_pointers = packing.format == sparse_format::nm
                                     ? ints(absent)
                                     : c.output(rank<1, std::int64_t>, pointers, {index(s.expected.pointers.size())});
        const auto to_indices = c.output(any_rank<std::int64_t>, indices, index_shape);
        const auto to_values = c.output(any_rank<>, "out.packed.values", value_shape,
                                        {.bound = by_type<T>({.relative = 0x1p-24}, {})}); // files hold doubles
        return [=](const reference::packed_arrays<T>& packed) {
            for (index i = 0; i < to_pointers.extent(0); ++i)
                to_pointers(i) = packed.pointers.at(std::size_t(i));
            const auto write = [](const auto& from, const auto& to) {
                for (index i = 0; i < to.extent(0); ++i)
                    for (index j = 0; j < to.extent(1); ++j)
                        to(i, j) = from.at(std::size_t(i * to.extent(1) + j));
            };
            write(packed.indices, to_indices);
            write(packed.values, to_values);
        };
    }
};
DEFT_ADAPTER(sparse_matmul)

} // namespace deft::testing

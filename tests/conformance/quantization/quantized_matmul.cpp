#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/quantization/quantized_matmul.hpp>
#include <deft/reference/quantization/quantized_matmul.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

namespace deft::testing {

struct quantized_matmul {
    template <class T>
    static void bind(call<T>& c) {
        const int bits_a = int(c.integer("bits_a", index(16)));
        const names<code_order> orders{{"linear", code_order::linear}, {"block32", code_order::block32}};
        const packed_format format{.rows = c.shape("in.packed").at(0),
                                   .columns = c.integer("in_features"),
                                   .bits = int(c.integer("bits_w")),
                                   .group_size = c.integer("group_size", index(0)),
                                   .order = c.choice("order", orders, "linear")};
        const double length = std::sqrt(double(format.columns) / 64);
        const tolerance bound = by_type<T>({.of_largest = bits_a == 16 ? 1e-5 * length : 1e-5, .floor = 0},
                                           {.of_largest = 1e-12, .floor = 0});
        const auto x = c.input(rank<2>, "in.x");
        const auto packed = c.input(rank<2, std::uint8_t>, "in.packed");
        const auto scale = c.input(rank<2>, "in.scale");
        const auto zero_point = c.input(rank<2, std::int64_t>, "in.zero_point");
        const auto bias = c.optional_input(rank<1>, "in.bias");
        const index tokens = x.extent(0), rows = format.rows, groups = format.groups();
        const auto y = c.output(rank<2>, "out.y", {tokens, rows}, {.bound = bound});
        const auto w = prepare<T>(c, format);
        const reference::packed_matrix<T> matrix{packed,
                                                 scale,
                                                 zero_point,
                                                 format.columns,
                                                 format.bits,
                                                 format.group_size,
                                                 format.order == code_order::block32};
        if (bits_a == 16) {
            c.forward("prepared", [=](any_executor& e) { deft::quantized_matmul(x, *w, bias, y, e); });
            c.forward("row by row", [=](any_executor& e) {
                for (index t = 0; t < tokens; ++t)
                    deft::quantized_matmul<T>({x.data() + t * x.stride(0), {1, x.extent(1)}}, *w, bias,
                                              {y.data() + t * y.stride(0), {1, rows}}, e);
            });
            c.reference([=] { reference::weight_only_matmul<T>(x, matrix, bias, y); });
            return;
        }

        const bool symmetric = c.number("act_symmetric", 1) != 0, per_group = c.number("act_per_group", 0) != 0;
        const activation_quantization options{.columns = format.columns,
                                              .group_size = format.group_size,
                                              .max_tokens = tokens,
                                              .bits = bits_a,
                                              .range = symmetric ? code_range::symmetric : code_range::asymmetric,
                                              .scales = per_group ? activation_granularity::group
                                                                  : activation_granularity::token};
        const index steps = per_group ? groups : 1;
        const auto act_q = c.output(rank<2, std::int64_t>, "out.act_q", c.shape("in.x"));
        const auto act_scale = c.output(rank<2>, "out.act_scale", {tokens, steps},
                                        {.bound = by_type<T>({.relative = 1e-6}, {.relative = 1e-14})});
        const auto act_zero = c.output(rank<2, std::int64_t>, "out.act_zero_point", {tokens, steps});
        const auto acc = c.output(rank<3, std::int64_t>, "out.acc", {tokens, rows, groups});
        const auto a = std::make_shared<quantized_activation<T>>(options);
        const auto sums = std::make_shared<std::vector<std::int32_t>>(std::size_t(tokens * rows * groups));
        c.forward("prepared", [=](any_executor& e) {
            deft::quantize_activation(x, *a, e);
            deft::quantized_matmul(*a, *w, bias, y, e);
            deft::quantized_sums(*a, *w, {sums->data(), {tokens, rows, groups}}, e);
            for (index t = 0; t < tokens; ++t) {
                for (index o = 0; o < rows; ++o)
                    for (index g = 0; g < groups; ++g)
                        acc(t, o, g) = (*sums)[std::size_t((t * rows + o) * groups + g)];
                for (index k = 0; k < format.columns; ++k)
                    act_q(t, k) = a->code(t, k);
                for (index g = 0; g < steps; ++g) {
                    act_scale(t, g) = a->scale(t, g);
                    act_zero(t, g) = a->zero_point(t, g);
                }
            }
        });
        c.reference([=] {
            reference::quantize_activation<T>(x, act_q, act_scale, act_zero, bits_a, symmetric,
                                              per_group ? format.group_size : 0);
            reference::quantized_sums<T>(act_q, act_zero, matrix, acc);
            reference::scale_sums<T>(acc, act_scale, matrix, bias, y);
        });
    }

    static std::vector<test_case> cases() {
        generator make;
        for (const int bits : {2, 4, 8})
            for (const index columns : {1, 3, 8, 31, 32, 33, 64, 75, 100, 131})
                for (const index group : {0, 32}) {
                    const index tokens = 1 + columns % 7, rows = 1 + columns % 19;
                    make.add(tokens, rows, columns, bits, 16, group, true, false);
                    make.add(tokens, rows, columns, bits, columns % 2 == 0 ? 4 : 8, group, columns % 3 != 0,
                             group != 0 && columns % 5 == 0);
                }
        for (const index tokens : {0, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65, 67, 130})
            for (const int bits : {2, 4, 8}) {
                make.add(tokens, 17, 96, bits, 16, 32, true, false);
                make.add(tokens, 17, 96, bits, 8, 32, tokens % 2 == 0, tokens % 3 == 0);
            }
        for (const index rows : {0, 1, 7, 8, 9, 15, 16, 17, 31, 33}) {
            make.add(2, rows, 64, 4, 16, 0, true, false);
            make.add(6, rows, 64, 4, 8, 64, false, false);
        }
        // Groups that are no whole blocks, longer than a segment, longer than the row.
        for (const index group : {1, 5, 16, 24, 48, 100, 513, 700, 2000})
            for (const int bits : {2, 4, 8}) {
                make.add(3, 5, 1300 / (group < 16 ? 16 : 1), bits, 8, group, bits != 4, bits == 2);
                make.add(5, 5, 1300 / (group < 16 ? 16 : 1), bits, 16, group, true, false);
            }
        for (const int bits : {2, 4, 8})
            make.add(2, 3, 3000, bits, 8, 0, bits == 4, false);
        make.add(2, 3, 0, 4, 8, 0, true, false);
        make.add(2, 3, 0, 4, 16, 32, true, false);
        make.add_extremes();
        make.add_specials();
        return make.cases;
    }

private:
    template <class T>
    static auto prepare(const call_base& c, const packed_format& format) {
        const auto& codes = c.given("in.packed").values;
        const auto& zeros = c.given("in.zero_point").values;
        const auto& scales = c.given("in.scale").values;
        const std::vector<std::uint8_t> bytes(codes.begin(), codes.end());
        const std::vector<std::int64_t> zero(zeros.begin(), zeros.end());
        const std::vector<T> scale(scales.begin(), scales.end());
        const shape<2> groups{format.rows, format.groups()};
        return std::make_shared<const prepared_weights<T>>(
            packed_weights<T>{.codes = {bytes.data(), {format.rows, format.row_bytes()}},
                              .scale = {scale.data(), groups},
                              .zero_point = {zero.data(), groups},
                              .format = format});
    }

    struct generator {
        random_values random{62};
        std::vector<test_case> cases;

        /// x [columns] of one token, or of one group of it, whose codes are the same in float and double: its step is a
        /// power of two and no quotient is near the middle of two integers.
        void fill_token(double* x, index columns, int bits, bool symmetric) {
            const double scale = std::ldexp(1.0, int(random.integer(-6, 3)));
            const index half = index(1) << (bits - 1);
            const index low = symmetric ? 1 - half : -random.integer(0, 2 * half - 1);
            const index high = symmetric ? half - 1 : 2 * half - 1 + low;
            for (index k = 0; k < columns; ++k) {
                const double code = double(random.integer(low, high));
                const double off = code == double(low) || code == double(high) ? 0 : random.number(-0.4, 0.4);
                x[k] = double(float(scale * (code + off)));
            }
            if (columns > 0)
                x[0] = scale * double(low);
            if (columns > 1)
                x[columns - 1] = scale * double(high);
        }

        void add(index tokens, index rows, index columns, int bits_w, int bits_a, index group, bool symmetric,
                 bool per_group) {
            const packed_format format{rows, columns, bits_w, group, code_order::linear};
            const bool block32 = (tokens + columns) % 2 == 1;
            const index row_bytes =
                kernels::packed_row_bytes(columns, bits_w, block32 ? code_order::block32 : code_order::linear);
            tensor x = random.normal({tokens, columns});
            if (bits_a != 16)
                for (index t = 0; t < tokens; ++t)
                    for (index k = 0, step = per_group ? group : std::max<index>(columns, 1); k < columns; k += step)
                        fill_token(&x.values[std::size_t(t * columns + k)], std::min(step, columns - k), bits_a,
                                   symmetric);
            // Codes at their limits in some rows: sums are largest there.
            tensor codes = random.integers({rows, columns}, 0, (1 << bits_w) - 1);
            for (index k = 0; k < columns && rows > 2; ++k) {
                codes.values[std::size_t(k)] = double((1 << bits_w) - 1);
                codes.values[std::size_t(columns + k)] = 0;
            }
            const std::vector<std::int64_t> integers(codes.values.begin(), codes.values.end());
            std::vector<std::uint8_t> bytes(std::size_t(rows * row_bytes));
            reference::pack_codes<std::int64_t>({integers.data(), {rows, columns}},
                                                view<std::uint8_t, 2>(bytes.data(), {rows, row_bytes}), bits_w,
                                                block32);
            tensor packed{{rows, row_bytes}, {bytes.begin(), bytes.end()}, true};
            tensor scale = random.uniform({rows, format.groups()}, -0.1, 0.1); // ggml has negative ones
            cases.push_back({"quantized_matmul",
                             "generated",
                             {{"bits_w", double(bits_w)},
                              {"bits_a", double(bits_a)},
                              {"group_size", double(group)},
                              {"act_symmetric", double(symmetric)},
                              {"act_per_group", double(per_group)},
                              {"order", block32 ? "block32" : "linear"},
                              {"in_features", double(columns)}},
                             {{"in.x", x},
                              {"in.packed", packed},
                              {"in.scale", scale},
                              {"in.zero_point", random.integers({rows, format.groups()}, 0, (1 << bits_w) - 1)}},
                             {}});
            if (rows % 2 == 1)
                cases.back().given["in.bias"] = random.normal({rows});
        }

        /// Every code and every activation at a limit, so that each product has the same sign: no sum may saturate.
        void add_extremes() {
            for (const int bits : {2, 4, 8})
                for (const bool symmetric : {true, false})
                    for (const int sign : {1, -1}) {
                        add(5, 4, 1024, bits, 8, symmetric ? 0 : 128, symmetric, false);
                        test_case& c = cases.back();
                        std::fill(c.given["in.packed"].values.begin(), c.given["in.packed"].values.end(), 255.0);
                        std::fill(c.given["in.zero_point"].values.begin(), c.given["in.zero_point"].values.end(),
                                  sign > 0 ? 0.0 : double((1 << bits) - 1));
                        std::fill(c.given["in.x"].values.begin(), c.given["in.x"].values.end(), 2.0 * sign);
                    }
        }

        /// Zeros; numbers beyond the clamps of the scale; NaN in one token; an infinity.
        void add_specials() {
            for (const int bits_a : {8, 4, 16})
                for (const bool symmetric : {true, false}) {
                    if (bits_a == 16 && !symmetric)
                        continue;
                    add(6, 9, 40, 4, bits_a, 32, symmetric, false);
                    std::vector<double>& x = cases.back().given["in.x"].values;
                    std::fill_n(x.begin(), 40, 0.0);
                    std::fill_n(x.begin() + 40, 40, 1e-12);
                    x[2 * 40 + 17] = NAN;
                }
        }
    };
};
DEFT_ADAPTER(quantized_matmul)

} // namespace deft::testing

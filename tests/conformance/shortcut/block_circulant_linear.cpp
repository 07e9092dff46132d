#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/reference/shortcut/block_circulant_linear.hpp>
#include <deft/shortcut/block_circulant_linear.hpp>
#include <deft/shortcut/prepared_block_circulant.hpp>

#include <cmath>
#include <memory>

namespace deft::testing {

struct block_circulant_linear {
    template <class T>
    static void bind(call<T>& c) {
        const tolerance bound = by_type<T>({.of_largest = 2e-5}, {.of_largest = 1e-12});
        const index m = c.integer("block_size"), blocks_in = c.integer("blocks_in"), out = c.integer("blocks_out");
        const auto x = c.input(any_rank<>, "in.x");
        const auto generators = c.input_as(rank<3>, "in.c", {out, blocks_in, m});
        const auto bias = c.optional_input(rank<1>, "in.bias");
        extents shape = c.shape("in.x");
        shape.back() = out * m;
        const auto y = c.output(any_rank<>, "out.y", shape, {.bound = bound});
        c.forward("direct", [=](any_executor& e) { deft::block_circulant_linear(x, generators, bias, y, e); });
        for (const auto& [name, algorithm] : algorithms()) {
            const auto layer = prepare<T>(c, {out, blocks_in, m}, {.algorithm = algorithm, .threads = 3});
            c.forward(name, [=](any_executor& e) { (*layer)(x, bias, y, e); });
        }
        c.reference([=] { reference::block_circulant_linear<T>(x, generators, bias, y); });

        if (!c.has("grad_out.y"))
            return;
        const auto grad_y = c.input(any_rank<>, "grad_out.y");
        const auto grad_x = c.output(any_rank<>, "grad_in.x", c.shape("in.x"), {.bound = bound});
        const auto grad_c = c.output(rank<3>, "grad_in.c", {out, blocks_in, m}, {.bound = bound});
        const auto grad_bias = c.has("in.bias")
                                   ? c.output(rank<1>, "grad_in.bias", c.shape("in.bias"), {.bound = bound})
                                   : view<T, 1>(absent);
        c.backward("direct", [=](any_executor& e) {
            deft::block_circulant_linear_backward(x, generators, grad_y, grad_x, grad_c, grad_bias, e);
        });
        c.reference_backward(
            [=] { reference::block_circulant_linear_backward<T>(x, generators, grad_y, grad_x, grad_c, grad_bias); });
    }

    static std::vector<test_case> cases() {
        random_values random(44);
        std::vector<test_case> cases;
        const auto add = [&](extents shape, index out, index in, index m, bool with_bias) {
            shape.push_back(in * m);
            test_case made{"block_circulant_linear",
                           "generated",
                           {{"block_size", double(m)}, {"blocks_in", double(in)}, {"blocks_out", double(out)}},
                           {{"in.x", random.normal(shape)},
                            {"in.c", random.normal({out, in, m}, 1 / std::sqrt(double(in * m + 1)))}},
                           {}};
            shape.back() = out * m;
            made.given["grad_out.y"] = random.normal(shape);
            if (with_bias)
                made.given["in.bias"] = random.normal({out * m});
            cases.push_back(std::move(made));
        };
        for (index m = 1; m <= 40; ++m)
            add({1 + m % 9}, 1 + m % 3, 1 + m % 4, m, m % 2 == 0);
        for (const index m : {45, 49, 64, 67, 77, 96, 128, 131})
            add({7}, 2, 1, m, true);
        for (const index count : {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 33})
            add({count}, 2, 2, 12, true);
        add({0}, 2, 3, 5, true); // no rows
        add({4}, 0, 3, 5, true); // no outputs
        add({4}, 2, 0, 5, true); // no inputs
        add({2, 3}, 70, 65, 1, false);
        add({200}, 3, 1, 37, true);
        add({3}, 1, 2, 192, true);

        // NaN in a row of x makes that row NaN and no other.
        for (const index m : {3, 24}) {
            add({11}, 2, 2, m, true);
            cases.back().given.erase("grad_out.y");
            cases.back().given["in.x"].values[std::size_t(3 * 2 * m + 1)] = NAN;
        }
        return cases;
    }

private:
    static const names<circulant_algorithm>& algorithms() {
        static const names<circulant_algorithm> all{{"prepared, direct", circulant_algorithm::direct},
                                                    {"prepared, fft", circulant_algorithm::fft},
                                                    {"prepared, automatic", circulant_algorithm::automatic}};
        return all;
    }
    template <class T>
    static auto prepare(const call_base& c, shape<3> shape, const circulant_preparation& options) {
        const std::vector<T> values(c.given("in.c").values.begin(), c.given("in.c").values.end());
        return std::make_shared<prepared_block_circulant<T>>(view<const T, 3>(values.data(), shape), options);
    }
};
DEFT_ADAPTER(block_circulant_linear)

} // namespace deft::testing

#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/activation/merge_pointwise_convs.hpp>
#include <deft/reference/activation/merge_pointwise_convs.hpp>

namespace deft::testing {

struct merge_pointwise_convs {
    template <class T>
    static void bind(call<T>& c) {
        const names<merge_mode> modes{{"pointwise", merge_mode::pointwise},
                                      {"kxk_then_pointwise", merge_mode::kxk_then_pointwise},
                                      {"pointwise_then_kxk", merge_mode::pointwise_then_kxk}};
        const merge_mode mode = c.choice("mode", modes);
        const auto w1 = c.input(rank<4>, "in.w1");
        const auto b1 = c.optional_input(rank<1>, "in.b1");
        const auto w2 = c.input(rank<4>, "in.w2");
        const auto b2 = c.optional_input(rank<1>, "in.b2");
        const auto& spatial = mode == merge_mode::pointwise_then_kxk ? w2 : w1;
        const output_traits traits{.bound = by_type<T>({.of_largest = 1e-5}, {.of_largest = 1e-13})};
        const auto weight =
            c.output(rank<4>, "out.weight", {w2.extent(0), w1.extent(1), spatial.extent(2), spatial.extent(3)}, traits);
        const auto bias = c.output(rank<1>, "out.bias", {w2.extent(0)}, traits);

        c.forward("direct",
                  [=](any_executor&) { deft::merge_pointwise_convs(w1, b1, w2, b2, weight, bias, {.mode = mode}); });
        c.reference([=] { reference::merge_pointwise_convs<T>(w1, b1, w2, b2, weight, bias, int(mode)); });
        c.may_allocate("a matrix product packs its blocks; it runs once per model");
    }

    static std::vector<test_case> cases() {
        random_values random(40);
        std::vector<test_case> cases;
        const auto add = [&](const std::string& mode, index inputs, index middle, index outputs, index kernel) {
            const index k1 = mode == "kxk_then_pointwise" ? kernel : 1;
            const index k2 = mode == "pointwise_then_kxk" ? kernel : 1;
            test_case merge{"merge_pointwise_convs",
                            "generated",
                            {{"mode", mode}},
                            {{"in.w1", random.normal({middle, inputs, k1, k1}, 0.5)},
                             {"in.w2", random.normal({outputs, middle, k2, k2}, 0.5)}},
                            {}};
            const std::size_t biases = cases.size() % 4;
            if (biases % 2 == 0)
                merge.given["in.b1"] = random.normal({middle});
            if (biases / 2 == 0)
                merge.given["in.b2"] = random.normal({outputs});
            cases.push_back(merge);
        };
        for (const index length : length_sweep()) {
            add("pointwise", length, 3, 5, 1);
            add("pointwise", 4, length, 3, 1);
            add("pointwise", 3, 5, length, 1);
            add("kxk_then_pointwise", length % 9, 4, 3, 2 + length % 3);
            add("pointwise_then_kxk", 3, length % 9, 4, 2 + length % 3);
            add("pointwise_then_kxk", length % 9, 3, length % 7, 3);
        }
        return cases;
    }
};
DEFT_ADAPTER(merge_pointwise_convs)

} // namespace deft::testing

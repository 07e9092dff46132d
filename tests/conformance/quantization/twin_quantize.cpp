#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/quantization/twin_quantize.hpp>
#include <deft/reference/quantization/twin_quantize.hpp>

#include <cmath>

namespace deft::testing {

struct twin_quantize_softmax {
    template <class T>
    static void bind(call<T>& c) {
        const bool sum = c.text("mode", "exclusive") == "sum";
        const twin_quantize_softmax_options options{.bits = int(c.integer("bits")),
                                                    .split = c.number("split"),
                                                    .step_low = c.number("step_low"),
                                                    .mode = sum ? twin_mode::sum : twin_mode::exclusive};
        const auto x = c.input(any_rank<>, "in.x");
        const auto y =
            c.output(any_rank<>, "out.y", c.shape("in.x"),
                     {.bound = by_type<T>({.of_largest = 1e-5, .floor = 0}, {.of_largest = 1e-12, .floor = 0}),
                      .in_place = "in.x"});
        c.forward("direct", [=](any_executor& e) { deft::twin_quantize_softmax(x, y, options, e); });
        c.reference(
            [=] { reference::twin_quantize_softmax<T>(x, y, options.bits, options.split, options.step_low, sum); });
    }

    static std::vector<test_case> cases() {
        random_values random(74);
        std::vector<test_case> cases;
        for (const index length : length_sweep())
            for (const int bits : {2, 6, 8}) {
                tensor x = random.uniform({3, length}, -0.1, 1.1);
                for (double& v : x.values) // steps are powers of two but for 1 / (Q - 1): off its ties
                    v = std::round(v * 1024) / 1024;
                cases.push_back({"twin_quantize_softmax",
                                 "generated",
                                 {{"bits", double(bits)},
                                  {"split", length % 5 == 0 ? 1.0 : 0.125},
                                  {"step_low", 0.0078125},
                                  {"mode", (length + bits) % 2 == 0 ? "sum" : "exclusive"}},
                                 {{"in.x", x}},
                                 {}});
            }
        return cases;
    }
};
DEFT_ADAPTER(twin_quantize_softmax)

struct twin_quantize_gelu {
    template <class T>
    static void bind(call<T>& c) {
        const twin_quantize_gelu_options options{
            .bits = int(c.integer("bits")), .step_pos = c.number("step_pos"), .step_neg = c.number("step_neg")};
        const auto x = c.input(any_rank<>, "in.x");
        const auto y =
            c.output(any_rank<>, "out.y", c.shape("in.x"),
                     {.bound = by_type<T>({.of_largest = 1e-5, .floor = 0}, {.of_largest = 1e-12, .floor = 0}),
                      .in_place = "in.x"});
        c.forward("direct", [=](any_executor& e) { deft::twin_quantize_gelu(x, y, options, e); });
        c.reference([=] { reference::twin_quantize_gelu<T>(x, y, options.bits, options.step_pos, options.step_neg); });
    }

    static std::vector<test_case> cases() {
        random_values random(75);
        std::vector<test_case> cases;
        for (const index length : length_sweep())
            for (const int bits : {2, 6, 8})
                cases.push_back({"twin_quantize_gelu",
                                 "generated",
                                 {{"bits", double(bits)}, {"step_pos", 0.0625}, {"step_neg", 0.001953125}},
                                 {{"in.x", random.normal({2, length}, 2)}},
                                 {}});
        return cases;
    }
};
DEFT_ADAPTER(twin_quantize_gelu)

} // namespace deft::testing

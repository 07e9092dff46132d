#include "quant_case.hpp"

#include <deft/quantization/step_search.hpp>
#include <deft/reference/quantization/step_search.hpp>

namespace deft::testing {

struct step_search {
    template <class T>
    static void bind(call<T>& c) {
        const step_search_options options{.bits = int(c.integer("bits")),
                                          .alpha = c.number("alpha"),
                                          .beta = c.number("beta"),
                                          .count = c.integer("count")};
        const auto x = c.input(rank<2>, "in.x"), w = c.input(rank<2>, "in.w"), grad = c.input(rank<2>, "in.grad");
        const auto steps =
            c.output(rank<1>, "out.steps", {options.count},
                     {.bound = by_type<T>({.of_largest = 1e-5, .floor = 0}, {.of_largest = 1e-12, .floor = 0})});
        const auto scores =
            c.output(rank<1>, "out.scores", {options.count},
                     {.bound = by_type<T>({.of_largest = 1e-4, .floor = 0}, {.of_largest = 1e-12, .floor = 0})});
        const auto best = c.output(rank<1, index>, "out.best", {1});
        c.may_allocate("calibration: rows of weights and their products");
        c.forward("direct",
                  [=](any_executor& e) { best(0) = deft::step_search<T>(x, w, grad, steps, scores, options, e); });
        c.reference([=] {
            best(0) = reference::step_search<T>(x, w, grad, steps, scores, options.bits, options.alpha, options.beta);
        });
    }

    static std::vector<test_case> cases() {
        random_values random(64);
        std::vector<test_case> cases;
        const auto add = [&](index tokens, index depth, index outputs, int bits, index count, bool zero = false) {
            tensor w = random.normal({outputs, depth});
            for (double& v : w.values)
                v = zero ? 0 : std::floor(v * 64) / 64; // a grid that is finer than any step, and off its ties
            cases.push_back(
                {"step_search",
                 "generated",
                 {{"bits", double(bits)}, {"alpha", 0.41}, {"beta", 1.17}, {"count", double(count)}},
                 {{"in.x", random.normal({tokens, depth})}, {"in.w", w}, {"in.grad", random.normal({tokens, outputs})}},
                 {}});
        };
        for (const index depth : {1, 2, 7, 8, 9, 17, 33})
            for (const int bits : {2, 4, 8})
                add(5, depth, 6, bits, 7);
        add(1, 3, 1, 3, 2);
        add(3, 20, 260, 4, 3); // more rows than are taken at a time
        add(4, 9, 5, 4, 5, true);
        add(0, 4, 3, 4, 4);
        return cases;
    }
};
DEFT_ADAPTER(step_search)

} // namespace deft::testing

#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/reference/shortcut/feature_diversity.hpp>
#include <deft/shortcut/feature_diversity.hpp>
#include <deft/shortcut/feature_diversity_state.hpp>

#include <algorithm>
#include <cmath>
#include <memory>

namespace deft::testing {

struct feature_diversity {
    template <class T>
    static void bind(call<T>& c) {
        const names<diversity_norm> norms{{"none", diversity_norm::none}, {"frobenius", diversity_norm::frobenius}};
        const feature_diversity_options options{.normalize = c.choice("normalize", norms, "none")};
        const bool relative = options.normalize == diversity_norm::frobenius;
        const tolerance bound =
            by_type<T>({.of_largest = 2e-5, .floor = 0}, {.of_largest = 1e-11, .floor = 0}); // values reach 1e-25

        const extents& shape = c.shape("in.h");
        const extents leading(shape.begin(), shape.end() - 2);
        const extents matrices{element_count(leading), shape.end()[-2], shape.end()[-1]};
        const auto h = stacked(c.input(any_rank<>, "in.h"), matrices);
        // One number per matrix: a tensor of rank 0 is one.
        const auto values = c.output(any_rank<>, "out.value", leading, {.bound = bound, .contiguous = true});
        const view<T, 1> value(values.data(), {values.size()});
        c.forward("one pass", [=](any_executor& e) { deft::feature_diversity(h, value, options, e); });
        const auto state = std::make_shared<feature_diversity_state<T>>(h.extent(2));
        const auto late = std::make_shared<feature_diversity_state<T>>(h.extent(2));
        c.forward("streaming", [=](any_executor&) { stream<T>(h, value, options, *state, *late); });
        c.reference([=] { reference::feature_diversity<T>(h, value, relative); });
        c.has_kinks("the distance of equal rows is 0, where it has a cone's tip");

        if (!c.has("grad_out.value"))
            return;
        const auto grad_value = c.input_as(rank<1>, "grad_out.value", {matrices[0]});
        const auto grad_h = stacked(c.output(any_rank<>, "grad_in.h", shape, {.bound = bound}), matrices);
        c.backward("direct",
                   [=](any_executor& e) { deft::feature_diversity_backward(h, grad_value, grad_h, options, e); });
        c.reference_backward([=] { reference::feature_diversity_backward<T>(h, grad_value, grad_h, relative); });
    }

    static std::vector<test_case> cases();

private:
    /// Rows as matrices of some of them.
    template <class E>
    static view<E, 3> stacked(const rows<E>& all, const extents& shape) {
        return {all.data(), {shape[0], shape[1], shape[2]}, {shape[1] * all.stride(0), all.stride(0), index{1}}};
    }

    /// Blocks of 0, 1, 2, ... rows, the second half of them in a state of its own.
    template <class T>
    static void stream(view<const T, 3> h, view<T, 1> value, const feature_diversity_options& options,
                       feature_diversity_state<T>& state, feature_diversity_state<T>& late) {
        const index rows = h.extent(1);
        for (index b = 0; b < h.extent(0); ++b) {
            state.reset();
            late.reset();
            for (index r = 0, block = 0; r < rows; ++block) {
                const index count = std::min(block, rows - r);
                (r < rows / 2 ? state : late)
                    .add({h.data() + b * h.stride(0) + r * h.stride(1), {count, h.extent(2)}, {h.stride(1), index{1}}});
                r += count;
            }
            state.merge(late);
            value(b) = T(state.value(options));
        }
    }
};

std::vector<test_case> feature_diversity::cases() {
    random_values random(40);
    std::vector<test_case> cases;
    const auto add = [&](const extents& shape, const tensor& h, bool with_gradient = true) {
        for (const char* normalize : {"none", "frobenius"}) {
            const extents leading(shape.begin(), shape.end() - 2);
            cases.push_back({"feature_diversity", "generated", {{"normalize", normalize}}, {{"in.h", h}}, {}});
            if (with_gradient)
                cases.back().given["grad_out.value"] = random.normal(leading);
        }
    };
    for (const index length : length_sweep()) {
        add({5, length}, random.normal({5, length}));
        add({std::max<index>(length, 1), 3}, random.normal({std::max<index>(length, 1), 3}, 2));
    }
    add({0, 4, 5}, random.normal({0, 4, 5}));
    add({3, 2, 4, 9}, random.normal({3, 2, 4, 9}));
    add({20, 700}, random.normal({20, 700}));
    add({9, 5000}, random.normal({9, 5000}));
    add({2, 17, 300}, random.normal({2, 17, 300}));

    const auto scaled = [&](const extents& shape, double scale, double common) {
        tensor h = random.normal(shape, scale);
        for (double& v : h.values)
            v = double(float(v + common));
        return h;
    };
    add({33, 19}, scaled({33, 19}, 1e25, 0), false); // differences of fourth order have no such range
    add({33, 19}, scaled({33, 19}, 1e-25, 0), false);
    add({33, 19}, scaled({33, 19}, 1e-40, 0), false);
    add({33, 19}, scaled({33, 19}, 1e38, 0), false);
    add({100, 21}, scaled({100, 21}, 1e-2, 1000), false);

    // Rows that are equal but for rounding of their sums, and a first row far from all others.
    tensor equal = random.normal({49, 13}), outlier = random.normal({300, 5});
    for (std::size_t i = 13; i < equal.values.size(); ++i)
        equal.values[i] = equal.values[i - 13];
    for (std::size_t i = 0; i < 5; ++i)
        outlier.values[i] = 4096;
    add({49, 13}, equal);
    add({300, 5}, outlier);

    // What is not finite spoils its own matrix only.
    tensor spoilt = random.normal({4, 6, 7});
    spoilt.values[40] = NAN;
    spoilt.values[100] = INFINITY;
    add({4, 6, 7}, spoilt, false);
    return cases;
}
DEFT_ADAPTER(feature_diversity)

} // namespace deft::testing

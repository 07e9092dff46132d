#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/attention/dct.hpp>
#include <deft/reference/attention/dct.hpp>

#include <cmath>
#include <memory>

namespace deft::testing {

struct dct {
    template <class T>
    static void bind(call<T>& c) {
        c.choice("norm", names<int>{{"ortho", 0}}, "ortho");
        const index kind = c.integer("kind");
        const tolerance bound = by_type<T>({.of_largest = 2e-6, .floor = 0}, {.of_largest = 1e-13, .floor = 0});
        const auto x = c.input(any_rank<>, "in.x");
        const auto y = c.output(any_rank<>, "out.y", c.shape("in.x"), {.bound = bound, .in_place = "in.x"});
        const auto plans = prepare<T>(x.extent(1), kind);
        for (const auto& [name, plan] : plans)
            c.forward(name, [=, plan = plan](any_executor& e) { deft::dct(x, y, *plan, e); });
        c.reference([=] { with_copy<T>(x, [&](auto from) { reference::dct<T>(from, y, int(kind)); }); });

        if (!c.has("grad_out.y"))
            return;
        const auto grad_y = c.input(any_rank<>, "grad_out.y");
        const auto grad_x =
            c.output(any_rank<>, "grad_in.x", c.shape("in.x"), {.bound = bound, .in_place = "grad_out.y"});
        for (const auto& [name, plan] : plans)
            c.backward(name, [=, plan = plan](any_executor& e) { deft::dct_backward(grad_y, grad_x, *plan, e); });
        c.reference_backward(
            [=] { with_copy<T>(grad_y, [&](auto from) { reference::dct_backward<T>(from, grad_x, int(kind)); }); });
    }

    static std::vector<test_case> cases() {
        random_values random(46);
        std::vector<test_case> cases;
        const auto add = [&](const extents& shape, double scale = 1) {
            for (const int kind : {2, 3, 4})
                cases.push_back({"dct",
                                 "generated",
                                 {{"kind", double(kind)}},
                                 {{"in.x", random.normal(shape, scale)}, {"grad_out.y", random.normal(shape, scale)}},
                                 {}});
        };
        for (index n = 1; n <= 40; ++n) // long ones with so many rows that differences of all plans need no time
            add({n <= 20 ? 1 + n % 4 : 1000 / n + 2, n});
        for (const index n : {45, 48, 49, 60, 64, 67, 80, 96, 128, 131})
            add({1000 / n + 2, n});
        for (const index rows : {0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17})
            add({rows, 6});
        add({2, 3, 5, 12});
        add({5, 256});
        add({9, 784}); // beyond the first cache
        add({3, 500});
        add({4}, 1e-12);
        add({20, 18}, 1e30);

        // NaN in a row makes that row NaN and no other.
        for (const index n : {9, 16, 31}) {
            add({11, n});
            for (std::size_t i = cases.size() - 3; i < cases.size(); ++i) {
                cases[i].given.erase("grad_out.y");
                cases[i].given["in.x"].values[std::size_t(3 * n + 1)] = NAN;
            }
        }
        return cases;
    }

private:
    template <class T>
    static auto prepare(index n, index kind) {
        std::vector<std::pair<std::string, std::shared_ptr<dct_plan<T>>>> plans;
        for (const auto& [name, algorithm] : names<dct_algorithm>{
                 {"automatic", dct_algorithm::automatic}, {"fft", dct_algorithm::fft}, {"dense", dct_algorithm::dense}})
            plans.emplace_back(name, std::make_shared<dct_plan<T>>(
                                         n, dct_kind(kind), dct_preparation{.algorithm = algorithm, .threads = 3}));
        return plans;
    }
    /// The reference does not work in place.
    template <class T, class F>
    static void with_copy(const rows<const T>& x, F&& f) {
        std::vector<T> copy;
        for (index r = 0; r < x.extent(0); ++r)
            copy.insert(copy.end(), &x(r, 0), &x(r, 0) + x.extent(1));
        f(view<const T, 2>(copy.data(), {x.extent(0), x.extent(1)}));
    }
};
DEFT_ADAPTER(dct)

} // namespace deft::testing

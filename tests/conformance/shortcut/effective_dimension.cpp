#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/reference/shortcut/effective_dimension.hpp>
#include <deft/shortcut/effective_dimension.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace deft::testing {

struct effective_dimension {
    template <class T>
    static void bind(call<T>& c) {
        const double epsilon = c.number("epsilon");
        const auto h = c.input(rank<2>, "in.h");
        const auto dimension = c.output(any_rank<std::int64_t>, "out.dimension", {});
        const auto share = c.output(rank<1>, "out.share", {std::min(h.extent(0), h.extent(1))},
                                    {.bound = by_type<T>({.absolute = 1e-5}, {.absolute = 1e-10})});
        c.may_allocate("a Gram matrix is built and its eigenvalues are taken");
        c.forward("gram",
                  [=](any_executor&) { dimension(0, 0) = deft::effective_dimension(h, share, {.epsilon = epsilon}); });
        c.reference([=] {
            const view<const T, 3> matrix(h.data(), {1, h.extent(0), h.extent(1)}, {0, h.stride(0), 1});
            dimension(0, 0) = reference::effective_dimension<T>(matrix, share, epsilon);
        });
    }

    static std::vector<test_case> cases() {
        random_values random(41);
        std::vector<test_case> cases;
        const auto add = [&](const tensor& h, double epsilon) {
            cases.push_back({"effective_dimension", "generated", {{"epsilon", epsilon}}, {{"in.h", h}}, {}});
        };
        for (const index length : {1, 2, 3, 7, 8, 9, 16, 17, 33})
            for (const index other : {1, 5, 40})
                for (const double epsilon : {0.3, 0.8, 0.95})
                    add(random.normal({length, other}, 2), epsilon);
        add(random.normal({4, 0}), 0.5);
        tensor large = random.normal({12, 5}, 1e30), small = random.normal({5, 12}, 1e-30);
        add(large, 0.8);
        add(small, 0.8);
        return cases;
    }
};
DEFT_ADAPTER(effective_dimension)

} // namespace deft::testing

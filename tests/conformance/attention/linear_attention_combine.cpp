#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/attention/linear_attention_combine.hpp>
#include <deft/reference/attention/linear_attention_combine.hpp>

#include <cmath>

namespace deft::testing {

struct linear_attention_combine {
    template <class T>
    static void bind(call<T>& c) {
        const tolerance bound = by_type<T>({.of_largest = 2e-5}, {.of_largest = 1e-12});
        const extents& state = c.shape("in.first_state");
        const extents leading(state.begin(), state.end() - 2);
        const index n = element_count(leading), m = state.end()[-2], e = state.end()[-1];
        const auto scalars = [&](const std::string& name) { return c.input_as(rank<1>, name, {n}, true); };
        const auto result = [&](const std::string& name) {
            const auto rows = c.output(any_rank<>, name, leading, {.bound = bound, .contiguous = true});
            return view<T, 1>(rows.data(), {n});
        };
        const auto states = [&](const std::string& which) {
            return c.input_as(rank<3>, "in." + which + "_state", {n, m, e});
        };
        const auto norms = [&](const std::string& which) {
            return c.input_as(rank<2>, "in." + which + "_norm", {n, m});
        };
        const auto s1 = states("first"), s2 = states("second");
        const auto z1 = norms("first"), z2 = norms("second");
        const auto state_rows = c.output(any_rank<>, "out.state", state, {.bound = bound});
        const view<T, 3> s(state_rows.data(), {n, m, e}, {m * state_rows.stride(0), state_rows.stride(0), index{1}});
        const auto norm_rows = c.output(any_rank<>, "out.norm", c.shape("in.first_norm"), {.bound = bound});
        const view<T, 2> z(norm_rows.data(), {n, m}, {norm_rows.stride(0), index{1}});

        if (c.number("scaled", 0) == 0) {
            const auto a1 = scalars("in.first_decay"), a2 = scalars("in.second_decay");
            const auto a = result("out.decay");
            const linear_attention_span<T> out{a, s, z};
            c.forward("direct", [=](any_executor& x) {
                deft::linear_attention_combine({a1, s1, z1}, {a2, s2, z2}, out, x);
            });
            c.reference([=] {
                for (index i = 0; i < n; ++i) {
                    a(i) = a1(i) * a2(i);
                    reference::combine_states<T>(i, a2(i), s1, z1, T(1), s2, z2, s, z);
                }
            });
            return;
        }
        const auto l1 = scalars("in.first_log_decay"), l2 = scalars("in.second_log_decay");
        const auto c1 = scalars("in.first_log_scale"), c2 = scalars("in.second_log_scale");
        const auto l = result("out.log_decay"), scale = result("out.log_scale");
        const linear_attention_scaled_span<T> out{l, scale, s, z};
        c.forward("direct", [=](any_executor& x) {
            deft::linear_attention_combine({l1, c1, s1, z1}, {l2, c2, s2, z2}, out, x);
        });
        c.reference([=] {
            for (index i = 0; i < n; ++i) {
                T of_first, of_second;
                l(i) = l1(i) + l2(i);
                reference::combine_scales<T>(c1(i), l2(i), c2(i), scale(i), of_first, of_second);
                reference::combine_states<T>(i, of_first, s1, z1, of_second, s2, z2, s, z);
            }
        });
    }

    static std::vector<test_case> cases() {
        random_values random(61);
        std::vector<test_case> cases;
        for (index e = 0; e <= 34; ++e)
            for (const bool scaled : {false, true}) {
                const extents leading = e % 3 == 0 ? extents{2, 3} : extents{e % 5};
                const auto with = [&](std::initializer_list<index> last) {
                    extents shape = leading;
                    shape.insert(shape.end(), last);
                    return shape;
                };
                test_case made{"linear_attention_combine", "generated", {{"scaled", double(scaled)}}, {}, {}};
                for (const std::string which : {"in.first_", "in.second_"}) {
                    made.given[which + "state"] = random.normal(with({1 + e % 7, e}));
                    made.given[which + "norm"] = random.uniform(with({1 + e % 7}), 0, 2);
                    if (scaled) {
                        made.given[which + "log_decay"] = random.uniform(leading, -3, 0);
                        made.given[which + "log_scale"] = random.normal(leading, 3);
                        if (e % 4 == 1 && !made.given[which + "log_scale"].values.empty())
                            made.given[which + "log_scale"].values[0] = -INFINITY;
                    } else {
                        made.given[which + "decay"] = random.uniform(leading, 0, 1);
                    }
                }
                cases.push_back(std::move(made));
            }
        return cases;
    }
};
DEFT_ADAPTER(linear_attention_combine)

} // namespace deft::testing

#include "support/operator_table.hpp"
#include "weighted_attention_case.hpp"

#include <deft/attention/linear_attention_log.hpp>
#include <deft/reference/attention/linear_attention_log.hpp>

namespace deft::testing {

struct linear_attention_log {
    template <class T>
    static void bind(call<T>& c) {
        const weighted_sequence<T> s(c, "in.log_q", "in.log_k",
                                     weighted_tolerance(c, {"in.log_q", "in.log_k", "in.log_scale"}));
        const auto o = c.output(rank<4>, "out.o", s.o_shape(), {.bound = s.bound});
        const weighted_state<T, 3> state(c, s, "log_scale");
        const auto run = [=](index begin, index end, const view<T, 4>& to, const weighted_attention_options& options,
                             const linear_attention_log_state_view<T>& at, any_executor& e) {
            const auto part = [&](const auto& x) { return s.causal() ? tokens(x, begin, end) : x; };
            deft::linear_attention_log(part(s.q), tokens(s.k, begin, end), tokens(s.v, begin, end),
                                       s.decay.part(begin, end), part(to), at, options, e);
        };
        bind_weighted_forward(c, s, state, o,
                              [=](index begin, index end, const view<T, 4>& to,
                                  const weighted_attention_options& options,
                                  any_executor& e) { run(begin, end, to, options, state.now, e); });
        c.reference([=] {
            state.start();
            reference::linear_attention_log<T>(s.reference(), o, state.now.state, state.now.norm, state.now.log_scale,
                                               s.causal());
        });
        if (!c.has("grad_out.o"))
            return;
        const auto grad_o = c.input(rank<4>, "grad_out.o");
        const auto grad_q = c.output(rank<4>, "grad_in.log_q", c.shape("in.log_q"), {.bound = s.bound});
        const auto grad_k = c.output(rank<4>, "grad_in.log_k", c.shape("in.log_k"), {.bound = s.bound});
        const auto grad_v = c.output(rank<4>, "grad_in.v", c.shape("in.v"), {.bound = s.bound});
        const decay_gradient_case<T> grad_decay(c, c.shape("in.log_k"), s.bound);
        const scratch<T, 4> output(s.o_shape());
        const auto own = std::make_shared<linear_attention_log_state<T>>(
            linear_attention_state_shape{s.k.extent(0), s.k.extent(1), s.k.extent(3), s.v.extent(3)});
        c.backward("pairs", [=](any_executor& e) {
            own->reset();
            run(0, s.k.extent(2), output.all, s.options, *own, e);
            deft::linear_attention_log_backward(s.q, s.k, s.v, s.decay.all(), output.all, grad_o, grad_q, grad_k,
                                                grad_v, grad_decay.all(), s.options, e);
        });
        c.reference_backward([=] {
            reference::linear_attention_log_backward<T>(
                s.reference(), grad_o, {grad_q, grad_k, grad_v, absent, grad_decay.reference()}, s.causal());
            grad_decay.from_reference();
        });
    }

    static std::vector<test_case> cases() {
        random_values random(62);
        std::vector<test_case> cases;
        const auto add = [&](index heads, index groups, index n, index m, index e, bool causal, int decay, bool state,
                             double spread = 2) {
            test_case made{"linear_attention_log",
                           "generated",
                           {{"causal", double(causal)}, {"normalize", "sum"}},
                           {{"in.log_q", random.normal({2, heads, n, m}, spread)},
                            {"in.log_k", random.normal({2, groups, n, m}, spread)},
                            {"in.v", random.normal({2, groups, n, e})}},
                           {}};
            if (decay == 1)
                made.given["in.decay"] = random.uniform({groups}, 0.5, 1);
            if (decay == 2)
                made.given["in.decay"] = random.uniform({2, groups, n}, 0.3, 1);
            if (state) {
                made.given["in.state"] = random.normal({2, groups, m, e});
                made.given["in.norm"] = random.uniform({2, groups, m}, 1, 2);
                made.given["in.log_scale"] = random.normal({2, groups, m});
            } else {
                made.given["grad_out.o"] = random.normal({2, heads, n, e});
            }
            cases.push_back(std::move(made));
        };
        for (index length = 1; length <= 20; ++length) {
            add(2, 1, 3, length, 3, true, int(length % 3), length % 2 == 0);
            add(2, 2, 3, 4, length, length % 4 != 0, 0, length % 2 == 1);
            add(1, 1, length, 3, 2, true, int(length % 3), false);
        }
        add(2, 1, 70, 33, 17, true, 2, true);
        add(2, 1, 5, 300, 35, true, 1, true);
        add(2, 1, 4, 290, 3, false, 0, true);
        add(1, 1, 0, 3, 2, true, 0, true); // no tokens
        add(2, 1, 12, 6, 4, true, 2, true, 40);

        // A decay of 0, and features that are exactly 0: all of them in one query, and in one key.
        add(2, 1, 7, 4, 3, true, 2, true);
        test_case& zeros = cases.back();
        zeros.given["in.decay"].values[3] = 0;
        for (std::size_t f = 0; f < 4; ++f) {
            zeros.given["in.log_q"].values[8 + f] = -INFINITY;
            zeros.given["in.log_k"].values[4 + f] = -INFINITY;
        }
        zeros.given["in.log_k"].values[1] = -INFINITY;
        return cases;
    }
};
DEFT_ADAPTER(linear_attention_log)

} // namespace deft::testing

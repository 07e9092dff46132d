#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/attention/head_decay.hpp>
#include <deft/reference/attention/head_decay.hpp>

#include <cmath>

namespace deft::testing {

struct head_decay {
    template <class T>
    static void bind(call<T>& c) {
        const head_decay_kind kind = c.choice("kind", names<head_decay_kind>{{"linspace", head_decay_kind::linspace},
                                                                             {"retnet", head_decay_kind::retnet}});
        const auto decay = c.output(rank<1>, "out.decay", {c.integer("heads")},
                                    {.bound = by_type<T>({.of_largest = 1e-6}, {.of_largest = 1e-13})});
        c.forward("direct", [=](any_executor&) { deft::head_decay(decay, kind); });
        c.reference([=] { reference::head_decay<T>(decay, kind == head_decay_kind::retnet); });
    }

    static std::vector<test_case> cases() {
        std::vector<test_case> cases;
        for (const char* kind : {"linspace", "retnet"})
            for (const int heads : {0, 1, 2, 3, 16, 71})
                cases.push_back({"head_decay", "generated", {{"kind", kind}, {"heads", double(heads)}}, {}, {}});
        return cases;
    }
};
DEFT_ADAPTER(head_decay)

struct decay_from_position_weights {
    template <class T>
    static void bind(call<T>& c) {
        const tolerance bound = by_type<T>({.of_largest = 1e-6}, {.of_largest = 1e-13});
        const extents& shape = c.shape("in.d1");
        const auto d1 = c.input(rank<2>, "in.d1"), d2 = c.input(rank<2>, "in.d2");
        const auto q_scale = c.output(rank<2>, "out.q_scale", shape, {.bound = bound});
        const auto decay = c.output(rank<2>, "out.decay", shape, {.bound = bound});
        c.forward("direct", [=](any_executor&) { deft::decay_from_position_weights(d1, d2, absent, q_scale, decay); });
        c.reference([=] { reference::decay_from_position_weights<T>(d1, d2, q_scale, decay); });

        if (!c.has("grad_out.q_scale"))
            return;
        const auto grad_q_scale = c.input(rank<2>, "grad_out.q_scale");
        const auto grad_decay = c.input(rank<2>, "grad_out.decay");
        const auto grad_d1 = c.output(rank<2>, "grad_in.d1", shape, {.bound = bound});
        const auto grad_d2 = c.output(rank<2>, "grad_in.d2", shape, {.bound = bound});
        c.backward("direct", [=](any_executor&) {
            deft::decay_from_position_weights_backward(d1, d2, grad_q_scale, grad_decay, grad_d1, grad_d2);
        });
        c.reference_backward([=] {
            reference::decay_from_position_weights_backward<T>(d1, d2, grad_q_scale, grad_decay, grad_d1, grad_d2);
        });
    }

    static std::vector<test_case> cases() {
        random_values random(49);
        std::vector<test_case> cases;
        for (const index heads : {0, 1, 3})
            for (const index n : {0, 1, 2, 17, 40}) {
                tensor d1 = random.uniform({heads, n}, 0.5, 1.5), d2 = random.uniform({heads, n}, 0.5, 1.5);
                for (std::size_t i = 1; i < d2.values.size(); i += 5)
                    d2.values[i] = -d2.values[i];
                cases.push_back({"decay_from_position_weights",
                                 "generated",
                                 {},
                                 {{"in.d1", d1},
                                  {"in.d2", d2},
                                  {"grad_out.q_scale", random.normal({heads, n})},
                                  {"grad_out.decay", random.normal({heads, n})}},
                                 {}});
            }
        return cases;
    }
};
DEFT_ADAPTER(decay_from_position_weights)

} // namespace deft::testing

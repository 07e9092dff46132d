#include "feature_options.hpp"
#include "linear_attention_case.hpp"
#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/attention/dct_linear_attention.hpp>
#include <deft/attention/softmax_attention.hpp>
#include <deft/reference/attention/dct_linear_attention.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <tuple>

namespace deft::testing {

struct dct_linear_attention {
    template <class T>
    static void bind(call<T>& c) {
        dct_linear_attention_options options{.features = feature_options_of(c),
                                             .normalize = c.choice("normalize", normalize_names(), "none"),
                                             .mask = c.number("causal", 1) != 0 ? attention_mask::causal
                                                                                : attention_mask::full,
                                             .eps = c.number("eps", 0)};
        const bool stable = options.features.stabilizer == feature_stabilizer::max;
        double largest = 0;
        for (const double x : c.given("in.q").values)
            largest = std::max(largest, std::abs(x));
        const tolerance bound =
            by_type<T>({.of_largest = stable && largest > 100 ? 2e-2 : 5e-5}, {.of_largest = 1e-11});
        const auto q = c.input(rank<4>, "in.q"), k = c.input(rank<4>, "in.k"), v = c.input(rank<4>, "in.v");
        const auto t = c.input(rank<1>, "in.t"), weight = c.optional_input(rank<1>, "in.weight");
        const decay_case<T> decay(c, c.shape("in.k"));
        const index batch = k.extent(0), groups = k.extent(1), n = k.extent(2), m = t.extent(0), e = v.extent(3);
        const extents o_shape{q.extent(0), q.extent(1), q.extent(2), e};
        const auto o = c.output(rank<4>, "out.o", o_shape, {.bound = bound});
        const auto plan = std::make_shared<dct_linear_attention_plan<T>>(q.extent(3), m, options);
        // What it approximates, which golden cases hold beside it.
        const bool with_softmax =
            n > 0 && !decay.is_given && (options.mask == attention_mask::full || q.extent(2) == n);
        const view<T, 4> exact =
            with_softmax ? c.output(rank<4>, "out.softmax_o", o_shape, {.bound = bound}) : view<T, 4>(absent);
        const scratch<T, 3> lse({q.extent(0), q.extent(1), q.extent(2)});
        const auto softmax = [=, keep = lse] {
            if (with_softmax)
                deft::softmax_attention<T>(q, k, v, absent, exact, lse.all, {.mask = options.mask});
        };
        const scratch<T, 4> sums({batch, groups, m, e});
        const scratch<T, 3> norm({batch, groups, m}), log_scale({batch, groups, m});
        const linear_attention_log_state_view<T> state{sums.all, norm.all, log_scale.all};
        c.may_allocate("features of a block of tokens, by the first call");
        const auto start = [=, keep = std::tuple(sums, norm, log_scale)] {
            fill_with(state.state, T(0));
            fill_with(state.norm, T(0));
            fill_with(state.log_scale, -std::numeric_limits<T>::infinity());
        };
        const bool causal = options.mask == attention_mask::causal;
        const auto cut = [&](const std::string& name, index length) {
            c.forward(name, [=](any_executor& executor) {
                start();
                softmax();
                for (index i = 0; i < std::max<index>(n, 1); i += length) {
                    const index end = std::min(i + length, n);
                    const auto part = [&](const auto& x) { return causal ? tokens(x, i, end) : x; };
                    deft::dct_linear_attention<T>(part(q), part(k), part(v), t, weight,
                                                  causal ? decay.part(i, end) : decay.all(), part(o), state, *plan,
                                                  executor);
                }
            });
        };
        cut("one call", std::max<index>({n, q.extent(2), 1}));
        if (causal && n > 1)
            cut("decoding", 1);
        if (causal && n > 3)
            cut("calls of three", 3);
        reference::feature_options plain = reference_options_of(options.features, m);
        if (stable)
            plain.form = reference::feature_form::log;
        const reference::dct_attention_inputs<T> x{q, k, v, t, weight, decay.reference()};
        const reference::linear_attention_form form{causal, options.normalize == attention_normalize::sum, options.eps};
        c.reference([=] {
            start();
            softmax();
            reference::dct_linear_attention<T>(x, o, state.state, state.norm, state.log_scale, plain, form);
        });
        if (c.has("grad_out.o"))
            bind_backward(c, x, decay, plan, plain, form, bound);
    }

    static std::vector<test_case> cases();

private:
    template <class T>
    static void bind_backward(call<T>& c, const reference::dct_attention_inputs<T>& x, const decay_case<T>& decay,
                              const std::shared_ptr<dct_linear_attention_plan<T>>& plan,
                              const reference::feature_options& plain, const reference::linear_attention_form& form,
                              const tolerance& bound) {
        const auto grad_o = c.input(rank<4>, "grad_out.o");
        const auto grad_q = c.output(rank<4>, "grad_in.q", c.shape("in.q"), {.bound = bound});
        const auto grad_k = c.output(rank<4>, "grad_in.k", c.shape("in.k"), {.bound = bound});
        const auto grad_v = c.output(rank<4>, "grad_in.v", c.shape("in.v"), {.bound = bound});
        const auto grad_t = c.output(rank<1>, "grad_in.t", c.shape("in.t"), {.bound = bound});
        const auto grad_weight = c.has("in.weight")
                                     ? c.output(rank<1>, "grad_in.weight", c.shape("in.weight"), {.bound = bound})
                                     : view<T, 1>(absent);
        const decay_gradient_case<T> grad_decay(c, c.shape("in.k"), bound);
        c.backward("one call", [=](any_executor& executor) {
            deft::dct_linear_attention_backward<T>(x.q, x.k, x.v, x.t, x.weight, decay.all(), grad_o, grad_q, grad_k,
                                                   grad_v, grad_t, grad_weight, grad_decay.all(), *plan, executor);
        });
        c.reference_backward([=] {
            reference::dct_linear_attention_backward<T>(x, grad_o, grad_q, grad_k, grad_v, grad_t, grad_weight,
                                                        grad_decay.reference(), plain, form);
            grad_decay.from_reference();
        });
    }
};

std::vector<test_case> dct_linear_attention::cases() {
    random_values random(52);
    std::vector<test_case> cases;
    struct setup {
        index heads, groups, n, d, r, e;
        int decay = 0; // 1: per head, 2: per token
        bool weighted = false;
        index queries = -1;
    };
    const auto add = [&](const setup& s, std::map<std::string, parameter> params) -> test_case& {
        test_case made{"dct_linear_attention", "generated", std::move(params), {}, {}};
        const index queries = s.queries < 0 ? s.n : s.queries;
        made.given["in.q"] = random.normal({2, s.heads, queries, s.d});
        made.given["in.k"] = random.normal({2, s.groups, s.n, s.d});
        made.given["in.v"] = random.normal({2, s.groups, s.n, s.e});
        made.given["in.t"] = random.normal({s.d * s.r});
        if (s.weighted)
            made.given["in.weight"] = random.uniform({s.d * s.r}, 0.5, 1.5);
        if (s.decay == 1)
            made.given["in.decay"] = random.uniform({s.groups}, 0.5, 1);
        if (s.decay == 2)
            made.given["in.decay"] = random.uniform({2, s.groups, s.n}, 0.5, 1);
        made.given["grad_out.o"] = random.normal({2, s.heads, queries, s.e});
        cases.push_back(std::move(made));
        return cases.back();
    };
    const auto exponential = [](const char* norm_term, bool stable, bool causal) {
        return std::map<std::string, parameter>{{"activation", "exp"},     {"transform", "dct2"},
                                                {"norm_term", norm_term},  {"stabilizer", stable ? "max" : "none"},
                                                {"input_scale", 0.5},      {"normalize", "sum"},
                                                {"causal", double(causal)}};
    };
    for (const index n : {0, 1, 2, 5, 9})
        add({.heads = 2, .groups = 1, .n = n, .d = 5, .r = 1, .e = 3, .decay = int(n % 3)}, {});
    add({.heads = 2, .groups = 2, .n = 6, .d = 4, .r = 2, .e = 5, .decay = 2, .weighted = true},
        {{"normalize", "sum"}, {"eps", 0.1}});
    for (const bool stable : {false, true})
        for (const bool causal : {false, true}) {
            add({.heads = 2, .groups = 1, .n = 5, .d = 4, .r = 1, .e = 3, .decay = causal ? 1 : 0, .weighted = true},
                exponential("half", stable, causal));
            add({.heads = 1, .groups = 1, .n = 4, .d = 3, .r = 2, .e = 2, .decay = causal ? 2 : 0},
                exponential("none", stable, causal));
        }
    add({.heads = 2, .groups = 1, .n = 7, .d = 4, .r = 1, .e = 3, .queries = 3}, exponential("full", false, false));
    add({.heads = 1, .groups = 1, .n = 600, .d = 4, .r = 1, .e = 3}, {}); // more than a block
    add({.heads = 1, .groups = 1, .n = 300, .d = 6, .r = 1, .e = 2, .queries = 530}, exponential("none", false, false));
    return cases;
}
DEFT_ADAPTER(dct_linear_attention)

} // namespace deft::testing

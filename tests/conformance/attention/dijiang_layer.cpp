#include "linear_attention_case.hpp"
#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/attention/dijiang_layer.hpp>
#include <deft/attention/dijiang_layer_backward.hpp>
#include <deft/reference/attention/dijiang_layer.hpp>

#include <algorithm>
#include <cmath>
#include <memory>

namespace deft::testing {

struct dijiang_layer {
    template <class T>
    static void bind(call<T>& c) {
        const tolerance bound = by_type<T>({.of_largest = 5e-4}, {.of_largest = 1e-11});
        const extents& shape = c.shape("in.x");
        const index batch = shape.at(0), n = shape.at(1), e = shape.at(2), heads = c.integer("heads"), d = e / heads;
        const extents state_shape{batch, heads, d, d};
        const reference::dijiang_shape sizes{heads,
                                             c.integer("rotary"),
                                             c.integer("groups"),
                                             c.integer("position_offset", 0),
                                             c.number("rope_base", 10000),
                                             c.number("norm_eps", 1e-5)};
        const auto x = c.input(rank<3>, "in.x");
        const auto initial = c.optional_input(rank<4>, "in.state");
        const decay_case<T> decay(c, {batch, heads, n});
        dijiang_weights<const T> w{.w_qkv = c.input(rank<2>, "in.w_qkv"),
                                   .b_qkv = c.input(rank<1>, "in.b_qkv"),
                                   .t = c.input(rank<1>, "in.t"),
                                   .w_gate = c.input(rank<2>, "in.w_gate"),
                                   .gn_weight = c.input(rank<1>, "in.gn_weight"),
                                   .gn_bias = c.input(rank<1>, "in.gn_bias"),
                                   .w_out = c.input(rank<2>, "in.w_out"),
                                   .b_out = c.input(rank<1>, "in.b_out"),
                                   .decay = decay.all(),
                                   .q_scale = c.optional_input(rank<2>, "in.q_scale")};
        const reference::dijiang_weights<const T> plain{w.w_qkv,   w.b_qkv, w.t,     w.w_gate,          w.gn_weight,
                                                        w.gn_bias, w.w_out, w.b_out, decay.reference(), w.q_scale};
        const auto y = c.output(rank<3>, "out.y", shape, {.bound = bound});
        const auto state = c.output(rank<4>, "out.state", state_shape, {.bound = bound});
        const auto plan = std::make_shared<dijiang_plan<T>>(e, dijiang_layer_options{.heads = heads,
                                                                                     .rotary = sizes.rotary,
                                                                                     .groups = sizes.groups,
                                                                                     .rope_base = sizes.rope_base,
                                                                                     .norm_eps = sizes.norm_eps,
                                                                                     .threads = 3});
        c.may_allocate("products of many rows pack their factors");
        const auto start = [=] {
            fill_with(state, T(0));
            if (initial.is_given())
                copy_to(initial, state);
        };
        const auto run = [=](index begin, index end, any_executor& executor) {
            dijiang_weights<const T> part = w;
            part.decay = decay.part(begin, end);
            if (w.q_scale.is_given())
                part.q_scale = {w.q_scale.data() + begin, {heads, end - begin}, {w.q_scale.stride(0), index{1}}};
            deft::dijiang_layer<T>(middle(x, begin, end), part, middle(y, begin, end), state, sizes.position + begin,
                                   *plan, executor);
        };
        const auto cut = [&](const std::string& name, index length) {
            c.forward(name, [=](any_executor& executor) {
                start();
                for (index i = 0; i < n; i += length)
                    run(i, std::min(n, i + length), executor);
            });
        };
        cut("one call", std::max<index>(n, 1));
        if (n > 1)
            cut("decoding", 1);
        if (n > 3)
            cut("calls of three", 3);
        c.reference([=] {
            start();
            reference::dijiang_layer<T>(x, plain, y, state, sizes);
        });
        if (c.has("grad_out.y"))
            bind_backward(c, x, w, plain, initial, decay, sizes, plan, bound);
    }

    static std::vector<test_case> cases();

private:
    /// Tokens [begin, end) of [B, n, E].
    template <class E>
    static view<E, 3> middle(const view<E, 3>& x, index begin, index end) {
        return {x.data() == nullptr ? nullptr : x.data() + begin * x.stride(1),
                {x.extent(0), end - begin, x.extent(2)},
                {x.stride(0), x.stride(1), index{1}}};
    }

    template <class T>
    static void bind_backward(call<T>& c, const view<const T, 3>& x, const dijiang_weights<const T>& w,
                              const reference::dijiang_weights<const T>& plain, const view<const T, 4>& initial,
                              const decay_case<T>& decay, const reference::dijiang_shape& sizes,
                              const std::shared_ptr<dijiang_plan<T>>& plan, const tolerance& bound) {
        const index batch = x.extent(0), n = x.extent(1), e = x.extent(2), d = e / sizes.heads;
        const auto grad_y = c.input(rank<3>, "grad_out.y");
        const auto grad_x = c.output(rank<3>, "grad_in.x", c.shape("in.x"), {.bound = bound});
        const decay_gradient_case<T> to_decay(c, {batch, sizes.heads, n}, bound);
        const auto matrix = [&](const std::string& name) {
            return c.output(rank<2>, "grad_in." + name, c.shape("in." + name), {.bound = bound});
        };
        const auto vector = [&](const std::string& name) {
            return c.output(rank<1>, "grad_in." + name, c.shape("in." + name), {.bound = bound});
        };
        dijiang_weights<T> grad{.w_qkv = matrix("w_qkv"),
                                .b_qkv = vector("b_qkv"),
                                .t = vector("t"),
                                .w_gate = matrix("w_gate"),
                                .gn_weight = vector("gn_weight"),
                                .gn_bias = vector("gn_bias"),
                                .w_out = matrix("w_out"),
                                .b_out = vector("b_out"),
                                .decay = to_decay.all(),
                                .q_scale = absent};
        if (w.q_scale.is_given())
            grad.q_scale = matrix("q_scale");
        const reference::dijiang_weights<T> plain_grad{grad.w_qkv,           grad.b_qkv,   grad.t,     grad.w_gate,
                                                       grad.gn_weight,       grad.gn_bias, grad.w_out, grad.b_out,
                                                       to_decay.reference(), grad.q_scale};
        const scratch<T, 4> own({batch, sizes.heads, d, d}), zero({batch, sizes.heads, d, d});
        const view<T, 4> grad_state =
            initial.is_given() ? c.output(rank<4>, "grad_in.state", c.shape("in.state"), {.bound = bound}) : own.all;
        const auto final_state = c.optional_input(rank<4>, "grad_out.state");
        const auto start = [=, keep = own] {
            fill_with(grad_state, T(0));
            if (final_state.is_given())
                copy_to(final_state, grad_state);
        };
        const auto run = [=](const view<T, 4>& to, any_executor& executor) {
            deft::dijiang_layer_backward<T>(x, w, initial, grad_y, grad_x, grad, to, sizes.position, *plan, executor);
        };
        c.backward("one call", [=](any_executor& executor) {
            start();
            run(grad_state, executor);
        });
        if (!initial.is_given() && !final_state.is_given())
            c.backward("without states", [=](any_executor& executor) { run(absent, executor); });
        c.reference_backward([=, keep = decay, keep_zero = zero] {
            start();
            reference::dijiang_layer_backward<T>(x, plain, initial.is_given() ? initial : zero.all, grad_y, grad_x,
                                                 plain_grad, grad_state, sizes);
            to_decay.from_reference();
        });
    }
};

std::vector<test_case> dijiang_layer::cases() {
    random_values random(51);
    std::vector<test_case> cases;
    struct setup {
        index batch, n, e, heads, rotary, groups;
        bool per_token = false, q_scale = false, state = false;
        index position = 0;
    };
    const auto add = [&](const setup& s) -> test_case& {
        const index e = s.e, d = e / s.heads;
        test_case made{"dijiang_layer",
                       "generated",
                       {{"heads", double(s.heads)},
                        {"rotary", double(s.rotary)},
                        {"groups", double(s.groups)},
                        {"position_offset", double(s.position)}},
                       {},
                       {}};
        const double scale = 1 / std::sqrt(double(e));
        made.given["in.x"] = random.normal({s.batch, s.n, e});
        made.given["in.w_qkv"] = random.normal({3 * e, e}, scale);
        made.given["in.b_qkv"] = random.normal({3 * e}, 0.1);
        made.given["in.t"] = random.normal({d});
        made.given["in.w_gate"] = random.normal({e, e}, scale);
        made.given["in.gn_weight"] = random.uniform({e}, 0.5, 1.5);
        made.given["in.gn_bias"] = random.normal({e}, 0.1);
        made.given["in.w_out"] = random.normal({e, e}, scale);
        made.given["in.b_out"] = random.normal({e}, 0.1);
        made.given["in.decay"] =
            s.per_token ? random.uniform({s.batch, s.heads, s.n}, 0.5, 1) : random.uniform({s.heads}, 0.5, 1);
        if (s.q_scale)
            made.given["in.q_scale"] = random.uniform({s.heads, s.n}, 0.5, 1.5);
        if (s.state)
            made.given["in.state"] = random.normal({s.batch, s.heads, d, d});
        made.given["grad_out.y"] = random.normal({s.batch, s.n, e});
        cases.push_back(std::move(made));
        return cases.back();
    };
    add({.batch = 2, .n = 4, .e = 12, .heads = 2, .rotary = 2, .groups = 2, .per_token = true, .q_scale = true});
    add({.batch = 1, .n = 5, .e = 16, .heads = 2, .rotary = 4, .groups = 4, .state = true, .position = 100000});
    add({.batch = 3, .n = 1, .e = 12, .heads = 3, .rotary = 4, .groups = 3, .q_scale = true, .state = true});
    add({.batch = 2, .n = 0, .e = 8, .heads = 2, .rotary = 2, .groups = 2, .state = true});
    add({.batch = 0, .n = 3, .e = 8, .heads = 2, .rotary = 2, .groups = 2});
    add({.batch = 2, .n = 40, .e = 48, .heads = 4, .rotary = 0, .groups = 4, .per_token = true});
    add({.batch = 1, .n = 300, .e = 32, .heads = 2, .rotary = 16, .groups = 2});
    return cases;
}
DEFT_ADAPTER(dijiang_layer)

} // namespace deft::testing

#include "linear_attention_case.hpp"
#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/attention/linear_attention.hpp>
#include <deft/attention/linear_attention_backward.hpp>
#include <deft/reference/attention/linear_attention.hpp>

#include <algorithm>

namespace deft::testing {

struct linear_attention {
    template <class T>
    static void bind(call<T>& c) {
        const sequence<T> s(c);
        bind_forward(c, s);
        if (c.has("grad_out.o"))
            bind_backward(c, s);
    }

    static std::vector<test_case> cases();

private:
    static constexpr index chunks[] = {1, 2, 3, 16, 64};

    template <class T>
    struct sequence {
        linear_attention_options options;
        bool divided, has_state, has_norm;
        view<const T, 4> q, k, v;
        decay_case<T> decay;
        extents state_shape, norm_shape, o_shape;
        view<const T, 4> state = absent;
        view<const T, 3> norm = absent;

        explicit sequence(call<T>& c)
            : options{.normalize = c.choice("normalize", normalize_names(), "none"),
                      .mask = c.number("causal", 1) != 0 ? attention_mask::causal : attention_mask::full,
                      .eps = c.number("eps", 0)},
              divided(options.normalize == attention_normalize::sum), has_state(c.has("in.state")),
              has_norm(c.has("in.norm")), q(c.input(rank<4>, "in.q")), k(c.input(rank<4>, "in.k")),
              v(c.input(rank<4>, "in.v")),
              decay(c, c.shape("in.k")), state_shape{k.extent(0), k.extent(1), k.extent(3), v.extent(3)},
              norm_shape{k.extent(0), k.extent(1), k.extent(3)}, o_shape{q.extent(0), q.extent(1), q.extent(2),
                                                                         v.extent(3)} {
            state = c.optional_input(rank<4>, "in.state");
            norm = c.optional_input(rank<3>, "in.norm");
        }

        template <class A>
        void start(const linear_attention_state_view<A>& to) const {
            if (has_state)
                copy_to(state, to.state);
            else
                fill_with(to.state, A(0));
            if (has_norm)
                copy_to(norm, to.norm);
            else
                fill_with(to.norm, A(0));
        }
        /// Tokens [begin, end), with a state of any type.
        template <class A>
        void run(index begin, index end, const view<T, 4>& o, const linear_attention_state_view<A>& to, index chunk,
                 any_executor& e) const {
            linear_attention_options with = options;
            with.chunk = chunk;
            const bool causal = options.mask == attention_mask::causal;
            deft::linear_attention(causal ? tokens(q, begin, end) : q, tokens(k, begin, end), tokens(v, begin, end),
                                   decay.part(begin, end), causal ? tokens(o, begin, end) : o, to, with, e);
        }
        reference::linear_attention_inputs<T> reference() const {
            return {q, k, v, decay.reference()};
        }
        reference::linear_attention_form form() const {
            return {options.mask == attention_mask::causal, divided, options.eps};
        }
    };

    static constexpr tolerance bound_of_float{.of_largest = 2e-5}, bound_of_double{.of_largest = 1e-12};

    template <class T>
    static void bind_forward(call<T>& c, const sequence<T>& s) {
        const tolerance bound = by_type<T>(bound_of_float, bound_of_double);
        const auto o = c.output(rank<4>, "out.o", s.o_shape, {.bound = bound});
        linear_attention_state_view<T> out;
        out.state = c.output(rank<4>, "out.state", s.state_shape, {.bound = bound});
        if (s.divided)
            out.norm = c.output(rank<3>, "out.norm", s.norm_shape, {.bound = bound});
        const index n = s.k.extent(2);
        const auto add = [&](const std::string& name, index chunk) {
            c.forward(name, [=](any_executor& e) {
                s.start(out);
                s.run(0, n, o, out, chunk, e);
            });
        };
        add("chosen chunk", 0);
        for (const index chunk : chunks)
            if (chunk < n)
                add("chunk " + std::to_string(chunk), chunk);
        if (s.options.mask == attention_mask::causal)
            c.forward("two calls", [=](any_executor& e) {
                s.start(out);
                s.run(0, n / 2, o, out, 0, e);
                s.run(n / 2, n, o, out, 0, e);
            });
        if constexpr (std::is_same_v<T, float>) {
            const scratch<double, 4> wide(s.state_shape);
            const scratch<double, 3> wide_norm(s.norm_shape);
            c.forward("state in double", [=](any_executor& e) {
                const linear_attention_state_view<double> with(wide.all, wide_norm.all);
                s.start(with);
                s.run(0, n, o, with, 0, e);
                copy_to(wide.all, out.state);
                copy_to(wide_norm.all, out.norm);
            });
        }
        c.reference([=] {
            s.start(out);
            reference::linear_attention<T>(s.reference(), o, out.state, out.norm, s.form());
        });
    }

    /// What the forms of the gradient need besides the tensors of the case.
    template <class T>
    struct backward_memory {
        scratch<T, 4> o, state[3];
        scratch<T, 3> denominator, norm[3];

        explicit backward_memory(const sequence<T>& s)
            : o(s.o_shape), state{scratch<T, 4>(s.state_shape), scratch<T, 4>(s.state_shape),
                                  scratch<T, 4>(s.state_shape)},
              denominator({s.o_shape[0], s.o_shape[1], s.o_shape[2]}), norm{scratch<T, 3>(s.norm_shape),
                                                                            scratch<T, 3>(s.norm_shape),
                                                                            scratch<T, 3>(s.norm_shape)} {}
    };

    template <class T>
    static void bind_backward(call<T>& c, const sequence<T>& s) {
        const tolerance bound = by_type<T>(bound_of_float, bound_of_double);
        const auto grad_o = c.input(rank<4>, "grad_out.o");
        const auto of_state = c.optional_input(rank<4>, "grad_out.state");
        const auto of_norm = c.optional_input(rank<3>, "grad_out.norm");
        const auto grad_q = c.output(rank<4>, "grad_in.q", c.shape("in.q"), {.bound = bound});
        const auto grad_k = c.output(rank<4>, "grad_in.k", c.shape("in.k"), {.bound = bound});
        const auto grad_v = c.output(rank<4>, "grad_in.v", c.shape("in.v"), {.bound = bound});
        const decay_gradient_case<T> grad_decay(c, c.shape("in.k"), bound);
        const auto own = std::make_shared<const backward_memory<T>>(s);
        const view<T, 4> o = own->o.all;
        const view<T, 3> denominator = own->denominator.all;
        const linear_attention_state_view<T> at(own->state[0].all, own->norm[0].all),
            late(own->state[1].all, own->norm[1].all);
        linear_attention_state_view<T> grad(own->state[2].all, own->norm[2].all);
        if (s.has_state)
            grad.state = c.output(rank<4>, "grad_in.state", s.state_shape, {.bound = bound});
        if (s.has_norm)
            grad.norm = c.output(rank<3>, "grad_in.norm", s.norm_shape, {.bound = bound});
        const auto start = [=] {
            fill_with(grad.state, T(0));
            fill_with(grad.norm, T(0));
            if (of_state.is_given())
                copy_to(of_state, grad.state);
            if (of_norm.is_given())
                copy_to(of_norm, grad.norm);
        };
        const bool causal = s.options.mask == attention_mask::causal;
        const auto backward = [=](index begin, index end, const linear_attention_state_view<const T>& initial,
                                  const attention_decay<T>& to_decay, any_executor& e) {
            const auto part = [=](const auto& x) { return causal ? tokens(x, begin, end) : x; };
            deft::linear_attention_backward<T>(part(s.q), part(s.k), part(s.v), s.decay.part(begin, end), initial,
                                               part(o), part(grad_o), part(grad_q), part(grad_k), part(grad_v),
                                               to_decay, grad, part(denominator), s.options, e);
        };
        const linear_attention_state_view<const T> initial(s.state, s.norm);
        const index n = s.k.extent(2);
        c.backward("one call", [=, keep = own](any_executor& e) {
            s.start(at);
            s.run(0, n, o, at, 0, e);
            start();
            backward(0, n, initial, grad_decay.all(), e);
        });
        if (causal)
            c.backward("two calls", [=, keep = own](any_executor& e) {
                s.start(at);
                s.run(0, n / 2, o, at, 0, e);
                copy_to(at.state, late.state);
                copy_to(at.norm, late.norm);
                s.run(n / 2, n, o, late, 0, e);
                start();
                backward(n / 2, n, at, grad_decay.part(n / 2, n), e);
                grad_decay.add_part(true);
                backward(0, n / 2, initial, grad_decay.part(0, n / 2), e);
                grad_decay.add_part(false);
            });
        c.reference_backward([=, keep = own] {
            start();
            reference::linear_attention_backward<T>(s.reference(), s.state, s.norm, grad_o, grad_q, grad_k, grad_v,
                                                    grad_decay.reference(), grad.state, grad.norm, s.form());
            grad_decay.from_reference();
        });
    }
};

std::vector<test_case> linear_attention::cases() {
    random_values random(60);
    std::vector<test_case> cases;
    struct sizes {
        index batch, heads, groups, queries, tokens, features, width;
    };
    enum class decays { none, head, token, reset, grows };
    const auto add = [&](const sizes& d, bool causal, bool divided, decays decay, bool state, double eps = 0) {
        const auto positive = [&](const extents& shape) { return random.uniform(shape, 0.01, 0.5); };
        const auto features = [&](const extents& shape) { return divided ? positive(shape) : random.normal(shape); };
        test_case made{"linear_attention",
                       "generated",
                       {{"causal", double(causal)}, {"normalize", divided ? "sum" : "none"}, {"eps", eps}},
                       {{"in.q", features({d.batch, d.heads, d.queries, d.features})},
                        {"in.k", features({d.batch, d.groups, d.tokens, d.features})},
                        {"in.v", random.normal({d.batch, d.groups, d.tokens, d.width})},
                        {"grad_out.o", random.normal({d.batch, d.heads, d.queries, d.width})}},
                       {}};
        if (decay == decays::head)
            made.given["in.decay"] = random.uniform({d.groups}, 0.5, 1);
        else if (decay != decays::none)
            made.given["in.decay"] =
                random.uniform({d.batch, d.groups, d.tokens}, 0.3, decay == decays::grows ? 1.2 : 1);
        if (decay == decays::reset)
            for (std::size_t i = 0; i < made.given["in.decay"].values.size(); i += 5)
                made.given["in.decay"].values[i] = i % 2 == 0 ? 0 : 1e-3;
        if (state) {
            made.given["in.state"] = random.normal({d.batch, d.groups, d.features, d.width});
            made.given["grad_out.state"] = random.normal({d.batch, d.groups, d.features, d.width});
            if (divided) {
                made.given["in.norm"] = positive({d.batch, d.groups, d.features});
                made.given["grad_out.norm"] = random.normal({d.batch, d.groups, d.features});
            }
        }
        cases.push_back(std::move(made));
    };
    constexpr decays all_decays[] = {decays::none, decays::head, decays::token, decays::reset, decays::grows};
    std::size_t turn = 0;
    for (index length = 1; length <= 34; ++length, ++turn) {
        const decays decay = all_decays[turn % 5];
        add({1, 2, 1, 3, 3, length, 5}, true, turn % 2 == 0, decay, turn % 3 == 0);
        add({1, 1, 1, 2, 2, 3, length}, true, turn % 2 == 1, decay, turn % 3 == 1);
        add({1, 2, 2, length, length, 4, 3}, true, turn % 2 == 0, decay, turn % 3 == 2);
        add({1, 1, 1, 1, 1, length, length}, true, turn % 2 == 1, decay, true);
    }
    for (const bool divided : {false, true}) {
        for (const decays decay : all_decays)
            add({2, 6, 2, 11, 11, 7, 6}, true, divided, decay, true, divided ? 0.125 : 0);
        add({2, 4, 2, 5, 9, 6, 19}, false, divided, decays::none, true);
        add({1, 3, 1, 7, 0, 3, 4}, false, divided, decays::none, true); // no keys
        add({2, 2, 2, 0, 0, 3, 4}, true, divided, decays::head, true);  // no tokens
        add({1, 2, 1, 70, 70, 33, 17}, true, divided, decays::token, true);
        add({1, 2, 1, 5, 5, 300, 9}, true, divided, decays::reset, true);
        add({1, 1, 1, 40, 40, 290, 3}, true, divided, decays::head, false);
        add({1, 2, 1, 37, 41, 20, 270}, false, divided, decays::none, false);
        add({1, 1, 1, 1, 1, 270, 140}, true, divided, decays::head, true);
    }
    add({1, 0, 0, 4, 4, 3, 2}, true, false, decays::none, false); // no heads

    // NaN in one head and batch spoils neither another nor what lies before it; a decay of 0 ends it.
    add({2, 2, 2, 9, 9, 5, 4}, true, false, decays::token, false);
    test_case& spoilt = cases.back();
    spoilt.given.erase("grad_out.o");
    spoilt.given["in.v"].values[4 * 4 + 1] = NAN;
    spoilt.given["in.decay"].values[7] = 0;
    return cases;
}
DEFT_ADAPTER(linear_attention)

/// A block of tokens `repeat` times over, with the state carried in double: 1e6 tokens, of which the last block is
/// seen.
struct linear_attention_long {
    template <class T>
    static void bind(call<T>& c) {
        const index repeat = c.integer("repeat");
        const linear_attention_options options{.normalize = c.choice("normalize", normalize_names(), "none"),
                                               .eps = c.number("eps", 0)};
        const bool divided = options.normalize == attention_normalize::sum;
        const tolerance bound = by_type<T>({.of_largest = 1e-4}, {.of_largest = 1e-10});
        const auto q = c.input(rank<4>, "in.q"), k = c.input(rank<4>, "in.k"), v = c.input(rank<4>, "in.v");
        const decay_case<T> decay(c, c.shape("in.k"));
        const extents shape{k.extent(0), k.extent(1), k.extent(3), v.extent(3)};
        const auto o =
            c.output(rank<4>, "out.o", {q.extent(0), q.extent(1), q.extent(2), v.extent(3)}, {.bound = bound});
        const auto state = c.output(rank<4>, "out.state", shape, {.bound = bound});
        view<T, 3> norm = absent;
        if (divided)
            norm = c.output(rank<3>, "out.norm", {shape[0], shape[1], shape[2]}, {.bound = bound});
        const auto own = std::make_shared<linear_attention_state<double>>(
            linear_attention_state_shape{shape[0], shape[1], shape[2], shape[3]});
        const auto finish = [=] {
            copy_to(own->state(), state);
            copy_to(own->norm(), norm);
        };
        c.forward("state in double", [=](any_executor& e) {
            own->reset();
            for (index i = 0; i < repeat; ++i)
                deft::linear_attention(q, k, v, decay.all(), o, *own, options, e);
            finish();
        });
        if (decay.is_given && std::is_same_v<T, float>) // the decay bounds how much a float has to hold
            c.forward("state in float", [=](any_executor& e) {
                fill_with(state, T(0));
                fill_with(norm, T(0));
                for (index i = 0; i < repeat; ++i)
                    deft::linear_attention(q, k, v, decay.all(), o, linear_attention_state_view<T>(state, norm),
                                           options, e);
            });
    }

    static std::vector<test_case> cases() {
        random_values random(64);
        std::vector<test_case> cases;
        for (const char* normalize : {"none", "sum"})
            cases.push_back({"linear_attention_long",
                             "generated",
                             {{"normalize", normalize}, {"repeat", 3.0}},
                             {{"in.q", random.uniform({1, 2, 4, 3}, 0.01, 1)},
                              {"in.k", random.uniform({1, 1, 4, 3}, 0.01, 1)},
                              {"in.v", random.normal({1, 1, 4, 2})},
                              {"in.decay", random.uniform({1}, 0.9, 1)}},
                             {}});
        return cases;
    }
};
DEFT_ADAPTER(linear_attention_long)

} // namespace deft::testing

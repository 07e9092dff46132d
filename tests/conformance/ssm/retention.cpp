#include "../attention/linear_attention_case.hpp"
#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/reference/ssm/retention.hpp>
#include <deft/ssm/retention.hpp>
#include <deft/ssm/retention_backward.hpp>

#include <algorithm>
#include <cmath>
#include <memory>

namespace deft::testing {

struct retention {
    template <class T>
    static void bind(call<T>& c) {
        const sequence<T> s(c);
        bind_forward(c, s);
        if (c.has("grad_out.o"))
            bind_backward(c, s);
    }

    static std::vector<test_case> cases();

private:
    static names<decay_norm> decay_norms() {
        return {{"sqrt", decay_norm::sqrt}, {"none", decay_norm::none}};
    }
    static names<retention_row_norm> row_norms() {
        return {{"none", retention_row_norm::none},
                {"sum_abs", retention_row_norm::sum_abs},
                {"abs_sum", retention_row_norm::abs_sum}};
    }
    static double clamp_of(const call_base& c) {
        if (!c.has_param("clamp_max") || c.param("clamp_max").type == parameter::kind::null)
            return std::numeric_limits<double>::infinity();
        return c.number("clamp_max");
    }

    template <class T>
    struct sequence {
        retention_options options;
        index chunk; // of the case; 0: none in particular
        view<const T, 4> q, k, v;
        view<const double, 1> gamma;
        view<const T, 4> state;
        view<const double, 1> scale;
        view<const T, 3> key_state;
        extents state_shape, scale_shape, key_shape;
        tolerance bound = by_type<T>({.of_largest = 5e-6, .floor = 0.01}, {.of_largest = 1e-12, .floor = 0.01});

        explicit sequence(call<T>& c)
            : options{.decay_norm = c.choice("decay_norm", decay_norms(), "sqrt"),
                      .row_norm = c.choice("row_norm", row_norms(), "none"),
                      .clamp_max = clamp_of(c)},
              chunk(c.integer("chunk", 0)), q(c.input(rank<4>, "in.q")), k(c.input(rank<4>, "in.k")),
              v(c.input(rank<4>, "in.v")), gamma(c.input(rank<1, double>, "in.gamma")),
              state(c.optional_input(rank<4>, "in.state")), scale(c.optional_input(rank<1, double>, "in.scale")),
              key_state(c.optional_input(rank<3>, "in.key_state")), state_shape{q.extent(0), q.extent(1), q.extent(3),
                                                                                v.extent(3)},
              scale_shape{q.extent(1)}, key_shape{q.extent(0), q.extent(1), q.extent(3)} {}

        bool is_alone() const {
            return options.row_norm == retention_row_norm::abs_sum;
        }
        bool has_key_state() const {
            return options.row_norm == retention_row_norm::sum_abs;
        }
        template <class A>
        void start(const retention_state_view<A>& to) const {
            const auto set = [](const auto& from, const auto& into) {
                using E = typename std::decay_t<decltype(into)>::element_type;
                if (!into.is_given())
                    return;
                if (from.is_given())
                    copy_to(from, into);
                else
                    fill_with(into, E(0));
            };
            set(state, to.state);
            set(key_state, to.key_state);
            for (index h = 0; h < to.scale.extent(0); ++h)
                to.scale(h) = scale.is_given() ? scale(h) : 0.0;
        }
        template <class A>
        void run(index begin, index end, const view<T, 4>& o, const retention_state_view<A>& to, index most,
                 any_executor& e) const {
            retention_options with = options;
            with.chunk = most;
            deft::retention<T>(tokens(q, begin, end), tokens(k, begin, end), tokens(v, begin, end), gamma,
                               tokens(o, begin, end), to, with, e);
        }
        reference::retention_inputs<T> reference() const {
            return {q, k, v, gamma};
        }
        reference::retention_form form() const {
            using enum retention_row_norm;
            return {options.decay_norm == decay_norm::sqrt,
                    options.row_norm == none      ? reference::retention_rows::plain
                    : options.row_norm == sum_abs ? reference::retention_rows::sum_abs
                                                  : reference::retention_rows::abs_sum,
                    options.clamp_max};
        }
    };

    template <class T>
    static void bind_forward(call<T>& c, const sequence<T>& s) {
        const auto o = c.output(rank<4>, "out.o", c.shape("in.v"), {.bound = s.bound});
        retention_state_view<T> out;
        out.state = c.output(rank<4>, "out.state", s.state_shape, {.bound = s.bound});
        out.scale = c.output(rank<1, double>, "out.scale", s.scale_shape, {.bound = s.bound});
        if (s.has_key_state())
            out.key_state = c.output(rank<3>, "out.key_state", s.key_shape, {.bound = s.bound});
        const index n = s.q.extent(2);
        const auto add = [&](const std::string& name, index call, index chunk) {
            c.forward(name, [=](any_executor& e) {
                s.start(out);
                for (index i = 0; i < n; i += call)
                    s.run(i, std::min(n, i + call), o, out, chunk, e);
            });
        };
        add(s.is_alone() ? "parallel" : "one call", std::max<index>(n, 1), 0);
        if (!s.is_alone()) {
            if (s.chunk > 0)
                add("chunk of the case", n, s.chunk);
            for (const index chunk : {1, 3, 16})
                if (chunk < n)
                    add("chunk " + std::to_string(chunk), n, chunk);
            if (n > 1)
                add("recurrent", 1, 0);
            if (n > 3)
                add("two calls", n / 2 + 1, 0);
        }
        if constexpr (std::is_same_v<T, float>) {
            const scratch<double, 4> wide(s.state_shape);
            const scratch<double, 3> wide_key(s.key_shape);
            c.forward("state in double", [=](any_executor& e) {
                const retention_state_view<double> with(wide.all, out.scale, wide_key.all);
                s.start(with);
                s.run(0, n, o, with, 0, e);
                copy_to(wide.all, out.state);
                if (out.key_state.is_given())
                    copy_to(wide_key.all, out.key_state);
            });
        }
        c.reference([=] {
            s.start(out);
            reference::retention<T>(s.reference(), o, out.state, out.scale, out.key_state, s.form());
        });
    }

    /// What the gradient of a sequence in two calls needs besides the tensors of the case.
    template <class T>
    struct backward_memory {
        scratch<T, 4> o, state, grad_state;
        scratch<T, 3> key_state, denominator;
        scratch<double, 1> scale;

        backward_memory(const sequence<T>& s, const extents& v)
            : o(v), state(s.state_shape), grad_state(s.state_shape), key_state(s.key_shape),
              denominator({v[0], v[1], v[2]}), scale(s.scale_shape) {}
    };

    template <class T>
    static void bind_backward(call<T>& c, const sequence<T>& s) {
        const auto grad_o = c.input(rank<4>, "grad_out.o");
        const auto of_state = c.optional_input(rank<4>, "grad_out.state");
        const auto grad_q = c.output(rank<4>, "grad_in.q", c.shape("in.q"), {.bound = s.bound});
        const auto grad_k = c.output(rank<4>, "grad_in.k", c.shape("in.k"), {.bound = s.bound});
        const auto grad_v = c.output(rank<4>, "grad_in.v", c.shape("in.v"), {.bound = s.bound});
        const auto own = std::make_shared<const backward_memory<T>>(s, c.shape("in.v"));
        const view<T, 4> grad_state = c.has("in.state")
                                          ? c.output(rank<4>, "grad_in.state", s.state_shape, {.bound = s.bound})
                                          : own->grad_state.all;
        const view<T, 4> o = own->o.all;
        const view<T, 3> denominator = own->denominator.all;
        const retention_state_view<T> at(own->state.all, own->scale.all, own->key_state.all);
        const retention_state_view<const T> initial(s.state, s.scale, s.key_state);
        const auto start = [=] {
            if (of_state.is_given())
                copy_to(of_state, grad_state);
            else
                fill_with(grad_state, T(0));
        };
        const auto backward = [=](index begin, index end, const retention_state_view<const T>& from, any_executor& e) {
            deft::retention_backward<T>(tokens(s.q, begin, end), tokens(s.k, begin, end), tokens(s.v, begin, end),
                                        s.gamma, from, tokens(grad_o, begin, end), tokens(grad_q, begin, end),
                                        tokens(grad_k, begin, end), tokens(grad_v, begin, end), grad_state,
                                        tokens(denominator, begin, end), s.options, e);
        };
        const index n = s.q.extent(2);
        c.backward("one call", [=, keep = own](any_executor& e) {
            start();
            backward(0, n, initial, e);
        });
        if (!s.is_alone() && n > 1)
            c.backward("two calls", [=, keep = own](any_executor& e) {
                s.start(at);
                s.run(0, n / 2, o, at, 0, e);
                start();
                backward(n / 2, n, at, e);
                backward(0, n / 2, initial, e);
            });
        // rho is a constant for the gradient: differences of outputs would see it move.
        if (s.options.row_norm != retention_row_norm::none)
            c.has_kinks("the divisor of a row is a constant for the gradient");
        c.reference_backward([=, keep = own] {
            start();
            reference::retention_backward<T>(s.reference(), s.form(), s.state, s.scale, s.key_state, grad_o, grad_q,
                                             grad_k, grad_v, grad_state);
        });
    }
};

std::vector<test_case> retention::cases() {
    random_values random(58);
    std::vector<test_case> cases;
    enum class decays { retnet, lm, any, ends };
    const auto add = [&](index b, index h, index t, index dk, index dv, decays decay, const char* row_norm,
                         const char* decay_norm, bool state, parameter clamp_max = {}) -> test_case& {
        test_case made{"retention",
                       "generated",
                       {{"decay_norm", decay_norm}, {"row_norm", row_norm}, {"clamp_max", clamp_max}, {"chunk", 5.0}},
                       {{"in.q", random.normal({b, h, t, dk}, row_norm[0] == 'n' ? 1 : 3)},
                        {"in.k", random.normal({b, h, t, dk}, 1 / std::sqrt(double(dk + 1)))},
                        {"in.v", random.normal({b, h, t, dv})}},
                       {}};
        tensor gamma;
        gamma.shape = {h};
        gamma.values.resize(std::size_t(h));
        fill_retention_decay({gamma.values.data(), {h}},
                             decay == decays::lm ? retention_decay::lm : retention_decay::retnet);
        for (index i = 0; i < h && decay == decays::any; ++i)
            gamma.values[std::size_t(i)] = random.number(0.01, 1);
        for (index i = 0; i < h && decay == decays::ends; ++i)
            gamma.values[std::size_t(i)] = i % 2 == 0 ? 0 : 1;
        made.given["in.gamma"] = gamma;
        if (state) {
            made.given["in.state"] = random.normal({b, h, dk, dv});
            made.given["in.scale"] = random.uniform({h}, 1, 6);
            if (row_norm[0] == 's')
                made.given["in.key_state"] = random.normal({b, h, dk});
        }
        if (row_norm[0] == 'n') {
            made.given["grad_out.o"] = random.normal({b, h, t, dv});
            if (state)
                made.given["grad_out.state"] = random.normal({b, h, dk, dv});
        }
        cases.push_back(std::move(made));
        return cases.back();
    };
    constexpr decays all_decays[] = {decays::retnet, decays::lm, decays::any, decays::ends};
    const char* const norms[] = {"none", "none", "sum_abs", "abs_sum"};
    int turn = 0;
    const auto next = [&](index b, index h, index t, index dk, index dv) {
        const char* const norm = norms[turn % 4];
        add(b, h, t, dk, dv, all_decays[turn / 2 % 4], norm, turn % 3 == 2 ? "none" : "sqrt",
            norm[0] != 'a' && turn % 5 < 3, turn % 7 == 3 ? parameter(2.5) : parameter());
        ++turn;
    };
    for (index length = 1; length <= 34; ++length) {
        next(1, 2, 3, length, 5);
        next(1, 1, 2, 3, length);
        next(1, 2, length, 4, 3);
        next(2, 1, 1, length, length);
    }
    for (int i = 0; i < 4; ++i) { // every row norm
        next(2, 3, 11, 7, 6);
        next(1, 2, 70, 33, 19);
        next(1, 2, 0, 3, 4);
        next(1, 1, 5, 270, 9);
        ++turn;
    }
    for (const char* norm : {"none", "sum_abs", "abs_sum"}) {
        add(1, 1, 3, 4, 600, decays::lm, norm, "sqrt", false); // columns in several tasks
        add(0, 2, 3, 4, 5, decays::lm, norm, "sqrt", false);
        add(1, 0, 3, 4, 5, decays::lm, norm, "sqrt", false);
        add(1, 2, 5, 3, 0, decays::lm, norm, "sqrt", false);
        add(1, 3, 300, 5, 6, decays::retnet, norm, "sqrt", false);
        // NaN in one head and batch spoils neither another nor what lies before it.
        test_case& spoilt = add(2, 2, 9, 5, 4, decays::retnet, norm, "sqrt", false);
        spoilt.given.erase("grad_out.o");
        spoilt.given["in.v"].values[4 * 4 + 1] = NAN;
        test_case& spoilt_key = add(2, 2, 40, 5, 4, decays::retnet, norm, "sqrt", false);
        spoilt_key.given.erase("grad_out.o");
        spoilt_key.given["in.k"].values[35 * 5 + 1] = NAN;
    }
    return cases;
}
DEFT_ADAPTER(retention)

} // namespace deft::testing

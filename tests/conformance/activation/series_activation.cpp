#include "activation_names.hpp"
#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/activation/series_activation.hpp>
#include <deft/reference/activation/series_activation.hpp>

#include <algorithm>
#include <memory>

namespace deft::testing {

struct series_activation {
    template <class T>
    static void bind(call<T>& c) {
        if (c.shape("in.a").size() == 1)
            bind_sharing<T, 1>(c);
        else
            bind_sharing<T, 2>(c);
    }

    static std::vector<test_case> cases();

private:
    /// Parameters of rank 1 are shared by all channels, of rank 2 they are per channel.
    template <class T, int Rank>
    static void bind_sharing(call<T>& c) {
        const names<series_form> forms{{"inner", series_form::inner}, {"outer", series_form::outer}};
        const series_form form = c.choice("form", forms);
        const bool inner = form == series_form::inner;
        const double slope = c.number("negative_slope", 0.01);
        // Shared by the forms, because a list of activations does not own them.
        const auto bases = std::make_shared<const std::vector<activation>>(parse(c.text("activation")));
        const deft::series_activation_options options{.form = form, .base = *bases, .negative_slope = slope};
        const tolerance elementwise = by_type<T>({1e-5, 2e-5}, {1e-12, 1e-12});
        const tolerance of_sums = by_type<T>({.of_largest = 2e-5}, {.of_largest = 1e-12});

        const auto x = c.input(any_rank<>, "in.x");
        const auto a = c.input(rank<Rank>, "in.a");
        const auto b = c.input(rank<Rank>, "in.b");
        const auto y = c.output(any_rank<>, "out.y", c.shape("in.x"), {.bound = elementwise, .in_place = "in.x"});
        c.forward("direct", [=, keep = bases](any_executor& e) { deft::series_activation(x, a, b, y, options, e); });
        c.reference(
            [=, keep = bases] { reference::series_activation<T>(x, columns(a), columns(b), y, inner, *bases, slope); });
        if (std::any_of(bases->begin(), bases->end(), has_kink))
            c.has_kinks("the derivative jumps where a term crosses 0");

        if (!c.has("grad_out.y"))
            return;
        const auto grad_y = c.input(any_rank<>, "grad_out.y");
        const auto grad_x = c.output(any_rank<>, "grad_in.x", c.shape("in.x"), {.bound = elementwise});
        const auto grad_a = c.output(rank<Rank>, "grad_in.a", c.shape("in.a"), {.bound = of_sums});
        const auto grad_b = c.output(rank<Rank>, "grad_in.b", c.shape("in.b"), {.bound = of_sums});
        c.backward("direct", [=, keep = bases](any_executor& e) {
            deft::series_activation_backward(x, a, b, grad_y, grad_x, grad_a, grad_b, options, e);
        });
        c.reference_backward([=, keep = bases] {
            reference::series_activation_backward<T>(x, columns(a), columns(b), grad_y, grad_x, columns(grad_a),
                                                     columns(grad_b), inner, *bases, slope);
        });
    }

    /// "relu,tanh"
    static std::vector<activation> parse(const std::string& names) {
        std::vector<activation> bases;
        for (std::size_t begin = 0; begin <= names.size();) {
            const std::size_t end = std::min(names.find(',', begin), names.size());
            bases.push_back(find_activation(names.substr(begin, end - begin)));
            begin = end + 1;
        }
        return bases;
    }

    /// As the reference takes them: [n, C], or [n, 1] if they are shared.
    template <class T>
    static view<T, 2> columns(view<T, 1> shared) {
        return {shared.data(), {shared.extent(0), 1}};
    }
    template <class T>
    static view<T, 2> columns(view<T, 2> per_channel) {
        return per_channel;
    }
};

std::vector<test_case> series_activation::cases() {
    random_values random(10);
    std::vector<test_case> cases;
    const auto add = [&](const extents& shape, index terms, const std::string& bases, const char* form,
                         bool per_channel) {
        const extents shared = per_channel ? extents{terms, shape.back()} : extents{terms};
        cases.push_back({"series_activation",
                         "generated",
                         {{"form", form}, {"activation", bases}, {"negative_slope", 0.125}},
                         {{"in.x", random.normal(shape, 2)},
                          {"in.a", random.normal(shared)},
                          {"in.b", random.normal(shared)},
                          {"grad_out.y", random.normal(shape)}},
                         {}});
    };

    std::size_t turn = 0;
    for (const index length : length_sweep())
        for (const char* form : {"outer", "inner"})
            for (const bool per_channel : {false, true})
                for (const index rows : {1, 5}) {
                    const std::string& base = activation_names()[turn++ % activation_names().size()].first;
                    add({rows, length}, 1 + random.integer(0, 3), base, form, per_channel);
                }
    for (const auto& [name, kind] : activation_names())
        for (const char* form : {"outer", "inner"})
            for (const bool per_channel : {false, true}) {
                add({23}, 1, name, form, per_channel);
                add({2, 2, 19}, 2, name, form, per_channel);
                add({4, 21}, 7, name, form, per_channel);
            }
    add({3, 18}, 3, "relu,tanh,gelu_erf", "inner", true);
    add({3, 18}, 5, "silu,sigmoid,leaky_relu,gelu_tanh,silu", "outer", false);
    add({0, 8}, 2, "silu", "inner", true); // no rows
    add({700, 3}, 2, "silu", "inner", true);
    add({2, 1500}, 2, "gelu_tanh", "outer", false);
    for (const index terms : {8, 9, 16, 17}) { // as many as share an exponential in a pass, and more
        add({2, 2100}, terms, "silu", "outer", false);
        add({3, 70}, terms, "sigmoid", "outer", false);
    }

    // NaN and infinities belong where they are and nowhere else.
    for (const auto& [name, kind] : activation_names())
        for (const char* form : {"outer", "inner"})
            for (const bool per_channel : {false, true}) {
                add({3, 37}, 1, name, form, per_channel);
                test_case& special = cases.back();
                special.given.erase("grad_out.y");
                special.given["in.a"] = random.uniform(special.given["in.a"].shape, 0.5, 2);
                const bool has_limits = kind != activation::gelu_erf && kind != activation::gelu_tanh &&
                                        kind != activation::silu; // at -inf the product is unspecified
                std::vector<double>& x = special.given["in.x"].values;
                for (std::size_t i = 0; i < x.size(); i += 5)
                    x[i] = i % 3 == 0 || !has_limits ? NAN : i % 3 == 1 ? INFINITY : -INFINITY;
            }
    return cases;
}
DEFT_ADAPTER(series_activation)

} // namespace deft::testing

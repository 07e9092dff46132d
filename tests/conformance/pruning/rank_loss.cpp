#include "layer_list.hpp"
#include "rank_choice_case.hpp"

#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/pruning/rank_loss.hpp>
#include <deft/reference/pruning/rank_loss.hpp>

#include <cmath>
#include <cstdint>

namespace deft::testing {

struct rank_loss_choice {
    rank_loss_options options{.rank = {.mode = rank_mode::k}};
    reference::rank_loss_case naive;

    explicit rank_loss_choice(const call_base& c) {
        const rank_choice_case rank_of(c);
        options.rank = rank_of.choice;
        naive.mode = rank_of.mode;
        naive.value = rank_of.value;
        naive.is_bounded = c.has_param("bound") && c.param("bound").type == parameter::kind::number;
        if (naive.is_bounded)
            options.bound = naive.bound = c.number("bound");
        options.sparsity_threshold = naive.sparsity_threshold = c.number("sparsity_threshold", 0);
    }
};

namespace {

/// 1 / ||W||_F, in which gradients are measured.
double inverse_norm(const tensor& weight) {
    double largest = 0, sum = 0;
    for (const double w : weight.values)
        largest = std::max(largest, std::abs(w));
    for (const double w : weight.values)
        sum += largest == 0 ? 0 : (w / largest) * (w / largest);
    return largest == 0 ? 0 : 1 / (largest * std::sqrt(sum));
}

template <class T>
void write(const std::vector<double>& from, double factor, const view<T, 2>& to) {
    for (index r = 0; r < to.extent(0); ++r)
        for (index c = 0; c < to.extent(1); ++c)
            to(r, c) = T(factor * from[std::size_t(r * to.extent(1) + c)]);
}

template <class T>
constexpr tolerance of_loss = by_type<T>({.absolute = 1e-5}, {.absolute = 1e-12});

} // namespace

struct rank_loss {
    template <class T>
    static void bind(call<T>& c) {
        const rank_loss_choice s(c);
        const extents shape = as_matrix(c.shape("in.weight"));
        const auto weight = c.input_as(rank<2>, "in.weight", shape);
        const auto loss = c.output(any_rank<double>, "out.loss", {}, {.bound = of_loss<T>});
        const auto tail = c.output(any_rank<double>, "out.tail", {}, {.bound = of_loss<T>});
        const auto chosen = c.output(any_rank<std::int64_t>, "out.rank", {});
        c.may_allocate("a decomposition");
        const auto write_result = [=](double value, index k, double t) {
            loss(0, 0) = value;
            chosen(0, 0) = k;
            tail(0, 0) = t;
        };
        c.forward("direct", [=](any_executor&) {
            const rank_loss_result result = deft::rank_loss<T>(weight, s.options);
            write_result(result.loss, result.rank, result.tail);
        });
        c.reference([=] {
            const reference::rank_loss_values values = reference::rank_loss<T>(weight, s.naive);
            write_result(values.loss, values.rank, values.tail);
        });
        if (!c.has("grad_out.loss"))
            return;
        const double g = c.scalar("grad_out.loss");
        const double unit = std::abs(g) * inverse_norm(c.given("in.weight"));
        const auto grad = output_matrix(c, "grad_in.weight", c.shape("in.weight"),
                                        {.bound = by_type<T>({.absolute = 1e-4 * unit}, {.absolute = 1e-11 * unit})});
        c.backward("direct", [=](any_executor&) { deft::rank_loss_backward<T>(weight, g, grad, s.options); });
        c.reference_backward([=] { write(reference::rank_loss<T>(weight, s.naive).gradient, g, grad); });
    }

    static std::vector<test_case> cases() {
        random_values random(55);
        std::vector<test_case> cases;
        const auto add = [&](tensor weight, std::map<std::string, parameter> params, bool with_grad = true) {
            test_case made{"rank_loss", "generated", std::move(params), {}, {}};
            made.given["in.weight"] = std::move(weight);
            if (with_grad)
                made.given["grad_out.loss"] = tensor{{}, {random.number(0.5, 2)}};
            cases.push_back(std::move(made));
        };
        for (const index rows : {1, 2, 7, 16})
            for (const index columns : {1, 5, 23}) {
                add(random.normal({rows, columns}), {{"rank_mode", "tail"}, {"tail_energy", 0.2}});
                add(random.normal({rows, columns}), {{"rank_mode", "energy"}, {"energy", 0.6}});
                add(random.normal({rows, columns}), {{"rank_mode", "k"}, {"rank", double(rows / 3)}});
                add(random.normal({rows, columns}), {{"rank_mode", "k"}, {"rank", 30.0}});
            }
        add(random.normal({9, 4, 2, 2}), {{"rank_mode", "tail"}, {"tail_energy", 0.1}, {"bound", -0.05}});
        add(random.normal({9, 4, 2, 2}), {{"rank_mode", "tail"}, {"tail_energy", 0.1}, {"bound", -0.5}});
        add(random.normal({8, 8}, 1e25), {{"rank_mode", "tail"}, {"tail_energy", 0.3}}, false);
        add(random.normal({8, 8}, 1e-25), {{"rank_mode", "tail"}, {"tail_energy", 0.3}}, false);
        tensor sparse = random.normal({12, 20}); // rows and columns without entries
        for (index i = 0; i < 240; ++i)
            if (i / 20 % 3 == 0 || i % 20 % 4 == 0)
                sparse.values[std::size_t(i)] = 0;
        add(sparse, {{"rank_mode", "tail"}, {"tail_energy", 0.25}});
        std::fill(sparse.values.begin(), sparse.values.end(), 0.0);
        add(sparse, {{"rank_mode", "tail"}, {"tail_energy", 0.25}}, false);
        return cases;
    }
};
DEFT_ADAPTER(rank_loss)

struct model_rank_loss {
    template <class T>
    static void bind(call<T>& c) {
        const rank_loss_choice s(c);
        const index layers = c.integer("layers");
        const std::vector<view<const T, 2>> weights = input_layers(c, "in.weight", layers);
        const auto loss = c.output(any_rank<double>, "out.loss", {}, {.bound = of_loss<T>});
        const auto ranks = c.output(rank<1, std::int64_t>, "out.ranks", {layers});
        const auto chosen = std::make_shared<std::vector<index>>(std::size_t(layers));
        c.may_allocate("decompositions");
        const auto write_ranks = [=](const std::vector<index>& from) {
            for (index i = 0; i < layers; ++i)
                ranks(i) = from[std::size_t(i)];
        };
        c.forward("direct", [=](any_executor&) {
            loss(0, 0) = deft::model_rank_loss<T>(weights, *chosen, s.options);
            write_ranks(*chosen);
        });
        c.reference([=] {
            const auto values = reference::model_rank_loss<T>(weights, s.naive);
            loss(0, 0) = values.loss;
            write_ranks(values.ranks);
        });
        if (!c.has("grad_out.loss"))
            return;
        const double g = c.scalar("grad_out.loss");
        std::vector<view<T, 2>> grads;
        for (index i = 0; i < layers; ++i) {
            const std::string name = layer_name("in.weight", i);
            const double unit = std::abs(g) * inverse_norm(c.given(name));
            grads.push_back(
                output_matrix(c, "grad_" + name, c.shape(name),
                              {.bound = by_type<T>({.absolute = 1e-4 * unit}, {.absolute = 1e-11 * unit})}));
        }
        c.backward("direct",
                   [=](any_executor&) { deft::model_rank_loss_backward<T>(weights, g, grads, *chosen, s.options); });
        c.reference_backward([=] {
            const auto values = reference::model_rank_loss<T>(weights, s.naive);
            for (std::size_t i = 0; i < grads.size(); ++i)
                write(values.gradients[i], g, grads[i]);
        });
    }

    static std::vector<test_case> cases() {
        random_values random(56);
        std::vector<test_case> cases;
        for (const double threshold : {0.0, 0.5, 1.0})
            for (const double zeros : {0.0, 0.7}) {
                test_case made{
                    "model_rank_loss",
                    "generated",
                    {{"rank_mode", "tail"}, {"tail_energy", 0.2}, {"sparsity_threshold", threshold}, {"layers", 3.0}},
                    {},
                    {}};
                const extents shapes[] = {{6, 2, 3, 3}, {9, 5}, {4, 11}};
                for (index i = 0; i < 3; ++i) {
                    tensor weight = random.normal(shapes[i]);
                    for (double& w : weight.values)
                        w = i != 1 && random.number(0, 1) < zeros ? 0 : w;
                    made.given[layer_name("in.weight", i)] = weight;
                }
                made.given["grad_out.loss"] = tensor{{}, {1.5}};
                // Differences of the gradient would move zeros, and with them the layers that count.
                if (threshold > 0)
                    made.given.erase("grad_out.loss");
                cases.push_back(std::move(made));
            }
        return cases;
    }
};
DEFT_ADAPTER(model_rank_loss)

} // namespace deft::testing

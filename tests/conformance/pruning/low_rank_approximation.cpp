#include "layer_list.hpp"
#include "rank_choice_case.hpp"

#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/pruning/low_rank_approximation.hpp>
#include <deft/reference/pruning/low_rank_approximation.hpp>

#include <cmath>
#include <cstdint>
#include <memory>

namespace deft::testing {

struct low_rank_approximation {
    template <class T>
    static void bind(call<T>& c) {
        const rank_choice_case rank_of(c);
        const std::string method = c.text("method");
        const bool is_random = method == "randomized";
        const matrix_of<T> given(c.given("in.weight"));
        const index m = given.shape[0], n = given.shape[1], r = std::min(m, n);
        // The shapes of the factors follow from the rank, which follows from the weight.
        const auto d = std::make_shared<reference::decomposition>();
        if (is_random) {
            const matrix_of<T> omega(c.given("in.omega"));
            *d = reference::random_decomposition<T>(given.get(), omega.get(), c.integer("power_iterations"));
        } else {
            *d = reference::singular_values<T>(given.get());
        }
        const index k = is_random ? std::min(c.integer("rank"), r) : rank_of.template reference<T>(d->s);
        while (index(d->s.size()) < k) { // of a sample that does not span k dimensions
            d->s.push_back(0);
            d->u.emplace_back(std::size_t(m), 0.0);
            d->v.emplace_back(std::size_t(n), 0.0);
        }
        const std::vector<double>& s = d->s;
        const double largest = s.empty() ? 0 : s[0], next = k < index(s.size()) ? s[std::size_t(k)] : 0;
        const bool is_cut = k == 0 || k >= r || s[std::size_t(k - 1)] - next > 1e-6 * largest ||
                            s[std::size_t(k - 1)] <= 1e-9 * largest;
        const tolerance anything{.absolute = std::numeric_limits<double>::infinity()};
        const tolerance of_values =
            by_type<T>({.absolute = 1e-5 * largest}, {.absolute = largest * (method == "gram" ? 1e-10 : 1e-12)});
        double energy = 0;
        for (const T x : given.values)
            energy += double(x) * double(x);
        const bool unique = c.number("factors_unique") != 0;
        const tolerance of_vectors = unique ? by_type<T>({.absolute = 1e-3}, {.absolute = 1e-9}) : anything;

        const auto weight = c.input_as(rank<2>, "in.weight", given.shape);
        const auto omega = is_random ? c.input(rank<2>, "in.omega") : view<const T, 2>(absent);
        const auto approx =
            output_matrix(c, "out.approx", c.shape("in.weight"), {.bound = is_cut ? of_values : anything});
        const auto u = c.output(rank<2>, "out.u", {m, k}, {.bound = of_vectors});
        const auto v = c.output(rank<2>, "out.v", {n, k}, {.bound = of_vectors});
        const auto values = c.output(rank<1>, "out.s", {k}, {.bound = of_values});
        const auto error = c.output(any_rank<double>, "out.error", {},
                                    {.bound = by_type<T>({.absolute = 1e-5 * energy}, {.absolute = 1e-12 * energy})});
        const auto chosen = c.output(any_rank<std::int64_t>, "out.rank", {});
        c.may_allocate("a decomposition");
        const index power = is_random ? c.integer("power_iterations") : 0;
        const auto forward = [=](low_rank_method by, const view<T, 2>& to) {
            const low_rank_result result = deft::low_rank_approximation<T>(
                weight, omega, to, u, values, v, {.rank = rank_of.choice, .method = by, .power_iterations = power});
            chosen(0, 0) = result.rank;
            error(0, 0) = result.error;
        };
        if (is_random) {
            c.forward("randomized", [=](any_executor&) { forward(low_rank_method::randomized, approx); });
        } else {
            c.forward("exact", [=](any_executor&) { forward(low_rank_method::exact, approx); });
            c.forward("gram", [=](any_executor&) { forward(low_rank_method::gram, approx); });
        }
        c.reference([=] {
            for (index i = 0; i < m; ++i)
                for (index j = 0; j < n; ++j)
                    approx(i, j) = T(reference::truncated(*d, k, i, j));
            for (index i = 0; i < k; ++i) {
                values(i) = T(d->s[std::size_t(i)]);
                for (index j = 0; j < m; ++j)
                    u(j, i) = T(d->u[std::size_t(i)][std::size_t(j)]);
                for (index j = 0; j < n; ++j)
                    v(j, i) = T(d->v[std::size_t(i)][std::size_t(j)]);
            }
            chosen(0, 0) = k;
            error(0, 0) = reference::truncation_error<T>(weight, *d, k);
        });

        if (!c.has("grad_out.approx"))
            return;
        const tolerance of_gradient = by_type<T>({.of_largest = 1e-3, .floor = 0}, {.of_largest = 1e-9, .floor = 0});
        const auto grad_approx = c.input_as(rank<2>, "grad_out.approx", given.shape);
        const auto grad_weight = output_matrix(c, "grad_in.weight", c.shape("in.weight"), {.bound = of_gradient});
        c.backward("direct", [=](any_executor&) {
            deft::low_rank_approximation_backward<T>(weight, grad_approx, grad_weight, rank_of.choice);
        });
        c.reference_backward(
            [=] { reference::low_rank_approximation_backward<T>(weight, grad_approx, grad_weight, k); });
    }

    static std::vector<test_case> cases() {
        random_values random(54);
        std::vector<test_case> cases;
        const auto add = [&](tensor weight, std::map<std::string, parameter> params, bool unique, bool with_grad) {
            params["factors_unique"] = unique ? 1.0 : 0.0;
            test_case made{"low_rank_approximation", "generated", std::move(params), {}, {}};
            if (with_grad)
                made.given["grad_out.approx"] = random.normal(weight.shape);
            made.given["in.weight"] = std::move(weight);
            cases.push_back(std::move(made));
        };
        const auto by_rank = [](index k) {
            return std::map<std::string, parameter>{{"method", "exact"}, {"rank_mode", "k"}, {"rank", double(k)}};
        };
        for (const index rows : {1, 2, 5, 9, 24})
            for (const index columns : {1, 3, 8, 17})
                add(random.normal({rows, columns}), by_rank((rows + columns) / 4), true, true);
        add(random.normal({4, 3, 2, 2}, 3), by_rank(2), true, true);
        add(random.normal({20, 130}), by_rank(15), true, true); // less the tail
        for (const double share : {0.05, 0.3, 0.9})
            add(random.normal({14, 11}), {{"method", "exact"}, {"rank_mode", "tail"}, {"tail_energy", share}}, true,
                true);
        for (const double share : {0.1, 0.5, 0.97})
            add(random.normal({7, 19}), {{"method", "gram"}, {"rank_mode", "energy"}, {"energy", share}}, true, true);
        add(random.normal({6, 6}, 1e15), by_rank(3), true, false);
        add(random.normal({6, 6}, 1e-15), by_rank(3), true, false);
        tensor zeros = random.normal({5, 8});
        std::fill(zeros.values.begin(), zeros.values.end(), 0.0);
        add(zeros, by_rank(0), true, true);
        // Singular values from 1 to 1e-7: what squares alone do not resolve.
        tensor graded = random.normal({8, 12});
        for (index i = 0; i < 8; ++i)
            for (index j = 0; j < 12; ++j)
                graded.values[std::size_t(i * 12 + j)] =
                    double(float(graded.values[std::size_t(i * 12 + j)] * std::pow(10.0, -double(i))));
        add(graded, by_rank(3), true, false);
        for (const index samples : {4, 9})
            for (const index power : {0, 1, 3}) {
                add(random.normal({15, 22}),
                    {{"method", "randomized"}, {"rank_mode", "k"}, {"rank", 4.0}, {"power_iterations", double(power)}},
                    true, false);
                cases.back().given["in.omega"] = random.normal({22, samples});
                add(random.normal({22, 15}),
                    {{"method", "randomized"}, {"rank_mode", "k"}, {"rank", 3.0}, {"power_iterations", double(power)}},
                    true, false);
                cases.back().given["in.omega"] = random.normal({15, samples});
            }
        return cases;
    }
};
DEFT_ADAPTER(low_rank_approximation)

} // namespace deft::testing

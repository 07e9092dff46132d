#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/attention/qmc_frequencies.hpp>
#include <deft/reference/attention/qmc_frequencies.hpp>

#include <algorithm>

namespace deft::testing {

/// In double whatever the type of the test: 1 - u is what counts near 1.
struct qmc_frequencies {
    template <class T>
    static void bind(call<T>& c) {
        const names<radial_distribution> distributions{{"normal", radial_distribution::normal},
                                                       {"chi", radial_distribution::chi}};
        const names<int> sequences{{"given", given},
                                   {"midpoint", int(qmc_sequence::midpoint)},
                                   {"van_der_corput", int(qmc_sequence::van_der_corput)},
                                   {"golden", int(qmc_sequence::golden)}};
        const qmc_frequencies_options options{.distribution = c.choice("distribution", distributions, "normal"),
                                              .dimension = c.integer("d")};
        const int sequence = c.choice("sequence", sequences, "van_der_corput");
        const index m = c.integer("m");
        const view<const double, 1> from =
            sequence == given ? c.input(rank<1, double>, "in.u") : view<const double, 1>(absent);
        const auto u = c.output(rank<1, double>, "out.u", {m}, {.bound = {.absolute = 1e-15}});
        const auto t = c.output(rank<1, double>, "out.t", {m}, {.bound = {.absolute = 1e-15, .relative = 1e-12}});
        const auto points = [=] {
            if (sequence == given)
                std::copy_n(from.data(), m, u.data());
            else
                qmc_points(u, qmc_sequence(sequence));
        };
        c.forward("direct", [=](any_executor&) {
            points();
            deft::qmc_frequencies(u, t, options);
        });
        c.reference([=] {
            points();
            reference::qmc_frequencies(u, t, options.distribution == radial_distribution::chi ? options.dimension : 0);
        });
    }

    static std::vector<test_case> cases() {
        random_values random(48);
        std::vector<test_case> cases;
        for (const char* distribution : {"normal", "chi"})
            for (const index d : {1, 2, 5, 64, 300}) {
                const std::map<std::string, parameter> params{{"distribution", distribution}, {"d", double(d)}};
                for (const char* sequence : {"midpoint", "van_der_corput", "golden"}) {
                    cases.push_back({"qmc_frequencies", "generated", params, {}, {}});
                    cases.back().params["sequence"] = sequence;
                    cases.back().params["m"] = double(40 + d % 7);
                }
                tensor u = random.uniform({20}, 0, 1);
                std::copy_n(std::initializer_list<double>{0, 1, 0.5, 1e-300, 1e-30, 1e-8, 1 - 1e-12, 0x1p-53}.begin(),
                            8, u.values.begin());
                cases.push_back({"qmc_frequencies", "generated", params, {{"in.u", u}}, {}});
                cases.back().params["sequence"] = "given";
                cases.back().params["m"] = 20.0;
            }
        return cases;
    }

private:
    static constexpr int given = -1;
};
DEFT_ADAPTER(qmc_frequencies)

} // namespace deft::testing

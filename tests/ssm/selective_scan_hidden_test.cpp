#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"
#include "support/memory.hpp"

#include <deft/ssm/linear_scan.hpp>
#include <deft/ssm/selective_scan_hidden.hpp>

#include <cmath>
#include <vector>

namespace deft::testing {

namespace {

struct scan {
    index batch, tokens, channels, states;
    std::vector<double> u, delta, a, b, c, skip, z, added, start;

    scan(index batches, index n, index d, index s) : batch(batches), tokens(n), channels(d), states(s) {
        random_values random(31);
        u = random.normal({batch, n, d}).values;
        delta = random.uniform({batch, n, d}, -4, 0).values;
        a = random.uniform({d, s}, -4, 0).values;
        b = random.normal({batch, n, s}).values;
        c = random.normal({batch, n, s}).values;
        skip = random.normal({d}).values;
        z = random.normal({batch, n, d}).values;
        added = random.normal({batch, n, d, s}).values;
        start = random.normal({batch, d, s}).values;
    }
    selective_scan_inputs<double> inputs() const {
        return {.u = {u.data(), {batch, tokens, channels}},
                .delta = {delta.data(), {batch, tokens, channels}},
                .A = {a.data(), {channels, states}},
                .B = {b.data(), {batch, tokens, 1, states}},
                .C = {c.data(), {batch, tokens, 1, states}},
                .D = skip,
                .z = {z.data(), {batch, tokens, channels}}};
    }
    shape<4> all() const {
        return {batch, tokens, channels, states};
    }
    shape<3> rows() const {
        return {batch, tokens, channels};
    }
};

double silu(double x) {
    return x / (1 + std::exp(-x));
}

} // namespace

TEST_CASE("states that are added and shown follow their recurrence", "[selective_scan]") {
    // More channels than a vector and not a multiple, states likewise, more tokens than a tile.
    for (const auto& size : {std::pair<index, index>(19, 16), {8, 8}, {5, 3}, {16, 21}}) {
        const index d = size.first, n = size.second;
        const scan s(2, 41, d, n);
        for (const fusion_point point : {fusion_point::readout, fusion_point::recurrent}) {
            // The same as a linear scan over all channels and states at once.
            const index width = d * n, t = s.tokens;
            std::vector<double> y(s.u.size()), hidden(s.added.size()), state = s.start;
            deft::selective_scan_hidden<double>(s.inputs(), {s.added.data(), s.all()}, {y.data(), s.rows()},
                                                {hidden.data(), s.all()}, {state.data(), {2, d, n}}, {.point = point});
            for (index batch = 0; batch < 2; ++batch) {
                std::vector<double> decay(std::size_t(t * width)), input(decay.size()), h(decay.size());
                const auto at = [&](index i, index k) { return std::size_t((batch * t + i) * d + k); };
                for (index i = 0; i < t; ++i)
                    for (index k = 0; k < d; ++k)
                        for (index j = 0; j < n; ++j) {
                            const double step = std::log1p(std::exp(s.delta[at(i, k)]));
                            const std::size_t e = std::size_t(i * width + k * n + j);
                            decay[e] = std::exp(step * s.a[std::size_t(k * n + j)]);
                            input[e] = step * s.u[at(i, k)] * s.b[std::size_t((batch * t + i) * n + j)];
                            if (point == fusion_point::recurrent)
                                input[e] += s.added[std::size_t(batch * t * width) + e];
                        }
                deft::linear_scan<double>({decay.data(), {t, width}}, {input.data(), {t, width}},
                                          {s.start.data() + batch * width, {width}},
                                          view<double, 2>(h.data(), {t, width}), absent, absent);
                double worst = 0;
                for (index i = 0; i < t; ++i)
                    for (index k = 0; k < d; ++k) {
                        double sum = s.skip[std::size_t(k)] * s.u[at(i, k)];
                        for (index j = 0; j < n; ++j) {
                            const std::size_t e = std::size_t(i * width + k * n + j),
                                              all = std::size_t(batch * t * width) + e;
                            worst = std::max(worst, std::abs(hidden[all] - h[e]));
                            sum += s.c[std::size_t((batch * t + i) * n + j)] *
                                   (h[e] + (point == fusion_point::readout ? s.added[all] : 0.0));
                        }
                        worst = std::max(worst, std::abs(y[at(i, k)] - sum * silu(s.z[at(i, k)])));
                    }
                for (index e = 0; e < width; ++e)
                    worst = std::max(
                        worst, std::abs(state[std::size_t(batch * width + e)] - h[std::size_t((t - 1) * width + e)]));
                CHECK(worst < 1e-12);
            }
        }
    }
}

TEST_CASE("states may be shown in the place of what is added, or not at all", "[selective_scan]") {
    const scan s(1, 37, 11, 5);
    std::vector<double> y(s.u.size()), hidden(s.added.size()), state = s.start;
    const auto run = [&](const std::vector<double>* added, std::vector<double>& to, std::vector<double>* shown) {
        state = s.start;
        using given = view<const double, 4>;
        deft::selective_scan_hidden<double>(
            s.inputs(), added == nullptr ? given() : given(added->data(), s.all()), {to.data(), s.rows()},
            shown == nullptr ? view<double, 4>() : view<double, 4>(shown->data(), s.all()), {state.data(), {1, 11, 5}},
            {.point = fusion_point::recurrent});
    };
    run(&s.added, y, &hidden);
    std::vector<double> same = s.added, again(y.size());
    run(&same, again, &same);
    CHECK((again == y && same == hidden));
    run(&s.added, again, nullptr);
    CHECK(again == y);

    // Nothing added: the scan itself.
    run(nullptr, y, &hidden);
    const std::vector<double> last = state;
    state = s.start;
    deft::selective_scan<double>(s.inputs(), {again.data(), s.rows()}, {state.data(), {1, 11, 5}});
    for (std::size_t i = 0; i < y.size(); ++i)
        CHECK(std::abs(y[i] - again[i]) < 1e-13);
    for (std::size_t i = 0; i < last.size(); ++i) {
        CHECK(std::abs(last[i] - state[i]) < 1e-13);
        CHECK(hidden[hidden.size() - last.size() + i] == last[i]);
    }
}

TEST_CASE("selective_scan_hidden rejects what does not fit", "[selective_scan]") {
    const scan s(1, 3, 4, 2);
    bad_input bad("selective_scan_hidden");
    double* const out = bad.output<double>(64);
    const auto call = [&](shape<4> added, shape<4> hidden, shape<3> y, shape<3> state) {
        deft::selective_scan_hidden<double>(s.inputs(), {s.added.data(), added}, {out, y}, {out, hidden}, {out, state});
    };
    const shape<3> state{1, 4, 2};
    CHECK(bad.rejects("added", [&] { call({1, 3, 4, 3}, s.all(), s.rows(), state); }));
    CHECK(bad.rejects("added", [&] { call({1, 2, 4, 2}, s.all(), s.rows(), state); }));
    CHECK(bad.rejects("hidden", [&] { call(s.all(), {1, 3, 5, 2}, s.rows(), state); }));
    CHECK(bad.rejects("hidden", [&] { call(s.all(), {2, 3, 4, 2}, s.rows(), state); }));
    CHECK(bad.rejects("y", [&] { call(s.all(), s.all(), {1, 3, 5}, state); }));
    CHECK(bad.rejects("state", [&] { call(s.all(), s.all(), s.rows(), {1, 4, 3}); }));
}

} // namespace deft::testing

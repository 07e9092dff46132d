#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/attention/linear_attention_combine.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

namespace {

/// Three spans of two heads, 3 x 4 states.
struct span_values {
    std::vector<double> decay, scale, state, norm;

    explicit span_values(std::uint64_t seed) {
        random_values random(seed);
        decay = random.uniform({2}, 0.1, 1).values;
        scale = random.normal({2}, 5).values;
        state = random.normal({2, 3, 4}).values;
        norm = random.uniform({2, 3}, 0, 1).values;
    }
    linear_attention_span<double> plain() {
        return {decay, {state.data(), {2, 3, 4}}, {norm.data(), {2, 3}}};
    }
    linear_attention_scaled_span<double> scaled() {
        return {decay, scale, {state.data(), {2, 3, 4}}, {norm.data(), {2, 3}}};
    }
};

linear_attention_span<const double> read(const linear_attention_span<double>& s) {
    return {s.decay, s.state, s.norm};
}
linear_attention_scaled_span<const double> read(const linear_attention_scaled_span<double>& s) {
    return {s.log_decay, s.log_scale, s.state, s.norm};
}

template <class Of>
void check_associative(Of of) {
    span_values a(1), b(2), c(3), left(4), right(5);
    linear_attention_combine(read(of(a)), read(of(b)), of(left));
    linear_attention_combine(read(of(left)), read(of(c)), of(left)); // in place
    linear_attention_combine(read(of(b)), read(of(c)), of(right));
    linear_attention_combine(read(of(a)), read(of(right)), of(right));
    for (std::size_t i = 0; i < left.state.size(); ++i)
        CHECK_THAT(left.state[i], Catch::Matchers::WithinAbs(right.state[i], 1e-13));
    for (std::size_t i = 0; i < left.norm.size(); ++i)
        CHECK_THAT(left.norm[i], Catch::Matchers::WithinAbs(right.norm[i], 1e-13));
    CHECK_THAT(left.decay[1], Catch::Matchers::WithinAbs(right.decay[1], 1e-13));
    linear_attention_combine(read(of(b)), read(of(a)), of(right));
    linear_attention_combine(read(of(a)), read(of(b)), of(left));
    CHECK(std::abs(left.state[0] - right.state[0]) > 1e-3); // but not commutative
}

} // namespace

TEST_CASE("combining spans is associative and not commutative", "[linear_attention_combine]") {
    check_associative([](span_values& v) { return v.plain(); });
    check_associative([](span_values& v) { return v.scaled(); });
}

TEST_CASE("the empty span changes nothing", "[linear_attention_combine]") {
    span_values a(1), empty(2), out(3);
    empty.decay = {1, 1};
    empty.state.assign(24, 0);
    empty.norm.assign(6, 0);
    linear_attention_combine(read(a.plain()), read(empty.plain()), out.plain());
    CHECK((out.state == a.state && out.norm == a.norm && out.decay == a.decay));
    linear_attention_combine(read(empty.plain()), read(a.plain()), out.plain());
    CHECK((out.state == a.state && out.norm == a.norm && out.decay == a.decay));
    empty.decay = {0, 0};
    empty.scale.assign(2, -std::numeric_limits<double>::infinity());
    linear_attention_combine(read(a.scaled()), read(empty.scaled()), out.scaled());
    CHECK((out.state == a.state && out.scale == a.scale));
    linear_attention_combine(read(empty.scaled()), read(empty.scaled()), out.scaled());
    CHECK((out.state == empty.state && out.scale == empty.scale));
}

TEST_CASE("linear_attention_combine rejects what does not fit", "[linear_attention_combine]") {
    bad_input bad("linear_attention_combine");
    const std::vector<float> x(100, 1.0f);
    float* const o = bad.output<float>(100);
    const auto call = [&](shape<1> n, shape<3> first, shape<2> norm, shape<1> out) {
        linear_attention_combine<float>({{x.data(), n}, {x.data(), first}, {x.data(), norm}},
                                        {{x.data(), {2}}, {x.data(), {2, 3, 4}}, {x.data(), {2, 3}}},
                                        {{o, out}, {o, {2, 3, 4}}, {o, {2, 3}}});
    };
    CHECK(bad.rejects("first", [&] { call({2}, {2, 4, 4}, {2, 3}, {2}); }));
    CHECK(bad.rejects("first", [&] { call({2}, {2, 3, 4}, {2, 4}, {2}); }));
    CHECK(bad.rejects("decay", [&] { call({3}, {2, 3, 4}, {2, 3}, {2}); }));
    CHECK(bad.rejects("decay", [&] { call({2}, {2, 3, 4}, {2, 3}, {1}); }));
}

} // namespace deft::testing

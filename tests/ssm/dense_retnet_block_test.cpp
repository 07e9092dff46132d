#include "support/allocations.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/generate.hpp"

#include <deft/ssm/dense_retnet_block.hpp>

#include <cmath>
#include <deque>
#include <vector>

namespace deft::testing {

namespace {

/// A stack with random weights, and views of them.
template <class T>
struct retnet {
    dense_retnet_options options;
    std::deque<std::vector<T>> memory;
    std::vector<dense_retnet_layer<T>> layers;

    explicit retnet(const dense_retnet_options& o, index middle = 3) : options(o) {
        random_values random(13);
        const auto keep = [&](const tensor& t) -> const std::vector<T>& {
            return memory.emplace_back(t.values.begin(), t.values.end());
        };
        const auto matrix = [&](index rows, index columns) {
            return view<const T, 2>(keep(random.normal({rows, columns}, 1 / std::sqrt(double(columns)))).data(),
                                    {rows, columns});
        };
        const auto vector = [&](index width) { return view<const T, 1>(keep(random.uniform({width}, 0.7, 1.3))); };
        for (index l = 0; l < o.layers; ++l)
            layers.push_back({.input_norm = vector(o.width),
                              .wq = matrix(o.key_width, o.width),
                              .wk = matrix(o.key_width, o.width),
                              .wvg = matrix(2 * o.value_width, o.width),
                              .k_sel1 = matrix(middle, o.width),
                              .k_sel2 = matrix(o.key_width, middle),
                              .v_sel1 = matrix(middle, o.width),
                              .v_sel2 = matrix(o.value_width, middle),
                              .k_norm = vector(o.key_width),
                              .v_norm = vector(o.value_width),
                              .group_norm = vector(o.value_width / o.heads),
                              .wo = matrix(o.width, o.value_width)});
    }
    view<const T, 3> tokens(const std::vector<T>& x, index batch, index begin, index count) const {
        const index n = index(x.size()) / (batch * options.width);
        return {x.data() + begin * options.width,
                {batch, count, options.width},
                {n * options.width, options.width, index{1}}};
    }
    view<T, 3> tokens(std::vector<T>& x, index batch, index begin, index count) const {
        const view<const T, 3> v = tokens(std::as_const(x), batch, begin, count);
        return {x.data() + begin * options.width, {batch, count, options.width}, {v.stride(0), v.stride(1), index{1}}};
    }
};

const dense_retnet_options small_retnet{
    .width = 12, .key_width = 8, .value_width = 24, .heads = 2, .layers = 4, .window = 2, .chunk = 16};

} // namespace

TEST_CASE("prefill and decoding of DenseRetNet are one function", "[dense_retnet_block]") {
    const retnet<double> net(small_retnet);
    const index batch = 2, n = 50;
    random_values random(14);
    const std::vector<double> x = random.normal({batch, n, small_retnet.width}).values;
    std::vector<double> whole(x.size()), parts(x.size());
    dense_retnet_plan<double> plan(small_retnet);
    dense_retnet_state<double> all(batch, small_retnet);
    deft::dense_retnet_block<double>(net.tokens(x, batch, 0, n), net.layers, net.tokens(whole, batch, 0, n), all, plan);
    CHECK(all.position == n);
    for (const index prompt : {1, 15, 16, 17, 40}) {
        dense_retnet_state<double> state(batch, small_retnet);
        deft::dense_retnet_block<double>(net.tokens(x, batch, 0, prompt), net.layers,
                                         net.tokens(parts, batch, 0, prompt), state, plan);
        const dense_retnet_state<double> snapshot = state;
        const auto decode = [&] {
            for (index i = prompt; i < n; ++i)
                deft::dense_retnet_block<double>(net.tokens(x, batch, i, 1), net.layers, net.tokens(parts, batch, i, 1),
                                                 state, plan);
        };
        decode();
        CHECK(largest_difference(parts, whole) < 1e-12);
        CHECK_THAT(state.scale()(1), Catch::Matchers::WithinRel(all.scale()(1), 1e-14));
        const std::vector<double> once = parts;
        state = snapshot;
        decode();
        CHECK(parts == once);
    }
}

TEST_CASE("sequences of a batch do not see each other", "[dense_retnet_block]") {
    const retnet<double> net(small_retnet);
    const index n = 20;
    random_values random(15);
    const std::vector<double> x = random.normal({2, n, small_retnet.width}).values,
                              second(x.begin() + n * small_retnet.width, x.end());
    std::vector<double> both(x.size()), alone(second.size());
    dense_retnet_plan<double> plan(small_retnet);
    dense_retnet_state<double> pair(2, small_retnet), single(1, small_retnet);
    deft::dense_retnet_block<double>(net.tokens(x, 2, 0, n), net.layers, net.tokens(both, 2, 0, n), pair, plan);
    deft::dense_retnet_block<double>(net.tokens(second, 1, 0, n), net.layers, net.tokens(alone, 1, 0, n), single, plan);
    CHECK(largest_difference({both.begin() + n * small_retnet.width, both.end()}, alone) == 0);
}

TEST_CASE("without eps the head norm removes the norm of rows", "[dense_retnet_block]") {
    dense_retnet_options options = small_retnet;
    options.eps = 0;
    const retnet<double> net(options);
    const index n = 30;
    random_values random(16);
    const std::vector<double> x = random.normal({1, n, options.width}).values;
    std::vector<double> decoded(x.size()), trained(x.size());
    const auto run = [&](retention_row_norm norm, double most, std::vector<double>& y) {
        options.row_norm = norm;
        options.clamp_max = most;
        dense_retnet_plan<double> plan(options);
        dense_retnet_state<double> state(1, options);
        deft::dense_retnet_block<double>(net.tokens(x, 1, 0, n), net.layers, net.tokens(y, 1, 0, n), state, plan);
        return state;
    };
    auto state = run(retention_row_norm::none, HUGE_VAL, decoded);
    auto other = run(retention_row_norm::abs_sum, 5e4, trained);
    CHECK(largest_difference(decoded, trained) < 1e-11);
    CHECK(std::abs(state.layer(3)(0, 1, 2, 3) - other.layer(3)(0, 1, 2, 3)) < 1e-11);
    run(retention_row_norm::sum_abs, HUGE_VAL, trained);
    CHECK(largest_difference(decoded, trained) < 1e-11);
}

TEST_CASE("a step of decoding DenseRetNet does not allocate", "[dense_retnet_block]") {
    const retnet<float> net(small_retnet);
    std::vector<float> x(std::size_t(3 * small_retnet.width), 0.5f);
    dense_retnet_plan<float> plan(small_retnet);
    dense_retnet_state<float> state(3, small_retnet);
    const auto step = [&] {
        deft::dense_retnet_block<float>(net.tokens(std::as_const(x), 3, 0, 1), net.layers, net.tokens(x, 3, 0, 1),
                                        state, plan); // in place
    };
    step();
    const long before = allocations();
    step();
    CHECK(allocations() == before);
}

TEST_CASE("dense_retnet_block rejects what does not fit", "[dense_retnet_block]") {
    const retnet<double> net(small_retnet);
    bad_input bad("dense_retnet_block"), bad_plan("dense_retnet_plan");
    const std::vector<double> x(200, 1.0);
    double* const y = bad.output<double>(200);
    const auto rejects = [&](const char* name, auto change) {
        return bad.rejects(name, [&] {
            dense_retnet_plan<double> plan(small_retnet);
            dense_retnet_state<double> state(1, small_retnet);
            auto layers = net.layers;
            shape<3> in{1, 3, 12}, to{1, 3, 12};
            change(layers, state, in, to);
            deft::dense_retnet_block<double>({x.data(), in}, layers, view<double, 3>(y, to), state, plan);
        });
    };
    using layers_type = std::vector<dense_retnet_layer<double>>;
    using state_type = dense_retnet_state<double>;
    using S = shape<3>;
    CHECK(rejects("x", [](layers_type&, state_type&, S& in, S& to) { in = to = {1, 3, 11}; }));
    CHECK(rejects("y", [](layers_type&, state_type&, S&, S& to) { to = {1, 4, 12}; }));
    CHECK(rejects("state", [](layers_type&, state_type&, S& in, S& to) { in = to = {2, 3, 12}; }));
    CHECK(rejects("state", [](layers_type&, state_type& state, S&, S&) {
        dense_retnet_options wide = small_retnet;
        wide.value_width = 48;
        state = state_type(1, wide);
    }));
    CHECK(rejects("layers", [](layers_type& layers, state_type&, S&, S&) { layers.pop_back(); }));
    CHECK(rejects("wq", [](layers_type& layers, state_type&, S&, S&) { layers[0].wq = layers[0].wo; }));
    CHECK(rejects("wvg", [](layers_type& layers, state_type&, S&, S&) { layers[0].wvg = layers[0].wq; }));
    CHECK(rejects("wo", [](layers_type& layers, state_type&, S&, S&) { layers[2].wo = layers[0].wk; }));
    CHECK(rejects("input_norm", [](layers_type& layers, state_type&, S&, S&) { layers[1].input_norm = {}; }));
    CHECK(rejects("k_sel2", [](layers_type& layers, state_type&, S&, S&) { layers[3].k_sel2 = layers[3].v_sel2; }));
    CHECK(rejects("v_norm", [](layers_type& layers, state_type&, S&, S&) { layers[1].v_norm = layers[1].k_norm; }));
    CHECK(rejects("group_norm",
                  [](layers_type& layers, state_type&, S&, S&) { layers[0].group_norm = layers[0].v_norm; }));
    CHECK(bad.rejects("state", [&] {
        dense_retnet_options trained = small_retnet;
        trained.row_norm = retention_row_norm::abs_sum;
        dense_retnet_plan<double> plan(trained);
        dense_retnet_state<double> state(1, trained);
        state.position = 3;
        deft::dense_retnet_block<double>({x.data(), {1, 3, 12}}, net.layers, view<double, 3>(y, {1, 3, 12}), state,
                                         plan);
    }));

    const auto rejects_plan = [&](const char* name, auto change) {
        dense_retnet_options o = small_retnet;
        change(o);
        return bad_plan.rejects(name, [&] { dense_retnet_plan<double> plan(o); });
    };
    using options = dense_retnet_options;
    CHECK(rejects_plan("heads", [](options& o) { o.heads = 0; }));
    CHECK(rejects_plan("width", [](options& o) { o.width = 13; }));
    CHECK(rejects_plan("key_width", [](options& o) { o.key_width = 9; }));
    CHECK(rejects_plan("key_width", [](options& o) { o.key_width = 6; }));
    CHECK(rejects_plan("value_width", [](options& o) { o.value_width = 25; }));
    CHECK(rejects_plan("layers", [](options& o) { o.layers = 0; }));
    CHECK(rejects_plan("window", [](options& o) { o.window = 0; }));
    CHECK(rejects_plan("eps", [](options& o) { o.eps = -1; }));
    CHECK(rejects_plan("base", [](options& o) { o.base = 0; }));
    CHECK(rejects_plan("clamp_max", [](options& o) { o.clamp_max = 0.5; }));
    CHECK(rejects_plan("chunk", [](options& o) { o.chunk = 0; }));
    options single = small_retnet;
    single.layers = 1;
    single.window = 0;
    CHECK_NOTHROW(dense_retnet_plan<double>(single));
}

} // namespace deft::testing

#include "support/allocations.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/generate.hpp"

#include <deft/ssm/dense_mamba_block.hpp>

#include <cmath>
#include <deque>
#include <utility>
#include <vector>

namespace deft::testing {

namespace {

/// A stack with random weights, and views of them.
template <class T>
struct mamba {
    dense_mamba_options options;
    std::deque<std::vector<T>> memory;
    std::vector<dense_mamba_layer<T>> layers;

    explicit mamba(const dense_mamba_options& o) : options(o) {
        random_values random(17);
        const auto keep = [&](const tensor& t) -> const std::vector<T>& {
            return memory.emplace_back(t.values.begin(), t.values.end());
        };
        const auto matrix = [&](index rows, index columns) {
            return view<const T, 2>(keep(random.normal({rows, columns}, 1 / std::sqrt(double(columns)))).data(),
                                    {rows, columns});
        };
        const auto vector = [&](index width, double low, double high) {
            return view<const T, 1>(keep(random.uniform({width}, low, high)));
        };
        const index e = o.channels, n = o.states;
        for (index l = 0; l < o.layers; ++l)
            layers.push_back({.norm = vector(o.width, 0.7, 1.3),
                              .in_proj = matrix(2 * e, o.width),
                              .conv_weight = matrix(e, o.taps),
                              .conv_bias = vector(e, -0.1, 0.1),
                              .x_proj = matrix(o.rank + 2 * n, e),
                              .dt_proj = matrix(e, o.rank),
                              .dt_bias = vector(e, -6, -2),
                              .A = {keep(random.uniform({e, n}, -16, -1)).data(), {e, n}},
                              .D = vector(e, 0.5, 1.5),
                              .out_proj = matrix(o.width, e),
                              .sel1 = matrix(3, o.width),
                              .sel2 = matrix(e, 3)});
    }
    template <class V>
    view<V, 3> tokens(V* x, index batch, index n, index begin, index count) const {
        return {x + begin * options.width, {batch, count, options.width}, {n * options.width, options.width, index{1}}};
    }
    /// All tokens from an empty state.
    std::vector<T> run(const std::vector<T>& x, index batch, dense_mamba_state<T>& state, index window,
                       fusion_point point = fusion_point::readout, index chunk = 16) const {
        dense_mamba_options o = options;
        o.window = window;
        o.point = point;
        o.chunk = chunk;
        dense_mamba_plan<T> plan(o);
        const index n = index(x.size()) / (batch * options.width);
        std::vector<T> y(x.size());
        deft::dense_mamba_block<T>(tokens(x.data(), batch, n, 0, n), layers, tokens(y.data(), batch, n, 0, n), state,
                                   plan);
        return y;
    }
};

const dense_mamba_options small_mamba{
    .width = 10, .channels = 19, .states = 8, .rank = 2, .taps = 4, .layers = 4, .window = 2, .chunk = 16};

} // namespace

TEST_CASE("prefill and decoding of DenseMamba are one function", "[dense_mamba_block]") {
    const mamba<double> net(small_mamba);
    const index batch = 2, n = 50;
    random_values random(18);
    const std::vector<double> x = random.normal({batch, n, small_mamba.width}).values;
    for (const fusion_point point : {fusion_point::readout, fusion_point::recurrent}) {
        dense_mamba_options o = small_mamba;
        o.point = point;
        dense_mamba_plan<double> plan(o);
        dense_mamba_state<double> all(batch, small_mamba);
        const std::vector<double> whole = net.run(x, batch, all, 2, point);
        for (const index prompt : {1, 2, 15, 16, 17, 40}) {
            std::vector<double> parts(x.size());
            dense_mamba_state<double> state(batch, small_mamba);
            const auto call = [&](index begin, index count) {
                deft::dense_mamba_block<double>(net.tokens(x.data(), batch, n, begin, count), net.layers,
                                                net.tokens(parts.data(), batch, n, begin, count), state, plan);
            };
            call(0, prompt);
            const dense_mamba_state<double> snapshot = state;
            for (index i = prompt; i < n; ++i)
                call(i, 1);
            CHECK(largest_difference(parts, whole) < 1e-12);
            const std::vector<double> once = parts;
            state = snapshot;
            for (index i = prompt; i < n; ++i)
                call(i, 1);
            CHECK(parts == once);
        }
    }
}

TEST_CASE("gates of zero leave plain Mamba, and fusion in the read-out leaves states alone", "[dense_mamba_block]") {
    mamba<double> net(small_mamba);
    random_values random(19);
    const std::vector<double> x = random.normal({1, 40, small_mamba.width}).values;
    const auto state_of = [](dense_mamba_state<double>& s, index l) {
        return std::vector<double>(s.scan(l).data(), s.scan(l).data() + s.scan(l).size());
    };
    dense_mamba_state<double> plain(1, small_mamba), read(1, small_mamba), carried(1, small_mamba);
    const std::vector<double> y = net.run(x, 1, plain, 0), fused = net.run(x, 1, read, 2),
                              other = net.run(x, 1, carried, 2, fusion_point::recurrent);
    CHECK(largest_difference(y, fused) > 1e-3);
    CHECK(largest_difference(fused, other) > 1e-3);
    // What layer 1 gets is what layer 0 gives, which nothing is fused with.
    CHECK(state_of(read, 0) == state_of(plain, 0));
    CHECK(largest_difference(state_of(read, 1), state_of(plain, 1)) < 1e-13);
    CHECK(largest_difference(state_of(carried, 1), state_of(plain, 1)) > 1e-3);

    const std::vector<double> zeros(std::size_t(small_mamba.channels * 3), 0.0);
    for (auto& layer : net.layers)
        layer.sel2 = {zeros.data(), {small_mamba.channels, 3}};
    for (const fusion_point point : {fusion_point::readout, fusion_point::recurrent})
        for (const index chunk : {1, 7, 64}) {
            dense_mamba_state<double> state(1, small_mamba);
            CHECK(largest_difference(net.run(x, 1, state, 2, point, chunk), y) < 1e-12);
        }
}

TEST_CASE("a window beyond the first layer is as long as it can be", "[dense_mamba_block]") {
    const mamba<double> net(small_mamba);
    random_values random(20);
    const std::vector<double> x = random.normal({1, 20, small_mamba.width}).values;
    dense_mamba_state<double> a(1, small_mamba), b(1, small_mamba), c(1, small_mamba);
    const std::vector<double> all = net.run(x, 1, a, 3);
    CHECK(net.run(x, 1, b, 100) == all);
    CHECK(largest_difference(net.run(x, 1, c, 1), all) > 1e-3);
}

TEST_CASE("a step of decoding DenseMamba does not allocate", "[dense_mamba_block]") {
    const mamba<float> net(small_mamba);
    std::vector<float> x(std::size_t(3 * small_mamba.width), 0.5f);
    dense_mamba_plan<float> plan(small_mamba);
    dense_mamba_state<float> state(3, small_mamba);
    const auto step = [&] {
        deft::dense_mamba_block<float>(net.tokens(std::as_const(x).data(), 3, 1, 0, 1), net.layers,
                                       net.tokens(x.data(), 3, 1, 0, 1), state, plan); // in place
    };
    step();
    const long before = allocations();
    step();
    CHECK(allocations() == before);
}

TEST_CASE("dense_mamba_block rejects what does not fit", "[dense_mamba_block]") {
    const mamba<double> net(small_mamba);
    bad_input bad("dense_mamba_block"), bad_plan("dense_mamba_plan");
    const std::vector<double> x(200, 1.0);
    double* const y = bad.output<double>(200);
    using layers_type = std::vector<dense_mamba_layer<double>>;
    const auto rejects = [&](const char* name, const std::function<void(layers_type&)>& change,
                             shape<3> in = {1, 3, 10}, shape<3> to = {1, 3, 10}) {
        return bad.rejects(name, [&] {
            dense_mamba_plan<double> plan(small_mamba);
            dense_mamba_state<double> state(1, small_mamba);
            layers_type layers = net.layers;
            change(layers);
            deft::dense_mamba_block<double>({x.data(), in}, layers, view<double, 3>(y, to), state, plan);
        });
    };
    const auto nothing = [](layers_type&) {};
    CHECK(rejects("x", nothing, {1, 3, 11}, {1, 3, 11}));
    CHECK(rejects("y", nothing, {1, 3, 10}, {1, 4, 10}));
    CHECK(rejects("state", nothing, {2, 3, 10}, {2, 3, 10}));
    CHECK(rejects("layers", [](layers_type& l) { l.pop_back(); }));
    CHECK(rejects("norm", [](layers_type& l) { l[1].norm = l[1].D; }));
    CHECK(rejects("in_proj", [](layers_type& l) { l[0].in_proj = l[0].out_proj; }));
    CHECK(rejects("conv_weight", [](layers_type& l) { l[0].conv_weight = l[0].dt_proj; }));
    CHECK(rejects("conv_bias", [](layers_type& l) { l[0].conv_bias = l[0].norm; }));
    CHECK(rejects("x_proj", [](layers_type& l) { l[3].x_proj = l[3].out_proj; }));
    CHECK(rejects("dt_proj", [](layers_type& l) { l[0].dt_proj = l[0].conv_weight; }));
    CHECK(rejects("dt_bias", [](layers_type& l) { l[0].dt_bias = l[0].norm; }));
    CHECK(rejects("A", [](layers_type& l) { l[2].A = l[2].conv_weight; }));
    CHECK(rejects("D", [](layers_type& l) { l[0].D = l[0].norm; }));
    CHECK(rejects("out_proj", [](layers_type& l) { l[0].out_proj = l[0].in_proj; }));
    CHECK(rejects("sel1", [](layers_type& l) { l[1].sel1 = l[1].sel2; }));
    CHECK(rejects("sel2", [](layers_type& l) { l[1].sel2 = {}; }));

    const auto rejects_plan = [&](const char* name, auto change) {
        dense_mamba_options o = small_mamba;
        change(o);
        return bad_plan.rejects(name, [&] { dense_mamba_plan<double> plan(o); });
    };
    using options = dense_mamba_options;
    CHECK(rejects_plan("width", [](options& o) { o.width = 0; }));
    CHECK(rejects_plan("channels", [](options& o) { o.channels = 0; }));
    CHECK(rejects_plan("states", [](options& o) { o.states = 0; }));
    CHECK(rejects_plan("states", [](options& o) { o.states = 513; }));
    CHECK(rejects_plan("rank", [](options& o) { o.rank = 0; }));
    CHECK(rejects_plan("taps", [](options& o) { o.taps = 0; }));
    CHECK(rejects_plan("layers", [](options& o) { o.layers = 0; }));
    CHECK(rejects_plan("window", [](options& o) { o.window = -1; }));
    CHECK(rejects_plan("eps", [](options& o) { o.eps = -1; }));
    CHECK(rejects_plan("chunk", [](options& o) { o.chunk = 0; }));
}

} // namespace deft::testing

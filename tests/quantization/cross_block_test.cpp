#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/quantization/blocks.hpp>
#include <deft/quantization/cross_block.hpp>

#include <cmath>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace deft::testing {

namespace {

using namespace deft::quantization;

constexpr index features = 16, hidden = 24, samples = 6, tokens = 8;

/// Gated FFNs in a row, with some outliers in weights and channels.
struct small_model {
    explicit small_model(index count, std::uint64_t seed = 30) {
        random_values random(seed);
        gain = random.uniform({features}, 0.5, 1.5).values;
        gain[3] = 12;
        for (index b = 0; b < count; ++b)
            for (const extents& shape :
                 {extents{hidden, features}, extents{hidden, features}, extents{features, hidden}}) {
                weights.push_back(random.normal(shape, 1 / std::sqrt(double(shape[1]))).values);
                weights.back()[7] *= 6;
            }
        for (index b = 0; b < count; ++b) {
            const auto matrix = [&](index i, index rows, index columns) {
                return view<const double, 2>(weights[std::size_t(3 * b + i)].data(), {rows, columns});
            };
            blocks.push_back(gated_ffn_block<double>(
                "ffn " + std::to_string(b),
                {gain, matrix(0, hidden, features), matrix(1, hidden, features), matrix(2, features, hidden)}));
        }
        x = random.normal({samples, tokens, features}).values;
    }
    in<double, 3> data() const {
        return {x.data(), {samples, tokens, features}};
    }

    std::vector<double> gain, x;
    std::vector<std::vector<double>> weights;
    std::vector<block<double>> blocks;
};

cross_block_options small_options() {
    return {.layer = {.weights = {.bits = 2, .granularity = quant_granularity::per_group, .group_size = 8},
                      .activations = activation_steps::learned,
                      .activation_bits = 8,
                      .rank = 3},
            .objective = {.com_weight = 0.1, .com_reduction = loss_reduction::mean},
            .rates = {2e-2, 2e-3, 1e-3},
            .epochs = 25,
            .seed = 5};
}

/// Mean square of what the quantised model gets wrong.
double error_of(cross_block<double>& method, const small_model& m) {
    double sum = 0;
    for (index n = 0; n < samples; ++n) {
        std::vector<double> exact(m.x.begin() + n * tokens * features, m.x.begin() + (n + 1) * tokens * features);
        std::vector<double> x = exact, y(x.size());
        for (std::size_t b = 0; b < m.blocks.size(); ++b) {
            method.forward(index(b), {x.data(), {tokens, features}}, {y.data(), {tokens, features}});
            x.swap(y);
            std::vector<learned_linear<double>> layers;
            for (const auto& l : m.blocks[b].layers)
                layers.emplace_back(l, layer_options{.weights = {.bits = 8}});
            layer_runner<double> plain(layers, layer_runner<double>::mode::full_precision);
            m.blocks[b].forward({exact.data(), {tokens, features}}, {y.data(), {tokens, features}}, plain);
            exact.swap(y);
        }
        for (std::size_t i = 0; i < x.size(); ++i)
            sum += (x[i] - exact[i]) * (x[i] - exact[i]) / double(m.x.size());
    }
    return sum;
}

void check_same(const cross_block<double>& left, const cross_block<double>& right, index count) {
    for (index b = 0; b < count; ++b) {
        const auto one = left.result(b), other = right.result(b);
        REQUIRE(one.size() == other.size());
        for (std::size_t i = 0; i < one.size(); ++i) {
            CHECK(one[i].codes == other[i].codes);
            CHECK(one[i].scale == other[i].scale);
            CHECK(one[i].zero_point == other[i].zero_point);
            CHECK(one[i].channel_scale == other[i].channel_scale);
            CHECK(one[i].activation_scale == other[i].activation_scale);
        }
    }
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

std::string message_of(const std::function<void()>& f) {
    try {
        f();
    } catch (const std::invalid_argument& e) {
        return e.what();
    }
    return "";
}

} // namespace

TEST_CASE("nothing learned, nothing pre-processed: round to nearest", "[cross_block]") {
    const small_model m(2);
    cross_block_options options = small_options();
    options.epochs = 0;
    options.layer.truncate = cfp_weights::none;
    options.layer.scale = cfp_activations::none;
    cross_block<double> method(m.blocks, options);
    CHECK(method.run(m.data()));
    for (index b = 0; b < 2; ++b) {
        const auto layers = method.result(b);
        for (std::size_t i = 0; i < 3; ++i) {
            const quantized_layer<double>& l = layers[i];
            const index groups = (l.inputs + 7) / 8;
            const shape<2> size{l.outputs, l.inputs}, steps{l.outputs, groups};
            const std::vector<double>& w = m.weights[std::size_t(3 * b) + i];
            std::vector<double> scale(l.scale.size()), y(w.size());
            std::vector<quant_code> zero(scale.size()), q(w.size());
            deft::quant_params<double>({w.data(), size}, {scale.data(), steps}, {zero.data(), steps},
                                       {.format = options.layer.weights});
            deft::fake_quantize<double>({w.data(), size}, {scale.data(), steps}, {zero.data(), steps}, {y.data(), size},
                                        {q.data(), size}, {.format = options.layer.weights});
            CHECK(l.scale == scale);
            CHECK(l.channel_scale.empty());
            for (std::size_t k = 0; k < q.size(); ++k) {
                CHECK(quant_code(l.codes[k]) == q[k] + 2);
                const std::size_t s = k / std::size_t(l.inputs) * std::size_t(groups) + k % std::size_t(l.inputs) / 8;
                CHECK(l.scale[s] * (double(l.codes[k]) - double(l.zero_point[s])) == y[k]);
            }
        }
    }
}

TEST_CASE("learning over two blocks beats rounding to nearest", "[cross_block]") {
    const small_model m(3);
    cross_block_options nearest = small_options();
    nearest.epochs = 0;
    nearest.layer.truncate = cfp_weights::none;
    nearest.layer.scale = cfp_activations::none;
    cross_block<double> plain(m.blocks, nearest), learned(m.blocks, small_options());
    plain.run(m.data());
    double first = 0, last = 0;
    std::vector<block_window> windows;
    CHECK(learned.run(m.data(), [&](const cross_block_progress& at) {
        if (at.step == 1) {
            windows.push_back(at.blocks);
            first = last = 0;
        }
        // Sums over the first and the last epoch: samples differ.
        first += at.step <= samples ? at.losses.reconstruction : 0;
        last += at.step > at.steps - samples ? at.losses.reconstruction : 0;
        CHECK(at.steps == 25 * samples);
        CHECK(at.windows == 2);
        CHECK(at.stepped);
        return reply::proceed;
    }));
    REQUIRE(windows.size() == 2);
    CHECK(windows[1].begin == 1);
    CHECK(windows[1].end == 3);
    CHECK(last < first);
    CHECK(error_of(learned, m) < 0.5 * error_of(plain, m));
}

TEST_CASE("a crash loses nothing, whenever it comes", "[cross_block]") {
    const small_model m(3);
    cross_block_options options = small_options();
    options.epochs = 3;
    options.batch = 4;
    cross_block<double> whole(m.blocks, options);
    whole.run(m.data());
    const index steps = 2 * 2 * 3; // windows, batches, epochs
    for (index crash = 1; crash <= steps; ++crash) {
        std::string state;
        {
            cross_block<double> first(m.blocks, options);
            index step = 0;
            CHECK_THROWS_AS(first.run(m.data(),
                                      [&](const cross_block_progress&) -> reply {
                                          if (++step < crash)
                                              return reply::proceed;
                                          std::ostringstream to;
                                          first.save(to);
                                          state = to.str();
                                          throw std::runtime_error("power failure");
                                      }),
                            std::runtime_error);
        }
        cross_block<double> second(m.blocks, options);
        std::istringstream from(state);
        second.load(from);
        CHECK(second.run(m.data()));
        check_same(whole, second, 3);
    }
    // Done is done: the finished state runs no step.
    std::stringstream done;
    whole.save(done);
    cross_block<double> third(m.blocks, options);
    third.load(done);
    CHECK(third.is_complete());
    CHECK(third.run(m.data(), [](const cross_block_progress&) -> reply { throw std::logic_error("a step"); }));
    check_same(whole, third, 3);
}

TEST_CASE("a run that is stopped goes on where it was", "[cross_block]") {
    const small_model m(2);
    cross_block_options options = small_options();
    options.epochs = 2;
    options.windows = {.window = 1, .overlap = 0};
    cross_block<double> whole(m.blocks, options), stopped(m.blocks, options);
    CHECK(whole.run(m.data()));
    index runs = 0;
    while (!stopped.run(
        m.data(), [](const cross_block_progress& at) { return at.step % 5 == 0 ? reply::stop : reply::proceed; })) {
        ++runs;
        CHECK_FALSE(stopped.is_complete());
        REQUIRE(runs < 10);
    }
    CHECK(runs == 4); // of 12 steps each window stops after 5 and 10
    check_same(whole, stopped, 2);
}

TEST_CASE("seeds decide, and nothing else", "[cross_block]") {
    const small_model m(2);
    cross_block_options options = small_options();
    options.epochs = 2;
    cross_block<double> first(m.blocks, options), second(m.blocks, options);
    first.run(m.data());
    second.run(m.data());
    check_same(first, second, 2);
    options.seed = 6;
    cross_block<double> other(m.blocks, options);
    other.run(m.data());
    CHECK(other.result(0)[0].scale != first.result(0)[0].scale);
}

TEST_CASE("data that is not finite is refused by block and sample", "[cross_block]") {
    small_model m(2);
    cross_block<double> method(m.blocks, small_options());
    m.x[4 * tokens * features + 17] = std::numeric_limits<double>::quiet_NaN();
    const std::string input = message_of([&] { method.run(m.data()); });
    CHECK(contains(input, "block 0"));
    CHECK(contains(input, "sample 4"));
    m.x[4 * tokens * features + 17] = 0;

    // A model that overflows in its second block.
    std::vector<block<double>> broken = m.blocks;
    const auto forward = broken[1].forward;
    int calls = 0;
    broken[1].forward = [=, &calls](view<const double, 2> x, view<double, 2> y, linear_runner<double>& run) {
        forward(x, y, run);
        if (++calls == 3)
            y(1, 2) = std::numeric_limits<double>::infinity();
    };
    cross_block<double> second(broken, small_options());
    const std::string output = message_of([&] { second.run(m.data()); });
    CHECK(contains(output, "block 1 (ffn 1)"));
    CHECK(contains(output, "sample 2"));
}

TEST_CASE("a loss that is not finite changes nothing", "[cross_block]") {
    const small_model m(1);
    std::vector<block<double>> model = m.blocks;
    const auto forward = model[0].forward;
    bool spoil = false;
    model[0].forward = [=, &spoil](view<const double, 2> x, view<double, 2> y, linear_runner<double>& run) {
        forward(x, y, run);
        if (spoil)
            y(0, 0) = std::numeric_limits<double>::quiet_NaN();
    };
    cross_block_options options = small_options();
    options.epochs = 1;
    cross_block<double> method(model, options);
    index refused = 0;
    // Targets are computed before the first step; from the first callback on every loss is NaN.
    method.run(m.data(), [&](const cross_block_progress& at) {
        refused += !at.stepped;
        spoil = true;
        return reply::proceed;
    });
    CHECK(refused == samples - 1);
    for (const auto& l : method.result(0))
        for (const double s : l.scale)
            CHECK(std::isfinite(s));
}

TEST_CASE("damaged and foreign states are refused", "[cross_block]") {
    const small_model m(2), other(3);
    cross_block_options options = small_options();
    options.epochs = 1;
    cross_block<double> method(m.blocks, options);
    method.run(m.data());
    std::ostringstream to;
    method.save(to);
    const std::string state = to.str();
    const auto load = [](const small_model& model, const cross_block_options& o, const std::string& bytes) {
        return message_of([&] {
            cross_block<double> fresh(model.blocks, o);
            std::istringstream from(bytes);
            fresh.load(from);
        });
    };
    CHECK(load(m, options, state).empty());
    CHECK(contains(load(m, options, state.substr(0, state.size() / 2)), "ends early"));
    CHECK(contains(load(m, options, ""), "ends early"));
    CHECK(contains(load(other, options, state), "number of blocks"));
    cross_block_options bits = options;
    bits.layer.weights.bits = 4;
    CHECK(contains(load(m, bits, state), "bits"));
    cross_block_options rate = options;
    rate.rates.rounding *= 2;
    CHECK(contains(load(m, rate, state), "rates.rounding"));
    cross_block_options objective = options;
    objective.objective.com_reduction =
        options.objective.com_reduction == loss_reduction::mean ? loss_reduction::sum : loss_reduction::mean;
    CHECK(contains(load(m, objective, state), "com_reduction"));
    for (const std::size_t at : {std::size_t(3), state.size() / 3, state.size() / 2, state.size() - 2}) {
        std::string damaged = state;
        damaged[at] = char(damaged[at] ^ 0x20);
        CHECK_FALSE(load(m, options, damaged).empty());
    }
}

TEST_CASE("cross_block rejects options and models that make no sense", "[cross_block]") {
    const small_model m(2);
    const auto rejects = [&](const std::vector<block<double>>& model, const auto& change, const std::string& name) {
        cross_block_options options = small_options();
        change(options);
        CHECK(contains(message_of([&] { cross_block<double>(model, options); }), name));
    };
    rejects(
        {}, [](auto&) {}, "blocks");
    rejects(
        m.blocks, [](auto& o) { o.windows = {.window = 2, .overlap = 2}; }, "overlap");
    rejects(
        m.blocks, [](auto& o) { o.layer.weights.bits = 9; }, "bits");
    rejects(
        m.blocks, [](auto& o) { o.layer.activation_bits = 1; }, "bits");
    rejects(
        m.blocks, [](auto& o) { o.layer.weights.group_size = 0; }, "group_size");
    rejects(
        m.blocks, [](auto& o) { o.layer.rank = 0; }, "rank");
    rejects(
        m.blocks, [](auto& o) { o.batch = 0; }, "batch");
    rejects(
        m.blocks, [](auto& o) { o.epochs = -1; }, "epochs");
    rejects(
        m.blocks, [](auto& o) { o.rates.rounding = -1; }, "rates.rounding");
    rejects(
        m.blocks, [](auto& o) { o.beta_end = 0; }, "beta");
    rejects(
        m.blocks, [](auto& o) { o.layer.cfp.lambda1 = -1; }, "lambda1");
    std::vector<block<double>> model = m.blocks;
    model[1].inputs = 5;
    rejects(
        model, [](auto&) {}, "ffn 1");
    model = m.blocks;
    model[0].backward = nullptr;
    rejects(
        model, [](auto&) {}, "ffn 0");
    std::vector<double> broken = m.weights[1];
    broken[5] = std::numeric_limits<double>::quiet_NaN();
    model = m.blocks;
    model[0].layers[1].weight = view<const double, 2>(broken.data(), {hidden, features});
    rejects(
        model, [](auto&) {}, "up");

    cross_block<double> method(m.blocks, small_options());
    const std::vector<double> x(60, 1.0);
    CHECK_THROWS_AS(method.run({x.data(), {2, 6, 5}}), std::invalid_argument);
    CHECK_THROWS_AS(method.run({x.data(), {0, 6, features}}), std::invalid_argument);
    CHECK_THROWS_AS(method.result(0), std::invalid_argument);
    CHECK_THROWS_AS(method.result(2), std::invalid_argument);
}

} // namespace deft::testing

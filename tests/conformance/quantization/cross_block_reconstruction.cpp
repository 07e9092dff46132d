#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/quantization/cross_block_reconstruction.hpp>
#include <deft/quantization/cross_block_window.hpp>
#include <deft/reference/quantization/cross_block_reconstruction.hpp>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace deft::testing {

struct window_schedule {
    template <class T>
    static void bind(call<T>& c) {
        const index blocks = c.integer("blocks");
        const window_options options{.window = c.integer("window"), .overlap = c.integer("overlap")};
        const auto windows = c.output(rank<2, index>, "out.windows", {window_count(blocks, options), 2});
        c.forward("direct", [=](any_executor&) {
            for (index i = 0; i < windows.extent(0); ++i) {
                const block_window w = deft::window_schedule(blocks, i, options);
                windows(i, 0) = w.begin;
                windows(i, 1) = w.end;
            }
        });
        c.may_allocate("the reference's list");
        c.reference([=] {
            index i = 0;
            for (const auto& [begin, end] : reference::window_schedule(blocks, options.window, options.overlap)) {
                windows(i, 0) = begin;
                windows(i++, 1) = end;
            }
        });
    }

    static std::vector<test_case> cases() {
        std::vector<test_case> cases;
        for (index blocks = 1; blocks <= 9; ++blocks)
            for (index window = 1; window <= 5; ++window)
                for (index overlap = 0; overlap < window; ++overlap)
                    cases.push_back(
                        {"window_schedule",
                         "generated",
                         {{"blocks", double(blocks)}, {"window", double(window)}, {"overlap", double(overlap)}},
                         {},
                         {}});
        return cases;
    }
};
DEFT_ADAPTER(window_schedule)

struct block_distance {
    template <class T>
    static void bind(call<T>& c) {
        const bool mean = c.text("reduction", "mean") == "mean";
        const block_distance_options options{.kl_weight = c.number("kl_weight", 1),
                                             .reduction = mean ? loss_reduction::mean : loss_reduction::sum};
        const tolerance bound = by_type<T>({.of_largest = 1e-4, .floor = 0}, {.of_largest = 1e-11, .floor = 0});
        const auto target = c.input(rank<2>, "in.target"), pred = c.input(rank<2>, "in.pred");
        const auto loss = c.output(rank<1>, "out.loss", {1}, {.bound = bound});
        c.forward("direct", [=](any_executor& e) { loss(0) = T(deft::block_distance<T>(target, pred, options, e)); });
        c.reference([=] { loss(0) = reference::block_distance<T>(target, pred, options.kl_weight, mean); });

        if (!c.has("grad_out.loss"))
            return;
        const double grad_loss = double(T(c.scalar("grad_out.loss")));
        const auto grad_pred = c.output(rank<2>, "grad_in.pred", c.shape("in.pred"), {.bound = bound});
        c.backward("direct", [=](any_executor& e) {
            deft::block_distance_backward(target, pred, grad_loss, grad_pred, options, e);
        });
        c.reference_backward([=] {
            reference::block_distance_backward<T>(target, pred, grad_loss, grad_pred, options.kl_weight, mean);
        });
    }

    static std::vector<test_case> cases() {
        random_values random(76);
        std::vector<test_case> cases;
        int turn = 0;
        const auto add = [&](const extents& shape, double spread = 1) {
            cases.push_back(
                {"block_distance",
                 "generated",
                 {{"kl_weight", turn % 4 == 3 ? 0.0 : 1.0 + turn % 3}, {"reduction", turn % 2 == 0 ? "mean" : "sum"}},
                 {{"in.target", random.normal(shape, spread)},
                  {"in.pred", random.normal(shape, spread)},
                  {"grad_out.loss", random.normal({})}},
                 {}});
            ++turn;
        };
        for (const index columns : length_sweep())
            if (columns > 0)
                for (int repeat = 0; repeat < 2; ++repeat)
                    add({3, columns});
        for (const index rows : {0, 1, 64, 65, 200})
            add({rows, 5});
        add({2, 3000});
        add({3, 40}, 300);
        add({3, 40}, 1e4);
        return cases;
    }
};
DEFT_ADAPTER(block_distance)

/// The spec's toy model, y = x + tanh(x Wa^T) Wb^T per block, through the very window that cross_block learns in.
struct cross_block_step {
    template <class T>
    struct linear {
        view<const T, 2> weight, a1, a2, sw, sx;
        view<T, 2> stepped[4], gradients[4]; // of a1, a2, sw, sx
    };
    template <class T>
    struct setting {
        view<const T, 2> x_fp, x_q;
        std::vector<std::vector<linear<T>>> blocks;
        quantization::layer_options layer{.weights = {.bits = 4}};
        quantization::window_objective objective;
        quantization::learning_rates rates;
        beta_schedule_options schedule{.t_max = 1};
    };

    template <class T>
    static quantization::block<T> toy_block(const std::vector<linear<T>>& linears) {
        const index width = linears[1].weight.extent(0), hidden = linears[0].weight.extent(0);
        const auto h = std::make_shared<std::vector<T>>(), g = std::make_shared<std::vector<T>>();
        const auto space = [hidden](std::vector<T>& v, index rows) {
            v.resize(std::size_t(rows * hidden));
            return view<T, 2>(v.data(), {rows, hidden});
        };
        quantization::block<T> b{"toy", width, width, {{"wa", linears[0].weight}, {"wb", linears[1].weight}}, {}, {}};
        b.forward = [=](view<const T, 2> x, view<T, 2> y, quantization::linear_runner<T>& run) {
            const view<T, 2> act = space(*h, x.extent(0));
            run.forward(0, x, act);
            for (T& v : *h)
                v = std::tanh(v);
            run.forward(1, act, y);
            for (index t = 0; t < x.extent(0); ++t)
                for (index c = 0; c < width; ++c)
                    y(t, c) += x(t, c);
        };
        b.backward = [=](view<const T, 2> grad_y, view<T, 2> grad_x, quantization::linear_runner<T>& run) {
            const view<T, 2> grad = space(*g, grad_y.extent(0));
            run.backward(1, grad_y, grad);
            for (std::size_t i = 0; i < g->size(); ++i)
                (*g)[i] *= 1 - (*h)[i] * (*h)[i];
            run.backward(0, grad, grad_x);
            for (index t = 0; t < grad_y.extent(0); ++t)
                for (index c = 0; c < width; ++c)
                    grad_x(t, c) += grad_y(t, c);
        };
        return b;
    }

    /// A window at its start: blocks, targets, parameters as given.
    template <class T>
    struct run {
        explicit run(const setting<T>& s) : set(s) {
            for (const auto& linears : s.blocks)
                model.push_back(toy_block(linears));
            for (std::size_t b = 0; b < model.size(); ++b) {
                quantization::learned_block<T> learned{&model[b], {}};
                for (std::size_t i = 0; i < 2; ++i) {
                    quantization::learned_linear<T> l(model[b].layers[i], s.layer);
                    l.allocate();
                    l.copy_weight();
                    const linear<T>& given = s.blocks[b][i];
                    copy(given.a1, l.a1.value);
                    copy(given.a2, l.a2.value);
                    copy(given.sw, l.scale.value);
                    copy(given.sx, l.activation_scale.value);
                    l.is_prepared = true;
                    learned.layers.push_back(std::move(l));
                }
                blocks.push_back(std::move(learned));
            }
            targets[0] = full_precision(s.x_fp);
            targets[1] = full_precision(s.x_q);
            samples = {{s.x_q, as_view(targets[0]), as_view(targets[1])}};
            learner = std::make_unique<quantization::window_learner<T>>(blocks, 0, index(blocks.size()), s.objective);
        }

        quantization::window_losses losses(index t) {
            return learner->gradients(samples, deft::beta_schedule(t, set.schedule));
        }
        void copy(view<const T, 2> from, std::vector<T>& to) {
            for (index r = 0, i = 0; r < from.extent(0); ++r)
                for (index c = 0; c < from.extent(1); ++c)
                    to[std::size_t(i++)] = from(r, c);
        }
        void write(bool gradients) {
            for (std::size_t b = 0; b < blocks.size(); ++b)
                for (std::size_t i = 0; i < 2; ++i) {
                    quantization::learned_linear<T>& l = blocks[b].layers[i];
                    quantization::parameter<T>* const all[4] = {&l.a1, &l.a2, &l.scale, &l.activation_scale};
                    for (std::size_t k = 0; k < 4; ++k) {
                        const view<T, 2> to = gradients ? set.blocks[b][i].gradients[k] : set.blocks[b][i].stepped[k];
                        const std::vector<T>& from = gradients ? all[k]->gradient : all[k]->value;
                        for (index r = 0, at = 0; r < to.extent(0); ++r)
                            for (index c = 0; c < to.extent(1); ++c)
                                to(r, c) = from[std::size_t(at++)];
                    }
                }
        }

        const setting<T>& set;
        std::vector<quantization::block<T>> model;
        std::vector<quantization::learned_block<T>> blocks;
        std::vector<T> targets[2];
        std::vector<quantization::window_sample<T>> samples;
        std::unique_ptr<quantization::window_learner<T>> learner;

    private:
        view<T, 2> as_view(std::vector<T>& v) const {
            return {v.data(), {set.x_fp.extent(0), set.x_fp.extent(1)}};
        }
        std::vector<T> full_precision(view<const T, 2> x) {
            std::vector<T> now(std::size_t(x.size())), next(now.size());
            for (index r = 0; r < x.extent(0); ++r)
                for (index c = 0; c < x.extent(1); ++c)
                    now[std::size_t(r * x.extent(1) + c)] = x(r, c);
            for (quantization::learned_block<T>& b : blocks) {
                quantization::window_learner<T>::run_block(b, quantization::layer_runner<T>::mode::full_precision,
                                                           as_view(now), as_view(next));
                now.swap(next);
            }
            return now;
        }
    };

    template <class T>
    static void bind(call<T>& c) {
        // In float a code of an activation may flip, and nothing behind it is comparable.
        constexpr double any = std::numeric_limits<double>::infinity();
        const tolerance of_loss = by_type<T>({.of_largest = 1e-4, .floor = 0}, {.of_largest = 1e-11, .floor = 0});
        const tolerance of_values = by_type<T>({.absolute = any}, {.of_largest = 1e-11, .floor = 0});
        const tolerance of_history = by_type<T>({.absolute = any}, {.of_largest = 1e-10, .floor = 0});
        const auto s = std::make_shared<setting<T>>();
        const index steps = c.integer("steps");
        s->layer = {.weights = {.bits = int(c.integer("bits_w"))},
                    .activations = quantization::activation_steps::learned,
                    .activation_bits = int(c.integer("bits_a")),
                    .rank = c.integer("rank"),
                    .origin = quantization::rounding_origin::half,
                    .pass = quantization::rounding_pass::soft,
                    .stretch = {.zeta = c.number("zeta"), .gamma = c.number("gamma")},
                    .floor = c.text("floor_grad") == "ste" ? floor_gradient::ste : floor_gradient::zero,
                    .truncate = quantization::cfp_weights::none,
                    .scale = quantization::cfp_activations::none};
        s->objective = {
            .distance = {.kl_weight = c.number("kl_weight"),
                         .reduction = c.text("reduction") == "mean" ? loss_reduction::mean : loss_reduction::sum},
            .homologous_weight = c.number("homologous_weight"),
            .com_weight = c.number("com_weight")};
        s->rates = {c.number("lr_round"), c.number("lr_sw"), c.number("lr_sx"), quantization::rate_unit::absolute};
        s->schedule = {.t_max = c.integer("t_max"),
                       .warmup = c.number("warmup"),
                       .beta_start = c.number("beta_start"),
                       .beta_end = c.number("beta_end")};
        s->x_fp = c.input(rank<2>, "in.x_fp");
        s->x_q = c.input(rank<2>, "in.x_q");
        for (index b = 0; b < c.integer("blocks"); ++b) {
            s->blocks.emplace_back();
            for (const char* name : {".wa", ".wb"}) {
                const std::string key = "block" + std::to_string(b) + name;
                linear<T> l;
                l.weight = c.input(rank<2>, "in." + key);
                view<const T, 2>* const given[4] = {&l.a1, &l.a2, &l.sw, &l.sx};
                const char* const kinds[4] = {".a1", ".a2", ".sw", ".sx"};
                for (std::size_t k = 0; k < 4; ++k) {
                    *given[k] = c.input(rank<2>, "in." + key + kinds[k]);
                    l.stepped[k] = c.output(rank<2>, "out.stepped." + key + kinds[k], c.shape("in." + key + kinds[k]),
                                            {.bound = of_values});
                    l.gradients[k] = c.output(rank<2>, "grad_in." + key + kinds[k], c.shape("in." + key + kinds[k]),
                                              {.bound = of_values});
                }
                s->blocks.back().push_back(l);
            }
        }
        const auto loss = c.output(rank<1>, "out.loss", {1}, {.bound = of_loss});
        const auto rec = c.output(rank<1>, "out.loss_rec", {1}, {.bound = of_loss});
        const auto homologous = c.output(rank<1>, "out.loss_homologous", {1}, {.bound = of_loss});
        const auto com = c.output(rank<1>, "out.loss_com", {1}, {.bound = of_loss});
        const auto history_rec = c.output(rank<1>, "out.history_rec", {steps}, {.bound = of_history});
        const auto history_total = c.output(rank<1>, "out.history_total", {steps}, {.bound = of_history});
        // Not computed where it does not count; the case wants it all the same.
        const bool compute_homologous = s->objective.homologous_weight == 0;
        c.may_allocate("training owns its memory");
        c.forward("window", [=](any_executor&) {
            run<T> window(*s);
            for (index t = 1; t <= steps; ++t) {
                const quantization::window_losses now = window.losses(t);
                history_rec(t - 1) = T(now.reconstruction);
                history_total(t - 1) = T(now.total);
                if (t == 1) {
                    loss(0) = T(now.total);
                    rec(0) = T(now.reconstruction);
                    homologous(0) = T(now.homologous);
                    com(0) = T(now.rounding);
                    if (compute_homologous) {
                        setting<T> only = *s;
                        only.objective.homologous_weight = 1;
                        homologous(0) = T(run<T>(only).losses(1).homologous);
                    }
                }
                window.learner->step(t, s->rates);
                if (t == 1)
                    window.write(false);
            }
        });
        c.backward("window", [=](any_executor&) {
            run<T> window(*s);
            window.losses(1);
            window.write(true);
        });
    }

    static std::vector<test_case> cases() {
        random_values random(77);
        test_case small{"cross_block_step",
                        "generated",
                        {{"blocks", 2.0},
                         {"bits_w", 4.0},
                         {"bits_a", 8.0},
                         {"rank", 2.0},
                         {"steps", 3.0},
                         {"t_max", 3.0},
                         {"zeta", 1.1},
                         {"gamma", -0.1},
                         {"kl_weight", 1.0},
                         {"reduction", "mean"},
                         {"homologous_weight", 1.0},
                         {"com_weight", 0.01},
                         {"floor_grad", "ste"},
                         {"lr_round", 0.01},
                         {"lr_sw", 1e-4},
                         {"lr_sx", 1e-4},
                         {"beta_start", 20.0},
                         {"beta_end", 2.0},
                         {"warmup", 0.2}},
                        {{"in.x_fp", random.normal({4, 5})}, {"in.x_q", random.normal({4, 5})}},
                        {}};
        for (const char* block : {"block0", "block1"})
            for (const bool first : {true, false}) {
                const std::string key = std::string("in.") + block + (first ? ".wa" : ".wb");
                const index outputs = first ? 7 : 5, inputs = first ? 5 : 7;
                small.given[key] = random.normal({outputs, inputs}, 0.3);
                small.given[key + ".a1"] = random.normal({outputs, 2});
                small.given[key + ".a2"] = random.normal({2, inputs}, 0.1);
                small.given[key + ".sw"] = random.uniform({outputs, 1}, 0.05, 0.1);
                small.given[key + ".sx"] = random.uniform({1, 1}, 0.02, 0.03);
            }
        return {small};
    }
};
DEFT_ADAPTER(cross_block_step)

} // namespace deft::testing

#include "activation_names.hpp"
#include "support/generate.hpp"
#include "support/operator_table.hpp"

#include <deft/activation/series_activation_2d.hpp>
#include <deft/reference/activation/series_activation_2d.hpp>

namespace deft::testing {

struct series_activation_2d {
    template <class T>
    static void bind(call<T>& c) {
        const std::string mode = c.text("mode");
        if (mode == "deploy")
            bind_deploy(c, common<T>(c));
        else if (mode == "eval")
            bind_eval(c, common<T>(c));
        else if (mode == "train")
            bind_train(c, common<T>(c));
        else
            throw std::runtime_error("the case does not fit the operator: mode is '" + mode + "'");
    }

    static std::vector<test_case> cases();

private:
    /// What all modes share. The reference is in NCHW only: it sees copies, permuted where that is needed.
    template <class T>
    struct common {
        explicit common(call<T>& c)
            : options{.layout = c.choice("layout", layouts(), "nchw"),
                      .base = find_activation(c.text("activation", "relu")),
                      .eps = c.number("eps", 1e-6),
                      .momentum = c.number("momentum", 0.1),
                      .negative_slope = c.number("negative_slope", 0.01)},
              bound(c.text("mode") == "train" ? by_type<T>({.of_largest = 1e-4}, {.of_largest = 1e-11})
                                              : by_type<T>({.of_largest = 2e-5}, {.of_largest = 1e-11})),
              x(c.input(rank<4>, "in.x")), weight(c.input_as(rank<3>, "in.weight", weight_shape(c))),
              pre_bias(c.optional_input(rank<1>, "in.pre_bias")),
              y(c.output(rank<4>, "out.y", c.shape("in.x"), {.bound = bound})) {
            if (has_kink(options.base))
                c.has_kinks("the derivative jumps where x + pre_bias crosses 0");
            if (!c.has("grad_out.y"))
                return;
            grad_y = c.input(rank<4>, "grad_out.y");
            grad_x = c.output(rank<4>, "grad_in.x", c.shape("in.x"), {.bound = bound});
            grad_weight = c.output(rank<3>, "grad_in.weight", weight_shape(c), {.bound = bound});
            if (pre_bias.is_given())
                grad_pre_bias = gradient(c, "in.pre_bias");
        }

        static names<tensor_layout> layouts() {
            return {{"nchw", tensor_layout::nchw}, {"nhwc", tensor_layout::nhwc}};
        }

        view<T, 1> gradient(call<T>& c, const std::string& of) const {
            return c.output(rank<1>, "grad_" + of, c.shape(of), {.bound = bound});
        }

        /// A checkpoint's [C, 1, K, K] is the same bytes as [C, K, K].
        static extents weight_shape(call<T>& c) {
            extents shape = c.shape("in.weight");
            if (shape.size() == 4 && shape[1] == 1)
                shape.erase(shape.begin() + 1);
            return shape;
        }

        /// A copy of `t` in NCHW, or room for one.
        class planar {
        public:
            planar(const common& owner, view<const T, 4> t)
                : is_nhwc_(owner.options.layout == tensor_layout::nhwc), extents_{t.extent(0), t.extent(1), t.extent(2),
                                                                                  t.extent(3)} {
                if (is_nhwc_)
                    extents_ = {t.extent(0), t.extent(3), t.extent(1), t.extent(2)};
                values_.resize(std::size_t(t.size()));
                visit([&](T& value, index n, index c, index h, index w) {
                    value = is_nhwc_ ? t(n, h, w, c) : t(n, c, h, w);
                });
            }
            operator view<T, 4>() {
                return {values_.data(), {extents_[0], extents_[1], extents_[2], extents_[3]}};
            }
            operator view<const T, 4>() {
                return view<T, 4>(*this);
            }
            void copy_to(view<T, 4> t) {
                visit([&](T& value, index n, index c, index h, index w) {
                    (is_nhwc_ ? t(n, h, w, c) : t(n, c, h, w)) = value;
                });
            }

        private:
            template <class F>
            void visit(F&& f) {
                std::size_t i = 0;
                for (index n = 0; n < extents_[0]; ++n)
                    for (index c = 0; c < extents_[1]; ++c)
                        for (index h = 0; h < extents_[2]; ++h)
                            for (index w = 0; w < extents_[3]; ++w)
                                f(values_[i++], n, c, h, w);
            }

            bool is_nhwc_;
            extents extents_;
            std::vector<T> values_;
        };

        deft::series_activation_2d_options options;
        tolerance bound;
        view<const T, 4> x;
        view<const T, 3> weight;
        view<const T, 1> pre_bias;
        view<T, 4> y;
        view<const T, 4> grad_y;
        view<T, 4> grad_x;
        view<T, 3> grad_weight;
        view<T, 1> grad_pre_bias;
    };

    template <class T>
    static void bind_deploy(call<T>& c, const common<T>& m) {
        using planar = typename common<T>::planar;
        const auto bias = c.optional_input(rank<1>, "in.bias");
        c.forward("direct", [=](any_executor& e) {
            deft::series_activation_2d(m.x, m.weight, m.pre_bias, bias, m.y, m.options, e);
        });
        c.reference([=] {
            planar x(m, m.x), y(m, m.y);
            reference::series_activation_2d<T>(x, m.weight, m.pre_bias, bias, y, m.options.base,
                                               m.options.negative_slope);
            y.copy_to(m.y);
        });

        if (!c.has("grad_out.y"))
            return;
        const auto grad_bias = bias.is_given() ? m.gradient(c, "in.bias") : view<T, 1>(absent);
        c.backward("direct", [=](any_executor& e) {
            deft::series_activation_2d_backward(m.x, m.weight, m.pre_bias, m.grad_y, m.grad_x, m.grad_weight,
                                                m.grad_pre_bias, grad_bias, m.options, e);
        });
        c.reference_backward([=] {
            planar x(m, m.x), grad_y(m, m.grad_y), grad_x(m, m.grad_x);
            reference::series_activation_2d_backward<T>(x, m.weight, m.pre_bias, grad_y, grad_x, m.grad_weight,
                                                        m.grad_pre_bias, grad_bias, m.options.base,
                                                        m.options.negative_slope);
            grad_x.copy_to(m.grad_x);
        });
    }

    template <class T>
    static void bind_eval(call<T>& c, const common<T>& m) {
        using planar = typename common<T>::planar;
        const auto gamma = c.input(rank<1>, "in.gamma");
        const auto beta = c.input(rank<1>, "in.beta");
        const auto mean = c.input(rank<1>, "in.running_mean");
        const auto var = c.input(rank<1>, "in.running_var");
        c.forward("direct", [=](any_executor& e) {
            deft::series_activation_2d_eval(m.x, m.weight, m.pre_bias, gamma, beta, mean, var, m.y, m.options, e);
        });
        c.reference([=] {
            planar x(m, m.x), y(m, m.y);
            reference::series_activation_2d_eval<T>(x, m.weight, m.pre_bias, gamma, beta, mean, var, y, m.options.base,
                                                    m.options.eps, m.options.negative_slope);
            y.copy_to(m.y);
        });

        if (!c.has("grad_out.y"))
            return;
        const auto grad_gamma = m.gradient(c, "in.gamma");
        const auto grad_beta = m.gradient(c, "in.beta");
        c.backward("direct", [=](any_executor& e) {
            deft::series_activation_2d_eval_backward(m.x, m.weight, m.pre_bias, gamma, mean, var, m.grad_y, m.grad_x,
                                                     m.grad_weight, m.grad_pre_bias, grad_gamma, grad_beta, m.options,
                                                     e);
        });
        c.reference_backward([=] {
            planar x(m, m.x), grad_y(m, m.grad_y), grad_x(m, m.grad_x);
            reference::series_activation_2d_eval_backward<T>(x, m.weight, m.pre_bias, gamma, mean, var, grad_y, grad_x,
                                                             m.grad_weight, m.grad_pre_bias, grad_gamma, grad_beta,
                                                             m.options.base, m.options.eps, m.options.negative_slope);
            grad_x.copy_to(m.grad_x);
        });
    }

    template <class T>
    static void bind_train(call<T>& c, const common<T>& m) {
        using planar = typename common<T>::planar;
        const auto gamma = c.input(rank<1>, "in.gamma");
        const auto beta = c.input(rank<1>, "in.beta");
        const auto mean = c.output(rank<1>, "out.running_mean", c.shape("in.running_mean"),
                                   {.bound = m.bound, .initial = "in.running_mean"});
        const auto var = c.output(rank<1>, "out.running_var", c.shape("in.running_var"),
                                  {.bound = m.bound, .initial = "in.running_var"});
        c.forward("direct", [=](any_executor& e) {
            deft::series_activation_2d_train(m.x, m.weight, m.pre_bias, gamma, beta, mean, var, m.y, m.options, e);
        });
        c.reference([=] {
            planar x(m, m.x), y(m, m.y);
            reference::series_activation_2d_train<T>(x, m.weight, m.pre_bias, gamma, beta, mean, var, y, m.options.base,
                                                     m.options.eps, m.options.momentum, m.options.negative_slope);
            y.copy_to(m.y);
        });

        if (!c.has("grad_out.y"))
            return;
        const auto grad_gamma = m.gradient(c, "in.gamma");
        const auto grad_beta = m.gradient(c, "in.beta");
        c.backward("direct", [=](any_executor& e) {
            deft::series_activation_2d_train_backward(m.x, m.weight, m.pre_bias, gamma, m.grad_y, m.grad_x,
                                                      m.grad_weight, m.grad_pre_bias, grad_gamma, grad_beta, m.options,
                                                      e);
        });
        c.reference_backward([=] {
            planar x(m, m.x), grad_y(m, m.grad_y), grad_x(m, m.grad_x);
            reference::series_activation_2d_train_backward<T>(x, m.weight, m.pre_bias, gamma, grad_y, grad_x,
                                                              m.grad_weight, m.grad_pre_bias, grad_gamma, grad_beta,
                                                              m.options.base, m.options.eps, m.options.negative_slope);
            grad_x.copy_to(m.grad_x);
        });
    }
};

std::vector<test_case> series_activation_2d::cases() {
    random_values random(50);
    std::vector<test_case> cases;
    /// shape is (N, C, H, W) whatever the layout.
    const auto add = [&](const extents& shape, index n, const char* mode, bool is_nhwc, const std::string& base) {
        const extents laid_out = is_nhwc ? extents{shape[0], shape[2], shape[3], shape[1]} : shape;
        const extents channels{shape[1]};
        const std::size_t turn = cases.size();
        test_case c{"series_activation_2d",
                    "generated",
                    {{"mode", mode},
                     {"layout", is_nhwc ? "nhwc" : "nchw"},
                     {"activation", base},
                     {"eps", 0.125},
                     {"momentum", 0.25},
                     {"negative_slope", 0.125}},
                    {{"in.x", random.normal(laid_out)},
                     {"in.weight", random.normal({shape[1], 2 * n + 1, 2 * n + 1}, 0.3)},
                     {"grad_out.y", random.normal(laid_out)}},
                    {}};
        if (turn % 2 == 0)
            c.given["in.pre_bias"] = random.normal(channels, 0.5);
        if (std::string(mode) == "deploy") {
            if (turn % 3 != 0)
                c.given["in.bias"] = random.normal(channels);
        } else {
            c.given["in.gamma"] = random.uniform(channels, 0.5, 1.5);
            c.given["in.beta"] = random.normal(channels);
            c.given["in.running_mean"] = random.normal(channels);
            c.given["in.running_var"] = random.uniform(channels, 0.25, 2);
        }
        cases.push_back(c);
    };

    std::size_t turn = 0;
    for (const bool is_nhwc : {false, true}) {
        // The lengths of the axis that vectors lie along, in every mode.
        for (const index length : length_sweep())
            for (const char* mode : {"deploy", "eval", "train"}) {
                if (length == 0 && std::string(mode) == "train")
                    continue;
                const std::string& base = activation_names()[turn++ % activation_names().size()].first;
                const index n = index(turn) % 4;
                if (is_nhwc)
                    add({1, length, 3, 2}, n, mode, true, base);
                else
                    add({1, 2, 3, length}, n, mode, false, base);
            }
        for (const char* mode : {"deploy", "eval", "train"})
            for (const auto& [name, kind] : activation_names()) {
                add({2, 3, 5, 4}, 1, mode, is_nhwc, name);
                add({1, 2, 2, 9}, 2, mode, is_nhwc, name);
            }
        for (const char* mode : {"deploy", "eval", "train"})
            for (index n = 0; n <= 4; ++n)
                add({2, 2, 9, 11}, n, mode, is_nhwc, "silu");
        add({1, 5, 1, 1}, 3, "deploy", is_nhwc, "relu"); // smaller than the kernel
        add({1, 20, 14, 14}, 3, "deploy", is_nhwc, "relu");
        add({2, 40, 9, 61}, 3, "deploy", is_nhwc, "relu"); // several tiles of columns, blocks of channels and images
        for (const char* mode : {"deploy", "eval"}) {
            add({0, 3, 4, 4}, 1, mode, is_nhwc, "silu");
            add({1, 0, 4, 4}, 1, mode, is_nhwc, "silu");
        }
    }
    return cases;
}
DEFT_ADAPTER(series_activation_2d)

} // namespace deft::testing

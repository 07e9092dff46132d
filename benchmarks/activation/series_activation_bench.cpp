// series_activation, its gradient, and its prepared form, against Eigen expressions, the compiler's
// vectoriser and PyTorch.
#include "../peers/series.hpp"
#include "../peers/torch.hpp"
#include "../support/suite.hpp"

#include <deft/activation/prepared_series_activation.hpp>
#include <deft/activation/series_activation.hpp>
#include <deft/reference/activation/series_activation.hpp>

#include <Eigen/Core>

#include <string>

namespace deft::bench {
namespace {

using enum activation;
using enum series_form;

enum class sharing { scalar, channel };

struct setup {
    activation base;
    index terms;
    series_form form;
    sharing shared;
    shape<2> size; ///< rows, channels
    bool in_place = false;
    bool full = false;

    std::string name() const {
        constexpr const char* bases[] = {"relu", "leaky_relu", "gelu_erf", "gelu_tanh", "silu", "tanh", "sigmoid"};
        return std::string(bases[static_cast<int>(base)]) + "_n" + std::to_string(terms) +
               (form == outer ? "_outer" : "_inner") + (shared == sharing::scalar ? "_scalar_" : "_channel_") +
               std::to_string(rows()) + 'x' + std::to_string(channels()) + (in_place ? "_in_place" : "");
    }
    index rows() const {
        return size.extents[0];
    }
    index channels() const {
        return size.extents[1];
    }
    index count() const {
        return rows() * channels();
    }
    /// As the reference takes them: one column is for all channels.
    shape<2> parameters() const {
        return {terms, shared == sharing::scalar ? 1 : channels()};
    }
    index parameter_count() const {
        return parameters().extents[0] * parameters().extents[1];
    }
    series_activation_options options() const {
        return {.form = form, .base = base};
    }

    /// Any method has to move the elements; the exponentials of exp(-(x + b)) = exp(-x) exp(-b) are one for all terms.
    work least(double element_bytes) const {
        const double n = double(count()), all = n * double(terms);
        work w{.items = n, .bytes = element_bytes * n, .pattern = in_place ? traffic::in_place : traffic::copy};
        if (base == relu)
            w.flops = 3 * all;
        else if (base == gelu_erf)
            w.erfs = all;
        else
            w.exps = base == silu && form == outer ? n : all;
        return w;
    }
};

/// Calls `f` with the shape of a and b: `[terms]` if they are shared by all channels, else `[terms, channels]`.
template <class F>
void with_parameter_shape(const setup& c, F f) {
    if (c.shared == sharing::scalar)
        f(shape<1>(c.terms));
    else
        f(c.parameters());
}

template <class T>
void forward(suite& s, const setup& c) {
    using P = compute_t<T>;
    const auto input = normal<T>(c.count()), y = output<T>(c.count());
    const auto x = c.in_place ? y : input;
    // In place a row meets its own results again: the values have to stay where they are.
    const auto a = c.in_place ? uniform<P>(c.parameter_count(), 1 / float(c.terms), 1 / float(c.terms))
                              : uniform<P>(c.parameter_count(), 0.25f, 1.0f, 2);
    const auto b =
        c.in_place ? uniform<P>(c.parameter_count(), 0.0f, 0.01f, 3) : uniform<P>(c.parameter_count(), -1.0f, 1.0f, 3);
    const action restore = c.in_place ? action([=] { y.assign(input); }) : action();

    const auto naive = [=]<class U, class Q>(const U* from, const Q* scale, const Q* bias, U* to) {
        reference::series_activation<U>({from, c.size}, {scale, c.parameters()}, {bias, c.parameters()}, {to, c.size},
                                        c.form == inner, c.base);
    };
    comparison& rivals = s.compare({.op = "series_activation",
                                    .type = type_name<T>,
                                    .shape = c.name(),
                                    .work = c.least(2 * sizeof(T)),
                                    .full = c.full});
    if constexpr (sizeof(T) == 2) {
        rivals.truth(inputs{input, a, b}, outputs{y}, naive).add("naive", [=] {
            for (index i = 0; i < c.count(); ++i) {
                P sum = 0;
                for (index t = 0; t < c.terms; ++t)
                    sum += a.data()[t] * reference::activate(c.base, P(x.data()[i]) + b.data()[t]);
                y.data()[i] = T(sum);
            }
        });
    } else {
        const auto peer = [=] {
            return series<T>{.x = x.data(),
                             .a = a.data(),
                             .b = b.data(),
                             .y = y.data(),
                             .rows = c.rows(),
                             .channels = c.channels(),
                             .terms = static_cast<int>(c.terms),
                             .per_channel = c.shared == sharing::channel,
                             .inner = c.form == inner,
                             .base = c.base};
        };
        rivals.naive(inputs{input, a, b}, outputs{y}, naive);
        rivals.add("eigen", [=] { eigen::run(peer()); }, {.before = restore});
        if (c.terms > 1 && c.form == outer && c.shared == sharing::scalar && !c.in_place)
            rivals.add("eigen_passes", [=] { eigen::run_passes(peer()); });
        rivals.add("autovec", [=] { autovec::run(peer()); }, {.before = restore});
#if DEFT_PEER_TORCH
        if (!c.in_place)
            rivals.add("torch", [=] { torch::run(peer()); });
#endif
        if (c.shared == sharing::scalar && c.base != relu) {
            const lazy prepared([=] {
                return prepared_series_activation<T>(as(a, shape<1>(c.terms)), as(b, shape<1>(c.terms)), c.options());
            });
            rivals.add("prepared", [=] { (*prepared)(as(x, c.size), as(y, c.size)); },
                       {.work = {.items = double(c.count()), .bytes = double(2 * sizeof(T)) * double(c.count())},
                        .tolerance = sizeof(T) == 4 ? 1e-5 : 1e-8});
        }
    }
    rivals.add("deft",
               [=] {
                   with_parameter_shape(c, [&](auto p) {
                       deft::series_activation(as(x, c.size), as(a, p), as(b, p), as(y, c.size), c.options());
                   });
               },
               {.before = restore});
}

template <class T>
void backward(suite& s, const setup& c) {
    const auto x = normal<T>(c.count()), grad_y = normal<T>(c.count(), 4);
    const auto a = uniform<T>(c.parameter_count(), 0.25f, 1.0f, 2), b = uniform<T>(c.parameter_count(), -1.0f, 1.0f, 3);
    const auto grad_x = output<T>(c.count());
    const auto grad_a = output<T>(c.parameter_count(), 1), grad_b = output<T>(c.parameter_count(), 2);
    work least = c.least(3 * sizeof(T));
    least.pattern = traffic::triad;
    s.compare(
         {.op = "series_activation_backward", .type = type_name<T>, .shape = c.name(), .work = least, .full = c.full})
        .naive(inputs{x, a, b, grad_y}, outputs{grad_x, grad_a, grad_b},
               [=]<class U>(const U* from, const U* scale, const U* bias, const U* grad, U* to, U* to_a, U* to_b) {
                   reference::series_activation_backward<U>(
                       {from, c.size}, {scale, c.parameters()}, {bias, c.parameters()}, {grad, c.size}, {to, c.size},
                       {to_a, c.parameters()}, {to_b, c.parameters()}, c.form == inner, c.base);
               })
        .add("deft", [=] {
            with_parameter_shape(c, [&](auto p) {
                deft::series_activation_backward(as(x, c.size), as(a, p), as(b, p), as(grad_y, c.size),
                                                 as(grad_x, c.size), as(grad_a, p), as(grad_b, p), c.options());
            });
        });
}

/// What preparing costs: once per layer.
void prepare(suite& s, activation base, index terms) {
    const auto a = uniform<float>(terms, 0.25f, 1.0f, 2), b = uniform<float>(terms, -1.0f, 1.0f, 3);
    const setup c{base, terms, outer, sharing::scalar, {1, 1}, false, false};
    s.compare({.op = "series_activation_prepare", .type = "f32", .shape = c.name(), .work = {.items = 1}})
        .add("deft", [=] {
            const prepared_series_activation<float> made(as(a, shape<1>(terms)), as(b, shape<1>(terms)), c.options());
            static_cast<void>(made);
        });
}

} // namespace

void benchmark_series_activation(suite& s) {
    constexpr shape<2> in_l1{1, 4096}, in_l2{1, 262144}, in_memory{1, 16777216};
    constexpr shape<2> decode{1, 11008}, batch{128, 11008}, prefill{2048, 4096};
    using enum sharing;

    for (const activation base : {relu, gelu_erf, silu, gelu_tanh}) {
        const bool rare = base == gelu_tanh;
        for (const index terms : {1, 2, 3, 8}) {
            forward<float>(s, {base, terms, outer, scalar, in_l2, false, rare ? terms != 3 : terms == 2});
            forward<float>(s, {base, terms, outer, scalar, in_l1, false, rare || terms != 3});
            forward<float>(s, {base, terms, outer, scalar, in_memory, false, base != relu || terms != 3});
            forward<double>(s, {base, terms, outer, scalar, in_l2, false, rare || terms != 3});
        }
        forward<float>(s, {base, 2, inner, scalar, decode, false, base != silu});
        forward<float>(s, {base, 2, inner, channel, batch, false, base != silu});
        forward<float>(s, {base, 3, outer, channel, batch, false, base != relu});
        forward<float>(s, {base, 3, outer, channel, prefill, false, true});
        forward<float>(s, {base, 3, outer, scalar, prefill, false, true});
        backward<float>(s, {base, 1, outer, scalar, in_l2, false, true});
        backward<float>(s, {base, 3, outer, scalar, in_l2, false, rare});
        backward<float>(s, {base, 2, inner, scalar, in_l2, false, base != silu});
        backward<float>(s, {base, 3, outer, channel, batch, false, true});
        backward<double>(s, {base, 3, outer, scalar, in_l2, false, true});
    }
    for (const index terms : {1, 3})
        forward<float>(s, {relu, terms, outer, scalar, in_memory, true, true});
    for (const activation base : {gelu_erf, silu}) {
        forward<Eigen::half>(s, {base, 3, outer, scalar, in_l2});
        forward<Eigen::bfloat16>(s, {base, 3, outer, scalar, in_l2});
        prepare(s, base, 3);
    }
}

} // namespace deft::bench

#include "dispatch.hpp"
#include "series.hpp"

#include <Eigen/Core>
#include <unsupported/Eigen/SpecialFunctions>

#include <utility>

namespace deft::bench::eigen {
namespace {

template <class T>
using array = Eigen::Array<T, Eigen::Dynamic, 1>;

template <class T>
Eigen::Map<const array<T>> map(const T* data, index size) {
    return {data, size};
}

/// scale * sigma(u) in the form that Eigen evaluates fastest.
template <activation Base, class U, class Scale>
auto activate(const U& u, const Scale& scale) {
    using T = typename U::Scalar;
    if constexpr (Base == activation::relu)
        return u.max(T(0)) * scale;
    else if constexpr (Base == activation::silu)
        return u * scale * u.logistic();
    else if constexpr (Base == activation::gelu_tanh)
        return u * scale * (u * (u * u * T(0.0713548162726) + T(1.5957691216057308))).logistic();
    else
        return u * scale * ((u * T(0.7071067811865475)).erf() * T(0.5) + T(0.5));
}

template <bool PerChannel, class T>
auto parameter(const T* p, int term, index channels) {
    if constexpr (PerChannel)
        return map(p + term * channels, channels);
    else
        return p[term];
}

template <class T>
void one_expression(const series<T>& s) {
    const index size = s.per_channel ? s.channels : s.rows * s.channels;
    choose_case(s, [&](auto base, auto inner, auto per_channel, auto terms) {
        for (index i = 0; i < s.rows * s.channels; i += size) {
            const auto x = map(s.x + i, size);
            const auto term = [&](int t) {
                const auto a = parameter<per_channel.value>(s.a, t, size),
                           b = parameter<per_channel.value>(s.b, t, size);
                if constexpr (inner)
                    return activate<base.value>(x * a + b, T(1));
                else
                    return activate<base.value>(x + b, a);
            };
            [&]<int... I>(std::integer_sequence<int, I...>) {
                Eigen::Map<array<T>>(s.y + i, size) = (term(I) + ...);
            }
            (std::make_integer_sequence<int, terms.value>{});
        }
    });
}

template <class T>
void passes(const series<T>& s) {
    using enum activation;
    const auto x = map(s.x, s.rows * s.channels);
    Eigen::Map<array<T>> y(s.y, x.size());
    choose<relu, gelu_erf, gelu_tanh, silu>(s.base, [&](auto base) {
        y = activate<base.value>(x + s.b[0], s.a[0]);
        for (int t = 1; t < s.terms; ++t)
            y += activate<base.value>(x + s.b[t], s.a[t]);
    });
}

template <class T>
void anneal(const annealed<T>& s) {
    const auto x = map(s.x, s.size);
    Eigen::Map<array<T>> y(s.y, s.size);
    if (s.base == activation::relu)
        y = x.max(x * s.lambda); // the same function for lambda <= 1, and one multiplication less
    else
        y = activate<activation::gelu_erf>(x, 1 - s.lambda) + x * s.lambda;
}

} // namespace

void run(const series<float>& s) {
    one_expression(s);
}
void run(const series<double>& s) {
    one_expression(s);
}
void run_passes(const series<float>& s) {
    passes(s);
}
void run_passes(const series<double>& s) {
    passes(s);
}
void run(const annealed<float>& s) {
    anneal(s);
}
void run(const annealed<double>& s) {
    anneal(s);
}

} // namespace deft::bench::eigen

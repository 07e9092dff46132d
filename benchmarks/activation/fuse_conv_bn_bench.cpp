// fuse_conv_bn: runs once per model; shown to run at the speed of a copy.
#include "../support/suite.hpp"

#include <deft/activation/fuse_conv_bn.hpp>
#include <deft/reference/activation/fuse_conv_bn.hpp>

#include <Eigen/Core>

namespace deft::bench {
namespace {

void fuse(suite& s, const std::string& name, shape<4> size) {
    const index outputs_of = size.extents[0], inputs_of = size.extents[1] * size.extents[2] * size.extents[3];
    const index count = outputs_of * inputs_of;
    const shape<1> channels{outputs_of};
    const auto weight = normal<float>(count), bias = normal<float>(outputs_of, 2), mean = normal<float>(outputs_of, 3),
               beta = normal<float>(outputs_of, 4), gamma = uniform<float>(outputs_of, 0.5f, 2.0f, 5),
               var = uniform<float>(outputs_of, 0.5f, 2.0f, 6);
    const auto fused_weight = output<float>(count), fused_bias = output<float>(outputs_of);
    s.compare({.op = "fuse_conv_bn",
               .type = "f32",
               .shape = name,
               .work = {.items = double(count), .bytes = 2 * sizeof(float) * double(count)}})
        .naive(
            inputs{weight, bias, gamma, beta, mean, var}, outputs{fused_weight, fused_bias},
            [=]<class U>(const U* w, const U* b, const U* g, const U* shift, const U* m, const U* v, U* to_w, U* to_b) {
                reference::fuse_conv_bn<U>({w, size}, {b, channels}, {g, channels}, {shift, channels}, {m, channels},
                                           {v, channels}, {to_w, size}, {to_b, channels});
            })
        .add("deft",
             [=] {
                 deft::fuse_conv_bn(as(weight, size), as(bias, channels), as(gamma, channels), as(beta, channels),
                                    as(mean, channels), as(var, channels), as(fused_weight, size),
                                    as(fused_bias, channels), {});
             })
        .add("eigen", [=] {
            using matrix = Eigen::Array<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
            const auto vector = [&](const buffer<float>& b) {
                return Eigen::Map<const Eigen::ArrayXf>(b.data(), outputs_of);
            };
            const Eigen::ArrayXf scale = vector(gamma) / (vector(var) + 1e-6f).sqrt();
            Eigen::Map<matrix>(fused_weight.data(), outputs_of, inputs_of) =
                Eigen::Map<const matrix>(weight.data(), outputs_of, inputs_of).colwise() * scale;
            Eigen::Map<Eigen::ArrayXf>(fused_bias.data(), outputs_of) =
                vector(beta) + (vector(bias) - vector(mean)) * scale;
        });
}

} // namespace

void benchmark_fuse_conv_bn(suite& s) {
    fuse(s, "4096x4096x1x1", {4096, 4096, 1, 1});
    fuse(s, "4096x1x7x7", {4096, 1, 7, 7});
}

} // namespace deft::bench

// merge_pointwise_convs: runs once per model. It is a matrix product, so the limit and not a rival is the measure.
#include "../support/suite.hpp"

#include <deft/activation/merge_pointwise_convs.hpp>
#include <deft/reference/activation/merge_pointwise_convs.hpp>

#include <string>

namespace deft::bench {
namespace {

using enum merge_mode;

/// in -> middle -> out channels; the kernel that is not 1x1 is k x k.
void merge(suite& s, merge_mode mode, index in_channels, index middle, index out_channels, index k, bool full = false) {
    const index k1 = mode == kxk_then_pointwise ? k : 1, k2 = mode == pointwise_then_kxk ? k : 1;
    const shape<4> first{middle, in_channels, k1, k1}, second{out_channels, middle, k2, k2};
    const shape<4> merged{out_channels, in_channels, k, k};
    const index merged_count = out_channels * in_channels * k * k;
    const auto w1 = normal<float>(middle * in_channels * k1 * k1),
               w2 = normal<float>(out_channels * middle * k2 * k2, 2);
    const auto b1 = normal<float>(middle, 3), b2 = normal<float>(out_channels, 4);
    const auto weight = output<float>(merged_count), bias = output<float>(out_channels);
    constexpr const char* modes[] = {"pointwise", "kxk_then_pointwise", "pointwise_then_kxk"};
    s.compare({.op = "merge_pointwise_convs",
               .type = "f32",
               .shape = std::string(modes[static_cast<int>(mode)]) + '_' + std::to_string(in_channels) + '_' +
                        std::to_string(middle) + '_' + std::to_string(out_channels) + "_k" + std::to_string(k),
               .work = {.items = double(merged_count), .flops = 2 * double(middle) * double(merged_count)},
               .full = full})
        .naive(inputs{w1, b1, w2, b2}, outputs{weight, bias},
               [=]<class U>(const U* v1, const U* c1, const U* v2, const U* c2, U* to_weight, U* to_bias) {
                   reference::merge_pointwise_convs<U>({v1, first}, {c1, {middle}}, {v2, second}, {c2, {out_channels}},
                                                       {to_weight, merged}, {to_bias, {out_channels}},
                                                       static_cast<int>(mode));
               })
        .add("deft", [=] {
            deft::merge_pointwise_convs(as(w1, first), as(b1, shape<1>(middle)), as(w2, second),
                                        as(b2, shape<1>(out_channels)), as(weight, merged),
                                        as(bias, shape<1>(out_channels)), {.mode = mode});
        });
}

} // namespace

void benchmark_merge_pointwise_convs(suite& s) {
    merge(s, pointwise, 256, 256, 512, 1);
    merge(s, kxk_then_pointwise, 3, 512, 512, 4); // VanillaNet's stem
    merge(s, pointwise_then_kxk, 64, 64, 128, 3);
    merge(s, pointwise, 512, 512, 1024, 1, true);   // blocks of VanillaNet-5
    merge(s, pointwise, 1024, 1024, 2048, 1, true); // the last, of twice the width, takes the naive loop minutes
}

} // namespace deft::bench

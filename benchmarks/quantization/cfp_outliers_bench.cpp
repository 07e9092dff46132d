// cfp_detect against a full sort, of a matrix and of its rows.
#include "../support/suite.hpp"

#include <deft/quantization/cfp_outliers.hpp>
#include <deft/reference/quantization/cfp_outliers.hpp>

#include <string>
#include <vector>

namespace deft::bench {
namespace {

void truncate(suite& s, index rows, index columns, cfp_scope scope, bool full) {
    const index count = rows * columns, parts = scope == cfp_scope::row ? rows : 1;
    const auto w = normal<float>(count), to = output<float>(count), clip = output<float>(parts, 1);
    const shape<2> size{rows, columns};
    s.compare({.op = "cfp_truncate_weight",
               .type = "f32",
               .shape = std::to_string(rows) + "x" + std::to_string(columns) +
                        (scope == cfp_scope::row ? "_rows" : "_matrix"),
               .work = {.items = double(count), .bytes = 8 * double(count), .pattern = traffic::copy},
               .full = full})
        .naive(inputs{w}, outputs{to, clip},
               [=]<class U>(const U* from, U* out, U* bounds) {
                   reference::cfp_truncate_weight<U>({from, size}, {out, size}, {bounds, {parts}},
                                                     scope == cfp_scope::row, {1.5, 1.0, false});
               })
        .add("deft", [=] { deft::cfp_truncate_weight(as(w, size), as(to, size), as(clip, shape<1>(parts)), scope); });
}

void detect(suite& s, index count, bool full) {
    const auto x = normal<float>(count), boundary = output<float>(1);
    s.compare({.op = "cfp_detect",
               .type = "f32",
               .shape = std::to_string(count),
               .work = {.items = double(count), .bytes = 4 * double(count), .pattern = traffic::read},
               .full = full})
        .naive(inputs{x}, outputs{boundary},
               [=]<class U>(const U* from, U* to) {
                   *to = U(reference::cfp_detect(std::vector<double>(from, from + count), {1.5, 1.0, false}).boundary);
               })
        .add("deft",
             [=] { *boundary.data() = float(deft::cfp_detect<float>(as(x, shape<1>(count)), absent).boundary); });
}

void scale(suite& s, index tokens, index channels, index rows_) {
    const auto x = normal<float>(tokens * channels), w = normal<float>(rows_ * channels, 2),
               to = output<float>(channels), xs = output<float>(tokens * channels, 1),
               ws = output<float>(rows_ * channels, 2);
    const shape<2> of_x{tokens, channels}, of_w{rows_, channels};
    const double count = double((tokens + rows_) * channels);
    s.compare({.op = "cfp_scale_activation",
               .type = "f32",
               .shape = std::to_string(tokens) + "x" + std::to_string(channels) + "x" + std::to_string(rows_),
               .work = {.items = count, .bytes = 8 * count, .pattern = traffic::copy}})
        .naive(inputs{x, w}, outputs{to, xs, ws},
               [=]<class U>(const U* a, const U* b, U* factors, U* scaled_x, U* scaled_w) {
                   reference::cfp_scale_activation<U>({a, of_x}, {b, of_w}, {factors, {channels}}, {scaled_x, of_x},
                                                      {scaled_w, of_w}, {1.5, 1.0, false}, false);
               })
        .add("deft", [=] {
            deft::cfp_scale_activation(as(x, of_x), as(w, of_w), as(to, shape<1>(channels)), as(xs, of_x),
                                       as(ws, of_w));
        });
}

void smooth(suite& s, index tokens, index channels, index rows_) {
    const auto x = normal<float>(tokens * channels), w = normal<float>(rows_ * channels, 2),
               to = output<float>(channels);
    const shape<2> of_x{tokens, channels}, of_w{rows_, channels};
    const double count = double((tokens + rows_) * channels);
    s.compare({.op = "smooth_scale",
               .type = "f32",
               .shape = std::to_string(tokens) + "x" + std::to_string(channels) + "x" + std::to_string(rows_),
               .work = {.items = count, .bytes = 4 * count, .pattern = traffic::read}})
        .naive(inputs{x, w}, outputs{to},
               [=]<class U>(const U* a, const U* b, U* factors) {
                   reference::smooth_scale<U>({a, of_x}, {b, of_w}, {factors, {channels}}, 0.5, 1e-5);
               })
        .add("deft", [=] { deft::smooth_scale(as(x, of_x), as(w, of_w), as(to, shape<1>(channels))); });
}

} // namespace

void benchmark_cfp_detect(suite& s) {
    detect(s, 256 * 1024, false);
    detect(s, 1024 * 1024, true);
}

void benchmark_cfp_truncate_weight(suite& s) {
    // Naive is quadratic in the candidates, 1.6 % of normal values: 16384 of them is what one waits for.
    truncate(s, 256, 1024, cfp_scope::matrix, false);
    truncate(s, 256, 4096, cfp_scope::row, false);
    truncate(s, 4096, 4096, cfp_scope::row, true);
}

void benchmark_cfp_scale_activation(suite& s) {
    scale(s, 512, 1024, 256);
}

void benchmark_smooth_scale(suite& s) {
    smooth(s, 512, 1024, 256);
}

} // namespace deft::bench

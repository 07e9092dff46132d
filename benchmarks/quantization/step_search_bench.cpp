// step_search: a product per candidate.
#include "../support/suite.hpp"

#include <deft/quantization/step_search.hpp>
#include <deft/reference/quantization/step_search.hpp>

#include <string>

namespace deft::bench {
namespace {

void search(suite& s, index tokens, index depth, index outputs_, index count) {
    const auto x = normal<float>(tokens * depth), w = normal<float>(outputs_ * depth, 2),
               g = normal<float>(tokens * outputs_, 3), steps = output<float>(count), scores = output<float>(count, 1);
    const shape<2> xs{tokens, depth}, ws{outputs_, depth}, gs{tokens, outputs_};
    s.compare({.op = "step_search",
               .type = "f32",
               .shape = std::to_string(tokens) + "x" + std::to_string(depth) + "x" + std::to_string(outputs_) + "_n" +
                        std::to_string(count),
               .work = {.items = double(count), .flops = 2 * double(tokens * depth * outputs_ * count)},
               .tolerance = 1e-3}) // a weight near a tie may take the other code
        .naive(
            inputs{x, w, g}, outputs{steps, scores},
            [=]<class U>(const U* a, const U* b, const U* c, U* to, U* to_scores) {
                reference::step_search<U>({a, xs}, {b, ws}, {c, gs}, {to, {count}}, {to_scores, {count}}, 4, 0.5, 1.2);
            })
        .add("deft", [=] {
            deft::step_search(as(x, xs), as(w, ws), as(g, gs), as(steps, shape<1>(count)), as(scores, shape<1>(count)),
                              {.bits = 4, .count = count});
        });
}

} // namespace

void benchmark_step_search(suite& s) {
    search(s, 128, 256, 256, 16);
}

} // namespace deft::bench

// prune_and_regrow of one layer, against the two sorts that it replaces.
#include "../support/suite.hpp"

#include <deft/pruning/prune_and_regrow.hpp>
#include <deft/reference/pruning/prune_and_regrow.hpp>

#include <vector>

namespace deft::bench {
namespace {

void layer(suite& s, const char* name, index n, bool full) {
    const index kept = n / 50, grown = kept / 5;
    const auto w = normal<float>(n), g = normal<float>(n, 2), v = normal<float>(n, 3);
    const auto new_w = output<float>(n), new_g = output<float>(n, 1), new_v = output<float>(n, 2);
    const shape<2> size(1, n);
    struct masks {
        std::vector<std::uint64_t> given, made;
    };
    const lazy bits([=] {
        const std::size_t words = std::size_t(mask_words(n));
        return masks{std::vector<std::uint64_t>(words, 0x0101010101010101u), std::vector<std::uint64_t>(words)};
    });
    s.compare({.op = "prune_and_regrow",
               .type = "f32",
               .shape = name,
               .work = {.items = double(n), .bytes = 40 * double(n)},
               .full = full})
        .naive(inputs{w, g, v}, outputs{new_w, new_g, new_v},
               [=]<class U>(const U* a, const U* b, const U* c, U* to_a, U* to_b, U* to_c) {
                   std::vector<U> x(a, a + n), y(b, b + n), z(c, c + n);
                   std::vector<std::uint8_t> mask(static_cast<std::size_t>(n));
                   for (std::size_t i = 0; i < mask.size(); ++i)
                       mask[i] = i % 8 == 0;
                   reference::prune_and_regrow(x, y, mask, z, kept - grown, grown);
                   std::copy(x.begin(), x.end(), to_a);
                   std::copy(y.begin(), y.end(), to_b);
                   std::copy(z.begin(), z.end(), to_c);
               })
        .add("deft", [=] {
            deft::prune_and_regrow<float>(as(w, size), as(g, size), bits->given, as(v, size), as(new_w, size),
                                          bits->made, as(new_g, size), as(new_v, size),
                                          {.n_keep = kept - grown, .n_grow = grown});
        });
}

} // namespace

void benchmark_prune_and_regrow(suite& s) {
    layer(s, "512x512x3x3_s98", 512 * 512 * 9, true);
    layer(s, "256x256x3x3_s98", 256 * 256 * 9, false);
}

/// Nothing: the selection above, after an increment of the weights.
void benchmark_pruning_step(suite&) {}

} // namespace deft::bench

// magnitude_mask against sorting, and against nth_element on a copy.
#include "../support/suite.hpp"

#include <deft/pruning/magnitude_mask.hpp>
#include <deft/reference/pruning/magnitude_mask.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace deft::bench {
namespace {

/// Bytes of a mask that the truth and all rows write, so that they can be compared.
void write_bytes(const std::vector<std::uint64_t>& words, index n, float* to) {
    for (index i = 0; i < n; ++i)
        to[i] = float(words[std::size_t(i / 64)] >> (i % 64) & 1u);
}

void global(suite& s, const std::string& name, index n, double sparsity, bool full) {
    const auto w = normal<float>(n), mask = output<float>(n);
    const lazy words([=] { return std::vector<std::uint64_t>(std::size_t(mask_words(n))); });
    s.compare({.op = "magnitude_mask",
               .type = "f32",
               .shape = name + "_s" + std::to_string(int(sparsity * 100)),
               .work = {.items = double(n), .bytes = 4 * double(n), .pattern = traffic::read},
               .full = full})
        .truth(inputs{w}, outputs{mask},
               [=]<class U>(const U* from, U* to) {
                   std::vector<std::size_t> order(static_cast<std::size_t>(n));
                   for (std::size_t i = 0; i < order.size(); ++i)
                       order[i] = i;
                   const index kept = n - reference::round_half_even(sparsity * double(n));
                   std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
                       return std::abs(from[a]) > std::abs(from[b]);
                   });
                   for (index i = 0; i < n; ++i)
                       to[order[std::size_t(i)]] = U(i < kept ? 1 : 0);
               })
        .add("naive", // what frameworks do: a copy of all scores, sorted
             [=] {
                 std::vector<float> scores(static_cast<std::size_t>(n));
                 for (index i = 0; i < n; ++i)
                     scores[std::size_t(i)] = std::abs(w.data()[i]);
                 const index cut = reference::round_half_even(sparsity * double(n));
                 std::vector<float> sorted = scores;
                 std::sort(sorted.begin(), sorted.end());
                 const float threshold = cut == 0 ? 0.0f : sorted[std::size_t(cut)];
                 for (index i = 0; i < n; ++i)
                     mask.data()[i] = scores[std::size_t(i)] >= threshold ? 1.0f : 0.0f;
             },
             {.tolerance = 1}) // equal scores
        .add("nth_element",
             [=] {
                 std::vector<float> scores(static_cast<std::size_t>(n));
                 for (index i = 0; i < n; ++i)
                     scores[std::size_t(i)] = std::abs(w.data()[i]);
                 const index cut = reference::round_half_even(sparsity * double(n));
                 std::nth_element(scores.begin(), scores.begin() + cut, scores.end());
                 for (index i = 0; i < n; ++i)
                     mask.data()[i] = std::abs(w.data()[i]) >= scores[std::size_t(cut)] ? 1.0f : 0.0f;
             },
             {.tolerance = 1})
        .add("deft", [=] { deft::magnitude_mask<float>(as(w, shape<2>(1, n)), *words, {.sparsity = sparsity}); },
             {.after = [=] { write_bytes(*words, n, mask.data()); }});
}

} // namespace

void benchmark_magnitude_mask(suite& s) {
    global(s, "512x512x3x3", 512 * 512 * 9, 0.95, false);
    global(s, "resnet50", 25'502'912, 0.8, true);
    global(s, "resnet50", 25'502'912, 0.98, true);
    const index rows = 1024, columns = 1024, n = rows * columns;
    const auto w = normal<float>(n), mask = output<float>(n);
    const lazy words([=] { return std::vector<std::uint64_t>(std::size_t(mask_words(n))); });
    for (const auto& [keep, group] : {std::pair<index, index>(2, 4), std::pair<index, index>(1, 16)}) {
        const index k = keep, m = group;
        s.compare({.op = "nm_mask",
                   .type = "f32",
                   .shape = std::to_string(k) + "of" + std::to_string(m) + "_1024x1024",
                   .work = {.items = double(n), .bytes = 4 * double(n), .pattern = traffic::read},
                   .full = m != 4})
            .naive(inputs{w}, outputs{mask},
                   [=]<class U>(const U* from, U* to) {
                       const auto bytes = reference::nm_mask<U>({from, {rows, columns}}, k, m);
                       std::copy(bytes.begin(), bytes.end(), to);
                   })
            .add("deft", [=] { deft::nm_mask<float>(as(w, shape<2>(rows, columns)), *words, k, m); },
                 {.after = [=] { write_bytes(*words, n, mask.data()); }});
    }
}

} // namespace deft::bench

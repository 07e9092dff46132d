#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/pruning/magnitude_mask.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace deft::testing {

namespace {

template <class T>
std::vector<int> masked(const std::vector<T>& w, const magnitude_mask_options& options) {
    std::vector<std::uint64_t> mask(std::size_t(mask_words(index(w.size()))), ~std::uint64_t(0));
    deft::magnitude_mask<T>({w.data(), {1, index(w.size())}}, mask, options);
    std::vector<int> bits;
    for (index i = 0; i < index(w.size()); ++i)
        bits.push_back(mask_bit(mask, i) ? 1 : 0);
    return bits;
}

} // namespace

TEMPLATE_TEST_CASE("masks by hand", "[magnitude_mask]", float, double) {
    constexpr TestType inf = std::numeric_limits<TestType>::infinity();
    const std::vector<TestType> w{3, -1, 0, TestType(-0.0), 1, -inf, 2};
    CHECK(masked<TestType>(w, {.sparsity = 4.0 / 7}) == std::vector<int>{1, 0, 0, 0, 0, 1, 1});
    CHECK(masked<TestType>(w, {.sparsity = 3.0 / 7}) == std::vector<int>{1, 1, 0, 0, 0, 1, 1}); // the lower of two
    CHECK(masked<TestType>(w, {.sparsity = 1.0 / 7}) == std::vector<int>{1, 1, 1, 0, 1, 1, 1}); // 0 and -0 are equal
    CHECK(masked<TestType>(w, {.sparsity = 1}) == std::vector<int>(7, 0));
    CHECK(masked<TestType>(w, {.sparsity = 0}) == std::vector<int>(7, 1));
    // The third smallest is 1: both ones survive, and none of the zeros.
    CHECK(masked<TestType>(w, {.sparsity = 3.0 / 7, .rule = mask_rule::threshold}) ==
          std::vector<int>{1, 1, 0, 0, 1, 1, 1});
    CHECK(masked<TestType>(w, {.sparsity = 2.0 / 7, .rule = mask_rule::threshold}) == std::vector<int>(7, 1));
    CHECK(masked<TestType>(w, {.sparsity = 1, .rule = mask_rule::threshold}) == std::vector<int>{0, 0, 0, 0, 0, 1, 0});
    // round_half_even: 2.5 of 5 is 2, 1.5 of 3 is 2.
    CHECK(masked<TestType>({1, 2, 3, 4, 5}, {.sparsity = 0.5}) == std::vector<int>{0, 0, 1, 1, 1});
    CHECK(masked<TestType>({1, 2, 3}, {.sparsity = 0.5}) == std::vector<int>{0, 0, 1});
}

TEMPLATE_TEST_CASE("every count of neighbours in the last digit is exact", "[magnitude_mask]", float, double) {
    // Values one unit in the last place apart, and their negatives: what histograms of leading digits do not tell.
    std::vector<TestType> w;
    TestType value = TestType(1.5);
    for (int i = 0; i < 100; ++i) {
        w.push_back(i % 2 == 0 ? value : -value);
        value = std::nextafter(value, TestType(2));
    }
    for (int pruned = 0; pruned <= 100; ++pruned) {
        const std::vector<int> mask = masked<TestType>(w, {.sparsity = pruned / 100.0});
        for (int i = 0; i < 100; ++i)
            CHECK(mask[std::size_t(i)] == (i >= pruned ? 1 : 0));
    }
}

TEST_CASE("layers share one budget, in order", "[magnitude_mask]") {
    const std::vector<float> first{1, 5, 1}, second{1, 9};
    std::vector<std::uint64_t> a(1), b(1);
    const view<const float, 2> weights[] = {{first.data(), {1, 3}}, {second.data(), {2, 1}}};
    const view<std::uint64_t, 1> masks[] = {a, b};
    const auto mask = [&](const magnitude_mask_options& options) {
        deft::magnitude_mask<float>(std::span<const view<const float, 2>>(weights),
                                    std::span<const view<std::uint64_t, 1>>(masks), options);
    };
    mask({.sparsity = 0.2});
    CHECK(a[0] == 7);
    CHECK(b[0] == 2);
    mask({.sparsity = 0.4}); // of three ones the first is left
    CHECK(a[0] == 3);
    CHECK(b[0] == 2);
    mask({.sparsity = 0.6});
    CHECK(a[0] == 2);
    CHECK(b[0] == 2);
}

TEST_CASE("masked weights, counts and bytes", "[magnitude_mask]") {
    random_values random(3);
    for (const index n : {0, 1, 63, 64, 65, 200}) {
        std::vector<std::uint8_t> bytes, back(std::size_t(n), 9);
        index ones = 0;
        for (index i = 0; i < n; ++i) {
            bytes.push_back(std::uint8_t(random.integer(0, 1)));
            ones += bytes.back();
        }
        std::vector<std::uint64_t> mask(std::size_t(mask_words(n)), ~std::uint64_t(0));
        pack_mask(bytes, mask);
        CHECK(count_mask(mask) == ones);
        unpack_mask(mask, back);
        CHECK(back == bytes);
        std::vector<float> x(std::size_t(n), 2.0f);
        apply_mask<float>(mask, view<float, 2>(x.data(), {1, n}));
        for (std::size_t i = 0; i < x.size(); ++i)
            CHECK(x[i] == 2.0f * float(bytes[i]));
    }
}

TEST_CASE("masks reject bad input", "[magnitude_mask]") {
    std::vector<float> w(12, 1.0f), with_nan(12, 1.0f);
    with_nan[7] = std::numeric_limits<float>::quiet_NaN();
    bad_input bad("magnitude_mask"), bad_nm("nm_mask"), bad_blocks("block_mask");
    const auto call = [](bad_input& table, const std::vector<float>& weight, index words, double sparsity) {
        std::uint64_t* const mask = table.output<std::uint64_t>(4);
        return [=, p = weight.data()] {
            deft::magnitude_mask<float>({p, {3, 4}}, {mask, {words}}, {.sparsity = sparsity});
        };
    };
    CHECK(bad.rejects("masks", call(bad, w, 2, 0.5)));
    CHECK(bad.rejects("sparsity", call(bad, w, 1, -0.1)));
    CHECK(bad.rejects("sparsity", call(bad, w, 1, 1.1)));
    CHECK(bad.rejects("sparsity", call(bad, w, 1, double(with_nan[7]))));
    CHECK(bad.rejects("weights", call(bad, with_nan, 1, 0.5)));
    // A NaN in the second layer, before the first mask is written.
    std::uint64_t* const mask = bad.output<std::uint64_t>(4);
    for (const mask_scope scope : {mask_scope::global, mask_scope::layer})
        CHECK(bad.rejects("weights", [&] {
            const view<const float, 2> weights[] = {{w.data(), {3, 4}}, {with_nan.data(), {3, 4}}};
            const view<std::uint64_t, 1> masks[] = {{mask, {1}}, {mask + 1, {1}}};
            deft::magnitude_mask<float>(std::span<const view<const float, 2>>(weights),
                                        std::span<const view<std::uint64_t, 1>>(masks),
                                        {.sparsity = 0.5, .scope = scope});
        }));
    std::uint64_t* const nm = bad_nm.output<std::uint64_t>(1);
    const auto call_nm = [&](const std::vector<float>& weight, index words, index n, index m) {
        return [=, p = weight.data()] { deft::nm_mask<float>({p, {3, 4}}, {nm, {words}}, n, m); };
    };
    CHECK(bad_nm.rejects("mask", call_nm(w, 0, 1, 2)));
    CHECK(bad_nm.rejects("m", call_nm(w, 1, 0, 0)));
    CHECK(bad_nm.rejects("n", call_nm(w, 1, 3, 2)));
    CHECK(bad_nm.rejects("n", call_nm(w, 1, -1, 2)));
    CHECK(bad_nm.rejects("weight", call_nm(with_nan, 1, 1, 2)));
    std::uint64_t* const blocks = bad_blocks.output<std::uint64_t>(1);
    const auto call_blocks = [&](const std::vector<float>& weight, double sparsity, index height, index width) {
        return [=, p = weight.data()] {
            deft::block_mask<float>({p, {3, 4}}, {blocks, {1}},
                                    {.sparsity = sparsity, .block_rows = height, .block_columns = width});
        };
    };
    CHECK(bad_blocks.rejects("sparsity", call_blocks(w, 2, 1, 2)));
    CHECK(bad_blocks.rejects("block_rows", call_blocks(w, 0.5, 0, 2)));
    CHECK(bad_blocks.rejects("block_columns", call_blocks(w, 0.5, 1, 0)));
    CHECK(bad_blocks.rejects("weight", call_blocks(with_nan, 0.5, 1, 2)));
}

} // namespace deft::testing

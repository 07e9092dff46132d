/// \file
/// Parts of sequences: some tokens of tensors [B, heads, n, ...] and of decays.
#ifndef DEFT_ATTENTION_TOKEN_RANGE_HPP
#define DEFT_ATTENTION_TOKEN_RANGE_HPP

#include <deft/attention/attention_decay.hpp>
#include <deft/view.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace detail {

/// Tokens [begin, begin + count) of every head.
template <class T>
view<T, 4> token_range(const view<T, 4>& x, index begin, index count) noexcept {
    return {x.data() + begin * x.stride(2),
            {x.extent(0), x.extent(1), count, x.extent(3)},
            {x.stride(0), x.stride(1), x.stride(2), index{1}}};
}

/// The decays of tokens [begin, begin + count) of batches [batch, batch + batches).
template <class T>
attention_decay<T> decay_range(const attention_decay<T>& decay, index batch, index batches, index begin, index count) {
    if (!decay.is_per_token())
        return decay;
    const auto stride = [&](int axis) { return decay.at(axis == 0, axis == 1) - decay.at(0, 0); };
    return view<T, 3>(decay.at(batch, 0) + begin, {batches, decay.extent(1), count}, {stride(0), stride(1), index{1}});
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

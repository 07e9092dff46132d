/// \file
/// Choices that attention operators share.
#ifndef DEFT_ATTENTION_ATTENTION_OPTIONS_HPP
#define DEFT_ATTENTION_ATTENTION_OPTIONS_HPP

namespace deft {

/// What a query sees: keys up to its own position, or all of them.
enum class attention_mask { causal, full };

/// By what outputs of linear attention are divided: nothing, or the sum of the similarities.
enum class attention_normalize { none, sum };

} // namespace deft

#endif

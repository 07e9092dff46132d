/// \file
/// The base activations by name, and lists of them: vocabulary of kernels, references and operators.
///
/// | name       | sigma(u)                                                  | sigma'(u) at u = 0 |
/// |------------|-----------------------------------------------------------|--------------------|
/// | relu       | max(u, 0)                                                 | 0                  |
/// | leaky_relu | u > 0 ? u : slope u                                       | slope              |
/// | gelu_erf   | u Phi(u) = u/2 erfc(-u / sqrt 2)                          | 1/2                |
/// | gelu_tanh  | u s(2v), v = sqrt(2/pi) (u + 0.044715 u^3)                | 1/2                |
/// | silu       | u s(u)                                                    | 1/2                |
/// | tanh       | tanh u                                                    | 1                  |
/// | sigmoid    | s(u) = 1 / (1 + exp(-u))                                  | 1/4                |
/// | identity   | u                                                         | 1                  |
///
/// identity stands for "no activation" where an operator may do without; a series needs one of the others.
#ifndef DEFT_ACTIVATION_KIND_HPP
#define DEFT_ACTIVATION_KIND_HPP

#include <deft/config.hpp>

#include <iterator>
#include <type_traits>
#include <utility>

namespace deft {

enum class activation : unsigned char { relu, leaky_relu, gelu_erf, gelu_tanh, silu, tanh, sigmoid, identity };

/// One activation for every term of a sum, or one per term. Does not own a range it is built from.
class activation_list {
public:
    DEFT_ALWAYS_INLINE constexpr activation_list(activation one) noexcept : one_(one) {}

    template <class Range, class = std::enable_if_t<
                               std::is_convertible_v<decltype(std::data(std::declval<Range&>())), const activation*>>>
    DEFT_ALWAYS_INLINE constexpr activation_list(const Range& range) noexcept
        : many_(std::data(range)), size_(static_cast<index>(std::size(range))) {}

    DEFT_ALWAYS_INLINE constexpr index size() const noexcept {
        return size_;
    }
    /// The activation of term `i`.
    DEFT_ALWAYS_INLINE constexpr activation operator[](index i) const noexcept {
        return many_ == nullptr ? one_ : many_[size_ == 1 ? 0 : i];
    }

private:
    activation one_ = activation::relu;
    const activation* many_ = nullptr;
    index size_ = 1;
};

inline namespace DEFT_ISA {
namespace detail {

/// Throws for identity, in operators whose formula is about an activation.
DEFT_ALWAYS_INLINE void check_base(const char* op, activation base) {
    check(base != activation::identity, op, "base", "identity is no base of it", static_cast<double>(base));
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

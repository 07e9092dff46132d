/// \file
/// The operators as adapters describe them, and the table of one instruction set.
#ifndef DEFT_TESTS_SUPPORT_OPERATOR_TABLE_HPP
#define DEFT_TESTS_SUPPORT_OPERATOR_TABLE_HPP

#include "call.hpp"

#include <type_traits>
#include <vector>

namespace deft::testing {

struct operator_entry {
    const char* name;
    void (*bind_float)(call<float>&);
    void (*bind_double)(call<double>&);
    std::vector<test_case> (*cases)();

    template <class T>
    void bind(call<T>& c) const {
        if constexpr (std::is_same_v<T, float>)
            bind_float(c);
        else
            bind_double(c);
    }
};

struct operator_table {
    const char* isa;
    std::vector<const operator_entry*> operators;

    /// Null if there is no such operator.
    const operator_entry* find(const std::string& name) const {
        for (const operator_entry* entry : operators)
            if (entry->name == name)
                return entry;
        return nullptr;
    }
};

} // namespace deft::testing

/// Registers the adapter `struct op` under the operator's name. In namespace deft::testing.
#define DEFT_ADAPTER(op)                                                                                               \
    extern const operator_entry entry_of_##op;                                                                         \
    const operator_entry entry_of_##op{#op, &op::bind<float>, &op::bind<double>, &op::cases};

#endif

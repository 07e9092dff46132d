/// \file
/// What the adapters of augmented_shortcut and augmented_shortcut_bottleneck share.
#ifndef DEFT_TESTS_CONFORMANCE_SHORTCUT_DENSE_PATHS_HPP
#define DEFT_TESTS_CONFORMANCE_SHORTCUT_DENSE_PATHS_HPP

#include "../activation/activation_names.hpp"

#include <deft/shortcut/augmented_shortcut_paths.hpp>

#include <memory>
#include <string>
#include <vector>

namespace deft::testing {

inline const names<activation>& path_activation_names() {
    static const names<activation> all = [] {
        names<activation> with_identity = activation_names();
        with_identity.emplace_back("identity", activation::identity);
        return with_identity;
    }();
    return all;
}

inline shortcut_residual find_residual(const call_base& c) {
    const names<shortcut_residual> all{
        {"z", shortcut_residual::z}, {"separate", shortcut_residual::separate}, {"none", shortcut_residual::none}};
    return c.choice("residual", all, "z");
}

/// absent, if the case does not give it.
template <class T>
rows<const T> optional_rows(call<T>& c, const std::string& name) {
    return c.has(name) ? c.input(any_rank<>, name) : rows<const T>(absent);
}
template <class T>
rows<T> optional_rows_output(call<T>& c, const std::string& name, const std::string& like, const tolerance& bound) {
    return c.has(like) ? c.output(any_rank<>, name, c.shape(like), {.bound = bound}) : rows<T>(absent);
}
template <class T>
view<T, 2> optional_output(call<T>& c, const std::string& name, const std::string& like, const tolerance& bound) {
    return c.has(like) ? c.output(rank<2>, name, c.shape(like), {.bound = bound}) : view<T, 2>(absent);
}

/// The matrices of a tensor of rank 3 transposed, in memory of its own: weights as checkpoints hold them.
template <class T>
class transposed_weights {
public:
    transposed_weights(const call_base& c, const std::string& name)
        : shape_(c.shape(name)), memory_(std::make_shared<std::vector<T>>(c.given(name).values.size())) {
        for (index i = 0; i < shape_[0]; ++i)
            for (index j = 0; j < shape_[1]; ++j)
                for (index k = 0; k < shape_[2]; ++k)
                    at(i, k, j) = T(c.given(name).values[std::size_t((i * shape_[1] + j) * shape_[2] + k)]);
    }

    view<T, 3> tensor() const {
        return {memory_->data(), {shape_[0], shape_[2], shape_[1]}};
    }
    void copy_to(const view<T, 3>& out) const {
        for (index i = 0; i < shape_[0]; ++i)
            for (index j = 0; j < shape_[1]; ++j)
                for (index k = 0; k < shape_[2]; ++k)
                    out(i, j, k) = at(i, k, j);
    }

private:
    T& at(index i, index k, index j) const {
        return (*memory_)[std::size_t((i * shape_[2] + k) * shape_[1] + j)];
    }

    extents shape_;
    std::shared_ptr<std::vector<T>> memory_;
};

} // namespace deft::testing

#endif

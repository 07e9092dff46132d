/// \file
/// What the adapters of linear attention share: parts of sequences, decays, and states that begin empty.
#ifndef DEFT_TESTS_CONFORMANCE_ATTENTION_LINEAR_ATTENTION_CASE_HPP
#define DEFT_TESTS_CONFORMANCE_ATTENTION_LINEAR_ATTENTION_CASE_HPP

#include "support/call.hpp"

#include <deft/attention/attention_decay.hpp>
#include <deft/attention/attention_options.hpp>

#include <memory>
#include <string>
#include <vector>

namespace deft::testing {

/// Tokens [begin, end) of a tensor [B, heads, n, ...].
template <class E>
view<E, 4> tokens(const view<E, 4>& x, index begin, index end) {
    return {x.data() == nullptr ? nullptr : x.data() + begin * x.stride(2),
            {x.extent(0), x.extent(1), end - begin, x.extent(3)},
            {x.stride(0), x.stride(1), x.stride(2), index{1}}};
}
template <class E>
view<E, 3> tokens(const view<E, 3>& x, index begin, index end) {
    return {x.data() == nullptr ? nullptr : x.data() + begin,
            {x.extent(0), x.extent(1), end - begin},
            {x.stride(0), x.stride(1), index{1}}};
}

template <class E, int Rank>
void fill_with(const view<E, Rank>& to, E value) {
    const index columns = to.extent(Rank - 1), rows = columns == 0 ? 0 : to.size() / columns;
    for (index r = 0; r < rows; ++r)
        for (index c = 0, at = r * to.stride(Rank - 2); c < columns; ++c) // rows are evenly spaced
            to.data()[at + c] = value;
}
template <class From, class To, int Rank>
void copy_to(const view<From, Rank>& from, const view<To, Rank>& to) {
    const index columns = to.extent(Rank - 1), rows = columns == 0 ? 0 : to.size() / columns;
    for (index r = 0; r < rows; ++r)
        for (index c = 0; c < columns; ++c)
            to.data()[r * to.stride(Rank - 2) + c] = To(from.data()[r * from.stride(Rank - 2) + c]);
}

/// A tensor of the adapter's own.
template <class T, int Rank>
struct scratch {
    std::shared_ptr<std::vector<T>> memory;
    view<T, Rank> all;

    explicit scratch(const extents& shape)
        : memory(std::make_shared<std::vector<T>>(std::size_t(element_count(shape) + 1))),
          all(of(memory->data(), shape, std::make_index_sequence<std::size_t(Rank)>())) {}

private:
    template <std::size_t... Axis>
    static view<T, Rank> of(T* data, const extents& shape, std::index_sequence<Axis...>) {
        return {data, {shape.at(Axis)...}};
    }
};

/// in.decay as the operator takes it, as the reference takes it, and parts of it.
template <class T>
struct decay_case {
    view<const T, 1> per_head = absent;
    view<const T, 3> per_token = absent;
    scratch<T, 3> expanded; // [B, G, n]
    bool is_given = false;

    decay_case(call<T>& c, const extents& k) : expanded({k[0], k[1], k[2]}) {
        if (!c.has("in.decay"))
            return;
        is_given = true;
        const bool is_shared = c.shape("in.decay").size() == 1;
        if (is_shared)
            per_head = c.input(rank<1>, "in.decay");
        else
            per_token = c.input(rank<3>, "in.decay");
        const std::vector<double>& values = c.given("in.decay").values;
        for (index i = 0; i < expanded.all.size(); ++i)
            (*expanded.memory)[std::size_t(i)] = T(values.at(std::size_t(is_shared ? i / k[2] % k[1] : i)));
    }

    attention_decay<const T> all() const {
        return part(0, per_token.extent(2));
    }
    attention_decay<const T> part(index begin, index end) const {
        if (!is_given)
            return absent;
        if (per_head.is_given())
            return per_head;
        return tokens(per_token, begin, end);
    }
    view<const T, 3> reference() const {
        return is_given ? view<const T, 3>(expanded.all) : view<const T, 3>(absent);
    }
};

/// grad_in.decay, in the shape of in.decay.
template <class T>
struct decay_gradient_case {
    view<T, 1> per_head = absent;
    view<T, 3> per_token = absent;
    scratch<T, 3> expanded;
    scratch<T, 1> part_sum; // of a part of the sequence

    decay_gradient_case(call<T>& c, const extents& k, const tolerance& bound)
        : expanded({k[0], k[1], k[2]}), part_sum({k[1]}) {
        if (c.has("in.decay") && c.shape("in.decay").size() == 1)
            per_head = c.output(rank<1>, "grad_in.decay", c.shape("in.decay"), {.bound = bound});
        else if (c.has("in.decay"))
            per_token = c.output(rank<3>, "grad_in.decay", c.shape("in.decay"), {.bound = bound});
    }

    bool is_given() const {
        return per_head.data() != nullptr || per_token.data() != nullptr;
    }
    attention_decay<T> all() const {
        if (!is_given())
            return absent;
        return per_head.data() != nullptr ? attention_decay<T>(per_head) : attention_decay<T>(per_token);
    }
    /// Of a part; add_part() completes it.
    attention_decay<T> part(index begin, index end) const {
        if (!is_given())
            return absent;
        if (per_head.data() != nullptr)
            return part_sum.all;
        return tokens(per_token, begin, end);
    }
    void add_part(bool first) const {
        for (index g = 0; g < per_head.extent(0); ++g)
            per_head(g) = (first ? T(0) : per_head(g)) + part_sum.all(g);
    }
    view<T, 3> reference() const {
        return is_given() ? expanded.all : view<T, 3>(absent);
    }
    void from_reference() const {
        if (per_token.data() != nullptr)
            copy_to(expanded.all, per_token);
        for (index g = 0; g < per_head.extent(0); ++g) {
            per_head(g) = 0;
            for (index b = 0; b < expanded.all.extent(0); ++b)
                for (index i = 0; i < expanded.all.extent(2); ++i)
                    per_head(g) += expanded.all(b, g, i);
        }
    }
};

inline const names<attention_normalize>& normalize_names() {
    static const names<attention_normalize> all{{"none", attention_normalize::none}, {"sum", attention_normalize::sum}};
    return all;
}

} // namespace deft::testing

#endif

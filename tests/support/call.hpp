/// \file
/// `call<T>`: what an adapter sees of one test case, and what a runner sees of one bound operator.
///
/// An adapter describes an operator once, as a function from named tensors to named tensors:
///
///     struct scale {
///         template <class T> static void bind(call<T>& c) {
///             const auto x = c.input(rank<2>, "in.x");
///             const auto y = c.output(rank<2>, "out.y", c.shape("in.x"), {.bound = by_type<T>({1e-6}, {1e-14})});
///             const double factor = c.number("factor", 1);
///             c.forward("direct", [=](any_executor& e) { deft::scale(x, y, {.factor = factor}, e); });
///             c.reference([=] { reference::scale(x, y, factor); });
///         }
///         static std::vector<test_case> cases();   // generated cases for the property tests
///     };
///     DEFT_ADAPTER(scale)
///
/// The runner chooses where the tensors lie, fills them, and runs the forms as often as it likes. Everything that
/// reads parameters or prepares weights belongs in `bind`; the forms only run the operator.
/// An adapter cannot see what a case expects.
#ifndef DEFT_TESTS_SUPPORT_CALL_HPP
#define DEFT_TESTS_SUPPORT_CALL_HPP

#include "compare.hpp"
#include "executors.hpp"
#include "memory.hpp"
#include "tensor.hpp"
#include "test_case.hpp"

#include <deft/view.hpp>

#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace deft::testing {

enum class direction { forward, backward };

/// What an adapter says of an output besides its shape.
struct output_traits {
    tolerance bound = {};      // exact if not given
    const char* in_place = ""; // an input of the same shape whose memory the output may share
    const char* initial = "";  // an input that the output holds before the call: a state that is updated
    bool contiguous = false;   // its rows may not have gaps
    bool surrogate = false; // a gradient that differences of the forward pass do not show: straight through a rounding
};

/// The rank of a tensor, and its element type if that is not the type of the test: `rank<4>`, `rank<1, std::int64_t>`.
template <int Rank, class E = void>
struct rank_tag {};
template <int Rank, class E = void>
inline constexpr rank_tag<Rank, E> rank{};

/// The same for operators that work along the last axis of a tensor of any rank: `any_rank<>`, `any_rank<double>`.
template <class E = void>
struct any_rank_tag {};
template <class E = void>
inline constexpr any_rank_tag<E> any_rank{};

/// The words that a parameter may be, and what they mean.
template <class Value>
using names = std::vector<std::pair<std::string, Value>>;

struct form {
    std::string name;
    std::function<void(any_executor&)> run;
};

/// The part that does not depend on the type of the test.
class call_base {
public:
    call_base(const test_case& given, const placement& where) : case_(given), where_(where) {}

    // --- For adapters: parameters. Without a fallback, a missing one is an error of the case.
    bool has_param(const std::string& name) const;
    const parameter& param(const std::string& name) const;
    double number(const std::string& name) const;
    double number(const std::string& name, double fallback) const;
    index integer(const std::string& name) const;
    index integer(const std::string& name, index fallback) const;
    std::string text(const std::string& name) const;
    std::string text(const std::string& name, const std::string& fallback) const;
    template <class Value>
    Value choice(const std::string& name, const names<Value>& words) const {
        return pick(name, text(name), words);
    }
    template <class Value>
    Value choice(const std::string& name, const names<Value>& words, const std::string& fallback) const {
        return pick(name, text(name, fallback), words);
    }

    // --- For adapters: tensors that are given, by their full name (in.x, grad_out.y).
    bool has(const std::string& name) const;
    const tensor& given(const std::string& name) const;
    const extents& shape(const std::string& name) const {
        return given(name).shape;
    }

    // --- For adapters: what can be run.
    void forward(std::string name, std::function<void(any_executor&)> run);
    void backward(std::string name, std::function<void(any_executor&)> run);
    void reference(std::function<void()> run);
    void reference_backward(std::function<void()> run);
    /// The forms may allocate memory; the default is that they may not.
    void may_allocate(std::string reason);
    /// The function has points without a derivative; the default is that it has none.
    void has_kinks(std::string reason);

    // --- For runners.
    struct result {
        std::string name;
        direction of;
        tolerance bound;
        bool is_in_out;
        bool is_surrogate;
    };
    const std::vector<form>& forms(direction d) const {
        return d == direction::forward ? forward_ : backward_;
    }
    /// Empty if there is none.
    const std::function<void()>& reference(direction d) const {
        return d == direction::forward ? reference_ : reference_backward_;
    }
    const std::vector<result>& results() const {
        return results_;
    }
    const std::string& reason_to_allocate() const {
        return reason_to_allocate_;
    }
    const std::string& reason_for_kinks() const {
        return reason_for_kinks_;
    }
    /// Some output does share the memory of an input.
    bool is_in_place() const;
    bool can_be_in_place() const {
        return can_be_in_place_;
    }
    bool can_have_row_gaps() const {
        return can_have_row_gaps_;
    }

    static constexpr unsigned char untouched = 0xff; // in floating point a NaN

    /// Inputs get their values, every byte of the outputs becomes `pattern`, all other bytes become `untouched`.
    void prepare(unsigned char pattern = untouched);
    /// The value of an output after a run.
    tensor read(const std::string& name) const;
    /// What was written that should not have been (inputs, gaps, slack) since prepare(); empty if nothing.
    std::string damage() const;

protected:
    struct element_type {
        std::size_t size;
        bool is_integer;
        double (*load)(const void*);
        std::vector<unsigned char> (*bytes)(const std::vector<double>&);
    };
    template <class E>
    static const element_type& type_of() {
        static const element_type type{
            sizeof(E), std::numeric_limits<E>::is_integer,
            [](const void* p) { return static_cast<double>(static_cast<compute_t<E>>(*static_cast<const E*>(p))); },
            [](const std::vector<double>& values) {
                std::vector<unsigned char> bytes(values.size() * sizeof(E));
                for (std::size_t i = 0; i < values.size(); ++i) {
                    const E value = static_cast<E>(static_cast<compute_t<E>>(values[i]));
                    std::memcpy(bytes.data() + i * sizeof(E), &value, sizeof(E));
                }
                return bytes;
            }};
        return type;
    }

    /// Where a tensor ended up: all strides but that between rows follow from the shape.
    struct place {
        void* data;
        index row_stride;
    };
    place add_input(const std::string& name, const extents& shape, int rank, const element_type& type, bool contiguous);
    place add_output(const std::string& name, const extents& shape, int rank, const element_type& type,
                     const output_traits& traits);

private:
    struct buffer {
        std::string name;
        extents shape;
        const element_type* type;
        index rows, columns, row_stride;
        std::vector<unsigned char> content; // of inputs and updated states, without gaps; empty: an output
        bool is_input;
        bool is_overwritten; // an input whose memory an output shares
        std::shared_ptr<guarded_memory> memory;

        std::size_t row_bytes() const;
        unsigned char* row(index r) const;
    };

    buffer layout(const std::string& name, const extents& shape, int rank, const element_type& type, bool contiguous);
    const buffer& find(const std::string& name) const;
    template <class Value>
    Value pick(const std::string& name, const std::string& word, const names<Value>& words) const {
        for (const auto& [key, value] : words)
            if (key == word)
                return value;
        fail("parameter " + name + " is '" + word + "'");
    }
    [[noreturn]] void fail(const std::string& reason) const;

    const test_case& case_;
    placement where_;
    std::vector<buffer> buffers_;
    std::vector<result> results_;
    std::vector<form> forward_, backward_;
    std::function<void()> reference_, reference_backward_;
    std::string reason_to_allocate_, reason_for_kinks_;
    bool can_be_in_place_ = false, can_have_row_gaps_ = false;
};

/// `T` is the type of the test.
template <class T>
class call : public call_base {
    template <class E>
    using element = std::conditional_t<std::is_void_v<E>, T, E>;

public:
    using call_base::call_base;

    template <int Rank, class E>
    view<const element<E>, Rank> input(rank_tag<Rank, E> r, const std::string& name, bool contiguous = false) {
        return input_as(r, name, shape(name), contiguous);
    }
    /// A tensor of any rank.
    template <class E>
    rows<const element<E>> input(any_rank_tag<E>, const std::string& name) {
        const extents& shape = this->shape(name);
        return to_view<const element<E>, 2>(add_input(name, shape, int(shape.size()), type_of<element<E>>(), false),
                                            as_rows(shape));
    }
    /// The same elements in another shape.
    template <int Rank, class E>
    view<const element<E>, Rank> input_as(rank_tag<Rank, E>, const std::string& name, const extents& shape,
                                          bool contiguous = false) {
        return to_view<const element<E>, Rank>(add_input(name, shape, Rank, type_of<element<E>>(), contiguous), shape);
    }
    /// absent, if the case does not give it.
    template <int Rank, class E>
    view<const element<E>, Rank> optional_input(rank_tag<Rank, E> r, const std::string& name) {
        return has(name) ? input(r, name) : view<const element<E>, Rank>(absent);
    }
    /// A number that is given as a tensor of one element.
    double scalar(const std::string& name) const {
        return given(name).values.at(0);
    }

    template <int Rank, class E>
    view<element<E>, Rank> output(rank_tag<Rank, E>, const std::string& name, const extents& shape,
                                  const output_traits& traits = {}) {
        return to_view<element<E>, Rank>(add_output(name, shape, Rank, type_of<element<E>>(), traits), shape);
    }
    template <class E>
    rows<element<E>> output(any_rank_tag<E>, const std::string& name, const extents& shape,
                            const output_traits& traits = {}) {
        return to_view<element<E>, 2>(add_output(name, shape, int(shape.size()), type_of<element<E>>(), traits),
                                      as_rows(shape));
    }

private:
    static extents as_rows(const extents& shape) {
        if (shape.empty())
            return {1, 1};
        return {element_count({shape.begin(), shape.end() - 1}), shape.back()};
    }

    template <class E, int Rank>
    static view<E, Rank> to_view(place p, const extents& shape) {
        return to_view<E>(p, shape, std::make_integer_sequence<int, Rank>());
    }
    template <class E, int... Axes>
    static view<E, int(sizeof...(Axes))> to_view(place p, const extents& shape, std::integer_sequence<int, Axes...>) {
        constexpr int rank = int(sizeof...(Axes));
        index strides[sizeof...(Axes)];
        for (int axis = rank - 1; axis >= 0; --axis)
            strides[axis] = axis == rank - 1   ? 1
                            : axis == rank - 2 ? p.row_stride
                                               : strides[axis + 1] * shape[std::size_t(axis + 1)];
        return {static_cast<E*>(p.data), {shape.at(std::size_t(Axes))...}, {strides[Axes]...}};
    }
};

} // namespace deft::testing

#endif

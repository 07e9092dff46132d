#include "call.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace deft::testing {

// ---------------------------------------------------------------------------------------------------- parameters

void call_base::fail(const std::string& reason) const {
    throw std::runtime_error("the case does not fit the operator: " + reason);
}

bool call_base::has_param(const std::string& name) const {
    return case_.params.count(name) != 0;
}

const parameter& call_base::param(const std::string& name) const {
    const auto found = case_.params.find(name);
    if (found == case_.params.end())
        fail("it has no parameter " + name);
    return found->second;
}

double call_base::number(const std::string& name) const {
    const parameter& p = param(name);
    constexpr double infinity = std::numeric_limits<double>::infinity();
    if (p.type == parameter::kind::number)
        return p.number;
    if (p.text == "NaN")
        return std::numeric_limits<double>::quiet_NaN();
    if (p.text == "Infinity" || p.text == "-Infinity")
        return p.text[0] == '-' ? -infinity : infinity;
    fail("parameter " + name + " is not a number");
}

double call_base::number(const std::string& name, double fallback) const {
    return has_param(name) ? number(name) : fallback;
}

index call_base::integer(const std::string& name) const {
    const double value = number(name);
    if (!(value > -0x1p53 && value < 0x1p53) || double(index(value)) != value)
        fail("parameter " + name + " is not an integer");
    return index(value);
}

index call_base::integer(const std::string& name, index fallback) const {
    return has_param(name) ? integer(name) : fallback;
}

std::string call_base::text(const std::string& name) const {
    if (param(name).type != parameter::kind::text)
        fail("parameter " + name + " is not a text");
    return param(name).text;
}

std::string call_base::text(const std::string& name, const std::string& fallback) const {
    return has_param(name) ? text(name) : fallback;
}

// ------------------------------------------------------------------------------------------------------- tensors

bool call_base::has(const std::string& name) const {
    return case_.given.count(name) != 0;
}

const tensor& call_base::given(const std::string& name) const {
    const auto found = case_.given.find(name);
    if (found == case_.given.end())
        fail("it does not give " + name);
    return found->second;
}

call_base::buffer call_base::layout(const std::string& name, const extents& shape, int rank, const element_type& type,
                                    bool contiguous) {
    if (shape.size() != std::size_t(rank))
        fail(name + " has shape " + to_text(shape) + ", the operator takes rank " + std::to_string(rank));
    for (const buffer& other : buffers_)
        if (other.name == name)
            throw std::logic_error("the adapter asks for " + name + " twice");

    buffer b{};
    b.name = name;
    b.shape = shape;
    b.type = &type;
    b.columns = shape.empty() ? 1 : shape.back();
    b.rows = b.columns == 0 ? 0 : element_count(shape) / b.columns;
    const bool may_have_gaps = shape.size() >= 2 && !contiguous;
    b.row_stride = b.columns + (may_have_gaps ? where_.row_gap : 0);
    can_have_row_gaps_ |= may_have_gaps;

    // Different offsets for different tensors, so that no two are aligned alike.
    const index offset = where_.where == placement::edge::inside ? where_.offset * index(buffers_.size() + 1) % 64 : 0;
    const index span = b.rows == 0 ? 0 : (b.rows - 1) * b.row_stride + b.columns;
    b.memory =
        std::make_shared<guarded_memory>(std::size_t(span) * type.size, where_.where, std::size_t(offset) * type.size);
    return b;
}

call_base::place call_base::add_input(const std::string& name, const extents& shape, int rank, const element_type& type,
                                      bool contiguous) {
    const tensor& content = given(name);
    if (element_count(shape) != index(content.values.size()))
        fail(name + " has shape " + to_text(content.shape) + ", the operator takes " + to_text(shape));
    if (type.is_integer && !content.is_integer)
        fail(name + " holds no integers");

    buffer b = layout(name, shape, rank, type, contiguous);
    b.content = type.bytes(content.values);
    b.is_input = true;
    buffers_.push_back(std::move(b));
    return {buffers_.back().memory->data(), buffers_.back().row_stride};
}

call_base::place call_base::add_output(const std::string& name, const extents& shape, int rank,
                                       const element_type& type, const output_traits& traits) {
    const bool is_gradient = name.rfind("grad_in.", 0) == 0;
    if (!is_gradient && name.rfind("out.", 0) != 0)
        throw std::logic_error("the adapter declares the output " + name + ", neither out.* nor grad_in.*");

    buffer b = layout(name, shape, rank, type, traits.contiguous);
    const bool is_updated = *traits.initial != '\0';
    if (is_updated)
        b.content = type.bytes(given(traits.initial).values);
    if (*traits.in_place != '\0') {
        can_be_in_place_ = true;
        if (where_.in_place) {
            buffer& input = const_cast<buffer&>(find(traits.in_place));
            if (input.shape != shape || input.row_stride != b.row_stride || input.type != b.type)
                throw std::logic_error("the adapter lets " + name + " share the memory of " + input.name +
                                       ", which is laid out differently");
            input.is_overwritten = true;
            b.memory = input.memory;
        }
    }
    buffers_.push_back(std::move(b));
    results_.push_back(
        {name, is_gradient ? direction::backward : direction::forward, traits.bound, is_updated, traits.surrogate});
    return {buffers_.back().memory->data(), buffers_.back().row_stride};
}

const call_base::buffer& call_base::find(const std::string& name) const {
    for (const buffer& b : buffers_)
        if (b.name == name)
            return b;
    throw std::logic_error("the adapter has not asked for " + name);
}

std::size_t call_base::buffer::row_bytes() const {
    return std::size_t(columns) * type->size;
}

unsigned char* call_base::buffer::row(index r) const {
    return memory->data() + std::size_t(r * row_stride) * type->size;
}

bool call_base::is_in_place() const {
    return std::any_of(buffers_.begin(), buffers_.end(), [](const buffer& b) { return b.is_overwritten; });
}

// --------------------------------------------------------------------------------------------------------- forms

void call_base::forward(std::string name, std::function<void(any_executor&)> run) {
    forward_.push_back({std::move(name), std::move(run)});
}

void call_base::backward(std::string name, std::function<void(any_executor&)> run) {
    backward_.push_back({std::move(name), std::move(run)});
}

void call_base::reference(std::function<void()> run) {
    reference_ = std::move(run);
}

void call_base::reference_backward(std::function<void()> run) {
    reference_backward_ = std::move(run);
}

void call_base::may_allocate(std::string reason) {
    reason_to_allocate_ = std::move(reason);
}

void call_base::has_kinks(std::string reason) {
    reason_for_kinks_ = std::move(reason);
}

// ---------------------------------------------------------------------------------------------------------- runs

void call_base::prepare(unsigned char pattern) {
    for (const buffer& b : buffers_)
        std::fill(b.memory->begin(), b.memory->end(), untouched);
    // Inputs last: one whose memory an output shares has its values at the start of the run.
    for (const bool inputs : {false, true})
        for (const buffer& b : buffers_) {
            if (b.is_input != inputs)
                continue;
            for (index r = 0; r < b.rows; ++r)
                if (b.content.empty())
                    std::fill_n(b.row(r), b.row_bytes(), pattern);
                else
                    std::memcpy(b.row(r), b.content.data() + std::size_t(r) * b.row_bytes(), b.row_bytes());
        }
}

tensor call_base::read(const std::string& name) const {
    const buffer& b = find(name);
    tensor values{b.shape, {}, b.type->is_integer};
    for (index r = 0; r < b.rows; ++r)
        for (index c = 0; c < b.columns; ++c)
            values.values.push_back(b.type->load(b.row(r) + std::size_t(c) * b.type->size));
    return values;
}

namespace {

// Every byte equals the next one: memcmp is what makes tests of many placements fast.
bool is_untouched(const unsigned char* begin, const unsigned char* end) {
    return begin >= end ||
           (*begin == call_base::untouched && std::memcmp(begin, begin + 1, std::size_t(end - begin) - 1) == 0);
}

} // namespace

std::string call_base::damage() const {
    for (const buffer& b : buffers_) {
        for (index r = 0; r < b.rows && b.is_input && !b.is_overwritten; ++r) {
            const unsigned char *const is = b.row(r), *const was = b.content.data() + std::size_t(r) * b.row_bytes();
            if (std::memcmp(was, is, b.row_bytes()) != 0) {
                const auto byte = std::mismatch(is, is + b.row_bytes(), was).first - is;
                return "changed " + b.name + "[" + std::to_string(r * b.columns + byte / index(b.type->size)) + "]";
            }
        }
        const unsigned char* outside = b.memory->begin();
        for (index row = 0; row <= b.rows; ++row) {
            const unsigned char* next = row < b.rows ? b.row(row) : b.memory->end();
            if (!is_untouched(outside, next))
                return "wrote outside of " + b.name + ", " +
                       (row == 0        ? "before its first element"
                        : row == b.rows ? "after its last element"
                                        : "between rows " + std::to_string(row - 1) + " and " + std::to_string(row));
            outside = next + b.row_bytes();
        }
    }
    return "";
}

} // namespace deft::testing

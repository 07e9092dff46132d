/// \file
/// Reads .safetensors files, and trusts nothing in them.
///
/// Layout (https://github.com/huggingface/safetensors, section Format): the length of the header in 8 bytes, the
/// header in JSON, then the data. All is little-endian, tensors are row-major and need not be aligned.
/// Every error is a std::runtime_error; those of opening a file name the file and the reason.
#ifndef DEFT_EXAMPLES_SUPPORT_SAFETENSORS_HPP
#define DEFT_EXAMPLES_SUPPORT_SAFETENSORS_HPP

#include <deft/config.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace deft::support {

static_assert(std::endian::native == std::endian::little, "the data would have to be byte-swapped");

/// A tensor inside a file that was read. Row-major; `data` has any alignment and lives as long as the file object.
struct tensor {
    std::string dtype;
    std::vector<index> shape;
    const unsigned char* data = nullptr;
    std::size_t bytes = 0;
};

/// Bytes of one element; 0 for a dtype that is not known.
inline std::size_t element_bytes(std::string_view dtype) {
    static constexpr std::pair<std::string_view, std::size_t> known[] = {
        {"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},
        {"I32", 4}, {"I16", 2}, {"I8", 1},  {"U8", 1},   {"BOOL", 1},
    };
    for (const auto& [name, bytes] : known)
        if (name == dtype)
            return bytes;
    return 0;
}

/// "[49152, 576]"
inline std::string to_string(const std::vector<index>& shape) {
    return nlohmann::json(shape).dump();
}

/// A whole file in memory, checked completely before the constructor returns.
class safetensors_file {
public:
    explicit safetensors_file(const std::filesystem::path& path);

    // Tensors point into the data: moving keeps them valid, copying would not.
    safetensors_file(safetensors_file&&) = default;
    safetensors_file& operator=(safetensors_file&&) = default;

    const std::filesystem::path& path() const {
        return path_;
    }
    const std::map<std::string, tensor>& tensors() const {
        return tensors_;
    }
    const std::map<std::string, std::string>& metadata() const {
        return metadata_;
    }
    /// Throws if there is no such tensor.
    const tensor& operator[](const std::string& name) const {
        const auto found = tensors_.find(name);
        if (found == tensors_.end())
            fail("has no tensor '" + name + "'");
        return found->second;
    }

private:
    static constexpr std::uint64_t max_header_bytes = 100'000'000; // the limit that the format sets

    struct range {
        std::uint64_t begin, end;
        tensor* owner;
    };

    [[noreturn]] void fail(const std::string& reason) const {
        throw std::runtime_error(path_.string() + ": " + reason);
    }
    void read(std::ifstream& stream, void* target, std::uint64_t bytes) const {
        if (!stream.read(static_cast<char*>(target), static_cast<std::streamsize>(bytes)))
            fail("cannot be read to its end");
    }
    nlohmann::json parse(const std::string& header) const;
    void read_metadata(const nlohmann::json& entry);
    range read_entry(const std::string& name, const nlohmann::json& entry, tensor& t) const;
    void check_cover(std::vector<range> ranges, std::uint64_t data_bytes) const;

    std::filesystem::path path_;
    std::vector<unsigned char> data_;
    std::map<std::string, tensor> tensors_;
    std::map<std::string, std::string> metadata_;
};

inline safetensors_file::safetensors_file(const std::filesystem::path& path) : path_(path) {
    std::error_code error;
    const std::uint64_t file_bytes = std::filesystem::file_size(path, error);
    if (error)
        fail("cannot be opened: " + error.message());
    std::ifstream stream(path, std::ios::binary);
    if (!stream)
        fail("cannot be opened");

    std::uint64_t header_bytes = 0;
    if (file_bytes < sizeof header_bytes)
        fail("is shorter than the 8 bytes of the header length");
    read(stream, &header_bytes, sizeof header_bytes);
    const std::uint64_t rest = file_bytes - sizeof header_bytes;
    if (header_bytes > rest)
        fail("header length " + std::to_string(header_bytes) + " exceeds the " + std::to_string(rest) +
             " bytes left in the file");
    if (header_bytes > max_header_bytes)
        fail("header length " + std::to_string(header_bytes) + " exceeds the limit of 100 MB");

    std::string header(header_bytes, '\0');
    read(stream, header.data(), header_bytes);
    std::vector<range> ranges;
    const nlohmann::json entries = parse(header);
    for (const auto& [name, entry] : entries.items()) {
        if (name == "__metadata__")
            read_metadata(entry);
        else
            ranges.push_back(read_entry(name, entry, tensors_[name]));
    }
    check_cover(ranges, rest - header_bytes);

    // Only now, so that a file with a broken header costs no memory.
    data_.resize(rest - header_bytes);
    read(stream, data_.data(), data_.size());
    for (const range& r : ranges)
        r.owner->data = data_.data() + r.begin;
}

inline nlohmann::json safetensors_file::parse(const std::string& header) const {
    using nlohmann::json;
    if (header.empty() || header.front() != '{')
        fail("the header is not a JSON object");

    // The parser would keep the last of equal keys and follow any nesting; a header has three levels.
    std::vector<std::set<std::string>> keys;
    const auto watch = [&](int depth, json::parse_event_t event, json& value) {
        using event_t = json::parse_event_t;
        if ((event == event_t::object_start || event == event_t::array_start) && depth > 2)
            fail("the header is nested too deeply");
        if (event == event_t::object_start)
            keys.emplace_back();
        else if (event == event_t::object_end)
            keys.pop_back();
        else if (event == event_t::key && !keys.back().insert(value.get<std::string>()).second)
            fail("the header repeats the key '" + value.get<std::string>() + "'");
        return true;
    };
    try {
        return json::parse(header, watch);
    } catch (const json::exception& e) {
        fail(std::string("the header is not valid JSON: ") + e.what());
    }
}

inline void safetensors_file::read_metadata(const nlohmann::json& entry) {
    if (!entry.is_object())
        fail("__metadata__ is not an object");
    for (const auto& [key, value] : entry.items()) {
        if (!value.is_string())
            fail("__metadata__ of '" + key + "' is not a string");
        metadata_[key] = value.get<std::string>();
    }
}

inline safetensors_file::range safetensors_file::read_entry(const std::string& name, const nlohmann::json& entry,
                                                            tensor& t) const {
    const auto reject = [&](const std::string& reason) { fail("tensor '" + name + "' " + reason); };
    const auto field = [&](const char* key) -> const nlohmann::json& {
        if (!entry.is_object() || !entry.contains(key))
            reject(std::string("has no ") + key);
        return entry[key];
    };
    // Integers that are negative, fractional or beyond 64 bits are not number_unsigned.
    const auto list = [&](const char* key) {
        const nlohmann::json& value = field(key);
        if (!value.is_array() || !std::all_of(value.begin(), value.end(),
                                              [](const nlohmann::json& item) { return item.is_number_unsigned(); }))
            reject(std::string("has a ") + key + " that is not a list of non-negative integers");
        return value.get<std::vector<std::uint64_t>>();
    };

    const nlohmann::json& dtype = field("dtype");
    if (!dtype.is_string())
        reject("has a dtype that is not a string");
    t.dtype = dtype.get<std::string>();
    std::uint64_t bytes = element_bytes(t.dtype);
    if (bytes == 0)
        reject("has the unknown dtype '" + t.dtype + "'");

    // Zero extents take no part in the limit: strides are products of the others.
    const std::vector<std::uint64_t> extents = list("shape");
    for (const std::uint64_t extent : extents) {
        const std::uint64_t factor = std::max<std::uint64_t>(extent, 1);
        if (bytes > std::uint64_t(std::numeric_limits<index>::max()) / factor)
            reject("has a shape that overflows");
        bytes *= factor;
        t.shape.push_back(static_cast<index>(extent));
    }
    if (std::find(extents.begin(), extents.end(), 0) != extents.end())
        bytes = 0;
    t.bytes = bytes;

    const std::vector<std::uint64_t> offsets = list("data_offsets");
    if (offsets.size() != 2 || offsets[0] > offsets[1])
        reject("has data_offsets that are not [begin, end]");
    if (offsets[1] - offsets[0] != bytes)
        reject("has " + std::to_string(offsets[1] - offsets[0]) + " bytes, but " + t.dtype + " of shape " +
               to_string(t.shape) + " takes " + std::to_string(bytes));
    return {offsets[0], offsets[1], &t};
}

/// The tensors must cover the data once, without holes: anything else hides bytes or shares them.
inline void safetensors_file::check_cover(std::vector<range> ranges, std::uint64_t data_bytes) const {
    std::sort(ranges.begin(), ranges.end(), [](const range& left, const range& right) {
        return std::pair(left.begin, left.end) < std::pair(right.begin, right.end);
    });
    std::uint64_t covered = 0;
    for (const range& r : ranges) {
        if (r.end > data_bytes)
            fail("is truncated: a tensor ends at byte " + std::to_string(r.end) + " of " + std::to_string(data_bytes));
        if (r.begin != covered)
            fail(std::string("tensors ") + (r.begin < covered ? "overlap" : "leave a hole") + " before byte " +
                 std::to_string(std::max(r.begin, covered)));
        covered = r.end;
    }
    if (covered != data_bytes)
        fail("is too long: " + std::to_string(data_bytes - covered) + " bytes belong to no tensor");
}

namespace detail {

struct binary16 {
    std::uint16_t bits;
    operator float() const {
        // Shifted into place the exponent lacks the difference of the biases, 127 - 15, in normal and subnormal
        // numbers.
        const float magnitude = std::bit_cast<float>(std::uint32_t(bits & 0x7fffu) << 13) * 0x1p112f;
        const std::uint32_t special = (bits & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u; // infinities and NaN
        const std::uint32_t sign = std::uint32_t(bits & 0x8000u) << 16;
        return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | special | sign);
    }
};

struct bfloat16 {
    std::uint16_t bits;
    operator float() const {
        return std::bit_cast<float>(std::uint32_t(bits) << 16);
    }
};

struct boolean {
    unsigned char byte;
    operator std::uint8_t() const {
        return byte != 0;
    }
};

template <class T, class Stored, class Value = Stored>
std::vector<T> convert(const tensor& t) {
    std::vector<T> result(t.bytes / sizeof(Stored));
    for (std::size_t i = 0; i < result.size(); ++i) {
        Stored stored;
        std::memcpy(&stored, t.data + i * sizeof stored, sizeof stored); // any alignment
        const Value value = stored;
        if constexpr (std::is_integral_v<T>) {
            if constexpr (!std::is_integral_v<Value>)
                throw std::runtime_error("a tensor of " + t.dtype + " was read as integers");
            else if (!std::in_range<T>(value))
                throw std::runtime_error("the value " + std::to_string(value) + " of a tensor of " + t.dtype +
                                         " does not fit");
        }
        result[i] = static_cast<T>(value);
    }
    return result;
}

} // namespace detail

/// The elements as `T`. Floating-point `T` rounds what it cannot hold; integral `T` throws, also for float tensors.
template <class T>
std::vector<T> to_vector(const tensor& t) {
    static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>);
    using namespace detail;
    if (t.dtype == "F64")
        return convert<T, double>(t);
    if (t.dtype == "F32")
        return convert<T, float>(t);
    if (t.dtype == "F16")
        return convert<T, binary16, float>(t);
    if (t.dtype == "BF16")
        return convert<T, bfloat16, float>(t);
    if (t.dtype == "I64")
        return convert<T, std::int64_t>(t);
    if (t.dtype == "I32")
        return convert<T, std::int32_t>(t);
    if (t.dtype == "I16")
        return convert<T, std::int16_t>(t);
    if (t.dtype == "I8")
        return convert<T, std::int8_t>(t);
    if (t.dtype == "U8")
        return convert<T, std::uint8_t>(t);
    if (t.dtype == "BOOL")
        return convert<T, boolean, std::uint8_t>(t);
    throw std::runtime_error("a tensor of the unknown dtype '" + t.dtype + "' was read");
}

/// Slice `i` along the first axis, without a copy: row `i` of a matrix.
inline tensor row(const tensor& t, index i) {
    if (t.shape.empty() || i < 0 || i >= t.shape[0])
        throw std::runtime_error("row " + std::to_string(i) + " of a tensor of shape " + to_string(t.shape) +
                                 " was read");
    const std::size_t bytes = t.bytes / static_cast<std::size_t>(t.shape[0]);
    return {t.dtype, {t.shape.begin() + 1, t.shape.end()}, t.data + static_cast<std::size_t>(i) * bytes, bytes};
}

} // namespace deft::support

#endif

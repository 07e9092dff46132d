#include "test_case.hpp"

#include "../../examples/support/safetensors.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <stdexcept>

namespace deft::testing {

namespace {

bool starts_with(const std::string& text, const char* prefix) {
    return text.rfind(prefix, 0) == 0;
}

std::string to_text(const parameter& p) {
    switch (p.type) {
    case parameter::kind::null:
        return "null";
    case parameter::kind::number: {
        char text[32];
        std::snprintf(text, sizeof text, "%.9g", p.number);
        return text;
    }
    case parameter::kind::text:
        return p.text;
    case parameter::kind::list:
        break;
    }
    std::string text = "[";
    for (const parameter& item : p.items)
        text += (text.size() > 1 ? ", " : "") + to_text(item);
    return text + "]";
}

parameter to_parameter(const nlohmann::json& value) {
    if (value.is_null())
        return {};
    if (value.is_boolean())
        return value.get<bool>() ? 1.0 : 0.0;
    if (value.is_number())
        return value.get<double>();
    if (value.is_string())
        return value.get<std::string>();
    if (!value.is_array())
        throw std::runtime_error("params holds an object");
    std::vector<parameter> items;
    for (const nlohmann::json& item : value)
        items.push_back(to_parameter(item));
    return items;
}

/// Python writes NaN and Infinity, which JSON does not have: outside of strings they become strings.
std::string quote_special_numbers(const std::string& json) {
    std::string result;
    bool in_string = false;
    for (std::size_t i = 0; i < json.size(); ++i) {
        if (json[i] == '"' && (i == 0 || json[i - 1] != '\\'))
            in_string = !in_string;
        std::size_t length = 0;
        for (const char* word : {"NaN", "-Infinity", "Infinity"})
            if (!in_string && length == 0 && json.compare(i, std::string(word).size(), word) == 0)
                length = std::string(word).size();
        if (length == 0) {
            result += json[i];
        } else {
            result += '"' + json.substr(i, length) + '"';
            i += length - 1;
        }
    }
    return result;
}

tensor to_tensor(const support::tensor& stored) {
    tensor result;
    result.shape = stored.shape;
    result.values = support::to_vector<double>(stored);
    result.is_integer = !stored.dtype.empty() && stored.dtype[0] != 'F' && stored.dtype != "BF16";
    for (const double value : result.values)
        if (result.is_integer && std::abs(value) >= 0x1p53)
            throw std::runtime_error("an integer is beyond 2^53");
    return result;
}

} // namespace

bool test_case::has_cotangents() const {
    return std::any_of(given.begin(), given.end(), [](const auto& t) { return starts_with(t.first, "grad_out."); });
}

std::string test_case::describe() const {
    std::string text = op + "/" + name;
    for (const auto& [key, value] : params)
        text += " " + key + "=" + to_text(value);
    for (const auto& [key, value] : given)
        text += " " + key + to_text(value.shape);
    return text;
}

test_case read_case(const std::filesystem::path& path) {
    const support::safetensors_file file(path);
    try {
        test_case result;
        result.name = path.stem().string();
        const auto& metadata = file.metadata();
        if (metadata.count("op") == 0)
            throw std::runtime_error("__metadata__ has no op");
        result.op = metadata.at("op");
        const std::string params = metadata.count("params") == 0 ? "{}" : metadata.at("params");
        const nlohmann::json parsed = nlohmann::json::parse(quote_special_numbers(params));
        for (const auto& [key, value] : parsed.items())
            result.params[key] = to_parameter(value);
        for (const auto& [name, stored] : file.tensors()) {
            if (starts_with(name, "in.") || starts_with(name, "grad_out."))
                result.given[name] = to_tensor(stored);
            else if (starts_with(name, "out.") || starts_with(name, "grad_in."))
                result.expected[name] = to_tensor(stored);
            else
                throw std::runtime_error("tensor '" + name + "' is none of in.*, out.*, grad_out.*, grad_in.*");
        }
        if (result.expected.empty())
            throw std::runtime_error("expects no tensor");
        return result;
    } catch (const std::exception& e) {
        const std::string text = e.what();
        throw std::runtime_error(starts_with(text, path.string().c_str()) ? text : path.string() + ": " + text);
    }
}

} // namespace deft::testing

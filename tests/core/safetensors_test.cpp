#include "../../examples/support/safetensors.hpp"

#include "support/catch.hpp"

#include <cmath>
#include <limits>
#include <random>

#include <unistd.h>

namespace {

using deft::support::safetensors_file;
using deft::support::tensor;
using deft::support::to_vector;
namespace fs = std::filesystem;

/// A path of our own that is removed again, so that tests may run side by side.
struct scratch_file {
    fs::path path = fs::temp_directory_path() / ("deft_" + std::to_string(::getpid()) + ".safetensors");

    explicit scratch_file(const std::string& content) {
        std::ofstream(path, std::ios::binary).write(content.data(), static_cast<std::streamsize>(content.size()));
    }
    ~scratch_file() {
        fs::remove(path);
    }
    scratch_file(const scratch_file&) = delete;
    scratch_file& operator=(const scratch_file&) = delete;
};

template <class T>
std::string bytes_of(const std::vector<T>& values) {
    std::string bytes(values.size() * sizeof(T), '\0');
    if (!values.empty())
        std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
}

std::string file_content(const std::string& header, const std::string& data) {
    return bytes_of(std::vector<std::uint64_t>{header.size()}) + header + data;
}

safetensors_file load(const std::string& content) {
    const scratch_file file(content);
    return safetensors_file(file.path);
}

/// What the reader says about a file; empty if it accepts it. Any exception but std::runtime_error fails the test.
std::string complaint(const std::string& content) {
    try {
        load(content);
    } catch (const std::runtime_error& e) {
        return e.what();
    }
    return {};
}

/// One tensor of eight bytes, with the given text as its entry.
std::string complaint_about(const std::string& entry) {
    return complaint(file_content("{\"x\":" + entry + "}", std::string(8, '\1')));
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

template <class Stored>
tensor wrap(const char* dtype, const std::vector<Stored>& values) {
    return {dtype,
            {static_cast<deft::index>(values.size())},
            reinterpret_cast<const unsigned char*>(values.data()),
            values.size() * sizeof(Stored)};
}

// Seven tensors of several types, an odd alignment, an empty one, a scalar, metadata and padding.
std::string valid_file() {
    return file_content(R"({"__metadata__":{"op":"none","params":"{\"n\": 2}"},)"
                        R"("byte":{"dtype":"U8","shape":[],"data_offsets":[0,1]},)"
                        R"("matrix":{"dtype":"F32","shape":[2,3],"data_offsets":[1,25]},)"
                        R"("empty":{"dtype":"F64","shape":[5,0],"data_offsets":[25,25]},)"
                        R"("half":{"dtype":"F16","shape":[2],"data_offsets":[25,29]},)"
                        R"("brain":{"dtype":"BF16","shape":[1,1],"data_offsets":[29,31]},)"
                        R"("ids":{"dtype":"I64","shape":[1],"data_offsets":[31,39]},)"
                        R"("flags":{"dtype":"BOOL","shape":[2],"data_offsets":[39,41]}}   )",
                        "\x07" + bytes_of(std::vector<float>{1, 2, 3, 4, 5, 6}) +
                            bytes_of(std::vector<std::uint16_t>{0x3c00, 0xc000}) +
                            bytes_of(std::vector<std::uint16_t>{0x3f80}) + bytes_of(std::vector<std::int64_t>{-3}) +
                            std::string(1, 0) + "\x01");
}

} // namespace

TEST_CASE("safetensors: a valid file gives its tensors and metadata") {
    safetensors_file loaded = load(valid_file());
    const safetensors_file file = std::move(loaded); // tensors survive the move

    CHECK(file.metadata() == std::map<std::string, std::string>{{"op", "none"}, {"params", "{\"n\": 2}"}});
    CHECK(file.tensors().size() == 7);
    CHECK(file["byte"].shape.empty());
    CHECK(to_vector<int>(file["byte"]) == std::vector<int>{7});
    CHECK(file["matrix"].shape == std::vector<deft::index>{2, 3});
    CHECK(to_vector<double>(file["matrix"]) == std::vector<double>{1, 2, 3, 4, 5, 6});
    CHECK(file["empty"].bytes == 0);
    CHECK(to_vector<float>(file["empty"]).empty());
    CHECK(to_vector<float>(file["half"]) == std::vector<float>{1, -2});
    CHECK(to_vector<float>(file["brain"]) == std::vector<float>{1});
    CHECK(to_vector<deft::index>(file["ids"]) == std::vector<deft::index>{-3});
    CHECK(to_vector<int>(file["flags"]) == std::vector<int>{0, 1});
}

TEST_CASE("safetensors: a file without tensors is valid") {
    CHECK(complaint(file_content("{}", "")).empty());
    CHECK(complaint(file_content(R"({"__metadata__":{}})", "")).empty());
}

TEST_CASE("safetensors: a missing tensor is named, and its file") {
    const safetensors_file file = load(valid_file());
    try {
        file["weight"];
        FAIL("accepted");
    } catch (const std::runtime_error& e) {
        CHECK(contains(e.what(), file.path().string() + ": has no tensor 'weight'"));
    }
}

TEST_CASE("safetensors: paths that are no files") {
    for (const fs::path& path : {fs::temp_directory_path() / "deft_no_such_file", fs::temp_directory_path()}) {
        try {
            const safetensors_file file(path);
            FAIL("accepted");
        } catch (const std::runtime_error& e) {
            CHECK(contains(e.what(), path.string() + ": cannot be opened: "));
        }
    }
}

TEST_CASE("safetensors: broken headers") {
    const auto [content, reason] = GENERATE(table<std::string, std::string>({
        {"", "shorter than the 8 bytes"},
        {std::string(7, '\0'), "shorter than the 8 bytes"},
        {std::string(8, '\0'), "not a JSON object"},
        {std::string(8, '\xff'), "header length 18446744073709551615 exceeds the 0 bytes left"},
        {std::string("\x03\0\0\0\0\0\0\0{}", 10), "header length 3 exceeds the 2 bytes left"},
        {file_content("[]", ""), "not a JSON object"},
        {file_content("null", ""), "not a JSON object"},
        {file_content(" {}", ""), "not a JSON object"},
        {file_content("{", ""), "not valid JSON"},
        {file_content("{}{}", ""), "not valid JSON"},
        {file_content("{\"\xff\":0}", ""), "not valid JSON"},
        {file_content("{\"x\":" + std::string(100000, '[') + std::string(100000, ']') + "}", ""), "nested too deeply"},
        {file_content(R"({"__metadata__":[]})", ""), "__metadata__ is not an object"},
        {file_content(R"({"__metadata__":{"n":2}})", ""), "__metadata__ of 'n' is not a string"},
        {file_content(R"({"__metadata__":{"n":"1","n":"2"}})", ""), "repeats the key 'n'"},
        {file_content(R"({"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                      R"("x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
                      ""),
         "repeats the key 'x'"},
        {file_content(R"({"x":{"dtype":"U8","dtype":"I8","shape":[0],"data_offsets":[0,0]}})", ""),
         "repeats the key 'dtype'"},
    }));
    CAPTURE(content.substr(0, 100));
    CHECK(contains(complaint(content), reason));
    CHECK(contains(complaint(content), ".safetensors: "));
}

TEST_CASE("safetensors: a header above the limit is refused before it is read") {
    const scratch_file file(bytes_of(std::vector<std::uint64_t>{100'000'001}));
    fs::resize_file(file.path, 100'000'009); // a hole: takes no space
    CHECK_THROWS_AS(safetensors_file(file.path), std::runtime_error);
    try {
        const safetensors_file loaded(file.path);
    } catch (const std::runtime_error& e) {
        CHECK(contains(e.what(), "exceeds the limit of 100 MB"));
    }
}

TEST_CASE("safetensors: broken entries") {
    const auto [entry, reason] = GENERATE(table<std::string, std::string>({
        {R"([])", "has no dtype"},
        {R"(1)", "has no dtype"},
        {R"({"shape":[2],"data_offsets":[0,8]})", "has no dtype"},
        {R"({"dtype":"F32","data_offsets":[0,8]})", "has no shape"},
        {R"({"dtype":"F32","shape":[2]})", "has no data_offsets"},
        {R"({"dtype":5,"shape":[2],"data_offsets":[0,8]})", "dtype that is not a string"},
        {R"({"dtype":"F33","shape":[2],"data_offsets":[0,8]})", "unknown dtype 'F33'"},
        {R"({"dtype":"","shape":[2],"data_offsets":[0,8]})", "unknown dtype ''"},
        {R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})", "shape that is not a list of non-negative integers"},
        {R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})", "shape that is not a list"},
        {R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})", "shape that is not a list"},
        {R"({"dtype":"F32","shape":["2"],"data_offsets":[0,8]})", "shape that is not a list"},
        {R"({"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,8]})", "shape that is not a list"},
        {R"({"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,8]})", "shape that overflows"},
        {R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]})", "shape that overflows"},
        {R"({"dtype":"U8","shape":[0,4294967296,4294967296],"data_offsets":[0,0]})", "shape that overflows"},
        {R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})", "has 8 bytes, but F32 of shape [3] takes 12"},
        {R"({"dtype":"F32","shape":[1],"data_offsets":[0,8]})", "has 8 bytes, but F32 of shape [1] takes 4"},
        {R"({"dtype":"F32","shape":[0],"data_offsets":[0,8]})", "has 8 bytes, but F32 of shape [0] takes 0"},
        {R"({"dtype":"F32","shape":[2],"data_offsets":{}})", "data_offsets that is not a list"},
        {R"({"dtype":"F32","shape":[2],"data_offsets":[8]})", "not [begin, end]"},
        {R"({"dtype":"F32","shape":[2],"data_offsets":[0,8,8]})", "not [begin, end]"},
        {R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})", "not [begin, end]"},
        {R"({"dtype":"F32","shape":[2],"data_offsets":[-8,0]})", "data_offsets that is not a list"},
        {R"({"dtype":"F32","shape":[2],"data_offsets":[0.5,8]})", "data_offsets that is not a list"},
        {R"({"dtype":"F32","shape":[3],"data_offsets":[0,12]})", "is truncated: a tensor ends at byte 12 of 8"},
        {R"({"dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,18446744073709551615]})", "has 7 bytes"},
        {R"({"dtype":"U8","shape":[7],"data_offsets":[18446744073709551608,18446744073709551615]})", "is truncated"},
        {R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})", "leave a hole before byte 4"},
        {R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})", "is too long: 4 bytes belong to no tensor"},
        {R"({"dtype":"U8","shape":[5],"data_offsets":[0,5]},"y":{"dtype":"U8","shape":[4],"data_offsets":[4,8]})",
         "overlap before byte 5"},
        {R"({"dtype":"U8","shape":[3],"data_offsets":[0,3]},"y":{"dtype":"U8","shape":[4],"data_offsets":[4,8]})",
         "leave a hole before byte 4"},
        {R"({"dtype":"U8","shape":[8],"data_offsets":[0,8]},"y":{"dtype":"U8","shape":[8],"data_offsets":[0,8]})",
         "overlap"},
    }));
    CAPTURE(entry);
    CHECK(contains(complaint_about(entry), reason));
}

TEST_CASE("safetensors: every truncation and every extension is refused") {
    const std::string whole = valid_file();
    REQUIRE(complaint(whole).empty());
    for (std::size_t length = 0; length < whole.size(); ++length) {
        CAPTURE(length);
        CHECK_FALSE(complaint(whole.substr(0, length)).empty());
    }
    CHECK(contains(complaint(whole + '\0'), "is too long: 1 bytes"));
}

TEST_CASE("safetensors: a mutated file loads consistently or is refused") {
    const std::string whole = valid_file();
    const std::string likely = "0123456789[]{}:,\""; // keeps the header JSON now and then
    std::mt19937 random(20240601);
    const auto below = [&](std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random); };
    int accepted = 0;
    for (int round = 0; round < 3000; ++round) {
        std::string content = whole;
        for (std::size_t changes = 1 + below(4); changes > 0; --changes)
            content[below(content.size())] = below(2) ? likely[below(likely.size())] : static_cast<char>(below(256));
        try {
            const safetensors_file file = load(content);
            ++accepted;
            std::size_t total = 0;
            for (const auto& [name, t] : file.tensors()) {
                std::size_t count = 1;
                for (const deft::index extent : t.shape)
                    count *= static_cast<std::size_t>(extent);
                REQUIRE(t.bytes == count * deft::support::element_bytes(t.dtype));
                REQUIRE(to_vector<double>(t).size() == count); // touches every byte
                total += t.bytes;
            }
            REQUIRE(total <= content.size());
        } catch (const std::runtime_error&) {
        }
    }
    CHECK(accepted > 0);    // changes in the data alone do no harm
    CHECK(accepted < 3000); // changes in the header do
}

TEST_CASE("safetensors: half and bfloat16 become the float of the same value") {
    std::vector<std::uint16_t> all(65536);
    for (std::size_t i = 0; i < all.size(); ++i)
        all[i] = static_cast<std::uint16_t>(i);
    const std::vector<float> half = to_vector<float>(wrap("F16", all));
    const std::vector<float> brain = to_vector<float>(wrap("BF16", all));

    const auto value = [](std::uint32_t bits, int exponent_bits, int fraction_bits) -> double {
        const int exponent = int(bits >> fraction_bits) & ((1 << exponent_bits) - 1);
        const double fraction = std::ldexp(bits & ((1u << fraction_bits) - 1), -fraction_bits);
        const int bias = (1 << (exponent_bits - 1)) - 1;
        const double sign = bits & 0x8000u ? -1 : 1;
        if (exponent == 2 * bias + 1)
            return fraction == 0 ? sign * HUGE_VAL : std::numeric_limits<double>::quiet_NaN();
        return sign * (exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias));
    };
    const auto same = [](double left, double right) {
        return std::isnan(left) ? std::isnan(right) : left == right && std::signbit(left) == std::signbit(right);
    };
    int wrong = 0;
    for (std::size_t i = 0; i < all.size(); ++i)
        wrong += !same(value(all[i], 5, 10), half[i]) + !same(value(all[i], 8, 7), brain[i]);
    CHECK(wrong == 0);
}

TEST_CASE("safetensors: conversions to other types") {
    CHECK(to_vector<float>(wrap("F64", std::vector<double>{0.1, -2})) == std::vector<float>{0.1f, -2.0f});
    CHECK(to_vector<double>(wrap("I32", std::vector<std::int32_t>{-5})) == std::vector<double>{-5});
    CHECK(to_vector<std::int8_t>(wrap("I16", std::vector<std::int16_t>{-128})) == std::vector<std::int8_t>{-128});
    CHECK(to_vector<int>(wrap("I8", std::vector<std::int8_t>{-128})) == std::vector<int>{-128});
    CHECK(to_vector<int>(wrap("U8", std::vector<std::uint8_t>{255})) == std::vector<int>{255});

    CHECK_THROWS_AS(to_vector<std::int8_t>(wrap("I16", std::vector<std::int16_t>{128})), std::runtime_error);
    CHECK_THROWS_AS(to_vector<unsigned>(wrap("I64", std::vector<std::int64_t>{-1})), std::runtime_error);
    CHECK_THROWS_AS(to_vector<int>(wrap("F32", std::vector<float>{1})), std::runtime_error);
    CHECK_THROWS_AS(to_vector<int>(wrap("F16", std::vector<std::uint16_t>{0})), std::runtime_error);
    CHECK_THROWS_AS(to_vector<int>(wrap("U32", std::vector<std::uint32_t>{0})), std::runtime_error);
}

TEST_CASE("safetensors: rows of a tensor") {
    const safetensors_file file = load(valid_file());
    const tensor second = row(file["matrix"], 1);
    CHECK(second.shape == std::vector<deft::index>{3});
    CHECK(to_vector<float>(second) == std::vector<float>{4, 5, 6});
    CHECK(to_vector<float>(row(file["empty"], 4)).empty());
    CHECK_THROWS_AS(row(file["matrix"], 2), std::runtime_error);
    CHECK_THROWS_AS(row(file["matrix"], -1), std::runtime_error);
    CHECK_THROWS_AS(row(file["byte"], 0), std::runtime_error);
}

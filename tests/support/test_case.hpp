/// \file
/// One call of an operator: parameters, tensors given, and, in golden files, tensors expected.
#ifndef DEFT_TESTS_SUPPORT_TEST_CASE_HPP
#define DEFT_TESTS_SUPPORT_TEST_CASE_HPP

#include "tensor.hpp"

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace deft::testing {

/// A parameter as JSON has it. Booleans are the numbers 0 and 1.
struct parameter {
    enum class kind { null, number, text, list };

    parameter() = default;
    parameter(double value) : type(kind::number), number(value) {}
    parameter(std::string value) : type(kind::text), text(std::move(value)) {}
    parameter(const char* value) : parameter(std::string(value)) {}
    parameter(std::vector<parameter> values) : type(kind::list), items(std::move(values)) {}

    kind type = kind::null;
    double number = 0;
    std::string text;
    std::vector<parameter> items;
};

/// Tensors are named as in golden files: in.*, grad_out.* are given, out.*, grad_in.* are expected.
struct test_case {
    std::string op;
    std::string name;
    std::map<std::string, parameter> params;
    std::map<std::string, tensor> given;
    std::map<std::string, tensor> expected;

    bool has_cotangents() const;
    /// One line that tells generated cases apart: operator, name, parameters and shapes.
    std::string describe() const;
};

/// Reads a golden file. Throws std::runtime_error that names the file and the reason.
test_case read_case(const std::filesystem::path& path);

} // namespace deft::testing

#endif

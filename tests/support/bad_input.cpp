#include "bad_input.hpp"

#include <algorithm>
#include <cctype>
#include <stdexcept>

namespace deft::testing {

namespace {

bool has_word(const std::string& text, const std::string& word) {
    const auto is_part = [&](std::size_t i) {
        return i < text.size() && (std::isalnum(static_cast<unsigned char>(text[i])) != 0 || text[i] == '_');
    };
    for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1))
        if ((at == 0 || !is_part(at - 1)) && !is_part(at + word.size()))
            return true;
    return false;
}

} // namespace

verdict bad_input::rejects(const std::string& argument, const std::function<void()>& call) const {
    std::string text;
    try {
        call();
        return {"was accepted"};
    } catch (const std::invalid_argument& e) {
        text = e.what();
    } catch (const std::exception& e) {
        return {std::string("threw something else: ") + e.what()};
    }
    if (!has_word(text, op_))
        return {"the message does not name " + op_ + ": " + text};
    if (!has_word(text, argument))
        return {"the message does not name " + argument + ": " + text};
    for (const std::vector<unsigned char>& output : outputs_)
        if (std::any_of(output.begin(), output.end(), [](unsigned char byte) { return byte != pattern; }))
            return {"wrote to an output before it threw: " + text};
    return {};
}

} // namespace deft::testing

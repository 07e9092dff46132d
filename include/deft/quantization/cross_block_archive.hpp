/// \file
/// Bytes of a saved cross_block state: vectors and numbers in order, with a checksum behind them. For the machine that
/// wrote them, or one of its byte order.
#ifndef DEFT_QUANTIZATION_CROSS_BLOCK_ARCHIVE_HPP
#define DEFT_QUANTIZATION_CROSS_BLOCK_ARCHIVE_HPP

#include <deft/config.hpp>

#include <cstdint>
#include <cstring>
#include <istream>
#include <ostream>
#include <string>
#include <type_traits>
#include <vector>

namespace deft::quantization {
inline namespace DEFT_ISA {

/// Writes or reads, whichever it was made for, so that what is saved and what is loaded cannot differ.
class archive {
public:
    explicit archive(std::ostream& to) : out_(&to) {}
    explicit archive(std::istream& from) : in_(&from) {}

    bool is_reading() const noexcept {
        return in_ != nullptr;
    }

    template <class V, class = std::enable_if_t<std::is_trivially_copyable_v<V>>>
    void operator()(V& value) {
        bytes(&value, sizeof value);
    }
    /// A vector of at most `most` elements.
    template <class V>
    void operator()(std::vector<V>& values, index most) {
        std::int64_t size = std::int64_t(values.size());
        (*this)(size);
        deft::detail::check(size >= 0 && size <= most, "cross_block", "size of a saved tensor",
                            "does not fit the model", double(size));
        values.resize(std::size_t(size));
        if (size > 0)
            bytes(values.data(), values.size() * sizeof(V));
    }
    /// The value that is read must be the one that is given.
    template <class V>
    void same(V value, const char* what) {
        V stored = value;
        (*this)(stored);
        deft::detail::check(stored == value, "cross_block", what, "as saved, is not that of this run", double(stored));
    }
    void checksum() {
        const std::uint64_t expected = hash_;
        std::uint64_t stored = expected;
        (*this)(stored);
        if (stored != expected)
            deft::detail::throw_invalid("deft::cross_block: the saved state is damaged: its checksum does not match");
        if (out_ != nullptr && !out_->flush())
            deft::detail::throw_invalid("deft::cross_block: the state could not be written");
    }

private:
    void bytes(void* data, std::size_t count) {
        if (out_ != nullptr) {
            out_->write(static_cast<const char*>(data), std::streamsize(count));
        } else if (!in_->read(static_cast<char*>(data), std::streamsize(count))) {
            deft::detail::throw_invalid("deft::cross_block: the saved state ends early");
        }
        const auto* p = static_cast<const unsigned char*>(data);
        for (std::size_t i = 0; i < count; ++i) // FNV-1a
            hash_ = (hash_ ^ p[i]) * 1099511628211u;
    }

    std::ostream* out_ = nullptr;
    std::istream* in_ = nullptr;
    std::uint64_t hash_ = 14695981039346656037u;
};

} // namespace DEFT_ISA
} // namespace deft::quantization

#endif

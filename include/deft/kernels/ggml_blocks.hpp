/// \file
/// Blocks of 32 weights as ggml writes them: q4_0 and q8_0, a binary16 step and the codes. C++17.
#ifndef DEFT_KERNELS_GGML_BLOCKS_HPP
#define DEFT_KERNELS_GGML_BLOCKS_HPP

#include <deft/config.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

inline constexpr index ggml_block = 32;
inline constexpr index q4_0_bytes = 2 + 16;
inline constexpr index q8_0_bytes = 2 + 32;

/// The value of two little-endian bytes of binary16, exact.
inline float binary16_value(const std::uint8_t* bytes) noexcept {
    const int bits = bytes[0] | bytes[1] << 8;
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    float size;
    if (exponent == 31)
        size = fraction != 0 ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity();
    else if (exponent == 0)
        size = std::ldexp(static_cast<float>(fraction), -24);
    else
        size = std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
    return bits >> 15 != 0 ? -size : size;
}

/// One block: 16 bytes in block32 order, for the zero point 8.
inline void unpack_q4_0(const std::uint8_t* block, std::uint8_t* codes, float& scale) noexcept {
    scale = binary16_value(block);
    std::memcpy(codes, block + 2, 16);
}

/// One block: 32 codes, for the zero point 128.
inline void unpack_q8_0(const std::uint8_t* block, std::uint8_t* codes, float& scale) noexcept {
    scale = binary16_value(block);
    for (index i = 0; i < ggml_block; ++i) // two's complement to offset binary
        codes[i] = static_cast<std::uint8_t>(block[2 + i] ^ 0x80);
}

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

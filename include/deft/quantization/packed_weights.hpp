/// \file
/// Weights as codes of 2, 4 or 8 bits with step sizes and zero points: packing, unpacking, and what ggml writes.
///
/// What a runtime loads after CBQ (arXiv:2312.07950). Codes are unsigned, and every matrix has one formula,
///
///     w[o, k] = scale[o, g] (code[o, k] - zero_point[o, g]),   g = k / group_size   (0 if group_size is 0)
///
/// with 0 <= code < 2^bits. Signed codes q are stored as q + 2^(bits - 1) with zero point 2^(bits - 1). Codes of 3 bits
/// are stored in 4. Rows start on a byte; code_order (kernels/packed_codes.hpp) says where a code stands; unused bits
/// are 0. G = 1, or ceil(columns / group_size) groups, the last of which may be short.
///
///     deft::pack_codes({codes, {o, k}}, {bytes, {o, format.row_bytes()}}, {.bits = 4});
///     deft::dequantize_codes<float>({.codes = .., .scale = .., .zero_point = .., .format = format}, w);
#ifndef DEFT_QUANTIZATION_PACKED_WEIGHTS_HPP
#define DEFT_QUANTIZATION_PACKED_WEIGHTS_HPP

#include <deft/kernels/ggml_blocks.hpp>
#include <deft/kernels/packed_codes.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace deft {

/// How codes are packed.
struct packing {
    int bits = 4; ///< 2, 4 or 8
    code_order order = code_order::linear;
};

/// What a file keeps beside the bytes: plain numbers.
struct packed_format {
    index rows = 0, columns = 0;
    int bits = 4;
    index group_size = 0; ///< columns that share a scale; 0: all
    code_order order = code_order::linear;

    constexpr index groups() const noexcept {
        return group_size == 0 ? 1 : (columns + group_size - 1) / group_size;
    }
    constexpr index row_bytes() const noexcept {
        return kernels::packed_row_bytes(columns, bits, order);
    }
};

/// A packed matrix over memory of the caller. zero_point may be absent: all are 2^(bits - 1).
template <class T>
struct packed_weights {
    view<const std::uint8_t, 2> codes;      ///< [rows, row_bytes]
    view<const T, 2> scale;                 ///< [rows, groups]
    view<const std::int64_t, 2> zero_point; ///< [rows, groups]
    packed_format format;
};

inline namespace DEFT_ISA {
namespace detail {

inline void check_bits(const char* op, int bits) {
    check(bits == 2 || bits == 4 || bits == 8, op, "bits", "must be 2, 4 or 8", double(bits));
}

inline void check_format(const char* op, const packed_format& f) {
    check_bits(op, f.bits);
    check(f.rows >= 0, op, "rows", "must not be negative", double(f.rows));
    check(f.columns >= 0, op, "columns", "must not be negative", double(f.columns));
    check(f.group_size >= 0, op, "group_size", "must not be negative", double(f.group_size));
}

template <class T>
void check_packed(const char* op, const packed_weights<T>& w) {
    check_format(op, w.format);
    check_extent(op, "codes", w.codes, 0, w.format.rows, "rows");
    check_extent(op, "codes", w.codes, 1, w.format.row_bytes(), "bytes of a row");
    check_extent(op, "scale", w.scale, 0, w.format.rows, "rows");
    check_extent(op, "scale", w.scale, 1, w.format.groups(), "groups of a row");
    if (w.zero_point.is_given()) {
        check_extent(op, "zero_point", w.zero_point, 0, w.format.rows, "rows");
        check_extent(op, "zero_point", w.zero_point, 1, w.format.groups(), "groups of a row");
    }
}

/// Shapes of codes [rows, columns] and their bytes.
template <class Codes, class Bytes>
void check_packing(const char* op, const Codes& codes, const Bytes& packed, const packing& p) {
    check_bits(op, p.bits);
    check_extent(op, "packed", packed, 0, codes.extent(0), "rows of codes");
    check_extent(op, "packed", packed, 1, kernels::packed_row_bytes(codes.extent(1), p.bits, p.order),
                 "bytes of a row of codes");
}

/// Shapes of rows of ggml blocks, and of what comes out of them.
inline void check_ggml(const char* op, const view<const std::uint8_t, 2>& blocks, index block_bytes,
                       const view<std::uint8_t, 2>& codes, index code_bytes, const view<float, 2>& scale) {
    const index count = blocks.extent(1) / block_bytes;
    check(blocks.extent(1) % block_bytes == 0, op, "extent 1 of blocks", "must be a multiple of a block's bytes",
          double(blocks.extent(1)));
    check_extent(op, "codes", codes, 0, blocks.extent(0), "rows of blocks");
    check_extent(op, "codes", codes, 1, count * code_bytes, "bytes of codes in a row of blocks");
    check_extent(op, "scale", scale, 0, blocks.extent(0), "rows of blocks");
    check_extent(op, "scale", scale, 1, count, "blocks in a row");
}

} // namespace detail

/// Packs codes [rows, columns] into packed [rows, row bytes]. Code is an integer type, std::uint8_t unless written.
///
/// packed must not overlap codes. Throws std::invalid_argument before anything is written if shapes do not fit, bits is
/// none of 2, 4, 8, or a code is not in [0, 2^bits).
template <class Code = std::uint8_t>
void pack_codes(in<Code, 2> codes, view<std::uint8_t, 2> packed, const packing& options = {}) {
    static_assert(std::is_integral_v<Code>, "codes are integers");
    const char* const op = "pack_codes";
    detail::check_packing(op, codes, packed, options);
    const auto most = static_cast<std::uint64_t>((1 << options.bits) - 1);
    for (index o = 0; o < codes.extent(0); ++o)
        for (index k = 0; k < codes.extent(1); ++k) {
            const Code code = codes(o, k);
            detail::check(static_cast<std::uint64_t>(code) <= most, op, "a code", "must lie in [0, 2^bits)",
                          double(code));
        }
    for (index o = 0; o < codes.extent(0); ++o)
        kernels::pack_code_row(codes.data() + o * codes.stride(0), codes.extent(1), options.bits, options.order,
                               packed.data() + o * packed.stride(0));
}

/// The inverse of pack_codes: to any integer type. Throws likewise, but all bytes are valid.
template <class Code = std::uint8_t>
void unpack_codes(in<std::uint8_t, 2> packed, view<Code, 2> codes, const packing& options = {}) {
    static_assert(std::is_integral_v<Code>, "codes are integers");
    detail::check_packing("unpack_codes", codes, packed, options);
    for (index o = 0; o < codes.extent(0); ++o)
        kernels::unpack_code_row(packed.data() + o * packed.stride(0), codes.extent(1), options.bits, options.order,
                                 codes.data() + o * codes.stride(0));
}

/// w [rows, columns] = scale (code - zero point); two roundings at most. w must not overlap what is packed. Throws
/// std::invalid_argument before anything is written if shapes or bits do not fit.
template <class T>
void dequantize_codes(const packed_weights<std::type_identity_t<T>>& packed, view<T, 2> w) {
    const char* const op = "dequantize_codes";
    const packed_format& f = packed.format;
    detail::check_packed(op, packed);
    detail::check_extent(op, "w", w, 0, f.rows, "rows");
    detail::check_extent(op, "w", w, 1, f.columns, "columns");
    constexpr index piece = 256; // whole bytes, and blocks, of every width
    for (index o = 0; o < f.rows; ++o)
        for (index k = 0; k < f.columns; k += piece) {
            std::uint8_t codes[std::size_t(piece)];
            const index count = std::min(piece, f.columns - k);
            kernels::unpack_code_row(packed.codes.data() + o * packed.codes.stride(0) + k * f.bits / 8, count, f.bits,
                                     f.order, codes);
            for (index j = 0; j < count;) {
                const index group = f.group_size == 0 ? 0 : (k + j) / f.group_size;
                const index end = f.group_size == 0 ? count : std::min(count, (group + 1) * f.group_size - k);
                const T scale = packed.scale(o, group);
                const T zero = packed.zero_point.is_given() ? static_cast<T>(packed.zero_point(o, group))
                                                            : static_cast<T>(1 << (f.bits - 1));
                T* const to = w.data() + o * w.stride(0) + k;
                for (; j < end; ++j)
                    to[j] = scale * (static_cast<T>(codes[j]) - zero);
            }
        }
}

/// Rows of q4_0 blocks, 18 bytes for 32 weights each, [rows, 18 n], to codes [rows, 16 n] of 4 bits in block32 order,
/// group_size 32, zero point 8 (absent), and scale [rows, n], which may be negative. Exact.
/// Throws std::invalid_argument before anything is written if shapes do not fit.
inline void import_q4_0(in<std::uint8_t, 2> blocks, view<std::uint8_t, 2> codes, view<float, 2> scale) {
    detail::check_ggml("import_q4_0", blocks, kernels::q4_0_bytes, codes, 16, scale);
    for (index o = 0; o < scale.extent(0); ++o)
        for (index b = 0; b < scale.extent(1); ++b)
            kernels::unpack_q4_0(&blocks(o, b * kernels::q4_0_bytes), &codes(o, b * 16), scale(o, b));
}

/// Rows of q8_0 blocks, 34 bytes each, [rows, 34 n], to codes [rows, 32 n] of 8 bits, group_size 32, zero point 128
/// (absent), and scale [rows, n]. Exact. Throws like import_q4_0.
inline void import_q8_0(in<std::uint8_t, 2> blocks, view<std::uint8_t, 2> codes, view<float, 2> scale) {
    detail::check_ggml("import_q8_0", blocks, kernels::q8_0_bytes, codes, 32, scale);
    for (index o = 0; o < scale.extent(0); ++o)
        for (index b = 0; b < scale.extent(1); ++b)
            kernels::unpack_q8_0(&blocks(o, b * kernels::q8_0_bytes), &codes(o, b * 32), scale(o, b));
}

} // namespace DEFT_ISA
} // namespace deft

#endif

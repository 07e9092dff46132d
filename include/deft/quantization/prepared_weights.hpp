/// \file
/// A packed weight matrix in the layout of the product kernels: made once per layer, without loss.
///
///     const deft::prepared_weights<float> w({.codes = .., .scale = .., .zero_point = .., .format = ..});
///     deft::quantized_matmul(x, w, bias, y);
///
/// Rows are interleaved by 16, columns padded to 32 in each group: bits / 8 bytes per weight, 5 to 9 bytes per row and
/// group. Groups of 32, 64, .. columns have no padding.
#ifndef DEFT_QUANTIZATION_PREPARED_WEIGHTS_HPP
#define DEFT_QUANTIZATION_PREPARED_WEIGHTS_HPP

#include <deft/kernels/quantized_product.hpp>
#include <deft/quantization/column_segments.hpp>
#include <deft/quantization/packed_weights.hpp>
#include <deft/simd/aligned_vector.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {

template <class T>
class prepared_weights {
    static_assert(std::is_floating_point_v<T>, "scales are float or double");
    using tile = kernels::tile_order;

public:
    /// Throws std::invalid_argument if shapes or bits do not fit, a scale is not finite, or a zero point is no code.
    explicit prepared_weights(const packed_weights<T>& w)
        : format_(checked(w)), segments_(w.format.columns, w.format.group_size),
          codes_(std::size_t(tiles() * segments_.blocks() * tile::block_bytes(w.format.bits))),
          scale_(std::size_t(tiles() * segments_.count() * tile::rows)), zero_(scale_.size()),
          code_sums_(scale_.size()) {
        std::uint8_t row[std::size_t(kernels::segment_blocks * kernels::code_block)];
        for (index o = 0; o < format_.rows; ++o)
            for (index s = 0; s < segments_.count(); ++s) {
                const index group = segments_.group[std::size_t(s)], at = row_at(o, s);
                scale_[std::size_t(at)] = w.scale(o, group);
                zero_[std::size_t(at)] = static_cast<std::uint8_t>(
                    w.zero_point.is_given() ? w.zero_point(o, group) : std::int64_t(1) << (format_.bits - 1));
                const int zero = zero_[std::size_t(at)];
                common_zero_ = (o == 0 && s == 0) || common_zero_ == zero ? zero : -1;
                read_codes(w, o, s, row);
                std::int32_t sum = 0;
                for (index k = 0; k < segments_.columns(s); ++k)
                    sum += row[k];
                code_sums_[std::size_t(at)] = sum;
                for_each_block(s, [&](index block, index first, index count) {
                    kernels::interleave_codes(row + first, count, o % tile::rows, format_.bits,
                                              codes_.data() + block_at(o, block));
                });
            }
    }

    const packed_format& format() const noexcept {
        return format_;
    }

    /// Back to the canonical form: the codes, scales and zero points that the constructor was given, bit for bit.
    /// The order may be another. Throws std::invalid_argument before anything is written if shapes do not fit.
    void unpack(view<std::uint8_t, 2> packed, out<T, 2> scale, out<std::int64_t, 2> zero_point,
                code_order order = code_order::linear) const {
        packed_format f = format_;
        f.order = order;
        detail::check_packed("prepared_weights::unpack", packed_weights<T>{packed, scale, zero_point, f});
        std::vector<std::uint8_t> row(std::size_t(f.columns));
        for (index o = 0; o < f.rows; ++o) {
            for (index s = 0; s < segments_.count(); ++s) {
                const index group = segments_.group[std::size_t(s)], at = row_at(o, s);
                scale(o, group) = scale_[std::size_t(at)];
                if (zero_point.is_given())
                    zero_point(o, group) = zero_[std::size_t(at)];
                for_each_block(s, [&](index block, index first, index count) {
                    kernels::deinterleave_codes(codes_.data() + block_at(o, block), count, o % tile::rows, f.bits,
                                                row.data() + segments_.first_column[std::size_t(s)] + first);
                });
            }
            kernels::pack_code_row(row.data(), f.columns, f.bits, order, packed.data() + o * packed.stride(0));
        }
    }

    index tiles() const noexcept {
        return (format_.rows + tile::rows - 1) / tile::rows;
    }
    /// For kernels.
    kernels::tiled_weights<T> tiled() const noexcept {
        return {codes_.data(),
                scale_.data(),
                zero_.data(),
                code_sums_.data(),
                segments_.first_block.data(),
                segments_.first_column.data(),
                format_.rows,
                segments_.blocks(),
                segments_.count(),
                format_.bits,
                common_zero_};
    }
    const detail::column_segments& segments() const noexcept {
        return segments_;
    }

private:
    static const packed_format& checked(const packed_weights<T>& w) {
        const char* const op = "prepared_weights";
        detail::check_packed(op, w);
        const std::int64_t most = (1 << w.format.bits) - 1;
        for (index o = 0; o < w.format.rows; ++o)
            for (index g = 0; g < w.format.groups(); ++g) {
                detail::check(std::isfinite(w.scale(o, g)), op, "a scale", "must be finite", double(w.scale(o, g)));
                if (w.zero_point.is_given())
                    detail::check(w.zero_point(o, g) >= 0 && w.zero_point(o, g) <= most, op, "a zero_point",
                                  "must lie in [0, 2^bits)", double(w.zero_point(o, g)));
            }
        return w.format;
    }
    // The codes of one row in one segment. Segments need not start on a byte.
    void read_codes(const packed_weights<T>& w, index o, index s, std::uint8_t* codes) const noexcept {
        const index first = segments_.first_column[std::size_t(s)], count = segments_.columns(s);
        const index start = first / kernels::code_block * kernels::code_block;
        std::uint8_t whole[std::size_t((kernels::segment_blocks + 1) * kernels::code_block)];
        kernels::unpack_code_row(w.codes.data() + o * w.codes.stride(0) + start * format_.bits / 8,
                                 first + count - start, format_.bits, format_.order, whole);
        std::copy_n(whole + (first - start), count, codes);
    }
    // f(block of the tile, its first column in the segment, columns).
    template <class F>
    void for_each_block(index s, F&& f) const {
        const index begin = segments_.first_block[std::size_t(s)], end = segments_.first_block[std::size_t(s + 1)];
        for (index b = begin; b < end; ++b) {
            const index first = (b - begin) * kernels::code_block;
            f(b, first, std::min(kernels::code_block, segments_.columns(s) - first));
        }
    }
    index row_at(index o, index s) const noexcept {
        return (o / tile::rows * segments_.count() + s) * tile::rows + o % tile::rows;
    }
    index block_at(index o, index block) const noexcept {
        return (o / tile::rows * segments_.blocks() + block) * tile::block_bytes(format_.bits);
    }

    packed_format format_;
    detail::column_segments segments_;
    simd::aligned_vector<std::uint8_t> codes_;
    simd::aligned_vector<T> scale_;
    std::vector<std::uint8_t> zero_;
    simd::aligned_vector<std::int32_t> code_sums_;
    int common_zero_ = -1; // of all rows and groups
};

} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// How the columns of a quantised matrix are cut for its kernels: the same for weights and activations.
#ifndef DEFT_QUANTIZATION_COLUMN_SEGMENTS_HPP
#define DEFT_QUANTIZATION_COLUMN_SEGMENTS_HPP

#include <deft/kernels/quantized_product.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace detail {

/// Groups of columns as segments of at most 512 columns, each of whole blocks.
struct column_segments {
    std::vector<std::int32_t> first_block{0}, first_column{0}; ///< one more than segments
    std::vector<std::int32_t> group;                           ///< of a segment

    column_segments(index columns, index group_size) {
        const index step = group_size == 0 ? std::max<index>(columns, 1) : group_size;
        constexpr index most = kernels::segment_blocks * kernels::code_block;
        index block = 0;
        const auto add = [&](index begin, index end, index g) {
            block += (end - begin + kernels::code_block - 1) / kernels::code_block;
            first_block.push_back(static_cast<std::int32_t>(block));
            first_column.push_back(static_cast<std::int32_t>(end));
            group.push_back(static_cast<std::int32_t>(g));
        };
        if (columns == 0 && group_size == 0) // one group, of nothing
            add(0, 0, 0);
        for (index begin = 0, g = 0; begin < columns; begin += step, ++g)
            for (index k = begin, end = std::min(begin + step, columns); k < end; k += most)
                add(k, std::min(k + most, end), g);
    }

    index count() const noexcept {
        return index(group.size());
    }
    index blocks() const noexcept {
        return first_block.back();
    }
    index columns(index segment) const noexcept {
        return first_column[std::size_t(segment + 1)] - first_column[std::size_t(segment)];
    }
};

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// A factor of a matrix product in memory, with any strides. C++17.
#ifndef DEFT_KERNELS_STRIDED_MATRIX_HPP
#define DEFT_KERNELS_STRIDED_MATRIX_HPP

#include <deft/config.hpp>

namespace deft {
inline namespace DEFT_ISA {
namespace kernels {

/// Element (i, j) is data[i * row_stride + j * column_stride].
template <class T>
struct strided_matrix {
    T* data;
    index row_stride, column_stride;

    /// The part from (i, j) on. Of a matrix without elements, whose pointer may be null, the matrix.
    DEFT_ALWAYS_INLINE strided_matrix at(index i, index j) const noexcept {
        return {data == nullptr ? data : data + i * row_stride + j * column_stride, row_stride, column_stride};
    }
    DEFT_ALWAYS_INLINE strided_matrix transposed() const noexcept {
        return {data, column_stride, row_stride};
    }
};

} // namespace kernels
} // namespace DEFT_ISA
} // namespace deft

#endif

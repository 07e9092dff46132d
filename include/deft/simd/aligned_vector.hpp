/// \file
/// Memory for kernels to work in. C++17.
#ifndef DEFT_SIMD_ALIGNED_VECTOR_HPP
#define DEFT_SIMD_ALIGNED_VECTOR_HPP

#include <deft/config.hpp>

#include <xsimd/xsimd.hpp>

#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace simd {

/// A vector that begins with a cache line. Kernels take any address; but of memory that they write and read again while
/// it is in the first cache, a 32-byte vector that two lines share costs twice: transforms of 64 to 1024 elements took
/// 1.1 to 1.3 times as long from std::vector, whose memory begins 16 bytes behind a line.
template <class T>
using aligned_vector = std::vector<T, xsimd::aligned_allocator<T, 64>>;

} // namespace simd
} // namespace DEFT_ISA
} // namespace deft

#endif

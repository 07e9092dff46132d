#include "pocketfft.hpp"

#if DEFT_PEER_POCKETFFT

#define POCKETFFT_CACHE_SIZE 64
#define POCKETFFT_NO_MULTITHREADING
#include <pocketfft_hdronly.h>

namespace deft::bench::pocketfft {

template <class T>
void dct(int kind, const T* x, T* y, index rows, index n) {
    const auto step = static_cast<std::ptrdiff_t>(sizeof(T));
    const ::pocketfft::stride_t strides{step * n, step};
    const T scale = T(1) / std::sqrt(T(2) * T(n));
    ::pocketfft::dct({std::size_t(rows), std::size_t(n)}, strides, strides, {1}, kind, x, y, scale, true);
}

template void dct(int, const float*, float*, index, index);
template void dct(int, const double*, double*, index, index);

} // namespace deft::bench::pocketfft

#endif

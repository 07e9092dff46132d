/// \file
/// What the naive references of quantisation share: ranges of codes, and which elements share a step size.
#ifndef DEFT_REFERENCE_QUANTIZATION_QUANT_BLOCKS_HPP
#define DEFT_REFERENCE_QUANTIZATION_QUANT_BLOCKS_HPP

#include <deft/view.hpp>

#include <cstdint>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// group: columns that share a step; 0: the row, -1: the whole matrix.
struct quant_layout {
    int bits;
    bool symmetric;
    index group;

    double qmin() const {
        return symmetric ? -double(1 << (bits - 1)) : 0.0;
    }
    double qmax() const {
        return symmetric ? double((1 << (bits - 1)) - 1) : double((1 << bits) - 1);
    }
    index scale_row(index r) const {
        return group < 0 ? 0 : r;
    }
    index scale_column(index c) const {
        return group > 0 ? c / group : 0;
    }
};

template <class T>
T clip(T value, double low, double high) {
    return value < T(low) ? T(low) : value > T(high) ? T(high) : value;
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

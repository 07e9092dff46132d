/// \file
/// Naive reference of the parts of cross-block reconstruction (arXiv:2312.07950, section 3).
#ifndef DEFT_REFERENCE_QUANTIZATION_CROSS_BLOCK_RECONSTRUCTION_HPP
#define DEFT_REFERENCE_QUANTIZATION_CROSS_BLOCK_RECONSTRUCTION_HPP

#include <deft/view.hpp>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

/// Half-open ranges of blocks.
inline std::vector<std::pair<index, index>> window_schedule(index blocks, index window, index overlap) {
    if (window >= blocks)
        return {{0, blocks}};
    std::vector<std::pair<index, index>> windows;
    for (index begin = 0;; begin += window - overlap) {
        if (begin + window >= blocks) {
            windows.push_back({blocks - window, blocks});
            return windows;
        }
        windows.push_back({begin, begin + window});
    }
}

/// The log softmax of one row.
template <class T>
class log_softmax {
public:
    log_softmax(in<T, 2> h, index r) : h_(h), r_(r), top_(h(r, 0)) {
        for (index k = 1; k < h.extent(1); ++k)
            top_ = std::max(top_, h(r, k));
        T sum = 0;
        for (index k = 0; k < h.extent(1); ++k)
            sum += std::exp(h(r, k) - top_);
        log_sum_ = std::log(sum);
    }
    T operator()(index c) const {
        return h_(r_, c) - top_ - log_sum_;
    }

private:
    in<T, 2> h_;
    index r_;
    T top_, log_sum_;
};

/// mean: divided by elements and rows, else sums.
template <class T>
T block_distance(in<T, 2> target, in<T, 2> pred, double kl_weight, bool mean) {
    T squares = 0, divergence = 0;
    for (index r = 0; r < target.extent(0) && target.extent(1) > 0; ++r) {
        const log_softmax<T> of_target(target, r), of_pred(pred, r);
        for (index c = 0; c < target.extent(1); ++c) {
            const T difference = pred(r, c) - target(r, c);
            const T lp = of_target(c), lq = of_pred(c);
            squares += difference * difference;
            divergence += std::exp(lp) * (lp - lq);
        }
    }
    if (!mean || target.size() == 0)
        return squares + T(kl_weight) * divergence;
    return squares / T(target.size()) + T(kl_weight) * divergence / T(target.extent(0));
}

template <class T>
void block_distance_backward(in<T, 2> target, in<T, 2> pred, double grad_loss, view<T, 2> grad_pred, double kl_weight,
                             bool mean) {
    const T c2 = mean ? 1 / T(target.size()) : T(1), ck = mean ? 1 / T(target.extent(0)) : T(1);
    for (index r = 0; r < target.extent(0) && target.extent(1) > 0; ++r) {
        const log_softmax<T> of_target(target, r), of_pred(pred, r);
        for (index c = 0; c < target.extent(1); ++c) {
            const T p = std::exp(of_target(c)), q = std::exp(of_pred(c));
            grad_pred(r, c) = T(grad_loss) * (2 * c2 * (pred(r, c) - target(r, c)) + T(kl_weight) * ck * (q - p));
        }
    }
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

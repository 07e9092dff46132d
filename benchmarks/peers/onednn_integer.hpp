/// \file
/// oneDNN's product of u8 and s8 (the macro DEFT_PEER_ONEDNN says whether it is there).
#ifndef DEFT_BENCHMARKS_PEERS_ONEDNN_INTEGER_HPP
#define DEFT_BENCHMARKS_PEERS_ONEDNN_INTEGER_HPP

#include <deft/quantization/packed_weights.hpp>

#include <memory>

namespace deft::bench::onednn {

/// The integers of y = x W^T for weights of 4 or fewer bits without groups, reordered once. run() multiplies alone: x
/// is quantised beforehand, and store() scales.
class integer_product {
public:
    integer_product(const packed_weights<float>& w, index tokens, const float* x);
    ~integer_product();
    integer_product(integer_product&&) noexcept;

    void run();
    void store(float* y) const; ///< untimed

private:
    struct state;
    std::unique_ptr<state> state_;
};

} // namespace deft::bench::onednn

#endif

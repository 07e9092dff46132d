/// \file
/// ggml's product with weights in q4_0, repacked for the processor (the macro DEFT_PEER_GGML says whether it is there).
#ifndef DEFT_BENCHMARKS_PEERS_GGML_HPP
#define DEFT_BENCHMARKS_PEERS_GGML_HPP

#include <deft/quantization/packed_weights.hpp>

#include <memory>

namespace deft::bench::ggml {

/// y = x W^T in one thread: 4 bits, groups of 32, block32 order, steps that binary16 holds. As ggml does it, run() also
/// quantises x.
class product {
public:
    product(const packed_weights<float>& w, index tokens, const float* x);
    ~product();
    product(product&&) noexcept;

    void run();
    void store(float* y) const; ///< untimed

private:
    struct state;
    std::unique_ptr<state> state_;
};

} // namespace deft::bench::ggml

#endif

/// \file
/// ggml's product with weights in q4_0, repacked for the processor, and its selective scan (the macro DEFT_PEER_GGML
/// says whether they are there). One thread.
#ifndef DEFT_BENCHMARKS_PEERS_GGML_HPP
#define DEFT_BENCHMARKS_PEERS_GGML_HPP

#include "recurrences.hpp"

#include <deft/quantization/packed_weights.hpp>

#include <memory>

namespace deft::bench::ggml {

/// y = x W^T: 4 bits, groups of 32, block32 order, steps that binary16 holds. As ggml does it, run() also quantises x.
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

/// As llama.cpp runs Mamba: the scan, then skip and gate. Every run starts from the state given to the constructor.
class selective_scan {
public:
    explicit selective_scan(const selective_scan_peer& p);
    ~selective_scan();
    selective_scan(selective_scan&&) noexcept;

    void run();
    void store(const selective_scan_peer& p) const; ///< y and state, untimed

private:
    struct state;
    std::unique_ptr<state> state_;
};

} // namespace deft::bench::ggml

#endif

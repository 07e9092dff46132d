/// \file
/// oneDNN's depthwise convolution (the macro DEFT_PEER_ONEDNN says whether it is there).
#ifndef DEFT_BENCHMARKS_PEERS_ONEDNN_HPP
#define DEFT_BENCHMARKS_PEERS_ONEDNN_HPP

#include <deft/config.hpp>

#include <memory>

namespace deft::bench::onednn {

enum class layout { own, nhwc }; ///< own: what oneDNN asks for, nChw8c with AVX2

/// y = depthwise convolution of relu(x), plus bias; stride 1, same size. Weights are reordered once, primitives and
/// memory are made once: what remains in run() is the work.
class depthwise {
public:
    /// weight [channels, taps, taps], bias [channels].
    depthwise(index batch, index channels, index height, index width, index taps, const float* weight,
              const float* bias, layout order);
    ~depthwise();
    depthwise(depthwise&&) noexcept;

    void load(const float* x_nchw);  ///< untimed
    void store(float* y_nchw) const; ///< untimed
    void activate();                 ///< relu alone
    void convolve();                 ///< the convolution alone, of what activate() left
    void run() {
        activate();
        convolve();
    }

private:
    struct state;
    std::unique_ptr<state> state_;
};

} // namespace deft::bench::onednn

#endif

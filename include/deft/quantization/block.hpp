/// \file
/// A block of a model as cross-block reconstruction sees it: two functions of the user, and the linear layers inside
/// them, which the method computes.
///
///     block<float> b;
///     b.inputs = b.outputs = 64;
///     b.layers = {{"up", up}, {"down", down}};                       // weights, [out, in]
///     b.forward = [=](auto x, auto y, linear_runner<float>& linear) {
///         linear.forward(0, x, h);                                   // h = x up^T, as the method wants it
///         ...                                                        // whatever is between; keep what backward needs
///         linear.forward(1, h, y);
///     };
///     b.backward = [=](auto grad_y, auto grad_x, linear_runner<float>& linear) {
///         linear.backward(1, grad_y, grad_h);                        // layers in reverse
///         ...
///         linear.backward(0, grad_h, grad_x);
///     };
///
/// Ready-made ones: blocks.hpp.
#ifndef DEFT_QUANTIZATION_BLOCK_HPP
#define DEFT_QUANTIZATION_BLOCK_HPP

#include <deft/view.hpp>

#include <functional>
#include <string>
#include <vector>

namespace deft::quantization {

/// What a block calls for its linear layers, by their position in block::layers.
template <class T>
class linear_runner {
public:
    virtual ~linear_runner() = default;

    /// y = x W^T, in full precision or quantised. A layer runs once per forward pass of its block; x must not overlap
    /// y.
    virtual void forward(index layer, in<T, 2> x, view<T, 2> y) = 0;

    /// grad_x for the cotangent grad_y of the layer's last forward; what the weight learns is kept by the runner.
    /// grad_x is written, not added to, and must not overlap grad_y.
    virtual void backward(index layer, in<T, 2> grad_y, view<T, 2> grad_x) = 0;
};

/// A weight matrix [out, in], which must outlive the block.
template <class T>
struct layer {
    std::string name;
    view<const T, 2> weight;
};

/// One block: y `[tokens, outputs]` from x `[tokens, inputs]`, for any number of tokens. backward belongs to the last
/// forward. x, y and their gradients do not overlap.
template <class T>
struct block {
    std::string name;
    index inputs = 0, outputs = 0;
    std::vector<layer<T>> layers;
    std::function<void(view<const T, 2> x, view<T, 2> y, linear_runner<T>& linear)> forward;
    std::function<void(view<const T, 2> grad_y, view<T, 2> grad_x, linear_runner<T>& linear)> backward;
};

} // namespace deft::quantization

#endif

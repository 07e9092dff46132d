#include "xnnpack.hpp"

#if DEFT_PEER_XNNPACK

#include <xnnpack.h>

#include <cstdint>
#include <limits>
#include <stdexcept>

// XNNPACK chooses its kernels for the processor it finds, and cannot be told otherwise: on one with AVX-512, a program
// built for AVX2 meets AVX-512.
namespace deft::bench::xnnpack {
namespace {

constexpr float most = std::numeric_limits<float>::infinity();

void require(xnn_status status) {
    if (status != xnn_status_success)
        throw std::runtime_error("XNNPACK refuses an operator");
}

/// The operator that `create` makes.
template <class F>
xnn_operator* made(F&& create) {
    static const xnn_status ready = xnn_initialize(nullptr);
    require(ready);
    xnn_operator_t result = nullptr;
    require(create(&result));
    return result;
}

std::size_t size(index n) {
    return static_cast<std::size_t>(n);
}

} // namespace

void layer::deleter::operator()(xnn_operator* o) const {
    xnn_delete_operator(o);
}

void layer::run() const {
    for (const auto& o : operators_)
        xnn_run_operator(o.get(), nullptr);
}

layer linear_layer(const linear& l) {
    layer result;
    xnn_operator* const product = made([&](xnn_operator_t* to) {
        return xnn_create_fully_connected_nc_f32(size(l.from), size(l.to), size(l.from), size(l.to), l.w, nullptr,
                                                 -most, most, l.swapped ? 0 : XNN_FLAG_TRANSPOSE_WEIGHTS, to);
    });
    result.operators_.emplace_back(product);
    require(xnn_setup_fully_connected_nc_f32(product, size(l.rows), l.x, l.y, nullptr));
    return result;
}

layer sparse_product(index rows, index depth, index columns, const float* w, const float* bias, const float* x,
                     float* y) {
    layer result;
    xnn_operator* const product = made([&](xnn_operator_t* to) {
        return xnn_create_convolution2d_nchw_f32(0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, size(depth), size(rows), size(depth),
                                                 size(rows), w, bias, -most, most, 0, to);
    });
    result.operators_.emplace_back(product);
    require(xnn_setup_convolution2d_nchw_f32(product, 1, 1, size(columns), x, y, nullptr));
    return result;
}

layer depthwise_relu(index batch, index channels, index height, index width, index taps, const float* weight,
                     const float* bias, const float* x, float* h, float* y) {
    layer result;
    const std::size_t c = size(channels);
    xnn_operator* const relu =
        made([&](xnn_operator_t* to) { return xnn_create_clamp_nc_f32(c, c, c, 0, most, 0, to); });
    result.operators_.emplace_back(relu);
    require(xnn_setup_clamp_nc_f32(relu, size(batch * height * width), x, h, nullptr));
    const auto pad = static_cast<std::uint32_t>(taps / 2), edge = static_cast<std::uint32_t>(taps);
    xnn_operator* const convolution = made([&](xnn_operator_t* to) {
        return xnn_create_convolution2d_nhwc_f32(pad, pad, pad, pad, edge, edge, 1, 1, 1, 1,
                                                 static_cast<std::uint32_t>(channels), 1, 1, c, c, weight, bias, -most,
                                                 most, 0, to);
    });
    result.operators_.emplace_back(convolution);
    require(xnn_setup_convolution2d_nhwc_f32(convolution, size(batch), size(height), size(width), h, y, nullptr));
    return result;
}

} // namespace deft::bench::xnnpack

#endif

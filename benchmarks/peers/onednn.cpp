#include "onednn.hpp"

#if DEFT_PEER_ONEDNN

#include <dnnl.hpp>

namespace deft::bench::onednn {
namespace {

using dnnl::memory;
using tag = memory::format_tag;

/// oneDNN compiles for the processor it finds; what was built for AVX2 is compared with its AVX2 code.
void limit_instruction_set() {
#if defined(__AVX512F__)
#elif defined(__AVX2__)
    dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx2);
#elif defined(__AVX__)
    dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx);
#else
    dnnl::set_max_cpu_isa(dnnl::cpu_isa::sse41);
#endif
}

dnnl::engine& processor() {
    static dnnl::engine engine = [] {
        limit_instruction_set();
        return dnnl::engine(dnnl::engine::kind::cpu, 0);
    }();
    return engine;
}

memory::desc describe(const memory::dims& extents, tag order) {
    return {extents, memory::data_type::f32, order};
}

dnnl::convolution_forward::primitive_desc convolution(const memory::desc& x, const memory::desc& weight,
                                                      const memory::desc& bias, const memory::desc& y, index pad) {
    const memory::dims strides{1, 1}, padding{pad, pad};
    const auto kind = dnnl::prop_kind::forward_inference;
    const auto algorithm = dnnl::algorithm::convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
    return {processor(), kind, algorithm, x, weight, bias, y, strides, padding, padding};
#else
    return {{kind, algorithm, x, weight, bias, y, strides, padding, padding}, processor()};
#endif
}

dnnl::eltwise_forward::primitive_desc rectifier(const memory::desc& x) {
    const auto kind = dnnl::prop_kind::forward_inference;
#if DNNL_VERSION_MAJOR >= 3
    return {processor(), kind, dnnl::algorithm::eltwise_relu, x, x, 0.0f, 0.0f};
#else
    return {{kind, dnnl::algorithm::eltwise_relu, x, 0.0f, 0.0f}, processor()};
#endif
}

} // namespace

struct depthwise::state {
    dnnl::stream stream;
    memory::dims extents; // n, c, h, w
    dnnl::convolution_forward::primitive_desc plan;
    memory x, h, weight, bias, y; // h: activated
    dnnl::eltwise_forward relu;
    dnnl::convolution_forward convolution;

    void reorder(memory from, memory to) {
        dnnl::reorder(from, to).execute(stream, from, to);
        stream.wait();
    }
    memory wrap(const float* data, const memory::desc& description) const {
        return {description, processor(), const_cast<float*>(data)};
    }
};

depthwise::depthwise(index batch, index channels, index height, index width, index taps, const float* weight,
                     const float* bias, layout order) {
    const memory::dims extents{batch, channels, height, width};
    const memory::dims weight_extents{channels, 1, 1, taps, taps};
    const tag data_order = order == layout::nhwc ? tag::nhwc : tag::any;
    const auto plan = onednn::convolution(describe(extents, data_order), describe(weight_extents, tag::any),
                                          describe({channels}, tag::x), describe(extents, data_order), taps / 2);
    const auto make = [](const memory::desc& d) { return memory(d, processor()); };
    state_ = std::make_unique<state>(state{dnnl::stream(processor()), extents, plan, make(plan.src_desc()),
                                           make(plan.src_desc()), make(plan.weights_desc()), make(plan.bias_desc()),
                                           make(plan.dst_desc()), dnnl::eltwise_forward(rectifier(plan.src_desc())),
                                           dnnl::convolution_forward(plan)});
    state_->reorder(state_->wrap(weight, describe(weight_extents, tag::goihw)), state_->weight);
    state_->reorder(state_->wrap(bias, describe({channels}, tag::x)), state_->bias);
}

depthwise::~depthwise() = default;
depthwise::depthwise(depthwise&&) noexcept = default;

void depthwise::load(const float* x_nchw) {
    state_->reorder(state_->wrap(x_nchw, describe(state_->extents, tag::nchw)), state_->x);
}

void depthwise::store(float* y_nchw) const {
    state_->reorder(state_->y, state_->wrap(y_nchw, describe(state_->extents, tag::nchw)));
}

void depthwise::activate() {
    state_->relu.execute(state_->stream, {{DNNL_ARG_SRC, state_->x}, {DNNL_ARG_DST, state_->h}});
    state_->stream.wait();
}

void depthwise::convolve() {
    state_->convolution.execute(state_->stream, {{DNNL_ARG_SRC, state_->h},
                                                 {DNNL_ARG_WEIGHTS, state_->weight},
                                                 {DNNL_ARG_BIAS, state_->bias},
                                                 {DNNL_ARG_DST, state_->y}});
    state_->stream.wait();
}

} // namespace deft::bench::onednn

#endif

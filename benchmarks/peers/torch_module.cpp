// Loaded by torch.cpp when the first row of PyTorch runs.
#include "gemm.hpp"
#include "series.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <type_traits>

namespace deft::bench::torch {
namespace {

/// The caller's memory as a tensor.
template <class T>
at::Tensor tensor(const T* data, at::IntArrayRef extents) {
    static const bool once = (at::set_num_threads(1), true);
    static_cast<void>(once);
    return at::from_blob(const_cast<T*>(data), extents,
                         at::TensorOptions().dtype(std::is_same_v<T, float> ? at::kFloat : at::kDouble));
}

at::Tensor activate(const at::Tensor& x, activation base) {
    switch (base) {
    case activation::relu:
        return at::relu(x);
    case activation::silu:
        return at::silu(x);
    case activation::gelu_tanh:
        return at::gelu(x, "tanh");
    default:
        return at::gelu(x);
    }
}

template <class T>
void run_series(const series<T>& s) {
    const c10::InferenceMode inference;
    const at::Tensor x = tensor(s.x, {s.rows, s.channels});
    at::Tensor y = tensor(s.y, {s.rows, s.channels});
    for (int i = 0; i < s.terms; ++i) {
        const index first = s.per_channel ? i * s.channels : i, count = s.per_channel ? s.channels : 1;
        const at::Tensor a = tensor(s.a + first, {count}), b = tensor(s.b + first, {count});
        if (s.inner) {
            const at::Tensor u = s.per_channel ? at::addcmul(b, x, a) : x.mul(s.a[i]).add_(s.b[i]);
            i == 0 ? y.copy_(activate(u, s.base)) : y.add_(activate(u, s.base));
        } else {
            const at::Tensor value = activate(s.per_channel ? x.add(b) : x.add(s.b[i]), s.base);
            if (s.per_channel)
                i == 0 ? at::mul_out(y, value, a) : y.addcmul_(value, a);
            else
                i == 0 ? y.copy_(value).mul_(s.a[i]) : y.add_(value, s.a[i]);
        }
    }
}

void run_linear(const linear& l) {
    const c10::InferenceMode inference;
    at::Tensor y = tensor(l.y, {l.rows, l.to});
    const at::Tensor w = l.swapped ? tensor(l.w, {l.to, l.from}).t() : tensor(l.w, {l.from, l.to});
    at::mm_out(y, tensor(l.x, {l.rows, l.from}), w);
}

} // namespace
} // namespace deft::bench::torch

extern "C" void deft_torch_series_f32(const deft::bench::series<float>& s) {
    deft::bench::torch::run_series(s);
}

extern "C" void deft_torch_series_f64(const deft::bench::series<double>& s) {
    deft::bench::torch::run_series(s);
}

extern "C" void deft_torch_linear(const deft::bench::linear& l) {
    deft::bench::torch::run_linear(l);
}

/// \file
/// Ready-made blocks for cross_block: a linear layer, a gated FFN, softmax attention, and blocks in a row. With these a
/// llama-like model is quantised without any framework:
///
///     gated_ffn:  y = x + down(sigma(gate(h)) * up(h))                         h = norm(x)
///     attention:  y = x + out(softmax_attention(rope(query(h)), rope(key(h)), value(h)))
///     norm(x) = x g / sqrt(mean x^2 + eps)
///
/// Gradients are by x alone: gains are not learned. A block keeps what backward needs from its last forward; copies
/// share that memory, so that one copy runs at a time. Weights are [out, in] and must outlive the block.
#ifndef DEFT_QUANTIZATION_BLOCKS_HPP
#define DEFT_QUANTIZATION_BLOCKS_HPP

#include <deft/activation_kind.hpp>
#include <deft/attention/softmax_attention.hpp>
#include <deft/kernels/activation_block.hpp>
#include <deft/kernels/rms_norm.hpp>
#include <deft/quantization/block.hpp>
#include <deft/ssm/retention_rotary.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace deft::quantization {

template <class T>
struct gated_ffn_weights {
    view<const T, 1> gain;     ///< of the norm, [features]
    view<const T, 2> gate, up; ///< [hidden, features]
    view<const T, 2> down;     ///< [features, hidden]
};

struct gated_ffn_options {
    double eps = 1e-5;
    activation sigma = activation::silu;
};

template <class T>
struct attention_weights {
    view<const T, 1> gain;       ///< of the norm, [features]
    view<const T, 2> query;      ///< [heads width, features]
    view<const T, 2> key, value; ///< [groups width, features]
    view<const T, 2> out;        ///< [features, heads width]
};

struct attention_block_options {
    required<index> heads;
    index groups = 0; ///< heads of keys and values; 0: as many as heads
    double eps = 1e-5;
    double rope_base = 10000; ///< rotary positions of interleaved pairs; 0: none
    attention_mask mask = attention_mask::causal;
};

inline namespace DEFT_ISA {
namespace detail {

/// Tensors of a block between forward and backward, by number.
template <class T>
class block_memory {
public:
    view<T, 2> at(std::size_t i, index rows, index columns) {
        if (i >= memory_.size())
            memory_.resize(i + 1);
        memory_[i].resize(std::size_t(rows * columns));
        return {memory_[i].data(), {rows, columns}};
    }

private:
    std::vector<std::vector<T>> memory_;
};

template <class T>
void copy_rows(view<const T, 2> from, view<T, 2> to) {
    for (index r = 0; r < from.extent(0); ++r)
        std::copy_n(from.data() + r * from.stride(0), from.extent(1), to.data() + r * to.stride(0));
}
template <class T>
void add_rows(view<const T, 2> from, view<T, 2> to) {
    kernels::add_blocks<simd::default_arch, T>({to.data(), to.stride(0)}, {from.data(), from.stride(0)}, T(1),
                                               {to.data(), to.stride(0)}, {to.extent(0), to.extent(1)});
}
template <class T>
void norm_rows(view<const T, 2> x, view<const T, 1> gain, double eps, view<T, 2> y) {
    for (index t = 0; t < x.extent(0); ++t)
        kernels::rms_norm<simd::default_arch, T>(x.data() + t * x.stride(0), gain.data(), x.extent(1), eps,
                                                 y.data() + t * y.stride(0));
}
template <class T>
void add_norm_gradient(view<const T, 2> x, view<const T, 1> gain, double eps, view<const T, 2> grad_y,
                       view<T, 2> grad_x) {
    for (index t = 0; t < x.extent(0); ++t)
        kernels::add_rms_norm_gradient<simd::default_arch, T>(x.data() + t * x.stride(0), gain.data(), x.extent(1), eps,
                                                              grad_y.data() + t * grad_y.stride(0),
                                                              grad_x.data() + t * grad_x.stride(0));
}

/// Heads side by side in the rows of a matrix, as a tensor [1, heads, tokens, width].
template <class T>
view<T, 4> as_heads(const view<T, 2>& x, index heads) {
    const index width = x.extent(1) / heads;
    return {x.data(), {index{1}, heads, x.extent(0), width}, {x.extent(0) * x.stride(0), width, x.stride(0), index{1}}};
}

template <class T>
void check_weight(const char* op, const char* name, const view<const T, 2>& w, index outputs, index inputs) {
    deft::detail::check_extent(op, name, w, 0, outputs, "outputs that the block needs");
    deft::detail::check_extent(op, name, w, 1, inputs, "inputs that the block needs");
}

} // namespace detail

/// y = x W^T. Throws std::invalid_argument if the weight is empty.
template <class T>
block<T> linear_block(std::string name, in<T, 2> weight) {
    deft::detail::check(weight.size() > 0, "linear_block", "weight", "must not be empty", double(weight.size()));
    block<T> b{std::move(name), weight.extent(1), weight.extent(0), {{"weight", weight}}, {}, {}};
    b.forward = [](view<const T, 2> x, view<T, 2> y, linear_runner<T>& run) { run.forward(0, x, y); };
    b.backward = [](view<const T, 2> g, view<T, 2> grad_x, linear_runner<T>& run) { run.backward(0, g, grad_x); };
    return b;
}

/// The gated FFN with its norm and shortcut. Throws std::invalid_argument if shapes do not fit.
template <class T>
block<T> gated_ffn_block(std::string name, const gated_ffn_weights<T>& w, const gated_ffn_options& options = {}) {
    const char* const op = "gated_ffn_block";
    const index features = w.gain.extent(0), hidden = w.gate.extent(0);
    detail::check_weight<T>(op, "gate", w.gate, hidden, features);
    detail::check_weight<T>(op, "up", w.up, hidden, features);
    detail::check_weight<T>(op, "down", w.down, features, hidden);
    const auto memory = std::make_shared<detail::block_memory<T>>();
    const kernels::activation_choice<T> sigma{options.sigma, T(0.01)};
    using arch = simd::default_arch;
    enum : std::size_t { kept_x, gate, up, act, product, grad_product, grad_gate, grad_h, normed, more };
    block<T> b{std::move(name), features, features, {{"gate", w.gate}, {"up", w.up}, {"down", w.down}}, {}, {}};
    b.forward = [=, gain = w.gain](view<const T, 2> x, view<T, 2> y, linear_runner<T>& run) {
        const index n = x.extent(0);
        const view<T, 2> h = memory->at(normed, n, features), g = memory->at(gate, n, hidden),
                         u = memory->at(up, n, hidden), a = memory->at(act, n, hidden),
                         p = memory->at(product, n, hidden);
        detail::copy_rows<T>(x, memory->at(kept_x, n, features));
        detail::norm_rows<T>(x, gain, options.eps, h);
        run.forward(0, h, g);
        run.forward(1, h, u);
        kernels::activate<arch, T>(sigma, {g.data(), hidden}, nullptr, {a.data(), hidden}, {n, hidden});
        for (index i = 0; i < n * hidden; ++i)
            p.data()[i] = a.data()[i] * u.data()[i];
        run.forward(2, p, y);
        detail::add_rows<T>(x, y);
    };
    b.backward = [=, gain = w.gain](view<const T, 2> grad_y, view<T, 2> grad_x, linear_runner<T>& run) {
        const index n = grad_y.extent(0);
        const view<T, 2> g = memory->at(gate, n, hidden), u = memory->at(up, n, hidden), a = memory->at(act, n, hidden),
                         dp = memory->at(grad_product, n, hidden), dg = memory->at(grad_gate, n, hidden),
                         dh = memory->at(grad_h, n, features), other = memory->at(more, n, features);
        run.backward(2, grad_y, dp);
        for (index i = 0; i < n * hidden; ++i) {
            dg.data()[i] = dp.data()[i] * u.data()[i];
            dp.data()[i] *= a.data()[i];
        }
        kernels::times_derivative<arch, T>(sigma, {g.data(), hidden}, nullptr, {dg.data(), hidden}, T(1),
                                           {dg.data(), hidden}, {n, hidden});
        run.backward(1, dp, dh);
        run.backward(0, dg, other);
        detail::add_rows<T>(other, dh);
        detail::copy_rows<T>(grad_y, grad_x);
        detail::add_norm_gradient<T>(memory->at(kept_x, n, features), gain, options.eps, dh, grad_x);
    };
    return b;
}

/// Softmax attention with its norm and shortcut, heads of queries a multiple of those of keys. Throws
/// std::invalid_argument if shapes do not fit, or rotary positions are asked for and heads have an odd width.
template <class T>
block<T> attention_block(std::string name, const attention_weights<T>& w, const attention_block_options& options) {
    const char* const op = "attention_block";
    const index features = w.gain.extent(0), heads = options.heads;
    const index groups = options.groups == 0 ? heads : options.groups;
    deft::detail::check(heads > 0 && w.query.extent(0) % heads == 0, op, "heads",
                        "must be positive and divide the outputs of query", double(heads));
    deft::detail::check(groups > 0 && heads % groups == 0, op, "groups", "must be positive and divide heads",
                        double(groups));
    const index width = w.query.extent(0) / heads, wide = heads * width, narrow = groups * width;
    detail::check_weight<T>(op, "query", w.query, wide, features);
    detail::check_weight<T>(op, "key", w.key, narrow, features);
    detail::check_weight<T>(op, "value", w.value, narrow, features);
    detail::check_weight<T>(op, "out", w.out, features, wide);
    deft::detail::check(options.rope_base == 0 || (options.rope_base > 0 && width % 2 == 0), op, "rope_base",
                        "must be positive, for heads of even width, or 0", options.rope_base);
    const auto memory = std::make_shared<detail::block_memory<T>>();
    const softmax_attention_options attend{.mask = options.mask};
    const retention_rotary_options rope{.base = options.rope_base, .spacing = rotary_spacing::rope};
    enum : std::size_t { kept_x, normed, query, key, value, mixed, sums, dq, dk, dv, dmixed, dh, more };
    block<T> b{std::move(name),
               features,
               features,
               {{"query", w.query}, {"key", w.key}, {"value", w.value}, {"out", w.out}},
               {},
               {}};
    b.forward = [=, gain = w.gain](view<const T, 2> x, view<T, 2> y, linear_runner<T>& run) {
        const index n = x.extent(0);
        const view<T, 2> h = memory->at(normed, n, features), q = memory->at(query, n, wide),
                         k = memory->at(key, n, narrow), v = memory->at(value, n, narrow),
                         o = memory->at(mixed, n, wide), lse = memory->at(sums, heads, n);
        detail::copy_rows<T>(x, memory->at(kept_x, n, features));
        detail::norm_rows<T>(x, gain, options.eps, h);
        run.forward(0, h, q);
        run.forward(1, h, k);
        run.forward(2, h, v);
        const view<T, 4> qs = detail::as_heads(q, heads), ks = detail::as_heads(k, groups);
        if (options.rope_base > 0) {
            deft::retention_rotary<T>(qs, qs, rope);
            deft::retention_rotary<T>(ks, ks, rope);
        }
        deft::softmax_attention<T>(qs, ks, detail::as_heads(v, groups), absent, detail::as_heads(o, heads),
                                   {lse.data(), {1, heads, n}}, attend);
        run.forward(3, o, y);
        detail::add_rows<T>(x, y);
    };
    b.backward = [=, gain = w.gain](view<const T, 2> grad_y, view<T, 2> grad_x, linear_runner<T>& run) {
        const index n = grad_y.extent(0);
        const view<T, 2> go = memory->at(dmixed, n, wide), gh = memory->at(dh, n, features),
                         other = memory->at(more, n, features);
        const view<T, 4> gq = detail::as_heads(memory->at(dq, n, wide), heads),
                         gk = detail::as_heads(memory->at(dk, n, narrow), groups),
                         gv = detail::as_heads(memory->at(dv, n, narrow), groups);
        run.backward(3, grad_y, go);
        deft::softmax_attention_backward<T>(detail::as_heads(memory->at(query, n, wide), heads),
                                            detail::as_heads(memory->at(key, n, narrow), groups),
                                            detail::as_heads(memory->at(value, n, narrow), groups), absent,
                                            detail::as_heads(go, heads), gq, gk, gv, attend);
        if (options.rope_base > 0) {
            deft::retention_rotary_backward<T>(gq, gq, rope);
            deft::retention_rotary_backward<T>(gk, gk, rope);
        }
        run.backward(2, memory->at(dv, n, narrow), gh);
        run.backward(1, memory->at(dk, n, narrow), other);
        detail::add_rows<T>(other, gh);
        run.backward(0, memory->at(dq, n, wide), other);
        detail::add_rows<T>(other, gh);
        detail::copy_rows<T>(grad_y, grad_x);
        detail::add_norm_gradient<T>(memory->at(kept_x, n, features), gain, options.eps, gh, grad_x);
    };
    return b;
}

/// The first block, then the second, as one: the attention and the FFN of a transformer's block, say. Throws
/// std::invalid_argument if the second does not take what the first gives.
template <class T>
block<T> join(std::string name, const block<T>& first, const block<T>& second) {
    deft::detail::check(first.outputs == second.inputs, "join", "second", "its inputs must be the outputs of the first",
                        double(second.inputs));
    struct shifted final : linear_runner<T> {
        linear_runner<T>& run;
        index by;
        shifted(linear_runner<T>& r, index b) : run(r), by(b) {}
        void forward(index layer, in<T, 2> x, view<T, 2> y) override {
            run.forward(layer + by, x, y);
        }
        void backward(index layer, in<T, 2> grad_y, view<T, 2> grad_x) override {
            run.backward(layer + by, grad_y, grad_x);
        }
    };
    const auto memory = std::make_shared<detail::block_memory<T>>();
    const index by = index(first.layers.size());
    block<T> b{std::move(name), first.inputs, second.outputs, first.layers, {}, {}};
    b.layers.insert(b.layers.end(), second.layers.begin(), second.layers.end());
    b.forward = [=](view<const T, 2> x, view<T, 2> y, linear_runner<T>& run) {
        const view<T, 2> between = memory->at(0, x.extent(0), first.outputs);
        first.forward(x, between, run);
        shifted rest(run, by);
        second.forward(between, y, rest);
    };
    b.backward = [=](view<const T, 2> grad_y, view<T, 2> grad_x, linear_runner<T>& run) {
        const view<T, 2> between = memory->at(1, grad_y.extent(0), first.outputs);
        shifted rest(run, by);
        second.backward(grad_y, between, rest);
        first.backward(between, grad_x, run);
    };
    return b;
}

} // namespace DEFT_ISA
} // namespace deft::quantization

#endif

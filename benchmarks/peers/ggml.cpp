#include "ggml.hpp"

#if DEFT_PEER_GGML

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

namespace deft::bench::ggml {

namespace {

/// A graph over tensors of one context, computed by one thread.
struct computation {
    ggml_backend_t backend = ggml_backend_cpu_init();
    ggml_context* tensors = nullptr;
    ggml_backend_buffer_t memory = nullptr;
    ggml_cgraph* graph = nullptr;
    ggml_tensor* result = nullptr;

    computation() {
        ggml_backend_cpu_set_n_threads(backend, 1);
        tensors = new_context();
    }
    computation(const computation&) = delete;
    computation& operator=(const computation&) = delete;
    ~computation() {
        ggml_backend_buffer_free(memory);
        ggml_free(tensors);
        ggml_backend_free(backend);
    }

    static ggml_context* new_context() {
        return ggml_init({32 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true});
    }
    /// Memory for all tensors, and the graph that leads to the last one.
    void allocate(ggml_tensor* last) {
        result = last;
        memory = ggml_backend_alloc_ctx_tensors_from_buft(tensors, ggml_backend_cpu_buffer_type());
        graph = ggml_new_graph(tensors);
        ggml_build_forward_expand(graph, last);
    }
    void run() const {
        ggml_backend_graph_compute(backend, graph);
    }
};

void set(ggml_tensor* to, const void* from) {
    ggml_backend_tensor_set(to, from, 0, ggml_nbytes(to));
}

/// Where ggml reorders weights for the processor; its plain memory if it cannot.
ggml_backend_buffer_type_t repacking_memory() {
    const auto device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    const auto list = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), "ggml_backend_dev_get_extra_bufts"));
    for (auto type = list == nullptr ? nullptr : list(device); type != nullptr && *type != nullptr; ++type)
        if (std::string(ggml_backend_buft_name(*type)).find("REPACK") != std::string::npos)
            return *type;
    return ggml_backend_cpu_buffer_type();
}

} // namespace

struct product::state {
    computation all;
    ggml_context* weights = computation::new_context();
    ggml_backend_buffer_t weight_memory = nullptr;

    ~state() {
        ggml_backend_buffer_free(weight_memory);
        ggml_free(weights);
    }
};

product::product(const packed_weights<float>& w, index tokens, const float* x) : state_(std::make_unique<state>()) {
    state& s = *state_;
    const packed_format& f = w.format;
    ggml_tensor* const matrix = ggml_new_tensor_2d(s.weights, GGML_TYPE_Q4_0, f.columns, f.rows);
    s.weight_memory = ggml_backend_alloc_ctx_tensors_from_buft(s.weights, repacking_memory());
    std::vector<std::uint8_t> blocks;
    for (index o = 0; o < f.rows; ++o)
        for (index g = 0; g < f.groups(); ++g) {
            const ggml_fp16_t step = ggml_fp32_to_fp16(w.scale(o, g));
            std::uint8_t bytes[2];
            std::memcpy(bytes, &step, 2);
            blocks.insert(blocks.end(), bytes, bytes + 2);
            blocks.insert(blocks.end(), &w.codes(o, 16 * g), &w.codes(o, 16 * g) + 16);
        }
    set(matrix, blocks.data());
    ggml_tensor* const from = ggml_new_tensor_2d(s.all.tensors, GGML_TYPE_F32, f.columns, tokens);
    s.all.allocate(ggml_mul_mat(s.all.tensors, matrix, from));
    set(from, x);
}

product::~product() = default;
product::product(product&&) noexcept = default;

void product::run() {
    state_->all.run();
}

void product::store(float* y) const {
    ggml_backend_tensor_get(state_->all.result, y, 0, ggml_nbytes(state_->all.result));
}

namespace {

/// Later releases take how many states to keep, too.
template <class F, class... Tensor>
ggml_tensor* scan(F f, Tensor... tensor) {
    if constexpr (std::is_invocable_v<F, Tensor...>)
        return f(tensor...);
    else
        return f(tensor..., 1);
}

} // namespace

struct selective_scan::state {
    computation all;
    ggml_tensor* sums; // y without skip and gate, then the states
};

selective_scan::selective_scan(const selective_scan_peer& p) : state_(std::make_unique<state>()) {
    state& s = *state_;
    ggml_context* const c = s.all.tensors;
    const auto rows = [&](index columns, index count) { return ggml_new_tensor_2d(c, GGML_TYPE_F32, columns, count); };
    ggml_tensor *const u = rows(p.channels, p.tokens), *const delta = rows(p.channels, p.tokens),
                       *const z = rows(p.channels, p.tokens), *const a = rows(p.states, p.channels),
                       *const b = rows(p.states, p.tokens), *const cc = rows(p.states, p.tokens),
                       *const start = rows(p.states, p.channels), *const skip = rows(p.channels, 1),
                       *const ids = ggml_new_tensor_1d(c, GGML_TYPE_I32, 1);
    s.sums =
        scan(ggml_ssm_scan, c, ggml_reshape_4d(c, start, p.states, 1, p.channels, 1),
             ggml_reshape_4d(c, u, 1, p.channels, p.tokens, 1), delta, a,
             ggml_reshape_4d(c, b, p.states, 1, p.tokens, 1), ggml_reshape_4d(c, cc, p.states, 1, p.tokens, 1), ids);
    ggml_tensor* const y = ggml_view_2d(c, s.sums, p.channels, p.tokens, std::size_t(p.channels) * sizeof(float), 0);
    s.all.allocate(ggml_mul(c, ggml_add(c, y, ggml_mul(c, u, skip)), ggml_silu(c, z)));
    const std::int32_t first = 0;
    set(u, p.u), set(delta, p.delta), set(z, p.z), set(a, p.a), set(b, p.b), set(cc, p.c), set(skip, p.skip);
    set(start, p.state), set(ids, &first);
}

selective_scan::~selective_scan() = default;
selective_scan::selective_scan(selective_scan&&) noexcept = default;

void selective_scan::run() {
    state_->all.run();
}

void selective_scan::store(const selective_scan_peer& p) const {
    const std::size_t size = ggml_nbytes(state_->all.result);
    ggml_backend_tensor_get(state_->all.result, p.y, 0, size);
    ggml_backend_tensor_get(state_->sums, p.state, size, ggml_nbytes(state_->sums) - size);
}

} // namespace deft::bench::ggml

#endif

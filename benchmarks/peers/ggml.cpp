#include "ggml.hpp"

#if DEFT_PEER_GGML

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace deft::bench::ggml {

struct product::state {
    ggml_backend_t backend = nullptr;
    ggml_context* weights = nullptr;
    ggml_context* work = nullptr;
    ggml_backend_buffer_t weight_memory = nullptr;
    ggml_backend_buffer_t work_memory = nullptr;
    ggml_cgraph* graph = nullptr;
    ggml_tensor* y = nullptr;

    ~state() {
        ggml_backend_buffer_free(work_memory);
        ggml_backend_buffer_free(weight_memory);
        ggml_free(work);
        ggml_free(weights);
        ggml_backend_free(backend);
    }
};

namespace {

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

product::product(const packed_weights<float>& w, index tokens, const float* x) : state_(std::make_unique<state>()) {
    state& s = *state_;
    const packed_format& f = w.format;
    s.backend = ggml_backend_cpu_init();
    ggml_backend_cpu_set_n_threads(s.backend, 1);
    const ggml_init_params parameters{8 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true};
    s.weights = ggml_init(parameters);
    s.work = ggml_init(parameters);
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
    ggml_backend_tensor_set(matrix, blocks.data(), 0, blocks.size());
    ggml_tensor* const from = ggml_new_tensor_2d(s.work, GGML_TYPE_F32, f.columns, tokens);
    s.y = ggml_mul_mat(s.work, matrix, from);
    s.work_memory = ggml_backend_alloc_ctx_tensors_from_buft(s.work, ggml_backend_cpu_buffer_type());
    ggml_backend_tensor_set(from, x, 0, ggml_nbytes(from));
    s.graph = ggml_new_graph(s.work);
    ggml_build_forward_expand(s.graph, s.y);
}

product::~product() = default;
product::product(product&&) noexcept = default;

void product::run() {
    ggml_backend_graph_compute(state_->backend, state_->graph);
}

void product::store(float* y) const {
    ggml_backend_tensor_get(state_->y, y, 0, ggml_nbytes(state_->y));
}

} // namespace deft::bench::ggml

#endif

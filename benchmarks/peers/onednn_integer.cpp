#include "onednn_integer.hpp"

#if DEFT_PEER_ONEDNN

#include <dnnl.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

namespace deft::bench::onednn {

using dnnl::memory;
using type = memory::data_type;
using tag = memory::format_tag;

struct integer_product::state {
    dnnl::engine engine;
    dnnl::stream stream;
    index tokens, rows;
    std::vector<std::uint8_t> codes; // of x, plus 128
    std::vector<std::int8_t> weights;
    std::vector<std::int32_t> weight_sums, acc;
    std::vector<float> x_scale, w_scale;
    memory x, w, y;
    dnnl::matmul product;
};

integer_product::integer_product(const packed_weights<float>& p, index tokens, const float* from)
    : state_(std::make_unique<state>()) {
    state& s = *state_;
    const index rows = p.format.rows, columns = p.format.columns;
    s.tokens = tokens;
    s.rows = rows;
    std::vector<std::uint8_t> codes(std::size_t(rows * columns));
    deft::unpack_codes(p.codes, view<std::uint8_t, 2>(codes.data(), {rows, columns}),
                       {.bits = p.format.bits, .order = p.format.order});
    for (index o = 0; o < rows; ++o) {
        std::int32_t sum = 0;
        for (index k = 0; k < columns; ++k) {
            const int code = codes[std::size_t(o * columns + k)] - (1 << (p.format.bits - 1));
            s.weights.push_back(static_cast<std::int8_t>(code));
            sum += code;
        }
        s.weight_sums.push_back(sum);
        s.w_scale.push_back(p.scale(o, 0));
    }
    for (index t = 0; t < tokens; ++t) {
        float most = 0;
        for (index k = 0; k < columns; ++k)
            most = std::fmax(most, std::fabs(from[t * columns + k]));
        s.x_scale.push_back(most / 127);
        for (index k = 0; k < columns; ++k)
            s.codes.push_back(static_cast<std::uint8_t>(128 + std::lround(from[t * columns + k] / s.x_scale.back())));
    }
    s.acc.resize(std::size_t(tokens * rows));

    // oneDNN compiles for the processor it finds; what was built for AVX2 is compared with its AVX2 code.
#if !defined(__AVX512F__) && defined(__AVX2__)
    dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx2);
#endif
    s.engine = dnnl::engine(dnnl::engine::kind::cpu, 0);
    s.stream = dnnl::stream(s.engine);
    const memory::desc x({tokens, columns}, type::u8, tag::ab), any({columns, rows}, type::s8, tag::any);
    const memory::desc y({tokens, rows}, type::s32, tag::ab);
#if DNNL_VERSION_MAJOR >= 3
    const dnnl::matmul::primitive_desc plan(s.engine, x, any, y);
#else
    const dnnl::matmul::primitive_desc plan({x, any, y}, s.engine);
#endif
    s.x = memory(x, s.engine, s.codes.data());
    s.y = memory(y, s.engine, s.acc.data());
    s.w = memory(plan.weights_desc(), s.engine);
    memory plain({{columns, rows}, type::s8, tag::ba}, s.engine, s.weights.data());
    dnnl::reorder(plain, s.w).execute(s.stream, plain, s.w);
    s.stream.wait();
    s.product = dnnl::matmul(plan);
}

integer_product::~integer_product() = default;
integer_product::integer_product(integer_product&&) noexcept = default;

void integer_product::run() {
    state_->product.execute(state_->stream,
                            {{DNNL_ARG_SRC, state_->x}, {DNNL_ARG_WEIGHTS, state_->w}, {DNNL_ARG_DST, state_->y}});
    state_->stream.wait();
}

void integer_product::store(float* y) const {
    const state& s = *state_;
    for (index t = 0; t < s.tokens; ++t)
        for (index o = 0; o < s.rows; ++o) {
            const index at = t * s.rows + o;
            const std::int32_t sum = s.acc[std::size_t(at)] - 128 * s.weight_sums[std::size_t(o)];
            y[at] = s.x_scale[std::size_t(t)] * s.w_scale[std::size_t(o)] * float(sum);
        }
}

} // namespace deft::bench::onednn

#endif

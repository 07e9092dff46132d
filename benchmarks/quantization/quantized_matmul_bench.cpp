// quantized_matmul from one token to many, against products in float with the dequantised weights, against integer
// products of oneDNN, and against ggml's repacked q4_0 where the build was given one (DEFT_GGML_DIR).
#include "../peers/gemm.hpp"
#include "../peers/ggml.hpp"
#include "../peers/onednn_integer.hpp"
#include "../support/suite.hpp"

#include <deft/quantization/quantized_matmul.hpp>
#include <deft/reference/quantization/quantized_matmul.hpp>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace deft::bench {
namespace {

/// A random matrix in packed form, block32 order; steps are exact in binary16, as ggml keeps them.
struct matrix {
    packed_format format;
    buffer<std::uint8_t> bytes;
    buffer<float> scale;
    buffer<std::int64_t> zero;

    explicit matrix(const packed_format& f)
        : format(f), bytes(f.rows * f.row_bytes(),
                           [](std::uint8_t* to, index n) {
                               std::minstd_rand generator(7);
                               std::generate_n(to, n, [&] { return static_cast<std::uint8_t>(generator() >> 8); });
                           }),
          scale(f.rows * f.groups(),
                [](float* to, index n) {
                    std::minstd_rand generator(8);
                    std::generate_n(to, n, [&] { return float(512 + generator() % 512) * 0x1p-14f; });
                }),
          zero(f.rows * f.groups(),
               [f](std::int64_t* to, index n) { std::fill_n(to, n, std::int64_t(1) << (f.bits - 1)); }) {}

    shape<2> groups() const {
        return {format.rows, format.groups()};
    }
    packed_weights<float> packed() const {
        return {as(bytes, shape<2>(format.rows, format.row_bytes())), as(scale, groups()), as(zero, groups()), format};
    }
    template <class U>
    reference::packed_matrix<U> with_scale(const U* steps) const {
        return {as(bytes, shape<2>(format.rows, format.row_bytes())),
                {steps, groups()},
                as(zero, groups()),
                format.columns,
                format.bits,
                format.group_size,
                format.order == code_order::block32};
    }
    double bytes_read() const {
        return double(bytes.size()) + sizeof(float) * double(scale.size());
    }
};

/// Rows that both sorts of activations are compared with. A vector is bound by reading what is packed, whatever a rival
/// reads; oneDNN knows no groups.
void add_rivals(comparison& c, const matrix& m, index tokens, const buffer<float>& x, const buffer<float>& y,
                double tolerance) {
    const packed_format f = m.format;
    const buffer<float> dense(f.rows * f.columns, [=](float* to, index) {
        deft::dequantize_codes(m.packed(), view<float, 2>(to, {f.rows, f.columns}));
    });
    c.add("eigen",
          [=] {
              eigen::run({tokens, f.columns, f.rows, x.data(), dense.data(), y.data(), true});
          },
          {.tolerance = tolerance});
#if DEFT_PEER_OPENBLAS
    c.add("openblas",
          [=] {
              openblas::run({tokens, f.columns, f.rows, x.data(), dense.data(), y.data(), true});
          },
          {.tolerance = tolerance});
#endif
#if DEFT_PEER_GGML
    if (f.bits == 4 && f.group_size == 32 && tolerance > 1e-3) { // it quantises activations
        const lazy peer([=] { return ggml::product(m.packed(), tokens, x.data()); });
        c.add("ggml_q4_0", [=] { peer->run(); }, {.after = [=] { peer->store(y.data()); }, .tolerance = tolerance});
    }
#endif
}

/// bits_a 16: x as it is.
void product(suite& s, index tokens, const packed_format& f, int bits_a, bool full) {
    const matrix m(f);
    const shape<2> x_size{tokens, f.columns}, y_size{tokens, f.rows};
    const auto x = normal<float>(tokens * f.columns), y = output<float>(tokens * f.rows);
    const lazy layer([=] { return prepared_weights<float>(m.packed()); });
    const double operations = 2 * double(tokens) * double(f.rows) * double(f.columns);
    const bool is_vector = tokens == 1;
    const work one = is_vector ? work{.items = double(f.rows), .bytes = m.bytes_read(), .pattern = traffic::read}
                               : work{.items = double(tokens * f.rows), .flops = operations};
    comparison& c = s.compare({.op = "quantized_matmul",
                               .type = "f32",
                               .shape = 'W' + std::to_string(f.bits) + 'A' + std::to_string(bits_a) + "_T" +
                                        std::to_string(tokens) + '_' + std::to_string(f.rows) + 'x' +
                                        std::to_string(f.columns) + "_g" + std::to_string(f.group_size),
                               .work = one,
                               .full = full});
    if (bits_a == 16) {
        c.naive(inputs{x, m.scale}, outputs{y}, [=]<class U>(const U* from, const U* steps, U* to) {
             reference::weight_only_matmul<U>({from, x_size}, m.with_scale(steps), absent, {to, y_size});
         }).add("deft", [=] { deft::quantized_matmul(as(x, x_size), *layer, absent, as(y, y_size)); });
        add_rivals(c, m, tokens, x, y, 1e-5);
        return;
    }
    const lazy activation([=] {
        return quantized_activation<float>(
            {.columns = f.columns, .group_size = f.group_size, .max_tokens = tokens, .bits = bits_a});
    });
    c.naive(inputs{m.scale}, outputs{y}, [=]<class U>(const U* steps, U* to) {
         // Codes from float in both types, so that both multiply the same integers.
         std::vector<std::int64_t> codes(std::size_t(x.size())), zeros(std::size_t(tokens), 0);
         std::vector<float> scales(zeros.size());
         reference::quantize_activation<float>(as(x, x_size), {codes.data(), x_size}, {scales.data(), {tokens, 1}},
                                               {zeros.data(), {tokens, 1}}, bits_a, true, 0);
         std::vector<std::int64_t> acc(std::size_t(tokens * f.rows * f.groups()));
         const shape<3> acc_size{tokens, f.rows, f.groups()};
         const auto w = m.with_scale(steps);
         reference::quantized_sums<U>({codes.data(), x_size}, {zeros.data(), {tokens, 1}}, w, {acc.data(), acc_size});
         const std::vector<U> steps_a(scales.begin(), scales.end());
         reference::scale_sums<U>({acc.data(), acc_size}, {steps_a.data(), {tokens, 1}}, w, absent, {to, y_size});
     }).add("deft", [=] {
        deft::quantize_activation(as(x, x_size), *activation);
        deft::quantized_matmul(*activation, *layer, absent, as(y, y_size));
    });
    const double close = 0.05; // what 8 bits of an activation change, and less than what a wrong product would
    add_rivals(c, m, tokens, x, y, close);
#if DEFT_PEER_ONEDNN
    if (f.group_size == 0 && bits_a == 8 && f.bits < 8) { // without VNNI its sums of two products of 8 bits saturate
        const lazy peer([=] { return onednn::integer_product(m.packed(), tokens, x.data()); });
        c.add("onednn_u8s8", [=] { peer->run(); }, {.after = [=] { peer->store(y.data()); }, .tolerance = close});
    }
#endif
}

} // namespace

void benchmark_quantized_matmul(suite& s) {
    const auto format = [](index rows, index columns, int bits, index group) {
        return packed_format{rows, columns, bits, group, code_order::block32};
    };
    for (const int bits : {2, 4, 8})
        for (const int bits_a : {8, 16})
            for (const index group : {0, 32, 128}) {
                product(s, 1, format(4096, 4096, bits, group), bits_a, bits == 8 || group == 0);
                product(s, 1, format(2048, 2048, bits, group), bits_a, true);
                product(s, 1, format(11008, 4096, bits, group), bits_a, true);
                product(s, 1, format(4096, 11008, bits, group), bits_a, true);
            }
    product(s, 1, format(32000, 4096, 4, 32), 8, true);
    for (const index tokens : {2, 8, 64, 512})
        for (const index group : {0, 32, 128}) {
            product(s, tokens, format(2048, 2048, 4, group), 8, tokens != 64 || group == 128);
            product(s, tokens, format(2048, 2048, 4, group), 16, true);
        }
    for (const int bits : {2, 8})
        product(s, 128, format(2048, 2048, bits, 0), 8, true);
    product(s, 128, format(4096, 4096, 4, 32), 8, true);
    product(s, 128, format(4096, 4096, 4, 128), 8, true);
}

} // namespace deft::bench

// Compiled with -ffast-math like autovec.cpp. Of the library it uses the index type only.
#define DEFT_ALLOW_FAST_MATH
#include "quantization.hpp"

#include <cmath>

namespace deft::bench::autovec {
namespace {

// Rounding is an instruction, but for std::floor and std::nearbyint the compiler has it only inside of a plain loop.
void round_row(const float* __restrict x, float* __restrict y, index n, float scale, float most) {
    const float least = -most - 1;
    for (index j = 0; j < n; ++j) {
        const float code = std::nearbyint(x[j] / scale);
        y[j] = scale * (code < least ? least : code > most ? most : code);
    }
}

template <int Rank>
void learned_row(const float* __restrict w, const float* __restrict a1, const float* __restrict a2,
                 float* __restrict w_hat, index n, float scale, float most) {
    const float least = -most - 1;
    for (index j = 0; j < n; ++j) {
        float v = 0;
        DEFT_UNROLL
        for (int k = 0; k < Rank; ++k)
            v += a1[k] * a2[k * n + j];
        const float t = 1.2f / (1 + std::exp(-v)) - 0.1f, h = t < 0 ? 0.0f : t > 1 ? 1.0f : t;
        const float code = std::floor(w[j] / scale) + h;
        w_hat[j] = scale * (code < least ? least : code > most ? most : code);
    }
}

} // namespace

void fake_quantize(const grid_matrix& m) {
    for (index r = 0; r < m.rows; ++r)
        round_row(m.x + r * m.columns, m.y + r * m.columns, m.columns, m.scale[r], m.most);
}

void lora_rounding(const rounding_matrix& m) {
    for (index r = 0; r < m.rows; ++r) {
        const float* const a1 = m.a1 + r * m.rank;
        const float* const w = m.w + r * m.columns;
        float* const to = m.w_hat + r * m.columns;
        if (m.rank == 1)
            learned_row<1>(w, a1, m.a2, to, m.columns, m.scale[r], m.most);
        else if (m.rank == 5)
            learned_row<5>(w, a1, m.a2, to, m.columns, m.scale[r], m.most);
        else
            learned_row<16>(w, a1, m.a2, to, m.columns, m.scale[r], m.most);
    }
}

} // namespace deft::bench::autovec

// Compiled with -ffast-math like autovec.cpp, so that the compiler may vectorise sums and calls of the C library.
#define DEFT_ALLOW_FAST_MATH
#include "recurrences.hpp"

#include <algorithm>
#include <cmath>

namespace deft::bench::autovec {

void run(const retention_peer& s) {
    std::fill_n(s.state, s.heads * s.dk * s.dv, 0.0f);
    for (index h = 0; h < s.heads; ++h) {
        const float gamma = float(s.gamma[h]);
        double count = 0;
        for (index t = 0; t < s.tokens; ++t) {
            const index at = h * s.tokens + t;
            const float *const key = s.k + at * s.dk, *const query = s.q + at * s.dk;
            const float* __restrict value = s.v + at * s.dv;
            float* __restrict to = s.o + at * s.dv;
            count = s.gamma[h] * count + 1;
            const float root = float(1 / std::sqrt(count));
            std::fill_n(to, s.dv, 0.0f);
            for (index d = 0; d < s.dk; ++d) {
                float* __restrict state = s.state + (h * s.dk + d) * s.dv;
                const float k = key[d], q = query[d] * root;
                for (index e = 0; e < s.dv; ++e) {
                    state[e] = gamma * state[e] + k * value[e];
                    to[e] += q * state[e];
                }
            }
        }
    }
}

void run(const selective_scan_peer& s) {
    const index states = s.states; // a constant would be unrolled before it is vectorised
    for (index t = 0; t < s.tokens; ++t) {
        const float* __restrict b = s.b + t * states, * __restrict c = s.c + t * states;
        for (index k = 0; k < s.channels; ++k) {
            const index at = t * s.channels + k;
            const float x = s.delta[at], d = std::max(x, 0.0f) + std::log1p(std::exp(-std::abs(x))), z = s.z[at];
            const float* __restrict a = s.a + k * states;
            float* __restrict state = s.state + k * states;
            const float input = d * s.u[at];
            float sum = 0;
            for (index n = 0; n < states; ++n) {
                const float h = std::exp(d * a[n]) * state[n] + input * b[n];
                state[n] = h;
                sum += c[n] * h;
            }
            sum += s.skip[k] * s.u[at];
            s.y[at] = sum * z / (1 + std::exp(-z));
        }
    }
}

} // namespace deft::bench::autovec

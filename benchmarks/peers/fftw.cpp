#include "fftw.hpp"

#if DEFT_PEER_FFTW

#include <fftw3.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace deft::bench::fftw {

struct dct_plan::parts {
    fftwf_plan plan;
    const float* x;
    float* y;
    int kind;
    index rows, n;

    ~parts() {
        fftwf_destroy_plan(plan);
    }
};

dct_plan::dct_plan(int kind, const float* x, float* y, index rows, index n)
    : parts_(new parts{{}, x, y, kind, rows, n}) {
    const int length = static_cast<int>(n);
    const fftwf_r2r_kind kinds[] = {FFTW_REDFT10, FFTW_REDFT01, FFTW_REDFT11};
    const std::vector<float> kept(x, x + rows * n); // measuring overwrites it
    float* const from = const_cast<float*>(x);
    parts_->plan = fftwf_plan_many_r2r(1, &length, static_cast<int>(rows), from, nullptr, 1, length, y, nullptr, 1,
                                       length, &kinds[kind - 2], FFTW_MEASURE | FFTW_PRESERVE_INPUT);
    std::copy(kept.begin(), kept.end(), from);
}

void dct_plan::run() {
    fftwf_execute(parts_->plan);
}

void dct_plan::normalize() {
    const parts& p = *parts_;
    const float root2 = std::sqrt(2.0f), scale = 1 / std::sqrt(2.0f * float(p.n));
    for (index r = 0; r < p.rows; ++r) {
        float* const row = p.y + r * p.n;
        const float more = p.kind == 3 ? (root2 - 1) * p.x[r * p.n] : 0.0f;
        for (index j = 0; j < p.n; ++j)
            row[j] = scale * (row[j] + more);
        if (p.kind == 2)
            row[0] /= root2;
    }
}

} // namespace deft::bench::fftw

#endif

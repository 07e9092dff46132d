/// \file
/// Naive reference of step_search (arXiv:2111.12293, algorithm 1).
#ifndef DEFT_REFERENCE_QUANTIZATION_STEP_SEARCH_HPP
#define DEFT_REFERENCE_QUANTIZATION_STEP_SEARCH_HPP

#include <deft/reference/quantization/quant_blocks.hpp>

#include <algorithm>
#include <cmath>

namespace deft {
inline namespace DEFT_ISA {
namespace reference {

template <class T>
index step_search(in<T, 2> x, in<T, 2> w, in<T, 2> grad, view<T, 1> steps, out<T, 1> scores, int bits, double alpha,
                  double beta) {
    const quant_layout layout{bits, true, -1};
    T peak = 0;
    for (index o = 0; o < w.extent(0); ++o)
        for (index k = 0; k < w.extent(1); ++k)
            peak = std::max(peak, std::abs(w(o, k)));
    index best = 0;
    for (index j = 0; j < steps.extent(0); ++j) {
        const T s = peak / T(layout.qmax()) * T(alpha + (beta - alpha) * double(j) / double(steps.extent(0) - 1));
        T score = 0;
        for (index t = 0; t < x.extent(0); ++t)
            for (index o = 0; o < w.extent(0); ++o) {
                T quantised = 0, exact = 0;
                for (index k = 0; k < x.extent(1); ++k) {
                    const T code = s > 0 ? clip(std::nearbyint(w(o, k) / s), layout.qmin(), layout.qmax()) : T(0);
                    quantised += x(t, k) * (s * code);
                    exact += x(t, k) * w(o, k);
                }
                const T error = grad(t, o) * (quantised - exact);
                score += error * error;
            }
        steps(j) = s;
        scores(j) = score;
        if (score < scores(best))
            best = j;
    }
    return best;
}

} // namespace reference
} // namespace DEFT_ISA
} // namespace deft

#endif

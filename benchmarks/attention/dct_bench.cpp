// dct, against matrix products, pocketfft and FFTW, at the head sizes of models.
#include "../peers/fftw.hpp"
#include "../peers/gemm.hpp"
#include "../peers/pocketfft.hpp"
#include "../support/suite.hpp"

#include <deft/attention/dct.hpp>
#include <deft/reference/attention/dct.hpp>

#include <string>
#include <vector>

namespace deft::bench {
namespace {

/// The transposed matrix, for products with rows from the left.
template <class T>
buffer<T> matrix(index n, int kind) {
    return {n * n, [=](T* to, index) {
                const std::vector<T> m = reference::dct_matrix<T>(n, kind, true);
                std::copy(m.begin(), m.end(), to);
            }};
}

template <class T>
void forward(suite& s, int kind, index rows, index n, bool full) {
    const shape<2> size{rows, n};
    const auto x = normal<T>(rows * n), m = matrix<T>(n, kind), y = output<T>(rows * n);
    const lazy plan([=] { return dct_plan<T>(n, dct_kind(kind)); });
    const lazy dense([=] { return dct_plan<T>(n, dct_kind(kind), {.algorithm = dct_algorithm::dense}); });
    auto& c = s.compare({.op = "dct",
                         .type = type_name<T>,
                         .shape = std::to_string(rows) + 'x' + std::to_string(n) + "_kind" + std::to_string(kind),
                         .work = {.items = double(rows * n), .bytes = 2.0 * double(rows * n) * sizeof(T)},
                         .full = full});
    c.naive(inputs{x, m}, outputs{y}, [=]<class U>(const U* from, const U* w, U* to) {
         for (index r = 0; r < rows; ++r) {
             U* const row = to + r * n;
             std::fill_n(row, n, U(0));
             for (index j = 0; j < n; ++j)
                 for (index k = 0; k < n; ++k)
                     row[k] += from[r * n + j] * w[j * n + k];
         }
     }).add("deft", [=] { deft::dct(as(x, size), as(y, size), *plan); });
    if (n <= 256)
        c.add("dense", [=] { deft::dct(as(x, size), as(y, size), *dense); });
    if constexpr (sizeof(T) == 4) {
        c.add("eigen", [=] { eigen::run({rows, n, n, x.data(), m.data(), y.data()}); });
#if DEFT_PEER_OPENBLAS
        c.add("openblas", [=] { openblas::run({rows, n, n, x.data(), m.data(), y.data()}); });
#endif
#if DEFT_PEER_FFTW
        const lazy peer([=] { return fftw::dct_plan(kind, x.data(), y.data(), rows, n); });
        c.add("fftw", [=] { peer->run(); }, {.after = [=] { peer->normalize(); }});
#endif
    }
#if DEFT_PEER_POCKETFFT
    c.add("pocketfft", [=] { pocketfft::dct<T>(kind, x.data(), y.data(), rows, n); });
#endif
}

} // namespace

void benchmark_dct(suite& s) {
    forward<float>(s, 3, 1024, 64, false);
    forward<float>(s, 2, 512, 128, false);
    for (const index n : {64, 80, 96, 128, 256, 1024}) { // in the second cache
        const index rows = 65536 / n;
        if (n != 64)
            forward<float>(s, 3, rows, n, true);
        if (n != 128)
            forward<float>(s, 2, rows, n, true);
        forward<float>(s, 4, rows, n, true);
        forward<double>(s, 3, rows / 2, n, true);
    }
    for (const index n : {64, 128, 256})
        forward<float>(s, 2, 100000, n, true);
    forward<float>(s, 2, 20000, 1024, true);
    for (const index n : {8, 16, 24, 32, 48, 50, 60, 63, 81, 97, 98, 110, 125, 144, 169, 243, 251})
        forward<float>(s, 2, 512, n, true);
    for (const index rows : {1, 4})
        forward<float>(s, 3, rows, 64, true);
}

} // namespace deft::bench

#include "support/catch.hpp"
#include "support/generate.hpp"

#include <deft/kernels/fft.hpp>

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <vector>

namespace deft::testing {

namespace {

using arch = simd::default_arch;

using complex = std::complex<long double>; // the sums below lose more digits than the transforms

/// The definition, in one lane; w = exp(-2 pi i / n).
std::vector<complex> dft(const std::vector<complex>& x) {
    const std::size_t n = x.size();
    std::vector<complex> w(n), result(n);
    for (std::size_t j = 0; j < n; ++j)
        w[j] = std::polar(1.0L,
                          -2 * 3.14159265358979323846264L * static_cast<long double>(j) / static_cast<long double>(n));
    for (std::size_t k = 0; k < n; ++k)
        for (std::size_t t = 0; t < n; ++t)
            result[k] += x[t] * w[k * t % n];
    return result;
}

std::vector<index> lengths() {
    std::vector<index> all;
    for (index n = 1; n <= 66; ++n)
        all.push_back(n);
    all.insert(all.end(), {77, 96, 97, 121, 128, 169, 192, 210, 256, 343, 509, 1000, 1024, 1155});
    return all;
}

} // namespace

TEMPLATE_TEST_CASE("transforms of every length are the sum that defines them", "[fft]", float, double) {
    using T = TestType;
    constexpr index width = simd::lanes<T, arch>;
    random_values random(1);
    for (const index n : lengths()) {
        CAPTURE(n);
        const std::vector<double> values = random.normal({n, 2, width}).values;
        std::vector<T> twiddles(std::size_t(2 * n)), x(values.begin(), values.end()), other(x.size());
        const kernels::fft_plan<T> plan(n, twiddles.data());
        const T* const result = kernels::fft<arch>(plan, x.data(), other.data());
        for (const index lane : {index{0}, width - 1}) {
            std::vector<complex> signal;
            for (index t = 0; t < n; ++t)
                signal.emplace_back(values[std::size_t(2 * t * width + lane)],
                                    values[std::size_t((2 * t + 1) * width + lane)]);
            const std::vector<complex> expected = dft(signal);
            double worst = 0, largest = 0;
            for (index k = 0; k < n; ++k) {
                const complex got(result[2 * k * width + lane], result[(2 * k + 1) * width + lane]);
                worst = std::max(worst, double(std::abs(got - expected[std::size_t(k)])));
                largest = std::max(largest, double(std::abs(expected[std::size_t(k)])));
            }
            // Small factors: less; a prime sums n / 2 terms.
            CHECK(worst / largest <= double(std::numeric_limits<T>::epsilon()) * (3 + 0.02 * double(n)));
        }
    }
}

TEMPLATE_TEST_CASE("of real numbers, a transform leaves one of each two conjugate bins", "[fft]", float, double) {
    using T = TestType;
    constexpr index width = simd::lanes<T, arch>;
    random_values random(3);
    for (const index n : lengths()) {
        if (n % 2 == 0)
            continue;
        CAPTURE(n);
        const std::vector<double> values = random.normal({n, width}).values;
        std::vector<T> twiddles(std::size_t(2 * n)), buffer(std::size_t(2 * n * width)), other(buffer.size());
        std::copy(values.begin(), values.end(), other.begin());
        const kernels::fft_plan<T> plan(n, twiddles.data());
        const T* const result = kernels::fft_real<arch>(plan, buffer.data(), other.data());
        for (const index lane : {index{0}, width - 1}) {
            std::vector<complex> signal;
            for (index t = 0; t < n; ++t)
                signal.emplace_back(values[std::size_t(t * width + lane)]);
            const std::vector<complex> expected = dft(signal);
            double worst = 0, largest = 0;
            for (index k = 0; k < n; ++k) {
                largest = std::max(largest, double(std::abs(expected[std::size_t(k)])));
                if (!kernels::has_real_bin(plan, k)) {
                    CHECK(kernels::has_real_bin(plan, n - k));
                    continue;
                }
                const complex got(result[2 * k * width + lane], result[(2 * k + 1) * width + lane]);
                worst = std::max(worst, double(std::abs(got - expected[std::size_t(k)])));
            }
            CHECK(worst / largest <= double(std::numeric_limits<T>::epsilon()) * (3 + 0.02 * double(n)));
        }
    }
}

TEMPLATE_TEST_CASE("the reverse order transforms back", "[fft]", float, double) {
    using T = TestType;
    constexpr index width = simd::lanes<T, arch>;
    random_values random(2);
    for (const index n : lengths()) {
        CAPTURE(n);
        const std::vector<double> values = random.normal({n, 2, width}).values;
        std::vector<T> twiddles(std::size_t(2 * n)), x(values.begin(), values.end()), other(x.size());
        const kernels::fft_plan<T> plan(n, twiddles.data());
        T* const there = kernels::fft<arch>(plan, x.data(), other.data());
        T* const reversed = there == x.data() ? other.data() : x.data();
        for (index k = 0; k < n; ++k)
            std::copy_n(there + 2 * k * width, 2 * width, reversed + 2 * (k == 0 ? 0 : n - k) * width);
        const T* const back = kernels::fft<arch>(plan, reversed, there);
        double worst = 0;
        for (std::size_t i = 0; i < values.size(); ++i)
            worst = std::max(worst, std::abs(double(back[i]) / double(n) - values[i]));
        CHECK(worst <= 40 * double(std::numeric_limits<T>::epsilon()));
    }
}

TEST_CASE("lanes do not see each other", "[fft]") {
    constexpr index n = 60, width = simd::lanes<float, arch>;
    std::vector<float> twiddles(std::size_t(2 * n)), x(std::size_t(2 * n * width), 1.0f), other(x.size());
    x[std::size_t(2 * 7 * width)] = std::numeric_limits<float>::quiet_NaN(); // lane 0
    const kernels::fft_plan<float> plan(n, twiddles.data());
    const float* const result = kernels::fft<arch>(plan, x.data(), other.data());
    for (index i = 0; i < 2 * n * width; ++i)
        if (i % width != 0)
            CHECK(std::isfinite(result[i]));
}

} // namespace deft::testing

/// \file
/// block_circulant_linear prepared once per layer: the generators are transformed when the object is built, or set, and
/// a call multiplies spectra. The same results as block_circulant_linear to rounding, at a fraction of its cost for
/// long blocks.
///
///     deft::prepared_block_circulant<float> layer(c);      // c: [p_out, p_in, m]
///     layer(x, bias, y);                                   // y = x W^T + bias; never allocates
///
/// Cost per row: p_in / 2 + p_out / 2 complex transforms of length m and 4 p_in p_out m flops, against 2 p_in p_out m^2
/// directly. The error of the transforms is relative to the largest term of a row.
#ifndef DEFT_SHORTCUT_PREPARED_BLOCK_CIRCULANT_HPP
#define DEFT_SHORTCUT_PREPARED_BLOCK_CIRCULANT_HPP

#include <deft/kernels/circulant_fft.hpp>
#include <deft/shortcut/block_circulant_linear.hpp>
#include <deft/simd/aligned_vector.hpp>

#include <algorithm>
#include <vector>

namespace deft {

enum class circulant_algorithm : unsigned char { automatic, direct, fft };

struct circulant_preparation {
    circulant_algorithm algorithm = circulant_algorithm::automatic;
    bool transposed = false; ///< y = x W instead: the gradient of x. Takes grad_y, and no bias
    index threads = 1;       ///< threads that a call can use: each needs working memory
};

inline namespace DEFT_ISA {
namespace detail {

/// Whether transforms pay: costs per row and m, in multiply-adds of the direct product. Fitted to measurements with
/// AVX2 (float, 3 and 4 blocks; double is alike): lengths from about 15 on whose factors are at most 5, from 50 on if
/// they are 7 and 11, and no large primes.
template <class T>
bool transforms_pay(index outputs, index inputs, index m) noexcept {
    const kernels::fft_plan<T> plan(m, nullptr);
    index transform = 24;
    for (int pass = 0; pass < plan.passes; ++pass)
        transform += kernels::is_small_radix(plan.radix[pass]) ? 6 : 5 * plan.radix[pass];
    const index products = outputs * inputs, transforms = (outputs + 1) / 2 + (inputs + 1) / 2;
    return transforms * transform + 3 * products < products * m;
}

/// Spectra of stacked generators [outputs, inputs, m], and working memory.
template <class T>
class circulant_transform {
    using arch = simd::default_arch;

public:
    circulant_transform(index outputs, index inputs, index m, index threads)
        : twiddles_(std::size_t(2 * m)), threads_(threads) {
        spectra_.blocks_out = outputs;
        spectra_.blocks_in = inputs;
        spectra_.plan = kernels::fft_plan<T>(m, twiddles_.data());
        weights_.resize(std::size_t(spectra_.weight_count()));
        work_.resize(std::size_t(threads * spectra_.template work_count<arch>()));
        spectra_.weights = weights_.data();
    }
    circulant_transform(const circulant_transform& other) {
        *this = other;
    }
    circulant_transform& operator=(const circulant_transform& other) {
        twiddles_ = other.twiddles_;
        weights_ = other.weights_;
        work_ = other.work_;
        threads_ = other.threads_;
        spectra_ = other.spectra_;
        spectra_.plan.twiddles = twiddles_.data();
        spectra_.weights = weights_.data();
        return *this;
    }

    /// generator(i, j, k).
    template <class Generator>
    void set(Generator&& generator) noexcept {
        for (index i = 0; i < spectra_.blocks_out; ++i)
            for (index j = 0; j < spectra_.blocks_in; ++j)
                kernels::transform_generator<arch, T>(
                    spectra_, i, j, [&](index k) { return generator(i, j, k); }, weights_.data(), work_.data());
    }

    /// f(u, first row, first column, size) for blocks of x W^T: in order of columns for the same rows.
    template <class Executor, class F>
    void run(const view<const T, 2>& x, Executor& executor, F&& f) {
        constexpr index width = simd::lanes<T, arch>;
        const index blocks = (x.extent(0) + width - 1) / width, work = spectra_.template work_count<arch>();
        executor.parallel_for(std::min(threads_, blocks), 1, [&](index begin, index end) {
            for (index part = begin; part < end; ++part)
                for (index block = part; block < blocks; block += threads_) {
                    const index r = block * width, count = std::min(width, x.extent(0) - r);
                    kernels::circulant_fft<arch, T>(
                        spectra_, x.data() + r * x.stride(0), x.stride(0), count, work_.data() + part * work,
                        [&](const T* u, index stride, index column, index columns) {
                            f(kernels::row_block<const T>{u, stride}, r, column, kernels::block_size{count, columns});
                        });
                }
        });
    }

private:
    kernels::circulant_spectra<T> spectra_;
    simd::aligned_vector<T> twiddles_, weights_, work_;
    index threads_ = 1;
};

} // namespace detail

/// The layer y = x W^T + bias, or y = x W. A copy is independent; one object serves one call at a time.
template <class T>
class prepared_block_circulant {
public:
    /// Throws std::invalid_argument if blocks have length 0 or threads is not positive.
    explicit prepared_block_circulant(in<T, 3> c, const circulant_preparation& options = {})
        : transposed_(options.transposed),
          uses_fft_(checked(c, options)), shape_{c.extent(0), c.extent(1), c.extent(2)},
          transform_(uses_fft_ ? outputs() : 0, uses_fft_ ? inputs() : 0, uses_fft_ ? length() : 1, options.threads),
          generators_(std::size_t(uses_fft_ ? 0 : c.size())) {
        set(c);
    }

    /// Other generators of the same shape, as after a step of training. Does not allocate.
    void set(in<T, 3> c) {
        const char* const op = "prepared_block_circulant";
        const view<const T, 3> shape(nullptr, {shape_[0], shape_[1], shape_[2]});
        detail::check_same_shape(op, "c", c, "the first c", shape);
        const index m = length();
        if (!uses_fft_) {
            T* to = generators_.data();
            for (index i = 0; i < c.extent(0); ++i)
                for (index j = 0; j < c.extent(1); ++j)
                    to = std::copy_n(&c(i, j, 0), m, to);
        } else if (transposed_) {
            transform_.set([&](index j, index i, index k) { return c(i, j, k == 0 ? 0 : m - k); });
        } else {
            transform_.set([&](index i, index j, index k) { return c(i, j, k); });
        }
    }

    /// bias may be absent. y must not overlap x. Throws std::invalid_argument before anything is written if shapes do
    /// not fit. Uses up to `threads` threads of the executor; the same bits for every executor. Does not allocate.
    template <executor Executor = serial_executor>
    void operator()(in_rows<T> x, in<T, 1> bias, out_rows<T> y, Executor&& executor = Executor()) {
        const char* const op = "prepared_block_circulant";
        const index m = length();
        detail::check_extent(op, "x", x, 1, inputs() * m, "input blocks of c, times their length");
        detail::check_extent(op, "y", y, 1, outputs() * m, "output blocks of c, times their length");
        detail::check_extent(op, "y", y, 0, x.extent(0), "rows of x");
        if (bias.is_given())
            detail::check_extent(op, "bias", bias, 0, outputs() * m, "output blocks of c, times their length");
        const T* const b = bias.data();
        const auto finish = [&](kernels::row_block<const T> u, index r, index column, kernels::block_size size) {
            kernels::activate<simd::default_arch, T>({activation::identity, T(0)}, u, b == nullptr ? b : b + column,
                                                     detail::block_at(y, r, column), size);
        };
        if (uses_fft_)
            transform_.run(x, executor, finish);
        else
            detail::for_each_circulant_tile<T>(x, {generators_.data(), shape_[1] * m, m, m, transposed_}, y.extent(1),
                                               executor, finish);
    }

    bool uses_fft() const noexcept {
        return uses_fft_;
    }

private:
    static bool checked(const view<const T, 3>& c, const circulant_preparation& options) {
        const char* const op = "prepared_block_circulant";
        detail::check_generators<T>(op, c);
        detail::check(options.threads >= 1, op, "threads", "must be at least 1", double(options.threads));
        if (options.algorithm == circulant_algorithm::automatic)
            return c.size() != 0 && detail::transforms_pay<T>(c.extent(0), c.extent(1), c.extent(2));
        return options.algorithm == circulant_algorithm::fft && c.extent(2) > 0;
    }
    index length() const noexcept {
        return shape_[2];
    }
    index outputs() const noexcept {
        return shape_[transposed_ ? 1 : 0];
    }
    index inputs() const noexcept {
        return shape_[transposed_ ? 0 : 1];
    }

    bool transposed_, uses_fft_;
    index shape_[3]; // of c
    detail::circulant_transform<T> transform_;
    std::vector<T> generators_; // without fft
};

} // namespace DEFT_ISA
} // namespace deft

#endif

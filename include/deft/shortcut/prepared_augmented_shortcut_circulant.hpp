/// \file
/// augmented_shortcut_circulant prepared once per layer: generators transformed when the object is built, or set. All
/// paths share the transform of z, and each block is activated and added into y while it is in cache.
///
///     deft::prepared_augmented_shortcut_circulant<float> layer(c);      // c: [T, p, p, m]
///     layer(z, main, bias, absent, y);                                  // never allocates
#ifndef DEFT_SHORTCUT_PREPARED_AUGMENTED_SHORTCUT_CIRCULANT_HPP
#define DEFT_SHORTCUT_PREPARED_AUGMENTED_SHORTCUT_CIRCULANT_HPP

#include <deft/shortcut/augmented_shortcut_circulant.hpp>
#include <deft/shortcut/prepared_block_circulant.hpp>

#include <algorithm>
#include <vector>

namespace deft {
inline namespace DEFT_ISA {

/// The same results as augmented_shortcut_circulant to rounding. A copy is independent; one object serves one call at
/// a time.
template <class T>
class prepared_augmented_shortcut_circulant {
public:
    /// Throws std::invalid_argument if c is not [T, p, p, m], m >= 1, or threads is not positive.
    explicit prepared_augmented_shortcut_circulant(in<T, 4> c, const augmented_shortcut_circulant_options& options = {},
                                                   circulant_algorithm algorithm = circulant_algorithm::automatic,
                                                   index threads = 1)
        : options_(options),
          uses_fft_(checked(c, algorithm, threads)), shape_{c.extent(0), c.extent(1), c.extent(2), c.extent(3)},
          transform_(uses_fft_ ? c.extent(0) * c.extent(1) : 0, uses_fft_ ? c.extent(2) : 0,
                     uses_fft_ ? c.extent(3) : 1, threads),
          generators_(std::size_t(uses_fft_ ? 0 : c.size())) {
        set(c);
    }

    /// Other generators of the same shape, as after a step of training. Does not allocate.
    void set(in<T, 4> c) {
        detail::check_same_shape(op, "c", c, "the first c", first_shape(nullptr));
        const index blocks = shape_[1], m = shape_[3];
        if (uses_fft_) {
            transform_.set([&](index i, index j, index k) { return c(i / blocks, i % blocks, j, k); });
            return;
        }
        T* to = generators_.data();
        for (index path = 0; path < shape_[0]; ++path)
            for (index i = 0; i < blocks; ++i)
                for (index j = 0; j < blocks; ++j)
                    for (index k = 0; k < m; ++k)
                        *to++ = c(path, i, j, k);
    }

    /// Arguments and errors of augmented_shortcut_circulant. Uses up to `threads` threads of the executor; the same
    /// bits for every executor. Does not allocate.
    template <executor Executor = serial_executor>
    void operator()(in_rows<T> z, in_rows<T> main, in<T, 2> bias, in_rows<T> residual, out_rows<T> y,
                    Executor&& executor = Executor()) {
        if (!uses_fft_) {
            augmented_shortcut_circulant<T>(z, main, first_shape(generators_.data()), bias, residual, y, options_,
                                            executor);
            return;
        }
        detail::check_circulant_paths<T>(op, z, first_shape(nullptr), bias, options_);
        detail::check_same_shape(op, "main", main, "z", z);
        detail::check_residual(op, "residual", residual, z, options_.residual);
        detail::check_same_shape(op, "y", y, "z", z);

        const index d = z.extent(1), paths = shape_[0];
        const detail::shortcut_sum<T> sum(options_, {options_.base, static_cast<T>(options_.negative_slope)}, z, main,
                                          residual, y);
        transform_.run(z, executor,
                       [&](kernels::row_block<const T> u, index r, index column, kernels::block_size size) {
                           for (index done = 0; done < size.columns;) { // a pair of blocks may belong to two paths
                               const index path = (column + done) / d, within = (column + done) % d;
                               const index count = std::min(size.columns - done, d - within);
                               sum.add({u.data + done, u.stride}, detail::path_bias(bias, path), r, within,
                                       {size.rows, count}, path == 0, path + 1 == paths);
                               done += count;
                           }
                       });
    }

    bool uses_fft() const noexcept {
        return uses_fft_;
    }

private:
    static constexpr const char* op = "prepared_augmented_shortcut_circulant";

    static bool checked(const view<const T, 4>& c, circulant_algorithm algorithm, index threads) {
        detail::check_extent(op, "c", c, 2, c.extent(1), "blocks of c along axis 1: W is square");
        detail::check(threads >= 1, op, "threads", "must be at least 1", double(threads));
        if (c.size() == 0) {
            detail::check(c.extent(0) == 0 || c.extent(1) == 0, op, "c", "its extent 3, the length of blocks", 0);
            return false;
        }
        return algorithm == circulant_algorithm::fft ||
               (algorithm == circulant_algorithm::automatic &&
                detail::transforms_pay<T>(c.extent(0) * c.extent(1), c.extent(2), c.extent(3)));
    }
    view<const T, 4> first_shape(const T* data) const {
        return {data, {shape_[0], shape_[1], shape_[2], shape_[3]}};
    }

    augmented_shortcut_circulant_options options_;
    bool uses_fft_;
    index shape_[4]; // of c
    detail::circulant_transform<T> transform_;
    std::vector<T> generators_; // without fft
};

} // namespace DEFT_ISA
} // namespace deft

#endif

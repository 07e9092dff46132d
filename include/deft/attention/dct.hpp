/// \file
/// Orthonormal discrete cosine transform of the last axis: the direction matrix of DiJiang's kernel features
/// (arXiv:2403.19928, section 3), also useful alone.
///
///     y = M x,  M orthogonal, [n, n]:
///     dct2:   M[k, j] = s_k cos(pi (2j+1) k / 2n),   s_0 = sqrt(1/n), s_k = sqrt(2/n)
///     dct3:   the transpose and inverse of dct2
///     dct4:   M[k, j] = sqrt(2/n) cos(pi (2j+1) (2k+1) / 4n),   its own inverse
///
/// x, y: `[..., n]`, any n >= 1, any rank >= 1, rows any distance apart; float, double, or half / bfloat16, which are
/// transformed in float. The same as scipy.fft.dct(x, type, norm="ortho"). The paper's eq. 11, read literally, is zero
/// but for one entry; its code builds dct2 and applies it from the right, which is dct3.
///
///     deft::dct_plan<float> plan(64, deft::dct_kind::dct2);   // tables, once
///     deft::dct(x, y, plan);                                  // any number of rows; never allocates
///     deft::dct_backward(grad_y, grad_x, plan);
#ifndef DEFT_ATTENTION_DCT_HPP
#define DEFT_ATTENTION_DCT_HPP

#include <deft/kernels/dct.hpp>
#include <deft/kernels/row_lanes.hpp>
#include <deft/parallel.hpp>
#include <deft/simd/aligned_vector.hpp>
#include <deft/view.hpp>

#include <algorithm>
#include <vector>

namespace deft {

enum class dct_kind : unsigned char { dct2 = 2, dct3 = 3, dct4 = 4 };

/// automatic takes the faster by measurement: `fft` costs about n log n per row if n has small factors, `dense` n^2.
enum class dct_algorithm : unsigned char { automatic, fft, dense };

struct dct_preparation {
    dct_algorithm algorithm = dct_algorithm::automatic;
    index threads = 1; ///< threads that a call can use: each needs working memory
};

inline namespace DEFT_ISA {
namespace detail {

/// Whether the matrix is faster than transforms: costs per row and element, in multiply-adds of the dense product.
template <class T>
bool prefers_dense_dct(index n, dct_kind kind) noexcept {
    constexpr index most = 1024; // of n: 4 MB of matrix
    const kernels::fft_plan<T> plan(n % 2 == 0 ? n / 2 : n, nullptr);
    const bool is_real = n % 2 == 1 && kind != dct_kind::dct3;
    index cost = 10;
    for (int pass = 0; pass < plan.passes; ++pass) {
        const index r = plan.radix[pass];
        if (is_real && pass == 0)
            cost += r <= 7 ? 4 : 2 * r;
        else
            cost += kernels::is_small_radix(r) ? 4 : is_real ? r : 2 * r;
    }
    return n <= most && n <= (n % 2 == 0 || is_real ? cost : 2 * cost);
}

/// Tables of a transform, and where they lie.
template <class T>
class dct_transform {
public:
    dct_transform(const char* op, index n, dct_kind kind, dct_algorithm algorithm) : kind_(kind) {
        check(n >= 1, op, "length", "must be at least 1", double(n));
        check(kind == dct_kind::dct2 || kind == dct_kind::dct3 || kind == dct_kind::dct4, op, "kind",
              "must be dct2, dct3 or dct4", double(static_cast<unsigned char>(kind)));
        const bool dense = algorithm == dct_algorithm::dense ||
                           (algorithm == dct_algorithm::automatic && prefers_dense_dct<T>(n, kind));
        tables_.n = n;
        tables_.fourth = kind == dct_kind::dct4;
        tables_.method = dense        ? kernels::dct_method::dense
                         : n % 2 == 0 ? kernels::dct_method::even
                                      : kernels::dct_method::odd;
        const index length = tables_.fft_length();
        factors_.resize(std::size_t(tables_.factor_count() + 2 * length));
        slots_.resize(std::size_t(tables_.slot_count()));
        tables_.plan = kernels::fft_plan<T>(length, factors_.data() + tables_.factor_count());
        tables_.fill(factors_.data(), slots_.data());
    }
    dct_transform(const dct_transform& other) {
        *this = other;
    }
    dct_transform& operator=(const dct_transform& other) {
        kind_ = other.kind_;
        factors_ = other.factors_;
        slots_ = other.slots_;
        tables_ = other.tables_;
        tables_.factors = factors_.data();
        tables_.slots = slots_.data();
        tables_.plan.twiddles = factors_.data() + tables_.factor_count();
        return *this;
    }

    index length() const noexcept {
        return tables_.n;
    }
    dct_kind kind() const noexcept {
        return kind_;
    }
    /// M^T instead of M, by tables that hold kinds 2 and 4.
    bool transposed(bool backward) const noexcept {
        return kind_ != dct_kind::dct4 && backward != (kind_ == dct_kind::dct3);
    }
    const kernels::dct_tables<T>& tables() const noexcept {
        return tables_;
    }

private:
    kernels::dct_tables<T> tables_;
    dct_kind kind_ = dct_kind::dct2;
    std::vector<T> factors_;
    std::vector<index> slots_;
};

/// f(part, first row, rows) for blocks of up to `height` rows; part < threads names memory that the call has to itself.
template <class Executor, class F>
void for_each_row_block(index rows, index height, index threads, Executor& executor, F&& f) {
    const index blocks = (rows + height - 1) / height;
    executor.parallel_for(std::min(threads, blocks), 1, [&](index begin, index end) {
        for (index part = begin; part < end; ++part)
            for (index block = part; block < blocks; block += threads)
                f(part, block * height, std::min(height, rows - block * height));
    });
}

} // namespace detail

/// A transform of one length and kind, for both directions. A copy is independent; one object serves one call at a
/// time.
template <class T>
class dct_plan {
    using arch = simd::default_arch;

public:
    /// Throws std::invalid_argument if n or threads is less than 1 or there is no such kind.
    explicit dct_plan(index n, dct_kind kind, const dct_preparation& options = {})
        : transform_("dct_plan", n, kind, options.algorithm), threads_(options.threads) {
        detail::check(threads_ >= 1, "dct_plan", "threads", "must be at least 1", double(threads_));
        work_.resize(std::size_t(threads_ * transform_.tables().template work_count<arch>()));
    }

    index length() const noexcept {
        return transform_.length();
    }
    dct_kind kind() const noexcept {
        return transform_.kind();
    }
    bool is_dense() const noexcept {
        return transform_.tables().method == kernels::dct_method::dense;
    }

    /// y = M x, or M^T x; the shapes have been checked.
    template <class S, class Executor>
    void run(bool backward, const view<const S, 2>& x, const view<S, 2>& y, Executor& executor) {
        constexpr index width = simd::lanes<T, arch>;
        const kernels::dct_tables<T>& tables = transform_.tables();
        const bool transposed = transform_.transposed(backward);
        const kernels::dct_order input = tables.input(transposed), output = tables.output(transposed);
        const index n = length(), work = tables.template work_count<arch>();
        detail::for_each_row_block(x.extent(0), width, threads_, executor, [&](index part, index r, index count) {
            T* const lanes = work_.data() + part * work;
            kernels::load_lanes<arch>(x.data() + r * x.stride(0), x.stride(0), count, n, input.of<arch>(lanes));
            S* const to = y.data() + r * y.stride(0);
            const auto ahead = kernels::dct_rows_ahead::of<arch>(to, count, y.stride(0), n, y.extent(0));
            const auto result = output.of<arch>(kernels::dct_lanes<arch>(tables, transposed, lanes, ahead));
            kernels::store_lanes<arch>(to, y.stride(0), count, n,
                                       [=](index t) DEFT_INLINE_LAMBDA { return simd::load<arch>(result(t)); });
        });
    }

private:
    detail::dct_transform<T> transform_;
    index threads_;
    simd::aligned_vector<T> work_;
};

namespace detail {

template <class S>
void run_dct(const char* op, const char* from, const view<const S, 2>& x, const char* to, const rows<S>& y,
             bool backward, dct_plan<compute_t<S>>& plan, auto& executor) {
    check_extent(op, from, x, 1, plan.length(), "length of the plan");
    check_same_shape(op, to, y, from, x);
    plan.run(backward, x, static_cast<const view<S, 2>&>(y), executor);
}

} // namespace detail

/// y = M x; formulas, shapes and types at the top of this file.
///
/// y may be x. Throws std::invalid_argument before anything is written if shapes do not fit. No rows are valid. NaN or
/// infinity in a row makes all of that row NaN or infinite, and no other. Uses up to `threads` threads of the executor;
/// the same bits for every executor. Error of the largest |y|: 4e-7 (float), 1e-15 (double) for lengths of small
/// factors up to 1024.
template <class T = void, class Y = rows<T>, executor Executor = serial_executor>
void dct(in_rows<element_t<T, Y>> x, Y&& y, dct_plan<compute_t<element_t<T, Y>>>& plan,
         Executor&& executor = Executor()) {
    using S = element_t<T, Y>;
    detail::run_dct<S>("dct", "x", x, "y", rows<S>(y), false, plan, executor);
}

/// grad_x = M^T grad_y, which is also the inverse. grad_x may be grad_y. Throws and runs like dct.
template <class T = void, class GX = rows<T>, executor Executor = serial_executor>
void dct_backward(in_rows<element_t<T, GX>> grad_y, GX&& grad_x, dct_plan<compute_t<element_t<T, GX>>>& plan,
                  Executor&& executor = Executor()) {
    using S = element_t<T, GX>;
    detail::run_dct<S>("dct_backward", "grad_y", grad_y, "grad_x", rows<S>(grad_x), true, plan, executor);
}

} // namespace DEFT_ISA
} // namespace deft

#endif

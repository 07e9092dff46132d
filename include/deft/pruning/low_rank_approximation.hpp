/// \file
/// The best approximation of a weight by a matrix of rank k: the truncated singular value decomposition.
///
/// The inner step of RPG (arXiv:2311.17493; rank_kit.py of huawei-noah's code), whose result the weights are pushed
/// away from, and how Instruct-IPT (arXiv:2407.00676) compresses the bias of a task. Eckart and Young:
///
///     W = U diag(s) V^T, s_1 >= ... >= s_r, r = min(m, n)      W_k = sum_{i <= k} s_i u_i v_i^T
///     error = ||W - W_k||_F^2 = sum_{i > k} s_i^2, the least of all matrices of rank k
///
/// weight: [m, n]; a convolution [c_out, c_in, kh, kw] is [c_out, c_in kh kw]. approx: [m, n]; u: [m, c], s: [c], v:
/// [n, c] with c >= k, columns behind the k-th are 0; all four may be absent. In each column of u the entry of largest
/// magnitude is positive. Elements are float or double. Ranks are chosen as rank_choice says (weight_spectrum.hpp).
///
///     exact        the whole spectrum in full accuracy
///     gram         through the Gram matrix alone where that is accurate, else exact: see weight_spectrum.hpp
///     randomized   from samples of the range (arXiv:0909.4061): 2 m n (k + oversample) (2 power_iterations + 2) flops;
///                  error exceeds the least by a little, which more power iterations and samples reduce
///     automatic    randomized if rank and accuracy allow and it is cheaper, else gram if accuracy > 0, else exact
#ifndef DEFT_PRUNING_LOW_RANK_APPROXIMATION_HPP
#define DEFT_PRUNING_LOW_RANK_APPROXIMATION_HPP

#include <deft/pruning/low_rank_factors.hpp>

namespace deft {

enum class low_rank_method : unsigned char { automatic, exact, gram, randomized };

struct low_rank_options {
    rank_choice rank;
    low_rank_method method = low_rank_method::automatic;
    double accuracy = 0;        ///< automatic: by how much sqrt(error) may exceed the least, relative
    index oversample = 10;      ///< randomized, without omega: samples beyond k
    index power_iterations = 1; ///< randomized
    std::uint64_t seed = 1;     ///< randomized, without omega: the same numbers for the same seed everywhere
};

struct low_rank_result {
    index rank;             ///< k
    double error;           ///< ||W - W_k||_F^2 of the W_k returned
    low_rank_method method; ///< that was used
};

inline namespace DEFT_ISA {
namespace detail {

/// Whether a random sample is good and cheap enough. Power iterations divide the excess error of a flat spectrum, the
/// worst case, by about 4 each: it is then of the order of 10 % without one, and 1 % with two.
template <class T>
low_rank_method choose_method(const low_rank_options& options, index m, index n) noexcept {
    if (options.method != low_rank_method::automatic)
        return options.method;
    const index r = std::min(m, n), samples = options.rank.rank + options.oversample;
    const double excess = 0.16 / double(index(1) << std::min<index>(2 * options.power_iterations, 40));
    if (options.rank.mode == rank_mode::k && options.rank.rank > 0 && excess <= options.accuracy && r >= 64 &&
        2 * samples <= r)
        return low_rank_method::randomized;
    return options.accuracy > 0 ? low_rank_method::gram : low_rank_method::exact;
}

template <class T>
void check_weight(const char* op, const char* name, const view<const T, 2>& weight) {
    static_assert(std::is_floating_point_v<T>, "weights are float or double");
    check(weight.extent(0) >= 1, op, name, "its extent 0, must be at least 1", double(weight.extent(0)));
    check(weight.extent(1) >= 1, op, name, "its extent 1, must be at least 1", double(weight.extent(1)));
}

template <class T>
weight_spectrum<T> checked_spectrum(const char* op, const char* name, const view<const T, 2>& weight) {
    weight_spectrum<T> spectrum(weight);
    check(spectrum.is_finite(), op, name, "must be finite", std::numeric_limits<double>::quiet_NaN());
    return spectrum;
}

template <class T>
double squared_distance(const view<const T, 2>& a, const view<T, 2>& b, double scale) noexcept {
    constexpr index parts = 8; // sums that do not wait for each other
    double sums[parts] = {};
    const index columns = a.extent(1);
    for (index i = 0; i < a.extent(0); ++i) {
        const T *const x = &a(i, 0), *const y = &b(i, 0);
        for (index j = 0; j < columns; j += parts)
            for (index p = 0; p < std::min(parts, columns - j); ++p) {
                const double d = (double(x[j + p]) - double(y[j + p])) * scale;
                sums[p] += d * d;
            }
    }
    double sum = 0;
    for (const double part : sums)
        sum += part;
    return sum / scale / scale;
}

} // namespace detail

/// Formulas, shapes and methods at the top of this file. omega [n, samples], samples >= k, is the random matrix of
/// `randomized`; absent, it is drawn from the seed.
///
/// k = 0 gives zeros, k >= r gives W itself; for equal singular values at the cut any choice is valid. Entries may be
/// as large or small as T holds. No output may overlap an input or another output. Throws std::invalid_argument before
/// anything is written if an extent is 0, an entry is not finite, rank or oversample or power_iterations is negative,
/// energy or tail_energy lies outside of [0, 1], shapes do not fit, the factors have fewer columns than the rank, or
/// `randomized` is asked for with another mode than rank_mode::k. Allocates a few matrices of the size of W. Errors
/// relative to s_1: 1e-6 (float), 1e-14 (double).
template <class T>
low_rank_result low_rank_approximation(in<T, 2> weight, in<T, 2> omega, out<T, 2> approx, out<T, 2> u, out<T, 1> s,
                                       out<T, 2> v, const low_rank_options& options) {
    using detail::check;
    const char* const op = "low_rank_approximation";
    const index m = weight.extent(0), n = weight.extent(1), r = std::min(m, n);
    detail::check_weight<T>(op, "weight", weight);
    detail::check_rank_choice(op, options.rank);
    check(options.oversample >= 0, op, "oversample", "must not be negative", double(options.oversample));
    check(options.power_iterations >= 0, op, "power_iterations", "must not be negative",
          double(options.power_iterations));
    if (approx.is_given())
        detail::check_same_shape(op, "approx", approx, "weight", weight);
    if (u.is_given())
        detail::check_extent(op, "u", u, 0, m, "extent 0 of weight");
    if (v.is_given())
        detail::check_extent(op, "v", v, 0, n, "extent 1 of weight");
    const low_rank_method method = detail::choose_method<T>(options, m, n);
    const bool is_random = method == low_rank_method::randomized;
    if (is_random) {
        check(options.rank.mode == rank_mode::k, op, "rank.mode", "must be k for a randomized method",
              double(rank_mode(options.rank.mode)));
        if (omega.is_given()) {
            detail::check_extent(op, "omega", omega, 0, n, "extent 1 of weight");
            check(omega.extent(1) >= std::min(options.rank.rank, r), op, "omega", "columns, fewer than the rank",
                  double(omega.extent(1)));
        }
    }
    auto spectrum = detail::checked_spectrum<T>(op, "weight", weight);
    if (!is_random)
        spectrum.decompose(method == low_rank_method::exact);
    const index k = is_random ? std::min(options.rank.rank, r) : detail::choose_rank<T>(spectrum.s, options.rank);
    check(!u.is_given() || u.extent(1) >= k, op, "u", "columns, fewer than the rank", double(u.extent(1)));
    check(!s.is_given() || s.extent(0) >= k, op, "s", "elements, fewer than the rank", double(s.extent(0)));
    check(!v.is_given() || v.extent(1) >= k, op, "v", "columns, fewer than the rank", double(v.extent(1)));

    // W_k is the head, or W less the tail: whichever is smaller. The factors are those of the head.
    const bool wants_factors = u.is_given() || v.is_given();
    const bool from_tail = !is_random && 2 * k > r;
    detail::low_rank_factors<T> head;
    if (is_random) {
        std::vector<T> drawn;
        index samples = std::min(omega.is_given() ? omega.extent(1) : k + options.oversample, r);
        kernels::strided_matrix<const T> sample{omega.data(), omega.stride(0), 1};
        if (!omega.is_given()) {
            drawn.resize(std::size_t(n * samples));
            detail::random_sequence sequence(options.seed);
            for (T& x : drawn)
                x = T(sequence.next());
            sample = {drawn.data(), samples, 1};
        }
        head = detail::random_factors(spectrum, sample, samples, k, options.power_iterations);
    } else if (wants_factors || !from_tail) {
        head = detail::spectrum_factors(spectrum, 0, k);
    }
    low_rank_result result{k, 0, method};
    if (approx.is_given()) {
        if (from_tail)
            detail::write_approximation(detail::spectrum_factors(spectrum, k, r - k), weight, true, approx);
        else
            detail::write_approximation(head, weight, false, approx);
        result.error = detail::squared_distance<T>(weight, approx, double(spectrum.scale));
    } else {
        double total = 0, kept = 0;
        for (const T x : spectrum.a)
            total += double(x) * double(x);
        for (index i = 0; is_random && i < k; ++i)
            kept += std::pow(head.s[std::size_t(i)] / (head.scale / double(spectrum.scale)), 2);
        for (index i = k; !is_random && i < r; ++i)
            result.error += spectrum.s[std::size_t(i)] * spectrum.s[std::size_t(i)];
        result.error = is_random ? std::max(total - kept, 0.0) : result.error;
        result.error = result.error / double(spectrum.scale) / double(spectrum.scale);
    }
    const std::vector<double>& values = is_random ? head.s : spectrum.s;
    const double scale = is_random ? head.scale : double(spectrum.scale);
    for (index i = 0; i < s.extent(0); ++i)
        s(i) = i < k ? T(values[std::size_t(i)] / scale) : T(0);
    if (wants_factors) {
        detail::normalise(head);
        const auto unchanged = [](index) { return 1.0; };
        if (u.is_given())
            detail::write_columns(head.left, k, u, unchanged);
        if (v.is_given())
            detail::write_columns(head.right, k, v, unchanged);
    }
    return result;
}

/// Gradient of the approximation for the cotangent grad_approx, for the exact methods and s_k > s_{k+1}; G =
/// grad_approx, M = U^T G V, a_ij = s_j^2 / (s_i^2 - s_j^2), b_ij = s_i s_j / (s_i^2 - s_j^2), P the projections on the
/// first k:
///
///     grad_weight = P_U G + G P_V - P_U G P_V + sum_{i <= k < j <= r} (a_ij M_ij + b_ij M_ji) u_i v_j^T
///                                                                   + (a_ij M_ji + b_ij M_ij) u_j v_i^T
///
/// Written as U Z: row i <= k of Z is row i of U^T G and a sum of rows of V^T, row j > k a sum of those alone. Infinite
/// or NaN where s_k = s_{k+1}. Throws like low_rank_approximation; returns the rank. Allocates.
template <class T>
index low_rank_approximation_backward(in<T, 2> weight, in<T, 2> grad_approx, view<T, 2> grad_weight,
                                      const rank_choice& rank) {
    const char* const op = "low_rank_approximation_backward";
    detail::check_weight<T>(op, "weight", weight);
    detail::check_rank_choice(op, rank);
    detail::check_same_shape(op, "grad_approx", grad_approx, "weight", weight);
    detail::check_same_shape(op, "grad_weight", grad_weight, "weight", weight);
    auto w = detail::checked_spectrum<T>(op, "weight", weight);
    w.decompose(true);
    const index k = detail::choose_rank<T>(w.s, rank), r = w.r, l = w.l;
    std::vector<T> g(std::size_t(r * l)), z(g.size());
    w.copy_wide(grad_approx, T(1), g.data());
    if (k < r && k > 0) {
        serial_executor here;
        const std::vector<T> q = w.left_rows(0, r);
        std::vector<T> v = w.scaled_rows(0, r), products(std::size_t(r * r)), coefficients(products.size());
        for (index i = 0; i < r; ++i)
            for (index j = 0; j < l; ++j)
                v[std::size_t(i * l + j)] = w.s[std::size_t(i)] <= w.noise()
                                                ? T(0)
                                                : T(double(v[std::size_t(i * l + j)]) / w.s[std::size_t(i)]);
        detail::multiply_rows(q.data(), r, g.data(), r, l, z.data()); // U^T G
        detail::multiply<T>({z.data(), l, 1}, {v.data(), 1, l}, l, false, view<T, 2>(products.data(), {r, r}), here);
        for (index i = 0; i < k; ++i)
            for (index j = k; j < r; ++j) {
                const double si = w.s[std::size_t(i)], sj = w.s[std::size_t(j)], gap = (si - sj) * (si + sj);
                const double a = sj * sj / gap, b = si * sj / gap;
                const double mij = double(products[std::size_t(i * r + j)]),
                             mji = double(products[std::size_t(j * r + i)]);
                coefficients[std::size_t(i * r + j)] = T(a * mij + b * mji);
                coefficients[std::size_t(j * r + i)] = T(mji + a * mji + b * mij);
            }
        std::fill(z.begin() + k * l, z.end(), T(0));
        detail::multiply<T>({coefficients.data(), r, 1}, {v.data(), l, 1}, r, true, view<T, 2>(z.data(), {r, l}), here);
        detail::multiply<T>({q.data(), 1, r}, {z.data(), l, 1}, r, false, view<T, 2>(g.data(), {r, l}), here);
    } else if (k == 0) {
        std::fill(g.begin(), g.end(), T(0));
    }
    for (index i = 0; i < weight.extent(0); ++i)
        for (index j = 0; j < weight.extent(1); ++j)
            grad_weight(i, j) = w.is_tall ? g[std::size_t(j * l + i)] : g[std::size_t(i * l + j)];
    return k;
}

} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// How a rank is chosen from singular values.
#ifndef DEFT_PRUNING_RANK_CHOICE_HPP
#define DEFT_PRUNING_RANK_CHOICE_HPP

#include <deft/config.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace deft {

/// How a rank k is chosen from singular values s_1 >= ... >= s_r; E = sum of all s_i^2.
///
///     k        min(rank, r)
///     energy   the smallest k with sum_{i <= k} s_i^2 >= energy E; r if rounding keeps every sum below
///     tail     r - L for the L >= 1 whose share t_L = (sum of the L smallest s_i^2) / E is closest to tail_energy,
///              the shortest such tail; s_i <= r eps s_1 counts as 0 (RPG's rule: rank_kit.py find_k)
///
/// energy and tail give 0 for a zero matrix.
enum class rank_mode : unsigned char { k, energy, tail };

struct rank_choice {
    required<rank_mode> mode;
    index rank = 0;         ///< k
    double energy = 1;      ///< in [0, 1]
    double tail_energy = 0; ///< in [0, 1]; RPG trains with 0.1 to 0.2
};

inline namespace DEFT_ISA {
namespace detail {

inline void check_rank_choice(const char* op, const rank_choice& choice) {
    const auto in_unit = [](double x) { return x >= 0 && x <= 1; };
    check(choice.mode != rank_mode::k || choice.rank >= 0, op, "rank", "must not be negative", double(choice.rank));
    check(choice.mode != rank_mode::energy || in_unit(choice.energy), op, "energy", "must lie in [0, 1]",
          choice.energy);
    check(choice.mode != rank_mode::tail || in_unit(choice.tail_energy), op, "tail_energy", "must lie in [0, 1]",
          choice.tail_energy);
}

/// The smallest k whose head holds `energy` of all.
inline index rank_of_energy(const std::vector<double>& s, double energy) noexcept {
    double total = 0, head = 0;
    for (const double v : s)
        total += v * v;
    const index r = index(s.size());
    for (index k = 0; k < r; ++k) {
        if (head >= energy * total)
            return k;
        head += s[std::size_t(k)] * s[std::size_t(k)];
    }
    return total == 0 ? 0 : r;
}

/// RPG's rule of the closest tail; eps is that of the type that the weight was given in.
inline index rank_of_tail(const std::vector<double>& s, double tail_energy, double eps) noexcept {
    const index r = index(s.size());
    double total = 0, tail = 0, best = std::numeric_limits<double>::infinity();
    const auto square = [&](index i) {
        const double v = s[std::size_t(i)];
        return v <= double(r) * eps * s[0] ? 0.0 : v * v;
    };
    for (index i = 0; i < r; ++i)
        total += square(i);
    index length = r;
    for (index i = r; total != 0 && i-- > 0;) {
        tail += square(i) / total;
        if (std::abs(tail - tail_energy) < best) {
            best = std::abs(tail - tail_energy);
            length = r - i;
        }
    }
    return r - length;
}

template <class T>
index choose_rank(const std::vector<double>& s, const rank_choice& choice) noexcept {
    switch (choice.mode) {
    case rank_mode::k:
        return std::min(choice.rank, index(s.size()));
    case rank_mode::energy:
        return rank_of_energy(s, choice.energy);
    case rank_mode::tail:
        break;
    }
    return rank_of_tail(s, choice.tail_energy, double(std::numeric_limits<T>::epsilon()));
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

/// \file
/// What a benchmark file writes: comparisons of implementations on one operator, element type and shape.
///
///     void benchmark_my_operator(suite& s) {
///         const auto x = normal<float>(n), y = output<float>(n);
///         s.compare({.op = "my_operator", .type = "f32", .shape = "1x4096", .work = {.items = n, .bytes = 8 * n}})
///             .naive(inputs{x}, outputs{y}, [=](auto* x, auto* y) { reference::my_operator(...); })
///             .add("deft", [=] { deft::my_operator(...); })
///             .add("rival", [=] { ... });
///     }
///
/// Rows are named `<op>/<implementation>/<type>/<shape>`. Before anything is timed, what each implementation leaves in
/// the outputs is compared with the naive code run in double; a row that differs is skipped with an error.
#ifndef DEFT_BENCHMARKS_SUPPORT_SUITE_HPP
#define DEFT_BENCHMARKS_SUPPORT_SUITE_HPP

#include "buffer.hpp"

#include <deque>
#include <functional>
#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace deft::bench {

/// How a memory-bound operator moves its bytes.
enum class traffic { read, in_place, copy, triad };

/// One run of an operator: what it has to do at least, by whatever method. Each part names a measured limit.
struct work {
    double items = 0;                ///< elements of the result
    double bytes = 0;                ///< read and written
    traffic pattern = traffic::copy; ///< of these bytes
    double flops = 0;                ///< a multiply-add counts two
    double exps = 0;                 ///< evaluations of exp
    double erfs = 0;                 ///< evaluations of erf
};

/// In names.
template <class T>
inline constexpr const char* type_name = is_binary16<T>   ? "f16"
                                         : is_bfloat16<T> ? "bf16"
                                         : sizeof(T) == 4 ? "f32"
                                                          : "f64";

using action = std::function<void()>;
using values = std::vector<std::vector<double>>; ///< of each output

/// One implementation in one comparison.
struct row {
    std::string name = {};
    std::string type = {};
    bench::work work = {};
    action run = {};
    action before = {};        ///< untimed, before each repetition: restores an input that `run` overwrites
    action after = {};         ///< untimed, before the comparison: brings a foreign layout into the outputs
    double tolerance = 0;      ///< of that error
    double error = -1;         ///< against naive in double, relative to the output's largest element; < 0: unknown
    std::string mismatch = {}; ///< why this row must not be timed
};

/// What `add` takes besides the function; work and tolerance are those of the comparison unless given.
struct extras {
    action before = {};
    action after = {};
    bench::work work = {};
    double tolerance = 0;
};

/// Operands of the naive code.
template <class... Buffers>
struct inputs {
    std::tuple<Buffers...> buffers;
    explicit inputs(Buffers... b) : buffers(std::move(b)...) {}
};
template <class... Buffers>
struct outputs {
    std::tuple<Buffers...> buffers;
    explicit outputs(Buffers... b) : buffers(std::move(b)...) {}
};

/// All implementations of one operator on one element type and shape.
class comparison {
public:
    struct subject {
        std::string op, type, shape;
        bench::work work = {};
        double tolerance = 0; ///< relative to the largest element of the output; 0: by type
        bool full = false;    ///< only in the full sweep
    };

    explicit comparison(subject s) : subject_(std::move(s)) {}

    /// The loop to beat, and the truth: `f(inputs..., outputs...)` takes pointers to any element type.
    template <class... I, class... O, class F>
    comparison& naive(inputs<I...> in, outputs<O...> out, F f) {
        truth(in, out, f);
        return add("naive", [=] { std::apply(f, std::tuple_cat(pointers(in.buffers), pointers(out.buffers))); });
    }

    /// The truth alone, where the naive code cannot be run on the element type itself.
    template <class... I, class... O, class F>
    comparison& truth(inputs<I...> in, outputs<O...> out, F f) {
        expected_ = [=] {
            const auto in_double = [](auto&... b) { return std::tuple(b.to_double()...); };
            auto exact_in = std::apply(in_double, in.buffers);
            auto exact_out = std::apply(in_double, out.buffers);
            std::apply(f, std::tuple_cat(pointers(exact_in), pointers(exact_out)));
            return std::apply([](auto&... v) { return values{std::move(v)...}; }, exact_out);
        };
        actual_ = [=] { return std::apply([](auto&... b) { return values{b.to_double()...}; }, out.buffers); };
        spoil_ = [=] { std::apply([](auto&... b) { (spoil(b), ...); }, out.buffers); };
        return *this;
    }

    /// Another implementation; it writes the outputs given to `naive`.
    comparison& add(const std::string& implementation, action run, extras more = {});

    /// Fills in `error` and `mismatch` of the chosen rows.
    void verify(const std::vector<row*>& chosen) const;

    std::deque<row>& rows() noexcept {
        return rows_;
    }
    bool is_full() const noexcept {
        return subject_.full;
    }

private:
    template <class Containers>
    static auto pointers(Containers& containers) {
        return std::apply([](auto&... c) { return std::tuple(c.data()...); }, containers);
    }
    template <class T>
    static void spoil(const buffer<T>& b) {
        b.fill(static_cast<T>(std::numeric_limits<compute_t<T>>::quiet_NaN()));
    }
    double default_tolerance() const;

    subject subject_;
    std::deque<row> rows_;
    std::function<values()> expected_, actual_;
    action spoil_; ///< the outputs: rows share them, and one that writes nothing must not pass
};

/// All comparisons of a program.
class suite {
public:
    comparison& compare(comparison::subject s) {
        return comparisons_.emplace_back(std::move(s));
    }
    std::deque<comparison>& comparisons() noexcept {
        return comparisons_;
    }

private:
    std::deque<comparison> comparisons_;
};

} // namespace deft::bench

#endif

/// \file
/// Version, switches, the namespace of the instruction set, and how errors leave the library.
///
/// Standard library only, C++17: kernels and references build on this file.
#ifndef DEFT_CONFIG_HPP
#define DEFT_CONFIG_HPP

#include <cassert>
#include <cstddef>
#include <cstdio>

// The only place that states the version: CMake and the package files read it from here.
#define DEFT_VERSION_MAJOR 0
#define DEFT_VERSION_MINOR 1
#define DEFT_VERSION_PATCH 0

// Under -ffast-math NaN checks vanish and range reductions are re-associated: exp(200) was seen to become -6e9.
#if defined(__FAST_MATH__) && !defined(DEFT_ALLOW_FAST_MATH)
#error "deft gives wrong results under -ffast-math; define DEFT_ALLOW_FAST_MATH to accept that"
#endif

#if defined(__cpp_exceptions) || defined(__EXCEPTIONS)
#define DEFT_EXCEPTIONS 1
#include <stdexcept>
#else
#define DEFT_EXCEPTIONS 0
#include <cstdlib>
#endif

/// Preconditions of kernels, checked in debug builds only: public functions have checked them before.
#ifndef DEFT_ASSERT
#define DEFT_ASSERT(condition) assert(condition)
#endif

// Kernels are inlined for sure: a call per chunk of vectors halved their speed. A lambda takes DEFT_INLINE_LAMBDA
// behind its parameters.
#if defined(__GNUC__) || defined(__clang__)
#define DEFT_ALWAYS_INLINE __attribute__((always_inline)) inline
#define DEFT_INLINE_LAMBDA __attribute__((always_inline))
#define DEFT_NOINLINE __attribute__((noinline))
#define DEFT_RESTRICT __restrict__
#elif defined(_MSC_VER)
#define DEFT_ALWAYS_INLINE __forceinline
#define DEFT_NOINLINE __declspec(noinline)
#define DEFT_RESTRICT __restrict
#else
#define DEFT_ALWAYS_INLINE inline
#define DEFT_INLINE_LAMBDA
#define DEFT_NOINLINE
#define DEFT_RESTRICT
#endif

/// Unrolls the next loop, whose bounds are constant: arrays of batches stay in registers only then (g++ 12 spills them
/// otherwise and reaches a quarter of the FMA peak).
#if defined(__clang__)
#define DEFT_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define DEFT_UNROLL _Pragma("GCC unroll 64")
#else
#define DEFT_UNROLL
#endif

// Code (not data types) lives in an inline namespace named after the instruction set and the flags that change it, so
// that two objects of one program built with different flags never share a function: at -O0 the linker would otherwise
// keep one copy of, say, an AVX2 helper for a caller compiled for SSE2.
#if defined(__AVX512VNNI__)
#define DEFT_ISA_BASE avx512_vnni
#elif defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define DEFT_ISA_BASE avx512
#elif defined(__AVX512F__)
#define DEFT_ISA_BASE avx512f
#elif defined(__AVX2__)
#define DEFT_ISA_BASE avx2
#elif defined(__AVX__)
#define DEFT_ISA_BASE avx
#elif defined(__SSE4_2__)
#define DEFT_ISA_BASE sse4_2
#elif defined(__SSE4_1__)
#define DEFT_ISA_BASE sse4_1
#elif defined(__SSSE3__)
#define DEFT_ISA_BASE ssse3
#elif defined(__SSE3__)
#define DEFT_ISA_BASE sse3
#elif defined(__SSE2__) || defined(_M_X64)
#define DEFT_ISA_BASE sse2
#elif defined(__ARM_FEATURE_DOTPROD)
#define DEFT_ISA_BASE neon_dotprod
#elif defined(__ARM_NEON)
#define DEFT_ISA_BASE neon
#else
#define DEFT_ISA_BASE portable
#endif
#if defined(__FMA__) && !defined(__AVX512F__)
#define DEFT_ISA_FMA _fma
#else
#define DEFT_ISA_FMA
#endif
#if defined(__F16C__) && !defined(__AVX512F__)
#define DEFT_ISA_F16C _f16c
#else
#define DEFT_ISA_F16C
#endif
#if DEFT_EXCEPTIONS
#define DEFT_ISA_ERRORS
#else
#define DEFT_ISA_ERRORS _noexcept
#endif
#if defined(DEFT_BLAS)
#define DEFT_ISA_BLAS _blas
#else
#define DEFT_ISA_BLAS
#endif
#define DEFT_CONCAT5_(a, b, c, d, e) a##b##c##d##e
#define DEFT_CONCAT5(a, b, c, d, e) DEFT_CONCAT5_(a, b, c, d, e)
/// Name of the inline namespace, for example `avx2_fma_f16c`.
#define DEFT_ISA DEFT_CONCAT5(DEFT_ISA_BASE, DEFT_ISA_FMA, DEFT_ISA_F16C, DEFT_ISA_ERRORS, DEFT_ISA_BLAS)
#define DEFT_STRINGIFY_(x) #x
#define DEFT_STRINGIFY(x) DEFT_STRINGIFY_(x)
#define DEFT_ISA_NAME DEFT_STRINGIFY(DEFT_ISA)

namespace deft {

/// Signed type of every extent, stride and count.
using index = std::ptrdiff_t;

/// An option that the caller has to state: papers disagree on it, so it has no default.
/// Leaving it out of a designated initialiser does not compile.
template <class T>
struct required {
    T value;
    DEFT_ALWAYS_INLINE constexpr required(T v) noexcept : value(v) {}
    DEFT_ALWAYS_INLINE constexpr operator T() const noexcept {
        return value;
    }
};

#if !DEFT_EXCEPTIONS
/// Called with the text of an error before the program is aborted, in builds without exceptions.
using error_handler = void (*)(const char* message);

/// The handler in force; null: the text goes to stderr.
inline error_handler current_error_handler = nullptr;

/// Sets the handler; only in builds without exceptions.
inline void set_error_handler(error_handler handler) noexcept {
    current_error_handler = handler;
}
#endif

inline namespace DEFT_ISA {
namespace detail {

[[noreturn]] DEFT_NOINLINE inline void throw_invalid(const char* message) {
#if DEFT_EXCEPTIONS
    throw std::invalid_argument(message);
#else
    if (current_error_handler != nullptr)
        current_error_handler(message);
    else
        std::fprintf(stderr, "%s\n", message);
    std::abort();
#endif
}

/// An argument that is wrong by itself: "deft::op: lambda is 1.5, must lie in [0, 1]".
[[noreturn]] DEFT_NOINLINE inline void fail(const char* op, const char* argument, const char* rule, double value) {
    char text[256];
    std::snprintf(text, sizeof text, "deft::%s: %s is %.9g, %s", op, argument, value, rule);
    throw_invalid(text);
}

/// An argument that does not fit another: "deft::op: extent 1 of y is 7, must be 11 (extent 1 of x)".
[[noreturn]] DEFT_NOINLINE inline void fail_extent(const char* op, const char* argument, int axis, index actual,
                                                   index expected, const char* source) {
    char text[256];
    std::snprintf(text, sizeof text, "deft::%s: extent %d of %s is %td, must be %td (%s)", op, axis, argument, actual,
                  expected, source);
    throw_invalid(text);
}

/// Throws unless `valid`. `rule` completes the sentence "<argument> is <value>, <rule>".
DEFT_ALWAYS_INLINE void check(bool valid, const char* op, const char* argument, const char* rule, double value) {
    if (!valid)
        fail(op, argument, rule, value);
}

/// Throws unless extent `axis` of `argument` is `expected`, which is `source` ("extent 1 of x").
template <class View>
DEFT_ALWAYS_INLINE void check_extent(const char* op, const char* argument, const View& v, int axis, index expected,
                                     const char* source) {
    if (v.extent(axis) != expected)
        fail_extent(op, argument, axis, v.extent(axis), expected, source);
}

/// Throws unless both views have the same shape; they have the same rank.
template <class View, class Other>
DEFT_ALWAYS_INLINE void check_same_shape(const char* op, const char* argument, const View& v,
                                         const char* other_argument, const Other& other) {
    static_assert(View::rank == Other::rank, "views of different rank");
    for (int axis = 0; axis < View::rank; ++axis)
        if (v.extent(axis) != other.extent(axis)) {
            char source[64];
            std::snprintf(source, sizeof source, "extent %d of %s", axis, other_argument);
            fail_extent(op, argument, axis, v.extent(axis), other.extent(axis), source);
        }
}

} // namespace detail
} // namespace DEFT_ISA
} // namespace deft

#endif

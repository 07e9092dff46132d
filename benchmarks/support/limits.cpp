#include "limits.hpp"

#include <deft/config.hpp>
#include <deft/simd/loop.hpp>
#include <deft/simd/math.hpp>

#include <cmath>
#include <stdexcept>

// Memory and arithmetic are measured with the compiler's vectors: a yardstick must not be made of what it measures.
namespace deft::bench {
namespace {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

template <class T>
struct vectors {
    typedef T vector __attribute__((vector_size(vector_bytes), may_alias));
    static constexpr index lanes = vector_bytes / index(sizeof(T));
    static constexpr index unroll = 4;
    static constexpr index step = lanes * unroll;
};

/// Calls `f` for every vector of [0, n), `unroll` at a time. The barrier keeps compilers from calling memcpy instead.
template <class T, class F>
DEFT_ALWAYS_INLINE void sweep(index n, F&& f) {
    using v = vectors<T>;
    for (index i = 0; i + v::step <= n; i += v::step) {
        DEFT_UNROLL
        for (index u = 0; u < v::unroll; ++u)
            f(i + u * v::lanes, u);
        asm volatile("" ::: "memory");
    }
}

template <class T>
DEFT_ALWAYS_INLINE auto& at(T* p) {
    return *reinterpret_cast<typename vectors<T>::vector*>(p);
}

template <class T>
void copy(const T* x, T* y, index n) {
    sweep<T>(n, [&](index i, index) { at(y + i) = at(const_cast<T*>(x) + i); });
}

template <class T>
void scale(T* x, T factor, index n) {
    sweep<T>(n, [&](index i, index) { at(x + i) *= factor; });
}

template <class T>
void triad(T* x, T* z, T* y, T factor, index n) {
    sweep<T>(n, [&](index i, index) { at(y + i) = at(x + i) * factor + at(z + i); });
}

template <class T>
T sum(T* x, index n) {
    typename vectors<T>::vector total[vectors<T>::unroll] = {};
    sweep<T>(n, [&](index i, index u) { total[u] += at(x + i); });
    total[0] += total[1] + total[2] + total[3];
    return total[0][0];
}

/// y = f(x) with the library's vector functions: operators made of such functions cannot be faster than these.
template <class T, class F>
void evaluate(const T* x, T* y, index n, F f) {
    using arch = simd::default_arch;
    simd::for_each_vector<T, arch, 4>(n, [&](index i, auto vectors, auto extent) {
        constexpr int count = decltype(vectors)::value;
        DEFT_UNROLL
        for (int v = 0; v < count; ++v) {
            const index at_v = i + v * simd::lanes<T, arch>;
            simd::store(y + at_v, f(simd::load<arch>(x + at_v, extent)), extent);
        }
    });
}

constexpr index fma_chains = 12; // two units of latency 4 or 5 need 8 to 10; 12 and two constants fit 16 registers
constexpr index fma_rounds = 2048;

template <class T>
void multiply_add(T* values) {
    using vector = typename vectors<T>::vector;
    constexpr index lanes = vectors<T>::lanes;
    vector chain[fma_chains];
    const vector factor = at(values), addend = at(values + lanes);
    DEFT_UNROLL
    for (index c = 0; c < fma_chains; ++c)
        chain[c] = at(values + (c + 2) * lanes);
    for (index round = 0; round < fma_rounds; ++round) {
        DEFT_UNROLL
        for (index c = 0; c < fma_chains; ++c)
            chain[c] = chain[c] * factor + addend;
    }
    DEFT_UNROLL
    for (index c = 0; c < fma_chains; ++c)
        at(values + (c + 2) * lanes) = chain[c];
}

const char* name_of(traffic pattern) {
    switch (pattern) {
    case traffic::read:
        return "read";
    case traffic::in_place:
        return "in_place";
    case traffic::triad:
        return "triad";
    case traffic::copy:
        break;
    }
    return "copy";
}

/// Working sets are measured as they are, not by cache: with the same sizes come the very buffers of the operators.
std::string size_name(double bytes) {
    const index kib = std::max<index>(1, std::lround(bytes / 1024));
    return kib % 1024 == 0 ? std::to_string(kib / 1024) + "MiB" : std::to_string(kib) + "KiB";
}

double size_of(const std::string& name) {
    return std::stod(name) * (name.find("MiB") == std::string::npos ? 1024 : 1024 * 1024);
}

template <class T>
row yardstick(const std::string& what, const std::string& size) {
    if (what == "fma") {
        const auto v = uniform<T>((fma_chains + 2) * vectors<T>::lanes, 0, 1);
        const double flops = 2.0 * double(fma_chains * fma_rounds * vectors<T>::lanes);
        return {.work = {.items = flops, .flops = flops}, .run = [=] { multiply_add(v.data()); }};
    }

    const int tensors = what == "read" || what == "in_place" ? 1 : what == "triad" ? 3 : 2;
    const double bytes = size_of(size);
    const index n = static_cast<index>(bytes) / (tensors * index(sizeof(T)));
    const auto x = normal<T>(n), z = normal<T>(n, 4), y = output<T>(n);
    const work evaluations{.items = double(n), .exps = double(n), .erfs = double(n)};
    const work moved{.items = double(n), .bytes = what == "in_place" ? 2 * bytes : bytes};
    const T one(1); // the data stay what they are, however often the row runs
    if (what == "exp")
        return {.work = evaluations,
                .run = [=] { evaluate(x.data(), y.data(), n, [](const auto& v) { return simd::exp_saturating(v); }); }};
    if (what == "erf")
        return {.work = evaluations,
                .run = [=] { evaluate(x.data(), y.data(), n, [](const auto& v) { return simd::erf(v); }); }};
    if (what == "read")
        return {.work = moved, .run = [=] {
                    volatile T sink = sum(x.data(), n);
                    static_cast<void>(sink);
                }};
    if (what == "in_place")
        return {.work = moved, .run = [=] { scale(y.data(), one, n); }};
    if (what == "triad")
        return {.work = moved, .run = [=] { triad(x.data(), z.data(), y.data(), one, n); }};
    if (what == "copy")
        return {.work = moved, .run = [=] { copy(x.data(), y.data(), n); }};
    if (what == "memcpy") // the C library may know better, and uses non-temporal stores beyond the caches
        return {.work = moved, .run = [=] { std::copy_n(x.data(), n, y.data()); }};
    throw std::invalid_argument("no such limit: " + what);
}

} // namespace

std::vector<bound> bounds_of(const row& r) {
    const std::string type = r.type == "f64" ? "f64" : "f32";
    const auto named = [&](const char* what, const std::string& size) {
        return std::string("limit/") + what + '/' + type + '/' + size;
    };
    std::vector<bound> bounds;
    if (r.work.bytes > 0) {
        const std::string size = size_name(r.work.pattern == traffic::in_place ? r.work.bytes / 2 : r.work.bytes);
        bounds.push_back({&work::bytes, {named(name_of(r.work.pattern), size)}});
        if (r.work.pattern == traffic::copy)
            bounds.back().yardsticks.push_back(named("memcpy", size));
    }
    if (r.work.flops > 0)
        bounds.push_back({&work::flops, {named("fma", "registers")}});
    if (r.work.exps > 0)
        bounds.push_back({&work::exps, {named("exp", "16KiB")}});
    if (r.work.erfs > 0)
        bounds.push_back({&work::erfs, {named("erf", "16KiB")}});
    return bounds;
}

row make_yardstick(const std::string& name) {
    const auto after = [&](std::size_t slash) { return name.find('/', slash) + 1; };
    const std::size_t what = after(0), type = after(what), size = after(type);
    const std::string what_name = name.substr(what, type - what - 1), size_name = name.substr(size);
    row r = name.substr(type, size - type - 1) == "f64" ? yardstick<double>(what_name, size_name)
                                                        : yardstick<float>(what_name, size_name);
    r.name = name;
    return r;
}

} // namespace deft::bench

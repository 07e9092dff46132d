#include "build_facts.hpp"

#include <deft/config.hpp>

#include <Eigen/Core>
#include <benchmark/benchmark.h>

#include <cstdio>
#include <fstream>
#include <map>

#include <dlfcn.h>

#ifndef DEFT_BENCH_FLAGS
#define DEFT_BENCH_FLAGS "unknown"
#endif
#ifndef DEFT_BENCH_BUILD_TYPE
#define DEFT_BENCH_BUILD_TYPE "unknown"
#endif

/// ggml is linked as a static library as often as not, whose symbols dlsym does not see.
extern "C" const char* ggml_version() __attribute__((weak));

namespace deft::bench {
namespace {

std::string processor() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);)
        if (line.rfind("model name", 0) == 0)
            return line.substr(line.find(':') + 2);
    return "unknown";
}

/// Versions of the rivals that were linked, where they have any: "Eigen 3.4.0, OpenBLAS 0.3.21, XNNPACK".
std::string libraries() {
    std::string text = "Eigen " + std::to_string(EIGEN_WORLD_VERSION) + '.' + std::to_string(EIGEN_MAJOR_VERSION) +
                       '.' + std::to_string(EIGEN_MINOR_VERSION);
    if (void* config = dlsym(RTLD_DEFAULT, "openblas_get_config")) {
        const std::string words = reinterpret_cast<const char* (*)()>(config)(); // "OpenBLAS 0.3.21 NO_LAPACKE ..."
        text += ", " + words.substr(0, words.find(' ', words.find(' ') + 1));
    }
    if (void* version = dlsym(RTLD_DEFAULT, "dnnl_version")) {
        const int* numbers = reinterpret_cast<const int* (*)()>(version)(); // the struct begins with these three
        text += ", oneDNN " + std::to_string(numbers[0]) + '.' + std::to_string(numbers[1]) + '.' +
                std::to_string(numbers[2]);
    }
    if (void* version = dlsym(RTLD_DEFAULT, "fftwf_version")) {
        const std::string words = static_cast<const char*>(version); // "fftw-3.3.10-sse2-avx..."
        text += ", FFTW " + words.substr(5, words.find('-', 5) - 5);
    }
    if (ggml_version != nullptr)
        text += std::string(", ggml ") + ggml_version();
#if DEFT_PEER_POCKETFFT
    text += ", pocketfft";
#endif
#if DEFT_PEER_XNNPACK
    text += ", XNNPACK";
#endif
#ifdef DEFT_TORCH_VERSION
    text += ", PyTorch " DEFT_TORCH_VERSION;
#endif
    return text;
}

} // namespace

void add_build_facts(const std::string& family) {
#if defined(__clang__)
    const std::string compiler = "clang " __clang_version__;
#else
    const std::string compiler = "g++ " __VERSION__;
#endif
    const std::map<std::string, std::string> context{{"compiler", compiler}, {"flags", DEFT_BENCH_FLAGS},
                                                     {"isa", DEFT_ISA_NAME}, {"build_type", DEFT_BENCH_BUILD_TYPE},
                                                     {"cpu", processor()},   {"threads", "1"},
                                                     {"family", family},     {"libraries", libraries()}};
    for (const auto& [key, value] : context) {
        benchmark::AddCustomContext(key, value);
        std::fprintf(stderr, "%-10s %s\n", key.c_str(), value.c_str());
    }
#if !defined(NDEBUG) || !defined(__OPTIMIZE__)
    std::fprintf(stderr, "\nWARNING: this is a debug build; its times mean nothing. Use CMAKE_BUILD_TYPE=Release.\n\n");
#endif
}

} // namespace deft::bench

#include "torch.hpp"

#if DEFT_PEER_TORCH

#include <stdexcept>

#include <dlfcn.h>

namespace deft::bench::torch {
namespace {

/// A function of torch_module.cpp. PyTorch takes a second to load, and a minute under callgrind, so that it is loaded
/// only for rows that need it.
template <class Task>
void call(const char* name, const Task& task) {
    static void* const library = dlopen(DEFT_TORCH_MODULE, RTLD_NOW | RTLD_LOCAL);
    void* const function = library == nullptr ? nullptr : dlsym(library, name);
    if (function == nullptr)
        throw std::runtime_error(dlerror());
    reinterpret_cast<void (*)(const Task&)>(function)(task);
}

} // namespace

void run(const series<float>& s) {
    call("deft_torch_series_f32", s);
}

void run(const series<double>& s) {
    call("deft_torch_series_f64", s);
}

void run(const linear& l) {
    call("deft_torch_linear", l);
}

} // namespace deft::bench::torch

#endif

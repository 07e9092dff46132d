#include <cstdio>

bool apply_sse2();
bool apply_avx2();

int main() {
    // Inline functions of the standard library may come from either object, so the machine must know both sets.
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return 77;
    const bool sse2 = apply_sse2(), avx2 = apply_avx2();
    std::printf("sse2 %s, avx2 %s\n", sse2 ? "right" : "wrong", avx2 ? "right" : "wrong");
    return sse2 && avx2 ? 0 : 1;
}

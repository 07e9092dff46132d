// Built twice, see CMakeLists.txt; APPLY is the name of the function.
#include <deft/deft.hpp>

bool APPLY() {
    constexpr deft::index n = 19; // not a multiple of any vector: main loop and tail
    const float scale[2] = {1.0f, -2.0f}, shift[2] = {0.0f, 1.0f};
    float x[n], y[n], annealed[n];
    for (deft::index i = 0; i < n; ++i)
        x[i] = 0.25f * static_cast<float>(i - 9);

    deft::series_activation<float>({x, {1, n}}, {scale, {2}}, {shift, {2}}, {y, {1, n}},
                                   {.form = deft::series_form::outer, .base = deft::activation::relu});
    deft::annealed_activation<float>({x, {1, n}}, {annealed, {1, n}}, {.base = deft::activation::relu, .lambda = 0.5});

    bool right = true;
    for (deft::index i = 0; i < n; ++i) {
        const float relu = x[i] > 0 ? x[i] : 0;
        right = right && y[i] == relu + (-2 * (x[i] + 1 > 0 ? x[i] + 1 : 0)); // exact: multiples of 1/4
        right = right && annealed[i] == 0.5f * relu + 0.5f * x[i];
    }
    return right;
}

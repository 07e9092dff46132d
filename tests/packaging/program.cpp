#include <deft/deft.hpp>

#include <vector>

int main() {
    std::vector<float> x{-1.0f, 2.0f}, y(2);
    deft::annealed_activation(x, y, {.base = deft::activation::relu, .lambda = 0.5});
    return y[0] == -0.5f && y[1] == 2.0f ? 0 : 1;
}

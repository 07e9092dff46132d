#include <vector>

#include <Eigen/Core>
#include <deft/activation/series_activation.hpp>

using RowMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

int main() {
    RowMatrix x = RowMatrix::Random(32, 512), y(32, 512); // tokens x channels
    const std::vector<float> scale{1.0f, 0.5f}, bias{0.0f, -1.0f};

    // y = silu(x) + silu(x / 2 - 1), one pass
    deft::series_activation(x, scale, bias, y, {.form = deft::series_form::inner, .base = deft::activation::silu});

    // x = relu(x) + relu(x - 1) / 2, in place
    deft::series_activation(x, scale, bias, x, {.form = deft::series_form::outer, .base = deft::activation::relu});
}

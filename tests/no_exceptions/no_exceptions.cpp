// Built with -fno-exceptions -fno-rtti: a wrong argument goes, with the text that an exception would have had, to the
// handler of the user.
#include <deft/deft.hpp>

#include <cstdlib>
#include <cstring>
#include <vector>

int main() {
    std::vector<float> x{-1.0f, 2.0f}, y(2);
    deft::annealed_activation(x, y, {.base = deft::activation::relu, .lambda = 0.5});
    if (y[0] != -0.5f || y[1] != 2.0f)
        return EXIT_FAILURE;

    deft::set_error_handler([](const char* message) {
        const bool names_operator_and_argument =
            std::strstr(message, "annealed_activation") != nullptr && std::strstr(message, "lambda") != nullptr;
        std::_Exit(names_operator_and_argument ? EXIT_SUCCESS : EXIT_FAILURE);
    });
    deft::annealed_activation(x, y, {.base = deft::activation::relu, .lambda = 1.5});
    return EXIT_FAILURE; // an error returns to nobody
}

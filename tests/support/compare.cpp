#include "compare.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

namespace deft::testing {

std::string deviation::describe() const {
    char text[160];
    std::snprintf(text, sizeof text, "[%td] is %.17g, expected %.17g, tolerance %.3g", at, got, expected, allowed);
    return text;
}

deviation compare(const tensor& got, const tensor& expected, const tolerance& allowed, double largest) {
    double scale = allowed.floor;
    for (const double e : expected.values)
        if (std::isfinite(e))
            scale = std::max(scale, std::abs(e));

    constexpr double infinity = std::numeric_limits<double>::infinity();
    deviation worst;
    for (std::size_t i = 0; i < expected.values.size(); ++i) {
        const double g = got.values[i];
        const double e =
            std::abs(expected.values[i]) > largest ? std::copysign(infinity, expected.values[i]) : expected.values[i];
        const double bound = allowed.absolute + allowed.relative * std::abs(e) + allowed.of_largest * scale;
        double ratio = 0;
        if (std::isfinite(g) && std::isfinite(e))
            ratio = g == e ? 0 : std::abs(g - e) / bound;
        else if (!(g == e || (std::isnan(g) && std::isnan(e))))
            ratio = infinity;
        if (worst.at < 0 || ratio > worst.ratio)
            worst = {ratio, static_cast<index>(i), g, expected.values[i], std::isfinite(e) ? bound : 0.0};
    }
    return worst;
}

} // namespace deft::testing

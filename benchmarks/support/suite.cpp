#include "suite.hpp"

#include <cmath>
#include <cstdio>
#include <exception>

namespace deft::bench {
namespace {

/// Largest difference relative to the largest element of `expected`; NaN unless all elements are numbers.
double relative_error(const std::vector<double>& actual, const std::vector<double>& expected) {
    double difference = 0, scale = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const double d = std::abs(actual[i] - expected[i]);
        if (std::isnan(d))
            return d;
        difference = std::max(difference, d);
        scale = std::max(scale, std::abs(expected[i]));
    }
    return difference == 0 ? 0 : difference / scale;
}

} // namespace

comparison& comparison::add(const std::string& implementation, action run, extras more) {
    row& added = rows_.emplace_back();
    added.name = subject_.op + '/' + implementation + '/' + subject_.type + '/' + subject_.shape;
    added.type = subject_.type;
    added.work = more.work.items > 0 ? more.work : subject_.work;
    added.tolerance = more.tolerance > 0 ? more.tolerance : default_tolerance();
    added.run = std::move(run);
    added.before = std::move(more.before);
    added.after = std::move(more.after);
    return *this;
}

double comparison::default_tolerance() const {
    if (subject_.tolerance > 0)
        return subject_.tolerance;
    return subject_.type == "f64" ? 1e-11 : subject_.type == "f32" ? 1e-5 : subject_.type == "f16" ? 2e-3 : 1e-2;
}

void comparison::verify(const std::vector<row*>& chosen) const {
    if (chosen.empty() || !expected_)
        return;
    const values expected = expected_();
    for (row* r : chosen)
        try {
            spoil_();
            if (r->before)
                r->before();
            r->run();
            if (r->after)
                r->after();
            const values actual = actual_();
            r->error = 0;
            for (std::size_t i = 0; i < expected.size(); ++i) {
                const double error = relative_error(actual[i], expected[i]);
                if (!(error <= r->error))
                    r->error = error;
            }
            if (!(r->error <= r->tolerance)) {
                char text[128];
                std::snprintf(text, sizeof text, "differs from naive by %.2g of the largest element, allowed are %.2g",
                              r->error, r->tolerance);
                r->mismatch = text;
            }
        } catch (const std::exception& e) {
            r->mismatch = e.what();
        }
}

} // namespace deft::bench

#include "properties.hpp"

#include "allocations.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>

namespace deft::testing {

namespace {

/// The outputs of one direction after a run, by name.
using outputs = std::map<std::string, tensor>;

outputs read_outputs(const call_base& c, direction d) {
    outputs values;
    for (const call_base::result& r : c.results())
        if (r.of == d)
            values[r.name] = c.read(r.name);
    return values;
}

bool same_bits(double left, double right) {
    return std::memcmp(&left, &right, sizeof left) == 0 || (std::isnan(left) && std::isnan(right));
}

/// The first element in which two runs differ; empty if there is none. NaN equals NaN: its payload says nothing.
std::string difference(const outputs& left, const outputs& right) {
    for (const auto& [name, values] : left)
        for (std::size_t i = 0; i < values.values.size(); ++i)
            if (!same_bits(values.values[i], right.at(name).values[i]))
                return name + "[" + std::to_string(i) + "]";
    return "";
}

/// Runs a form; returns what went wrong besides wrong values.
std::string problem_of(call_base& c, const form& f, any_executor& executor, unsigned char pattern) {
    c.prepare(pattern);
    try {
        const std::string fault = faults_of([&] { f.run(executor); });
        return fault.empty() ? c.damage() : fault;
    } catch (const std::exception& e) {
        return std::string("threw: ") + e.what();
    }
}

constexpr direction directions[] = {direction::forward, direction::backward};

/// What the naive reference gives in double, for both directions.
outputs expected_outputs(const operator_entry& op, const test_case& given) {
    call<double> c(given, {});
    op.bind(c);
    outputs values;
    for (const direction d : directions)
        if (c.reference(d)) {
            c.prepare();
            c.reference(d)();
            values.merge(read_outputs(c, d));
        }
    return values;
}

index given_elements(const test_case& given) {
    index n = 0;
    for (const auto& [name, values] : given.given)
        n += index(values.values.size());
    return n;
}

/// Where to try a case: everywhere if it is small.
std::vector<placement> placements(const call_base& c, index elements) {
    std::vector<placement> all;
    const index offsets = elements < 2000 ? 64 / index(sizeof(float)) : 2;
    const auto add = [&](placement p) {
        all.push_back(p);
        if (c.can_have_row_gaps()) {
            p.row_gap = 3;
            all.push_back(p);
        }
    };
    for (const bool in_place : {false, true}) {
        if (in_place && !c.can_be_in_place())
            break;
        for (index offset = 0; offset < offsets; ++offset)
            add({placement::edge::inside, offset, 0, in_place});
        add({placement::edge::at_begin, 0, 0, in_place});
        add({placement::edge::at_end, 0, 0, in_place});
    }
    return all;
}

template <class T>
class run_checks {
public:
    run_checks(const operator_entry& op, const test_case& given) : op_(op), given_(given) {}

    findings all() {
        expected_ = expected_outputs(op_, given_);
        call<T> c(given_, {});
        op_.bind(c);
        for (const placement& where : placements(c, given_elements(given_)))
            values(where);
        for (const direction d : directions)
            for (const form& f : c.forms(d)) {
                contents(c, d, f);
                allocation(c, f);
                threads(c, d, f);
            }
        return found_;
    }

private:
    void report(const char* check, const std::string& what) {
        found_.push_back(
            {check, (sizeof(T) == sizeof(float) ? "float, " : "double, ") + what + ": " + given_.describe()});
    }

    void values(const placement& where) {
        call<T> c(given_, where);
        op_.bind(c);
        for (const direction d : directions)
            for (const form& f : c.forms(d)) {
                const std::string run = f.name + ", " + where.describe() + ": ";
                const std::string problem = problem_of(c, f, serial(), call_base::untouched);
                if (!problem.empty()) {
                    report("values", run + problem);
                    continue;
                }
                for (const call_base::result& r : c.results()) {
                    const auto expected = expected_.find(r.name);
                    if (r.of != d || expected == expected_.end())
                        continue;
                    const deviation worst =
                        compare(c.read(r.name), expected->second, r.bound, double(std::numeric_limits<T>::max()));
                    if (!worst.is_acceptable())
                        report("values", run + r.name + worst.describe());
                }
            }
    }

    void contents(call<T>& c, direction d, const form& f) {
        constexpr unsigned char other = 0x41; // in floating point a number
        if (!problem_of(c, f, serial(), call_base::untouched).empty())
            return; // found before
        const outputs first = read_outputs(c, d);
        if (!problem_of(c, f, serial(), other).empty())
            return;
        const std::string at = difference(first, read_outputs(c, d));
        if (!at.empty())
            report("contents", f.name + ": " + at + " depends on what it held before");
    }

    void allocation(call<T>& c, const form& f) {
        if (!c.reason_to_allocate().empty())
            return;
        for (any_executor* executor : {&serial(), &adversarial()}) {
            const long before = allocations();
            if (!problem_of(c, f, *executor, call_base::untouched).empty())
                return;
            const long count = allocations() - before;
            if (count != 0)
                report("allocation", f.name + ", " + executor->name() + ": " + std::to_string(count) + " allocations");
        }
    }

    void threads(call<T>& c, direction d, const form& f) {
        if (!problem_of(c, f, serial(), call_base::untouched).empty())
            return;
        const outputs first = read_outputs(c, d);
        for (any_executor* executor : unusual_executors()) {
            const std::string problem = problem_of(c, f, *executor, call_base::untouched);
            const std::string at = problem.empty() ? difference(first, read_outputs(c, d)) : "";
            if (!problem.empty())
                report("threads", f.name + ", " + executor->name() + ": " + problem);
            else if (!at.empty())
                report("threads", f.name + ", " + executor->name() + ": " + at + " differs from the serial run");
        }
    }

    const operator_entry& op_;
    const test_case& given_;
    outputs expected_;
    findings found_;
};

} // namespace

template <class T>
findings check_runs(const operator_entry& op, const test_case& given) {
    try {
        return run_checks<T>(op, given).all();
    } catch (const std::exception& e) {
        return {{"values", std::string("threw: ") + e.what() + ": " + given.describe()}};
    }
}

template findings check_runs<float>(const operator_entry&, const test_case&);
template findings check_runs<double>(const operator_entry&, const test_case&);

// ------------------------------------------------------------------------------------------------------ gradient

namespace {

outputs forward_outputs(const operator_entry& op, const test_case& given) {
    call<double> c(given, {});
    op.bind(c);
    c.prepare();
    c.forms(direction::forward).at(0).run(serial());
    return read_outputs(c, direction::forward);
}

struct derivative {
    double value = 0;
    bool at_kink = false;
};

/// d/de of sum grad_out.y y(x + e) for one element x of one input, by differences of fourth order.
derivative numerical_derivative(const operator_entry& op, const test_case& given, const std::string& input,
                                std::size_t element) {
    test_case moved = given;
    double& x = moved.given.at(input).values[element];
    const double x0 = x, h = 1e-3 * std::max(1.0, std::abs(x0));
    outputs y[5]; // at x0 - 2h, ..., x0 + 2h
    for (int step = 0; step < 5; ++step) {
        x = x0 + (step - 2) * h;
        y[step] = forward_outputs(op, moved);
    }

    derivative d;
    for (const auto& [name, cotangent] : given.given) {
        if (name.rfind("grad_out.", 0) != 0)
            continue;
        const std::string output = "out." + name.substr(9);
        for (std::size_t j = 0; j < cotangent.values.size(); ++j) {
            const auto at = [&](int step) { return y[step + 2].at(output).values[j]; };
            const double slope = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h);
            d.value += cotangent.values[j] * slope;

            // Of the order of h^4 in a smooth function, of h if there is a kink within two steps.
            const double fourth = (at(2) - 4 * at(1)) + (at(-2) - 4 * at(-1)) + 6 * at(0);
            if (std::abs(fourth) > 1e-9 * std::max(1.0, std::abs(at(0))))
                d.at_kink = true;
        }
    }
    return d;
}

} // namespace

namespace {

bool is_surrogate(const call_base& c, const std::string& name) {
    for (const call_base::result& r : c.results())
        if (r.name == name)
            return r.is_surrogate;
    return false;
}

findings compare_with_differences(const operator_entry& op, const test_case& given,
                                  std::map<std::string, gradient_tally>& tally) {
    constexpr std::size_t elements_per_input = 12;
    constexpr double allowed = 1e-7; // relative to the largest derivative: what the differences can resolve

    findings found;
    call<double> c(given, {});
    op.bind(c);
    for (const form& f : c.forms(direction::backward)) {
        if (!problem_of(c, f, serial(), call_base::untouched).empty())
            continue; // found by check_runs
        for (const auto& [name, gradient] : read_outputs(c, direction::backward)) {
            if (is_surrogate(c, name)) {
                tally[name]; // there is a gradient, but nothing to compare it with
                continue;
            }
            double largest = 1;
            for (const double g : gradient.values)
                largest = std::max(largest, std::abs(g));
            const std::size_t count = gradient.values.size();
            const std::size_t stride = std::max<std::size_t>(1, count / elements_per_input);
            for (std::size_t i = 0; i < count; i += stride) {
                const derivative d = numerical_derivative(op, given, name.substr(5), i); // grad_in.x -> in.x
                if (d.at_kink && !c.reason_for_kinks().empty()) {
                    ++tally[name].skipped;
                    continue;
                }
                ++tally[name].compared;
                if (!(std::abs(gradient.values[i] - d.value) <= allowed * largest))
                    found.push_back({"gradient", f.name + ": " + name + "[" + std::to_string(i) + "] is " +
                                                     std::to_string(gradient.values[i]) + ", differences give " +
                                                     std::to_string(d.value) + ": " + given.describe()});
            }
        }
    }
    return found;
}

} // namespace

findings check_gradient(const operator_entry& op, const test_case& given,
                        std::map<std::string, gradient_tally>& tally) {
    try {
        return compare_with_differences(op, given, tally);
    } catch (const std::exception& e) {
        return {{"gradient", std::string("threw: ") + e.what() + ": " + given.describe()}};
    }
}

findings check_operator(const operator_entry& op) {
    constexpr std::size_t enough = 10;
    findings found;
    const auto take = [&](const findings& more) { found.insert(found.end(), more.begin(), more.end()); };
    std::map<std::string, gradient_tally> tally;
    bool any_cotangents = false;

    const std::vector<test_case> cases = op.cases();
    if (cases.empty())
        found.push_back({"values", std::string(op.name) + " has no generated cases"});
    for (const test_case& given : cases) {
        take(check_runs<float>(op, given));
        take(check_runs<double>(op, given));
        if (given.has_cotangents() && given_elements(given) < 2000) {
            any_cotangents = true;
            take(check_gradient(op, given, tally));
        }
        if (found.size() >= enough)
            return found;
    }
    if (any_cotangents && tally.empty())
        found.push_back({"gradient", std::string(op.name) + " has cotangents but no gradients"});
    for (const auto& [name, t] : tally)
        if (t.compared < t.skipped)
            found.push_back({"gradient", name + ": " + std::to_string(t.skipped) + " of " +
                                             std::to_string(t.compared + t.skipped) + " elements lie at kinks"});
    return found;
}

} // namespace deft::testing

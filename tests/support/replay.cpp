#include "replay.hpp"

#include <exception>
#include <limits>

namespace deft::testing {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// "[1, 8]" and "[8]" hold the same: axes of extent 1 do not count.
bool same_shape(const extents& left, const extents& right) {
    const auto without_ones = [](const extents& shape) {
        extents result;
        for (const index extent : shape)
            if (extent != 1)
                result.push_back(extent);
        return result;
    };
    return without_ones(left) == without_ones(right) || (element_count(left) == 0 && element_count(right) == 0);
}

template <class T>
class replayer {
public:
    replayer(const test_case& golden, call<T>& c, replay_result& result) : golden_(golden), call_(c), result_(result) {}

    /// What the case expects must be among the outputs, in the same shape.
    bool check_outputs() {
        const std::size_t before = result_.failures.size();
        for (const auto& [name, expected] : golden_.expected) {
            bool found = false;
            for (const call_base::result& r : call_.results())
                if (r.name == name) {
                    found = true;
                    const extents shape = call_.read(name).shape;
                    if (!same_shape(shape, expected.shape))
                        fail("bind", name + " has shape " + to_text(shape) + ", expected " + to_text(expected.shape));
                    else if (call_.forms(r.of).empty())
                        fail("bind", "no form computes " + name);
                }
            if (!found)
                fail("bind", "the operator has no output " + name);
        }
        return result_.failures.size() == before;
    }

    void run(direction d, const form& f, any_executor& executor, const std::string& where) {
        const std::string run = f.name + ", " + executor.name() + (where.empty() ? "" : ", " + where);
        call_.prepare();
        try {
            const std::string fault = faults_of([&] { f.run(executor); });
            if (!fault.empty())
                return fail(run, fault);
        } catch (const std::exception& e) {
            return fail(run, std::string("threw: ") + e.what());
        }
        const std::string damage = call_.damage();
        if (!damage.empty())
            fail(run, damage);
        for (const call_base::result& r : call_.results()) {
            const auto expected = golden_.expected.find(r.name);
            if (r.of != d || expected == golden_.expected.end())
                continue;
            const deviation worst =
                compare(call_.read(r.name), expected->second, r.bound, double(std::numeric_limits<T>::max()));
            result_.worst_ratio = std::max(result_.worst_ratio, worst.ratio);
            if (!worst.is_acceptable())
                result_.failures.push_back({run, r.name + worst.describe(), worst.ratio});
        }
    }

private:
    void fail(const std::string& run, const std::string& what) {
        result_.failures.push_back({run, what, infinity});
    }

    const test_case& golden_;
    call<T>& call_;
    replay_result& result_;
};

} // namespace

template <class T>
replay_result replay(const operator_entry& op, const test_case& golden) {
    replay_result result;
    try {
        call<T> c(golden, {});
        op.bind(c);
        replayer<T> here(golden, c, result);
        if (!here.check_outputs())
            return result;
        std::vector<any_executor*> executors = usual_executors();
        executors.push_back(&adversarial());
        for (const direction d : {direction::forward, direction::backward}) {
            for (const form& f : c.forms(d))
                for (any_executor* executor : executors)
                    here.run(d, f, *executor, "");
            // In float the naive code may lose what operators may not; in double it is what they are compared with.
            if (sizeof(T) == sizeof(double) && c.reference(d))
                here.run(d, {"reference", [&](any_executor&) { c.reference(d)(); }}, serial(), "");
        }
        if (c.can_be_in_place()) {
            placement where;
            where.in_place = true;
            call<T> shared(golden, where);
            op.bind(shared);
            for (const direction d : {direction::forward, direction::backward})
                for (const form& f : shared.forms(d))
                    replayer<T>(golden, shared, result).run(d, f, serial(), "in place");
        }
    } catch (const std::exception& e) {
        result.failures.push_back({"bind", e.what(), infinity});
    }
    return result;
}

template replay_result replay<float>(const operator_entry&, const test_case&);
template replay_result replay<double>(const operator_entry&, const test_case&);

} // namespace deft::testing

// The checks of tests/support must fire: each is shown an operator that is broken in the one way it looks for.
#include "support/allocations.hpp"
#include "support/bad_input.hpp"
#include "support/catch.hpp"
#include "support/generate.hpp"
#include "support/properties.hpp"
#include "support/replay.hpp"

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <set>
#include <stdexcept>

#include <unistd.h>

namespace deft::testing {

namespace {

enum class defect {
    none,
    reads_before,
    reads_behind,
    writes_before,
    writes_behind,
    writes_gap,
    writes_input,
    inexact,
    wrong_at_an_offset,
    wrong_in_place,
    ignores_last,
    adds_to_output,
    uses_new,
    uses_malloc,
    depends_on_cuts,
    throws,
    wrong_gradient,
    has_hidden_kink,
    has_kink,
    is_all_kinks,
    has_no_cases,
};

/// Of the operator that a test looks at: an operator_entry is functions, which have no state.
defect present = defect::none;

bool has(defect d) {
    return present == d;
}

/// y = x^2, elementwise, with the present defect.
struct square {
    /// x |x - 1| instead.
    static bool is_bent() {
        return has(defect::has_hidden_kink) || has(defect::has_kink) || has(defect::is_all_kinks);
    }
    template <class T>
    static T value(T x) {
        return is_bent() ? x * std::abs(x - 1) : x * x;
    }
    template <class T>
    static T derivative(T x) {
        if (is_bent())
            return x > 1 ? 2 * x - 1 : 1 - 2 * x;
        return has(defect::wrong_gradient) ? T(1.999) * x : 2 * x;
    }

    /// Reads a byte, and the compiler may not leave it out.
    static void touch(const void* p) {
        static_cast<void>(*static_cast<const volatile unsigned char*>(p));
    }

    template <class T>
    static void run(rows<const T> x, rows<T> y, any_executor& executor) {
        const index n = x.extent(0), channels = x.extent(1);
        if (n == 0 || channels == 0)
            return;
        if (has(defect::reads_before))
            touch(&x(0, 0) - 1);
        if (has(defect::reads_behind))
            touch(&x(n - 1, channels - 1) + 1);
        if (has(defect::writes_before))
            (&y(0, 0))[-1] = 0;
        if (has(defect::writes_behind))
            (&y(n - 1, channels - 1))[1] = 0;
        if (has(defect::writes_gap) && n > 1)
            (&y(0, channels - 1))[1] = 0;
        if (has(defect::uses_new))
            touch(std::make_unique<T>().get());
        if (has(defect::uses_malloc)) {
            void* const memory = std::malloc(8);
            *static_cast<volatile unsigned char*>(memory) = 0;
            std::free(memory);
        }
        if (has(defect::throws))
            throw std::invalid_argument("deft::square: x is odd");

        executor.parallel_for(n, 1, [=](index begin, index end) {
            for (index r = begin; r < end; ++r)
                for (index c = 0; c < channels; ++c) {
                    T result = value(x(r, c));
                    if (has(defect::inexact))
                        result *= T(1.001);
                    if (has(defect::wrong_at_an_offset) && reinterpret_cast<std::uintptr_t>(x.data()) % 64 == 24)
                        result += 1;
                    if (has(defect::wrong_in_place) && x.data() == y.data())
                        result += 1;
                    if (has(defect::adds_to_output) && !std::isnan(y(r, c)))
                        result += y(r, c);
                    if (has(defect::depends_on_cuts))
                        result += T(end - begin) * std::numeric_limits<T>::epsilon() * result;
                    if (has(defect::ignores_last) && r == n - 1 && c == channels - 1)
                        continue;
                    y(r, c) = result;
                }
        });
        if (has(defect::writes_input))
            const_cast<T&>(x(0, 0)) += 1;
    }

    template <class T>
    static void bind(call<T>& c) {
        const tolerance bound = by_type<T>({1e-6, 1e-6}, {1e-14, 1e-14});
        const auto x = c.input(any_rank<>, "in.x");
        const auto y = c.output(any_rank<>, "out.y", c.shape("in.x"), {.bound = bound, .in_place = "in.x"});
        c.forward("direct", [=](any_executor& e) { run<T>(x, y, e); });
        c.reference([=] {
            for (index r = 0; r < x.extent(0); ++r)
                for (index i = 0; i < x.extent(1); ++i)
                    y(r, i) = value(x(r, i));
        });
        if (has(defect::has_kink) || has(defect::is_all_kinks))
            c.has_kinks("the derivative jumps at 1");
        if (!c.has("grad_out.y"))
            return;
        const auto grad_y = c.input(any_rank<>, "grad_out.y");
        const auto grad_x = c.output(any_rank<>, "grad_in.x", c.shape("in.x"), {.bound = bound});
        c.backward("direct", [=](any_executor&) {
            for (index r = 0; r < x.extent(0); ++r)
                for (index i = 0; i < x.extent(1); ++i)
                    grad_x(r, i) = grad_y(r, i) * derivative(x(r, i));
        });
    }

    static std::vector<test_case> cases() {
        random_values random(1);
        std::vector<test_case> cases;
        for (const index length : {0, 1, 5, 40})
            for (const index rows : {1, 3})
                if (!has(defect::has_no_cases))
                    cases.push_back(
                        {"square",
                         "generated",
                         {},
                         {{"in.x", random.normal({rows, length})}, {"grad_out.y", random.normal({rows, length})}},
                         {}});
        if (has(defect::is_all_kinks))
            for (test_case& c : cases)
                for (double& x : c.given.at("in.x").values)
                    x = 1;
        return cases;
    }

    static constexpr operator_entry entry{"square", &bind<float>, &bind<double>, &cases};
};

/// The names of the checks that have findings.
std::set<std::string> checks_that_fire(defect d) {
    present = d;
    std::set<std::string> checks;
    for (const finding& f : check_operator(square::entry)) {
        INFO(f.check << ": " << f.what);
        CHECK(!f.what.empty());
        checks.insert(f.check);
    }
    return checks;
}

std::string first_finding(defect d) {
    present = d;
    const findings found = check_operator(square::entry);
    return found.empty() ? "nothing" : found.front().what;
}

using Catch::Matchers::Contains;
using only = std::set<std::string>;

/// One golden case of `square`.
test_case golden(const std::vector<double>& x, const std::vector<double>& y) {
    const extents shape{index(x.size())};
    return {"square", "golden", {}, {{"in.x", {shape, x, false}}}, {{"out.y", {shape, y, false}}}};
}

std::string first_failure(const replay_result& result) {
    return result.failures.empty() ? "nothing" : result.failures.front().run + ": " + result.failures.front().what;
}

} // namespace

TEST_CASE("a sound operator passes every check") {
    CHECK(first_finding(defect::none) == "nothing");
}

TEST_CASE("reading outside of the inputs is found") {
    CHECK_THAT(first_finding(defect::reads_before), Contains("touched memory outside"));
    CHECK_THAT(first_finding(defect::reads_behind), Contains("touched memory outside"));
}

TEST_CASE("writing outside of the outputs is found") {
    CHECK_THAT(first_finding(defect::writes_before), Contains("wrote outside of out.y, before its first"));
    CHECK_THAT(first_finding(defect::writes_behind), Contains("wrote outside of out.y, after its last"));
    CHECK_THAT(first_finding(defect::writes_gap), Contains("wrote outside of out.y, between rows 0 and 1"));
    CHECK_THAT(first_finding(defect::writes_input), Contains("changed in.x[0]"));
}

TEST_CASE("wrong values are found wherever the tensors lie") {
    CHECK(checks_that_fire(defect::inexact).count("values") == 1);
    CHECK_THAT(first_finding(defect::inexact), Contains("out.y[0] is"));
    CHECK_THAT(first_finding(defect::wrong_at_an_offset), Contains("offset "));
    CHECK_THAT(first_finding(defect::wrong_in_place), Contains("in place"));
    CHECK_THAT(first_finding(defect::throws), Contains("threw: deft::square: x is odd"));
}

TEST_CASE("results that depend on what was there before are found") {
    CHECK(checks_that_fire(defect::ignores_last).count("contents") == 1);
    CHECK(checks_that_fire(defect::adds_to_output).count("contents") == 1);
}

TEST_CASE("allocations are found") {
    CHECK(checks_that_fire(defect::uses_new) == only{"allocation"});
    CHECK(checks_that_fire(defect::uses_malloc) == only{"allocation"});

    // Through a volatile pointer: compilers may drop an allocation whose memory is not used.
    void* (*volatile allocate)(std::size_t) = std::malloc;
    const long before = allocations();
    void* const memory = allocate(24);
    const long after = allocations();
    std::free(memory);
    CHECK(after == before + 1);
}

TEST_CASE("results that depend on how the range is cut are found") {
    CHECK(checks_that_fire(defect::depends_on_cuts).count("threads") == 1);
}

TEST_CASE("wrong gradients are found by differences") {
    CHECK(checks_that_fire(defect::wrong_gradient) == only{"gradient"});
}

TEST_CASE("kinks are skipped only where they are and only if they are announced") {
    test_case at_kink = golden({1.0, 3.0}, {0.0, 6.0});
    at_kink.given["grad_out.y"] = {{2}, {1.0, 1.0}, false};
    std::map<std::string, gradient_tally> tally;
    present = defect::has_kink;
    CHECK(check_gradient(square::entry, at_kink, tally).empty());
    CHECK(tally["grad_in.x"].skipped == 1);
    CHECK(tally["grad_in.x"].compared == 1);
    present = defect::has_hidden_kink;
    CHECK(check_gradient(square::entry, at_kink, tally).size() == 1);

    CHECK(checks_that_fire(defect::is_all_kinks) == only{"gradient"});
}

TEST_CASE("an operator without generated cases is found") {
    CHECK_THAT(first_finding(defect::has_no_cases), Contains("no generated cases"));
}

TEST_CASE("replay accepts what is expected and nothing else") {
    present = defect::none;
    const operator_entry& op = square::entry;
    const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();

    CHECK(first_failure(replay<float>(op, golden({1, -2}, {1, 4}))) == "nothing");
    CHECK(first_failure(replay<float>(op, golden({nan, infinity}, {nan, infinity}))) == "nothing");
    CHECK(first_failure(replay<float>(op, golden({1e30}, {1e60}))) == "nothing");          // infinite in float
    const double ratio = replay<double>(op, golden({1, 2}, {1, 4 + 2.5e-14})).worst_ratio; // of 5e-14
    CHECK((ratio > 0.4 && ratio < 0.6));

    CHECK_THAT(first_failure(replay<double>(op, golden({1, 2}, {1, 4.001}))),
               Contains("direct, serial: out.y[1] is 4, expected 4.001"));
    CHECK_THAT(first_failure(replay<double>(op, golden({1}, {nan}))), Contains("out.y[0] is 1, expected nan"));
    CHECK_THAT(first_failure(replay<double>(op, golden({nan}, {1}))), Contains("out.y[0] is nan"));
    CHECK_THAT(first_failure(replay<double>(op, golden({infinity}, {-infinity}))), Contains("expected -inf"));

    test_case unknown_output = golden({1}, {1});
    unknown_output.expected["out.z"] = unknown_output.expected["out.y"];
    CHECK_THAT(first_failure(replay<double>(op, unknown_output)), Contains("no output out.z"));
    test_case other_shape = golden({1, 2}, {1, 4});
    other_shape.expected["out.y"] = {{3}, {1, 4, 9}, false};
    CHECK_THAT(first_failure(replay<double>(op, other_shape)), Contains("out.y has shape [2], expected [3]"));
    test_case incomplete = golden({1}, {1});
    incomplete.given.clear();
    CHECK_THAT(first_failure(replay<double>(op, incomplete)), Contains("does not give in.x"));
    test_case without_cotangent = golden({1}, {1});
    without_cotangent.expected["grad_in.x"] = without_cotangent.expected["out.y"];
    CHECK_THAT(first_failure(replay<double>(op, without_cotangent)), Contains("no output grad_in.x"));
}

TEST_CASE("replay finds more than wrong values") {
    const auto failure_of = [](defect d) {
        present = d;
        return first_failure(replay<float>(square::entry, golden({1, 2, 3}, {1, 4, 9})));
    };
    CHECK_THAT(failure_of(defect::throws), Contains("threw"));
    CHECK_THAT(failure_of(defect::writes_behind), Contains("wrote outside"));
    CHECK_THAT(failure_of(defect::wrong_in_place), Contains("in place"));
}

TEST_CASE("memory beyond a guarded stretch cannot be touched") {
    for (const std::size_t bytes : {std::size_t(0), std::size_t(1), std::size_t(4096), std::size_t(5000)}) {
        const guarded_memory at_end(bytes, placement::edge::at_end, 0);
        const guarded_memory at_begin(bytes, placement::edge::at_begin, 0);
        CHECK(faults_of([&] { at_end.data()[bytes] = 0; }) == "touched memory outside of its tensors");
        CHECK(faults_of([&] { at_begin.data()[-1] = 0; }) == "touched memory outside of its tensors");
        for (std::size_t i = 0; i < bytes; ++i)
            at_end.data()[i] = at_begin.data()[i] = 0;
    }
    CHECK_THROWS_AS(faults_of([] { throw std::runtime_error("passes through"); }), std::runtime_error);
}

TEST_CASE("tables of bad input tell why a call does not pass") {
    bad_input bad("square");
    float* const y = bad.output<float>(3);
    const auto complaint = [&](const std::function<void()>& call) { return bad.rejects("x", call).complaint; };

    CHECK(bad.rejects("x", [] { throw std::invalid_argument("deft::square: x is odd"); }));
    CHECK(complaint([] {}) == "was accepted");
    CHECK_THAT(complaint([] { throw std::runtime_error("deft::square: x is odd"); }), Contains("something else"));
    CHECK_THAT(complaint([] { throw std::invalid_argument("deft::cube: x is odd"); }), Contains("not name square"));
    CHECK_THAT(complaint([] { throw std::invalid_argument("deft::square: max is odd"); }), Contains("not name x"));
    CHECK_THAT(complaint([=] {
                   y[2] = 1;
                   throw std::invalid_argument("deft::square: x is odd");
               }),
               Contains("wrote to an output"));
}

TEST_CASE("golden files are read with everything that Python writes") {
    const std::string header =
        R"({"__metadata__":{"op":"square","params":"{\"a\": NaN, \"b\": [-Infinity, null, true],)"
        R"( \"c\": \"NaN \\\" Infinity\"}"},)"
        R"("in.x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
        R"("out.y":{"dtype":"F32","shape":[],"data_offsets":[2,6]}})";
    const std::filesystem::path path =
        std::filesystem::temp_directory_path() / ("deft_case_" + std::to_string(::getpid()) + ".safetensors");
    const auto write = [&](const std::string& text) {
        const std::uint64_t length = text.size();
        std::ofstream file(path, std::ios::binary);
        file.write(reinterpret_cast<const char*>(&length), sizeof length);
        file << text << std::string("\x01\x02\x00\x00\x80\x3f", 6);
    };
    write(header);
    const test_case read = read_case(path);
    write(R"({"__metadata__":{},)" + header.substr(header.find("\"in.x\"")));
    CHECK_THROWS_WITH(read_case(path), Contains(path.string()) && Contains("has no op"));
    std::filesystem::remove(path);
    CHECK_THROWS_WITH(read_case(path), Contains(path.string()));

    CHECK(read.op == "square");
    CHECK(read.given.at("in.x").values == std::vector<double>{1, 2});
    CHECK(read.given.at("in.x").is_integer);
    CHECK(read.expected.at("out.y").shape.empty());
    CHECK(read.expected.at("out.y").values == std::vector<double>{1});
    call<float> c(read, {});
    CHECK(std::isnan(c.number("a")));
    CHECK(c.text("c") == "NaN \" Infinity");
    CHECK(c.param("b").items.at(0).text == "-Infinity");
    CHECK(c.param("b").items.at(1).type == parameter::kind::null);
    CHECK(c.param("b").items.at(2).number == 1);
    CHECK(c.number("d", 7) == 7);
    CHECK_THROWS_WITH(c.number("d"), Contains("no parameter d"));
    CHECK_THROWS_WITH(c.integer("a"), Contains("a is not an integer"));
    CHECK_THROWS_WITH(c.choice("c", names<int>{{"one", 1}}), Contains("c is 'NaN"));
}

TEST_CASE("tensors of other types, of rank 0, and states are bound") {
    test_case given{"any", "bound", {}, {}, {}};
    given.given["in.mask"] = {{2, 3}, {1, 0, 1, 1, 0, 255}, true};
    given.given["in.scale"] = {{}, {0.5}, false};
    given.given["in.state"] = {{2}, {3, 4}, false};
    call<float> c(given, {placement::edge::inside, 1, 2, false});
    const auto mask = c.input(rank<2, std::uint8_t>, "in.mask");
    const auto state = c.output(rank<1>, "out.state", c.shape("in.state"), {.initial = "in.state"});
    const auto sum = c.output(any_rank<std::int64_t>, "out.sum", {});
    CHECK(c.scalar("in.scale") == 0.5);
    CHECK(c.has("in.scale"));
    CHECK_FALSE(c.has("out.state"));
    CHECK_THROWS_WITH(c.input(rank<2>, "in.state"), Contains("takes rank 2"));
    CHECK_THROWS_WITH(c.input(rank<1, std::int64_t>, "in.state"), Contains("holds no integers"));

    c.prepare();
    CHECK(mask(1, 2) == 255);
    CHECK(mask.stride(0) == 5);
    CHECK(state(1) == 4);
    sum(0, 0) = -7;
    CHECK(c.read("out.sum").values == std::vector<double>{-7});
    CHECK(c.read("out.sum").shape.empty());
    CHECK(c.damage().empty());
}

} // namespace deft::testing

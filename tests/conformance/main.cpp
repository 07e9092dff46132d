// deft_conformance: replays golden cases with every instruction set that was built and that this CPU has.
#include "support/replay.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <string>
#include <vector>

namespace fs = std::filesystem;
using namespace deft::testing;

#define DEFT_TABLES X(native) DEFT_CONFORMANCE_ISAS
#define X(isa) extern "C" const operator_table* deft_operators_##isa();
DEFT_TABLES
#undef X

namespace {

#if defined(__x86_64__) || defined(__i386__)
bool cpu_has(const std::string& isa) {
    if (isa == "avx2")
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (isa == "avx512")
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return true;
}
#else
bool cpu_has(const std::string&) {
    return true;
}
#endif

struct options {
    bool in_float = true, in_double = true, list = false;
    std::vector<fs::path> paths;
};

struct totals {
    int cases = 0, failed = 0;
    double worst = 0; // error / tolerance
};

void print_usage() {
    std::fprintf(stderr, "usage: deft_conformance [--type float|double|both] [--list] FILE_OR_DIRECTORY...\n"
                         "  --type   the types to replay the cases in (default: both)\n"
                         "  --list   prints the cases, or without paths the operators, and runs nothing\n");
}

bool parse(int argc, char** argv, options& o) {
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        if (argument == "--list") {
            o.list = true;
        } else if (argument == "--type" && i + 1 < argc) {
            const std::string type = argv[++i];
            if (type != "float" && type != "double" && type != "both")
                return false;
            o.in_float = type != "double";
            o.in_double = type != "float";
        } else if (argument.size() > 1 && argument[0] == '-') {
            return false;
        } else {
            o.paths.push_back(argument);
        }
    }
    return o.list || !o.paths.empty();
}

/// The tables this CPU can run; says which it cannot.
std::vector<const operator_table*> usable_tables() {
    std::vector<const operator_table*> tables;
#define X(isa)                                                                                                         \
    if (cpu_has(#isa))                                                                                                 \
        tables.push_back(deft_operators_##isa());                                                                      \
    else                                                                                                               \
        std::printf("skipping " #isa ": this CPU lacks it\n");
    DEFT_TABLES
#undef X
    return tables;
}

/// Files as they are given, directories as all the .safetensors below them; sorted.
std::vector<fs::path> find_cases(const std::vector<fs::path>& paths) {
    std::vector<fs::path> files;
    for (const fs::path& path : paths)
        if (fs::is_directory(path)) {
            for (const fs::directory_entry& entry : fs::recursive_directory_iterator(path))
                if (entry.is_regular_file() && entry.path().extension() == ".safetensors")
                    files.push_back(entry.path());
        } else {
            files.push_back(path);
        }
    std::sort(files.begin(), files.end());
    return files;
}

/// Replays one case in all types and instruction sets. Prints a line if it fails: the worst of all runs.
void run_case(const test_case& golden, const std::vector<const operator_table*>& tables, const options& o, totals& t) {
    struct {
        std::string run, what;
        double ratio = -1;
    } worst;
    int failures = 0;
    const auto take = [&](const replay_result& result, const std::string& type, const char* isa) {
        t.worst = std::max(t.worst, result.worst_ratio);
        for (const failure& f : result.failures) {
            ++failures;
            if (f.ratio > worst.ratio)
                worst = {type + ", " + isa + ", " + f.run, f.what, f.ratio};
        }
    };
    for (const operator_table* table : tables) {
        const operator_entry* op = table->find(golden.op);
        if (op == nullptr) {
            take({0, {{"", "no such operator", std::numeric_limits<double>::infinity()}}}, "any type", table->isa);
            continue;
        }
        if (o.in_float)
            take(replay<float>(*op, golden), "float", table->isa);
        if (o.in_double)
            take(replay<double>(*op, golden), "double", table->isa);
    }
    ++t.cases;
    if (failures == 0)
        return;
    ++t.failed;
    std::printf("FAIL %s/%s (%s): %s", golden.op.c_str(), golden.name.c_str(), worst.run.c_str(), worst.what.c_str());
    if (failures > 1)
        std::printf("; %d more", failures - 1);
    std::printf("\n");
}

int list(const std::vector<const operator_table*>& tables, const std::vector<fs::path>& files) {
    if (files.empty())
        for (const operator_entry* op : tables.front()->operators)
            std::printf("%s\n", op->name);
    int unreadable = 0;
    for (const fs::path& file : files)
        try {
            const test_case golden = read_case(file);
            std::printf("%s/%s %s\n", golden.op.c_str(), golden.name.c_str(), file.c_str());
        } catch (const std::exception& e) {
            std::printf("FAIL %s\n", e.what());
            ++unreadable;
        }
    return unreadable == 0 ? 0 : 1;
}

int replay_all(const std::vector<const operator_table*>& tables, const std::vector<fs::path>& files, const options& o) {
    std::map<std::string, totals> per_operator;
    int unreadable = 0;
    for (const fs::path& file : files)
        try {
            const test_case golden = read_case(file);
            run_case(golden, tables, o, per_operator[golden.op]);
        } catch (const std::exception& e) {
            std::printf("FAIL %s\n", e.what());
            ++unreadable;
        }

    totals all{unreadable, unreadable, 0};
    std::printf("\n%-32s %6s %7s %22s\n", "operator", "cases", "failed", "worst error/tolerance");
    for (const auto& [name, t] : per_operator) {
        std::printf("%-32s %6d %7d %22.3g\n", name.c_str(), t.cases, t.failed, t.worst);
        all.cases += t.cases;
        all.failed += t.failed;
    }
    std::printf("%d passed, %d failed\n", all.cases - all.failed, all.failed);
    return all.failed == 0 ? 0 : 1;
}

} // namespace

int main(int argc, char** argv) {
    options o;
    if (!parse(argc, argv, o)) {
        print_usage();
        return 1;
    }
    try {
        const std::vector<const operator_table*> tables = usable_tables();
        const std::vector<fs::path> files = find_cases(o.paths);
        if (!o.paths.empty() && files.empty()) {
            std::printf("no .safetensors files found\n0 passed, 0 failed\n");
            return 1;
        }
        return o.list ? list(tables, files) : replay_all(tables, files, o);
    } catch (const std::exception& e) {
        std::printf("FAIL %s\n", e.what());
        return 1;
    }
}
